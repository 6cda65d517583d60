"""Use cases around the caches: what is in them, taking out what is old, bringing things in."""

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockyard.app.lock import current_locks
from lockyard.app.workspace import Workspace
from lockyard.cachedir import CacheEntry, CacheKind, in_use, take_out
from lockyard.conda.channels import parse_channel
from lockyard.errors import ConfigError
from lockyard.ports import Toolbox
from lockyard.suggest import nearest
from lockyard.version import Version

KINDS = ("packages", "index", "blobs", "bases", "rootfs", "environments", "pyc")
UNFINISHED = dt.timedelta(days=1)
"""How old what a killed process left must be to go with every prune: until then the next run goes on with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindInfo:
    """What the cache holds of one kind; `size` in bytes on disk, `oldest` and `newest` are the times of last use."""

    name: str
    title: str
    place: Path
    entries: int
    size: int
    unfinished: int
    oldest: dt.datetime | None
    newest: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Removal:
    """An entry that goes, and why."""

    kind: str
    entry: CacheEntry
    why: str


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """What prune took out, what it left because a running command may use it, and what is there afterwards (bytes)."""

    removed: tuple[Removal, ...]
    in_use: tuple[Removal, ...]
    kept: int
    kept_size: int

    @property
    def freed(self) -> int:
        """Bytes that were taken out."""
        return sum(item.entry.size for item in self.removed)


@dataclass(frozen=True, slots=True)
class ImportedIndex:
    """A channel whose index is in the cache now: subdir → bytes."""

    channel: str
    address: str
    subdirs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A release whose packages are in the cache now: how many, how many of them came now, bytes of all archives."""

    packages: int
    fetched: int
    size: int


def cache_kinds(cache_dir: Path, names: Collection[str] = ()) -> tuple[CacheKind, ...]:
    """Return the kinds of things in the cache, all when none is named; each is described by the module that keeps it.

    Raises:
        ConfigError: there is no such kind; the nearest is named.

    """
    from lockyard.conda.fetch import cache_kind as packages
    from lockyard.conda.indexes import cache_kind as index
    from lockyard.engines.prepare import environments_kind, modules_kind
    from lockyard.engines.sandbox import cache_kind as rootfs
    from lockyard.oci.cache import cache_kind as blobs
    from lockyard.oci.pulled import cache_kind as bases

    for name in names:
        if name not in KINDS:
            raise ConfigError(f"unknown kind {name!r}; there are {', '.join(KINDS)}", hint=nearest(name, KINDS))
    makers = dict(zip(KINDS, (packages, index, blobs, bases, rootfs, environments_kind, modules_kind), strict=True))
    return tuple(make(cache_dir) for name, make in makers.items() if not names or name in names)


def cache_info(toolbox: Toolbox, kinds: Collection[str] = ()) -> tuple[KindInfo, ...]:
    """Return what the cache holds.

    Raises:
        ConfigError: there is no such kind.

    """
    found = []
    for kind in cache_kinds(toolbox.cache_dir, kinds):
        entries = tuple(kind.entries())
        times = [dt.datetime.fromtimestamp(item.used, dt.UTC) for item in entries if not item.unfinished]
        found.append(
            KindInfo(
                name=kind.name,
                title=kind.title,
                place=kind.place,
                entries=len(times),
                size=sum(item.size for item in entries),
                unfinished=len(entries) - len(times),
                oldest=min(times, default=None),
                newest=max(times, default=None),
            )
        )
    return tuple(found)


