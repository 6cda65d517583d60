"""What a conda package wants to install, and which package has each path.

No files are opened here; a `PackageReader` gives the extracted package. Sources: conda CEP 26 and 34 (package contents), `info/paths.json`, `info/link.json`, and for packages older than those
`info/files`, `info/has_prefix` and `info/no_link`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError, HashMismatchError

FileMode = Literal["text", "binary"]
_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"  # what a bare line of has_prefix stands for
_NO_PREFIX: tuple[None, FileMode] = (None, "text")
_HAS_PREFIX_RE = re.compile(r'(?:"([^"]+)"|(\S+))\s+(text|binary)\s+(?:"([^"]+)"|(.+))')
_UNSAFE = frozenset({"", ".", ".."})
_ENTRY_POINT_RE = re.compile(r"\s*([^=\s]+)\s*=\s*([\w.]+)\s*:\s*([\w.]+)\s*")


@dataclass(frozen=True, slots=True)
class FileStat:
    """What `lstat` says of a file of a package."""

    kind: Literal["file", "symlink", "directory", "other"]
    mode: int
    size: int


class PackageReader(Protocol):
    """An extracted package. Paths are relative; a path through a link is an error, never followed."""

    def stat(self, path: str) -> FileStat | None:
        """Return what is there, `None` for nothing."""

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a regular file, `None` when there is none."""

    def load(self, path: str) -> tuple[FileStat, bytes | None] | None:
        """Return what is there, `None` for nothing, with the bytes of a regular file that is small (`chunks` for others)."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """Give the bytes of a regular file in pieces."""

    def readlink(self, path: str) -> bytes:
        """Return the target of a symbolic link."""

    def recorded(self, path: str) -> str | None:
        """Return the digest (`conda.digests`) of a file that had the SHA-256 of `paths.json` when the package was taken apart."""


class PackagePath(NamedTuple):
    """One path of a package, as `paths.json` says (CEP 34), or as an old package's lists say.

    A tuple for the reason that `oci.tar.Entry` is one.
    """

    source: str
    kind: Literal["hardlink", "softlink", "directory"]
    sha256: str | None = None
    size: int | None = None
    placeholder: str | None = None
    file_mode: FileMode = "text"
    no_link: bool = False


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A console script of a noarch Python package."""

    command: str
    module: str
    function: str


@dataclass(frozen=True, slots=True)
class Python:
    """What the environment's Python says about the places of noarch packages."""

    executable: str
    site_packages: str

    @classmethod
    def of(cls, packages: Iterable[LockedPackage]) -> "Python | None":
        """Find the Python of an environment."""
        found = next((package for package in packages if package.name == "python"), None)
        if found is None:
            return None
        short = ".".join(found.version.split(".")[:2])
        return cls(f"bin/python{short}", found.python_site_packages_path or f"lib/python{short}/site-packages")

    def place(self, path: str) -> str:
        """Return where a path of a noarch Python package goes."""
        for start, target in (("site-packages/", self.site_packages), ("python-scripts/", "bin")):
            if path.startswith(start):
                return f"{target}/{path.removeprefix(start)}"
        return path


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package wants to install; `targets` is target path → what goes there, sorted."""

    package: LockedPackage
    targets: Mapping[str, PackagePath | EntryPoint]

    def outline(self, reader: PackageReader) -> "Outline":
        """Return what must be known of this package where others are made.

        Raises:
            HashMismatchError: a link is none.

        """
        found = [(path, item) for path, item in self.targets.items() if isinstance(item, PackagePath)]
        links = {}
        for path, item in found:
            if item.kind == "softlink":
                try:
                    links[path] = reader.readlink(item.source).decode(errors="surrogateescape")
                except OSError as error:
                    raise damaged(self.package, item.source, f"is no link: {error.strerror}") from error
        directories = frozenset(path for path, item in found if item.kind == "directory")
        return Outline(self.package.name, self.package.dist, tuple(self.targets), directories, links)


@dataclass(frozen=True, slots=True)
class Outline:
    """The paths of a package in the order of its manifest, which of them are directories, and the texts of its links."""

    name: str
    dist: str
    paths: tuple[str, ...]
    directories: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without name and dist."""
        return {"paths": self.paths, "directories": sorted(self.directories), "links": self.links}

    @classmethod
    def from_json(cls, package: LockedPackage, value: Mapping[str, Any]) -> "Outline":
        """Read the JSON form of a package's outline."""
        paths, directories = tuple(value["paths"]), frozenset(value["directories"])
        return cls(package.name, package.dist, paths, directories, value["links"])


