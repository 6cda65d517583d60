"""What is in an sdist and a wheel, what is wrong with them, and an sdist that is the same every time. Pure: bytes in, bytes out.

Sources: https://packaging.python.org/specifications/ (source-distribution-format, binary-distribution-format,
recording-installed-packages, entry-points).
"""

import base64
import binascii
import configparser
import csv
import hashlib
import io
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from typing import TYPE_CHECKING

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from lockyard.errors import BuildError
from lockyard.tree import File, Tree

if TYPE_CHECKING:
    from lockyard.pyrelease.project import Project

_NEVER = (
    "__pycache__",
    ".git",
    ".lockyard",
    ".venv",
    ".pypirc",
    ".netrc",
    ".env",
    ".DS_Store",
    ".pytest_cache",
    ".ssh",
)
_NEVER_ENDS = (".pyc", ".pyo", ".swp")


@dataclass(frozen=True, slots=True)
class DistFile:
    """A distribution: its file name and its bytes."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """The hex digest."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel."""
        return self.name.endswith(".whl")


def file_version(name: str) -> tuple[str, Version] | None:
    """Return the normalised project and the version that a file name of an index says, `None` when it says none."""
    try:
        if name.endswith(".whl"):
            project, version, _, _ = parse_wheel_filename(name)
        else:
            project, version = parse_sdist_filename(name)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None
    return project, version


def contents(file: DistFile) -> dict[str, bytes]:
    """Return path → bytes of the regular files of a distribution.

    Raises:
        BuildError: it is damaged, or a path in it leads out of it.

    """
    try:
        found = dict(_zip(file.data) if file.is_wheel else _tar(file.data))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BuildError(f"{file.name} is damaged: {error}") from error
    for path in found:
        if path.startswith("/") or "\\" in path or any(part in {"", ".", ".."} for part in path.split("/")):
            raise BuildError(f"{file.name}: {path!r} leads out of it")
    return found