def prune_cache(
    toolbox: Toolbox,
    kinds: Collection[str] = (),
    *,
    older_than: dt.timedelta | None = None,
    max_size: int | None = None,
    dry_run: bool = False,
) -> PruneResult:
    """Take out what was not used for `older_than`, then what was used longest ago until at most `max_size` bytes stay.

    What killed processes left goes too, once it is a day old. What a running command may use stays, whatever was asked.

    Raises:
        ConfigError: there is no such kind, or the cache cannot be written to.

    """
    chosen = cache_kinds(toolbox.cache_dir, kinds)
    listed = [(kind, entry) for kind in chosen for entry in kind.entries()]
    plan = plan_prune([(kind.name, entry) for kind, entry in listed], toolbox.clock.now(), older_than, max_size)
    removers = {kind.name: _looker(kind) if dry_run else _remover(kind) for kind in chosen}
    removed: list[Removal] = []
    left: list[Removal] = []
    for item in plan:
        try:
            gone = removers[item.kind](item.entry)
        except PermissionError as error:
            raise ConfigError(f"the cache cannot be written to: {error.filename}") from error
        (removed if gone else left).append(item)
    kept = sum(entry.size for _, entry in listed) - sum(item.entry.size for item in removed)
    return PruneResult(removed=tuple(removed), in_use=tuple(left), kept=len(listed) - len(removed), kept_size=kept)


def plan_prune(
    entries: Iterable[tuple[str, CacheEntry]],
    now: dt.datetime,
    older_than: dt.timedelta | None,
    max_size: int | None,
) -> tuple[Removal, ...]:
    """Decide which of the (kind, entry) go, the one that was used longest ago first. Pure."""
    order = sorted(entries, key=lambda item: (item[1].used, item[0], item[1].name))
    total = sum(entry.size for _, entry in order)
    plan = []
    for kind, entry in order:
        age = now - dt.datetime.fromtimestamp(entry.used, dt.UTC)
        limit = UNFINISHED if entry.unfinished and older_than is None else older_than
        if limit is not None and age > limit:
            why = "unfinished" if entry.unfinished else "old"
        elif max_size is not None and total > max_size:
            why = "size"
        else:
            continue
        total -= entry.size
        plan.append(Removal(kind, entry, why))
    return tuple(plan)


def add_index(toolbox: Toolbox, channel: str, directory: Path) -> ImportedIndex:
    """Put the index files in `directory` into the cache as those of `channel` (a name or URL).

    Raises:
        ConfigError: the channel is local or malformed, or the directory holds no index that parses.

    """
    from lockyard.conda.indexes import import_index

    parsed = parse_channel(channel, source="CHANNEL")
    if parsed.is_local:
        raise ConfigError(f"{channel} is a directory: its index is read in place, no cache is used")
    if not directory.is_dir():
        raise ConfigError(f"there is no directory {directory}")
    return ImportedIndex(parsed.name, parsed.base, import_index(toolbox.cache_dir, parsed, directory))


def fetch_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    image_types: tuple[str, ...] = (),
    platforms: Sequence[str] = (),
) -> Fetched:
    """Bring the packages of a release into the cache, all its types and platforms unless some are named.

    Raises:
        StaleLockError: a lock is missing or stale.
        HashMismatchError: bytes differ from the lock.
        BuildError: a package cannot be reached.
        ConfigError: no type has a named platform.

    """
    locks = current_locks(toolbox, workspace, version, image_types=image_types)
    known = sorted({platform for lock in locks.values() for platform in lock.platforms})
    for name in platforms:
        if name not in known:
            raise ConfigError(f"no image type has the platform {name!r}; there are {', '.join(known)}")
    source = toolbox.packages()
    total = Fetched(0, 0, 0)
    # One platform after the other: two of them may have different packages of one name, version and build.
    for platform in platforms or known:
        lists = (lock.platforms.get(platform, ()) for lock in locks.values())
        packages = {package.dist: package for found in lists for package in found}
        toolbox.log.step(f"packages of {version} for {platform}: {len(packages)}")
        fetched = source.fetch(tuple(packages.values()), root=workspace.root)
        new = sum(item.fetched for item in fetched.values())
        size = sum(package.size or 0 for package in packages.values())
        total = Fetched(total.packages + len(packages), total.fetched + new, total.size + size)
    return total


def _remover(kind: CacheKind) -> Callable[[CacheEntry], bool]:
    return kind.remove or (lambda entry: take_out(kind.place, entry))


def _looker(kind: CacheKind) -> Callable[[CacheEntry], bool]:
    return lambda entry: not in_use(kind.place, entry)
