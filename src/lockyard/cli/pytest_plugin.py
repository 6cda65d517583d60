"""The pytest plugin of image tests: with `--image` a suite's scripts are tests that run inside that image.

`pytest --image oci:out/1.4.2/cpu/linux-64 test/image` runs a suite by hand, in what was built or, by `REPOSITORY@DIGEST`, in what
was pushed; `lockyard test` runs it the same way and keeps the record. Without `--image` the plugin does nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lockyard.app.imagebench import ImageBench
    from lockyard.checks.suite import ImageTest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("lockyard", "image tests")
    group.addoption(
        "--image", metavar="REF", help="run the image tests of a suite inside this image: oci:DIR or REPOSITORY@DIGEST"
    )
    group.addoption("--image-gpu", action="store_true", help="tests that need a GPU run too")
    group.addoption("--image-session", metavar="FILE", help="written by lockyard test: what the suite runs in")


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Leave the suite's conftest.py to the image: it may import what only the image has."""
    known = early_config.known_args_namespace
    if known.image or known.image_session:
        known.noconftest = True


def pytest_configure(config: pytest.Config) -> None:
    """Collect image tests where an image is given."""
    for name, text in (("cpu", "an image test for cpu images"), ("gpu", "an image test for gpu images")):
        config.addinivalue_line("markers", f"{name}: {text}")
    session, image = config.getoption("--image-session"), config.getoption("--image")
    if not session and not image:
        return
    from lockyard.app.imagebench import bench_of_session
    from lockyard.app.pushed import bench_of_image
    from lockyard.cli.root import process_toolbox
    from lockyard.errors import LockyardError

    toolbox = process_toolbox()
    try:
        if session:
            bench = bench_of_session(toolbox, Path(session).read_bytes())
        else:
            bench = bench_of_image(toolbox, image, Path.cwd(), use_gpu=config.getoption("--image-gpu"))
    except LockyardError as error:
        raise pytest.UsageError(
            "\n".join([error.message, *error.details, *([error.hint] if error.hint else [])])
        ) from error
    config.pluginmanager.register(ImageTests(bench), "lockyard-image-tests")
    config.add_cleanup(bench.close)


class ImageTests:
    """Collects the suite's scripts, and nothing else."""

    def __init__(self, bench: "ImageBench") -> None:
        self._bench = bench

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Leave all other files alone."""
        ours = self._bench.test_of(collection_path) is not None or self._bench.is_inner(collection_path)
        return True if collection_path.suffix == ".py" and not ours else None

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect one script."""
        test = self._bench.test_of(file_path)
        if test is None:
            return None
        collector: Script = Script.from_parent(parent, path=file_path)
        collector.bench, collector.test = self._bench, test
        return collector

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> "InnerFile":
        """Collect one file of the image's own pytest; it is not imported here."""
        inner: InnerFile = InnerFile.from_parent(parent, path=module_path)
        inner.bench = self._bench
        return inner


class Script(pytest.File):
    """A file that is one test."""

    bench: "ImageBench"
    test: "ImageTest"

    def collect(self) -> Iterator[pytest.Item]:
        """Give the test, marked by the image types that it is for."""
        item: ScriptItem = ScriptItem.from_parent(self, name=self.test.name)
        item.bench, item.test = self.bench, self.test
        for name in {*self.test.settings.types, *(("gpu",) if self.test.settings.gpu else ())} & {"cpu", "gpu"}:
            item.add_marker(name)
        yield item


class ScriptFailedError(Exception):
    """A script failed; its text is the end of what it printed."""


class InnerFile(pytest.Module):
    """A file that the image's own pytest runs: one test here, however many it holds."""

    bench: "ImageBench"

    def collect(self) -> Iterator[pytest.Item]:
        """Give the test."""
        item: InnerItem = InnerItem.from_parent(self, name=self.path.name)
        item.bench = self.bench
        yield item


class InnerItem(pytest.Item):
    """A file of pytest, run inside the image."""

    bench: "ImageBench"

    def runtest(self) -> None:
        """Run it."""
        from lockyard.errors import ImageTestError

        try:
            done = self.bench.run_inner(self.path)
        except ImageTestError as error:
            raise ScriptFailedError("\n".join([error.message, *error.details])) from error
        if any(test.outcome == "failed" for test in done.tests):
            raise ScriptFailedError(done.output)
        if all(test.outcome == "skipped" for test in done.tests):
            pytest.skip("; ".join(sorted({test.detail for test in done.tests})) or "it holds no test")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:  # noqa: ARG002 - pytest's
        """Show what the image's pytest printed."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the file."""
        return self.path, 0, self.path.name


class ScriptItem(pytest.Item):
    """One script, run inside the image."""

    bench: "ImageBench"
    test: "ImageTest"

    def runtest(self) -> None:
        """Run it, or say why not."""
        outcome = self.bench.run(self.test)
        if outcome.outcome == "skipped":
            pytest.skip(outcome.detail)
        if outcome.outcome == "failed":
            raise ScriptFailedError(outcome.detail)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:  # noqa: ARG002 - pytest's
        """Show what the script printed, not where we raised."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the script."""
        return self.path, 0, self.test.name
