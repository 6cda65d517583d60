"""What a Dockerfile must know of the root file system below it, no I/O: directories, symbolic links, accounts."""

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lockyard.oci.tar import EPOCH, Entry

Meta = tuple[int, int, int, int]
"""Mode, uid, gid and time of a directory."""
PLAIN: Meta = (0o755, 0, 0, EPOCH)
ACCOUNTS = ("etc/passwd", "etc/group")
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Listing:
    """What one layer says: its directories, links (path → target), removed paths, and the text of account tables."""

    directories: Mapping[str, Meta] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "directories": {path: list(meta) for path, meta in self.directories.items()},
            "links": dict(self.links),
            "removed": list(self.removed),
            "tables": dict(self.tables),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Listing":
        """Read the JSON form."""
        directories = {path: (mode, uid, gid, mtime) for path, (mode, uid, gid, mtime) in value["directories"].items()}
        return cls(directories, value["links"], tuple(value["removed"]), value["tables"])


class RootView:
    """A root file system as far as it is known; paths have no leading slash, the root is the empty path."""

    def __init__(self) -> None:
        self._directories: dict[str, Meta] = {"": PLAIN}
        self._links: dict[str, str] = {}
        self._tables: dict[str, str] = {}

    def add_listing(self, listing: Listing) -> None:
        """Put a layer on top."""
        for path in listing.removed:
            self._remove(path)
        self._links.update(listing.links)
        for path, meta in listing.directories.items():
            self._links.pop(path, None)
            self.add_directory(path, meta)
        self._tables.update(listing.tables)

    def add_directory(self, path: str, meta: Meta = PLAIN) -> None:
        """Note a directory, and those above it that are not known."""
        path = path.strip("/")
        self._directories[path] = meta
        while (path := posixpath.dirname(path)) not in self._directories:
            self._directories[path] = PLAIN

    def parents(self, path: str) -> list[Entry]:
        """Return the directories above a path as they are, outermost first."""
        found = []
        while path := posixpath.dirname(path):
            mode, uid, gid, mtime = self._directories.get(path, PLAIN)
            found.append(Entry(path.encode(errors="surrogateescape"), "directory", mode, uid, gid, mtime))
        return found[::-1]

    def add_link(self, path: str, target: str) -> None:
        """Note a symbolic link."""
        if posixpath.dirname(path) not in self._directories:
            self.add_directory(posixpath.dirname(path))
        self._links[path] = target

    def add_entries(self, entries: Iterable[Entry]) -> None:
        """Note what a step has written."""
        for entry in entries:
            path = entry.path.decode(errors="surrogateescape")
            if entry.kind == "directory":
                self.add_directory(path, (entry.mode, entry.uid, entry.gid, entry.mtime))
            elif entry.kind == "symlink":
                self.add_link(path, entry.target.decode(errors="surrogateescape"))
            elif path in ACCOUNTS:
                self._tables[path] = b"".join(entry.chunks()).decode(errors="replace")

    def is_directory(self, path: str) -> bool:
        """Say whether a path, its links followed, is a directory."""
        return self.resolve(path) in self._directories

    def resolve(self, path: str) -> str:
        """Follow the links in a path, as a process in this root would; what leads in circles stays."""
        todo = [part for part in path.split("/") if part]
        done: list[str] = []
        followed = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            here = "/".join([*done, part])
            target = self._links.get(here)
            if part == "." or target is None or followed == _MAX_LINKS:
                done += [part] if part != "." else []
                continue
            followed += 1
            todo = [item for item in target.split("/") if item] + todo
            done = [] if target.startswith("/") else done
        return "/".join(done)

    def missing_directories(self, path: str) -> list[str]:
        """Return `path` and the directories above it that are not there, outermost first."""
        found = []
        path = path.strip("/")
        while path not in self._directories:
            found.append(path)
            path = posixpath.dirname(path)
        return found[::-1]

    def user(self, name: str) -> tuple[int, int] | None:
        """Return uid and primary gid of a name in `/etc/passwd`."""
        for item in self._table("etc/passwd"):
            if len(item) > 3 and item[0] == name and item[2].isdecimal() and item[3].isdecimal():
                return int(item[2]), int(item[3])
        return None

    def group(self, name: str) -> int | None:
        """Return the gid of a name in `/etc/group`."""
        for item in self._table("etc/group"):
            if len(item) > 2 and item[0] == name and item[2].isdecimal():
                return int(item[2])
        return None

    def _table(self, path: str) -> list[list[str]]:
        return [line.split(":") for line in self._tables.get(self.resolve(path), "").splitlines()]

    def _remove(self, path: str) -> None:
        below = f"{path}/"
        self._directories = {
            key: meta for key, meta in self._directories.items() if key != path and not key.startswith(below)
        }
        self._links = {key: to for key, to in self._links.items() if key != path and not key.startswith(below)}
        self._tables = {key: text for key, text in self._tables.items() if key != path and not key.startswith(below)}
