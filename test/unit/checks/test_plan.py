"""Which image tests run, and which records are believed."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.checks.plan import (
    Outcome,
    Record,
    Runs,
    Skipped,
    TestOutcome,
    format_record,
    host_platform,
    junit_of,
    parse_record,
    plain_suite,
    plan_tests,
    suite_digest,
    verify_record,
)
from lockyard.checks.run import read_junit
from lockyard.errors import ImageTestError
from lockyard.oci.values import Digest
from lockyard.tree import File, Tree

IMAGE, SUITE = Digest.of(b"image"), Digest.of(b"suite")
GREEN = Record(
    manifest=IMAGE, suite=SUITE, image_type="cpu", platform="linux-64",
    tests=(TestOutcome("a", "passed"), TestOutcome("b", "skipped", "no GPU")),
)  # fmt: skip
OUTCOMES: list[Outcome] = ["passed", "failed", "skipped"]


def verify(text: str | None) -> Record:
    return verify_record(text, manifest=IMAGE, suite=SUITE, image_type="cpu", platform="linux-64", source="tests.json")


def test_a_green_record_of_this_image_is_believed() -> None:
    assert verify(format_record(GREEN)) == GREEN


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (replace(GREEN, manifest=Digest.of(b"other")), "another manifest digest"),
        (replace(GREEN, suite=Digest.of(b"other")), "another suite"),
        (replace(GREEN, image_type="gpu"), "another image type"),
        (replace(GREEN, platform="linux-aarch64"), "another platform"),
        (replace(GREEN, tests=(TestOutcome("b", "skipped"),)), "no image test ran"),
        (replace(GREEN, tests=()), "no image test ran"),
        (replace(GREEN, tests=(*GREEN.tests, TestOutcome("c", "failed"))), "1 image tests failed"),
    ],
)
def test_other_records_are_refused(record: Record, message: str) -> None:
    with pytest.raises(ImageTestError, match=message):
        verify(format_record(record))


@pytest.mark.parametrize("key", ["executed", "passed", "failed", "skipped", "manifest", "suite", "tests", "schema"])
@pytest.mark.parametrize("forged", [None, 7, "x"])
def test_a_forged_or_incomplete_record_is_refused(key: str, forged: object) -> None:
    value = json.loads(format_record(GREEN))
    value[key] = forged
    with pytest.raises(ImageTestError):
        verify(json.dumps(value))
    del value[key]
    with pytest.raises(ImageTestError):
        verify(json.dumps(value))


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"schema": 1}', "null"])
def test_no_record_is_no_record(text: str | None) -> None:
    with pytest.raises(ImageTestError):
        verify(text)


@given(st.lists(st.tuples(st.text(max_size=20), st.sampled_from(OUTCOMES), st.text(max_size=20)), max_size=9))
def test_a_record_reads_back(items: list[tuple[str, Outcome, str]]) -> None:
    record = replace(GREEN, tests=tuple(TestOutcome(*item) for item in items))
    assert parse_record(format_record(record), source="x") == record


def test_the_suite_is_its_files_and_flags() -> None:
    suite = Tree({"test_a.py": File(b"a")})
    digests = {
        suite_digest(suite, []),
        suite_digest(suite, ["--use-gpu"]),
        suite_digest(suite.merge({"test_b.py": File(b"")}), []),
        suite_digest(Tree({"test_a.py": File(b"b")}), []),
        suite_digest(Tree({"test_a.py": File(b"a", 0o755)}), []),
    }
    assert len(digests) == 5


def test_umask_and_caches_do_not_change_the_suite() -> None:
    suite = Tree({"test_a.py": File(b"a"), "run": File(b"", 0o755)})
    other = Tree(
        {
            "test_a.py": File(b"a", 0o664), "run": File(b"", 0o700), "__pycache__/test_a.pyc": File(b""),
            ".pytest_cache/v/x": File(b""), "old.pyc": File(b""),
        }
    )  # fmt: skip
    assert suite_digest(other, []) == suite_digest(suite, [])
    assert plain_suite(other) == suite


def test_tests_run_where_the_image_runs() -> None:
    suite = Tree({"test_a.py": File(b"a")})
    assert plan_tests("linux-64", host="linux-64", suite=suite, skip=False) == Runs()
    for skipped in (
        plan_tests("linux-aarch64", host="linux-64", suite=suite, skip=False),
        plan_tests("linux-64", host="linux-64", suite=Tree(), skip=False),
        plan_tests("linux-64", host="linux-64", suite=suite, skip=True),
    ):
        assert isinstance(skipped, Skipped)
        assert skipped.reason
    assert (host_platform("x86_64"), host_platform("mips")) == ("linux-64", "linux-mips")


def test_junit_of_pytest_is_read() -> None:
    report = b"""<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="test_x" name="ok"/>
<testcase classname="test_x" name="bad"><failure message="m">line 1\nassert 1 == 2</failure></testcase>
<testcase classname="test_x" name="setup"><error message="broken fixture"/></testcase>
<testcase classname="test_x" name="no"><skipped message="why"/></testcase>
</testsuite></testsuites>"""
    assert [(item.name, item.outcome, item.detail) for item in read_junit(report)] == [
        ("test_x::bad", "failed", "line 1\nassert 1 == 2"),
        ("test_x::no", "skipped", "why"),
        ("test_x::ok", "passed", ""),
        ("test_x::setup", "failed", "broken fixture"),
    ]
    with pytest.raises(ImageTestError, match="malformed"):
        read_junit(b"<testsuites>")


@given(st.lists(st.tuples(st.text(), st.sampled_from(["passed", "failed", "skipped"]), st.text()), max_size=5))
def test_a_report_of_a_record_says_what_it_says(items: list[tuple[str, Outcome, str]]) -> None:
    tests = tuple(
        TestOutcome(f"t{number} {name!r}", outcome, text) for number, (name, outcome, text) in enumerate(items)
    )
    record = replace(GREEN, tests=tests)
    report = junit_of({"cpu linux-64": record, "gpu linux-64": GREEN})
    (cpu, gpu) = ET.fromstring(report)
    assert (cpu.get("name"), gpu.get("name")) == ("cpu linux-64", "gpu linux-64")
    assert cpu.get("failures") == str(record.count("failed"))
    whole = read_junit(ET.tostring(cpu), classes=False)
    assert [(test.name, test.outcome) for test in whole] == sorted((test.name, test.outcome) for test in tests)
