"""The cache of finished layer blobs, effects: `CACHE/blobs/v1/`, content key → blob.

A key is the hash of everything that the bytes depend on. `keys/HEX.json` says which blob it gave, `sha256/HEX` is the
blob; `notes/HEX.json` is another small thing that was found out. All appear whole, by rename; readers take no lock. A blob
is hashed whenever it is used: one that is not what its name says is made again.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockyard import cachedir, fs
from lockyard.errors import ConfigError
from lockyard.oci.image import Layer, canonical_json
from lockyard.oci.tar import LayerBlob, Sink
from lockyard.oci.values import Descriptor, Digest

SCHEMA = 1
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """A finished layer: where its blob is, how large its tar is, and whether this run made it."""

    layer: Layer
    path: Path
    uncompressed: int
    rebuilt: bool


class BlobCache:
    """Layer blobs below `cache_dir`; several processes may use it at once."""

    def __init__(self, cache_dir: Path) -> None:
        self._root = cache_dir / "blobs" / "v1"

    def layer(self, key: Mapping[str, Any], comment: str, make: Callable[[Sink], LayerBlob]) -> CachedLayer:
        """Return the layer of `key`, made by `make` (which writes the blob to its sink) unless it is there.

        `comment` says what the layer holds; it is not part of the key.
        """
        name = Digest.of(canonical_json({**key, "schema": SCHEMA})).hex
        cachedir.use(self._root, [self._root / "keys" / f"{name}.json"])
        found = self._find(name, comment)
        if found is not None:
            return found
        blob, path = self._make(make)
        record = {
            "schema": SCHEMA, "media_type": blob.media_type, "digest": str(blob.digest), "size": blob.size,
            "diff_id": str(blob.diff_id), "uncompressed": blob.uncompressed,
        }  # fmt: skip
        fs.atomic_write(self._root / "keys" / f"{name}.json", canonical_json(record), durable=False)
        layer = Layer(Descriptor(blob.media_type, blob.digest, blob.size), blob.diff_id, comment)
        return CachedLayer(layer, path, blob.uncompressed, rebuilt=True)

    def remember(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the JSON object of `key`, made by `make` unless it is there."""
        value = self.recall(key)
        if value is None:
            value = make()
            self.note(key, value)
        return value

    def recall(self, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the JSON object of `key`, `None` when there is none."""
        path = self._note(key)
        cachedir.use(self._root, [path])
        try:
            value = json.loads(fs.read_file(path) or b"null")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def note(self, key: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        """Keep a JSON object as that of `key`."""
        fs.atomic_write(self._note(key), json.dumps(dict(value), sort_keys=True).encode(), durable=False)

    def _note(self, key: Mapping[str, Any]) -> Path:
        return self._root / "notes" / f"{Digest.of(canonical_json({**key, 'schema': SCHEMA})).hex}.json"

    def _find(self, name: str, comment: str) -> CachedLayer | None:
        data = fs.read_file(self._root / "keys" / f"{name}.json")
        try:
            record = json.loads(data or b"{}")
            descriptor = Descriptor(record["media_type"], Digest(record["digest"]), record["size"])
            layer = Layer(descriptor, Digest(record["diff_id"]), comment)
            uncompressed = int(record["uncompressed"])
        except (KeyError, TypeError, ValueError, ConfigError):
            return None
        path = self._root / "sha256" / descriptor.digest.hex
        if not self._is_sound(path, descriptor):
            return None
        return CachedLayer(layer, path, uncompressed, rebuilt=False)

    @staticmethod
    def _is_sound(path: Path, descriptor: Descriptor) -> bool:
        try:
            with path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size != descriptor.size:
                    return False
                return hashlib.file_digest(stream, "sha256").hexdigest() == descriptor.digest.hex
        except FileNotFoundError:
            return False

    def _make(self, make: Callable[[Sink], LayerBlob]) -> tuple[LayerBlob, Path]:
        directory = self._root / "sha256"
        directory.mkdir(parents=True, exist_ok=True)
        fs.sweep_old(directory)
        handle, part = tempfile.mkstemp(dir=directory, prefix=".blob.new-")
        try:
            with os.fdopen(handle, "wb", buffering=_CHUNK) as stream:
                blob = make(stream.write)
                stream.flush()
                os.fchmod(stream.fileno(), 0o444)  # hard-linked into layouts: nobody writes to it
            # Nothing here is synchronised to the disk: what a crash of the machine cut short is found when it is used.
            path = directory / blob.digest.hex
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return blob, path


def cache_kind(cache_dir: Path) -> cachedir.CacheKind:
    """Return how the layer blobs in the cache are listed."""
    place = cache_dir / "blobs" / "v1"
    return cachedir.CacheKind("blobs", "finished layers", place, lambda: _entries(place))


def _entries(place: Path) -> Iterator[cachedir.CacheEntry]:
    """Yield each blob with the keys that lead to it: they go together, and the use of a key is a use of the blob."""
    yield from cachedir.unfinished(place, [place / "sha256", place / "keys", place / "notes"])
    keys: dict[str, list[Path]] = {}
    for path in sorted((place / "keys").glob("[0-9a-f]*.json")):
        try:
            digest = Digest(json.loads(fs.read_file(path) or b"{}")["digest"]).hex
        except (KeyError, TypeError, ValueError, ConfigError):
            digest = ""
        keys.setdefault(digest, []).append(path)
    for blob in sorted((place / "sha256").glob("[0-9a-f]*")):
        markers = tuple(keys.pop(blob.name, ()))
        yield _entry(f"sha256:{blob.name}", (*markers, blob), markers or (blob,))
    for path in (path for paths in keys.values() for path in paths):
        yield _entry(f"key {path.stem}", (path,), (path,))
    for path in sorted((place / "notes").glob("[0-9a-f]*.json")):
        yield _entry(f"note {path.stem}", (path,), (path,))


def _entry(name: str, paths: tuple[Path, ...], markers: tuple[Path, ...]) -> cachedir.CacheEntry:
    size = sum(map(cachedir.size_of, paths))
    return cachedir.CacheEntry(name=name, size=size, used=cachedir.last_used(markers), markers=markers, paths=paths)
