"""Use cases around staged images: records of image tests attached to them, and read back to publish what is green."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.app.published import Built
from lockyard.app.targets import Place, open_places, resolve
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import parse_record
from lockyard.distribution import Variant
from lockyard.errors import BuildError, ImageTestError, RegistryError
from lockyard.oci.image import Image, Index, oci_platform
from lockyard.oci.values import Descriptor, Digest, MediaType
from lockyard.ports import Toolbox
from lockyard.ports.registry import RegistryPort
from lockyard.registry.plan import Manifest
from lockyard.registry.referrers import (
    CREATED,
    EMPTY,
    TEST_RECORD,
    Referrer,
    fallback_tag,
    newest_first,
    parse_referrers,
    payload_of,
    referrer_manifest,
    with_referrer,
)
from lockyard.tags import exact_tag
from lockyard.version import Version

_INDEXES = {MediaType.INDEX, MediaType.DOCKER_MANIFEST_LIST}
_TRIES = 5
_MAX_RECORD = 8 << 20  # bytes


@dataclass(frozen=True, slots=True)
class RemoteBlob:
    """A blob in a repository, read where it lies."""

    port: RegistryPort
    digest: str
    repository: str

    def read(self, start: int, length: int) -> bytes:
        """Return a part of it."""
        return self.port.read_blob(self.digest, start, length)

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Staged:
    """What a repository holds of a release: its images, and what the tag of each type leads to."""

    built: tuple[Built, ...]
    tops: Mapping[str, Manifest]


def attach_record(
    toolbox: Toolbox,
    workspace: Workspace,
    repository: str,
    digest: str,
    text: str,
    *,
    region: str | None = None,
    insecure: bool = False,
) -> str:
    """Attach a record of image tests (`format_record`'s text) to the image `digest` in `repository`; return its digest.

    Any machine may do so; the newest record of an image counts.

    Raises:
        ImageTestError: the text is no record, or one of another image.
        RegistryError: the image is not there, or the registry refuses.

    """
    (target,) = resolve(workspace, (repository,), region=region)
    with open_places(toolbox, workspace, (target,), insecure=insecure) as (place,):
        return attach(toolbox, workspace, place, digest, text)


def attach(toolbox: Toolbox, workspace: Workspace, place: Place, digest: str, text: str) -> str:
    """Do what `attach_record` does, in a repository that is open."""
    record = parse_record(text, source="the record")
    if str(record.manifest) != digest:
        raise ImageTestError(f"the record is of {record.manifest}, not of {digest}")
    created = toolbox.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    annotations = {CREATED: created, "lockyard.image-type": record.image_type, "lockyard.platform": record.platform}
    (made,) = attach_files(workspace, place, digest, [Attachment(text.encode(), TEST_RECORD, annotations)])
    return made


@dataclass(frozen=True, slots=True)
class Attachment:
    """A small file for an image, its media type, and what its manifest says of it."""

    payload: bytes
    artifact_type: str
    annotations: Mapping[str, str]


def attach_files(workspace: Workspace, place: Place, digest: str, files: Sequence[Attachment]) -> tuple[str, ...]:
    """Attach small files to the image `digest` as referrers, and return the digests of what says so.

    Raises:
        RegistryError: the image is not there, or the registry refuses.

    """
    body = place.port.get_manifest(digest)
    if body is None:
        raise RegistryError(f"{place.name}@{digest} is not there", hint="push it to the staging repository first")
    subject = Descriptor.of(str(json.loads(body).get("mediaType") or MediaType.MANIFEST), body)
    manifests = {}
    for item in files:
        payload = Descriptor.of(item.artifact_type, item.payload)
        manifest = referrer_manifest(subject, payload, artifact_type=item.artifact_type, annotations=item.annotations)
        manifests[str(Digest.of(manifest))] = manifest
    _put_small(place.port, (EMPTY, *(item.payload for item in files)), workspace.state_dir)
    noted = [place.port.put_manifest(made, manifest, MediaType.MANIFEST) for made, manifest in manifests.items()]
    unlisted = {made: manifests[made] for made, known in zip(manifests, noted, strict=True) if not known}
    if unlisted and place.port.referrers(digest) is None:
        _list(place, digest, unlisted)
    return tuple(manifests)


def attached(place: Place, digest: str) -> frozenset[Referrer]:
    """Return what is attached to an image.

    Raises:
        RegistryError: the list is malformed, or the registry refuses.

    """
    source = f"{place.name}@{digest}"
    listed = place.port.referrers(digest)
    tagged = place.port.get_manifest(fallback_tag(digest))
    return frozenset((*parse_referrers(listed, source=source), *parse_referrers(tagged, source=source)))


def read_record(place: Place, digest: str) -> bytes | None:
    """Return the newest record of image tests of an image, `None` when it has none.

    Raises:
        RegistryError: what the registry has is malformed.

    """
    for referrer in newest_first(attached(place, digest), TEST_RECORD):
        manifest = place.port.get_manifest(referrer.digest)
        if manifest is None:
            continue
        payload, size = payload_of(manifest, digest)
        if size > _MAX_RECORD:
            raise RegistryError(f"{place.name}@{referrer.digest}: a record of {size} bytes is none")
        return place.port.get_blob(payload)
    return None


def read_staged(version: Version, variants: Mapping[str, Variant], place: Place) -> Staged:
    """Read what `place` holds of a release: manifests, configurations and the newest test records, but no layer.

    Raises:
        BuildError: a type or a platform is not there, or is another version.
        RegistryError: the repository cannot be read.

    """
    built, tops = [], {}
    for image_type, variant in variants.items():
        tag = exact_tag(version, template=variant.tag, image_type=image_type)
        body = place.port.get_manifest(tag)
        if body is None:
            raise BuildError(
                f"{place.name}:{tag} is not there", hint=f"lockyard push {version} --target-ecr-repo {place.name}"
            )
        top = Manifest(Descriptor.of(_media_type(body), body), body)
        tops[image_type] = top
        mine = [_staged_image(place, version, image_type, platform, top) for platform in variant.platforms]
        _check_index(top, {str(item.image.digest) for item in mine}, f"{place.name}:{tag}")
        built += mine
    return Staged(tuple(built), tops)


def _staged_image(place: Place, version: Version, image_type: str, platform: str, top: Manifest) -> Built:
    body = top.body
    if top.descriptor.media_type in _INDEXES:
        descriptor = Index.parse(body).select(oci_platform(platform))
        body = _there(place.port.get_manifest(str(descriptor.digest)), f"{place.name}@{descriptor.digest}")
    config = Descriptor.from_json(json.loads(body)["config"])
    image = Image.parse(body, _there(place.port.get_blob(str(config.digest)), f"{place.name}@{config.digest}"))
    problems = image.validate()
    wanted = oci_platform(platform)
    there = image.descriptor.platform
    if any(there.get(key) != value for key, value in wanted.items()):
        problems.append(f"it is for {'/'.join(there.values())}, not for {platform}")
    labels = image.runtime.get("Labels") or {}
    stated = labels.get("org.opencontainers.image.version", str(version))
    if stated != str(version):
        problems.append(f"its label says version {stated}")
    if problems:
        raise BuildError(f"{place.name}@{image.digest} cannot be published as {version}: {problems[0]}")
    digest = str(image.digest)
    base = {
        "reference": labels.get("org.opencontainers.image.base.name"),
        "digest": labels.get("org.opencontainers.image.base.digest"),
    }
    return Built(
        image_type=image_type,
        platform=platform,
        image=image,
        build={"base": {key: value for key, value in base.items() if value}},
        source=lambda descriptor: RemoteBlob(place.port, str(descriptor.digest), place.name),
        record=read_record(place, digest),
        record_source=f"the newest record of {place.name}@{digest}",
        test=f"lockyard test --image {place.name}@{digest}",
    )


def _check_index(top: Manifest, mine: set[str], source: str) -> None:
    """Refuse an index with parts that are no platform of ours: they would be published unseen."""
    if top.descriptor.media_type in _INDEXES:
        others = {str(item.digest) for item in Index.parse(top.body).manifests} - mine
        if others:
            raise BuildError(f"{source} has a part that is no platform of the image type: {min(others)}")


def _list(place: Place, digest: str, manifests: Mapping[str, bytes]) -> None:
    """Add referrers to the list under their tag; another writer may do so at the same time."""
    tag = fallback_tag(digest)
    source = f"{place.name}:{tag}"
    for _ in range(_TRIES):
        index = place.port.get_manifest(tag)
        for manifest in manifests.values():
            index = with_referrer(index, manifest, source=source)
        if index is not None:
            place.port.put_manifest(tag, index, MediaType.INDEX)
        there = parse_referrers(place.port.get_manifest(tag), source=source)
        if manifests.keys() <= {item.digest for item in there}:
            return
    raise RegistryError(f"{source} does not keep its entries", hint="attach the record again")


def _put_small(port: RegistryPort, files: Iterable[bytes], place: Path) -> None:
    """Put small blobs, those that are not there; `place` is a directory for them on their way."""
    blobs = {str(Digest.of(data)): data for data in files}
    there = port.present_blobs({digest: len(data) for digest, data in blobs.items()})
    with fs.temporary_directory(place, "record") as scratch:
        for digest, data in blobs.items():
            if digest not in there:
                path = scratch / digest.removeprefix("sha256:")
                path.write_bytes(data)
                port.upload_blob(path, digest, len(data), progress=lambda _: None)


def _media_type(body: bytes) -> str:
    return str(json.loads(body).get("mediaType") or MediaType.MANIFEST)


def _there(data: bytes | None, source: str) -> bytes:
    if data is None:
        raise BuildError(f"{source} is missing")
    return data
