"""The native engine, effects: packages and a *finish* Dockerfile become an image, with no daemon.

Each layer of the plan is written straight from the extracted packages into the blob cache, or found there. Layers are
made by several threads; neither their number nor the place changes a byte.
"""

import contextlib
import dataclasses
import functools
import posixpath
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lockyard.conda.lock import LockedPackage
from lockyard.engines.request import (
    DEFAULT_PATH,
    BuildRequest,
    BuiltImage,
    BuiltLayer,
    CachedLayer,
    Finished,
    LayerCache,
)
from lockyard.errors import BuildError
from lockyard.extracted import DirectoryReader
from lockyard.oci.contents import Manifest, Outline, PackageReader, Python, read_manifest, resolve
from lockyard.oci.dockerfile import CopyLayer, plan_finish
from lockyard.oci.image import MAX_LAYERS, Image, Layer
from lockyard.oci.instructions import kind_of, parse
from lockyard.oci.linking import LINKING_VERSION, Linker
from lockyard.oci.rootfs import ROOTFS_VERSION, list_layer, unpacked
from lockyard.oci.rootview import Listing, Meta, RootView
from lockyard.oci.tar import Entry, LayerBlob, Sink, compressor_id, write_layer
from lockyard.oci.values import Digest
from lockyard.ports import Log

_SHOWN_CLOBBERS = 10
_LAYERS_AT_ONCE = 4
"""Reading and hashing of so many layers feeds any number of compressing threads; more would only want memory."""


class NativeEngine:
    """The `Engine` port without a daemon; `cache` keeps finished layers, `finished` hears of each layer of an image as soon as it is there."""

    def __init__(self, cache: LayerCache, log: Log, finished: Finished = lambda *_: None) -> None:
        self._cache = cache
        self._log = log
        self._finished = finished

    def build(self, request: BuildRequest) -> BuiltImage:
        """Build one image.

        Raises:
            HashMismatchError: a package in the cache is not what it says.
            BuildError: a package or a line of the Dockerfile cannot be built, or there are too many layers.

        """
        workers = max(1, request.workers)
        for layer in request.base.image.layers:
            self._finished(layer.descriptor, request.base.blobs[layer.descriptor.digest])
        with ThreadPoolExecutor(workers, thread_name_prefix="deflate") as executor:
            job = _Job(request, self._cache, self._log, executor, self._finished)
            layers = job.environment()
            image = environment_image(request, [built.layer for built in layers])
            image, finished = job.finish(image)
        if len(image.layers) > MAX_LAYERS:
            raise BuildError(
                f"{len(image.layers)} layers are more than {MAX_LAYERS}: {len(request.base.image.layers)} of the base, "
                f"{len(layers)} of the environment, {len(finished)} of the Dockerfile"
            )
        return BuiltImage(image, {**request.base.blobs, **job.blobs}, (*layers, *finished))

    def build_on_base(self, request: BuildRequest) -> BuiltImage:
        """Apply a *finish* Dockerfile to the base itself, with no environment between them.

        Raises:
            BuildError: a line of the Dockerfile cannot be built, or there are too many layers.

        """
        with ThreadPoolExecutor(max(1, request.workers), thread_name_prefix="deflate") as executor:
            job = _Job(request, self._cache, self._log, executor, self._finished, bare=True)
            image, finished = job.finish(_with_path(request.base.image.with_created(request.created)))
        if len(image.layers) > MAX_LAYERS:
            raise BuildError(f"{len(image.layers)} layers are more than {MAX_LAYERS}")
        return BuiltImage(image, {**request.base.blobs, **job.blobs}, finished)


