"""Image tests: which run and why others are skipped, and the record that lets an image be published. Pure.

A record belongs to one manifest digest and one suite digest. `verify_record` is what stands between a built image and
a registry: it is given digests that were computed again from the bytes, never the ones that the record claims.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lockyard.errors import ConfigError, ImageTestError
from lockyard.oci.values import Digest
from lockyard.tree import File, Tree

SCHEMA = 1
SUITE = "test/image"
"""Where a distribution keeps its image tests."""

Outcome = Literal["passed", "failed", "skipped"]
_OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "skipped")
FILE_NAME = "tests.json"
"""The record's place, beside the image."""
_MACHINES = {"x86_64": "linux-64", "aarch64": "linux-aarch64", "ppc64le": "linux-ppc64le", "s390x": "linux-s390x"}
_NOT_XML_RE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_IGNORED_PARTS = {"__pycache__", ".pytest_cache"}


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """How one image test ended; `detail` is the reason of a skip or the last lines of a failure."""

    name: str
    outcome: Outcome
    detail: str = ""

    __test__ = False  # the name is the field's own; pytest must not collect it


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What ran inside one image: digests `sha256:HEX` of its manifest and of the suite, and every test's outcome.

    `content` is the image less its version (`oci.promotion.content_digest`); a promoted image has the same one.
    """

    manifest: Digest
    suite: Digest
    image_type: str
    platform: str
    tests: tuple[TestOutcome, ...]
    content: Digest | None = None

    def count(self, outcome: Outcome) -> int:
        """Return how many tests ended so."""
        return sum(test.outcome == outcome for test in self.tests)

    @property
    def executed(self) -> int:
        """How many tests ran to an end."""
        return self.count("passed") + self.count("failed")

    @property
    def green(self) -> bool:
        """Whether at least one test ran and none failed."""
        return self.executed > 0 and self.count("failed") == 0


@dataclass(frozen=True, slots=True)
class Runs:
    """The image tests of a platform run here."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """The image tests of a platform do not run here, and why."""

    reason: str


def host_platform(machine: str) -> str:
    """Return the conda subdir whose images run on this machine (`uname -m`)."""
    return _MACHINES.get(machine, f"linux-{machine}")


def plan_tests(platform: str, *, host: str, suite: Tree, skip: bool) -> Runs | Skipped:
    """Decide whether the tests of `platform` run on a machine whose platform is `host`."""
    if skip:
        return Skipped("--skip-tests")
    if not suite:
        return Skipped(f"the distribution has no tests in {SUITE}/")
    if platform not in {host, "noarch"}:
        return Skipped(f"a {platform} image does not run on this {host} machine")
    return Runs()


def is_suite_file(relative: str) -> bool:
    """Tell whether a path below `test/image` is part of the suite: caches are not."""
    return not _IGNORED_PARTS & set(relative.split("/")) and not relative.endswith(".pyc")


def suite_digest(suite: Tree, flags: Sequence[str]) -> Digest:
    """Return the digest of the suite: every file of it and the pytest flags of the image type.

    Of a mode only the executable bit counts: the rest depends on the umask of a checkout.
    """
    return Digest.of(json.dumps({"files": plain_suite(suite).digest, "flags": list(flags)}, sort_keys=True).encode())


def plain_suite(suite: Tree) -> Tree:
    """Return the files of a suite without caches, modes 0644 or 0755."""
    files: dict[str, File] = {path: file for path, file in suite.items() if is_suite_file(path)}
    for path, file in files.items():
        if not file.is_link:
            files[path] = File(file.data, 0o755 if file.mode & 0o111 else 0o644)
    return Tree(files)


def format_record(record: Record) -> str:
    """Return the text of `tests.json`."""
    value = {
        "schema": SCHEMA,
        "manifest": str(record.manifest),
        "suite": str(record.suite),
        "image_type": record.image_type,
        "platform": record.platform,
        "executed": record.executed,
        "passed": record.count("passed"),
        "failed": record.count("failed"),
        "skipped": record.count("skipped"),
        "tests": [{"name": test.name, "outcome": test.outcome, "detail": test.detail} for test in record.tests],
    }
    if record.content is not None:
        value["content"] = str(record.content)
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def junit_of(records: Mapping[str, Record]) -> bytes:
    """Return a JUnit report (the xunit2 family) with one suite for each record, by its name."""
    root = ET.Element("testsuites")
    for name, record in records.items():
        counts = {"tests": len(record.tests), "failures": record.count("failed"), "skipped": record.count("skipped")}
        numbers = {key: str(value) for key, value in counts.items()}
        suite = ET.SubElement(root, "testsuite", {"name": name, "errors": "0", **numbers})
        for test in record.tests:
            case = ET.SubElement(suite, "testcase", {"classname": name, "name": test.name})
            if test.outcome == "failed":
                ET.SubElement(case, "failure", {"message": "failed"}).text = _printable(test.detail)
            elif test.outcome == "skipped":
                ET.SubElement(case, "skipped", {"message": _printable(test.detail)})
    body: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'.encode()


def _printable(text: str) -> str:
    """Return text without the characters that XML 1.0 has no way to write."""
    return _NOT_XML_RE.sub("\N{REPLACEMENT CHARACTER}", text)


def parse_record(text: str, *, source: str) -> Record:
    """Read `tests.json` (`source` is its path, for messages).

    Raises:
        ImageTestError: it is malformed, newer than we know, or its counts are not those of its tests.

    """
    try:
        value: Any = json.loads(text)
        if value["schema"] > SCHEMA:
            raise ImageTestError(f"{source}: schema {value['schema']} is newer than this Lockyard knows ({SCHEMA})")
        tests = tuple(
            TestOutcome(str(item["name"]), _OUTCOMES[_OUTCOMES.index(item["outcome"])], str(item.get("detail", "")))
            for item in value["tests"]
        )
        record = Record(
            manifest=Digest(value["manifest"]),
            suite=Digest(value["suite"]),
            image_type=str(value["image_type"]),
            platform=str(value["platform"]),
            tests=tests,
            content=Digest(value["content"]) if value.get("content") else None,
        )
        names: tuple[str, ...] = ("executed", *_OUTCOMES)
        claimed: dict[str, object] = {name: value[name] for name in names}
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ImageTestError(
            f"{source} is not a test record: {error}", hint="run the tests again: lockyard test"
        ) from error
    counts: dict[str, object] = {"executed": record.executed}
    counts |= {name: record.count(name) for name in _OUTCOMES}
    if claimed != counts:
        raise ImageTestError(
            f"{source}: its counts are not those of its tests", hint="run the tests again: lockyard test"
        )
    return record


def verify_record(
    text: str | None,
    *,
    manifest: Digest,
    suite: Digest,
    image_type: str,
    platform: str,
    source: str,
    content: Digest | None = None,
) -> Record:
    """Return the record when it allows this image to be published: it is of this manifest, or of the same `content`.

    Raises:
        ImageTestError: there is none, it belongs to another image or suite, no test ran, or one failed.

    """
    again = f"lockyard test --image-type {image_type}"
    if text is None:
        raise ImageTestError(f"{image_type} {platform} is not tested: {source} is missing", hint=f"run {again}")
    record = parse_record(text, source=source)
    same = content is not None and record.content == content
    expected: Mapping[str, tuple[object, object]] = {
        "manifest digest": (manifest if same else record.manifest, manifest),
        "suite": (record.suite, suite),
        "image type": (record.image_type, image_type),
        "platform": (record.platform, platform),
    }
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise ImageTestError(
                f"{source} is the record of another {what}: {found}, not {wanted}", hint=f"run {again}"
            )
    if record.executed == 0:
        raise ImageTestError(
            f"{source}: no image test ran", hint=f"add tests to {SUITE}/ that run in {image_type} images"
        )
    failed = [test.name for test in record.tests if test.outcome == "failed"]
    if failed:
        raise ImageTestError(
            f"{source}: {len(failed)} image tests failed", details=failed, hint=f"mend them, then {again}"
        )
    return record
