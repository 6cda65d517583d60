"""Archives in the form of `docker save`, read as a stream: a tar of layers, configuration and `manifest.json`. No files are opened.

Engines differ: up to Docker 24 a layer is `ID/layer.tar` and equal ones are links to it; later ones write `blobs/sha256/HEX`, an OCI
layout that also has `manifest.json`. Either way the manifest may come last, so that layers are handed on before it is known which is which.
"""

import gzip
import json
import posixpath
import tarfile
import zlib
from collections.abc import Callable
from typing import IO, Any, TypeVar, cast

from lockyard.errors import BuildError

T = TypeVar("T")
_MAX_JSON = 8 << 20  # bytes of a configuration
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def read_archive(stream: IO[bytes], take: Callable[[IO[bytes]], T], *, source: str) -> tuple[bytes, tuple[T, ...]]:
    """Read the archive of one image: give `take` each layer's uncompressed tar; return the configuration and what it returned, bottom first.

    Raises:
        BuildError: it is no such archive (`source` says where it comes from).

    """
    texts: dict[str, bytes] = {}
    taken: dict[str, T] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = posixpath.normpath(member.name)
                if member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname)
                elif member.isfile():
                    content = cast("IO[bytes]", archive.extractfile(member))
                    _read(name, content, member.size, texts, taken, take)
        return _assemble(texts, taken, links)
    except (tarfile.TarError, EOFError, OSError, zlib.error, LookupError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise  # the caller's own, such as a full disk
        raise BuildError(f"{source} is not an archive of an image: {error}") from error


def _read(
    name: str,
    content: IO[bytes],
    size: int,
    texts: dict[str, bytes],
    taken: dict[str, T],
    take: Callable[[IO[bytes]], T],
) -> None:
    start = content.read(512)
    joined = cast("IO[bytes]", _Joined(start, content))
    if start.startswith(_GZIP):
        with gzip.GzipFile(fileobj=joined, mode="rb") as plain:
            taken[name] = take(cast("IO[bytes]", plain))
    elif start.startswith(_ZSTD):
        import zstandard

        try:
            with zstandard.ZstdDecompressor().stream_reader(joined, read_across_frames=True) as whole:
                taken[name] = take(cast("IO[bytes]", whole))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    elif start[257:262] == b"ustar" or (size >= 1024 and not start.strip(b"\0")):
        taken[name] = take(joined)
    elif size <= _MAX_JSON:
        texts[name] = joined.read()


def _assemble(texts: dict[str, bytes], taken: dict[str, T], links: dict[str, str]) -> tuple[bytes, tuple[T, ...]]:
    (manifest,) = json.loads(texts["manifest.json"])
    layers = [posixpath.normpath(path) for path in manifest["Layers"]]
    return texts[posixpath.normpath(manifest["Config"])], tuple(taken[_target(path, links)] for path in layers)


def _target(path: str, links: dict[str, str]) -> str:
    for _ in range(len(links)):
        if path not in links:
            break
        path = links[path]
    return path


class _Joined:
    """A stream whose first bytes have been read already."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start = start
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes, all when it is negative."""
        if size < 0:
            data, self._start = self._start + self._rest.read(), b""
            return data
        if self._start:
            data, self._start = self._start[:size], self._start[size:]
            return data
        return self._rest.read(size)


class ChunkStream:
    """A readable stream of an iterator's chunks."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""

    def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, fewer only at the end."""
        parts = [self._buffer]
        there = len(self._buffer)
        while size < 0 or there < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            there += len(chunk)
        data = b"".join(parts)
        cut = len(data) if size < 0 else min(size, len(data))
        self._buffer = data[cut:]
        return data[:cut]
