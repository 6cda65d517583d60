"""Runs image tests inside a built image, effects: pytest of the image's own Python through the `Runner` port.

The suite is bound read-only and results come back as JUnit XML (the xunit2 family that pytest writes) through one writable
directory. The image must hold pytest.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.checks.plan import TestOutcome
from lockyard.errors import ImageTestError
from lockyard.ports import Runner, RunRequest

SUITE_PLACE = "/lockyard/tests"
RESULTS_PLACE = "/lockyard/results"
_RESULTS = "results.xml"
_MAX_DETAIL = 2000  # characters of a failure that go into the record
_RAN = {0, 1}  # pytest: all passed, some failed; everything else is not a test run


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """Every test's outcome, and pytest's output."""

    tests: tuple[TestOutcome, ...]
    output: str


def run_suite(
    runner: Runner, suite: Path, *, prefix: str, flags: Sequence[str], scratch: Path, timeout: float | None = None
) -> SuiteRun:
    """Run the tests of the directory `suite` with `PREFIX/bin/python -m pytest`; `timeout` is in seconds.

    Raises:
        ImageTestError: pytest did not run (it is not in the image, no test was collected, a flag is unknown).

    """
    with fs.temporary_directory(scratch, "tests") as results:
        results.chmod(0o777)  # the image's user may be anyone
        argv = (
            f"{prefix}/bin/python", "-B", "-m", "pytest", SUITE_PLACE, "-q", "-p", "no:cacheprovider",
            f"--rootdir={SUITE_PLACE}", f"--junitxml={RESULTS_PLACE}/{_RESULTS}", *flags,
        )  # fmt: skip
        binds = ((suite, SUITE_PLACE, False), (results, RESULTS_PLACE, True))
        done = runner.run(RunRequest(argv=argv, binds=binds, timeout=timeout))
        report = fs.read_file(results / _RESULTS)
    if done.exit_code not in _RAN or report is None:
        lines = done.output.strip().splitlines()[-15:]
        raise ImageTestError(
            f"the image tests did not run: pytest ended with exit code {done.exit_code}",
            details=lines,
            hint="pytest must be a package of the image, and the suite must hold at least one test",
        )
    tests = read_junit(report)
    failed = any(test.outcome == "failed" for test in tests)
    if failed != (done.exit_code == 1):
        raise ImageTestError(
            f"the image tests' report and pytest's exit code {done.exit_code} disagree",
            details=done.output.strip().splitlines()[-15:],
        )
    return SuiteRun(tests, done.output)


def read_junit(report: bytes) -> tuple[TestOutcome, ...]:
    """Read a JUnit XML report, sorted by name.

    Raises:
        ImageTestError: it is malformed.

    """
    try:
        root = ET.fromstring(report)  # noqa: S314 - expat refuses entity bombs since 2.4.1; nothing external is loaded
    except ET.ParseError as error:
        raise ImageTestError(f"the image tests' report is malformed: {error}") from error
    return tuple(sorted((_outcome(case) for case in root.iter("testcase")), key=lambda test: test.name))


def _outcome(case: ET.Element) -> TestOutcome:
    name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
    for tag in ("failure", "error"):
        found = case.find(tag)
        if found is not None:
            return TestOutcome(name, "failed", (found.text or found.get("message") or "")[-_MAX_DETAIL:])
    skipped = case.find("skipped")
    if skipped is not None:
        return TestOutcome(name, "skipped", (skipped.get("message") or "")[:_MAX_DETAIL])
    return TestOutcome(name, "passed")
