"""Small conda packages made in memory, extracted or as archives, for tests of everything that reads packages."""

import dataclasses
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from lockyard.conda.lock import LockedPackage
from lockyard.ports.solving import FetchedPackage

PLACEHOLDER = ("/opt/placeholder" + "_placehold" * 30)[:255]
TIMESTAMP = 1735689600000


@dataclass(frozen=True)
class Node:
    """A file, a link (`hard`: a hard link to a path that sorts before) or an empty directory of a package.

    `prefix` is how its placeholder is replaced.
    """

    data: bytes = b""
    mode: int = 0o644
    link: str | None = None
    prefix: str | None = None
    hard: str | None = None
    directory: bool = False
    listed: bool = True
    """Whether the package says that it has this path; one that it does not name is not installed."""


@dataclass
class Package:
    """A package to be."""

    name: str
    version: str = "1.0"
    build: str = "0"
    files: Mapping[str, Node] = field(default_factory=dict)
    depends: Sequence[str] = ()
    noarch: str | None = None
    entry_points: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    old: bool = False
    """With `info/files` and `info/has_prefix` in the place of `paths.json`."""

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else "linux-64"

    @property
    def dist(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    def index(self) -> dict[str, Any]:
        index = {
            "name": self.name, "version": self.version, "build": self.build, "build_number": 0,
            "depends": list(self.depends), "subdir": self.subdir, "timestamp": TIMESTAMP, "license": "MIT",
        }  # fmt: skip
        return {**index, **({"noarch": self.noarch} if self.noarch else {}), **self.extra}

    def info(self) -> dict[str, Node]:
        out = {"info/index.json": self.index()}
        if self.noarch == "python":
            out["info/link.json"] = {
                "noarch": {"type": "python", "entry_points": list(self.entry_points)}, "package_metadata_version": 1,
            }  # fmt: skip
        texts = {path: json.dumps(value, indent=2) for path, value in out.items()}
        listed = sorted(path for path, node in self.files.items() if node.listed and not node.directory)
        texts["info/files"] = "".join(f"{path}\n" for path in listed)
        if self.old:
            texts["info/has_prefix"] = "".join(
                f'"{PLACEHOLDER}" {node.prefix} "{path}"\n' for path, node in self.files.items() if node.prefix
            )
        else:
            texts["info/paths.json"] = json.dumps({"paths": self.paths(), "paths_version": 1}, indent=2)
        return {path: Node(text.encode(errors="surrogateescape")) for path, text in texts.items()}

    def paths(self) -> list[dict[str, Any]]:
        out = []
        for path, node in sorted(self.files.items()):
            if node.directory or not node.listed:
                continue  # rattler refuses a directory that is listed; one that is not, it leaves out
            data = self.files[node.hard].data if node.hard else node.data
            entry: dict[str, Any] = {
                "_path": path, "path_type": "softlink" if node.link is not None else "hardlink",
                "sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data),
            }  # fmt: skip
            if node.prefix:
                entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": node.prefix}
            out.append(entry)
        return out

    def write(self, channel: Path) -> Path:
        """Write the archive into `channel/SUBDIR/`."""
        path = channel / self.subdir / f"{self.dist}{'.tar.bz2' if self.old else '.conda'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.old:
            path.write_bytes(_tar({**self.files, **self.info()}, "w:bz2"))
            return path
        zstd = zstandard.ZstdCompressor()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
            archive.writestr(f"pkg-{self.dist}.tar.zst", zstd.compress(_tar(self.files, "w")))
            archive.writestr(f"info-{self.dist}.tar.zst", zstd.compress(_tar(self.info(), "w")))
        return path

    def extract(self, directory: Path) -> Path:
        """Write the extracted package to `directory/DIST`."""
        root = directory / self.dist
        for path, node in {**self.files, **self.info()}.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if node.link is not None:
                target.symlink_to(node.link)
            elif node.hard is not None:
                target.hardlink_to(root / node.hard)
            elif node.directory:
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(node.data)
                target.chmod(node.mode)
        return root

    def locked(self, archive: Path | None = None, channel: str = "file:channel") -> LockedPackage:
        """The record of the lock."""
        index = self.index()
        names = {item.name for item in dataclasses.fields(LockedPackage)}
        data = archive.read_bytes() if archive else b""
        file_name = archive.name if archive else f"{self.dist}.conda"
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in index.items() if key in names
        }
        return LockedPackage(
            **fields,
            url=f"{channel}/{self.subdir}/{file_name}",
            channel=channel.rsplit("/", 1)[-1].removeprefix("file:"),
            sha256=hashlib.sha256(data or self.dist.encode()).hexdigest(),
            size=len(data) or 1000,
        )


class DirectorySource:
    """A `PackageSource` over extracted packages; counts what it gave."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.given: list[str] = []

    def fetch(
        self, packages: Sequence[LockedPackage], *, root: Path, files: Mapping[str, Path] | None = None
    ) -> Mapping[str, FetchedPackage]:
        self.given += [package.dist for package in packages]
        return {
            package.dist: FetchedPackage(package, Path("/nowhere"), self.directory / package.dist, fetched=False)
            for package in packages
        }


def _tar(files: Mapping[str, Node], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]  # a mode of ours
        for path, node in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.mode = node.mode
            if node.link is not None:
                member.type, member.linkname = tarfile.SYMTYPE, node.link
                archive.addfile(member)
            elif node.hard is not None:
                member.type, member.linkname = tarfile.LNKTYPE, node.hard
                archive.addfile(member)
            elif node.directory:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            else:
                member.size = len(node.data)
                archive.addfile(member, io.BytesIO(node.data))
    return buffer.getvalue()
