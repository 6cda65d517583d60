"""Use cases around image tests: run them inside built images, keep their records."""

import os
import platform as machine_platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs
from lockyard.app.imagebench import planned, session_of
from lockyard.app.images import (
    BuildResult,
    ImageResult,
    chosen_platforms,
    open_built,
    suite_of,
    suite_place,
    tag_of,
)
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import (
    Record,
    Skipped,
    format_record,
    host_platform,
    plan_tests,
    suite_digest,
    verify_record,
)
from lockyard.checks.run import SuiteRun, merge_reports, run_scripts, run_suite
from lockyard.checks.suite import read_suite
from lockyard.errors import ImageTestError
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.tree import Tree
from lockyard.version import Version

_SHOWN_TESTS, _SHOWN_LINES = 10, 12
REPORT = "tests.xml"
"""The JUnit report beside an image."""
LOG = "tests.log"


@dataclass(frozen=True, kw_only=True)
class TestOptions:
    """How image tests run.

    `timeout` is in seconds, for all of one image; `select` an expression of pytest's `-k`; `workers` the processes for
    scripts, `None` one per processor; `rerun` asks for a run although there is a record of the same content.
    """

    __test__ = False  # the name is the field's own; pytest must not collect it

    timeout: float = 1800.0
    select: str = ""
    workers: int | None = None
    use_gpu: bool = False
    rerun: bool = False

    @property
    def wants_a_run(self) -> bool:
        """Whether a record of an earlier run does not do."""
        return self.rerun or self.use_gpu or bool(self.select)


DEFAULT = TestOptions()


def check_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    image_types: tuple[str, ...] = (),
    platforms: tuple[str, ...] = (),
    options: TestOptions = DEFAULT,
) -> BuildResult:
    """Run the image tests on what is built, all of it, and keep their records beside the images.

    `require_green` says whether they passed.

    Raises:
        BuildError: an image is not built.
        ImageTestError: tests could not be run.

    """
    images = []
    for name, variant in workspace.variants(version, image_types).items():
        for platform in chosen_platforms(variant, name, platforms):
            layout = open_built(workspace, version, name, platform)
            image = layout.image
            images.append(
                ImageResult(
                    image_type=name, platform=platform, tag=tag_of(variant, version, name), digest=str(image.digest),
                    layout=layout.path, layers=len(image.layers), rebuilt=0, size=image.size, rebuilt_size=0, fetched=0,
                    packages=0, seconds=0.0,
                )
            )  # fmt: skip
    tested = tuple(run_image_tests(toolbox, workspace, version, image, options) for image in images)
    return BuildResult(version=version, images=tested)


def require_green(images: Sequence[ImageResult], *, some: bool = True) -> None:
    """Refuse images of which a test failed or none was executed; `some` asks that at least one image was tested.

    Raises:
        ImageTestError: with the failed tests and the last lines of each.

    """
    red = [(f"{image.image_type} {image.platform}", image.tests) for image in images if image.tests is not None]
    failures = [_not_green(record, what) for what, record in red if not record.green]
    if failures:
        first, *rest = failures
        details = [*first.details, *(line for error in rest for line in (error.message, *error.details))]
        raise ImageTestError(first.message, hint=first.hint, details=details)
    if some and not red:
        raise ImageTestError(
            "no image test was run",
            details=[f"{image.image_type} {image.platform}: {image.skipped}" for image in images],
            hint="docs/reference/image-tests.md",
        )


def run_image_tests(
    toolbox: Toolbox, workspace: Workspace, version: Version, image: ImageResult, options: TestOptions = DEFAULT
) -> ImageResult:
    """Run the image tests inside one built image and keep their record beside it, green or not.

    What was tested green with the same suite is not tested again. A run of chosen tests leaves no record.

    Raises:
        ImageTestError: they could not be run.

    """
    suite = planned_suite(workspace, version, image.image_type, image.platform)
    what = f"{image.image_type} {image.platform}"
    if isinstance(suite, Skipped):
        toolbox.log.warning(f"image tests of {what} are skipped: {suite.reason}")
        return replace(image, skipped=suite.reason)
    known = None if options.wants_a_run else known_record(fs.read_file(image.layout / TESTS), image, suite)
    if known is not None:
        toolbox.log.info(f"image tests of {what}: nothing has changed since {summary(known)} (--rerun runs them)")
        return replace(image, tests=known)
    return run_in(toolbox, workspace, version, image, options, results=image.layout)


