"""Layers unpacked into a root file system (OCI Image Specification 1.1, `layer.md`): whiteouts, links, no escapes.

Every path is resolved inside the root as a `chroot` would: links are followed within it, `..` stops at it. Device nodes and
pipes are left out. What is unpacked is hashed on the way: the tar must be the one that the image's configuration names.
"""

import contextlib
import gzip
import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from lockyard.errors import BuildError, HashMismatchError
from lockyard.oci.image import Layer
from lockyard.oci.values import MediaType

_CHUNK = 1 << 20
_MAX_LINKS = 40
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


def unpack_layers(layers: Sequence[tuple[Layer, Path]], target: Path, *, owners: bool) -> None:
    """Unpack layers (with the paths of their blobs, bottom first) into the empty directory `target`.

    `owners` keeps user and group ids, which only root can; otherwise all belongs to the caller.

    Raises:
        HashMismatchError: a blob is not what the image says.
        BuildError: a blob is no tar, or a path cannot be made.

    """
    root = _Root(target, owners=owners)
    for layer, path in layers:
        try:
            with path.open("rb") as raw, decompressed(raw, layer) as plain:
                stream = _Hashing(plain)
                with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:  # type: ignore[call-overload]  # it reads only
                    root.apply(archive)
                while stream.read(_CHUNK):
                    pass
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise BuildError(f"layer {layer.descriptor.digest}: {error}") from error
        if f"sha256:{stream.state.hexdigest()}" != str(layer.diff_id):
            raise HashMismatchError(f"layer {layer.descriptor.digest} is not the tar {layer.diff_id} when unpacked")
    root.finish()


class _Hashing:
    """Hashes what is read through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.state = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.state.update(data)
        return data


@contextlib.contextmanager
def decompressed(raw: IO[bytes], layer: Layer) -> Iterator[IO[bytes]]:
    """Give the tar of a layer, whose blob is `raw`.

    Raises:
        ValueError: the blob is damaged.
        BuildError: the layer's kind is not known.

    """
    kind = layer.descriptor.media_type
    if kind in {MediaType.LAYER_GZIP, MediaType.DOCKER_LAYER_GZIP}:
        from zlib_ng import gzip_ng, zlib_ng

        try:
            with gzip_ng.open(raw, "rb") as stream:  # type: ignore[no-untyped-call]  # it ships no annotations
                yield stream
        except (gzip.BadGzipFile, zlib_ng.error) as error:  # type: ignore[misc]  # mypy takes `error` for Any
            raise ValueError(str(error)) from error
    elif kind == MediaType.LAYER_ZSTD:
        import zstandard

        try:
            with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
                yield stream
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    elif kind == MediaType.LAYER:
        yield raw
    else:
        raise BuildError(f"layer {layer.descriptor.digest} has media type {kind!r}")


class _Root:
    def __init__(self, target: Path, *, owners: bool) -> None:
        self._root = os.fspath(target)
        self._owners = owners
        self._resolved: dict[str, str] = {}
        self._modes: dict[str, int] = {}

    def apply(self, archive: tarfile.TarFile) -> None:
        written: set[str] = set()
        for member in archive:
            parts = _parts(member.name)
            if not parts:
                continue
            parent = self._directory("/".join(parts[:-1]))
            name = parts[-1]
            if name == _OPAQUE:
                self._empty(parent, written)
            elif name.startswith(_WHITEOUT):
                if not name.startswith(_WHITEOUT * 2):
                    self._remove(f"{parent}/{name.removeprefix(_WHITEOUT)}")
            else:
                written.add(f"{parent}/{name}")
                self._extract(archive, member, f"{parent}/{name}")

    def finish(self) -> None:
        """Give directories their modes, innermost first: a read-only one could not be filled before."""
        for path in sorted(self._modes, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISLNK(os.lstat(path).st_mode):
                    Path(path).chmod(self._modes[path])

    def _extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if member.isdir():
            if not self._is_directory(path):
                self._remove(path)
                Path(path).mkdir(mode=0o700)
            self._modes[path] = member.mode & 0o7777
            self._own(path, member)
            return
        if member.ischr() or member.isblk() or member.isfifo():
            return
        source = self._link_source(member) if member.islnk() else ""
        if source == path:
            return
        self._remove(path)
        if member.islnk():
            os.link(source, path, follow_symlinks=False)
        elif member.issym():
            Path(path).symlink_to(member.linkname)
            self._own(path, member)
        else:
            self._file(archive, member, path)

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb", buffering=0) as out:
            data = archive.extractfile(member)
            if data is not None:
                shutil.copyfileobj(data, out, _CHUNK)
            if self._owners:
                os.fchown(out.fileno(), member.uid, member.gid)
            os.fchmod(out.fileno(), member.mode & 0o7777)
            os.utime(out.fileno(), (member.mtime, member.mtime))

    def _own(self, path: str, member: tarfile.TarInfo) -> None:
        if self._owners:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)

    def _link_source(self, member: tarfile.TarInfo) -> str:
        parts = _parts(member.linkname)
        source = f"{self._directory('/'.join(parts[:-1]))}/{parts[-1]}" if parts else self._root
        if not os.path.lexists(source) or self._is_directory(source):
            raise BuildError(f"{member.name} is a hard link to {member.linkname}, which is not a file")
        return source

    def _directory(self, path: str) -> str:
        """Return the real place of a directory of the image, made when it is not there."""
        if path not in self._resolved:
            self._resolved[path] = self._resolve(path)
        return self._resolved[path]

    def _resolve(self, path: str) -> str:
        todo = path.split("/")[::-1] if path else []
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                done = done[:-1]
                continue
            place = "/".join((self._root, *done, part))
            try:
                mode = os.lstat(place).st_mode
            except FileNotFoundError:
                Path(place).mkdir(mode=0o755)
                self._modes.setdefault(place, 0o755)
                done.append(part)
                continue
            if stat.S_ISLNK(mode):
                links += 1
                target = os.readlink(place)  # noqa: PTH115 - the text itself, not a Path
                done = [] if target.startswith("/") else done
                todo += target.split("/")[::-1]
            elif stat.S_ISDIR(mode):
                done.append(part)
            else:
                raise BuildError(f"{path}: {part} is a file, not a directory")
            if links > _MAX_LINKS:
                raise BuildError(f"{path}: too many links")
        return "/".join((self._root, *done))

    @staticmethod
    def _is_directory(path: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False

    def _remove(self, path: str) -> None:
        if self._is_directory(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            Path(path).unlink()
        else:
            return
        # A directory or a link has gone, or a file that may become one: what was resolved may be wrong now.
        self._resolved.clear()

    def _empty(self, directory: str, written: set[str]) -> None:
        """Remove what lower layers put into a directory; what this layer has written stays."""
        with os.scandir(directory) as entries:
            for entry in list(entries):
                if entry.path in written:
                    continue
                if entry.is_dir(follow_symlinks=False) and any(path.startswith(entry.path + "/") for path in written):
                    self._empty(entry.path, written)
                else:
                    self._remove(entry.path)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise BuildError(f"path {name!r} in a layer leaves the root")
    return parts
