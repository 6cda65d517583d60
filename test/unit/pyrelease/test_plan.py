"""Which version a release is, which steps it has, and the journal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from lockyard.errors import ConfigError
from lockyard.pyrelease.bump import Identifier, Part
from lockyard.pyrelease.plan import (
    PUBLISHING,
    STEPS,
    Done,
    Journal,
    Kind,
    ReleasePlan,
    format_journal,
    parse_journal,
    release_version,
)

PLAN = ReleasePlan(
    kind="final", name="lab", old="1.0.0rc1", new="1.0.0", tag="v1.0.0", start="main", base="0" * 40, moment=0,
    branch="release/1.0.0", next="1.1.0.dev0", changelog="CHANGELOG.md", runtimes=True, images=True, publish=True, index="pypi",
    remote="origin", image_targets=("one", "two"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "kind", "part", "identifier", "tagged", "new"),
    [
        ("1.0.0", "final", None, None, False, "1.0.0"),
        ("1.0.0", "final", "patch", None, True, "1.0.1"),
        ("1.1.0rc2", "final", None, None, True, "1.1.0"),
        ("1.1.0.dev0", "final", None, None, False, "1.1.0"),
        ("1.1.0.dev0", "pre", None, None, False, "1.1.0a1"),
        ("1.1.0.dev0", "pre", None, "rc", False, "1.1.0rc1"),
        ("1.0.0", "pre", "minor", None, True, "1.1.0a1"),
        ("1.0.0", "pre", "major", "b", True, "2.0.0b1"),
        ("1.1.0a1", "pre", None, None, False, "1.1.0a1"),
        ("1.1.0a1", "pre", None, None, True, "1.1.0a2"),
        ("1.1.0a1", "pre", None, "a", False, "1.1.0a1"),
        ("1.1.0a1", "pre", None, "rc", False, "1.1.0rc1"),
    ],
)
def test_versions(
    now: str, kind: Kind, part: Part | None, identifier: Identifier | None, tagged: bool, new: str
) -> None:
    assert str(release_version(Version(now), kind, part=part, identifier=identifier, is_tagged=tagged)) == new


@pytest.mark.parametrize(
    ("now", "kind", "identifier", "message"),
    [
        ("1.0.0", "final", None, "is released already"),
        ("1.0.0", "final", "a", "no --identifier"),
        ("1.0.0", "pre", None, "which release are the pre-releases for"),
        ("1.0.0rc1", "pre", "a", "cannot go back"),
    ],
)
def test_versions_that_are_refused(now: str, kind: Kind, identifier: Identifier | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        release_version(Version(now), kind, part=None, identifier=identifier, is_tagged=True)


def test_the_whole_plan() -> None:
    assert PLAN.steps() == STEPS
    for step in STEPS:
        assert PLAN.describe(step)
    assert PLAN.pushed() == ("main", "release/1.0.0", "v1.0.0")
    assert "one, two" in PLAN.describe("publish-images")


@given(st.builds(
    ReleasePlan, kind=st.sampled_from(["pre", "final"]), name=st.just("lab"), old=st.just("1"), new=st.just("2"), tag=st.just("v2"),
    start=st.just("main"), base=st.just("0"), moment=st.integers(0, 10), branch=st.sampled_from([None, "release/2"]),
    next=st.sampled_from([None, "3.dev0"]), changelog=st.sampled_from([None, "C"]), runtimes=st.booleans(), images=st.booleans(),
    publish=st.booleans(), index=st.sampled_from([None, "pypi"]), remote=st.sampled_from([None, "origin"]),
))  # fmt: skip
def test_every_plan(plan: ReleasePlan) -> None:
    """The order is always the same, nothing leaves without `publish`, and the journal gives back what it was given."""
    steps = plan.steps()
    assert list(steps) == [step for step in STEPS if step in steps]
    assert plan.publish or not PUBLISHING & set(steps)
    assert {"checks", "bump", "lock", "build", "commit", "tag", "distributions"} <= set(steps)
    assert len({plan.describe(step) for step in steps}) == len(steps)
    journal = Journal(plan, {steps[0]: Done("said", ("a", "b"), "c")})
    assert parse_journal(format_journal(journal), source="x") == journal
    assert journal.left == steps[1:]
    assert journal.files == ("a", "b")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema": 1}',
        b'{"schema": 1, "plan": {}, "done": {}}',
        b'{"schema": "1", "plan": {}, "done": {}}',
        b"\xff",
    ],
)
def test_damaged_journals(data: bytes) -> None:
    with pytest.raises(ConfigError, match="x is damaged"):
        parse_journal(data, source="x")


def test_a_newer_journal() -> None:
    value = {**json.loads(format_journal(Journal(PLAN))), "schema": 2}
    with pytest.raises(ConfigError, match="newer Lockyard"):
        parse_journal(json.dumps(value).encode(), source="x")
