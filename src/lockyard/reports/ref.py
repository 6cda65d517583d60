"""How a release is named on the command line. Light: `--help` loads it."""

from dataclasses import dataclass

from lockyard.errors import ConfigError
from lockyard.version import Version


@dataclass(frozen=True, slots=True)
class ReleaseRef:
    """A release, as it is in the work tree or in a git revision: `1.4.2` or `1.4.2@main`."""

    version: Version
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ReleaseRef":
        """Parse `VERSION[@REVISION]`.

        Raises:
            ConfigError: the version is malformed or the revision empty.

        """
        version, at, revision = text.partition("@")
        if at and not revision:
            raise ConfigError(f"{text!r} names no git revision after the @")
        return cls(Version.parse(version), revision or None)

    def __str__(self) -> str:
        return f"{self.version}@{self.revision}" if self.revision else str(self.version)
