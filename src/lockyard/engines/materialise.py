"""Packages placed into a private directory, effects: what the sandbox runs in. Files are links into the package cache.

Nothing may write to these files in place; the sandbox shows the directory read-only or under an overlay.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lockyard.conda.lock import LockedPackage
from lockyard.extracted import DirectoryReader
from lockyard.oci.contents import Manifest, PackagePath, Python, read_manifest, resolve
from lockyard.oci.linking import Linker
from lockyard.oci.tar import Entry

_COPY_INSTEAD = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES}


@dataclass(frozen=True, slots=True)
class PlacedPackage:
    """A package that is ready to be placed: what it wants, where each path goes, and where its files are."""

    manifest: Manifest
    moved: Mapping[str, str]
    directory: Path


def placed(packages: Iterable[tuple[LockedPackage, Path]], python: Python | None) -> list[PlacedPackage]:
    """Place packages (with the directories that they are extracted to), given in install order.

    Raises:
        HashMismatchError, BuildError: as `read_manifest` and `resolve`.

    """
    items = list(packages)
    readers = [DirectoryReader(directory) for _, directory in items]
    manifests = [read_manifest(package, reader, python) for (package, _), reader in zip(items, readers, strict=True)]
    moved, _ = resolve([manifest.outline(reader) for manifest, reader in zip(manifests, readers, strict=True)])
    return [
        PlacedPackage(manifest, own, directory)
        for manifest, own, (_, directory) in zip(manifests, moved, items, strict=True)
    ]


def materialise(
    packages: Iterable[PlacedPackage], linker: Linker, root: Path, wanted: Callable[[str], bool] = lambda _: True
) -> None:
    """Write the files of packages below `root`, at the prefix of `linker`; `wanted` is asked for each path in it.

    The bytes are checked on the way, as in a layer.

    Raises:
        HashMismatchError: a file in the package cache is not what its package says.

    """
    root.mkdir(parents=True, exist_ok=True)
    made = {root}
    for package in packages:
        sources = [
            package.directory / item.source
            if isinstance(item, PackagePath) and item.placeholder is None and item.kind == "hardlink"
            else None
            for item in package.manifest.targets.values()
        ]
        start = len(linker.prefix.lstrip("/")) + 1
        found = linker.entries(package.manifest, package.moved, DirectoryReader(package.directory))
        for entry, source in zip(found, (*sources, None), strict=True):
            if wanted(os.fsdecode(entry.path)[start:]):
                _write(entry, source, root / os.fsdecode(entry.path), made)


def _write(entry: Entry, source: Path | None, place: Path, made: set[Path]) -> None:
    _make_directory(place if entry.kind == "directory" else place.parent, made)
    if entry.kind == "directory":
        return
    if entry.kind == "symlink":
        place.symlink_to(os.fsdecode(entry.target))
        return
    if source is not None and _linked(source, place):
        for _ in entry.chunks():  # the check of its bytes
            pass
        return
    with place.open("xb") as out:
        out.writelines(entry.chunks())
    place.chmod(entry.mode)


def _linked(source: Path, place: Path) -> bool:
    try:
        place.hardlink_to(source)
    except OSError as error:
        if error.errno not in _COPY_INSTEAD:
            raise
        return False
    return True


def _make_directory(path: Path, made: set[Path]) -> None:
    if path in made:
        return
    _make_directory(path.parent, made)
    made.add(path)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o755)
