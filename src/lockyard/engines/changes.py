"""What a command changed in a directory, effects: read from the sandbox's tar, compared, applied, written as a layer's entries.

Only real changes count: a file that was opened for writing and is as before is none. Owners and times of the run are not
kept, so that two runs of a well-behaved command give equal changes.
"""

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lockyard.errors import BuildError
from lockyard.oci.tar import EPOCH, Entry

_CHUNK = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes in a file of this machine."""

    path: Path
    offset: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """Give the bytes in pieces."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            left = self.size
            while left and (data := stream.read(min(left, _CHUNK))):
                left -= len(data)
                yield data


@dataclass(frozen=True, slots=True)
class Change:
    """What a path is now; `digest` is that of a file's bytes, so that changes are equal wherever the bytes are."""

    kind: Literal["file", "symlink", "directory", "removed"]
    mode: int = 0
    target: str = ""
    digest: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """Path → change, sorted by path components, and where the bytes of the files are."""

    paths: Mapping[str, Change]
    data: Mapping[str, Piece]

    def without(self, *paths: str) -> "Changes":
        """Return the changes less those of `paths`."""
        return Changes({path: change for path, change in self.paths.items() if path not in paths}, self.data)


def read_changes(tar: Path, tree: Path | None = None) -> Changes:
    """Read the tar that a sandbox left of its changes over `tree` (see `ports.Overlay`); without it, as they are.

    Raises:
        BuildError: it holds a pipe or a device.

    """
    paths: dict[str, Change] = {}
    data: dict[str, Piece] = {}
    opaque = []
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            parent, _, name = member.name.rpartition("/")
            if name == _OPAQUE:
                opaque.append(parent)
            elif name.startswith(_WHITEOUT):
                paths[f"{parent}/{name.removeprefix(_WHITEOUT)}".lstrip("/")] = Change("removed")
            elif member.isreg():
                data[member.name] = Piece(tar, member.offset_data, member.size)
                paths[member.name] = Change("file", member.mode, "", _digest(data[member.name]), member.size)
            elif member.issym():
                paths[member.name] = Change("symlink", 0o777, member.linkname)
            elif member.isdir():
                paths[member.name] = Change("directory", member.mode)
            else:
                raise BuildError(f"{member.name} is a pipe or a device, which no layer can hold")
    if tree is not None:
        for directory in opaque:
            for name in _names(tree / directory):
                paths.setdefault(f"{directory}/{name}", Change("removed"))
        paths = {path: change for path, change in paths.items() if _now(tree / path) != change}
    return Changes(dict(sorted(paths.items(), key=lambda item: item[0].split("/"))), data)


def _now(path: Path) -> Change:
    """Return what is at a path, in the form of a change."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Change("removed")
    if stat.S_ISLNK(found.st_mode):
        return Change("symlink", 0o777, os.readlink(path))  # noqa: PTH115 - the text itself, not a Path
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return Change("directory", mode)
    return Change("file", mode, "", _digest(Piece(path, 0, found.st_size)), found.st_size)


def apply_changes(changes: Changes, tree: Path) -> None:
    """Make `tree` as the command left it; files are replaced, never written to: they may be links into a cache."""
    for path, change in changes.paths.items():
        place = tree / path
        if change.kind == "directory":
            if place.is_symlink() or not place.is_dir():
                _remove(place)
                place.mkdir()
            place.chmod(change.mode | 0o700)
            continue
        _remove(place)
        if change.kind == "symlink":
            place.symlink_to(change.target)
        elif change.kind == "file":
            with place.open("xb") as out:
                out.writelines(changes.data[path].chunks())
            place.chmod(change.mode)


def joined(steps: Iterable[Changes], existed: Iterable[str]) -> Changes:
    """Return several changes, one after the other, as one; `existed` are the paths of the packages."""
    before = set(existed)
    parents: set[str] = set()
    paths: dict[str, Change] = {}
    data: dict[str, Piece] = {}
    for step in steps:
        for path, change in step.paths.items():
            old = paths.get(path)
            if change.kind == "directory" and old is not None and old.kind != "directory":
                # It was gone in between, and with it what packages have below.
                paths |= {child: Change("removed") for child in _children(path, before)}
            if change.kind != "directory" and path in parents:
                paths = {other: item for other, item in paths.items() if not other.startswith(f"{path}/")}
            paths[path] = change
            parents.update(path[:index] for index, sign in enumerate(path) if sign == "/")
            if change.kind == "removed" and path not in before:
                del paths[path]
            if path in step.data:
                data[path] = step.data[path]
    return Changes(dict(sorted(paths.items(), key=lambda item: item[0].split("/"))), data)


def entries(changes: Changes, prefix: str, owner: tuple[int, int]) -> Iterator[Entry]:
    """Give the changes as entries of a layer at `prefix` (absolute, or empty), for (uid, gid)."""
    start = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    for path, change in changes.paths.items():
        place = os.fsencode(start + path)
        if change.kind == "removed":
            parent, slash, name = place.rpartition(b"/")
            yield Entry(parent + slash + b".wh." + name, "file", 0o644, *owner)
        elif change.kind == "file":
            piece = changes.data[path]
            yield Entry(place, "file", change.mode, *owner, EPOCH, piece.size, chunks=piece.chunks)
        else:
            yield Entry(place, change.kind, change.mode, *owner, target=os.fsencode(change.target))


def _children(directory: str, paths: Iterable[str]) -> set[str]:
    """Return the paths directly below a directory."""
    start = f"{directory}/"
    return {start + path[len(start) :].split("/", 1)[0] for path in paths if path.startswith(start)}


def _names(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as found:
            return [entry.name for entry in found]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _digest(piece: Piece) -> str:
    state = hashlib.sha256()
    for chunk in piece.chunks():
        state.update(chunk)
    return state.hexdigest()


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
