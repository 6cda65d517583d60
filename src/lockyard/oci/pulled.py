"""Images of registries, effects: pulled once into `CACHE/bases/v1/`, every byte checked against its digest.

Most are bases of builds; those that are tested where they were pushed to are others, mostly of the same layers.
`sha256/HEX` are the blobs (manifests, configurations, layers), each whole or not there; `sha256/.HEX.part` is one on its
way, where the next pull goes on. `images/HEX.json` is the record of an image that was used, for listing and pruning.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lockyard import cachedir, fs
from lockyard.errors import BuildError, HashMismatchError
from lockyard.oci.image import Image, Index, Layer, canonical_json, load_image, manifest_descriptor, verified
from lockyard.oci.values import Descriptor, Digest, Reference
from lockyard.ports import Log
from lockyard.ports.registry import RegistryPort

_PULLS = 4
_SMALL = 8 << 20  # bytes of a manifest or a configuration


class ImageName(Protocol):
    """What names an image; `str()` of it is for messages."""

    @property
    def repository(self) -> str:
        """The repository, as `registry` takes it."""

    @property
    def name(self) -> str:
        """The repository for people, short."""

    @property
    def tag(self) -> str | None:
        """The tag."""

    @property
    def digest(self) -> Digest | None:
        """The digest, which counts where there is a tag too."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image in the cache: the digest that its reference leads to, the image of the platform, where its layers are."""

    digest: Digest
    image: Image
    blobs: Mapping[Digest, Path]


class PulledBases:
    """The cache of pulled images below `cache_dir`; several processes may use it at once. `what` names them in messages."""

    def __init__(self, cache_dir: Path, log: Log, *, what: str = "base") -> None:
        self.root = cache_dir / "bases" / "v1"
        self._log = log
        self.what = what

    def top(self, reference: ImageName, registry: Callable[[str], RegistryPort]) -> tuple[Descriptor, bytes]:
        """Return the manifest or index that a reference leads to, verified.

        Raises:
            BuildError: there is no such image, or it is something else.
            RegistryError: the registry refuses or cannot be reached.

        """
        with contextlib.closing(_Pull(self, reference, registry)) as pull:
            top = pull.top()
            return top, pull.small(top)

    def look(
        self, reference: ImageName, platform: Mapping[str, str] | None, registry: Callable[[str], RegistryPort]
    ) -> Image:
        """Return the image of a platform, or the only one, as `open` does, with no layer pulled."""
        with contextlib.closing(_Pull(self, reference, registry)) as pull:
            return load_image(Index((pull.top(),)).to_bytes(), pull.small, platform)

    def open(
        self, reference: ImageName, platform: Mapping[str, str], registry: Callable[[str], RegistryPort]
    ) -> Pulled:
        """Return the image of a platform; what is not there is pulled, a reference by digest that is there asks nobody.

        Raises:
            BuildError: there is no such image, it is malformed or not for the platform.
            HashMismatchError: the registry gave other bytes than the digest names.
            RegistryError: the registry refuses or cannot be reached.

        """
        with contextlib.closing(_Pull(self, reference, registry)) as pull:
            top = pull.top()
            image = load_image(Index((top,)).to_bytes(), pull.small, platform)
            wanted = {layer.descriptor.digest: layer for layer in image.layers}
            self._layers(reference, pull, list(wanted.values()))
        digests = [top.digest, image.digest, image.config_descriptor.digest, *wanted]
        record = {"schema": 1, "reference": str(reference), "blobs": sorted({str(item) for item in digests})}
        fs.atomic_write(self.root / "images" / f"{image.digest.hex}.json", canonical_json(record))
        return Pulled(top.digest, image, {digest: self.blob(digest) for digest in wanted})

    def _layers(self, reference: ImageName, pull: "_Pull", layers: list[Layer]) -> None:
        with ThreadPoolExecutor(_PULLS, thread_name_prefix="base") as pool:
            sound = list(pool.map(lambda layer: self.has(layer.descriptor), layers))
            missing = [layer.descriptor for layer, there in zip(layers, sound, strict=True) if not there]
            if not missing:
                return
            total = sum(item.size for item in missing)
            self._log.info(f"{self.what} {reference}: pulling {len(missing)} of {len(layers)} layers")
            with self._log.progress(f"{self.what} {reference.name}", total, "B") as advance:
                jobs = [pool.submit(pull.layer, item, advance) for item in missing]
                try:
                    for job in jobs:
                        job.result()
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def blob(self, digest: Digest) -> Path:
        """Return the place of a blob."""
        return self.root / "sha256" / digest.hex

    def has(self, descriptor: Descriptor) -> bool:
        """Say whether a blob is there and sound; a damaged one is removed."""
        path = self.blob(descriptor.digest)
        cachedir.use(self.root, [path])
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            return False
        if found != descriptor.digest.hex:
            self._log.warning(f"{path} is damaged and is pulled again")
            path.unlink(missing_ok=True)
            return False
        return True

    def read(self, digest: Digest) -> bytes | None:
        """Return the bytes of a small blob, `None` when it is not there or damaged."""
        cachedir.use(self.root, [self.blob(digest)])
        data = fs.read_file(self.blob(digest))
        return data if data is not None and Digest.of(data) == digest else None


