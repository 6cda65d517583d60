"""Deterministic layers: a tar stream by hand, compressed and hashed while it is written. No files are opened here.

The tar is POSIX.1-2001 (`ustar` headers; a PAX record where a name, a link or a size does not fit), which every image
tool reads. Gzip blobs are one member of independent 1 MiB deflate blocks, so that several threads can compress and the
bytes still depend on the input, the library version and the level only; zstd is used with one or two threads, whose
bytes are equal, never with 0, whose bytes depend on the machine.
"""

import collections
import functools
import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from lockyard.errors import BuildError
from lockyard.oci.values import Compression, Digest, MediaType

EPOCH = 315532800
"""1980-01-01T00:00:00Z, the time of every file that has no better one: the earliest that a zip file can hold."""
GZIP_LEVEL = 4
ZSTD_LEVEL = 3
ZSTD_JOB = 4 << 20
"""Bytes that a thread compresses at a time; the library's 8 MiB want twice the memory and save 0.2 %."""
BLOCK = 1 << 20
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, unknown system
_ZEROS = bytes(512)
_UNSAFE_RE = re.compile(rb"(?:\A|/)\.{0,2}(?:/|\Z)|\0")
"""An empty component (so a slash at either end, too), `.`, `..`, or a NUL."""
_HALF = 256
_TYPES = {"file": b"0", "hardlink": b"1", "symlink": b"2", "directory": b"5"}

Buffer = bytes | bytearray
Sink = Callable[[Buffer], object]
"""Takes bytes, which are not changed afterwards."""


class Entry(NamedTuple):
    """A member of a layer: a tuple, because images have hundreds of thousands, and a frozen dataclass costs four times as much.

    `path` has no leading and no trailing slash and may be any bytes but NUL; `target` is the text of a symbolic link or
    the path of a hard link's file, which must come before it. `chunks` gives the `size` bytes of a file.
    """

    path: bytes
    kind: Literal["file", "hardlink", "symlink", "directory"]
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH
    size: int = 0
    target: bytes = b""
    chunks: Callable[[], Iterable[bytes]] = tuple


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """What a finished layer is: its blob (`digest`, `size`), and its tar (`diff_id`, `uncompressed` bytes)."""

    media_type: str
    digest: Digest
    size: int
    diff_id: Digest
    uncompressed: int


class Compressor(Protocol):
    """Takes bytes, gives compressed bytes to its sink."""

    def write(self, data: Buffer) -> None:
        """Take bytes."""

    def close(self) -> None:
        """Write what is left."""


def compressor_id(compression: Compression) -> str:
    """Return name, version and level of the compressor: a part of every cache key."""
    if compression != "gzip":
        import zstandard

        return f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))} level {_zstd_level(compression)} jobs {ZSTD_JOB}"
    from zlib_ng import zlib_ng

    return f"zlib-ng {zlib_ng.ZLIBNG_VERSION} level {GZIP_LEVEL} blocks {BLOCK}"


def _zstd_level(compression: Compression) -> int:
    return int(compression.partition(":")[2] or ZSTD_LEVEL)


def write_layer(
    entries: Iterable[Entry], sink: Sink, *, compression: Compression = "gzip", executor: Executor, threads: int = 2
) -> LayerBlob:
    """Write the entries as one compressed layer to `sink` and return what was written.

    `executor` runs deflate blocks on at most `threads` threads; neither changes a byte.

    Raises:
        BuildError: an entry is not what it says it is.

    """
    return _write(lambda write: write_tar(entries, write), sink, compression, executor, threads)


def compress(
    blocks: Iterable[bytes], sink: Sink, *, compression: Compression = "gzip", executor: Executor, threads: int = 2
) -> LayerBlob:
    """Write a tar that is there already, given in blocks, as one compressed layer; otherwise as `write_layer`."""

    def feed(write: Sink) -> None:
        for block in blocks:
            write(block)

    return _write(feed, sink, compression, executor, threads)