def _zip(data: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, archive.read(info)


def _tar(data: bytes) -> Iterator[tuple[str, bytes]]:
    for path, file in _members(data):
        yield path, file.data


def _members(data: bytes) -> Iterator[tuple[str, File]]:
    """Give the files and symbolic links of an sdist; a link must stay inside, as PEP 721 asks."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None:
                yield member.name, File(stream.read(), 0o755 if member.mode & 0o100 else 0o644)
            elif member.issym() and _stays(member.name, member.linkname):
                yield member.name, File.link(member.linkname)
            elif not member.isdir():
                raise BuildError(f"{member.name!r} of the sdist is a device, or a link that leads out of it")


def _stays(path: str, target: str) -> bool:
    return not target.startswith("/") and not posixpath.normpath(posixpath.join(path, "..", target)).startswith("..")


def unpacked(sdist: DistFile) -> Tree:
    """Return what is in an sdist, without the directory that holds all of it.

    Raises:
        BuildError: it is damaged, or something in it leads out of it.

    """
    contents(sdist)  # whether its paths stay inside
    return Tree({path.partition("/")[2]: file for path, file in _members(sdist.data)})


def steady_sdist(data: bytes, epoch: int) -> bytes:
    """Return the sdist with nothing in it of the moment and the machine: members sorted, one time, one owner, plain modes.

    Backends differ in what they keep steady (setuptools writes the time into the gzip header, for one).
    """
    from zlib_ng import gzip_ng

    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as source,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda item: item.name):
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.mtime = member.type, member.linkname, epoch
            info.mode = 0o755 if member.isdir() or member.issym() or member.mode & 0o100 else 0o644
            info.size = member.size if member.isreg() else 0
            target.addfile(info, source.extractfile(member) if member.isreg() else None)
    return bytes(gzip_ng.compress(out.getvalue(), 9, mtime=epoch))  # type: ignore[no-untyped-call]  # ships no annotations


def differing(one: DistFile, other: DistFile) -> tuple[str, ...]:
    """Return the members in which two builds of a distribution differ, or that only their order or times do."""
    before, after = contents(one), contents(other)
    found = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    return tuple(found) or ("times, modes or order of the members",)


def problems(project: "Project", version: Version, sdist: DistFile, wheel: DistFile) -> tuple[str, ...]:
    """Return what is wrong with a pair of distributions; nothing when they are as they should be.

    Raises:
        BuildError: one is damaged.

    """
    in_wheel = contents(wheel)
    in_sdist = contents(sdist)
    return (
        *(line for file in (sdist, wheel) for line in _named(project, version, file)),
        *_metadata(project, version, sdist, in_sdist, _root(in_sdist) + "PKG-INFO"),
        *_metadata(project, version, wheel, in_wheel, _info(in_wheel) + "METADATA"),
        *_recorded(wheel.name, in_wheel),
        *_same_sources(sdist.name, in_sdist, wheel.name, in_wheel),
        *_modules(project, wheel.name, in_wheel),
        *_entry_points(project, wheel.name, in_wheel),
        *_strays(sdist.name, in_sdist),
        *_strays(wheel.name, in_wheel),
        *([] if _root(in_sdist) + "pyproject.toml" in in_sdist else [f"{sdist.name} has no pyproject.toml"]),
    )


def left_out(tracked: frozenset[str], wheel: DistFile) -> tuple[str, ...]:
    """Return tracked files of the wheel's own packages that are not in it; hidden ones do not count."""
    inside = {path for path in contents(wheel) if ".dist-info/" not in path and ".data/" not in path}
    tops = {path.split("/", 1)[0] for path in inside if "/" in path}
    found = []
    for path in tracked:
        relative = path.removeprefix("src/")
        hidden = any(part.startswith(".") for part in relative.split("/"))
        if relative.split("/", 1)[0] in tops and "/" in relative and relative not in inside and not hidden:
            found.append(path)
    return tuple(sorted(found))


def _root(inside: Mapping[str, bytes]) -> str:
    return next((path.split("/", 1)[0] + "/" for path in inside if "/" in path), "")


def _info(inside: Mapping[str, bytes]) -> str:
    return next((path.split("/", 1)[0] + "/" for path in inside if ".dist-info/" in path), ".dist-info/")


def _named(project: "Project", version: Version, file: DistFile) -> Iterator[str]:
    said = file_version(file.name)
    if said is None or canonicalize_name(said[0]) != project.normalized_name or said[1] != version:
        yield f"{file.name} is not named after {project.name} {version}"


def _metadata(
    project: "Project", version: Version, file: DistFile, inside: Mapping[str, bytes], path: str
) -> Iterator[str]:
    if path not in inside:
        yield f"{file.name} has no {path}"
        return
    said = BytesParser().parsebytes(inside[path], headersonly=True)
    if canonicalize_name(said.get("Name", "")) != project.normalized_name:
        yield f"{file.name}: {path} says the name {said.get('Name')!r}"
    if said.get("Version", "") != str(version):
        yield f"{file.name}: {path} says the version {said.get('Version')!r}, not {version}"


def _recorded(name: str, inside: Mapping[str, bytes]) -> Iterator[str]:
    """Compare RECORD with the files: every file once, with its own hash."""
    path = _info(inside) + "RECORD"
    if path not in inside:
        yield f"{name} has no {path}"
        return
    rows = [row for row in csv.reader(io.StringIO(inside[path].decode(errors="replace"))) if row]
    said = {row[0]: row[1] if len(row) > 1 else "" for row in rows}
    unhashed = {path, f"{path}.jws", f"{path}.p7s"}
    yield from (f"{name}: RECORD does not have {item}" for item in sorted({*inside} - {*said} - unhashed))
    yield from (f"{name}: RECORD has {item}, which is not there" for item in sorted({*said} - {*inside}))
    for item in sorted({*said} & {*inside} - unhashed):
        algorithm, _, text = said[item].partition("=")
        if algorithm != "sha256" or _decoded(text) != hashlib.sha256(inside[item]).digest():
            yield f"{name}: RECORD has another hash for {item}"


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def _same_sources(
    sdist: str, in_sdist: Mapping[str, bytes], wheel: str, in_wheel: Mapping[str, bytes]
) -> Iterator[str]:
    """Compare Python files: each of the wheel is one of the sdist, byte for byte."""
    root = _root(in_sdist)
    sources = {path.removeprefix(root): data for path, data in in_sdist.items()}
    held = set(sources.values())
    for path, data in sorted(in_wheel.items()):
        if not path.endswith(".py") or ".data/" in path or data in held:
            continue
        there = any(item == path or item.endswith(f"/{path}") for item in sources)
        yield f"{wheel}: {path} " + (f"differs from that of {sdist}" if there else f"is not in {sdist}")


def _modules(project: "Project", name: str, inside: Mapping[str, bytes]) -> Iterator[str]:
    for module in project.modules:
        path = module.replace(".", "/")
        if not any(item.startswith((f"{path}/", f"{path}.")) for item in inside):
            yield f"{name} has no module {module}"


def _entry_points(project: "Project", name: str, inside: Mapping[str, bytes]) -> Iterator[str]:
    said = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    said.optionxform = str  # type: ignore[assignment,method-assign]  # names of commands keep their case
    try:
        said.read_string(inside.get(_info(inside) + "entry_points.txt", b"").decode())
    except (configparser.Error, UnicodeDecodeError) as error:
        yield f"{name}: entry_points.txt: {error}"
        return
    there = dict(said["console_scripts"]) if said.has_section("console_scripts") else {}
    for script, target in project.scripts.items():
        if there.get(script, "").replace(" ", "") != target.replace(" ", ""):
            yield f"{name} has no command {script} = {target}"


def _strays(name: str, inside: Mapping[str, bytes]) -> Iterator[str]:
    for path in sorted(inside):
        parts = path.split("/")
        if any(part in _NEVER for part in parts) or path.endswith(_NEVER_ENDS):
            yield f"{name} has {path}, which belongs to no distribution"
