"""Layers of real files, packed as builds pack them: for what depends on how well bytes compress."""

import heapq
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lockyard.conda.archive import unpack
from lockyard.oci.image import Layer
from lockyard.oci.tar import Entry, write_layer
from lockyard.oci.values import Compression, Descriptor


@dataclass(frozen=True)
class Packed:
    """A layer, its blob, the bytes of its tar, and the directories whose files it has."""

    layer: Layer
    path: Path
    unpacked: int
    directories: tuple[Path, ...]


def packed_layers(place: Path, archives: Iterable[Path], count: int) -> list[Packed]:
    """Unpack conda packages below `place/files` and spread their files over `count` layers of like size."""
    bins: list[tuple[int, int, list[Path]]] = [(0, number, []) for number in range(count)]
    for archive in archives:
        unpack(archive, place / "files" / archive.name)
    found = [(_size(path), path) for path in (place / "files").iterdir()]
    for size, path in sorted(found, reverse=True):
        total, number, paths = heapq.heappop(bins)
        heapq.heappush(bins, (total + size, number, [*paths, path]))
    return [pack(place, paths) for _, _, paths in sorted(bins)]


def pack(
    place: Path, directories: Sequence[Path], *, reverse: bool = False, compression: Compression = "gzip"
) -> Packed:
    """Pack the files of directories into one layer; with `reverse` each file backwards: other bytes that compress as well."""
    handle, name = tempfile.mkstemp(dir=place)
    with os.fdopen(handle, "wb") as out, ThreadPoolExecutor(2) as executor:
        entries = _entries(directories, reverse=reverse)
        blob = write_layer(entries, out.write, compression=compression, executor=executor)
    path = place / blob.digest.hex
    Path(name).replace(path)
    layer = Layer(Descriptor(blob.media_type, blob.digest, blob.size), blob.diff_id)
    return Packed(layer, path, blob.uncompressed, tuple(directories))


def _entries(directories: Sequence[Path], *, reverse: bool) -> Iterator[Entry]:
    for directory in sorted(directories):
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                name = f"opt/{directory.name}/{path.relative_to(directory)}".encode()
                size = path.stat().st_size
                yield Entry(name, "file", 0o644, size=size, chunks=partial(_bytes, path, reverse))


def _bytes(path: Path, reverse: bool) -> tuple[bytes]:
    data = path.read_bytes()
    return (data[::-1] if reverse else data,)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
