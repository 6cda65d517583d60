"""The laws of the schedule: one entry a line, idempotent, sorted, numbers compared one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.artifacts.schedule import Entry, Line, Schedule, format_schedule, parse_schedule
from lockyard.errors import ConfigError
from lockyard.version import Bump, Version

_small = st.integers(0, 12)
versions = st.builds(Version, _small, _small, _small)
entries = st.builds(Entry, versions, st.sampled_from(list(Bump)))
schedules = st.builds(Schedule, st.lists(entries, max_size=8).map(tuple))


def rows(schedule: Schedule) -> list[str]:
    return [str(entry) for entry in schedule.entries]


def released(*texts: str) -> Schedule:
    found = Schedule()
    for text in texts:
        found = found.after(Version.parse(text))
    return found


@pytest.mark.parametrize(
    ("releases", "expected"),
    [
        ("1.4.2", ["1.4.2 patch"]),
        ("1.4.0", ["1.4.0 patch", "1.4.0 minor"]),
        ("1.4.1 1.4.2", ["1.4.2 patch"]),
        ("1.4.0 1.4.1", ["1.4.1 patch", "1.4.1 minor"]),  # the next minor is made from the newest patch
        ("1.4.0 1.5.0 1.4.1", ["1.4.1 patch", "1.5.0 patch", "1.5.0 minor"]),
        ("1.4.1 1.4.0", ["1.4.0 minor", "1.4.1 patch"]),
        ("1.4.0 1.5.0", ["1.4.0 patch", "1.5.0 patch", "1.5.0 minor"]),
        ("1.4.0 2.0.0", ["1.4.0 patch", "1.4.0 minor", "2.0.0 patch", "2.0.0 minor"]),
        ("1.5.0 1.4.7", ["1.4.7 patch", "1.5.0 patch", "1.5.0 minor"]),  # a back-port moves its own line only
        ("1.5.0 1.4.0", ["1.4.0 patch", "1.5.0 patch", "1.5.0 minor"]),  # an old release's workflow, run again
        ("3.10.0 3.9.0 3.1.0", ["3.1.0 patch", "3.9.0 patch", "3.10.0 patch", "3.10.0 minor"]),
    ],
)
def test_releases_replace_their_predecessors(releases: str, expected: list[str]) -> None:
    assert rows(released(*releases.split())) == expected


def test_only_what_is_asked() -> None:
    """`--bump` says what follows, whatever the version."""
    found = released("1.4.0").after(Version.parse("1.4.3"), [Bump.MINOR, Bump.MAJOR])
    assert rows(found) == ["1.4.0 patch", "1.4.3 minor", "1.4.3 major"]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("3.1", ["3.10.0 patch", "3.10.0 minor", "31.0.0 patch", "31.0.0 minor"]),
        ("3.1.0", ["3.1.4 patch", "3.10.0 patch", "3.10.0 minor", "31.0.0 patch", "31.0.0 minor"]),
        ("3", ["31.0.0 patch", "31.0.0 minor"]),
        ("1", None),
    ],
)
def test_numbers_are_compared_one_by_one(line: str, left: list[str] | None) -> None:
    schedule = Schedule((*released("3.1.4", "3.10.0", "31.0.0").entries, Entry(Version.parse("3.1.0"), Bump.MINOR)))
    assert rows(schedule.remove(Line.parse(line))) == (left if left is not None else rows(schedule))


@given(schedules, versions)
def test_a_release_twice_is_once(schedule: Schedule, version: Version) -> None:
    once = schedule.after(version)
    assert once.after(version) == once


@given(st.lists(versions, max_size=8))
def test_the_order_of_releases_leaves_the_same_patches(found: list[Version]) -> None:
    """Each X.Y line ends with its newest release, whichever came last."""

    def patches(order: list[Version]) -> set[Entry]:
        schedule = Schedule()
        for version in order:
            schedule = schedule.after(version)
        return {entry for entry in schedule.entries if entry.part is Bump.PATCH}

    expected = {max(item for item in found if (item.major, item.minor) == line) for line in {
        (item.major, item.minor) for item in found
    }}  # fmt: skip
    assert {entry.base for entry in patches(found)} == expected
    assert patches(found) == patches(found[::-1])


@given(schedules)
def test_the_file_is_read_as_it_was_written(schedule: Schedule) -> None:
    text = format_schedule(schedule)
    assert parse_schedule(text) == schedule
    assert format_schedule(parse_schedule(text)) == text


def test_the_file() -> None:
    """One entry a line, sorted by number, not by letter."""
    assert format_schedule(released("1.10.1", "1.9.0")).splitlines()[1:] == [
        "schema = 1",
        "nightly = [",
        '  { base = "1.9.0", bump = "patch" },',
        '  { base = "1.9.0", bump = "minor" },',
        '  { base = "1.10.1", bump = "patch" },',
        "]",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 2\n", "schedule.toml:1: schema"),
        ("nightly = []\n", "schedule.toml:1: 'schema' is missing"),
        ('schema = 1\nnightly = [{ base = "1.4" }]\n', "schedule.toml:2: nightly.0.base: '1.4' is not a version"),
        ('schema = 1\nnightly = [{ base = "1.4.0-rc.1" }]\n', "pre-release"),
        ('schema = 1\nnightly = [{ base = "1.4.0", bum = "minor" }]\n', "did you mean 'bump'"),
        ('schema = 1\nnightly = [{ base = "1.4.0", bump = "nano" }]\n', "nightly.0.bump"),
        ("nightly = [\n", "schedule.toml: "),
    ],
)
def test_a_malformed_file_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedule(text)
    assert message in caught.value.message


@given(st.text("v013.x-", max_size=9))
def test_any_text_is_a_line_or_an_error(text: str) -> None:
    try:
        line = Line.parse(text)
    except ConfigError:
        return
    assert Line.parse(str(line)) == line
