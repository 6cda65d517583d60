"""`COPY`, `ADD` of local files, and directories that `WORKDIR` makes, as entries of a layer. No I/O: files come as a `Tree`.

The rules are BuildKit's, seen in what it builds: a file whose destination is an existing directory goes into it, a link that is
a source itself is followed, new directories belong to the owner of the copy, links of the image on the way are followed.
What a checkout cannot keep is fixed: files are 0644 or 0755, directories 0755, times the epoch of layers.
"""

import functools
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lockyard.errors import BuildError
from lockyard.oci.globs import Ignore, matches
from lockyard.oci.rootview import RootView
from lockyard.oci.tar import EPOCH, Entry
from lockyard.tree import File, Tree

Unpack = Callable[[bytes, str], Sequence[Entry] | None]
"""Takes a file's bytes and its name; gives what is in it when it is an archive that `ADD` unpacks."""


@dataclass(frozen=True, slots=True)
class Found:
    """A source: its path in the context, and its files; a file has the relative path ""."""

    path: str
    files: Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Copy:
    """One instruction: what goes where, for whom. `where` is file:line, `target` absolute and as written."""

    where: str
    sources: tuple[str, ...]
    target: str
    owner: tuple[int, int] | None = None
    mode: int | None = None
    unpack: bool = False


class Copier:
    """Copies files of the context into the root that `view` knows, which learns them."""

    def __init__(self, context: Tree, view: RootView, unpack: Unpack) -> None:
        self._context = allowed(context)
        self._view = view
        self._unpack = unpack

    def directories(self, path: str, owner: tuple[int, int]) -> tuple[Entry, ...]:
        """Return the directories that are missing for `path` (absolute) to be one."""
        missing = self._view.missing_directories(self._view.resolve(path))
        return self._learn([_directory(item, owner) for item in missing])

    def copy(self, copy: Copy) -> tuple[Entry, ...]:
        """Return the entries of one instruction.

        Raises:
            BuildError: a source is not there, or the destination is wrong.

        """
        found = [match for source in copy.sources for match in self._match(source, copy.where)]
        if len(found) > 1 and not copy.target.endswith("/"):
            raise BuildError(f"{copy.where}: with several sources the destination must end with /")
        target = self._view.resolve(copy.target)
        into = copy.target.endswith("/") or copy.target.endswith("/.") or self._view.is_directory(target)
        entries: dict[bytes, Entry] = {}
        for item in found:
            for entry in self._placed(item, copy, target, into=into):
                entries[entry.path] = entry
        # Directories before what is in them, hard links after what they lead to.
        order = sorted(entries, key=lambda path: (entries[path].kind == "hardlink", path.split(b"/")))
        return self._learn([entries[path] for path in order])

    def _learn(self, entries: list[Entry]) -> tuple[Entry, ...]:
        """Note what was written, and give it with all directories above it.

        Engines that unpack each layer by itself would otherwise make these anew: root's, 0755, whatever they were.
        """
        self._view.add_entries(entries)
        out: dict[bytes, Entry] = {}
        for entry in entries:
            for parent in self._view.parents(entry.path.decode(errors="surrogateescape")):
                out.setdefault(parent.path, parent)
            out[entry.path] = entry
        return tuple(out.values())

    def _placed(self, item: Found, copy: Copy, target: str, *, into: bool) -> Iterator[Entry]:
        owner = copy.owner or (0, 0)
        alone = item.files.get("")
        archive = self._unpack(alone.data, item.path) if copy.unpack and alone and not alone.is_link else None
        if archive is not None:
            yield from self._parents(f"{target}/x".lstrip("/"), owner)
            yield from (_moved(entry, target) for entry in archive if not self._is_known_directory(entry, target))
            return
        if alone is not None:
            place = f"{target}/{posixpath.basename(item.path)}".lstrip("/") if into else target
            if not place:
                raise BuildError(f"{copy.where}: {item.path} cannot become the root directory")
            yield from self._parents(place, owner)
            yield _entry(place, alone, owner, copy.mode, copy.where)
            return
        yield from self._parents(f"{target}/x".lstrip("/"), owner)
        for relative, file in item.files.items():
            place = f"{target}/{relative}".lstrip("/")
            place = posixpath.join(self._view.resolve(posixpath.dirname(place)), posixpath.basename(place))
            yield from self._parents(place, owner, below=target, mode=copy.mode)
            yield _entry(place, file, owner, copy.mode, copy.where)

    def _parents(
        self, path: str, owner: tuple[int, int], below: str | None = None, mode: int | None = None
    ) -> Iterator[Entry]:
        """Give the missing directories above a path; copied ones, `below` the destination, have the mode of the copy."""
        for item in self._view.missing_directories(posixpath.dirname(path)):
            copied = below is not None and item != below and (not below or item.startswith(f"{below}/"))
            yield _directory(item, owner, mode if copied and mode is not None else 0o755)

    def _is_known_directory(self, entry: Entry, target: str) -> bool:
        path = f"{target}/{entry.path.decode(errors='surrogateescape')}".lstrip("/")
        return entry.kind == "directory" and self._view.is_directory(path)

    def _match(self, source: str, where: str) -> list[Found]:
        if ".." in source.split("/"):
            raise BuildError(f"{where}: {source!r} is outside of the release directory")
        pattern = posixpath.normpath("/" + source).lstrip("/")
        if not pattern:
            return [Found("", dict(self._context))]
        depth = pattern.count("/") + 1
        paths = [path for path in self._context if path.count("/") + 1 >= depth]
        names = sorted({"/".join(path.split("/")[:depth]) for path in paths})
        try:
            chosen = [name for name in names if name == pattern or matches(name, pattern)]
        except ValueError as error:
            raise BuildError(f"{where}: {error}") from error
        if not chosen:
            raise BuildError(f"{where}: the release directory has no {source!r}", hint="or .dockerignore leaves it out")
        return [Found(name, self._files(name, where)) for name in chosen]

    def _files(self, name: str, where: str) -> dict[str, File]:
        """Return the files of a source; one that is a link is followed within the context."""
        for _ in range(40):
            file = self._context.get(name)
            if file is None:
                start = f"{name}/"
                return {
                    path.removeprefix(start): file for path, file in self._context.items() if path.startswith(start)
                }
            if not file.is_link:
                return {"": file}
            goal = file.data.decode(errors="surrogateescape")
            after = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), goal)).lstrip("/")
            if after not in self._context and not any(path.startswith(f"{after}/") for path in self._context):
                break
            name = after
        raise BuildError(f"{where}: {name} is a link to what the release directory has not got")