@dataclass(frozen=True, slots=True)
class Clobber:
    """A path that several packages have; the last in install order wins, the others' files are kept aside."""

    path: str
    winner: str
    losers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path} is in {' and '.join((*self.losers, self.winner))}; {self.winner}'s file is used"


def read_manifest(package: LockedPackage, reader: PackageReader, python: Python | None) -> Manifest:
    """Read what a package installs.

    Raises:
        HashMismatchError: the directory is not that of the package.
        BuildError: the package is malformed, leaves the prefix, or needs a Python that is not there.

    """
    index = _json(package, reader, "info/index.json") or {}
    stated = tuple(str(index.get(key)) for key in ("name", "version", "build"))
    if stated != (package.name, package.version, package.build):
        raise HashMismatchError(f"the package cache has {'-'.join(stated)} in the place of {package.dist}")
    paths = _paths(package, reader)
    targets: dict[str, PackagePath | EntryPoint] = {}
    if index.get("noarch") == "python":
        if python is None:
            raise BuildError(f"{package.dist} is a noarch Python package but the environment has no python")
        targets = {python.place(path.source): path for path in paths}
        targets |= {f"bin/{point.command}": point for point in _entry_points(package, reader)}
    else:
        targets = {path.source: path for path in paths}
    for target in targets:
        _check_path(package, target)
    return Manifest(package, dict(sorted(targets.items(), key=lambda item: item[0].split("/"))))


def resolve(outlines: Sequence[Outline]) -> tuple[tuple[Mapping[str, str], ...], tuple[Clobber, ...]]:
    """Settle which package has each path. `outlines` are in install order.

    Returns, for each package, path → where it goes instead (`__clobbers__/NAME/…`) for those that others have; and the clobbers.

    Raises:
        BuildError: a path is a file in one package and a directory in another, or lies below a symbolic link.

    """
    owners: dict[str, list[int]] = {}
    for number, outline in enumerate(outlines):
        for path in outline.paths:
            if path not in outline.directories:
                owners.setdefault(path, []).append(number)
    moved: tuple[dict[str, str], ...] = tuple({} for _ in outlines)
    clobbers = []
    for path, numbers in owners.items():
        for number in numbers[:-1]:
            moved[number][path] = f"__clobbers__/{outlines[number].name}/{path}"
        if len(numbers) > 1:
            names = [outlines[number].name for number in numbers]
            clobbers.append(Clobber(path, names[-1], tuple(names[:-1])))
    checked: set[str] = set()
    for number, outline in enumerate(outlines):
        for path in outline.paths:
            _check_parents(path, owners, checked, lambda index: outlines[index].dist, number)
    return moved, tuple(sorted(clobbers, key=lambda item: item.path))


def _check_parents(
    path: str, owners: Mapping[str, list[int]], checked: set[str], name: Callable[[int], str], number: int
) -> None:
    parent = path.rpartition("/")[0]
    while parent and parent not in checked:
        if parent in owners:
            raise BuildError(
                f"{path} of {name(number)} lies below {parent}, a file or link of {name(owners[parent][-1])}"
            )
        checked.add(parent)
        parent = parent.rpartition("/")[0]


