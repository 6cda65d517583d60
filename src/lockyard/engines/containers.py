"""Images that a container engine builds, effects: the engine builds, we export, compress and check.

A *finish* Dockerfile begins from the environment image, made natively and given to the engine thinly. Whatever the kind, the result is
exported right after the build: its layers become our blobs (those that we made keep theirs, by diff ID), its packages are
compared with the lock, and what follows works on the layout alone.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from lockyard import process
from lockyard.engines.request import BuildRequest, BuiltImage, BuiltLayer, Engine, LayerCache
from lockyard.errors import BuildError
from lockyard.oci.classic import check_arguments, classic_context, context_blocks
from lockyard.oci.condameta import Change, changes_of, check_against_lock, packages_after
from lockyard.oci.copying import allowed
from lockyard.oci.dockerfile import Kind
from lockyard.oci.image import Image, Layer, oci_platform, parse_json
from lockyard.oci.tar import BLOCK, LayerBlob, Sink, compress, compressor_id
from lockyard.oci.values import Digest
from lockyard.ports.containers import Builder, EngineBuild
from lockyard.tree import Tree

VERSION_LABEL = "org.opencontainers.image.version"
TYPE_LABEL = "lockyard.image-type"


@dataclass(frozen=True, slots=True)
class _Exported:
    """One layer of an export: what it is, and what it does to `conda-meta`."""

    diff_id: Digest
    built: BuiltLayer | None
    path: Path | None
    change: Change


@dataclass(frozen=True)
class ContainerResult:
    """A built image, and the records of its packages (`conda-meta` file name → bytes)."""

    built: BuiltImage
    records: Mapping[str, bytes]


class ContainerEngine:
    """Builds with a container engine; `native` makes environment images, `scratch` has room for the largest layer."""

    def __init__(self, containers: Builder, native: Engine, cache: LayerCache, *, scratch: Path) -> None:
        self._scratch = scratch
        self._containers = containers
        self._native = native
        self._cache = cache

    def build(
        self, request: BuildRequest, kind: Kind, *, name: str, locked: bool, say: Callable[[str], None], no_cache: bool
    ) -> ContainerResult:
        """Build one image as `name`; `locked` says whether its packages are the lock's, `say` gets the engine's log.

        Raises:
            BuildError: a step failed (its last lines are the details), or the image does not hold the lock's packages.

        """
        check_arguments(request.args)
        what = f"{request.image_type} {request.platform}"
        known: dict[str, tuple[Layer, Path]] = {}
        base_built: BuiltImage | None = None
        dockerfile = request.dockerfile_name.rsplit("/", 1)[-1]
        # Builders differ in what they make of .dockerignore in a tar: we apply it, and the Dockerfile is always there.
        files = Tree({**allowed(request.context), dockerfile: request.context[dockerfile]})
        args = dict(request.args)
        # Other platforms, other checkouts and other machines may build the same release in this engine just now.
        temporary = f"{name.rpartition(':')[0]}:env-{process.temporary_name()}"
        with contextlib.ExitStack() as stack:
            if kind == "finish":
                base_built = self._native.build(replace(request, dockerfile=None))
                known = {
                    str(layer.diff_id): (layer, base_built.blobs[layer.descriptor.digest])
                    for layer in base_built.image.layers
                }
                stack.callback(self._containers.remove_image, temporary)
                self._containers.load(base_built.image, base_built.blobs, temporary)
                args["ENV_IMAGE"] = temporary
            elif kind == "classic":
                files, more = classic_context(files, request.image_type, request.packages if locked else None)
                args |= more
            build = EngineBuild(
                what=what, name=name, dockerfile=dockerfile, args=args, no_cache=no_cache, platform=_engine_platform(request.platform),
                labels={VERSION_LABEL: str(request.version), TYPE_LABEL: request.image_type},
            )  # fmt: skip
            image_id = self._containers.build(build, lambda: context_blocks(files), say)
            result = self._export(request, image_id, known, base_built)
        if locked:
            check_against_lock(result.records, (package.dist for package in request.packages), what=what)
        return result

    def build_base(self, request: BuildRequest, *, name: str, say: Callable[[str], None], no_cache: bool) -> BuiltImage:
        """Build the Dockerfile on top of `request.base`, which it finds under the build argument `BASE_IMAGE`.

        Raises:
            BuildError: a step failed.

        """
        check_arguments(request.args)
        base = request.base
        below = BuiltImage(base.image, base.blobs, ())
        known = {str(layer.diff_id): (layer, base.blobs[layer.descriptor.digest]) for layer in base.image.layers}
        dockerfile = request.dockerfile_name.rsplit("/", 1)[-1]
        files = Tree({**allowed(request.context), dockerfile: request.context[dockerfile]})
        temporary = f"{name.rpartition(':')[0]}:below-{process.temporary_name()}"
        try:
            self._containers.load(base.image, base.blobs, temporary)
            build = EngineBuild(
                what=f"base of {request.image_type} {request.platform}", name=name, dockerfile=dockerfile,
                args={**request.args, "BASE_IMAGE": temporary}, no_cache=no_cache,
                platform=_engine_platform(request.platform),
            )  # fmt: skip
            image_id = self._containers.build(build, lambda: context_blocks(files), say)
            return self._export(request, image_id, known, below, version=False).built
        finally:
            self._containers.remove_image(temporary)

    def build_context(
        self,
        request: BuildRequest,
        context: Callable[[], Iterator[bytes]],
        *,
        name: str,
        base_argument: str | None,
        say: Callable[[str], None],
        no_cache: bool,
    ) -> BuiltImage:
        """Build the Dockerfile of a context, which gives the bytes of a tar, as the image `name`.

        With `base_argument` the Dockerfile finds `request.base` under that build argument; else it begins from what it names.

        Raises:
            BuildError: a step failed; its last lines are the details.

        """
        check_arguments(request.args)
        args = dict(request.args)
        base = request.base
        below = BuiltImage(base.image, base.blobs, ())
        known = {str(layer.diff_id): (layer, base.blobs[layer.descriptor.digest]) for layer in base.image.layers}
        with contextlib.ExitStack() as stack:
            if base_argument is not None:
                args[base_argument] = f"{name}-below"
                self._containers.load(base.image, base.blobs, args[base_argument])
                stack.callback(self._containers.remove_image, args[base_argument])
            build = EngineBuild(
                what=f"{request.image_type} {request.platform}", name=name, dockerfile=request.dockerfile_name,
                args=args, no_cache=no_cache, platform=_engine_platform(request.platform),
            )  # fmt: skip
            image_id = self._containers.build(build, context, say)
            return self._export(request, image_id, known, below if base_argument is not None else None).built

    def _export(
        self,
        request: BuildRequest,
        image_id: str,
        known: Mapping[str, tuple[Layer, Path]],
        below: BuiltImage | None,
        *,
        version: bool = True,
    ) -> ContainerResult:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max(1, request.workers), thread_name_prefix="deflate") as executor:
            config_bytes, layers = self._containers.export(
                image_id, lambda stream: self._take(request, stream, known, executor)
            )
        config = parse_json(config_bytes, "the engine's image configuration")
        told = (config.get("rootfs") or {}).get("diff_ids")
        if told != [str(item.diff_id) for item in layers]:
            raise BuildError(f"{request.image_type} {request.platform}: the exported layers are not those of the image")
        blobs: dict[Digest, Path] = {}
        found: list[Layer] = []
        for item in layers:
            layer, path = (
                known[str(item.diff_id)] if item.built is None else (item.built.layer, cast("Path", item.path))
            )
            found.append(layer)
            blobs[layer.descriptor.digest] = path
        image = Image.of(plain_config(config), found)
        if version:
            image = with_version(image, str(request.version))
        own = () if below is None else below.layers
        made = tuple(item.built for item in layers if item.built is not None)
        start = {} if below is None else {f"{package.dist}.json": b"" for package in request.packages}
        fresh = [item.change for item in layers if below is None or item.built is not None]
        return ContainerResult(BuiltImage(image, blobs, (*own, *made)), packages_after(fresh, start))

    def _take(
        self, request: BuildRequest, stream: IO[bytes], known: Mapping[str, tuple[Layer, Path]], executor: Executor
    ) -> _Exported:
        """Read one layer: keep it when it is new, in our compression."""
        with tempfile.TemporaryFile(dir=self._scratch) as plain:
            state = hashlib.sha256()
            size = 0
            while chunk := stream.read(BLOCK):
                state.update(chunk)
                plain.write(chunk)
                size += len(chunk)
            diff_id = Digest(f"sha256:{state.hexdigest()}")
            if str(diff_id) in known:
                return _Exported(diff_id, None, None, {})
            plain.seek(0)
            change = changes_of(plain, request.prefix)
            plain.seek(0)

            def make(sink: Sink) -> LayerBlob:
                blocks = iter(lambda: plain.read(BLOCK), b"")
                return compress(
                    blocks, sink, compression=request.compression, executor=executor, threads=request.workers
                )

            key = {"exported": str(diff_id), "compressor": compressor_id(request.compression)}
            made = self._cache.layer(key, "", make)
            built = BuiltLayer(f"container-{diff_id.hex[:12]}", made.layer, made.uncompressed, made.rebuilt)
            return _Exported(diff_id, built, made.path, change)


def _engine_platform(subdir: str) -> str:
    """Return the engine's name of a conda platform: `linux/amd64`."""
    found = oci_platform(subdir)
    return "/".join(found[key] for key in ("os", "architecture", "variant") if key in found)


def plain_config(config: Mapping[str, object]) -> dict[str, object]:
    """Return an engine's configuration with what the OCI image specification knows, and no trace of the build's container."""
    kept = {
        "architecture",
        "os",
        "variant",
        "os.version",
        "os.features",
        "created",
        "author",
        "config",
        "rootfs",
        "history",
    }
    return {key: value for key, value in config.items() if key in kept}


def with_version(image: Image, version: str) -> Image:
    """Return the image with the version in its environment, when its Dockerfile has not put it there."""
    environment = list(image.runtime.get("Env") or ())
    if any(item.startswith("IMAGE_VERSION=") for item in environment):
        return image
    return image.with_config(Env=[*environment, f"IMAGE_VERSION={version}"])
