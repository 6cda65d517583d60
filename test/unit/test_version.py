"""Versions: strict SemVer, its order, the bump table, places and suggestions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import ConfigError
from lockyard.version import Bump, Version, bump, parse_identifier, release_dir

numbers = st.integers(0, 10**6)
parts = st.one_of(numbers.map(str), st.from_regex(r"[0-9]*[a-z-][0-9a-z-]{0,5}", fullmatch=True))
pre_releases = st.lists(parts, max_size=3).map(tuple)
versions = st.builds(Version, numbers, numbers, numbers, pre_releases).filter(lambda version: len(str(version)) <= 100)


@given(versions)
def test_round_trip(version: Version) -> None:
    """Text and value are the same thing."""
    assert Version.parse(str(version)) == version


@given(versions, versions)
def test_order_is_total(a: Version, b: Version) -> None:
    """Exactly one of <, ==, > holds."""
    assert (a < b) + (a == b) + (a > b) == 1


def test_precedence_of_the_specification() -> None:
    """The example of SemVer 2.0.0, section 11."""
    order = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0".split()
    assert sorted(map(Version.parse, reversed(order))) == [Version.parse(item) for item in order]


@pytest.mark.parametrize(
    ("base", "part", "identifier", "result"),
    [
        ("1.4.0", Bump.PATCH, None, "1.4.1"),
        ("1.4.0", Bump.MINOR, None, "1.5.0"),
        ("1.4.0", Bump.MAJOR, None, "2.0.0"),
        ("1.4.0", Bump.PATCH, "beta.1", "1.4.1-beta.1"),
        ("1.4.0", Bump.MINOR, "rc.1", "1.5.0-rc.1"),
        ("1.4.1-beta.1", Bump.PATCH, None, "1.4.2-beta.1"),
    ],
)
def test_bump(base: str, part: Bump, identifier: str | None, result: str) -> None:
    """The table of versions."""
    assert str(bump(Version.parse(base), part, identifier)) == result


@pytest.mark.parametrize("part", list(Bump))
def test_pre_release_takes_no_identifier(part: Bump) -> None:
    """A pre-release keeps its identifier; another is refused."""
    with pytest.raises(ConfigError, match="keeps its identifier"):
        bump(Version.parse("1.4.1-beta.1"), part, "beta.2")


@pytest.mark.parametrize(
    "text", ["1.2", "v1.2.3", "1.2.3+build", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b", "", "１.2.3", "1.2.3\n"]
)
def test_malformed(text: str) -> None:
    """Anything but strict SemVer is refused."""
    with pytest.raises(ConfigError):
        Version.parse(text)


def test_short_version_suggests() -> None:
    """`1.2` suggests `1.2.0`."""
    with pytest.raises(ConfigError) as caught:
        Version.parse("1.2")
    assert caught.value.hint == "did you mean 1.2.0?"


@pytest.mark.parametrize("text", ["../x", "a/b", "", "beta..1", "be ta", "x" * 200, "01"])
def test_identifier_malformed(text: str) -> None:
    """An identifier is part of a path and of tags: only SemVer's characters."""
    with pytest.raises(ConfigError):
        parse_identifier(text)


def test_release_dir() -> None:
    """A final release and its pre-releases."""
    assert str(release_dir(Version.parse("1.4.2"))) == "build_artifacts/v1/v1.4/v1.4.2"
    assert str(release_dir(Version.parse("1.4.2-beta.1"))) == "build_artifacts/v1/v1.4/v1.4.2/v1.4.2-beta.1"