class _Pull:
    """One reference on its way; the registry is opened when it is needed first."""

    def __init__(self, bases: PulledBases, reference: ImageName, registry: Callable[[str], RegistryPort]) -> None:
        self._bases = bases
        self._reference = reference
        self._what = f"{bases.what} {reference}"
        self._make = registry
        self._opened: RegistryPort | None = None
        self._guard = threading.Lock()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def top(self) -> Descriptor:
        """Return the descriptor of the manifest or index that the reference names."""
        digest = self._reference.digest or self._resolve()
        data = self._bases.read(digest)
        if data is None:
            data = self._registry.get_manifest(str(digest))
            if data is None:
                raise _missing(self._bases.what, self._reference)
            fs.atomic_write(self._bases.blob(digest), data)
        return manifest_descriptor(data)

    def small(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a manifest or a configuration."""
        data = self._bases.read(descriptor.digest)
        if data is None:
            data = _ask(self._registry, descriptor, self._what, self._reference.repository)
            fs.atomic_write(self._bases.blob(descriptor.digest), data)
        return data

    def layer(self, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
        """Bring one layer into the cache."""
        path = self._bases.blob(descriptor.digest)
        with _own(path) as part:
            if part is None:
                advance(descriptor.size)
                return
            try:
                self._registry.download_blob(str(descriptor.digest), descriptor.size, part, progress=advance)
            except HashMismatchError as error:
                raise HashMismatchError(
                    f"{self._what}: {error.message}", hint="the registry serves damaged data; try again"
                ) from error
            part.chmod(0o444)  # hard-linked into layouts: nobody writes to it
            part.replace(path)

    @property
    def _registry(self) -> RegistryPort:
        with self._guard:
            if self._opened is None:
                self._opened = self._make(self._reference.repository)
            return self._opened

    def _resolve(self) -> Digest:
        found = self._registry.manifest_digest(self._reference.tag or "latest")
        if found is None:
            raise _missing(self._bases.what, self._reference)
        return Digest(found)


@contextlib.contextmanager
def _own(path: Path) -> Iterator[Path | None]:
    """Give the half-written file of the blob `path` to this process alone; `None`: another one has finished it."""
    part = path.with_name(f".{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    while True:
        if path.exists():
            yield None
            return
        with part.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                mine = part.stat().st_ino == os.fstat(stream.fileno()).st_ino
            except FileNotFoundError:
                mine = False
            if mine and not path.exists():
                yield part
                return


def _is_manifest(descriptor: Descriptor) -> bool:
    return "manifest" in descriptor.media_type or "index" in descriptor.media_type


def _ask(registry: RegistryPort, descriptor: Descriptor, what: str, repository: str) -> bytes:
    """Return the verified bytes of a manifest, an index or a configuration from the registry."""
    if descriptor.size > _SMALL:
        raise BuildError(f"{what}: {descriptor.size} bytes are too many for {descriptor.media_type}")
    digest = str(descriptor.digest)
    data = registry.get_manifest(digest) if _is_manifest(descriptor) else registry.get_blob(digest)
    return verified(data, descriptor, f"{repository}@{digest}")


def _missing(what: str, reference: ImageName) -> BuildError:
    return BuildError(
        f"{what} {str(reference)!r}: the registry has no such image",
        hint="check its name and tag, and whether docker login is needed",
    )


def resolve(reference: Reference, registry: RegistryPort, platforms: Mapping[str, Mapping[str, str]]) -> Digest:
    """Return the digest behind a reference's tag now, having seen that it has every one of `platforms` (subdir → OCI).

    Raises:
        BuildError: there is no such image, or it has no image of a platform.

    """
    found = registry.manifest_digest(reference.tag or "latest")
    data = registry.get_manifest(found) if found is not None else None
    if data is None:
        raise _missing("base", reference)
    top = manifest_descriptor(data)
    whole = Index((top,)).to_bytes()

    def small(descriptor: Descriptor) -> bytes:
        if descriptor.digest == top.digest:
            return data
        return _ask(registry, descriptor, f"base {reference}", reference.repository)

    for subdir, platform in platforms.items():
        try:
            load_image(whole, small, platform)
        except BuildError as error:
            raise BuildError(f"base {str(reference)!r} for {subdir}: {error.message}") from error
    return top.digest


def read_record(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return reference and blobs of a record; nothing of one that cannot be read."""
    try:
        value = json.loads(fs.read_file(path) or b"{}")
        return str(value["reference"]), tuple(str(item) for item in value["blobs"])
    except (ValueError, KeyError, TypeError):
        return "", ()


def cache_kind(cache_dir: Path) -> cachedir.CacheKind:
    """Return how the pulled bases in the cache are listed."""
    place = cache_dir / "bases" / "v1"
    return cachedir.CacheKind(
        "bases", "images of registries: bases, and what was tested there", place, lambda: _entries(place)
    )


def _entries(place: Path) -> Iterator[cachedir.CacheEntry]:
    """Yield each base; a blob that several have goes with the one that was used last."""
    blobs = {path.name: path for path in sorted((place / "sha256").glob("[0-9a-f]*"))}
    yield from cachedir.unfinished(place, [place / "sha256", place / "images"])
    for part in sorted((place / "sha256").glob(".*.part")):
        yield _entry(f"sha256/{part.name}", (part,), unfinished=True)
    records = sorted((place / "images").glob("[0-9a-f]*.json"), key=lambda path: (-path.stat().st_mtime, path.name))
    for record in records:
        reference, digests = read_record(record)
        owned = tuple(found for digest in digests if (found := blobs.pop(digest.partition(":")[2], None)) is not None)
        yield _entry(reference or record.stem, (record, *owned))
    for name, blob in blobs.items():
        yield _entry(f"sha256:{name}", (blob,))


def _entry(name: str, paths: tuple[Path, ...], *, unfinished: bool = False) -> cachedir.CacheEntry:
    return cachedir.CacheEntry(
        name=name, size=sum(map(cachedir.size_of, paths)), used=cachedir.last_used(paths), markers=paths, paths=paths,
        unfinished=unfinished,
    )  # fmt: skip
