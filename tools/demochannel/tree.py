"""Files in memory, and tar archives of them that are the same bytes every time."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import zstandard

ZSTD_LEVEL = 9


@dataclass(frozen=True, slots=True)
class Node:
    """One file, symbolic link or directory."""

    kind: Literal["file", "link", "directory"]
    data: bytes = b""
    mode: int = 0o644
    target: str = ""


def file(data: bytes, mode: int = 0o644) -> Node:
    """Return a regular file."""
    return Node("file", data=data, mode=mode)


def link(target: str) -> Node:
    """Return a symbolic link."""
    return Node("link", mode=0o777, target=target)


def directory(mode: int = 0o755) -> Node:
    """Return a directory."""
    return Node("directory", mode=mode)


def tar_bytes(nodes: Mapping[str, Node], *, mtime: int) -> bytes:
    """Return an uncompressed tar archive: members sorted by path component, owned by root, with one time for all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(nodes, key=lambda path: path.split("/")):
            node = nodes[path]
            member = tarfile.TarInfo(path)
            member.mtime = mtime
            member.mode = node.mode
            match node.kind:
                case "link":
                    member.type = tarfile.SYMTYPE
                    member.linkname = node.target
                case "directory":
                    member.type = tarfile.DIRTYPE
                case "file":
                    member.size = len(node.data)
            archive.addfile(member, io.BytesIO(node.data) if node.kind == "file" else None)
    return buffer.getvalue()


def tar_zst_bytes(nodes: Mapping[str, Node], *, mtime: int) -> bytes:
    """Return the archive of `tar_bytes`, compressed on one thread at a fixed level."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(tar_bytes(nodes, mtime=mtime))
