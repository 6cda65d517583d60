"""An installed prefix as a value, and the comparison of two: content, mode, link target, parsed `conda-meta`."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockyard.oci.tar import Entry

HOST_FIELDS = ("extracted_package_dir", "package_tarball_full_path", "link")
"""What rattler writes about the machine (`link` needs the path of the cache); Lockyard leaves it out."""
OWN = ("CACHEDIR.TAG", "conda-meta/history", "conda-meta/.rattler")
"""What is not a package's: rattler's mark for backup programs, the history with its dates."""


@dataclass(frozen=True)
class Item:
    """A file, a link, or an empty directory; others count by what is in them."""

    kind: str
    mode: int
    content: str
    """SHA-256 of a file, target of a link, canonical JSON of a `conda-meta` record."""


Prefix = Mapping[str, Item]


def of_directory(root: Path) -> dict[str, Item]:
    """Read an installed prefix."""
    items = {}
    for directory, _, _ in os.walk(root):
        with os.scandir(directory) as entries:
            for entry in entries:
                path = os.path.relpath(entry.path, root)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    items[path] = Item("link", 0o777, os.readlink(entry.path))  # noqa: PTH115 - Path turns ./x into x
                elif stat.S_ISREG(mode):
                    items[path] = _file(path, stat.S_IMODE(mode), Path(entry.path).read_bytes())
                elif not os.listdir(entry.path) and not path.startswith("__clobbers__/"):
                    # rattler now and then leaves an empty directory where it has put two losers of a path.
                    items[path] = Item("directory", 0o755, "")
    return _packages_only(items)


def of_entries(entries: Iterable[Entry], prefix: str) -> dict[str, Item]:
    """Read the entries of a layer."""
    items = {}
    for entry in entries:
        path = os.path.relpath(os.fsdecode(entry.path), prefix.lstrip("/"))
        if entry.kind == "directory":
            items[path] = Item("directory", entry.mode, "")
        elif entry.kind == "symlink":
            items[path] = Item("link", entry.mode, os.fsdecode(entry.target))
        elif entry.kind == "file":
            items[path] = _file(path, entry.mode, b"".join(entry.chunks()))
    return _packages_only(items)


def differences(expected: Prefix, actual: Prefix) -> list[str]:
    """Every difference, one line each."""
    lines = []
    for path in sorted({*expected, *actual}):
        old, new = expected.get(path), actual.get(path)
        if old is None or new is None:
            lines.append(f"{path}: only in {'the image' if old is None else 'the installed prefix'}")
            continue
        lines += [
            f"{path}: {name} {getattr(old, name)!r} became {getattr(new, name)!r}"
            for name in ("kind", "mode", "content")
            if getattr(old, name) != getattr(new, name)
        ]
    return lines


def _packages_only(items: dict[str, Item]) -> dict[str, Item]:
    return {path: item for path, item in items.items() if path not in OWN}


def _file(path: str, mode: int, data: bytes) -> Item:
    if path.startswith("conda-meta/") and path.endswith(".json"):
        record: dict[str, Any] = json.loads(data)
        for name in HOST_FIELDS:
            record.pop(name, None)
        # rattler leaves the mode of a temporary file, 0600, which only the installing user could read.
        return Item("record", 0o644, json.dumps(record, sort_keys=True))
    return Item("file", mode, hashlib.sha256(data).hexdigest())
