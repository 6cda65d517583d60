"""What image tests run in: the session that all scripts of one image share, and the bench that runs them one by one."""

import contextlib
import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from lockyard import fs, process
from lockyard.app.images import suite_of, suite_place
from lockyard.app.lock import release_locks
from lockyard.app.workspace import Workspace, decode
from lockyard.checks.plan import Runs, Skipped, TestOutcome
from lockyard.checks.run import TEST_REPOSITORY, Session, SuiteRun, run_dockerfile, run_script, run_suite
from lockyard.checks.suite import ImageTest, Suite, is_pytest_file, plan_test, read_config, read_suite
from lockyard.conda.spec import parse_env_in
from lockyard.errors import BuildError
from lockyard.oci.layout import layout_blobs, read_layout
from lockyard.ports import Toolbox
from lockyard.ports.containers import Containers, Runner
from lockyard.version import Version, release_dir

NO_GPU = "needs a GPU: --use-gpu"
NO_GPU_HERE = "needs a GPU: the sandbox passes none; write it as a Dockerfile test"
NO_GPU_IN_ENGINE = "needs a GPU: the Docker daemon has neither NVIDIA's runtime nor a CDI device nvidia.com/gpu"


def _engine_reasons(toolbox: Toolbox, suite: Suite, *, use_gpu: bool) -> tuple[str | None, str | None]:
    """Say why Dockerfile tests do not run, and why they have no GPU; `None` when they do and have."""
    if not any(test.kind == "dockerfile" for test in suite.tests):
        return None, None
    try:
        with contextlib.closing(toolbox.containers()) as containers:
            there = containers.has_gpu() if use_gpu else False
    except BuildError as error:
        return error.message, None
    return None, None if there else (NO_GPU_IN_ENGINE if use_gpu else NO_GPU)


def session_of(
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


def planned(test: ImageTest, session: Session) -> Runs | Skipped:
    """Say whether a test runs in the image of a session."""
    return plan_test(
        test,
        image_type=session.image_type,
        packages=session.packages,
        containers=session.containers,
        gpu=session.container_gpu if test.kind == "dockerfile" else session.gpu,
    )


class ImageBench:
    """Runs the scripts of one session, one after the other; the image is opened when the first one needs it.

    With `flags`, those of the image's own pytest, it runs that pytest's files, too.
    """

    def __init__(
        self, toolbox: Toolbox, session: Session, suite: Suite, *, flags: tuple[str, ...] | None = None
    ) -> None:
        self._toolbox = toolbox
        self._session = session
        self._flags = flags
        self._tests = {(session.suite / test.path).resolve(): test for test in suite.tests}
        self._open = ExitStack()
        self._runner: Runner | None = None
        self._containers: Containers | None = None
        self._guard = threading.Lock()

    def test_of(self, path: Path) -> ImageTest | None:
        """Return the test that a file is."""
        return self._tests.get(path.resolve())

    def is_inner(self, path: Path) -> bool:
        """Tell whether a file is one that the image's own pytest runs here."""
        below = path.resolve().is_relative_to(self._session.suite.resolve())
        return self._flags is not None and below and is_pytest_file(path.name)

    def run_inner(self, path: Path) -> SuiteRun:
        """Run a file of the suite with the image's own pytest.

        Raises:
            ImageTestError: it did not run.

        """
        session = self._session
        return run_suite(
            self._inside(), session.suite, prefix=session.prefix, flags=self._flags or (), scratch=session.scratch,
            only=str(path.resolve().relative_to(session.suite.resolve())),
        )  # fmt: skip

    def run(self, test: ImageTest) -> TestOutcome:
        """Run one test, or say why not."""
        plan = planned(test, self._session)
        if isinstance(plan, Skipped):
            return TestOutcome(test.name, "skipped", plan.reason)
        if test.kind == "dockerfile":
            return self._run_in_container(test)
        session = self._session
        return run_script(
            self._inside(), test, session.suite, prefix=session.prefix, context=session.context, scratch=session.scratch
        )

    def _inside(self) -> Runner:
        with self._guard:
            if self._runner is None:
                self._runner = self._open.enter_context(self._toolbox.sandbox(self._session.layout))
        return self._runner

    def _run_in_container(self, test: ImageTest) -> TestOutcome:
        with self._guard:
            if self._containers is None:
                self._containers = self._open.enter_context(contextlib.closing(self._toolbox.containers()))
                layout = read_layout(self._session.layout)
                self._image = f"{TEST_REPOSITORY}:{process.temporary_name()}"
                self._containers.load(layout.image, layout_blobs(layout), self._image)
                self._open.callback(self._containers.remove_image, self._image)
                self._files = fs.read_tree(self._session.suite)
        return run_dockerfile(self._containers, test, self._files, image=self._image)

    def take(self, context: AbstractContextManager[object]) -> None:
        """Own something that ends with the bench."""
        self._open.push(context)

    def close(self) -> None:
        """Leave the image."""
        self._open.close()


def bench_of_session(toolbox: Toolbox, data: bytes) -> ImageBench:
    """Open what `lockyard test` has written for its processes."""
    session = Session.from_json(data)
    return ImageBench(toolbox, session, read_suite(fs.read_tree(session.suite), source=str(session.suite)))