def allowed(context: Tree) -> Tree:
    """Return the context less what `.dockerignore` leaves out."""
    for name in ("Dockerfile.dockerignore", ".dockerignore"):
        if name in context:
            ignore = Ignore.parse(context[name].data.decode(errors="replace"), name)
            return Tree({path: file for path, file in context.items() if not ignore.excludes(path)})
    return context


def _moved(entry: Entry, target: str) -> Entry:
    start = f"{target}/".encode(errors="surrogateescape") if target else b""
    link = start + entry.target if entry.kind == "hardlink" else entry.target
    return Entry(
        start + entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, entry.size, link, entry.chunks
    )


def _directory(path: str, owner: tuple[int, int], mode: int = 0o755) -> Entry:
    return Entry(path.encode(errors="surrogateescape"), "directory", mode, *owner)


def _entry(path: str, file: File, owner: tuple[int, int], mode: int | None, where: str) -> Entry:
    if any(part.startswith(".wh.") for part in path.split("/")):
        raise BuildError(f"{where}: {path}: names that begin with .wh. mean removed files in a layer")
    name = path.encode(errors="surrogateescape")
    if file.is_link:
        return Entry(name, "symlink", 0o777, *owner, target=file.data)
    # Only the executable bit of a checkout means something; the rest depends on the umask.
    bits = mode if mode is not None else 0o755 if file.mode & 0o111 else 0o644
    return Entry(name, "file", bits, *owner, EPOCH, len(file.data), chunks=functools.partial(_whole, file.data))


def _whole(data: bytes) -> tuple[bytes, ...]:
    return (data,)