def _write(
    feed: Callable[[Sink], None], sink: Sink, compression: Compression, executor: Executor, threads: int
) -> LayerBlob:
    out = _Hashed(sink)
    compressor = open_compressor(compression, out.write, executor, threads)
    plain = _Hashed(compressor.write)
    feed(plain.write)
    compressor.close()
    media_type = MediaType.LAYER_GZIP if compression == "gzip" else MediaType.LAYER_ZSTD
    return LayerBlob(media_type, out.digest, out.size, plain.digest, plain.size)


def write_tar(entries: Iterable[Entry], sink: Sink) -> None:
    """Write an uncompressed tar of the entries, in their order, in pieces of `BLOCK` bytes and a last shorter one.

    Raises:
        BuildError: a file gives more or fewer bytes than its size.

    """
    blocks = _Blocks(sink)
    for entry in entries:
        blocks.add(header(entry))
        if entry.kind == "file":
            left = entry.size
            for chunk in entry.chunks():
                left -= len(chunk)
                blocks.add(chunk)
            if left:
                raise BuildError(
                    f"{entry.path.decode(errors='replace')} is {entry.size - left} bytes, not {entry.size}"
                )
            blocks.add(_ZEROS[: -entry.size % 512])
    blocks.add(_ZEROS * 2)
    blocks.close()


class _Blocks:
    """Gathers bytes into blocks, each handed on as it is: every byte is copied once on its way to the compressor."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._block = bytearray(BLOCK)
        self._view = memoryview(self._block)
        self._used = 0

    def add(self, data: bytes) -> None:
        used, size = self._used, len(data)
        if used + size < BLOCK:  # nearly always
            self._view[used : used + size] = data
            self._used = used + size
            return
        view = memoryview(data)
        while view:
            part = view[: BLOCK - self._used]
            self._view[self._used : self._used + len(part)] = part
            self._used += len(part)
            view = view[len(part) :]
            if self._used == BLOCK:
                self._sink(self._block)
                # The sink may still hold that one.
                self._block = bytearray(BLOCK)
                self._view = memoryview(self._block)
                self._used = 0

    def close(self) -> None:
        if self._used:
            self._sink(bytes(self._view[: self._used]))


def header(entry: Entry) -> bytes:
    """Return the header blocks of an entry.

    Raises:
        BuildError: the path is empty, absolute, leaves the root, or holds a NUL.

    """
    _check(entry)
    path = entry.path + b"/" if entry.kind == "directory" else entry.path
    size = entry.size if entry.kind == "file" else 0
    records = []
    prefix, name = _split(path)
    if name is None:
        records.append(_record(b"path", path))
        prefix, name = b"", path[:100]
    if len(entry.target) > 100:
        records.append(_record(b"linkpath", entry.target))
    for key, value, limit in ((b"size", size, 8**11), (b"uid", entry.uid, 8**7), (b"gid", entry.gid, 8**7)):
        if value >= limit:
            records.append(_record(key, b"%d" % value))
    if not 0 <= entry.mtime < 8**11:
        records.append(_record(b"mtime", b"%d" % entry.mtime))
    block = _block(name, prefix, entry.mode, entry, size, _TYPES[entry.kind])
    if not records:
        return block
    body = b"".join(records)
    extended = Entry(b"././@PaxHeader", "file", 0o644, size=len(body))
    return _block(extended.path, b"", 0o644, extended, len(body), b"x") + body + _ZEROS[: -len(body) % 512] + block


def _check(entry: Entry) -> None:
    if _UNSAFE_RE.search(entry.path) or b"\0" in entry.target:
        raise BuildError(f"unsafe path in a layer: {entry.path.decode(errors='replace')!r}")


def _split(path: bytes) -> tuple[bytes, bytes | None]:
    """Split a path into the `prefix` and `name` fields of ustar; `None` when it does not fit."""
    if len(path) <= 100:
        return b"", path
    cut = path.find(b"/", max(0, len(path) - 101))
    if cut < 0 or cut > 155 or cut == len(path) - 1:
        return b"", None
    return path[:cut], path[cut + 1 :]


def _record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record: its own length, in decimal, comes first and counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) + rest != length:
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _block(name: bytes, prefix: bytes, mode: int, entry: Entry, size: int, kind: bytes) -> bytes:
    """Return one 512-byte ustar block; numbers that do not fit are 0, their PAX record has them."""
    uid = entry.uid if entry.uid < 8**7 else 0
    gid = entry.gid if entry.gid < 8**7 else 0
    mtime = entry.mtime if 0 <= entry.mtime < 8**11 else 0
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode & 0o7777, uid, gid, size if size < 8**11 else 0, mtime),
            b" " * 8,
            kind,
            entry.target[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),  # no user and group names
            b"0000000\x000000000\0",
            prefix.ljust(167, b"\0"),  # and 12 that nothing uses
        )
    )
    # The low half of Adler-32 is 1 + the sum of the bytes, exact for 256 of them: far faster than `sum`.
    total = (zlib.adler32(block[:_HALF]) & 0xFFFF) + (zlib.adler32(block[_HALF:]) & 0xFFFF) - 2
    return b"%b%06o\0 %b" % (block[:148], total, block[156:])


class _Hashed:
    """Counts and hashes what goes to the next sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._state = hashlib.sha256()
        self.size = 0

    def write(self, data: Buffer) -> None:
        self._state.update(data)
        self.size += len(data)
        self._sink(data)

    @property
    def digest(self) -> Digest:
        return Digest(f"sha256:{self._state.hexdigest()}")


