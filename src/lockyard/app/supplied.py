"""Locked packages that cannot be fetched as they stand: named with their line, or taken from a directory."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

from lockyard.conda.formats import env_out_name, lock_json_name
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.conda.packagedir import is_reachable, take
from lockyard.errors import BuildError, ConfigError
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

_SHOWN = 20


def supply(
    locks: Mapping[str, Lock],
    tree: Tree,
    version: Version,
    *,
    platforms: Mapping[str, Collection[str]],
    package_dir: Path | None,
) -> tuple[dict[str, Lock], dict[str, Path]]:
    """Return the locks with every package fetchable, and `dist` → file for those that `package_dir` gives.

    A package cannot be fetched when its line has no hash, or a `file:///` address that leads nowhere: adopted releases
    have both. `platforms` is type → the platforms that matter; `tree` holds the release's files.

    Raises:
        BuildError: such a package is not in `package_dir`, or there is none; every line is named.
        HashMismatchError: a file is not the package of the lock.
        ConfigError: `package_dir` is no directory.

    """
    if package_dir is not None and not package_dir.is_dir():
        raise ConfigError(f"--package-dir: there is no directory {package_dir}")
    files: dict[str, Path] = {}
    problems: list[tuple[str, LockedPackage]] = []
    found = dict(locks)
    for name, lock in locks.items():
        packages = dict(lock.platforms)
        for platform in platforms.get(name, ()):
            packages[platform] = tuple(
                _supplied(item, _where(tree, version, lock, platform, item), package_dir, files, problems)
                for item in lock.platforms[platform]
            )
        found[name] = dataclasses.replace(lock, platforms=packages)
    if problems:
        raise _error(version, problems, package_dir)
    return found, files


def _supplied(
    package: LockedPackage,
    where: "_Where",
    package_dir: Path | None,
    files: dict[str, Path],
    problems: list[tuple[str, LockedPackage]],
) -> LockedPackage:
    if (package.sha256 or package.md5) and is_reachable(package):
        return package
    taken = take(package, package_dir, where=str(where)) if package_dir is not None else None
    if taken is None:
        problems.append((str(where), package))
        return package
    files[package.dist] = taken[1]
    return taken[0]


@dataclasses.dataclass(frozen=True)
class _Where:
    """The `file:line` of a package's address, looked up when it is asked for."""

    text: str
    name: str
    url: str

    def __str__(self) -> str:
        offset = self.text.find(self.url)
        return f"{self.name}:{self.text.count(chr(10), 0, offset) + 1}" if offset >= 0 else self.name


def _where(tree: Tree, version: Version, lock: Lock, platform: str, package: LockedPackage) -> _Where:
    name = lock_json_name(lock.image_type)
    if name not in tree:
        name = env_out_name(lock.image_type, platform, lock.first_platform)
    text = tree[name].data.decode() if name in tree else ""
    return _Where(text, f"{release_dir(version)}/{name}", package.url)


def _error(version: Version, problems: list[tuple[str, LockedPackage]], package_dir: Path | None) -> BuildError:
    lines = [
        f"{where}: {item.dist}: {f'{item.url} is not there' if not is_reachable(item) else 'the line has no hash'}"
        for where, item in problems
    ]
    first, *rest = lines
    more = [f"and {len(rest) - _SHOWN} more"] if len(rest) > _SHOWN else []
    names = ", ".join(sorted({item.file_name for _, item in problems})[:3]) + (" …" if len(problems) > 3 else "")
    hint = f"lockyard build {version} --package-dir DIR, where DIR has {names}"
    if package_dir is not None:
        hint = f"put {names} into {package_dir}"
    return BuildError(first, hint=hint, details=[*rest[:_SHOWN], *more])
