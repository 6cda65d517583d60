"""Use cases around the images of a Python package: built and tested from one commit, or bundled only."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lockyard import fs
from lockyard.app.bundles import DEFAULT as DEFAULT_BUNDLE
from lockyard.app.bundles import BundleOptions, Checkout, check_out, open_bundle, write_bundle
from lockyard.app.engines import first_failure
from lockyard.app.runtimebuild import DEFAULT as DEFAULT_IMAGES
from lockyard.app.runtimebuild import OUT, Engines, ImageOptions, PackageImage, build_image, load_image
from lockyard.app.runtimes import read_runtimes
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import Record, format_record, verify_record
from lockyard.errors import ConfigError, ImageTestError
from lockyard.oci.layout import read_layout
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.ports.containers import RunRequest
from lockyard.pyrelease.files import state_dir
from lockyard.pyrelease.imagetags import exact_tag, floating_tags
from lockyard.pyrelease.imagetests import TIMEOUT, ImageChecks
from lockyard.pyrelease.project import Project
from lockyard.pyrelease.runtimes import Runtime

LOG = "tests.log"
_PATIENCE = 3600.0  # seconds that another build of this project may take
_BESIDE = 4  # images that BuildKit builds at a time


@dataclass(frozen=True, slots=True)
class WrittenBundle:
    """A bundle in a file."""

    path: Path
    digest: Digest
    image_version: str


def bundle_runtime(
    toolbox: Toolbox, project: Project, name: str, options: BundleOptions = DEFAULT_BUNDLE, output: Path | None = None
) -> WrittenBundle:
    """Write the bundle of a runtime, to `out/package/VERSION/NAME.tar` unless `output` says where.

    Raises:
        ConfigError, DriftError, BuildError: as `open_bundle`.

    """
    with check_out(toolbox, project, options) as checkout, open_bundle(toolbox, checkout, name, options) as bundle:
        path = output or project.root / "out" / OUT / bundle.image_version / f"{name}.tar"
        return WrittenBundle(path, write_bundle(bundle, path), bundle.image_version)


def build_images(
    toolbox: Toolbox,
    project: Project,
    names: tuple[str, ...] = (),
    *,
    bundles: BundleOptions = DEFAULT_BUNDLE,
    options: ImageOptions = DEFAULT_IMAGES,
    skip_tests: bool = False,
    load: bool = True,
) -> tuple[PackageImage, ...]:
    """Build the images of runtimes, of all without `names`, then test all of them.

    All come out of one commit (or the work tree). What was built from the same files, and tested, is kept.

    Raises:
        ConfigError: `runtimes.yaml` is wrong, or a file that it names is missing.
        DriftError: a committed Dockerfile is not what `runtimes.yaml` gives.
        BuildError: an image cannot be built.
        ImageTestError: a test failed; what was built stays.

    """
    engines = Engines(toolbox, options.engines)
    with (
        fs.lock(state_dir(project.root) / "images.lock", patience=_PATIENCE, tell=toolbox.log.info),
        check_out(toolbox, project, bundles) as checkout,
        contextlib.closing(engines),
    ):
        runtimes = read_runtimes(checkout.project, checkout.read).chosen(names)

        def build(runtime: Runtime) -> PackageImage:
            with open_bundle(toolbox, checkout, runtime.name, bundles) as bundle:
                return build_image(toolbox, project, bundle, engines, options)

        # Docker's builder knows only finished steps: side by side, images with the same first steps would each make their own,
        # and the next release would find now these, now those. BuildKit makes them once.
        workers = _BESIDE if options.engines.engine == "buildkit" else 1
        images = _beside(build, runtimes, engines.cancel, workers)
    if load:
        images = [load_image(toolbox, project.normalized_name, image) for image in images]
    if not skip_tests:
        pairs = zip(runtimes, images, strict=True)
        images = [test_image(toolbox, checks_of(checkout, runtime, bundles), image) for runtime, image in pairs]
    return tuple(images)


def describe_images(project: Project, names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return what the images of the release will be: name, Dockerfile, base, exact tag, floating tag (`None` without one).

    Raises:
        ConfigError: `runtimes.yaml` is wrong, or the version cannot be in a tag.

    """
    version = project.version
    return [
        {
            "name": runtime.name,
            "dockerfile": runtime.dockerfile,
            "image": runtime.image,
            "tag": exact_tag(str(version), runtime.suffix),
            "floating": next(iter(floating_tags(version, (), runtime.suffix)), None),
        }
        for runtime in read_runtimes(project).chosen(names)
    ]


