"""Use cases around image tests: run them inside built images, keep their records."""

import contextlib
import json
import os
import platform as machine_platform
import threading
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lockyard import fs
from lockyard.app.images import (
    BuildResult,
    ImageResult,
    chosen_platforms,
    open_built,
    suite_of,
    suite_place,
    tag_of,
)
from lockyard.app.lock import release_locks
from lockyard.app.workspace import Workspace, decode, find_root, open_workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import (
    Record,
    Runs,
    Skipped,
    TestOutcome,
    format_record,
    host_platform,
    plan_tests,
    suite_digest,
    verify_record,
)
from lockyard.checks.run import (
    TEST_REPOSITORY,
    Session,
    SuiteRun,
    merge_reports,
    run_dockerfile,
    run_script,
    run_scripts,
    run_suite,
)
from lockyard.checks.suite import ImageTest, Suite, plan_test, read_config, read_suite
from lockyard.conda.spec import parse_env_in
from lockyard.errors import BuildError, ConfigError, ImageTestError
from lockyard.oci.layout import layout_blobs, read_layout
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.ports.containers import Containers, Runner
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

_SHOWN_TESTS, _SHOWN_LINES = 10, 12
REPORT = "tests.xml"
"""The JUnit report beside an image."""
LOG = "tests.log"
NO_GPU = "needs a GPU: --use-gpu"
NO_GPU_HERE = "needs a GPU: this engine passes none"


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
    tested = tuple(run_image_tests(toolbox, workspace, version, image, options) for image in images)
    return BuildResult(version=version, images=tested)


def run_image_tests(
    toolbox: Toolbox, workspace: Workspace, version: Version, image: ImageResult, options: TestOptions = DEFAULT
) -> ImageResult:
    """Run the image tests inside one built image and keep their record beside it.

    What was tested green with the same suite is not tested again. A run of chosen tests leaves no record.

    Raises:
        ImageTestError: they failed, or none ran.

    """
    flags = workspace.line(version).variant(image.image_type).pytest_flags
    suite = suite_of(workspace, version)
    plan = plan_tests(image.platform, host=host_platform(machine_platform.machine()), suite=suite, skip=False)
    what = f"{image.image_type} {image.platform}"
    if isinstance(plan, Skipped):
        toolbox.log.warning(f"image tests of {what} are skipped: {plan.reason}")
        return replace(image, skipped=plan.reason)
    digest = suite_digest(suite, flags)
    known = None if options.rerun or options.use_gpu or options.select else _known(image, digest)
    if known is not None:
        toolbox.log.info(f"image tests of {what}: nothing has changed since {summary(known)} (--rerun runs them)")
        return replace(image, tests=known)
    toolbox.log.step(f"testing {what} of {version}")
    done = _run(toolbox, workspace, version, image, suite, options)
    record = Record(
        manifest=Digest(image.digest), suite=digest, image_type=image.image_type, platform=image.platform,
        tests=tuple(sorted(done.tests, key=lambda test: test.name)),
    )  # fmt: skip
    fs.atomic_write(image.layout / LOG, done.output.encode())
    fs.atomic_write(image.layout / REPORT, done.report)
    if not options.select:
        fs.atomic_write(image.layout / TESTS, format_record(record).encode())
    if not record.green:
        raise _not_green(record, what)
    toolbox.log.info(f"image tests of {what}: {summary(record)}")
    return replace(image, tests=record)


