"""What the reports know of a release, read from its files: locks, direct packages, layer plan, built and published images."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lockyard.conda.formats import lock_from_tree, lock_json_name
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.conda.spec import parse_env_in
from lockyard.errors import ConfigError, StaleLockError
from lockyard.oci.layering import FILE_NAME as LAYERS
from lockyard.oci.layering import LayerPlan
from lockyard.ports.solving import IndexRecord
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

IMAGES = "images.json"
SOURCE_VERSION = "source-version.txt"
_LOCK_RE = re.compile(r"([a-z0-9]+(?:[-_][a-z0-9]+)*)\.(?:lock\.json|env\.out|env\.in)")


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes: what is known of them, and of how many things they are not known."""

    known: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, sizes: Iterable[int | None]) -> "Amount":
        """Add up sizes."""
        values = list(sizes)
        return cls(sum(size for size in values if size is not None), sum(size is None for size in values))

    @property
    def exact(self) -> int | None:
        """The bytes, `None` when something is unknown."""
        return None if self.unknown else self.known


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """A layer of an image: `size` in bytes as it is sent; name and packages (`NAME-VERSION-BUILD`) where known."""

    digest: str
    size: int
    name: str = ""
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """An image of one platform, as `images.json` (published) or `build.json` (built here) says.

    `layers` of a published image are all of them, of a built one those above the base.
    """

    source: Literal["images.json", "build.json"]
    manifest: str
    size: int
    layers: tuple[LayerFacts, ...]
    base: str = ""
    base_digest: str = ""
    tested: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One image type in one repository; the exact tag is the first."""

    repository: str
    digest: str
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TypeFacts:
    """One image type of a release; `direct` are the names in its `env.in`, in file order."""

    image_type: str
    lock: Lock
    direct: tuple[str, ...] = ()
    images: Mapping[str, ImageFacts] = field(default_factory=dict)
    published: tuple[Publication, ...] = ()

    def packages(self, platform: str | None = None) -> tuple[LockedPackage, ...]:
        """Return the packages of a platform, of the first by default."""
        return self.lock.packages(platform)

    @property
    def is_adopted(self) -> bool:
        """Whether it was made before Lockyard: sizes, licences and reasons are unknown."""
        return not self.lock.input_hash


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """A release; `label` is its version, with `@REVISION` when it was read from git objects."""

    version: Version
    label: str
    types: Mapping[str, TypeFacts]
    source: Version | None = None
    plan: LayerPlan | None = None


def types_of(tree: Tree, order: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the image types that a release's files name: those of the line in its `order` first, then the others."""
    found = {match[1] for name in tree if (match := _LOCK_RE.fullmatch(name))}
    # `cpu.pinned_env.in` does not match; a lock of a second platform has a dot more.
    return (*(name for name in order if name in found), *sorted(found - set(order)))


def read_release(
    tree: Tree,
    version: Version,
    *,
    label: str = "",
    order: Sequence[str] = (),
    image_types: Sequence[str] = (),
    partial: bool = False,
) -> ReleaseFacts:
    """Read a release from its files; `image_types` narrows it, `partial` passes over types without a lock.

    Raises:
        ConfigError: a file is malformed.
        StaleLockError: a type has specs but no lock, or there is no lock at all.

    """
    place = str(release_dir(version))
    names = [name for name in types_of(tree, order) if not image_types or name in image_types]
    images = read_images(tree, place)
    types = {}
    for name in names:
        lock = lock_from_tree(tree, name, source=place)
        if lock is not None:
            types[name] = TypeFacts(
                image_type=name, lock=lock, direct=_direct(tree, name, place), **_published(images.get(name) or {})
            )
    missing = [name for name in names or image_types or ["any"] if name not in types]
    if missing and not partial and (names or not types_of(tree, order)):
        files = ", ".join(f"{place}/{lock_json_name(name)}" for name in missing)
        raise StaleLockError(
            f"{label or version} has no lock of {', '.join(missing)} to compare: {files} is missing",
            hint=f"lockyard lock {version}",
        )
    source = _text(tree, SOURCE_VERSION, place).strip() if SOURCE_VERSION in tree else ""
    plan = LayerPlan.from_json(_text(tree, LAYERS, place), source=f"{place}/{LAYERS}") if LAYERS in tree else None
    return ReleaseFacts(
        version=version,
        label=label or str(version),
        types=types,
        source=Version.parse(source) if source else None,
        plan=plan,
    )