def release_options(project: Project, options: BundleOptions = DEFAULT_BUNDLE) -> BundleOptions:
    """Return how the images of a release are bundled: with the wheel that was built for it, under its version.

    Raises:
        ConfigError: a runtime has a version of its own that is not the release's, or no tag can have the version.

    """
    version = str(project.version)
    for runtime in read_runtimes(project).chosen():
        if runtime.version not in {None, version}:
            raise ConfigError(
                f"{runtime.where('version')}: {runtime.name} has version {runtime.version}, and the release is {version}",
                hint="leave the key out: images of a release have its version",
            )
        exact_tag(version, runtime.suffix)
    return replace(options, version=version, from_dist=True)


def checks_of(checkout: Checkout, runtime: Runtime, bundles: BundleOptions) -> ImageChecks:
    """Return what an image of a runtime must show."""
    return ImageChecks(
        runtime=runtime, package=checkout.project.normalized_name, package_version=str(checkout.project.version),
        image_version=bundles.version or runtime.version or checkout.image_version,
    )  # fmt: skip


def test_image(toolbox: Toolbox, checks: ImageChecks, image: PackageImage) -> PackageImage:
    """Run the checks inside a built image and keep their record beside it; a green record of the same image is kept.

    Raises:
        ImageTestError: a check failed.
        BuildError: this machine cannot run commands in images.

    """
    what = f"{image.runtime} {image.platform}"
    known = green_record(image.layout, checks, image.platform, Digest(image.digest))
    if known is not None:
        toolbox.log.info(f"{what}: tested already")
        return replace(image, tests=known)
    toolbox.log.step(f"testing {what}")
    config = read_layout(image.layout).image.runtime
    with toolbox.sandbox(image.layout) as runner:
        results = {
            name: runner.run(RunRequest(argv=argv, timeout=TIMEOUT)) for name, argv in checks.commands(config).items()
        }
    record = Record(
        manifest=Digest(image.digest), suite=checks.digest, image_type=image.runtime, platform=image.platform,
        tests=checks.judge(config, results),
    )  # fmt: skip
    log = "".join(f"$ {name}\n{result.output}\n" for name, result in results.items())
    fs.atomic_write(image.layout / LOG, log.encode())
    fs.atomic_write(image.layout / TESTS, format_record(record).encode())
    failed = [test for test in record.tests if test.outcome == "failed"]
    if failed:
        raise ImageTestError(
            f"{what}: {len(failed)} of {len(record.tests)} checks failed",
            details=[
                line for test in failed for line in (test.name, *(f"  {row}" for row in test.detail.splitlines()))
            ],
            hint=f"what the commands said is in {image.layout / LOG}",
        )
    toolbox.log.info(f"{what}: {len(record.tests)} checks passed")
    return replace(image, tests=record)


test_image.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def green_record(layout: Path, checks: ImageChecks, platform: str, manifest: Digest) -> Record | None:
    """Return the green record of an image and its checks, when there is one."""
    data = fs.read_file(layout / TESTS)
    try:
        return verify_record(
            None if data is None else data.decode(errors="replace"), manifest=manifest, suite=checks.digest,
            image_type=checks.runtime.name, platform=platform, source=TESTS,
        )  # fmt: skip
    except ImageTestError:
        return None


def _beside(
    build: Callable[[Runtime], PackageImage], runtimes: Sequence[Runtime], cancel: Callable[[], None], workers: int
) -> list[PackageImage]:
    """Build `workers` images at a time; the first failure ends the others."""
    if workers == 1:
        return [build(runtime) for runtime in runtimes]
    with ThreadPoolExecutor(min(workers, len(runtimes)), thread_name_prefix="image") as executor:
        running = [executor.submit(build, runtime) for runtime in runtimes]
        errors: list[BaseException] = []
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            errors += [failure for item in running if item.done() and (failure := item.exception()) is not None]
        finally:
            if errors or not all(item.done() for item in running):
                executor.shutdown(wait=False, cancel_futures=True)
                cancel()
    if errors:
        raise first_failure(errors)
    return [item.result() for item in running]
