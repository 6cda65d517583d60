"""What of a release is built and fit to be published, and the record of what was: `images.json` in its directory."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockyard import fs
from lockyard.app.images import BUILD, suite_of
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import Record, suite_digest, verify_record
from lockyard.distribution import Variant
from lockyard.errors import BuildError, ConfigError, ImageTestError
from lockyard.oci.image import Image, Index, oci_platform
from lockyard.oci.layout import Layout, read_layout
from lockyard.oci.promotion import content_digest
from lockyard.oci.values import Descriptor, MediaType
from lockyard.ports.registry import BlobContent
from lockyard.registry.plan import Blob, Manifest, PushImage
from lockyard.reports.textfiles import is_text
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir

FILE_NAME = "images.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One built image, read and checked: what `build.json` says of it, where its blobs are, the record of its tests.

    `record` is not judged yet; `record_source` says where it is, and `test` which command tests the image, for messages.
    """

    image_type: str
    platform: str
    image: Image
    build: Mapping[str, Any]
    source: Callable[[Descriptor], Path | BlobContent]
    record: bytes | None
    record_source: str
    test: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One image type in one repository: its digest and the tags that lead to it, the exact one first."""

    image_type: str
    repository: str
    digest: str
    tags: tuple[str, ...]


def read_built(workspace: Workspace, version: Version, variants: Mapping[str, Variant]) -> tuple[Built, ...]:
    """Read the layouts of all platforms of the image types.

    Raises:
        BuildError: one is not there (a part of a release is never published) or malformed.
        HashMismatchError: a manifest or a configuration is not what its digest says.

    """
    places = [
        (image_type, platform, workspace.out_dir(version, image_type, platform))
        for image_type, variant in variants.items()
        for platform in variant.platforms
    ]
    missing = [
        f"{version} {image_type} for {platform} is not built ({path.relative_to(workspace.root)} has no image)"
        for image_type, platform, path in places
        if not (path / "index.json").is_file()
    ]
    if missing:
        raise BuildError(missing[0], hint=f"lockyard build {version}", details=missing[1:])
    found = []
    for image_type, platform, path in places:
        layout = read_layout(path, platform=oci_platform(platform))
        place = path.relative_to(workspace.root)
        build = _build_record(place, fs.read_file(path / BUILD))
        expected = {
            "version": str(version),
            "image_type": image_type,
            "platform": platform,
            "manifest_digest": str(layout.image.digest),
        }
        if any(build.get(key) != value for key, value in expected.items()):
            raise BuildError(
                f"{place} does not hold what its {BUILD} says",
                hint=f"build it again: lockyard build {version} --image-type {image_type}",
            )
        found.append(
            Built(
                image_type=image_type,
                platform=platform,
                image=layout.image,
                build=build,
                source=_source(layout),
                record=fs.read_file(path / TESTS),
                record_source=str(place / TESTS),
                test=f"lockyard test {version}",
            )
        )
    return tuple(found)


def check_records(
    workspace: Workspace, version: Version, variants: Mapping[str, Variant], built: Iterable[Built]
) -> tuple[Record, ...]:
    """Check that every image was tested: by a green record of exactly its bytes and of the suite as it is now.

    Raises:
        ImageTestError: one was not; all are named.

    """
    suite = suite_of(workspace, version)
    failures, records = [], []
    for item in built:
        try:
            records.append(
                verify_record(
                    None if item.record is None else item.record.decode(errors="replace"),
                    manifest=item.image.digest,
                    content=content_digest(item.image),
                    suite=suite_digest(suite, variants[item.image_type].pytest_flags),
                    image_type=item.image_type,
                    platform=item.platform,
                    source=item.record_source,
                )
            )
        except ImageTestError as error:
            failures.append((error, item.test))
    if failures:
        (first, *others), commands = zip(*failures, strict=True)
        raise ImageTestError(
            first.message,
            hint=f"nothing was published; run {', '.join(dict.fromkeys(commands))}, mend what is red, push again",
            details=[*first.details, *(error.message for error in others)],
        )
    return tuple(records)


def to_push(image_type: str, tag: str, built: Iterable[Built], *, top: Manifest | None = None) -> PushImage:
    """Return one image type ready to push: an index on top when it has several platforms; `top` is one that exists."""
    mine = sorted((item for item in built if item.image_type == image_type), key=lambda item: item.platform)
    manifests = [Manifest(item.image.descriptor, item.image.manifest_bytes) for item in mine]
    if top is not None and top.digest not in {manifest.digest for manifest in manifests}:
        manifests.append(top)
    elif top is None and len(manifests) > 1:
        body = Index(tuple(manifest.descriptor for manifest in manifests)).to_bytes()
        manifests.append(Manifest(Descriptor.of(MediaType.INDEX, body), body))
    blobs = [Blob(descriptor, item.source(descriptor)) for item in mine for descriptor in _parts(item)]
    return PushImage(image_type=image_type, tag=tag, manifests=tuple(manifests), blobs=tuple(blobs))


def published_versions(workspace: Workspace, image_type: str, *, stages: Collection[str]) -> frozenset[Version]:
    """Return the releases whose record says that this image type is in some repository other than `stages`.

    Raises:
        ConfigError: a record is malformed or newer than we know.

    """
    found = set()
    for version in workspace.versions():
        image = read_record(workspace, version).get("images", {}).get(image_type)
        if isinstance(image, dict) and set(image.get("repositories") or ()) - set(stages):
            found.add(version)
    return frozenset(found)


def previous_layers(
    workspace: Workspace, version: Version, image_type: str, platform: str
) -> tuple[Version | None, frozenset[str]]:
    """Return the newest published release before `version` of an image, and the digests of its layers.

    A final release looks at final ones only.

    Raises:
        ConfigError: a record is malformed or newer than we know.

    """
    for other in reversed(workspace.versions()):
        if other >= version or (other.is_pre_release and not version.is_pre_release):
            continue
        image = read_record(workspace, other).get("images", {}).get(image_type) or {}
        layers = (image.get("platforms") or {}).get(platform, {}).get("layers")
        if layers:
            return other, frozenset(str(layer["digest"]) for layer in layers)
    return None, frozenset()


def donors(workspace: Workspace, version: Version) -> dict[str, dict[str, str]]:
    """Return registry → blob → a repository that has it, as the records of this release and the one before say.

    Raises:
        ConfigError: a record is malformed or newer than we know.

    """
    found: dict[str, dict[str, str]] = {}
    near = [item for item in workspace.versions() if item.final <= version.final][-3:]
    for other in reversed(near):
        for image in read_record(workspace, other).get("images", {}).values():
            parts = [item for item in (image.get("platforms") or {}).values() if isinstance(item, dict)]
            digests = [layer["digest"] for part in parts for layer in part.get("layers", ())]
            for repository in image.get("repositories") or ():
                if not repository.startswith("oci:"):
                    mine = found.setdefault(repository.partition("/")[0], {})
                    for digest in digests:
                        mine.setdefault(str(digest), repository)
    return found


def read_record(workspace: Workspace, version: Version) -> dict[str, Any]:
    """Return the release's `images.json`, empty when nothing of it was published.

    Raises:
        ConfigError: it is malformed or newer than we know.

    """
    data = fs.read_file(workspace.release_path(version) / FILE_NAME)
    if data is None:
        return {}
    source = str(release_dir(version) / FILE_NAME)
    record = _read_json(data, source)
    schema = record.get("schema")
    if not isinstance(schema, int) or not isinstance(record.get("images"), dict):
        raise ConfigError(f"{source} is no record of published images")
    if schema > SCHEMA:
        raise ConfigError(
            f"{source}: schema {schema} is newer than this Lockyard knows ({SCHEMA})", hint="upgrade Lockyard"
        )
    return record


def inputs_of(tree: Tree) -> Tree:
    """Return what a release is made from and of; records and texts speak of it, and are written anew."""
    return Tree({path: file for path, file in tree.items() if path != FILE_NAME and not is_text(path)})


def inputs_digest(tree: Tree) -> str:
    """Return the digest of the inputs of a release: the same in every checkout, whatever its umask is."""
    files = inputs_of(tree).items()
    plain = {path: File(file.data, 0o755 if file.mode & 0o111 else 0o644) for path, file in files if not file.is_link}
    return Tree({**plain, **{path: file for path, file in files if file.is_link}}).digest


def check_as_recorded(workspace: Workspace, version: Version, stage: str, tops: Mapping[str, Manifest]) -> None:
    """Refuse to publish what a staging repository has when the release was recorded otherwise; no record is no claim.

    The record that is committed and reviewed names digests: of the images, and of the files that they were made from.

    Raises:
        BuildError: the release has changed since, or other images were staged since.

    """
    record = read_record(workspace, version)
    source = str(release_dir(version) / FILE_NAME)
    stated = record.get("inputs")
    hint = f"stage and test it again: lockyard build {version}"
    if stated is not None and stated != inputs_digest(workspace.release_tree(version)):
        raise BuildError(f"{release_dir(version)} has changed since its images were recorded in {source}", hint=hint)
    for image_type, top in tops.items():
        image = record.get("images", {}).get(image_type) or {}
        there = (image.get("repositories") or {}).get(stage) or {}
        if there and there.get("digest") != str(top.digest):
            raise BuildError(
                f"{stage} has another {image_type} image than {source} names: {top.digest}, not {there.get('digest')}",
                hint=hint,
            )


def merge_record(
    old: Mapping[str, Any],
    version: Version | str,
    built: Iterable[Built],
    published: Iterable[Published],
    *,
    tested: bool,
    inputs: str | None = None,
    green: Collection[str] = (),
) -> bytes:
    """Return the bytes of `images.json` with this run's images; other types and repositories stay.

    `inputs` is the digest of the release as it is now (`inputs_digest`), where there is one.

    `green` are the digests of the manifests that have a green record, whether or not this run asked for it.

    An image that was published tested stays so when the same digest is published once more untested.
    """
    images = dict(old.get("images") or {})
    built = tuple(built)
    for item in published:
        before = images.get(item.image_type) or {}
        same = before.get("digest") == item.digest
        repositories = dict(before.get("repositories") or {})
        there = repositories.get(item.repository) or {}
        tags = set(item.tags) | set(there.get("tags") or () if there.get("digest") == item.digest else ())
        repositories[item.repository] = {"digest": item.digest, "tags": sorted(tags)}
        images[item.image_type] = {
            "digest": item.digest,
            "platforms": {
                one.platform: _platform(one, tested=str(one.image.digest) in green)
                for one in built
                if one.image_type == item.image_type
            },
            "repositories": repositories,
            "tag": item.tags[0],
            "tested": tested or (same and bool(before.get("tested"))),
        }
    stated = {} if inputs is None else {"inputs": inputs}
    record = {"schema": SCHEMA, "version": str(version), "images": images, **stated}
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _parts(built: Built) -> tuple[Descriptor, ...]:
    image = built.image
    return (image.config_descriptor, *(layer.descriptor for layer in image.layers))


def _platform(built: Built, *, tested: bool) -> dict[str, Any]:
    image = built.image
    base = built.build.get("base")
    return {
        "manifest": str(image.digest),
        "config": str(image.config_descriptor.digest),
        "base": base if isinstance(base, dict) else {},
        "layers": [{"digest": str(item.descriptor.digest), "size": item.descriptor.size} for item in image.layers],
        "size": image.size,
        "tested": tested,
    }


def _source(layout: Layout) -> Callable[[Descriptor], Path]:
    return lambda descriptor: layout.blob(descriptor.digest)


def _build_record(place: Path, data: bytes | None) -> dict[str, Any]:
    if data is None:
        raise BuildError(f"{place / BUILD} is missing", hint="build the image again")
    return _read_json(data, str(place / BUILD))


def _read_json(data: bytes, source: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ConfigError(f"{source} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{source} is not a JSON object")
    return value