def _paths(package: LockedPackage, reader: PackageReader) -> tuple[PackagePath, ...]:
    data = _json(package, reader, "info/paths.json")
    if data is None:
        return _old_paths(package, reader)
    if data.get("paths_version", 1) != 1:
        raise BuildError(f"{package.dist}: info/paths.json has version {data.get('paths_version')!r}, known is 1")
    try:
        return tuple(
            PackagePath(
                source=str(item["_path"]),
                kind=item["path_type"],
                sha256=item.get("sha256"),
                size=item.get("size_in_bytes"),
                placeholder=item.get("prefix_placeholder"),
                file_mode=item.get("file_mode", "text"),
                no_link=bool(item.get("no_link")),
            )
            for item in data["paths"]
        )
    except (KeyError, TypeError) as error:
        raise BuildError(f"{package.dist}: info/paths.json is malformed: {error}") from error


def _old_paths(package: LockedPackage, reader: PackageReader) -> tuple[PackagePath, ...]:
    """Read the lists that packages had before `paths.json`."""
    files = reader.read("info/files")
    if files is None:
        raise BuildError(f"{package.dist} has neither info/paths.json nor info/files")
    prefixes = _has_prefix((reader.read("info/has_prefix") or b"").decode(errors="surrogateescape"))
    no_link = set((reader.read("info/no_link") or b"").decode(errors="surrogateescape").splitlines())
    paths = []
    for name in filter(None, files.decode(errors="surrogateescape").splitlines()):
        stat = reader.stat(name)
        kind: Literal["hardlink", "softlink"] = "softlink" if stat and stat.kind == "symlink" else "hardlink"
        placeholder, mode = prefixes.get(name, _NO_PREFIX)
        size = stat.size if stat else None
        paths.append(
            PackagePath(name, kind, size=size, placeholder=placeholder, file_mode=mode, no_link=name in no_link)
        )
    return tuple(paths)


def _has_prefix(text: str) -> dict[str, tuple[str, FileMode]]:
    out: dict[str, tuple[str, FileMode]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _HAS_PREFIX_RE.fullmatch(line)
        if match is None:
            out[line.strip('"')] = (_OLD_PLACEHOLDER, "text")
        else:
            out[match[4] or match[5]] = (match[1] or match[2], "text" if match[3] == "text" else "binary")
    return out


def _entry_points(package: LockedPackage, reader: PackageReader) -> Iterator[EntryPoint]:
    link = _json(package, reader, "info/link.json") or {}
    for text in (link.get("noarch") or {}).get("entry_points") or ():
        match = _ENTRY_POINT_RE.fullmatch(str(text))
        if match is None:
            raise BuildError(f"{package.dist}: info/link.json: entry point {text!r} is not NAME = MODULE:FUNCTION")
        yield EntryPoint(*match.groups())


def damaged(package: LockedPackage, path: str, what: str) -> HashMismatchError:
    """Return the error that says what is wrong with a file of an extracted package."""
    return HashMismatchError(
        f"package {package.dist} in the cache is damaged: {path} {what}",
        hint=f"remove {package.dist} from the package cache and try again",
    )


def _json(package: LockedPackage, reader: PackageReader, path: str) -> dict[str, Any] | None:
    data = reader.read(path)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BuildError(f"{package.dist}: {path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BuildError(f"{package.dist}: {path} is not a JSON object")
    return value


def _check_path(package: LockedPackage, path: str) -> None:
    if not _UNSAFE.isdisjoint(path.split("/")) or "\0" in path:
        raise BuildError(f"{package.dist}: path {path!r} leaves the prefix")
    try:
        if not path.isascii():
            path.encode()
    except UnicodeEncodeError as error:
        raise BuildError(
            f"{package.dist}: path {path!r} is not UTF-8, so no conda-meta record can name it",
            hint="other installers refuse the package, too; use another build of it",
        ) from error
    if path.startswith(("conda-meta/", "__clobbers__/")) or path == "conda-meta":
        raise BuildError(f"{package.dist}: path {path!r} belongs to the environment itself")
