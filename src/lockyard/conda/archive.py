"""Package archives taken apart, effects: `.conda` and `.tar.bz2`, every member checked before it is written."""

import hashlib
import json
import os
import posixpath
import shutil
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lockyard.conda import digests
from lockyard.errors import BuildError

_CHUNK = 1 << 20
_BAD_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError, RuntimeError)
EXPANSION = 64
"""Times that an archive may grow; real packages grow by up to 20."""
EXPANSION_FREE = 8 << 30
"""Bytes that every archive may grow to, however small: a sparse file of some GB compresses to nothing."""
MAX_MEMBERS = 2_000_000
_ZEROS = bytes(_CHUNK)


def unpack(archive: Path, target: Path) -> dict[str, str]:
    """Take a `.conda` or `.tar.bz2` package apart into the new directory `target`, and return what is recorded of its files.

    Modes are the archive's permission bits, whatever the umask; owners and times are not kept.

    Long runs of zeros become holes.

    Raises:
        BuildError: the archive is damaged, or holds an absolute path, `..`, a device, a link that leads out of the
            package, a file below a link, or absurdly much (`EXPANSION`, the free space of the disk): each member is
            refused before it is written. What was written by then is below `target`.

    """
    target.mkdir(parents=True)
    limit = max(EXPANSION_FREE, EXPANSION * archive.stat().st_size)
    out = _Unpacker(target, limit=limit, free=shutil.disk_usage(target).free)
    try:
        if archive.name.endswith(".conda"):
            _unpack_conda(archive, out)
        else:
            with tarfile.open(archive, "r|bz2", bufsize=_CHUNK) as tar:
                out.add(tar)
    except _BAD_ARCHIVE as error:
        raise BuildError(f"the archive is damaged: {error}", hint="ask the channel's owner") from error
    out.check_links()
    return out.recorded()


def _unpack_conda(archive: Path, out: "_Unpacker") -> None:
    """Unpack both parts of the `.conda` format: `pkg-*.tar.zst` and `info-*.tar.zst` stored in a zip file."""
    import zstandard

    with zipfile.ZipFile(archive) as outer:
        for part in ("pkg-", "info-"):
            names = [name for name in outer.namelist() if name.startswith(part) and name.endswith(".tar.zst")]
            if len(names) != 1:
                raise BuildError(f"the archive has {len(names)} parts {part}*.tar.zst, not one")
            try:
                with (
                    outer.open(names[0]) as raw,
                    zstandard.ZstdDecompressor().stream_reader(raw) as stream,
                    tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as tar,
                ):
                    out.add(tar)
            except zstandard.ZstdError as error:
                raise BuildError(f"the archive is damaged: {names[0]}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Digests:
    """The digests of a file: as packages list it, and as it is recorded."""

    sha256: str
    recorded: str


@dataclass
class _Unpacker:
    """Writes members below `root` and refuses what could reach outside of it."""

    root: Path
    limit: int
    free: int
    files: dict[str, _Digests] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)
    members: int = 0
    size: int = 0

    def add(self, tar: tarfile.TarFile) -> None:
        for member in tar:
            self._count(member)
            name = self._name(member.name)
            if name is None:
                continue
            path = self.root / name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(name, path)
            if member.isreg():
                self.files[name] = self._file(tar, member, path)
            elif member.islnk():
                self.files[name] = self._hard_link(member, path)
            elif member.issym():
                self._symlink(member, name, path)
                self.links.add(name)
            else:
                raise _hostile(member.name, "is neither a file, a directory nor a link")

    def _count(self, member: tarfile.TarInfo) -> None:
        """Refuse what would be absurdly much, by what the header says: the content can be no longer."""
        self.members += 1
        self.size += member.size if member.isreg() else 0
        if self.size > self.limit:
            raise _hostile(member.name, f"makes it more than {self.limit:,} bytes, absurdly much for its own size")
        if self.members > MAX_MEMBERS:
            raise _hostile(member.name, f"is one more than {MAX_MEMBERS:,} members")
        if self.size > self.free:
            raise BuildError(
                f"no room for its files: {self.size:,} bytes and more, {self.free:,} are free",
                hint="free space: lockyard cache prune, or put the cache elsewhere: LOCKYARD_CACHE_DIR",
            )

    def check_links(self) -> None:
        """Refuse links that lead outside once all of them are there: link to link may climb where text does not."""
        root = os.path.realpath(self.root)
        for name in sorted(self.links):
            real = os.path.realpath(self.root / name)
            if real != root and not real.startswith(f"{root}/"):
                raise _hostile(name, "is a link that leads out of the package")

    def recorded(self) -> dict[str, str]:
        """Return what is recorded of the files that are what the package's own list says."""
        try:
            listed = json.loads((self.root / "info/paths.json").read_bytes())["paths"]
            stated = {item["_path"]: item.get("sha256") for item in listed}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}  # an old package, or one that the build will refuse
        return {name: own.recorded for name, own in self.files.items() if own.sha256 == stated.get(name)}

    def _name(self, text: str) -> str | None:
        parts = text.removeprefix("./").rstrip("/").split("/")
        if parts in (["."], [""]) and text in {".", "./"}:
            return None
        if text.startswith("/") or any(part in {"", ".", ".."} for part in parts) or "\0" in text:
            raise _hostile(text, "is not a plain relative path")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in self.links:
                raise _hostile(text, "lies below a link")
        return "/".join(parts)

    def _make_room(self, name: str, path: Path) -> None:
        if name in self.links:
            raise _hostile(name, "comes twice, once as a link")
        if name in self.files:
            path.unlink()

    @staticmethod
    def _file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> _Digests:
        source = tar.extractfile(member)
        if source is None:
            raise _hostile(member.name, "has no content")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
            found = _copy_sparse(source, out)
            os.fchmod(out.fileno(), (member.mode & 0o777) | 0o400)
        return found

    def _hard_link(self, member: tarfile.TarInfo, path: Path) -> _Digests:
        source = self._name(member.linkname)
        if source is None or source not in self.files:
            raise _hostile(member.name, f"is a hard link to {member.linkname!r:.200}, which is no file of the package")
        os.link(self.root / source, path, follow_symlinks=False)
        return self.files[source]

    @staticmethod
    def _symlink(member: tarfile.TarInfo, name: str, path: Path) -> None:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        if not member.linkname or member.linkname.startswith("/") or target == ".." or target.startswith("../"):
            raise _hostile(member.name, f"is a link to {member.linkname!r:.200}, which is outside of the package")
        path.symlink_to(member.linkname)


def _hostile(name: str, what: str) -> BuildError:
    return BuildError(f"the archive is refused: {name!r:.300} {what}", hint="ask the channel's owner")


def _copy_sparse(source: IO[bytes], out: IO[bytes]) -> _Digests:
    """Copy a stream to an empty file and return its digests; whole chunks of zeros become holes."""
    sha256, fast = hashlib.sha256(), digests.state()
    while chunk := source.read(_CHUNK):
        sha256.update(chunk)
        fast.update(chunk)
        if chunk == _ZEROS:
            out.seek(_CHUNK, os.SEEK_CUR)
        else:
            out.write(chunk)
    out.truncate()
    return _Digests(sha256.hexdigest(), fast.hexdigest())