def open_compressor(compression: Compression, sink: Sink, executor: Executor, threads: int) -> Compressor:
    """Return a compressor that writes to `sink`."""
    if compression == "gzip":
        return GzipBlocks(sink, executor, threads)
    return ZstdStream(sink, threads, _zstd_level(compression))


class GzipBlocks:
    """One gzip member (RFC 1952) whose deflate blocks are independent; bytes do not depend on the executor.

    At most `threads` + 2 blocks are on their way: that bounds memory.
    """

    def __init__(self, sink: Sink, executor: Executor, threads: int = 2) -> None:
        self._sink = sink
        self._executor = executor
        self._most = max(1, threads) + 2
        self._pending: collections.deque[Future[bytes]] = collections.deque()
        self._buffer = bytearray()
        self._crc = 0
        self._size = 0
        sink(_GZIP_HEADER)

    def write(self, data: Buffer) -> None:
        """Take bytes; whole blocks start to compress."""
        if not self._buffer and len(data) == BLOCK:
            self._push(data)
            return
        self._buffer += data
        while len(self._buffer) >= BLOCK:
            self._push(bytes(self._buffer[:BLOCK]))
            del self._buffer[:BLOCK]

    def close(self) -> None:
        """Write the last block and the trailer."""
        if self._buffer:
            self._push(bytes(self._buffer))
        self._drain(0)
        self._sink(_deflate(b"", last=True) + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _push(self, block: Buffer) -> None:
        self._crc = _zlib_ng().crc32(block, self._crc)
        self._size += len(block)
        self._pending.append(self._executor.submit(_deflate, block))
        self._drain(self._most)

    def _drain(self, keep: int) -> None:
        while len(self._pending) > keep:
            self._sink(self._pending.popleft().result())


@functools.cache
def _zlib_ng() -> Any:
    from zlib_ng import zlib_ng

    return zlib_ng


def _deflate(block: Buffer, *, last: bool = False) -> bytes:
    library = _zlib_ng()
    # Always a new one: what a compressor that is reset writes may depend on what it had before (zlib-ng#2100).
    state = library.compressobj(GZIP_LEVEL, library.DEFLATED, -15)
    return bytes(state.compress(block) + state.flush(library.Z_FINISH if last else library.Z_FULL_FLUSH))


class ZstdStream:
    """One zstd frame, written by one or two threads."""

    def __init__(self, sink: Sink, threads: int, level: int = ZSTD_LEVEL) -> None:
        import zstandard

        # One and two threads give the same bytes, more do too, but 0 ("as many as there are") does not.
        # Several layers are made at a time, so one is mostly enough; each wants some 20 MB.
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, threads=max(1, min(threads // 4, 2)), job_size=ZSTD_JOB
        )
        self._sink = sink
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def write(self, data: Buffer) -> None:
        """Take bytes."""
        out = self._stream.compress(data)
        if out:
            self._sink(out)

    def close(self) -> None:
        """End the frame."""
        self._sink(self._stream.flush())
