"""Extracted packages on disk, read safely: the `PackageReader` of `oci.contents`."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from lockyard import fs
from lockyard.conda import digests
from lockyard.errors import BuildError
from lockyard.oci.contents import FileStat

CHUNK = 1 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_KINDS: Mapping[int, Literal["file", "symlink", "directory"]] = {
    stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFDIR: "directory"
}  # fmt: skip
_UNSAFE = frozenset({"", ".", ".."})


class DirectoryReader:
    """Reads below one directory; a path that leads through a symbolic link is refused, so nothing outside is read."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._plain = {""}
        self._recorded: Mapping[str, str] | None = None

    def stat(self, path: str) -> FileStat | None:
        """Return what `lstat` says, `None` for nothing."""
        try:
            return _stat(os.lstat(self._inside(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def load(self, path: str) -> tuple[FileStat, bytes | None] | None:
        """Return what is there, `None` for nothing, with the bytes of a regular file of at most `CHUNK`.

        Most files are small: this costs them half the system calls of `stat` and `chunks`.
        """
        try:
            handle = os.open(self._inside(path), _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO}:  # a link, a socket
                raise
            found = self.stat(path)
            return None if found is None else (found, None)
        try:
            found = _stat(os.fstat(handle))
            data = None
            if found.kind == "file" and found.size <= CHUNK:
                data = os.read(handle, found.size + 1)
                if len(data) != found.size:  # a signal came, or somebody writes to it
                    data = None
        finally:
            os.close(handle)
        return found, data

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a regular file, `None` when there is none."""
        try:
            return b"".join(self.chunks(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def chunks(self, path: str) -> Iterator[bytes]:
        """Give the bytes of a regular file in pieces of 1 MiB."""
        handle = os.open(self._inside(path), _FLAGS)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BuildError(f"{self._root}/{path} is not a regular file")
            while data := os.read(handle, CHUNK):
                yield data
        finally:
            os.close(handle)

    def readlink(self, path: str) -> bytes:
        """Return the target of a symbolic link."""
        return os.fsencode(os.readlink(self._inside(path)))  # noqa: PTH115 - Path would turn ./x into x

    def recorded(self, path: str) -> str | None:
        """Return what is recorded of a file, in the file beside the directory."""
        if self._recorded is None:
            self._recorded = digests.from_json(fs.read_file(Path(self._root).with_name(digests.FILE_NAME)))
        return self._recorded.get(path)

    def _inside(self, path: str) -> str:
        parent, _, name = path.rpartition("/")
        if name in _UNSAFE:
            raise BuildError(f"path {path!r} leaves {self._root}")
        if parent not in self._plain or path.startswith("/"):
            parts = path.split("/")[:-1]
            if not _UNSAFE.isdisjoint(parts):
                raise BuildError(f"path {path!r} leaves {self._root}")
            self._check(parts)
        return f"{self._root}/{path}"

    def _check(self, parts: list[str]) -> None:
        for length in range(1, len(parts) + 1):
            directory = "/".join(parts[:length])
            if directory in self._plain:
                continue
            try:
                mode = os.lstat(f"{self._root}/{directory}").st_mode
            except FileNotFoundError:
                return
            if stat.S_ISLNK(mode):
                raise BuildError(f"{self._root}: {directory} is a link that other paths lead through")
            self._plain.add(directory)


def _stat(found: os.stat_result) -> FileStat:
    mode = found.st_mode
    return FileStat(_KINDS.get(stat.S_IFMT(mode), "other"), stat.S_IMODE(mode), found.st_size)
