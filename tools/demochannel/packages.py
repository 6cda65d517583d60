"""The writer of `.conda` packages."""

import hashlib
import io
import json
import posixpath
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from demochannel.tree import Node, file, tar_zst_bytes

PLACEHOLDER = ("/opt/demochannel" + "_placehold" * 24)[:255]
PLACEHOLDER_BYTES = PLACEHOLDER.encode()


@dataclass(slots=True)
class Package:
    """A conda package before it is written: its metadata and its files."""

    name: str
    version: str
    build_prefix: str
    timestamp: datetime
    license: str
    build_number: int = 0
    build_suffix: str = ""
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: Literal["python", "generic"] | None = None
    summary: str = ""
    home: str = ""
    entry_points: tuple[str, ...] = ()
    extra_index: Mapping[str, str] = field(default_factory=dict)
    files: dict[str, Node] = field(default_factory=dict)
    info: dict[str, bytes] = field(default_factory=dict)

    @property
    def build(self) -> str:
        """The build string, `h1234567_0` say."""
        number = f"{self.build_prefix}_{self.build_number}" if self.build_prefix else str(self.build_number)
        return f"{number}{self.build_suffix}"

    @property
    def subdir(self) -> str:
        """The folder of the channel that the package belongs to."""
        return "noarch" if self.noarch else "linux-64"

    @property
    def stem(self) -> str:
        """The file name without its ending."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def filename(self) -> str:
        """The file name in the channel."""
        return f"{self.stem}.conda"


def placeholder_mode(data: bytes) -> Literal["text", "binary"] | None:
    """Say how the prefix in a file must be replaced, or None when it holds no prefix."""
    if PLACEHOLDER_BYTES not in data:
        return None
    return "binary" if b"\0" in data else "text"


def index_json(package: Package) -> dict[str, Any]:
    """Return `info/index.json`, which is also what the channel's index says about a package."""
    index: dict[str, Any] = {
        "arch": None if package.noarch else "x86_64",
        "build": package.build,
        "build_number": package.build_number,
        "constrains": sorted(package.constrains),
        "depends": sorted(package.depends),
        "license": package.license,
        "name": package.name,
        "platform": None if package.noarch else "linux",
        "subdir": package.subdir,
        "timestamp": int(package.timestamp.timestamp() * 1000),
        "version": package.version,
        **package.extra_index,
    }
    if package.noarch:
        index["noarch"] = package.noarch
    return index


def paths_json(package: Package) -> dict[str, Any]:
    """Return `info/paths.json`. A link has the hash of the file that it leads to, as conda-build writes it."""
    paths = []
    for path, node in sorted(package.files.items()):
        data = node.data
        if node.kind == "link":
            goal = package.files.get(posixpath.normpath(posixpath.join(posixpath.dirname(path), node.target)))
            data = goal.data if goal else b""
        entry: dict[str, Any] = {
            "_path": path,
            "path_type": "softlink" if node.kind == "link" else "hardlink",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_in_bytes": len(data),
        }
        if node.kind == "file" and (mode := placeholder_mode(data)):
            entry |= {"file_mode": mode, "prefix_placeholder": PLACEHOLDER}
        paths.append(entry)
    return {"paths": paths, "paths_version": 1}


def link_json(package: Package) -> dict[str, Any]:
    """Return `info/link.json` of a noarch Python package."""
    noarch: dict[str, Any] = {"type": "python"}
    if package.entry_points:
        noarch["entry_points"] = list(package.entry_points)
    return {"noarch": noarch, "package_metadata_version": 1}


def about_json(package: Package) -> dict[str, Any]:
    """Return `info/about.json`."""
    about = {"home": package.home, "license": package.license, "summary": package.summary}
    return {"channels": [], "extra": {}} | {key: value for key, value in about.items() if value}


def info_files(package: Package) -> dict[str, bytes]:
    """Return every file of the package's `info` folder."""
    paths = paths_json(package)
    info = {
        "info/about.json": _json(about_json(package)),
        "info/files": "".join(f"{entry['_path']}\n" for entry in paths["paths"]).encode(),
        "info/hash_input.json": b"{}\n",
        "info/index.json": _json(index_json(package)),
        "info/paths.json": _json(paths),
    }
    prefixed = [entry for entry in paths["paths"] if "file_mode" in entry]
    if prefixed:
        lines = (f"{PLACEHOLDER} {entry['file_mode']} {entry['_path']}\n" for entry in prefixed)
        info["info/has_prefix"] = "".join(lines).encode()
    if package.noarch == "python":
        info["info/link.json"] = _json(link_json(package))
    return info | {f"info/{name}": data for name, data in package.info.items()}


def archive(package: Package) -> bytes:
    """Return the `.conda` file: the same package gives the same bytes."""
    mtime = int(package.timestamp.timestamp())
    members = {
        "metadata.json": b'{"conda_pkg_format_version": 2}',
        f"pkg-{package.stem}.tar.zst": tar_zst_bytes(package.files, mtime=mtime),
        f"info-{package.stem}.tar.zst": tar_zst_bytes(
            {name: file(data) for name, data in info_files(package).items()}, mtime=mtime
        ),
    }
    when = package.timestamp.astimezone(UTC)
    date = (when.year, when.month, when.day, 0, 0, 0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as bundle:
        for name, data in members.items():
            member = zipfile.ZipInfo(name, date)
            member.create_system = 3
            member.external_attr = 0o644 << 16
            bundle.writestr(member, data)
    return buffer.getvalue()


def repodata_record(package: Package, data: bytes) -> dict[str, Any]:
    """Return what the channel's index says about a package file."""
    index = {key: value for key, value in index_json(package).items() if value is not None}
    return index | {
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }


def repodata(subdir: str, records: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return a `repodata.json`: sorted, one package a line."""
    lines = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(records[name], sort_keys=True, separators=(',', ':'))}"
        for name in sorted(records)
    )
    return (
        f'{{"info":{{"subdir":{json.dumps(subdir)}}},\n"packages":{{}},\n"packages.conda":{{\n{lines}\n}},\n'
        '"removed":[],"repodata_version":1}\n'
    ).encode()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
