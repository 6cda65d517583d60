"""Use case: a tested pre-release becomes the final version, with the layers that were tested."""

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs
from lockyard.app.images import BUILD
from lockyard.app.lock import current_locks
from lockyard.app.publish import PublishRequest, PublishResult, publish_release
from lockyard.app.published import Built, check_records, inputs_of, read_built
from lockyard.app.staging import read_staged
from lockyard.app.targets import open_places, resolve
from lockyard.app.texts import write_texts_after
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import Record, format_record
from lockyard.conda.lock import Lock
from lockyard.distribution import Variant
from lockyard.errors import ConfigError, StaleLockError, VersionExistsError
from lockyard.oci.image import Image
from lockyard.oci.layout import write_layout
from lockyard.oci.promotion import content_digest, promoted, prove
from lockyard.oci.values import Descriptor, Digest
from lockyard.ports import Toolbox
from lockyard.ports.registry import BlobContent
from lockyard.tags import exact_tag
from lockyard.tree import Tree
from lockyard.version import Version, release_dir


@dataclass(frozen=True, slots=True)
class Promotion:
    """One image: before, after, and the proof that only the version fields differ, line by line."""

    image_type: str
    platform: str
    old: Digest
    new: Digest
    proof: tuple[str, ...]
    layout: Path | None
    """Where the promoted image is, `None` when it was not brought here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteResult:
    """What became what; `published` is `None` when no target was given."""

    source: Version
    version: Version
    images: tuple[Promotion, ...]
    published: PublishResult | None = None


@dataclass(frozen=True, slots=True)
class _Image:
    old: Built
    new: Image
    record: Record
    proof: tuple[str, ...]


def promote_release(toolbox: Toolbox, workspace: Workspace, source: Version, request: PublishRequest) -> PromoteResult:
    """Make the final release of the pre-release `source`: release directory, images, and tags where targets are given.

    The images come from the output directory, or from `request.source`, a repository. A dry run proves and writes nothing.

    Raises:
        ConfigError: `source` is final, or does not exist.
        StaleLockError: its lock is not the one of its inputs, or not the one that its image was built from.
        VersionExistsError: the final release is there with other inputs or locks.
        ImageTestError: the pre-release was not tested as it is.
        BuildError: it is not built, or what was made is not the same image.
        RegistryError: see `publish_release`.

    """
    if not source.is_pre_release:
        raise ConfigError(f"{source} is final already", hint="promote a pre-release, such as 1.4.2-beta.1")
    version = source.final
    tree = _final_tree(workspace, source, version)
    locks = current_locks(toolbox, workspace, source)
    variants = workspace.variants(source)
    with contextlib.ExitStack() as stack:
        built = stack.enter_context(_images_of(toolbox, workspace, source, variants, request))
        records = check_records(workspace, source, variants, built)
        _check_locks(source, built, locks)
        created = _created(toolbox.environ)
        images = [_promote(item, record, version, created) for item, record in zip(built, records, strict=True)]
        layouts: list[Path | None] = [None] * len(images)
        if not request.dry_run:
            with workspace.lock():
                if tree is not None:
                    keep = workspace.nested_releases(version)
                    fs.write_tree(tree, workspace.release_path(version), keep=keep)
                if request.source is None:
                    layouts = [_write(workspace, version, variants, item) for item in images]
            workspace = replace(workspace)  # it knows one release more
        result = PromoteResult(
            source=source,
            version=version,
            images=tuple(
                Promotion(
                    item.old.image_type, item.old.platform, item.old.image.digest, item.new.digest, item.proof, layout
                )
                for item, layout in zip(images, layouts, strict=True)
            ),
        )
        if not request.targets or request.dry_run:
            if not request.dry_run:
                write_texts_after(toolbox, workspace, version)
            return result
        if request.source is None:
            published = publish_release(toolbox, workspace, version, replace(request, image_types=()))
        else:
            scratch = stack.enter_context(fs.temporary_directory(workspace.state_dir, "promote"))
            remote = tuple(_remote(item, scratch) for item in images)
            published = publish_release(toolbox, workspace, version, request, built=remote)
        write_texts_after(toolbox, workspace, version)
        return replace(result, published=published)


@contextlib.contextmanager
def _images_of(
    toolbox: Toolbox,
    workspace: Workspace,
    source: Version,
    variants: Mapping[str, Variant],
    request: PublishRequest,
) -> Iterator[tuple[Built, ...]]:
    if request.source is None:
        yield read_built(workspace, source, variants)
        return
    (stage,) = resolve(workspace, (request.source,), region=request.region)
    with open_places(toolbox, workspace, (stage,), insecure=request.insecure) as (place,):
        yield read_staged(source, variants, place).built


def _final_tree(workspace: Workspace, source: Version, version: Version) -> Tree | None:
    """Return the files of the final release, `None` when it is there just so."""
    wanted = inputs_of(workspace.existing_release(source))
    there = inputs_of(workspace.release_tree(version))
    if there == wanted:
        return None
    if there:
        different = sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path))
        raise VersionExistsError(
            f"{release_dir(version)} exists and differs from {source}: {different[0]}",
            hint="a promoted release is its pre-release; publish the difference as the next one",
            details=different[1:],
        )
    return wanted


def _check_locks(source: Version, built: Iterable[Built], locks: Mapping[str, Lock]) -> None:
    """Refuse an image that was built from another lock than the one that would be released with it."""
    for item in built:
        stated = (item.build.get("lock") or {}).get("input_hash")
        if stated is not None and stated != locks[item.image_type].input_hash:
            raise StaleLockError(
                f"{source} {item.image_type} {item.platform} was built from another lock",
                hint=f"build and test it again: lockyard build {source}",
            )


def _promote(built: Built, record: Record, version: Version, created: str | None) -> _Image:
    new = promoted(built.image, version, created)
    proof = prove(built.image, new)
    return _Image(built, new, replace(record, content=content_digest(built.image)), proof)


def _write(workspace: Workspace, version: Version, variants: Mapping[str, Variant], item: _Image) -> Path:
    """Write the promoted image as an OCI layout beside its records; layers are linked, not copied."""
    old = item.old
    layout = workspace.out_dir(version, old.image_type, old.platform)
    blobs: dict[Digest, Path] = {}
    for layer in item.new.layers:
        path = old.source(layer.descriptor)
        if isinstance(path, Path):
            blobs[layer.descriptor.digest] = path
    build = {
        **old.build,
        "version": str(version),
        "manifest_digest": str(item.new.digest),
        "promoted": {"from": str(old.build.get("version")), "manifest_digest": str(old.image.digest)},
    }
    tag = exact_tag(version, template=variants[old.image_type].tag, image_type=old.image_type)
    extra = {
        BUILD: (json.dumps(build, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(),
        TESTS: format_record(item.record).encode(),
    }
    write_layout(layout, item.new, blobs, name=tag, extra=extra)
    return layout


def _remote(item: _Image, scratch: Path) -> Built:
    """Return the promoted image whose layers stay where they are."""
    config = item.new.config_descriptor
    path = scratch / config.digest.hex
    path.write_bytes(item.new.config_bytes)
    return replace(
        item.old,
        image=item.new,
        source=_source(config, path, item.old.source),
        record=format_record(item.record).encode(),
    )


def _source(
    config: Descriptor, path: Path, layers: Callable[[Descriptor], Path | BlobContent]
) -> Callable[[Descriptor], Path | BlobContent]:
    return lambda descriptor: path if descriptor.digest == config.digest else layers(descriptor)


def _created(environ: Mapping[str, str]) -> str | None:
    """Return the time that `SOURCE_DATE_EPOCH` asks for; without it the image keeps its own, so that a promotion repeats."""
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 11:
        raise ConfigError(f"SOURCE_DATE_EPOCH is {text!r}, not seconds since 1970")
    return dt.datetime.fromtimestamp(int(text), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
