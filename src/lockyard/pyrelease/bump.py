"""The next version by PEP 440 (https://packaging.python.org/specifications/version-specifiers/). Pure functions."""

from typing import Literal, get_args

from packaging.version import Version

from lockyard.errors import ConfigError

Identifier = Literal["a", "b", "rc"]
Part = Literal["patch", "minor", "major"]
Kind = Literal["prerelease", "patch", "minor", "major", "release"]
IDENTIFIERS: tuple[Identifier, ...] = get_args(Identifier)
KINDS: tuple[Kind, ...] = get_args(Kind)


def bump(version: Version, kind: Kind, identifier: Identifier | None = None) -> Version:
    """Return the next version: always a later one, normalised, with three numbers at least; the epoch stays.

    A development version or pre-release is on its way to a release: `minor` of 1.3.0a1 is 1.3.0, of 1.3.1a1 it is 1.4.0.
    With an identifier `patch`, `minor` and `major` give the first pre-release of that release.

    >>> str(bump(Version("1.2.3"), "minor", "a")), str(bump(Version("1.3.0a1"), "prerelease", "rc"))
    ('1.3.0a1', '1.3.0rc1')

    Raises:
        ConfigError: there is no such step forward.

    """
    if kind == "release":
        found = _release(version, identifier)
    elif kind == "prerelease":
        found = _prerelease(version, identifier)
    else:
        found = _make(version, _target(version, kind), f"{identifier}1" if identifier else "")
    if found <= version:
        raise ConfigError(
            f"{version} cannot go back to {found}",
            hint="lockyard package bump prerelease gives the next one, bump release the final version",
        )
    return found


def next_development(version: Version, part: Part) -> Version:
    """Return the version that work goes on with after a release: `minor` of 1.2.0 is 1.3.0.dev0."""
    return _make(version, _target(version, part), ".dev0")


def is_final(version: Version) -> bool:
    """Tell whether it is neither a pre-release nor a development version (a post-release is final)."""
    return not version.is_prerelease


def _release(version: Version, identifier: Identifier | None) -> Version:
    if identifier is not None:
        raise ConfigError(f"a final version has no identifier {identifier!r}")
    if is_final(version):
        raise ConfigError(f"{version} is a final version", hint="bump patch, minor or major gives the next one")
    return _make(version, _numbers(version), "")


def _prerelease(version: Version, identifier: Identifier | None) -> Version:
    if not _is_under_way(version):
        return _make(version, _target(version, "patch"), f"{identifier or 'a'}1")
    if version.pre is None:
        return _make(version, _numbers(version), f"{identifier or 'a'}1")
    kind, number = version.pre
    if identifier is None or identifier == kind:
        # 1.3.0a2.dev1 is on its way to 1.3.0a2.
        return _make(version, _numbers(version), f"{kind}{number if _is_dev_of_pre(version) else number + 1}")
    return _make(version, _numbers(version), f"{identifier}1")


def _is_under_way(version: Version) -> bool:
    """Tell whether the release that its numbers name is still to come; 1.0.post1.dev0 comes after it."""
    return version.pre is not None or (version.dev is not None and version.post is None)


def _is_dev_of_pre(version: Version) -> bool:
    return version.dev is not None and version.post is None


def _numbers(version: Version) -> tuple[int, ...]:
    numbers = version.release
    return (*numbers, *(0,) * (3 - len(numbers)))


def _target(version: Version, part: Part) -> tuple[int, ...]:
    """Return the numbers of the next release of its kind: those of the one under way when that is such a release."""
    numbers = _numbers(version)
    at = {"major": 0, "minor": 1, "patch": 2}[part]
    if _is_under_way(version) and not any(numbers[at + 1 :]):
        return numbers
    return (*numbers[:at], numbers[at] + 1, *(0,) * (2 - at))


def _make(version: Version, numbers: tuple[int, ...], suffix: str) -> Version:
    epoch = f"{version.epoch}!" if version.epoch else ""
    return Version(f"{epoch}{'.'.join(map(str, numbers))}{suffix}")
