"""What of a release is built and fit to be published, and the record of what was: `images.json` in its directory."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockyard import fs
from lockyard.app.build import BUILD
from lockyard.app.images import suite_of
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import suite_digest, verify_record
from lockyard.distribution import Variant
from lockyard.errors import BuildError, ConfigError, ImageTestError
from lockyard.oci.image import Index, oci_platform
from lockyard.oci.layout import Layout, read_layout
from lockyard.oci.values import Descriptor, MediaType
from lockyard.registry.plan import Blob, Manifest, PushImage
from lockyard.version import Version, release_dir

FILE_NAME = "images.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One built image: its layout, read and checked, and what `build.json` says."""

    image_type: str
    platform: str
    layout: Layout
    build: Mapping[str, Any]


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
        found.append(Built(image_type=image_type, platform=platform, layout=layout, build=build))
    return tuple(found)


def check_records(
    workspace: Workspace, version: Version, variants: Mapping[str, Variant], built: Iterable[Built]
) -> None:
    """Check that every image was tested: by a green record of exactly its bytes and of the suite as it is now.

    Raises:
        ImageTestError: one was not; all are named.

    """
    suite = suite_of(workspace)
    failures = []
    for item in built:
        path = item.layout.path / TESTS
        data = fs.read_file(path)
        try:
            verify_record(
                None if data is None else data.decode(errors="replace"),
                manifest=item.layout.image.digest,
                suite=suite_digest(suite, variants[item.image_type].pytest_flags),
                image_type=item.image_type,
                platform=item.platform,
                source=str(path.relative_to(workspace.root)),
            )
        except ImageTestError as error:
            failures.append(error)
    if failures:
        first, *others = failures
        raise ImageTestError(
            first.message,
            hint=f"nothing was published; run lockyard test {version}, mend what is red, push again",
            details=[*first.details, *(error.message for error in others)],
        )


def to_push(image_type: str, tag: str, built: Iterable[Built]) -> PushImage:
    """Return one image type ready to push: an index on top when it has several platforms."""
    mine = sorted((item for item in built if item.image_type == image_type), key=lambda item: item.platform)
    manifests = [Manifest(item.layout.image.descriptor, item.layout.image.manifest_bytes) for item in mine]
    if len(manifests) > 1:
        body = Index(tuple(manifest.descriptor for manifest in manifests)).to_bytes()
        manifests.append(Manifest(Descriptor.of(MediaType.INDEX, body), body))
    blobs = [Blob(descriptor, item.layout.blob(descriptor.digest)) for item in mine for descriptor in _parts(item)]
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


def merge_record(
    old: Mapping[str, Any], version: Version, built: Iterable[Built], published: Iterable[Published], *, tested: bool
) -> bytes:
    """Return the bytes of `images.json` with this run's images; other types and repositories stay.

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
            "platforms": {one.platform: _platform(one) for one in built if one.image_type == item.image_type},
            "repositories": repositories,
            "tag": item.tags[0],
            "tested": tested or (same and bool(before.get("tested"))),
        }
    record = {"schema": SCHEMA, "version": str(version), "images": images}
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _parts(built: Built) -> tuple[Descriptor, ...]:
    image = built.layout.image
    return (image.config_descriptor, *(layer.descriptor for layer in image.layers))


def _platform(built: Built) -> dict[str, Any]:
    image = built.layout.image
    base = built.build.get("base")
    return {
        "manifest": str(image.digest),
        "config": str(image.config_descriptor.digest),
        "base": base if isinstance(base, dict) else {},
        "layers": [{"digest": str(item.descriptor.digest), "size": item.descriptor.size} for item in image.layers],
        "size": image.size,
    }


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
