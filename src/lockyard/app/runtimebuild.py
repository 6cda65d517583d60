"""The use case of building one image of a Python package from its bundle, by whatever engine its Dockerfile needs."""

import contextlib
import datetime as dt
import json
import os
import platform as machine_platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lockyard import __version__, fs, process
from lockyard.app.bases import in_registry
from lockyard.app.bundles import write_bundle
from lockyard.app.engines import AUTO, Choice, EngineOptions, open_engine
from lockyard.app.engines import DEFAULT as DEFAULT_ENGINES
from lockyard.app.images import BUILD
from lockyard.checks.plan import Record, host_platform
from lockyard.engines.containers import ContainerEngine, with_version
from lockyard.engines.native import NativeEngine
from lockyard.engines.request import Base, BuildRequest, BuiltImage
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.bases import BaseOpener
from lockyard.oci.cache import BlobCache
from lockyard.oci.classic import choose_engine
from lockyard.oci.image import canonical_json, empty_image, oci_platform
from lockyard.oci.instructions import kind_of, parse
from lockyard.oci.layering import LayerPlan
from lockyard.oci.layout import Layout, layout_blobs, read_layout, write_layout
from lockyard.oci.pulled import PulledBases
from lockyard.oci.values import Digest, check_tag
from lockyard.ports import Toolbox
from lockyard.ports.containers import Builder
from lockyard.pyrelease.bundle import Bundle
from lockyard.pyrelease.files import state_dir
from lockyard.pyrelease.project import Project
from lockyard.tree import File, Tree

