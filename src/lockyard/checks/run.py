"""Runs image tests inside a built image, effects, through the `Runner` port: scripts, and files of pytest.

The suite is bound read-only. Scripts tell by their exit code: 0 passed, 77 skipped, anything else failed. Files of pytest run
with the image's own pytest, which the image must hold; their results come back as JUnit XML (the xunit2 family) through one
writable directory.
"""

import collections
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockyard import fs, process
from lockyard.checks.plan import TestOutcome
from lockyard.checks.suite import ImageTest
from lockyard.errors import BuildError, ImageTestError
from lockyard.oci.classic import context_blocks
from lockyard.ports.containers import ContainerRun, Containers, EngineBuild, Runner, RunRequest, RunResult
from lockyard.tree import Tree

if TYPE_CHECKING:
    import xml.etree.ElementTree as ET

SUITE_PLACE = "/lockyard/tests"
CONTEXT_PLACE = "/lockyard/context.json"
CONTEXT_VARIABLE = "LOCKYARD_CONTEXT"
"""Names the file in which a script finds `version`, `image_type`, `platform`, `prefix`, `direct`, `packages` …"""
SKIPPED_CODE = 77
"""The exit code of a script that cannot run here, as automake has it; its last line is the reason."""
RESULTS_PLACE = "/lockyard/results"
_RESULTS = "results.xml"
_TEST_DOCKERFILE = "Dockerfile.lockyard-test"
TEST_REPOSITORY = "lockyard-test"
"""The name in a container engine of what exists only while tests run."""
_MAX_DETAIL = 2000  # characters of a failure that go into the record
_NOTHING_COLLECTED = 5
_RAN = {0, 1}  # pytest: all passed, some failed; everything else is not a test run


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """Every test's outcome, pytest's output, and its JUnit report when anything ran."""

    tests: tuple[TestOutcome, ...]
    output: str
    report: bytes = b""


def run_script(
    runner: Runner, test: ImageTest, suite: Path, *, prefix: str, context: Mapping[str, Any], scratch: Path
) -> TestOutcome:
    """Run one script of the directory `suite` to its end, or until the line that a service test waits for."""
    settings = test.settings
    inside = f"{SUITE_PLACE}/{test.path}"
    interpreter = (f"{prefix}/bin/python", "-B") if test.kind == "python" else ("/bin/sh",)
    wait = settings.wait_for
    with fs.temporary_directory(scratch, "script") as place:
        place.chmod(0o755)
        fs.atomic_write(place / "context.json", json.dumps(dict(context), sort_keys=True).encode())
        done = runner.run(
            RunRequest(
                argv=(*interpreter, inside),
                env={CONTEXT_VARIABLE: CONTEXT_PLACE, "PREFIX": prefix},
                binds=((suite, SUITE_PLACE, False), (place / "context.json", CONTEXT_PLACE, False)),
                timeout=min(wait.within, settings.timeout) if wait else settings.timeout,
                network=settings.network,
                until=wait.line if wait else None,
            )
        )
    return _outcome_of(test, done)


def _outcome_of(test: ImageTest, done: RunResult) -> TestOutcome:
    tail = done.output[-_MAX_DETAIL:]
    wait = test.settings.wait_for
    if wait is not None:
        if done.found:
            return TestOutcome(test.name, "passed")
        return TestOutcome(test.name, "failed", f"{tail}\nno line with {wait.line!r} within {wait.within:g} s")
    if done.exit_code == 0:
        return TestOutcome(test.name, "passed")
    if done.exit_code == SKIPPED_CODE:
        lines = done.output.strip().splitlines()
        return TestOutcome(test.name, "skipped", lines[-1][:_MAX_DETAIL] if lines else f"exit code {SKIPPED_CODE}")
    return TestOutcome(test.name, "failed", f"{tail.rstrip()}\nexit code {done.exit_code}")


def run_dockerfile(containers: Containers, test: ImageTest, suite: Tree, *, image: str) -> TestOutcome:
    """Build one Dockerfile test from `image` (a name in the engine), run it, and remove what was built."""
    settings = test.settings
    directory = "" if settings.context == "." else f"{settings.context}/"
    files = {path.removeprefix(directory): file for path, file in suite.items() if path.startswith(directory)}
    files[_TEST_DOCKERFILE] = suite[test.path]
    name = (
        f"{TEST_REPOSITORY}:{process.temporary_name()}"  # of this run alone: parallel runs remove only what is theirs
    )
    build = EngineBuild(
        what=test.name, name=name, dockerfile=_TEST_DOCKERFILE, args={settings.image_argument: image},
        network="default" if settings.network else "none", timeout=settings.timeout,
    )  # fmt: skip
    lines: collections.deque[str] = collections.deque(maxlen=200)
    wait = settings.wait_for
    try:
        containers.build(build, lambda: context_blocks(files), lines.append)
        done = containers.run(
            ContainerRun(
                image=name, label=test.name, timeout=min(wait.within, settings.timeout) if wait else settings.timeout,
                until=wait.line if wait else None, network="bridge" if settings.network else "none",
                shm_size=int(settings.shm_size) if settings.shm_size is not None else None, gpu=settings.gpu,
            )
        )  # fmt: skip
    except BuildError as error:
        return TestOutcome(test.name, "failed", "\n".join([*lines, error.message])[-_MAX_DETAIL:])
    finally:
        containers.remove_image(name)
    return _outcome_of(test, done)


