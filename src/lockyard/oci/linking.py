"""A conda package becomes files at the target prefix: what an installer would write, without writing it.

No files are opened here; a `PackageReader` gives the extracted package. The model is rattler's installer, which an integration test compares with file by file. Differences, on purpose: `conda-meta/*.json` is readable
by everyone and holds no path of the building machine.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lockyard.conda import digests
from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError
from lockyard.oci.contents import EntryPoint, Manifest, PackagePath, PackageReader, Python, damaged
from lockyard.oci.placeholders import python_shebang, replace_binary, replace_text
from lockyard.oci.tar import EPOCH, Entry

LINKING_VERSION = 1
"""Goes into every cache key: raise it when the same package would give other files."""

_KINDS = {"hardlink": "file", "softlink": "symlink", "directory": "directory"}
_PYC_RE = re.compile(r"(.*/)?__pycache__/([^/]+)\.cpython-\d+\.pyc")
_SCRIPT = """\
{shebang}
# -*- coding: utf-8 -*-
import re
import sys

from {module} import {name}

if __name__ == '__main__':
\tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
\tsys.exit({function}())
"""


@dataclass(frozen=True, slots=True)
class Module:
    """A compiled Python module: its path in the prefix, that of its source, its bytes, which `chunks` checks."""

    path: str
    source: str
    size: int
    sha256: str
    chunks: Callable[[], Iterable[bytes]]


@dataclass
class _Linked:
    """A file on its way: its tar entry, and the `paths_data` record that is complete once the entry is written."""

    entry: Entry
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Linker:
    """Places packages at `prefix` (absolute) for `uid:gid`."""

    prefix: str
    uid: int = 0
    gid: int = 0
    python: Python | None = None

    def entries(
        self, manifest: Manifest, moved: Mapping[str, str], reader: PackageReader, compiled: Iterable[Module] = ()
    ) -> Iterator[Entry]:
        """Give the files of a package and its `conda-meta` record, without their parent directories.

        `moved` says which paths go elsewhere, because another package has them. The bytes are checked against `paths.json` while
        they are read. `compiled` modules come with their package, except those whose source another package has replaced.

        Raises:
            HashMismatchError: a file is not what the package says.
            BuildError: a placeholder cannot be replaced.

        """
        times = _source_times(manifest, reader)
        records = []
        for target, item in manifest.targets.items():
            place = moved.get(target, target)
            if isinstance(item, EntryPoint):
                linked = self._script(item, place)
            else:
                linked = self._file(manifest.package, item, place, reader, times.get(item.source, EPOCH))
            yield linked.entry
            if linked.record:
                record = {"_path": place, **linked.record}
                records.append({**record, "original_path": target} if place != target else record)
        for module in compiled:
            if module.source in moved:
                continue
            path = self._path(module.path)
            yield Entry(path, "file", 0o644, self.uid, self.gid, EPOCH, module.size, chunks=module.chunks)
            records.append(
                {
                    "_path": module.path, "path_type": "pyc_file", "sha256_in_prefix": module.sha256,
                    "size_in_bytes": module.size,
                }
            )  # fmt: skip
        records.sort(key=lambda record: record["_path"].split("/"))
        body = _prefix_record(manifest.package, records)
        yield self._regular(f"conda-meta/{manifest.package.dist}.json", body, 0o644)

    def history(self, packages: Iterable[LockedPackage], specs: Iterable[str], when: str) -> Entry:
        """Give `conda-meta/history`, from which conda reads what the user asked for."""
        lines = [f"==> {when} <==", *(f"+{package.channel}/{package.subdir}::{package.dist}" for package in packages)]
        lines.append(f"# update specs: {json.dumps(sorted(specs))}")
        return self._regular("conda-meta/history", ("\n".join(lines) + "\n").encode(), 0o644)

    def parents(self, path: bytes) -> Iterator[Entry]:
        """Give the directories above a path of the image, outermost first; the same everywhere."""
        root = self.prefix.lstrip("/").encode()
        parts = path.split(b"/")[:-1]
        for length in range(1, len(parts) + 1):
            directory = b"/".join(parts[:length])
            inside = directory == root or directory.startswith(root + b"/")
            yield Entry(directory, "directory", 0o755, *((self.uid, self.gid) if inside else (0, 0)))

    def _path(self, place: str) -> bytes:
        return f"{self.prefix.lstrip('/')}/{place}".encode(errors="surrogateescape")

    def _regular(self, place: str, data: bytes, mode: int, mtime: int = EPOCH) -> Entry:
        return Entry(self._path(place), "file", mode, self.uid, self.gid, mtime, len(data), chunks=lambda: (data,))

    def _script(self, point: EntryPoint, place: str) -> _Linked:
        assert self.python is not None  # read_manifest makes entry points only with one  # noqa: S101 - for mypy
        text = _SCRIPT.format(
            shebang=python_shebang(f"{self.prefix}/{self.python.executable}"),
            module=point.module,
            name=point.function.split(".")[0],
            function=point.function,
        )
        data = text.encode()
        record = {"path_type": "unix_python_entry_point", "sha256": _sha256(data), "size_in_bytes": len(data)}
        return _Linked(self._regular(place, data, 0o775), record)

    def _file(
        self, package: LockedPackage, item: PackagePath, place: str, reader: PackageReader, mtime: int
    ) -> _Linked:
        loaded = reader.load(item.source)
        expected = _KINDS[item.kind]
        if loaded is None or loaded[0].kind != expected:
            raise damaged(package, item.source, f"is {loaded[0].kind if loaded else 'missing'}, not a {expected}")
        stat, data = loaded
        record: dict[str, Any] = {"path_type": item.kind}
        if item.no_link:
            record["no_link"] = True
        if item.sha256 is not None:
            record["sha256"] = item.sha256
        if item.kind == "directory":
            return _Linked(Entry(self._path(place), "directory", 0o755, self.uid, self.gid))
        if item.kind == "softlink":
            target = reader.readlink(item.source)
            size = len(target) if item.size is None else item.size
            record |= {"sha256_in_prefix": _sha256(target), "size_in_bytes": size}
            return _Linked(Entry(self._path(place), "symlink", 0o777, self.uid, self.gid, target=target), record)
        if item.placeholder is not None:
            data = self._replaced(package, item, reader, data)
            digest = _sha256(data)
            if digest != item.sha256:
                record["sha256_in_prefix"] = digest
            record |= {"size_in_bytes": len(data), "file_mode": item.file_mode, "prefix_placeholder": item.placeholder}
            return _Linked(self._regular(place, data, stat.mode, mtime), record)
        size = record["size_in_bytes"] = stat.size if item.size is None else item.size
        if data is not None:
            _Check(package, item, reader).whole(data, record)
            return _Linked(self._regular(place, data, stat.mode, mtime), record)
        chunks = functools.partial(_verified, package, item, reader, record)
        entry = Entry(self._path(place), "file", stat.mode, self.uid, self.gid, mtime, size, chunks=chunks)
        return _Linked(entry, record)

    def _replaced(self, package: LockedPackage, item: PackagePath, reader: PackageReader, data: bytes | None) -> bytes:
        if data is None:
            data = b"".join(_verified(package, item, reader, {}))
        else:
            _Check(package, item, reader).whole(data, {})
        replace = replace_text if item.file_mode == "text" else replace_binary
        try:
            return replace(data, item.placeholder or "", self.prefix)
        except BuildError as error:
            raise BuildError(f"{package.dist}: {item.source}: {error.message}", hint=error.hint) from error


class _Check:
    """Checks the bytes of a file by what is recorded of it, else by `paths.json`; where that says nothing, finds the SHA-256."""

    def __init__(self, package: LockedPackage, item: PackagePath, reader: PackageReader) -> None:
        self.package = package
        self.item = item
        own = reader.recorded(item.source) if item.sha256 is not None else None
        self.state = hashlib.sha256 if own is None else digests.state
        self.expected = item.sha256 if own is None else own

    def whole(self, data: bytes, record: dict[str, Any]) -> None:
        self.end(self.state(data).hexdigest(), len(data), record)

    def end(self, found: str, size: int, record: dict[str, Any]) -> None:
        item = self.item
        if self.expected is not None and found != self.expected:
            kind = "sha256" if self.expected == item.sha256 else "blake3"
            raise damaged(self.package, item.source, f"has {kind} {found}, not {self.expected}")
        if item.size is not None and size != item.size:
            raise damaged(self.package, item.source, f"has {size} bytes, not {item.size}")
        if item.sha256 is None:
            record["sha256_in_prefix"] = found


def _verified(
    package: LockedPackage, item: PackagePath, reader: PackageReader, record: dict[str, Any]
) -> Iterator[bytes]:
    """Give the bytes of a file; raise at the end when they are not those of the package."""
    check = _Check(package, item, reader)
    state = check.state()
    size = 0
    for chunk in reader.chunks(item.source):
        state.update(chunk)
        size += len(chunk)
        yield chunk
    check.end(state.hexdigest(), size, record)


def _source_times(manifest: Manifest, reader: PackageReader) -> dict[str, int]:
    """Return source path → the time that the package's own `.pyc` expects (PEP 552), so that Python uses it.

    The times of an extracted package are not used: they depend on who extracted it.
    """
    sources = {item.source for item in manifest.targets.values() if isinstance(item, PackagePath)}
    times = {}
    for path in sources:
        match = _PYC_RE.fullmatch(path)
        source = f"{match[1] or ''}{match[2]}.py" if match else ""
        if source not in sources:
            continue
        stat = reader.stat(path)
        head = next(reader.chunks(path), b"")[:16] if stat is not None and stat.kind == "file" else b""
        if len(head) == 16 and head[4:8] == bytes(4):
            times[source] = int.from_bytes(head[8:12], "little")
    return times


def _prefix_record(package: LockedPackage, records: list[dict[str, Any]]) -> bytes:
    """Return `conda-meta/NAME-VERSION-BUILD.json`, as `json.dumps` with an indent of 2 and sorted keys would write it.

    That is slow where it indents, and nearly all of the file are two long lists: these are written without indent, with separators
    that indent. No string holds a separator: JSON escapes line breaks.
    """
    optional = {
        "arch": package.arch,
        "constrains": list(package.constrains),
        "features": package.features,
        "license": package.license,
        "license_family": package.license_family,
        "md5": package.md5,
        "noarch": package.noarch,
        "platform": package.platform,
        "python_site_packages_path": package.python_site_packages_path,
        "sha256": package.sha256,
        "size": package.size,
        "timestamp": package.timestamp,
        "track_features": " ".join(package.track_features),
    }
    head = {
        **{key: value for key, value in optional.items() if value not in (None, [], "")},
        "build": package.build,
        "build_number": package.build_number,
        "channel": package.channel,
        "depends": list(package.depends),
        "files": [],
        "fn": package.file_name,
        "name": package.name,
        "paths_data": {"paths": [], "paths_version": 1},
        "requested_specs": [],
        "subdir": package.subdir,
        "url": package.url,
        "version": package.version,
    }
    text = json.dumps(head, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if records:
        files = _dense([record["_path"] for record in records], ",\n    ")
        text = text.replace('\n  "files": []', f'\n  "files": [\n    {files}\n  ]', 1)
        paths = _dense(records, ",\n        ")[1:-1].replace("},\n        {", "\n      },\n      {\n        ")
        paths = f"[\n      {{\n        {paths}\n      }}\n    ]"
        text = text.replace('\n    "paths": []', f'\n    "paths": {paths}', 1)
    return text.encode(errors="surrogateescape")


def _dense(items: Sequence[object], separator: str) -> str:
    """Return the JSON of the items of a list without its brackets."""
    return json.dumps(items, separators=(separator, ": "), sort_keys=True, ensure_ascii=False)[1:-1]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
