"""The use case of `build-base`: the operating system's steps of a line, built once, below every environment image."""

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs
from lockyard.app.bases import BASES, DOCKERFILE, base_directory, base_inputs, base_layout, configured_base, read_bases
from lockyard.app.engines import (
    Choice,
    EngineOptions,
    build_log,
    first_failure,
    open_engine,
    told_when_full,
    variant_args,
)
from lockyard.app.images import chosen_platforms
from lockyard.app.workspace import Workspace, decode
from lockyard.engines.containers import ContainerEngine
from lockyard.engines.native import NativeEngine
from lockyard.engines.request import BuildRequest
from lockyard.errors import BuildError
from lockyard.oci.basefile import BuiltBase, format_bases
from lockyard.oci.cache import BlobCache
from lockyard.oci.classic import EngineName
from lockyard.oci.instructions import parse
from lockyard.oci.layering import LayerPlan
from lockyard.oci.layout import blob_path, read_layout, write_layout
from lockyard.oci.values import Reference
from lockyard.ports import Toolbox
from lockyard.ports.containers import Builder
from lockyard.tree import Tree
from lockyard.version import Version

_CREATED = "1970-01-01T00:00:00Z"  # of a layer made from a root file system; a builder states its own time


@dataclass(frozen=True)
class BaseResult:
    """One base that was built: where its layout is, and its line of `bases.json`."""

    image_type: str
    platform: str
    layout: Path
    layers: int
    size: int
    base: BuiltBase


@dataclass(frozen=True)
class _Work:
    toolbox: Toolbox
    workspace: Workspace
    version: Version
    directory: Path
    context: Tree
    options: EngineOptions
    build_args: Mapping[str, str]


def build_base(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    image_types: tuple[str, ...] = (),
    platforms: tuple[str, ...] = (),
    options: EngineOptions,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
) -> tuple[BaseResult, ...]:
    """Build `Dockerfile.base` of the line of `version` for its image types, side by side, and write `bases.json` beside it.

    The Dockerfile begins `FROM ${BASE_IMAGE}`: the base that `variants.toml` names. With `target` (a repository) the bases are
    pushed there before the file is written; without, they are layouts in `out/bases/` of this machine alone.

    Raises:
        BuildError: there is no `Dockerfile.base`, or it cannot be built; `bases.json` stays as it was.
        ConfigError: the target is no repository of a registry.
        RegistryError: the repository does not take them.

    """
    if target is not None:
        Reference.parse(target)  # refused before the builds, not after them
    directory = base_directory(workspace, version)
    if directory is None:
        place = f"template/v{version.major}/v{version.major}.{version.minor}"
        raise BuildError(f"{place}/{DOCKERFILE} does not exist, nor one in template/v{version.major}")
    context = fs.read_tree(directory)
    context = Tree({path: file for path, file in context.items() if path not in {BASES, "variants.toml"}})
    work = _Work(toolbox, workspace, version, directory, context, options, build_args or {})
    jobs = [
        (name, platform)
        for name, variant in workspace.variants(version, image_types).items()
        for platform in chosen_platforms(variant, name, platforms)
    ]
    with workspace.lock(), told_when_full(toolbox, workspace):
        found = _build_all(work, jobs)
        if target is not None:
            found = tuple(_pushed(work, target, item) for item in found)
        bases = {name: dict(items) for name, items in read_bases(workspace, directory).items()}
        for item in found:
            bases.setdefault(item.image_type, {})[item.platform] = item.base
        fs.atomic_write(directory / BASES, format_bases(bases))
    return found


def _build_all(work: _Work, jobs: list[tuple[str, str]]) -> tuple[BaseResult, ...]:
    path = str((work.directory / DOCKERFILE).relative_to(work.workspace.root))
    instructions = parse(decode(work.context[DOCKERFILE].data, path), path)
    engine: EngineName = "buildkit" if work.options.engine == "buildkit" else "docker"
    choice = Choice(engine, f"{path} is built in a container engine", None, path, instructions)
    with (
        contextlib.closing(open_engine(work.toolbox, [choice], work.options)) as builder,
        ThreadPoolExecutor(len(jobs), thread_name_prefix="base") as executor,
    ):
        running = [executor.submit(_build, work, name, platform, path, builder) for name, platform in jobs]
        try:
            errors = [error for item in running if (error := item.exception()) is not None]
        except BaseException:
            builder.cancel()
            raise
    if errors:
        raise first_failure(errors)
    return tuple(item.result() for item in running)


def _build(work: _Work, name: str, platform: str, path: str, builder: Builder) -> BaseResult:
    toolbox, workspace, version = work.toolbox, work.workspace, work.version
    variant = workspace.line(version).variant(name)
    toolbox.log.step(f"building the base of {name} {platform} of {version.major}.{version.minor}")
    with ThreadPoolExecutor(os.cpu_count() or 1) as executor:
        base = configured_base(toolbox, workspace, version, name, platform, created=_CREATED, executor=executor)
    request = BuildRequest(
        version=version, image_type=name, platform=platform, packages=(), fetched={}, plan=LayerPlan({}), base=base,
        prefix=workspace.line(version).prefix, owner=(0, 0), created=_CREATED, title=workspace.distribution.title,
        compression=variant.compression, dockerfile=decode(work.context[DOCKERFILE].data, path), dockerfile_name=path,
        context=work.context, args={**variant_args(variant, toolbox.environ), **work.build_args},
        workers=os.cpu_count() or 1,
    )  # fmt: skip
    cache = BlobCache(toolbox.cache_dir)
    engine = ContainerEngine(builder, NativeEngine(cache, toolbox.log), cache, scratch=toolbox.cache_dir)
    tag = _tag(version, name, platform)
    with build_log(workspace, version, f"base-{name}", platform, toolbox.log) as say:
        built = engine.build_base(
            request, name=f"{workspace.distribution.image}:{tag}", say=say, no_cache=work.options.no_cache
        )
    layout = base_layout(workspace, version, name, platform)
    descriptor = write_layout(layout, built.image, built.blobs, name=tag)
    made = BuiltBase(str(descriptor.digest), None, base_inputs(work.context, variant.base_for(platform)))
    return BaseResult(name, platform, layout, len(built.image.layers), built.image.size, made)


def _tag(version: Version, name: str, platform: str) -> str:
    return f"base-{version.major}.{version.minor}-{name}-{platform}"


def _pushed(work: _Work, target: str, item: BaseResult) -> BaseResult:
    """Send a base to a repository, the manifest last, under a tag that moves with it."""
    layout = read_layout(item.layout)
    image = layout.image
    digests = {str(layer.descriptor.digest): layer.descriptor for layer in image.layers}
    digests[str(image.config_descriptor.digest)] = image.config_descriptor
    tag = _tag(work.version, item.image_type, item.platform)
    with contextlib.closing(work.toolbox.registry(target)) as registry:
        there = registry.present_blobs({digest: found.size for digest, found in digests.items()})
        missing = {digest: found for digest, found in digests.items() if digest not in there}
        total = sum(found.size for found in missing.values())
        with work.toolbox.log.progress(f"pushing {target}:{tag}", total, "B") as advance:
            for digest, found in missing.items():
                registry.upload_blob(blob_path(item.layout, found.digest), digest, found.size, progress=advance)
        registry.put_manifest(tag, image.manifest_bytes, image.media_type)
    reference = str(replace(Reference.parse(target), tag=tag, digest=image.digest))
    return replace(item, base=replace(item.base, reference=reference))
