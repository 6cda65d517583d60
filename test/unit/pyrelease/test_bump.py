"""Bumps: the table of the documentation, and laws over all versions of PEP 440."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from lockyard.errors import ConfigError
from lockyard.pyrelease.bump import IDENTIFIERS, KINDS, Identifier, Kind, Part, bump, is_final, next_development

numbers = st.integers(0, 30)
versions = st.builds(
    lambda epoch, release, pre, post, dev: Version(f"{epoch}{'.'.join(map(str, release))}{pre}{post}{dev}"),
    st.sampled_from(["", "1!"]),
    st.lists(numbers, min_size=1, max_size=5),
    st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from(IDENTIFIERS), numbers)),
    st.one_of(st.just(""), st.builds(".post{}".format, numbers)),
    st.one_of(st.just(""), st.builds(".dev{}".format, numbers)),
)


@pytest.mark.parametrize(
    ("old", "kind", "identifier", "new"),
    [
        ("1.2.3", "patch", None, "1.2.4"),
        ("1.2.3", "minor", None, "1.3.0"),
        ("1.2.3", "major", None, "2.0.0"),
        ("1.2.3", "minor", "a", "1.3.0a1"),
        ("1.2.3", "major", "rc", "2.0.0rc1"),
        ("1.2.3", "prerelease", None, "1.2.4a1"),
        ("1.2.3", "prerelease", "b", "1.2.4b1"),
        ("1.2.3.post1", "prerelease", None, "1.2.4a1"),
        ("1.3.0a1", "prerelease", None, "1.3.0a2"),
        ("1.3.0a2", "prerelease", "a", "1.3.0a3"),
        ("1.3.0a2", "prerelease", "b", "1.3.0b1"),
        ("1.3.0b4", "prerelease", "rc", "1.3.0rc1"),
        ("1.3.0rc1", "release", None, "1.3.0"),
        ("1.3.0.dev0", "prerelease", None, "1.3.0a1"),
        ("1.3.0.dev0", "minor", "a", "1.3.0a1"),
        ("1.3.0.dev0", "release", None, "1.3.0"),
        ("1.3.0a2.dev1", "prerelease", None, "1.3.0a2"),
        ("1.3.0a1", "minor", None, "1.3.0"),
        ("1.3.0a1", "minor", "b", "1.3.0b1"),
        ("1.3.1a1", "minor", None, "1.4.0"),
        ("1.3.1a1", "patch", None, "1.3.1"),
        ("1.3.1a1", "major", None, "2.0.0"),
        ("1.2", "patch", None, "1.2.1"),
        ("2024.5", "minor", None, "2024.6.0"),
        ("1!1.2.3", "patch", None, "1!1.2.4"),
        ("1.2.3+local.1", "patch", None, "1.2.4"),
    ],
)
def test_the_table(old: str, kind: Kind, identifier: Identifier | None, new: str) -> None:
    assert str(bump(Version(old), kind, identifier)) == new


def test_the_table_of_the_page() -> None:
    """The how-to says what the code does."""
    page = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "release-a-python-package.md"
    lines = page.read_text().split("## Which version is next")[1].strip().splitlines()
    head, _, *rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    assert len(rows) == 4
    for row in rows:
        old, *cells = (cell.strip() for cell in row)
        for words, said in zip((cell.strip(" `") for cell in head[1:]), cells, strict=True):
            kind, identifier = words.replace("--identifier ", "").split(" ") if " " in words else (words, None)
            try:
                new = str(bump(Version(old), kind, identifier))  # type: ignore[arg-type]  # words of the page
            except ConfigError:
                new = "–"
            assert new == said, f"{old} {words}"


@pytest.mark.parametrize(
    ("old", "kind", "identifier", "message"),
    [
        ("1.3.0b1", "prerelease", "a", "1.3.0b1 cannot go back to 1.3.0a1"),
        ("1.3.0rc1", "prerelease", "b", "cannot go back to 1.3.0b1"),
        ("1.3.0a1", "minor", "a", "cannot go back to 1.3.0a1"),
        ("1.3.0", "release", None, "1.3.0 is a final version"),
        ("1.3.0a1", "release", "b", "no identifier"),
    ],
)
def test_never_backwards(old: str, kind: Kind, identifier: Identifier | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bump(Version(old), kind, identifier)


@given(versions, st.sampled_from(KINDS), st.one_of(st.none(), st.sampled_from(IDENTIFIERS)))
def test_every_bump_is_later_and_normalised(version: Version, kind: Kind, identifier: Identifier | None) -> None:
    try:
        new = bump(version, kind, identifier)
    except ConfigError:
        return
    assert new > version
    assert str(Version(str(new))) == str(new)
    assert len(new.release) >= 3
    assert new.epoch == version.epoch
    assert is_final(new) == (identifier is None and kind != "prerelease")


@given(versions, st.sampled_from(["patch", "minor", "major"]))
def test_a_plain_part_is_always_possible(version: Version, part: Part) -> None:
    """Nobody is ever stuck: `patch`, `minor` and `major` work on every version."""
    assert bump(version, part) > version
    if is_final(version):
        assert version < next_development(version, part) < bump(version, part)


@given(versions)
def test_the_way_from_alpha_to_final(version: Version) -> None:
    way = [bump(bump(version, "major"), "minor", "a")]
    for kind, identifier in (
        ("prerelease", None), ("prerelease", "b"), ("prerelease", "rc"), ("prerelease", None), ("release", None),
    ):  # fmt: skip
        way.append(bump(way[-1], kind, identifier))  # type: ignore[arg-type]  # words of the table above
    assert way == sorted(way)
    assert [item.pre for item in way] == [("a", 1), ("a", 2), ("b", 1), ("rc", 1), ("rc", 2), None]
    assert len({item.release for item in way}) == 1
