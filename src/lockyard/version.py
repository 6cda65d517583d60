"""Release versions: strict SemVer without build metadata (SemVer 2.0.0, sections 2, 9 and 11), their bumps and places."""

import enum
import functools
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from lockyard.errors import ConfigError

_NUMBER = r"0|[1-9]\d*"
_IDENTIFIER = rf"(?:{_NUMBER}|\d*[A-Za-z-][0-9A-Za-z-]*)"
_PRE = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"
_PRE_RE = re.compile(_PRE, re.ASCII)
_VERSION_RE = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_PRE}))?", re.ASCII)
_SHORT_RE = re.compile(rf"v?({_NUMBER})(?:\.({_NUMBER}))?(?:\.({_NUMBER}))?", re.ASCII)
_MAX_LENGTH = 100  # a version is part of file names and of tags, which end at 128 characters


class Bump(enum.StrEnum):
    """Which component of a version moves."""

    PATCH = "patch"
    MINOR = "minor"
    MAJOR = "major"


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A release version `X.Y.Z` or `X.Y.Z-pre.1`, ordered by SemVer precedence.

    >>> Version.parse("1.4.2-beta.1") < Version.parse("1.4.2")
    True
    """

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `text` strictly.

        Raises:
            ConfigError: `text` is not a version; the hint names the nearest one.

        """
        match = _VERSION_RE.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            raise ConfigError(f"{text[:_MAX_LENGTH]!r} is not a version X.Y.Z or X.Y.Z-pre.1", hint=_suggestion(text))
        major, minor, patch, pre = match.groups()
        return cls(int(major), int(minor), int(patch), tuple(pre.split(".")) if pre else ())

    @property
    def is_pre_release(self) -> bool:
        """Whether this is a pre-release."""
        return bool(self.pre)

    @property
    def final(self) -> "Version":
        """The version without its pre-release identifier."""
        return Version(self.major, self.minor, self.patch)

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        return f"{text}-{'.'.join(self.pre)}" if self.pre else text

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._key() < other._key()

    def _key(self) -> tuple[object, ...]:
        # Section 11: numeric identifiers sort before others, a final version after its pre-releases.
        pre = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        return (self.major, self.minor, self.patch, not self.pre, pre)


def parse_identifier(text: str) -> tuple[str, ...]:
    """Parse a pre-release identifier such as `beta.1`.

    Raises:
        ConfigError: it is not a dotted SemVer identifier.

    """
    if len(text) > _MAX_LENGTH or not _PRE_RE.fullmatch(text):
        raise ConfigError(
            f"{text[:_MAX_LENGTH]!r} is not a pre-release identifier",
            hint="use letters, digits and hyphens, separated by dots, such as beta.1; a number has no leading zero",
        )
    return tuple(text.split("."))


def bump(base: Version, part: Bump, identifier: str | None = None) -> Version:
    """Return the version that follows `base`.

    A pre-release base keeps its identifier and takes no other.

    Raises:
        ConfigError: the identifier is malformed, or the base is a pre-release and one was given.

    """
    if base.is_pre_release:
        if identifier is not None:
            raise ConfigError(
                f"{base} is a pre-release and keeps its identifier",
                hint=f"make the next pre-release from a final version with --pre-release-identifier {identifier}",
            )
        pre = base.pre
    else:
        pre = parse_identifier(identifier) if identifier is not None else ()
    match part:
        case Bump.PATCH:
            return Version(base.major, base.minor, base.patch + 1, pre)
        case Bump.MINOR:
            return Version(base.major, base.minor + 1, 0, pre)
        case Bump.MAJOR:
            return Version(base.major + 1, 0, 0, pre)


def release_dir(version: Version) -> PurePosixPath:
    """Return the release directory relative to the root.

    >>> str(release_dir(Version.parse("1.4.2-beta.1")))
    'build_artifacts/v1/v1.4/v1.4.2/v1.4.2-beta.1'
    """
    place = PurePosixPath("build_artifacts", f"v{version.major}", f"v{version.major}.{version.minor}")
    place /= f"v{version.final}"
    return place / f"v{version}" if version.is_pre_release else place


def _suggestion(text: str) -> str | None:
    match = _SHORT_RE.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    return f"did you mean {'.'.join(part or '0' for part in match.groups())}?"