def run_suite(
    runner: Runner,
    suite: Path,
    *,
    prefix: str,
    flags: Sequence[str],
    scratch: Path,
    timeout: float | None = None,
    select: str = "",
    only: str = "",
) -> SuiteRun:
    """Run the tests of the directory `suite` with `PREFIX/bin/python -m pytest`; `timeout` is in seconds.

    `select` is an expression of pytest's `-k`: that nothing matches it is no failure then. `only` is one file of the suite.

    Raises:
        ImageTestError: pytest did not run (it is not in the image, no test was collected, a flag is unknown).

    """
    with fs.temporary_directory(scratch, "tests") as results:
        results.chmod(0o777)  # the image's user may be anyone
        argv = (
            f"{prefix}/bin/python", "-B", "-m", "pytest", f"{SUITE_PLACE}/{only}".rstrip("/"), "-q", "-p", "no:cacheprovider",
            f"--rootdir={SUITE_PLACE}", f"--junitxml={RESULTS_PLACE}/{_RESULTS}", *flags,
            *(("-k", select) if select else ()),
        )  # fmt: skip
        binds = ((suite, SUITE_PLACE, False), (results, RESULTS_PLACE, True))
        done = runner.run(RunRequest(argv=argv, binds=binds, timeout=timeout))
        report = fs.read_file(results / _RESULTS)
    if select and done.exit_code == _NOTHING_COLLECTED:
        return SuiteRun((), done.output)
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
    return SuiteRun(tests, done.output, report)


def read_junit(report: bytes, *, classes: bool = True) -> tuple[TestOutcome, ...]:
    """Read a JUnit XML report, sorted by name; with `classes` a name is `MODULE::TEST`.

    Raises:
        ImageTestError: it is malformed.

    """
    import xml.etree.ElementTree as ET  # builds without tests do without it

    try:
        root = ET.fromstring(report)  # noqa: S314 - expat refuses entity bombs since 2.4.1; nothing external is loaded
    except ET.ParseError as error:
        raise ImageTestError(f"the image tests' report is malformed: {error}") from error
    return tuple(
        sorted((_outcome(case, classes=classes) for case in root.iter("testcase")), key=lambda test: test.name)
    )


def _outcome(case: "ET.Element", *, classes: bool) -> TestOutcome:
    name = "::".join(filter(None, (case.get("classname") if classes else None, case.get("name"))))
    for tag in ("failure", "error"):
        found = case.find(tag)
        if found is not None:
            return TestOutcome(name, "failed", (found.text or found.get("message") or "")[-_MAX_DETAIL:])
    skipped = case.find("skipped")
    if skipped is not None:
        return TestOutcome(name, "skipped", (skipped.get("message") or "")[:_MAX_DETAIL])
    return TestOutcome(name, "passed")


@dataclass(frozen=True, kw_only=True)
class Session:
    """What the scripts of one image have in common; it travels to the processes of pytest as a JSON file.

    `suite` is a directory with exactly the files that are hashed, `packages` the names in the lock, `context` what scripts may
    read, `gpu`, `containers` and `container_gpu` why scripts have no GPU, why there is no container engine, and why it has no
    GPU (`None` when there is).
    """

    layout: Path
    suite: Path
    scratch: Path
    image_type: str
    prefix: str
    packages: tuple[str, ...]
    context: Mapping[str, Any]
    gpu: str | None = None
    containers: str | None = None
    container_gpu: str | None = None

    def to_json(self) -> bytes:
        """Return the file's text."""
        return json.dumps(asdict(self), default=str, sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes) -> "Session":
        """Read the file."""
        value = json.loads(data)
        paths = {name: Path(value[name]) for name in ("layout", "suite", "scratch")}
        return Session(**{**value, **paths, "packages": tuple(value["packages"])})


def run_scripts(
    session: Session, *, workers: int, select: str, environ: Mapping[str, str], timeout: float | None
) -> SuiteRun:
    """Run the scripts of a session through pytest and xdist, in processes of their own; `timeout` is in seconds.

    Raises:
        ImageTestError: pytest did not come to its end.

    """
    path, report = session.scratch / "session.json", session.scratch / "scripts.xml"
    fs.atomic_write(path, session.to_json())
    argv = (
        sys.executable, "-m", "pytest", "-p", "xdist.plugin", "-p", "lockyard.cli.pytest_plugin", str(session.suite),
        f"--image-session={path}", f"--junitxml={report}", "-c", os.devnull, f"--rootdir={session.suite}", "--noconftest",
        "-p", "no:cacheprovider", "-q", "-rs", *(("-n", str(workers)) if workers > 1 else ()),
        *(("-k", select) if select else ()),
    )  # fmt: skip
    env = {name: value for name, value in environ.items() if not name.startswith("PYTEST_")}
    done = process.run(argv, env={**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, timeout=timeout, tidies=True)
    data = fs.read_file(report)
    if select and done.exit_code == _NOTHING_COLLECTED:
        return SuiteRun((), done.output)
    if done.exit_code not in _RAN or data is None:
        raise ImageTestError(
            f"the image tests did not run to their end: pytest ended with exit code {done.exit_code}",
            details=done.output.strip().splitlines()[-15:],
        )
    return SuiteRun(read_junit(data, classes=False), done.output, data)


def merge_reports(reports: Sequence[bytes]) -> bytes:
    """Return one JUnit report with the suites of all."""
    import xml.etree.ElementTree as ET

    root = ET.Element("testsuites")
    for report in reports:
        root.extend(ET.fromstring(report).iter("testsuite"))  # noqa: S314 - read_junit has read it before
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode").encode()
