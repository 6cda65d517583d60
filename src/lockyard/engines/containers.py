"""Images that a container engine builds, effects: the engine builds, we export, compress and check.

A *finish* Dockerfile begins from the environment image, made natively and given to the engine thinly. Whatever the kind, the result is
exported right after the build: its layers become our blobs (those that we made keep theirs, by diff ID), its packages are
compared with the lock, and what follows works on the layout alone.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from lockyard import process
from lockyard.engines.exporting import Export, Exporter
from lockyard.engines.request import BuildRequest, BuiltImage, Engine, LayerCache
from lockyard.errors import BuildError
from lockyard.oci.classic import check_arguments, classic_context, context_blocks
from lockyard.oci.condameta import check_against_lock, packages_after
from lockyard.oci.copying import allowed
from lockyard.oci.image import Image, Layer, oci_platform, parse_json
from lockyard.oci.instructions import Kind
from lockyard.oci.values import Digest
from lockyard.ports.containers import Builder, EngineBuild
from lockyard.tree import Tree

_MAX_TAG = 128
VERSION_LABEL = "org.opencontainers.image.version"
TYPE_LABEL = "lockyard.image-type"


@dataclass(frozen=True)
class ContainerResult:
    """A built image, and the records of its packages (`conda-meta` file name → bytes)."""

    built: BuiltImage
    records: Mapping[str, bytes]


class ContainerEngine:
    """Builds with a container engine; `native` makes environment images, `scratch` has room for the largest layer."""

    def __init__(self, containers: Builder, native: Engine, cache: LayerCache, *, scratch: Path) -> None:
        self._containers = containers
        self._native = native
        self._exporter = Exporter(containers, cache, scratch=scratch)

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
        with contextlib.ExitStack() as stack:
            if kind == "finish":
                base_built = self._native.build(replace(request, dockerfile=None))
                known = {
                    str(layer.diff_id): (layer, base_built.blobs[layer.descriptor.digest])
                    for layer in base_built.image.layers
                }
                args["ENV_IMAGE"] = stack.enter_context(self._lent(base_built.image, base_built.blobs, f"{name}-env"))
            elif kind == "classic":
                files, more = classic_context(files, request.image_type, request.packages if locked else None)
                args |= more
            build = EngineBuild(
                what=what, name=name, dockerfile=dockerfile, args=args, no_cache=no_cache, platform=_engine_platform(request.platform),
                labels={VERSION_LABEL: str(request.version), TYPE_LABEL: request.image_type},
            )  # fmt: skip
            inputs = _inputs(build, files, base_built)
            last = None if no_cache else self._exporter.last(inputs, request, known)
            build = replace(build, expected=last[0] if last else None)
            image_id = self._containers.build(build, lambda: context_blocks(files), say)
            if last is not None and last[0] == image_id:
                exported = last[1]
            else:
                exported = self._exporter.export(request, image_id, known)
            result = self._result(request, exported, known, base_built)
            self._exporter.keep_last(inputs, image_id)
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
        with self._lent(base.image, base.blobs, f"{name}-below") as temporary:
            build = EngineBuild(
                what=f"base of {request.image_type} {request.platform}", name=name, dockerfile=dockerfile,
                args={**request.args, "BASE_IMAGE": temporary}, no_cache=no_cache,
                platform=_engine_platform(request.platform),
            )  # fmt: skip
            image_id = self._containers.build(build, lambda: context_blocks(files), say)
            exported = self._exporter.export(request, image_id, known)
            return self._result(request, exported, known, below, version=False).built

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
                args[base_argument] = stack.enter_context(self._lent(base.image, base.blobs, f"{name}-below"))
            build = EngineBuild(
                what=f"{request.image_type} {request.platform}", name=name, dockerfile=request.dockerfile_name,
                args=args, no_cache=no_cache, platform=_engine_platform(request.platform),
            )  # fmt: skip
            image_id = self._containers.build(build, context, say)
            exported = self._exporter.export(request, image_id, known)
            return self._result(request, exported, known, below if base_argument is not None else None).built

    @contextlib.contextmanager
    def _lent(self, image: Image, blobs: Mapping[Digest, Path], name: str) -> Iterator[str]:
        """Have an image in the engine for a while, under a name that nobody else has.

        Other platforms, other checkouts and other machines may build the same release in this engine just now.
        """
        repository, _, tag = name.rpartition(":")
        owner = process.temporary_name()
        temporary = f"{repository}:{tag[: _MAX_TAG - len(owner) - 1]}-{owner}"
        try:
            self._containers.load(image, blobs, temporary)
            yield temporary
        finally:
            self._containers.remove_image(temporary)

    @staticmethod
    def _result(
        request: BuildRequest,
        exported: Export,
        known: Mapping[str, tuple[Layer, Path]],
        below: BuiltImage | None,
        *,
        version: bool = True,
    ) -> ContainerResult:
        config_bytes, layers = exported
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


def _inputs(build: EngineBuild, files: Tree, environment: BuiltImage | None) -> Mapping[str, object]:
    """Return what the result of a build depends on, as far as it is ours; the environment counts by content, not by name."""
    return {
        "built of": files.digest,
        "dockerfile": build.dockerfile,
        "args": {name: value for name, value in build.args.items() if name != "ENV_IMAGE"},
        "environment": str(environment.image.digest) if environment is not None else None,
        "labels": dict(build.labels),
        "platform": build.platform,
    }


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