def planned_suite(workspace: Workspace, version: Version, image_type: str, platform: str) -> Digest | Skipped:
    """Return the digest of the suite that an image is tested with, or why it is not tested here."""
    suite = suite_of(workspace, version)
    plan = plan_tests(platform, host=host_platform(machine_platform.machine()), suite=suite, skip=False)
    if isinstance(plan, Skipped):
        return plan
    return suite_digest(suite, workspace.line(version).variant(image_type).pytest_flags)


def known_record(data: bytes | None, image: ImageResult, suite: Digest) -> Record | None:
    """Return the green record that `data` is, when it is of this image and suite."""
    if data is None:
        return None
    try:
        return verify_record(
            data.decode(errors="replace"), manifest=Digest(image.digest), suite=suite, image_type=image.image_type,
            platform=image.platform, source=TESTS,
        )  # fmt: skip
    except ImageTestError:
        return None


def run_in(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    image: ImageResult,
    options: TestOptions,
    *,
    results: Path,
) -> ImageResult:
    """Run the image tests inside one image; record, report and log go to the directory `results`.

    Raises:
        ImageTestError: they could not be run.

    """
    what = f"{image.image_type} {image.platform}"
    toolbox.log.step(f"testing {what} of {version}")
    suite = suite_of(workspace, version)
    digest = suite_digest(suite, workspace.line(version).variant(image.image_type).pytest_flags)
    done = _run(toolbox, workspace, version, image, suite, options)
    fs.atomic_write(results / LOG, done.output.encode())
    if options.select and not done.tests:
        return replace(image, skipped=f"no image test matches -k {options.select!r}")
    record = Record(
        manifest=Digest(image.digest), suite=digest, image_type=image.image_type, platform=image.platform,
        tests=tuple(sorted(done.tests, key=lambda test: test.name)),
    )  # fmt: skip
    fs.atomic_write(results / REPORT, done.report)
    if not options.select:
        fs.atomic_write(results / TESTS, format_record(record).encode())
    toolbox.log.info(f"image tests of {what}: {summary(record)}")
    return replace(image, tests=record)


def _run(
    toolbox: Toolbox, workspace: Workspace, version: Version, image: ImageResult, tree: Tree, options: TestOptions
) -> SuiteRun:
    line = workspace.line(version)
    place = suite_place(workspace, version)
    suite = read_suite(tree, source=place)
    runs = []
    with fs.temporary_directory(workspace.state_dir, "suite") as scratch:
        # A copy of what is hashed: what runs is what the record names.
        fs.write_tree(tree, scratch / "tests")
        if suite.pytest:
            with toolbox.sandbox(image.layout) as runner:
                runs.append(
                    run_suite(
                        runner, scratch / "tests", prefix=line.prefix, scratch=scratch, timeout=options.timeout,
                        flags=line.variant(image.image_type).pytest_flags, select=options.select,
                    )
                )  # fmt: skip
        if suite.tests:
            session = session_of(
                toolbox, workspace, version, image.image_type, image.platform, image.layout, scratch / "tests", scratch,
                use_gpu=options.use_gpu,
            )  # fmt: skip
            count = sum(not isinstance(planned(test, session), Skipped) for test in suite.tests)
            workers = options.workers or min(os.cpu_count() or 1, max(1, count // 2))
            environ = {**toolbox.environ, "LOCKYARD_CACHE_DIR": str(toolbox.cache_dir)}
            runs.append(
                run_scripts(session, workers=workers, select=options.select, environ=environ, timeout=options.timeout)
            )
            lost = {test.name for test in suite.tests} - {test.name for test in runs[-1].tests}
            if lost and not options.select:
                raise ImageTestError(f"image tests of {image.image_type} have no result: {', '.join(sorted(lost))}")
    return SuiteRun(
        tuple(test for run in runs for test in run.tests),
        "\n".join(run.output for run in runs),
        merge_reports([run.report for run in runs if run.report]),
    )


def summary(record: Record) -> str:
    """Return the counts of a record for people."""
    counts = (
        (record.count("passed"), "passed"),
        (record.count("failed"), "failed"),
        (record.count("skipped"), "skipped"),
    )
    return ", ".join(f"{number} {name}" for number, name in counts if number or name == "passed")


def _not_green(record: Record, what: str) -> ImageTestError:
    failed = [test for test in record.tests if test.outcome == "failed"]
    details = []
    for test in failed[:_SHOWN_TESTS]:
        details += [test.name, *(f"  {line}" for line in test.detail.strip().splitlines()[-_SHOWN_LINES:])]
    if not failed:
        return ImageTestError(f"image tests of {what}: none was executed ({summary(record)})")
    return ImageTestError(
        f"image tests of {what} failed: {summary(record)}", hint="nothing was published; mend them", details=details
    )