def read_images(tree: Tree, place: str) -> Mapping[str, Any]:
    """Return image type → what `images.json` says of it; empty when nothing is published.

    Raises:
        ConfigError: it is malformed.

    """
    if IMAGES not in tree:
        return {}
    value = read_json(_text(tree, IMAGES, place), f"{place}/{IMAGES}")
    images = value.get("images")
    if not isinstance(images, dict) or not all(isinstance(item, dict) for item in images.values()):
        raise ConfigError(f"{place}/{IMAGES} is no record of published images")
    return images


def read_json(text: str | bytes, source: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ConfigError: it is none.

    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: not a JSON object")
    return value


def completed(lock: Lock, records: Mapping[str, IndexRecord]) -> Lock:
    """Return the lock with what a channel's index (hash → record) knows of packages whose size the lock does not say."""

    def one(package: LockedPackage) -> LockedPackage:
        if package.size is not None:
            return package
        record = records.get(package.sha256 or "") or records.get(package.md5 or "")
        if record is None or record.name != package.name:
            return package
        return replace(
            package, size=record.size, timestamp=record.timestamp, license=record.license, depends=record.depends,
            sha256=package.sha256 or record.sha256, build_number=record.build_number,
        )  # fmt: skip

    return replace(lock, platforms={name: tuple(map(one, items)) for name, items in lock.platforms.items()})


def by_hash(records: Iterable[IndexRecord]) -> dict[str, IndexRecord]:
    """Return the records by each of their hashes."""
    return {digest: record for record in records for digest in (record.md5, record.sha256) if digest}


def built_image(build: Mapping[str, Any], tested: str = "") -> ImageFacts:
    """Return what `build.json` says of an image.

    Raises:
        ConfigError: a field is missing or malformed.

    """
    try:
        base = build.get("base") or {}
        return ImageFacts(
            source="build.json",
            manifest=str(build["manifest_digest"]),
            size=int(build["size"]),
            layers=tuple(map(_layer, build["layers"])),
            base=str(base.get("reference") or ""),
            base_digest=str(base.get("digest") or ""),
            tested=tested,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"build.json is malformed: {error!r}", hint="build the image again") from error


def _published(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `TypeFacts` that `images.json` knows; what is malformed there is left out."""
    if not image:
        return {}
    try:
        tested = "green" if image.get("tested") else "untested"
        exact = image.get("tag")
        images = {
            str(platform): ImageFacts(
                source="images.json",
                manifest=str(item["manifest"]),
                size=int(item["size"]),
                layers=tuple(map(_layer, item["layers"])),
                base=str((item.get("base") or {}).get("reference") or ""),
                base_digest=str((item.get("base") or {}).get("digest") or ""),
                tested=tested,
            )
            for platform, item in image["platforms"].items()
        }
        published = tuple(
            Publication(
                repository=str(name),
                digest=str(item["digest"]),
                tags=tuple(sorted(map(str, item["tags"]), key=lambda tag: (tag != exact, tag))),
            )
            for name, item in sorted(image["repositories"].items())
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{IMAGES} is malformed: {error!r}", hint="it is written by `lockyard push`") from error
    return {"images": images, "published": published}


def _layer(item: Mapping[str, Any]) -> LayerFacts:
    return LayerFacts(
        digest=str(item["digest"]),
        size=int(item["size"]),
        name=str(item.get("name") or ""),
        packages=tuple(map(str, item.get("packages") or ())),
    )


def _direct(tree: Tree, image_type: str, place: str) -> tuple[str, ...]:
    name = f"{image_type}.env.in"
    if name not in tree:
        return ()
    return tuple(parse_env_in(_text(tree, name, place), source=f"{place}/{name}").by_name)


def _text(tree: Tree, name: str, place: str) -> str:
    try:
        return tree[name].data.decode()
    except UnicodeDecodeError as error:
        line = tree[name].data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{place}/{name}:{line}: not UTF-8 text") from error
