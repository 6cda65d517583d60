"""A root file system archive becomes the entries of a layer, effects: tar files read safely, compressed by anything usual.

The entries depend on the bytes of the file only: members sorted, hard links last, times and owners as they are, device
nodes left out.
"""

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lockyard.errors import BuildError
from lockyard.oci.rootview import ACCOUNTS, PLAIN, Listing, Meta
from lockyard.oci.tar import EPOCH, Entry

_CHUNK = 1 << 20
ROOTFS_VERSION = 1
"""Goes into cache keys: raise it when the same file would give another layer."""


@contextlib.contextmanager
def open_rootfs(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar, compressed by anything usual, for reading in any order: it is uncompressed to a temporary file."""
    with tempfile.TemporaryFile() as plain:
        try:
            with path.open("rb") as raw, decompressed(raw) as stream:
                shutil.copyfileobj(stream, plain, _CHUNK)
            plain.seek(0)
            with tarfile.open(fileobj=plain, mode="r:") as archive:
                yield archive
        except (tarfile.TarError, EOFError, lzma.LZMAError, OSError) as error:
            raise BuildError(f"{path} is not a readable tar archive: {error}") from error


@contextlib.contextmanager
def decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give the plain bytes of a stream that gzip, xz, bzip2, zstd or nothing has compressed."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        try:
            with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
                yield stream
        except zstandard.ZstdError as error:
            raise tarfile.ReadError(str(error)) from error
        return
    for start, module in ((b"\x1f\x8b", gzip), (b"\xfd7zXZ\0", lzma), (b"BZh", bz2)):
        if magic.startswith(start):
            with module.open(raw, "rb") as stream:
                yield stream
            return
    yield raw


def rootfs_entries(archive: tarfile.TarFile, source: str) -> Iterator[Entry]:
    """Give the entries of the layer that a root file system becomes (`source` is its name, for messages).

    Raises:
        BuildError: a path leaves the root, or lies below a file or a link.

    """
    members = _members(archive, source)
    made: set[bytes] = set()
    links = []
    for name in sorted(members, key=lambda item: item.split(b"/")):
        for parent in _parents(name):
            if parent in members and not members[parent].isdir():
                raise BuildError(f"{source}: {name.decode(errors='replace')} lies below a file or a link")
            if parent not in members and parent not in made:
                made.add(parent)
                yield Entry(parent, "directory", 0o755)
        if members[name].islnk():
            links.append(name)
        else:
            yield _entry(archive, name, members[name])
    for name in links:
        target = _name(members[name].linkname, source)
        if target not in members or not members[target].isreg():
            raise BuildError(f"{source}: {name.decode(errors='replace')} is a link to what is not a file")
        yield Entry(name, "hardlink", *_owned(members[name]), target=target)


def _members(archive: tarfile.TarFile, source: str) -> dict[bytes, tarfile.TarInfo]:
    """Return path → member without device nodes and pipes; of several the last counts, as when it is unpacked."""
    members = {}
    for member in archive:
        name = _name(member.name, source)
        if name and not (member.ischr() or member.isblk() or member.isfifo()):
            members[name] = member
    return members


def _entry(archive: tarfile.TarFile, name: bytes, member: tarfile.TarInfo) -> Entry:
    if member.issym():
        return Entry(name, "symlink", 0o777, *_owned(member)[1:], target=_encode(member.linkname))
    if member.isdir():
        return Entry(name, "directory", *_owned(member))
    return _file(archive, name, member)


def _file(archive: tarfile.TarFile, name: bytes, member: tarfile.TarInfo) -> Entry:
    def chunks() -> Iterator[bytes]:
        stream = archive.extractfile(member)
        while stream is not None and (data := stream.read(_CHUNK)):
            yield data

    mode, uid, gid, mtime = _owned(member)
    return Entry(name, "file", mode, uid, gid, mtime, member.size, chunks=chunks)


def _owned(member: tarfile.TarInfo) -> tuple[int, int, int, int]:
    return member.mode & 0o7777, member.uid, member.gid, int(member.mtime) if member.mtime >= 0 else EPOCH


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _name(text: str, source: str) -> bytes:
    parts = [part for part in _encode(text).split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise BuildError(f"{source}: path {text!r} leaves the root")
    return b"/".join(parts)


def _parents(name: bytes) -> Iterator[bytes]:
    parts = name.split(b"/")
    for length in range(1, len(parts)):
        yield b"/".join(parts[:length])


def unpacked(data: bytes, name: str) -> list[Entry] | None:
    """Return what is in a tar, compressed by anything usual, with its bytes in memory; `None` when it is no tar.

    Raises:
        BuildError: a path leaves the root, or the archive is damaged.

    """
    try:
        with decompressed(io.BytesIO(data)) as stream:
            plain = io.BytesIO(stream.read())
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            entries = list(rootfs_entries(archive, name))
            bodies = {entry.path: b"".join(entry.chunks()) for entry in entries if entry.kind == "file"}
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError):
        return None
    return [
        entry._replace(chunks=functools.partial(_whole, bodies[entry.path])) if entry.kind == "file" else entry
        for entry in entries
    ]


def _whole(data: bytes) -> tuple[bytes, ...]:
    return (data,)


def list_layer(path: Path) -> Listing:
    """Read what a layer's blob says about directories, links and accounts.

    Raises:
        BuildError: it is not a readable tar.

    """
    directories: dict[str, Meta] = {}
    links, removed, tables = {}, [], {}
    try:
        with path.open("rb") as raw, decompressed(raw) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = _name(member.name, str(path)).decode(errors="surrogateescape")
                parent, _, last = name.rpartition("/")
                if last == ".wh..wh..opq":
                    removed.append(parent)
                    directories.setdefault(parent, PLAIN)
                elif last.startswith(".wh."):
                    removed.append(f"{parent}/{last[4:]}".lstrip("/"))
                elif member.isdir():
                    directories[name] = _owned(member)
                elif member.issym():
                    links[name] = member.linkname
                elif name in ACCOUNTS and member.isreg() and (stream_of := archive.extractfile(member)):
                    tables[name] = stream_of.read(_CHUNK).decode(errors="replace")
    except (tarfile.TarError, EOFError, lzma.LZMAError, OSError) as error:
        raise BuildError(f"{path} is not a readable layer: {error}") from error
    return Listing(directories, links, tuple(removed), tables)