def _known(image: ImageResult, suite: Digest) -> Record | None:
    """Return the green record of the same image and suite, when there is one."""
    data = fs.read_file(image.layout / TESTS)
    if data is None:
        return None
    try:
        return verify_record(
            data.decode(errors="replace"), manifest=Digest(image.digest), suite=suite, image_type=image.image_type,
            platform=image.platform, source=TESTS,
        )  # fmt: skip
    except ImageTestError:
        return None


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
            session = _session(
                toolbox, workspace, version, image.image_type, image.platform, image.layout, scratch / "tests", scratch,
                use_gpu=options.use_gpu,
            )  # fmt: skip
            count = sum(not isinstance(_planned(test, session), Skipped) for test in suite.tests)
            workers = options.workers or min(os.cpu_count() or 1, max(1, count // 2))
            environ = {**toolbox.environ, "LOCKYARD_CACHE_DIR": str(toolbox.cache_dir)}
            runs.append(
                run_scripts(session, workers=workers, select=options.select, environ=environ, timeout=options.timeout)
            )
            lost = {test.name for test in suite.tests} - {test.name for test in runs[-1].tests}
            if lost and not options.select:
                raise ImageTestError(f"image tests of {image.image_type} have no result: {', '.join(sorted(lost))}")
    if options.select and not any(run.tests for run in runs):
        raise ImageTestError(f"no image test of {image.image_type} matches -k {options.select!r}")
    return SuiteRun(
        tuple(test for run in runs for test in run.tests),
        "\n".join(run.output for run in runs),
        merge_reports([run.report for run in runs if run.report]),
    )


def _engine_reasons(toolbox: Toolbox, suite: Suite, *, use_gpu: bool) -> tuple[str | None, str | None]:
    """Say why Dockerfile tests do not run, and why they have no GPU; `None` when they do and have."""
    if not any(test.kind == "dockerfile" for test in suite.tests):
        return None, None
    try:
        with contextlib.closing(toolbox.containers()) as containers:
            there = containers.has_gpu() if use_gpu else False
    except BuildError as error:
        return error.message, None
    return None, None if there else (NO_GPU_HERE if use_gpu else NO_GPU)


def _session(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    image_type: str,
    platform: str,
    layout: Path,
    suite: Path,
    scratch: Path,
    *,
    use_gpu: bool,
) -> Session:
    """Gather what the scripts of one image may know."""
    line = workspace.line(version)
    tree = workspace.existing_release(version)
    lock = release_locks(workspace, version, image_types=(image_type,))[image_type]
    packages = lock.packages(platform)
    name = f"{image_type}.env.in"
    source = str(release_dir(version) / name)
    specs = parse_env_in(decode(tree[name].data, source), source=source) if name in tree else None
    place, tree_of_suite = suite_place(workspace, version), suite_of(workspace, version)
    config = read_config(tree_of_suite, source=place).ready_made
    engine, engine_gpu = _engine_reasons(toolbox, read_suite(tree_of_suite, source=place), use_gpu=use_gpu)
    uid, _, gid = line.owner.partition(":")
    context: dict[str, Any] = {
        "schema": 1,
        "version": str(version),
        "image_type": image_type,
        "platform": platform,
        "prefix": line.prefix,
        "owner": [int(uid), int(gid)],
        "direct": sorted(specs.by_name) if specs else sorted(package.name for package in packages),
        "packages": sorted(package.dist for package in packages),
        "size": read_layout(layout).image.size,
        "max_size": config.max_size,
        "skip_imports": list(config.skip_imports),
    }
    return Session(
        layout=layout, suite=suite, scratch=scratch, image_type=image_type, prefix=line.prefix,
        packages=tuple(package.name for package in packages), context=context,
        gpu=NO_GPU_HERE if use_gpu else NO_GPU, containers=engine, container_gpu=engine_gpu,
    )  # fmt: skip


def _planned(test: ImageTest, session: Session) -> Runs | Skipped:
    return plan_test(
        test,
        image_type=session.image_type,
        packages=session.packages,
        containers=session.containers,
        gpu=session.container_gpu if test.kind == "dockerfile" else session.gpu,
    )


class ImageBench:
    """Runs the scripts of one session, one after the other; the image is opened when the first one needs it."""

    def __init__(self, toolbox: Toolbox, session: Session, suite: Suite) -> None:
        self._toolbox = toolbox
        self._session = session
        self._tests = {(session.suite / test.path).resolve(): test for test in suite.tests}
        self._open = ExitStack()
        self._runner: Runner | None = None
        self._containers: Containers | None = None
        self._guard = threading.Lock()

    def test_of(self, path: Path) -> ImageTest | None:
        """Return the test that a file is."""
        return self._tests.get(path.resolve())

    def run(self, test: ImageTest) -> TestOutcome:
        """Run one test, or say why not."""
        plan = _planned(test, self._session)
        if isinstance(plan, Skipped):
            return TestOutcome(test.name, "skipped", plan.reason)
        if test.kind == "dockerfile":
            return self._run_in_container(test)
        with self._guard:
            if self._runner is None:
                self._runner = self._open.enter_context(self._toolbox.sandbox(self._session.layout))
        session = self._session
        return run_script(
            self._runner, test, session.suite, prefix=session.prefix, context=session.context, scratch=session.scratch
        )

    def _run_in_container(self, test: ImageTest) -> TestOutcome:
        with self._guard:
            if self._containers is None:
                self._containers = self._open.enter_context(contextlib.closing(self._toolbox.containers()))
                layout = read_layout(self._session.layout)
                self._image = f"{TEST_REPOSITORY}:{uuid.uuid4().hex}"
                self._containers.load(layout.image, layout_blobs(layout), self._image)
                self._open.callback(self._containers.remove_image, self._image)
                self._files = fs.read_tree(self._session.suite)
        return run_dockerfile(self._containers, test, self._files, image=self._image)

    def close(self) -> None:
        """Leave the image."""
        self._open.close()


def bench_of_session(toolbox: Toolbox, data: bytes) -> ImageBench:
    """Open what `lockyard test` has written for its processes."""
    session = Session.from_json(data)
    return ImageBench(toolbox, session, read_suite(fs.read_tree(session.suite), source=str(session.suite)))


def bench_of_image(toolbox: Toolbox, image: str, start: Path, *, use_gpu: bool) -> ImageBench:
    """Open a built image of the distribution around `start` by its layout `oci:DIR`, to run its suite by hand.

    Raises:
        ConfigError: `image` is not the layout of a release's image.
        BuildError: it is not built.

    """
    kind, _, path = image.partition(":")
    if kind != "oci" or not path:
        raise ConfigError(
            f"--image {image}: not oci:DIR", hint="lockyard build leaves them in out/VERSION/TYPE/PLATFORM"
        )
    layout = Path(path).absolute()
    record = fs.read_file(layout / "build.json")
    if record is None:
        raise BuildError(f"{layout} has no build.json", hint="build the image first: lockyard build")
    build = json.loads(record)
    workspace = open_workspace(find_root(start))
    version = Version.parse(str(build["version"]))
    place = suite_place(workspace, version)
    suite = read_suite(fs.read_tree(workspace.root / place), source=place)
    workspace.state_dir.mkdir(exist_ok=True)
    session = _session(
        toolbox, workspace, version, build["image_type"], build["platform"], layout, workspace.root / place, workspace.state_dir,
        use_gpu=use_gpu,
    )  # fmt: skip
    return ImageBench(toolbox, session, suite)


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
