"""What a push will do, in order, as values: nothing is read or sent here.

Blobs and manifests repository by repository (a registry mounts only blobs that a manifest of the source repository
refers to), then the exact tags of **all** repositories, then the floating tags: whoever finds a tag finds the image.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lockyard.errors import RegistryError
from lockyard.oci.values import Descriptor
from lockyard.ports.registry import BlobContent


@dataclass(frozen=True, slots=True)
class Blob:
    """A config or a layer: its descriptor and the file, or the other place, that holds it."""

    descriptor: Descriptor
    source: Path | BlobContent

    @property
    def digest(self) -> str:
        """`sha256:…`."""
        return str(self.descriptor.digest)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.descriptor.size


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index: its descriptor and its bytes."""

    descriptor: Descriptor
    body: bytes

    @property
    def digest(self) -> str:
        """`sha256:…`."""
        return str(self.descriptor.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushImage:
    """One image type, ready to push: `manifests` end with the one that gets the tags (an index comes after its parts)."""

    image_type: str
    tag: str
    manifests: tuple[Manifest, ...]
    blobs: tuple[Blob, ...]

    @property
    def top(self) -> Manifest:
        """What the tags point to."""
        return self.manifests[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A repository to publish to.

    `repository` is `HOST/NAME` or `oci:DIR`; blobs are mounted between repositories of the same `registry`, `None`
    when it cannot mount. `floating` maps an image type to the tags that move there. In a staging repository (`movable`)
    exact tags may move. `max_blob` is the size in bytes of the largest blob that it takes, `None` without a limit.
    """

    repository: str
    registry: str | None = None
    floating: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    movable: bool = False
    max_blob: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What one repository has: digests of blobs and manifests, tags with their digests."""

    blobs: frozenset[str] = frozenset()
    manifests: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendBlob:
    """Upload a blob, or mount it from the repository `source`; a refused mount becomes an upload."""

    repository: str
    blob: Blob
    source: str | None = None

    def __str__(self) -> str:
        what = f"{self.blob.descriptor.digest.short} ({self.blob.size} bytes)"
        return f"mount blob {what} from {self.source}" if self.source else f"upload blob {what}"


@dataclass(frozen=True, slots=True)
class PutManifest:
    """Put a manifest under its digest."""

    repository: str
    manifest: Manifest

    def __str__(self) -> str:
        return f"put manifest {self.manifest.digest}"


@dataclass(frozen=True, slots=True)
class PutTag:
    """Point a tag to a manifest; `moves` is the digest that it leaves."""

    repository: str
    tag: str
    manifest: Manifest
    moves: str | None = None

    def __str__(self) -> str:
        left = f", was {self.moves}" if self.moves else ""
        return f"tag {self.tag} -> {self.manifest.digest}{left}"


Effect: TypeAlias = SendBlob | PutManifest | PutTag
StageKind = Literal["blobs", "manifests", "exact tags", "floating tags"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Effects on one repository; blobs of a stage may go in any order, everything else goes in this order."""

    kind: StageKind
    repository: str
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryPlan:
    """What one repository has and gets: blobs and their bytes that are there, come by mounting, or by uploading."""

    repository: str
    present_blobs: int = 0
    present_bytes: int = 0
    mount_blobs: int = 0
    mount_bytes: int = 0
    upload_blobs: int = 0
    upload_bytes: int = 0
    kept_tags: tuple[str, ...] = ()
    """Tags that lead to their image already."""


@dataclass(frozen=True, slots=True)
class PushPlan:
    """The stages in their order, with what is there already.

    `repositories` sums up in the order of the targets; `tags` are all exact tags, to be read back: (repository, tag,
    digest).
    """

    stages: tuple[Stage, ...]
    repositories: tuple[RepositoryPlan, ...]
    tags: tuple[tuple[str, str, str], ...]

    @property
    def present_bytes(self) -> int:
        """Bytes of blobs that are not sent because the repositories have them."""
        return sum(item.present_bytes for item in self.repositories)

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All effects in order."""
        return tuple(effect for stage in self.stages for effect in stage.effects)

    @property
    def upload_bytes(self) -> int:
        """Bytes to send when every mount succeeds."""
        return sum(effect.blob.size for effect in self._blobs() if effect.source is None)

    @property
    def mount_bytes(self) -> int:
        """Bytes to mount."""
        return sum(effect.blob.size for effect in self._blobs() if effect.source is not None)

    def _blobs(self) -> Iterator[SendBlob]:
        return (effect for effect in self.effects if isinstance(effect, SendBlob))

    def lines(self) -> tuple[str, ...]:
        """Return the plan for people: each repository with its effects in their order."""
        out = []
        for item in self.repositories:
            out.append(f"{item.repository}:")
            out.append(
                f"  {item.present_blobs} blobs are there ({item.present_bytes} bytes), "
                f"{item.mount_blobs} to mount ({item.mount_bytes} bytes), "
                f"{item.upload_blobs} to upload ({item.upload_bytes} bytes)"
            )
            mine = (stage for stage in self.stages if stage.repository == item.repository)
            out += [f"  {effect}" for stage in mine for effect in stage.effects]
            out += [f"  tag {tag} is right" for tag in item.kept_tags]
        out.append(f"upload {self.upload_bytes} bytes, mount {self.mount_bytes}, already there {self.present_bytes}")
        return tuple(out)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "schema": 1,
            "stages": [
                {
                    "kind": stage.kind,
                    "repository": stage.repository,
                    "effects": [_effect_json(e) for e in stage.effects],
                }
                for stage in self.stages
            ],
            "repositories": [asdict(item) for item in self.repositories],
            "upload_bytes": self.upload_bytes,
            "mount_bytes": self.mount_bytes,
            "present_bytes": self.present_bytes,
        }


def plan_push(
    images: Sequence[PushImage],
    targets: Sequence[Target],
    present: Mapping[str, Present],
    *,
    move_tags: bool = False,
    donors: Mapping[str, Mapping[str, str]] | None = None,
) -> PushPlan:
    """Plan the push of `images` to `targets`; `present` maps each repository to what it has.

    `donors` maps a registry to blobs that other repositories of it are said to have: digest → repository. When that is
    wrong the mount is refused and becomes an upload.

    Raises:
        RegistryError: an exact tag has another digest and may not move, two images want the same tag, or a layer is too
            large for a registry; all such tags are listed, and nothing is to be done.

    """
    _refuse_collisions(images, targets)
    _refuse_sizes(images, targets)
    _refuse_moves(images, targets, present, move_tags=move_tags)
    stages: list[Stage] = []
    offered = _offers(targets, present, donors or {})
    blobs = _distinct_blobs(images)
    sends: dict[str, tuple[SendBlob, ...]] = {}
    for target in targets:
        has = present.get(target.repository, Present())
        sources = offered.get(target.registry or "", {})
        missing = (blob for blob in blobs if blob.digest not in has.blobs)
        mine = tuple(SendBlob(target.repository, blob, sources.get(blob.digest)) for blob in missing)
        sends[target.repository] = mine
        puts = [
            PutManifest(target.repository, manifest)
            for manifest in _distinct_manifests(images)
            if manifest.digest not in has.manifests
        ]
        stages += [Stage("blobs", target.repository, mine), Stage("manifests", target.repository, tuple(puts))]
        for blob in blobs:
            sources.setdefault(blob.digest, target.repository)
    stages += [_tag_stage("exact tags", target, _exact(images), present) for target in targets]
    stages += [_tag_stage("floating tags", target, _floating(images, target), present) for target in targets]
    tags = tuple((target.repository, image.tag, image.top.digest) for target in targets for image in images)
    sums = tuple(
        _sum_up(images, target, blobs, sends[target.repository], present.get(target.repository, Present()))
        for target in targets
    )
    return PushPlan(tuple(stage for stage in stages if stage.effects), sums, tags)


def _offers(
    targets: Sequence[Target], present: Mapping[str, Present], donors: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Return registry → digest → a repository that has the blob before anything is sent."""
    offers: dict[str, dict[str, str]] = {}
    for target in targets:
        if target.registry is None:
            continue
        mine = offers.setdefault(target.registry, {})
        for digest in present.get(target.repository, Present()).blobs:
            mine.setdefault(digest, target.repository)
    for registry, blobs in donors.items():
        for digest, repository in blobs.items():
            offers.setdefault(registry, {}).setdefault(digest, repository)
    return offers


def _sum_up(
    images: Sequence[PushImage], target: Target, blobs: Sequence[Blob], sends: Sequence[SendBlob], has: Present
) -> RepositoryPlan:
    kept = [blob.size for blob in blobs if blob.digest in has.blobs]
    mounts = [item.blob.size for item in sends if item.source is not None]
    uploads = [item.blob.size for item in sends if item.source is None]
    tags = (*_exact(images), *_floating(images, target))
    return RepositoryPlan(
        repository=target.repository,
        present_blobs=len(kept),
        present_bytes=sum(kept),
        mount_blobs=len(mounts),
        mount_bytes=sum(mounts),
        upload_blobs=len(uploads),
        upload_bytes=sum(uploads),
        kept_tags=tuple(tag for tag, manifest in tags if has.tags.get(tag) == manifest.digest),
    )


def _exact(images: Iterable[PushImage]) -> Iterator[tuple[str, Manifest]]:
    return ((image.tag, image.top) for image in images)


def _floating(images: Iterable[PushImage], target: Target) -> Iterator[tuple[str, Manifest]]:
    return ((tag, image.top) for image in images for tag in target.floating.get(image.image_type, ()))


def _tag_stage(
    kind: StageKind, target: Target, tags: Iterable[tuple[str, Manifest]], present: Mapping[str, Present]
) -> Stage:
    has = present.get(target.repository, Present()).tags
    effects = [
        PutTag(target.repository, tag, manifest, has.get(tag))
        for tag, manifest in tags
        if has.get(tag) != manifest.digest
    ]
    return Stage(kind, target.repository, tuple(effects))


def _refuse_moves(
    images: Sequence[PushImage], targets: Sequence[Target], present: Mapping[str, Present], *, move_tags: bool
) -> None:
    taken = []
    for target in targets:
        has = present.get(target.repository, Present()).tags
        for image in images:
            old = has.get(image.tag)
            if old not in {None, image.top.digest} and not (move_tags or target.movable):
                taken.append(f"{target.repository}:{image.tag} is {old}, not {image.top.digest}")
    if taken:
        raise RegistryError(
            f"an exact tag never moves: {taken[0]}",
            hint="publish this build as the next version; only a pre-release may move, with --move-tag",
            details=taken[1:],
        )


def _refuse_sizes(images: Sequence[PushImage], targets: Sequence[Target]) -> None:
    for target in targets:
        for blob in _distinct_blobs(images):
            if target.max_blob is not None and blob.size > target.max_blob:
                raise RegistryError(
                    f"{target.repository} takes layers of at most {target.max_blob} bytes, "
                    f"{blob.digest} has {blob.size}",
                    hint="spread its packages over several layers in layers.json; nothing was sent",
                )


def _refuse_collisions(images: Sequence[PushImage], targets: Sequence[Target]) -> None:
    for target in targets:
        seen: dict[str, str] = {}
        for image in images:
            for tag in (image.tag, *target.floating.get(image.image_type, ())):
                other = seen.setdefault(tag, image.image_type)
                if other != image.image_type:
                    raise RegistryError(
                        f"image types {other} and {image.image_type} both want the tag {tag!r}",
                        hint="give one of them another tag in variants.toml",
                    )


def _distinct_blobs(images: Iterable[PushImage]) -> tuple[Blob, ...]:
    # Largest first: the long transfers begin while there are others to run beside them.
    blobs = {blob.digest: blob for image in images for blob in image.blobs}
    return tuple(sorted(blobs.values(), key=lambda blob: (-blob.size, blob.digest)))


def _distinct_manifests(images: Iterable[PushImage]) -> Collection[Manifest]:
    return {manifest.digest: manifest for image in images for manifest in image.manifests}.values()


def _effect_json(effect: Effect) -> dict[str, Any]:
    match effect:
        case SendBlob(_, blob, source):
            found = {"do": "mount" if source else "upload", "digest": blob.digest, "size": blob.size}
            return {**found, "from": source} if source else found
        case PutManifest(_, manifest):
            return {"do": "manifest", "digest": manifest.digest, "size": len(manifest.body)}
        case PutTag(_, tag, manifest, moves):
            return {"do": "tag", "tag": tag, "digest": manifest.digest, "moves": moves}
