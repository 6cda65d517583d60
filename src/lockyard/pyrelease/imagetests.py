"""What an image of a Python package must show before it is published: it starts, it is the release, nobody is root. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lockyard.checks.plan import TestOutcome
from lockyard.oci.image import canonical_json
from lockyard.oci.values import Digest
from lockyard.ports.containers import RunResult
from lockyard.pyrelease.runtimes import Runtime

VERSION_LABEL = "org.opencontainers.image.version"
_ASK = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
_KEPT = 2000  # characters of a failure that go into the record
COMMAND, VERSION, LABEL, USER = "command", "version", "label", "user"
TIMEOUT = 300.0
"""Seconds for each command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChecks:
    """The checks of one image: the words that its entry point gets, the package and the version that must be inside."""

    runtime: Runtime
    package: str
    package_version: str
    image_version: str

    @property
    def digest(self) -> Digest:
        """What a record of these checks belongs to."""
        runtime = self.runtime
        parts = [1, list(runtime.check), self.package, self.package_version, self.image_version, self._user]
        return Digest.of(canonical_json(parts))

    @property
    def _user(self) -> str:
        return f"{self.runtime.user.uid}:{self.runtime.user.gid}"

    def commands(self, config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return test → the command that runs inside; `config` is the runtime configuration of the image."""
        entry = tuple(config.get("Entrypoint") or ()) or tuple(config.get("Cmd") or ())
        return {COMMAND: (*entry, *self.runtime.check), VERSION: ("python3", "-c", _ASK, self.package)}

    def judge(self, config: Mapping[str, Any], results: Mapping[str, RunResult]) -> tuple[TestOutcome, ...]:
        """Return the outcome of every check, sorted by name."""
        started, inside = results[COMMAND], results[VERSION]
        label = (config.get("Labels") or {}).get(VERSION_LABEL)
        said = inside.output.strip()
        found = {
            COMMAND: None if started.exit_code == 0 else f"{_tail(started)}\nexit code {started.exit_code}",
            VERSION: None
            if inside.exit_code == 0 and said == self.package_version
            else f"{self.package} inside is {_tail(inside)}, not {self.package_version}",
            LABEL: None if label == self.image_version else f"{VERSION_LABEL} is {label}, not {self.image_version}",
            USER: None
            if config.get("User") == self._user
            else f"USER is {config.get('User') or 'root'}, not {self._user}",
        }
        return tuple(
            TestOutcome(name, "passed" if why is None else "failed", why or "") for name, why in sorted(found.items())
        )


def _tail(result: RunResult) -> str:
    return result.output.strip()[-_KEPT:]
