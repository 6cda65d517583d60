"""Use cases around image tests: run them inside built images, keep their records."""

import platform as machine_platform
from dataclasses import replace

from lockyard import fs
from lockyard.app.images import BuildResult, ImageResult, chosen_platforms, open_built, suite_of, tag_of
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import Record, Skipped, format_record, host_platform, plan_tests, suite_digest
from lockyard.checks.run import run_suite
from lockyard.errors import ImageTestError
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.version import Version

_SHOWN_TESTS, _SHOWN_LINES = 10, 12
TEST_TIMEOUT = 1800.0
"""Seconds for all image tests of one image."""


def check_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    image_types: tuple[str, ...] = (),
    platforms: tuple[str, ...] = (),
    timeout: float = TEST_TIMEOUT,
) -> BuildResult:
    """Run the image tests on what is built, and keep their records beside the images.

    Raises:
        BuildError: an image is not built.
        ImageTestError: tests failed.

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
    tested = tuple(run_image_tests(toolbox, workspace, version, image, timeout) for image in images)
    return BuildResult(version=version, images=tested)


def run_image_tests(
    toolbox: Toolbox, workspace: Workspace, version: Version, image: ImageResult, timeout: float = TEST_TIMEOUT
) -> ImageResult:
    """Run the image tests inside one built image and keep their record beside it; `timeout` is in seconds.

    Raises:
        ImageTestError: they failed, or none ran.

    """
    line = workspace.line(version)
    flags = line.variant(image.image_type).pytest_flags
    suite = suite_of(workspace)
    plan = plan_tests(image.platform, host=host_platform(machine_platform.machine()), suite=suite, skip=False)
    what = f"{image.image_type} {image.platform}"
    if isinstance(plan, Skipped):
        toolbox.log.warning(f"image tests of {what} are skipped: {plan.reason}")
        return replace(image, skipped=plan.reason)
    toolbox.log.step(f"testing {what} of {version}")
    with toolbox.sandbox(image.layout) as runner, fs.temporary_directory(workspace.state_dir, "suite") as place:
        # A copy of what is hashed: what runs is what the record names.
        fs.write_tree(suite, place / "tests")
        done = run_suite(runner, place / "tests", prefix=line.prefix, flags=flags, scratch=place, timeout=timeout)
    record = Record(
        manifest=Digest(image.digest), suite=suite_digest(suite, flags), image_type=image.image_type,
        platform=image.platform, tests=done.tests,
    )  # fmt: skip
    fs.atomic_write(image.layout / TESTS, format_record(record).encode())
    if not record.green:
        raise _not_green(record, what)
    toolbox.log.info(f"image tests of {what}: {summary(record)}")
    return replace(image, tests=record)


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