class _Job:
    def __init__(
        self,
        request: BuildRequest,
        cache: LayerCache,
        log: Log,
        executor: Executor,
        finished: Finished,
        *,
        bare: bool = False,
    ) -> None:
        self.request = request
        self.bare = bare
        self.cache = cache
        self.log = log
        self.executor = executor
        self.finished = finished
        self.compressor = compressor_id(request.compression)
        self.python = Python.of(request.packages)
        self.linker = Linker(request.prefix, *request.owner, self.python)
        self.blobs: dict[Digest, Path] = {}
        self._guard = threading.Lock()
        self._moved: Mapping[str, Mapping[str, str]] = {}
        self._read: dict[str, tuple[Manifest, PackageReader]] = {}
        """The packages that this run has read, until their layers are made."""
        self._packages_key = [[item.dist, item.sha256, item.md5] for item in request.packages]

    def environment(self) -> tuple[BuiltLayer, ...]:
        """Make the layers of the packages, then that of the history."""
        self._moved = self._find_moved()
        groups = self.request.plan.group(self.request.packages)
        workers = max(1, min(self.request.workers, _LAYERS_AT_ONCE, len(groups)))
        with (
            self.log.progress("layers", len(groups), "layers") as advance,
            contextlib.ExitStack() as stack,
        ):
            pool = ThreadPoolExecutor(workers, thread_name_prefix="layer")
            # On a failure, layers that have not begun are dropped.
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            # Big ones first, so that threads finish together.
            order = sorted(groups, key=lambda name: -sum(item.size or 0 for item in groups[name]))
            jobs = {name: pool.submit(self._packages, name, groups[name], advance) for name in order}
            layers = [jobs[name].result() for name in groups]
        return (*layers, self._history(), *self._scripted())

    def _find_moved(self) -> Mapping[str, Mapping[str, str]]:
        """Return `dist` → the paths of it that lie elsewhere because another package has them, and warn of them.

        This is all of the packages' contents that layer keys need: it is remembered, so that a build whose layers are all
        there reads no package.
        """
        python = dataclasses.astuple(self.python) if self.python else None
        key = {"moved": self._packages_key, "python": python, "linking": LINKING_VERSION}
        found = self.cache.remember(key, self._place)
        clobbers: Sequence[str] = found["clobbers"]
        for clobber in clobbers[:_SHOWN_CLOBBERS]:
            self.log.warning(clobber)
        if len(clobbers) > _SHOWN_CLOBBERS:
            self.log.warning(f"and {len(clobbers) - _SHOWN_CLOBBERS} more files that several packages have")
        moved: Mapping[str, Mapping[str, str]] = found["moved"]
        return moved

    def _place(self) -> dict[str, Any]:
        """Return which files move and who clobbers whom."""
        moved, clobbers = resolve(self._outlines)
        return {
            "clobbers": [str(item) for item in clobbers],
            "moved": {outline.dist: own for outline, own in zip(self._outlines, moved, strict=True) if own},
        }

    @functools.cached_property
    def _outlines(self) -> Sequence[Outline]:
        """What the packages have, each remembered: when one of them changes, the others are not read."""
        return [
            Outline.from_json(
                package, self.cache.remember(self._outline_key(package), functools.partial(self._outline, package))
            )
            for package in self.request.packages
        ]

    def _outline_key(self, package: LockedPackage) -> dict[str, object]:
        return {
            "outline": [package.dist, package.sha256, package.md5], "python": self._python_for(package),
            "linking": LINKING_VERSION,
        }  # fmt: skip

    def _outline(self, package: LockedPackage) -> Mapping[str, Any]:
        manifest, reader = self._read[package.dist] = self._contents(package)
        return manifest.outline(reader).to_json()

    def _taken(self, package: LockedPackage) -> tuple[Manifest, PackageReader]:
        """Return the contents of a package, which need no memory after this."""
        return self._read.pop(package.dist) if package.dist in self._read else self._contents(package)

    def _contents(self, package: LockedPackage) -> tuple[Manifest, PackageReader]:
        reader = DirectoryReader(self.request.fetched[package.dist].directory)
        return read_manifest(package, reader, self.python), reader

    def _python_for(self, package: LockedPackage) -> tuple[str, str] | None:
        """Return what the contents of a package depend on besides the package."""
        if self.python is None or package.noarch != "python":
            return None
        return self.python.executable, self.python.site_packages

    def _packages(
        self,
        name: str,
        packages: Sequence[LockedPackage],
        advance: Callable[[int], None],
    ) -> BuiltLayer:
        key = {
            "linking": LINKING_VERSION,
            "prefix": self.request.prefix,
            "owner": self.request.owner,
            "compressor": self.compressor,
            "packages": [self._package_key(item) for item in packages],
        }
        comment = "packages: " + ", ".join(f"{item.name} {item.version}" for item in packages)

        def entries() -> Iterator[Entry]:
            for package in packages:
                manifest, reader = self._taken(package)
                found = self.request.compiled.get(package.dist)
                compiled = found.modules() if found is not None else ()
                yield from self.linker.entries(manifest, self._moved.get(package.dist, {}), reader, compiled)

        built = self._layer(name, key, comment, entries, tuple(item.dist for item in packages))
        advance(1)
        return built

    def _package_key(self, package: LockedPackage) -> dict[str, object]:
        moved, python = self._moved.get(package.dist, {}), self._python_for(package)
        compiled = self.request.compiled.get(package.dist)
        pyc = {"pyc": compiled.key} if compiled is not None else {}
        return {"record": dataclasses.asdict(package), "moved": moved, "python": python, **pyc}

    def _history(self) -> BuiltLayer:
        when = self.request.created.replace("T", " ").removesuffix("Z")
        entry = self.linker.history(self.request.packages, self.request.specs, when)
        text = b"".join(entry.chunks())
        key = {
            "history": str(Digest.of(text)), "prefix": self.request.prefix, "owner": self.request.owner,
            "compressor": self.compressor, "linking": LINKING_VERSION,
        }  # fmt: skip
        return self._layer("history", key, "environment history", lambda: iter((entry,)))

    def _scripted(self) -> Iterator[BuiltLayer]:
        """Make the layer of what post-link scripts changed."""
        scripted = self.request.scripted
        if scripted is not None and scripted.entries:
            key = {
                "scripted": scripted.digest, "prefix": self.request.prefix, "owner": self.request.owner,
                "compressor": self.compressor, "linking": LINKING_VERSION,
            }  # fmt: skip
            comment = "post-link scripts: " + ", ".join(scripted.packages)
            yield self._layer("post-link", key, comment, lambda: scripted.entries)

    def _layer(
        self,
        name: str,
        key: Mapping[str, object],
        comment: str,
        entries: Callable[[], Iterable[Entry]],
        packages: tuple[str, ...] = (),
    ) -> BuiltLayer:
        return self._cached(name, key, comment, lambda: self._with_parents(entries()), packages)

    def _cached(
        self,
        name: str,
        key: Mapping[str, object],
        comment: str,
        entries: Callable[[], Iterable[Entry]],
        packages: tuple[str, ...] = (),
    ) -> BuiltLayer:
        def make(sink: Sink) -> LayerBlob:
            return write_layer(
                entries(), sink, compression=self.request.compression, executor=self.executor,
                threads=self.request.workers,
            )  # fmt: skip

        made: CachedLayer = self.cache.layer(key, comment, make)
        self.log.detail(f"layer {name}: {'made' if made.rebuilt else 're-used'}, {made.layer.descriptor.size:,} bytes")
        with self._guard:
            self.blobs[made.layer.descriptor.digest] = made.path
        self.finished(made.layer.descriptor, made.path)
        return BuiltLayer(name, made.layer, made.uncompressed, made.rebuilt, packages)

    def _with_parents(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Give each directory once, before what is in it, the same in every layer."""
        seen: set[bytes] = {b""}
        for entry in entries:
            if entry.path.rpartition(b"/")[0] not in seen:
                for parent in self.linker.parents(entry.path):
                    if parent.path not in seen:
                        seen.add(parent.path)
                        yield parent
            if entry.kind != "directory" or entry.path not in seen:
                seen.add(entry.path)
                yield entry

    def finish(self, image: Image) -> tuple[Image, tuple[BuiltLayer, ...]]:
        """Apply the release's Dockerfile."""
        request = self.request
        if request.dockerfile is None:
            return image, ()
        instructions = parse(request.dockerfile, request.dockerfile_name)
        kind = kind_of(instructions)
        if kind != "finish":
            raise BuildError(
                f"{request.dockerfile_name} is a {kind} Dockerfile, which needs a container engine",
                hint="begin it with: ARG ENV_IMAGE, then FROM ${ENV_IMAGE}",
            )
        layers = []
        config = request.base.image.config
        plan = plan_finish(
            instructions, request.context, request.args, image.runtime, view=self._view, unpack=unpacked,
            platform={key: str(config[key]) for key in ("os", "architecture", "variant") if config.get(key)},
        )  # fmt: skip
        for step in plan.steps:
            if isinstance(step, CopyLayer):
                built = self._copied(step)
                layers.append(built)
                image = image.append(built.layer, created=request.created)
            else:
                image = step(image)
        return image, tuple(layers)

    def _view(self) -> RootView:
        """Return what COPY and WORKDIR must know of the files below them."""
        view = RootView()
        base = self.request.base
        for layer in base.image.layers:
            path = base.blobs[layer.descriptor.digest]
            key = {"listing": str(layer.diff_id), "version": ROOTFS_VERSION}
            view.add_listing(Listing.from_json(self.cache.remember(key, functools.partial(_listing, path))))
        if self.bare:
            return view
        key = {
            "view": self._packages_key, "python": dataclasses.astuple(self.python) if self.python else None,
            "prefix": self.request.prefix, "owner": self.request.owner, "version": [LINKING_VERSION, ROOTFS_VERSION],
        }  # fmt: skip
        view.add_listing(Listing.from_json(self.cache.remember(key, self._environment_listing)))
        return view

    def _environment_listing(self) -> dict[str, Any]:
        """Return the directories and links of the environment."""
        root = self.request.prefix.lstrip("/")
        places, links = [f"{root}/conda-meta/history"], {}
        for outline in self._outlines:
            moved = self._moved.get(outline.dist, {})
            for path in outline.paths:
                places.append(f"{root}/{moved.get(path, path)}")
                if path in outline.links:
                    links[places[-1]] = outline.links[path]
        directories: dict[str, Meta] = {}
        for directory in {posixpath.dirname(path) for path in places}:
            for entry in self.linker.parents(f"{directory}/x".encode(errors="surrogateescape")):
                path = entry.path.decode(errors="surrogateescape")
                directories[path] = (entry.mode, entry.uid, entry.gid, entry.mtime)
        return Listing(directories, links).to_json()

    def _copied(self, step: CopyLayer) -> BuiltLayer:
        files = [
            [
                entry.path.hex(), entry.kind, entry.mode, entry.uid, entry.gid,
                entry.target.hex(), str(Digest.of(b"".join(entry.chunks()))),
            ]
            for entry in step.entries
        ]  # fmt: skip
        return self._cached("copy", {"files": files, "compressor": self.compressor}, step.comment, lambda: step.entries)


def environment_image(request: BuildRequest, layers: Iterable[Layer]) -> Image:
    """Return the environment image: the base with the layers on top and the default configuration.

    `PATH` begins with the environment, `CONDA_PREFIX` names it, the variables of activation follow; labels say what the
    image is. Of the base's labels those of the OCI annotations' name space go: they speak of the base.
    """
    base = request.base
    environment = dict(item.split("=", 1) for item in base.image.runtime.get("Env") or ())
    environment |= {"PATH": request.path, "CONDA_PREFIX": request.prefix, **request.activation}
    old = base.image.runtime.get("Labels") or {}
    labels = {key: value for key, value in old.items() if not key.startswith("org.opencontainers.image.")}
    labels |= {
        "org.opencontainers.image.title": request.title,
        "org.opencontainers.image.version": str(request.version),
        "lockyard.image-type": request.image_type,
    }
    if base.reference != "scratch":
        labels["org.opencontainers.image.base.name"] = base.reference
    if base.digest is not None:
        labels["org.opencontainers.image.base.digest"] = base.digest
    image = base.image.append(*layers, created=request.created).with_created(request.created)
    return image.with_config(Env=[f"{key}={value}" for key, value in environment.items()], Labels=labels)


def _with_path(image: Image) -> Image:
    """Return an image that has a PATH, the usual one where it had none: Dockerfiles extend it."""
    environment = list(image.runtime.get("Env") or ())
    if any(item.startswith("PATH=") for item in environment):
        return image
    return image.with_config(Env=[f"PATH={DEFAULT_PATH}", *environment])


def _listing(path: Path) -> Mapping[str, Any]:
    return list_layer(path).to_json()