SCHEMA = 1
OUT = "package"
"""Below `out/`: where the images of a Python package are, apart from those of a distribution beside it."""
_BASE_ARGUMENTS = {"finish": "ENV_IMAGE", "derived": "BASE_IMAGE"}
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are built: by which engine, with how many threads, and whether what is built already is built again."""

    engines: EngineOptions = DEFAULT_ENGINES
    workers: int | None = None
    rebuild: bool = False


DEFAULT = ImageOptions()


@dataclass(frozen=True, kw_only=True)
class PackageImage:
    """A built image of a Python package; `again` says that it was there already. `tests` is the record, when they ran."""

    runtime: str
    platform: str
    tag: str
    digest: str
    layout: Path
    engine: str
    layers: int
    size: int
    again: bool = False
    seconds: float = 0.0
    tests: Record | None = None
    loaded: str = ""


@dataclass(frozen=True)
class _Job:
    """One image to build: its bundle in a file, the engine, and everything that its bytes depend on."""

    project: Project
    bundle: Bundle
    archive: Path
    digest: Digest
    choice: Choice
    platform: str
    layout: Path
    tag: str
    base: Base | None
    """Opened where we bring it; `None` where the engine has it or pulls it."""

    @property
    def inputs(self) -> str:
        """The digest of what the image is made from; a base that the engine pulls counts by its name."""
        below = self.base.digest if self.base is not None else None
        image = self.bundle.runtime.image
        parts = [str(self.digest), self.choice.engine, self.bundle.image_version, image, below, __version__]
        return str(Digest.of(canonical_json(parts)))


@dataclass
class Engines:
    """What the images of one command share, in several threads: the container engine, and opened bases; both at first use."""

    toolbox: Toolbox
    options: EngineOptions
    _opened: Builder | None = None
    _bases: dict[str, Base] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def base(self, project: Project, bundle: Bundle, platform: str, workers: int) -> Base:
        """Open the base that a runtime names.

        Raises:
            BuildError: it is missing, malformed or not for the platform.
            RegistryError: its registry does not give it.

        """
        image = bundle.runtime.image
        with self._guard:
            if image not in self._bases:
                toolbox = self.toolbox
                with ThreadPoolExecutor(workers) as executor:
                    opener = BaseOpener(
                        root=project.root, source=bundle.runtime.where("image"), created=_created(toolbox, bundle),
                        cache=BlobCache(toolbox.cache_dir), pulled=PulledBases(toolbox.cache_dir, toolbox.log),
                        registry=lambda repository: toolbox.registry(repository, pull_only=True), compression="gzip",
                        executor=executor, log=toolbox.log,
                    )  # fmt: skip
                    self._bases[image] = opener.open(image, oci_platform(platform))
            return self._bases[image]

    def get(self, choice: Choice) -> Builder:
        """Return it.

        Raises:
            BuildError: there is none; the message says why it is needed.

        """
        with self._guard:
            if self._opened is None:
                try:
                    self._opened = open_engine(self.toolbox, [choice], self.options)
                except BuildError as error:
                    hint = "start one, or set DOCKER_HOST; base_template: native in runtimes.yaml needs none"
                    raise type(error)(
                        error.message, hint=hint if self.options.engine == AUTO else error.hint
                    ) from error
            return self._opened

    def close(self) -> None:
        """Close it."""
        if self._opened is not None:
            self._opened.close()

    def cancel(self) -> None:
        """End what it builds."""
        if self._opened is not None:
            self._opened.cancel()


def out_dir(project: Project, version: str, name: str, platform: str) -> Path:
    """Return where an image is kept: an OCI layout, `build.json` and `tests.json`."""
    return project.root / "out" / OUT / version / name / platform


def build_image(
    toolbox: Toolbox, project: Project, bundle: Bundle, engines: Engines, options: ImageOptions = DEFAULT
) -> PackageImage:
    """Build the image of a bundle for this machine's platform; what was built from the same inputs is kept.

    Raises:
        BuildError: the engine cannot build it.
        RegistryError: the registry of the base does not give it.

    """
    platform = host_platform(machine_platform.machine())
    start = time.monotonic()
    with process.own_directory(state_dir(project.root)) as scratch:
        archive = scratch / "bundle.tar"
        digest = write_bundle(bundle, archive)
        choice = choose(bundle, options.engines)
        ours = choice.engine == "native" or not in_registry(bundle.runtime.image)
        job = _Job(
            project, bundle, archive, digest, choice, platform,
            out_dir(project, bundle.image_version, bundle.runtime.name, platform),
            check_tag(f"{bundle.image_version}{bundle.runtime.suffix}"),
            engines.base(project, bundle, platform, _workers(options)) if ours else None,
        )  # fmt: skip
        known = None if options.rebuild or options.engines.no_cache else _known(job)
        if known is not None:
            toolbox.log.info(f"{bundle.runtime.name}: built already from the same files (--rebuild builds it again)")
            return _result(job, known, again=True, start=start)
        toolbox.log.step(f"building {bundle.runtime.name} {bundle.image_version} for {platform}")
        if job.choice.engine != "native":
            toolbox.log.info(f"{bundle.runtime.name}: engine {job.choice.engine}: {job.choice.why}")
        built, base = _built(toolbox, job, engines, options)
        image = with_version(built.image, bundle.image_version)
        record = _record(job, built, str(image.digest), base, round(time.monotonic() - start, 3))
        write_layout(job.layout, image, built.blobs, name=job.tag, extra={BUILD: record})
    return _result(job, read_layout(job.layout), again=False, start=start)


def choose(bundle: Bundle, options: EngineOptions) -> Choice:
    """Return the engine for a bundle's Dockerfile: native where it has no RUN and begins from `ENV_IMAGE`.

    Raises:
        BuildError: the engine that was asked for cannot build it.

    """
    text = b"".join(bundle.files[bundle.dockerfile].chunks()).decode()
    instructions = parse(text, bundle.dockerfile)
    kind = kind_of(instructions)
    try:
        engine, why = choose_engine(options.engine, kind, instructions)
    except BuildError as error:
        raise BuildError(error.message, hint="--engine docker, or base_template: native in runtimes.yaml") from error
    runs = next((item.where for item in instructions if item.name == "RUN"), None)
    if options.engine == AUTO and engine != "native" and runs is not None:
        why = f"{runs} has RUN"
    return Choice(engine, why, kind, bundle.dockerfile, instructions)


def _workers(options: ImageOptions) -> int:
    return options.workers or os.cpu_count() or 1


def _known(job: _Job) -> Layout | None:
    """Return the image that was built from the same inputs, whole."""
    data = fs.read_file(job.layout / BUILD)
    try:
        build: Any = json.loads(data or b"{}")
        if build.get("inputs") != job.inputs:
            return None
        layout = read_layout(job.layout, verify_layers=True)
    except (ValueError, AttributeError, BuildError):
        return None
    return layout if build.get("manifest_digest") == str(layout.image.digest) else None


def _built(
    toolbox: Toolbox, job: _Job, engines: Engines, options: ImageOptions
) -> tuple[BuiltImage, Mapping[str, str | None]]:
    """Build by the chosen engine; return the image, and the reference and digest of its base."""
    image, created = job.bundle.runtime.image, _created(toolbox, job.bundle)
    base = job.base or Base("scratch", None, empty_image(oci_platform(job.platform), created), {})
    request = BuildRequest(
        version=job.bundle.image_version, image_type=job.bundle.runtime.name, platform=job.platform, packages=(),
        fetched={}, plan=LayerPlan({}), base=base, prefix="/opt/conda", owner=(0, 0), created=created,
        title=job.bundle.package, dockerfile_name=job.bundle.dockerfile,
        args={"IMAGE_VERSION": job.bundle.image_version}, workers=_workers(options),
    )  # fmt: skip
    cache = BlobCache(toolbox.cache_dir)
    if job.choice.engine == "native":
        text = b"".join(job.bundle.files[job.bundle.dockerfile].chunks()).decode()
        tree = Tree({path: File(b"".join(file.chunks()), file.mode) for path, file in job.bundle.files.items()})
        built = NativeEngine(cache, toolbox.log).build_on_base(replace(request, dockerfile=text, context=tree))
        return built, {"reference": base.reference, "digest": base.digest}
    builder = engines.get(job.choice)
    engine = ContainerEngine(builder, NativeEngine(cache, toolbox.log), cache, scratch=toolbox.cache_dir)
    argument = _BASE_ARGUMENTS[job.choice.kind or "derived"] if job.base is not None else None
    name = f"localhost/{job.bundle.package}:{job.tag}"
    with _log(toolbox, job) as say:
        built = engine.build_context(
            request, lambda: fs.chunks(job.archive, _BLOCK), name=name, base_argument=argument, say=say,
            no_cache=options.engines.no_cache,
        )  # fmt: skip
    digest = builder.identify(image) if argument is None else base.digest
    return built, {"reference": image, "digest": digest}


def _created(toolbox: Toolbox, bundle: Bundle) -> str:
    """Return the time of a native image: `SOURCE_DATE_EPOCH`, else the commit's."""
    text = toolbox.environ.get("SOURCE_DATE_EPOCH") or str(bundle.epoch)
    if not text.isdecimal() or len(text) > 11:
        raise ConfigError(f"SOURCE_DATE_EPOCH is {text!r}, not seconds since 1970")
    return dt.datetime.fromtimestamp(int(text), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def _log(toolbox: Toolbox, job: _Job) -> Iterator[Callable[[str], None]]:
    """Give what takes the lines of an engine's log: kept in `.lockyard/logs/`, and shown with `-v`."""
    name = job.bundle.runtime.name
    place = state_dir(job.project.root) / "logs" / f"{OUT}-{job.bundle.image_version}-{name}.log"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", encoding="utf-8", buffering=1) as stream:

        def say(line: str) -> None:
            stream.write(line + "\n")
            toolbox.log.detail(f"{name} | {line}")

        try:
            yield say
        except BuildError as error:
            hint = error.hint or f"the whole log is in {place.relative_to(job.project.root)}"
            raise type(error)(error.message, hint=hint, details=error.details) from error


def _record(job: _Job, built: BuiltImage, digest: str, base: Mapping[str, str | None], seconds: float) -> bytes:
    """Return `build.json`: what went in and what came out."""
    value = {
        "schema": SCHEMA,
        "lockyard": __version__,
        "engine": job.choice.engine,
        "package": job.bundle.package,
        "package_version": job.bundle.runtime.pkg_version,
        "version": job.bundle.image_version,
        "image_type": job.bundle.runtime.name,
        "platform": job.platform,
        "tag": job.tag,
        "revision": job.bundle.revision,
        "wheel": job.bundle.wheel,
        "bundle": str(job.digest),
        "inputs": job.inputs,
        "manifest_digest": digest,
        "base": dict(base),
        "size": built.image.size,
        "seconds": seconds,
    }
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _result(job: _Job, layout: Layout, *, again: bool, start: float) -> PackageImage:
    return PackageImage(
        runtime=job.bundle.runtime.name, platform=job.platform, tag=job.tag, digest=str(layout.image.digest),
        layout=job.layout, engine=job.choice.engine, layers=len(layout.image.layers), size=layout.image.size, again=again,
        seconds=time.monotonic() - start,
    )  # fmt: skip


def load_image(toolbox: Toolbox, package: str, image: PackageImage) -> PackageImage:
    """Load an image into this machine's Docker daemon, when there is one, as `localhost/PACKAGE:TAG`."""
    daemon = toolbox.daemon()
    if daemon is None:
        return image
    name = f"localhost/{package}:{image.tag}"
    layout = read_layout(image.layout)
    with contextlib.closing(daemon):
        try:
            daemon.load(layout.image, layout_blobs(layout), name)
        except BuildError as error:
            toolbox.log.warning(f"{name} is not in Docker: {error.message}")
            return image
    return replace(image, loaded=name)
