"""Channel indexes on disk, effects: local ones in place, remote ones fetched once, kept, and asked for changes.

`index/v1/CHANNEL/SUBDIR.json` in the cache is a remote channel's `repodata.json` (conda CEP 16 and 36), where CHANNEL is
the first half of the sha256 of the channel's address; `SUBDIR.meta.json` beside it says where it came from and what the
server calls it. What does not parse is never kept, so a truncated answer cannot outlive its request.
"""

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lockyard import cachedir, fs, http
from lockyard.conda.channels import Channel, parse_channels
from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError, ConfigError
from lockyard.ports import Log
from lockyard.ports.solving import SolveRequest

if TYPE_CHECKING:
    import rattler

_SCHEMA = 1
_WORKERS = 4
_OWNER = "tell the channel's owner"
_VALIDATORS = ("etag", "last-modified")
Progress = Callable[[int], None]
_Key = tuple[str, str, Path, bool]
"""Channel, subdir or platform, root, offline."""


def index_path(cache_dir: Path, channel: Channel, subdir: str) -> Path:
    """Return the cached index of a remote channel, there or not."""
    return _entry(cache_dir / "index" / "v1", channel, subdir)


def import_index(cache_dir: Path, channel: Channel, directory: Path) -> dict[str, int]:
    """Put a remote channel's index files from `directory` into the cache, as `--offline` uses them.

    `directory` holds `SUBDIR/repodata.json` or `repodata.json.zst`. Returns subdir → bytes of the kept index.

    Raises:
        ConfigError: the directory holds no index, or one does not parse; what was kept by then stays.

    """
    found: dict[str, Path] = {}
    for name in ("repodata.json", "repodata.json.zst"):
        found |= {path.parent.name: path for path in sorted(directory.glob(f"*/{name}"))}
    if not found:
        raise ConfigError(f"{directory} has no index", hint="it holds SUBDIR/repodata.json or SUBDIR/repodata.json.zst")
    kept = {}
    for subdir, path in sorted(found.items()):
        entry = index_path(cache_dir, channel, subdir)
        with fs.temporary_directory(entry.parent, subdir) as stage:
            copy = Path(shutil.copyfile(path, stage / path.name))
            try:
                _keep(copy, entry, channel, subdir, {"url": f"{channel.base}/{subdir}/{path.name}"})
            except http.TransferError as error:
                raise ConfigError(f"{path} is no index: {error.__cause__}") from error
        kept[subdir] = entry.stat().st_size
    return kept


class OpenChannel:
    """A channel's indexes, opened, and the records that were asked for."""

    def __init__(self, channel: Channel, base_url: str, subdirs: Sequence["rattler.SparseRepoData"]) -> None:
        self.channel = channel
        self.base_url = base_url
        self.subdirs = subdirs
        self.locked: dict[str, LockedPackage] = {}
        """Address → package, for records that a solve has chosen before."""
        self._records: dict[str, dict[tuple[str, str], rattler.RepoDataRecord]] = {}

    def records(self, name: str) -> Mapping[tuple[str, str], "rattler.RepoDataRecord"]:
        """Return all records of a package name by subdir and file name.

        Raises:
            ConfigError: one is malformed.

        """
        if name not in self._records:
            try:
                found = [record for index in self.subdirs for record in index.load_records(name)]
            except (OSError, ValueError) as error:
                raise self.malformed(str(error)) from error
            self._records[name] = {(record.subdir, unquote(record.file_name)): record for record in found}
        return self._records[name]

    def malformed(self, why: str) -> ConfigError:
        """Return the error for a record that does not parse."""
        return ConfigError(f"channel {self.channel.text}: a record of its index is malformed: {why}", hint=_OWNER)

    def find_malformed(self) -> str | None:
        """Return what is wrong with the first malformed record: slow, for messages."""
        for index in self.subdirs:
            try:
                index.load_all_records()
            except (OSError, ValueError) as error:
                return f"{index.subdir}: {error}"
        return None


class Indexes:
    """The indexes that one process uses; each is opened, and a remote one fetched, once."""

    def __init__(self, cache_dir: Path, log: Log, make_client: Callable[[], Any], retries: http.Retries) -> None:
        self._place = cache_dir / "index" / "v1"
        self._log = log
        self._make_client = make_client
        self._retries = retries
        self._open: dict[_Key, OpenChannel] = {}
        self._subdirs: dict[_Key, rattler.SparseRepoData | None] = {}

    def open(self, request: SolveRequest) -> list[OpenChannel]:
        """Open the channels of a request in their order; remote indexes come in parallel.

        Raises:
            ConfigError: a channel is not there or holds no index for the platform, or it is offline and not cached.
            BuildError: a channel cannot be reached, or gives an index that does not parse.

        """
        channels = parse_channels(request.channels, source="channels")
        keys = {channel: _key(channel, request.platform, request) for channel in channels}
        missing = [channel for channel in channels if keys[channel] not in self._open]
        jobs = [(channel, subdir) for channel in missing for subdir in (request.platform, "noarch")]
        self._load([job for job in jobs if _key(*job, request) not in self._subdirs], request)
        for channel in missing:
            found = [self._subdirs[_key(channel, subdir, request)] for subdir in (request.platform, "noarch")]
            self._open[keys[channel]] = _open_channel(channel, [item for item in found if item], request.platform)
        return [self._open[keys[channel]] for channel in channels]

    def _load(self, jobs: Sequence[tuple[Channel, str]], request: SolveRequest) -> None:
        """Bring the index of each channel and subdir, and open it; `None` where the channel has no such subdir."""
        online = not request.offline and any(not channel.is_local for channel, _ in jobs)
        bar: AbstractContextManager[Progress] = (
            self._log.progress("channel indexes", None, "B") if online else nullcontext(lambda _: None)
        )
        with bar as progress, ThreadPoolExecutor(_WORKERS, thread_name_prefix="index") as pool:
            paths = list(pool.map(lambda job: self._path(job[0], job[1], request, progress), jobs))
        for (channel, subdir), path in zip(jobs, paths, strict=True):
            self._subdirs[_key(channel, subdir, request)] = _open_subdir(channel, subdir, path) if path else None

    def _path(self, channel: Channel, subdir: str, request: SolveRequest, progress: Progress) -> Path | None:
        if channel.is_local:
            return self._local(channel, subdir, request.root)
        if request.offline:
            return self._cached(channel, subdir)
        return self._remote(channel, subdir, progress)

    def _local(self, channel: Channel, subdir: str, root: Path) -> Path | None:
        path = unquote(channel.base.removeprefix("file:"))
        directory = Path(path[2:]) if path.startswith("///") else fs.inside(root, path, source="channels")
        if not directory.is_dir():
            raise ConfigError(f"channel {channel.text}: there is no directory {directory}")
        plain = directory / subdir / "repodata.json"
        packed = directory / subdir / "repodata.json.zst"
        if plain.is_file():
            return plain
        if not packed.is_file():
            return None
        with packed.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        target = self._place / "local" / f"{digest}.json"
        cachedir.use(self._place, [target])
        if not target.is_file():
            with fs.temporary_directory(target.parent, target.stem) as stage:
                try:
                    _unpack(packed, stage / "index")
                except ValueError as error:
                    raise ConfigError(f"channel {channel.text}: {subdir}/{packed.name} is damaged: {error}") from error
                (stage / "index").replace(target)
        return target

    def _cached(self, channel: Channel, subdir: str) -> Path | None:
        entry = _entry(self._place, channel, subdir)
        _use(self._place, entry)
        meta = _read_meta(entry)
        if meta.get("absent"):
            return None
        if not entry.is_file():
            raise ConfigError(
                f"channel {channel.text}: its index of {subdir} is not in the cache, and this is offline",
                hint="run the same command once without --offline, or bring LOCKYARD_CACHE_DIR from a machine that did",
            )
        self._log.info(f"offline: the index of {channel.name}/{subdir} is of {_age(entry, meta)}")
        return entry

    def _remote(self, channel: Channel, subdir: str, progress: Progress) -> Path | None:
        entry = _entry(self._place, channel, subdir)
        _use(self._place, entry)
        self._log.detail(f"index of {channel.name}/{subdir}")
        try:
            return self._retries.call(lambda: self._fetch(channel, subdir, entry, progress))
        except http.TransferError as error:
            hint = "check the channel's address and the network"
            if entry.is_file():
                hint += f"; --offline uses the index of {_age(entry, _read_meta(entry))}"
            raise BuildError(f"channel {channel.text} cannot be reached: {error}", hint=hint) from error

    def _fetch(self, channel: Channel, subdir: str, entry: Path, progress: Progress) -> Path | None:
        known = _read_meta(entry)
        once = http.Retries(attempts=1)  # the caller tries again
        with self._make_client() as client, fs.temporary_directory(entry.parent, subdir) as stage:
            for name in ("repodata.json.zst", "repodata.json"):
                url = f"{channel.base}/{subdir}/{name}"
                validators = {key: str(known[key]) for key in _VALIDATORS if key in known and known.get("url") == url}
                try:
                    found = http.fetch_if_changed(
                        client, url, stage / name, validators=validators, retries=once, progress=progress
                    )
                except http.TransferError as error:
                    if error.status == 404:
                        continue
                    raise
                if found is not None:
                    _keep(stage / name, entry, channel, subdir, {"url": url, **found})
                return entry
        entry.unlink(missing_ok=True)
        _write_meta(entry, {"absent": True})
        return None


def _key(channel: Channel, subdir: str, request: SolveRequest) -> "_Key":
    return channel.base, subdir, request.root, request.offline


def cache_kind(cache_dir: Path) -> cachedir.CacheKind:
    """Return how the channel indexes in the cache are listed."""
    place = cache_dir / "index" / "v1"
    return cachedir.CacheKind("index", "channel indexes", place, lambda: _entries(place))


def _entries(place: Path) -> Iterator[cachedir.CacheEntry]:
    directories = sorted(path for path in place.glob("[0-9a-z]*") if path.is_dir())
    yield from cachedir.unfinished(place, directories)
    for path in (path for directory in directories for path in sorted(directory.glob("[!.]*.json"))):
        if path.name.endswith(".meta.json"):
            if path.with_name(path.name.replace(".meta.json", ".json")).exists():
                continue
            paths: tuple[Path, ...] = (path,)  # of a subdir that the channel does not have
        else:
            paths = (path, _meta_path(path))
        url = _read_meta(path).get("url", "")
        yield cachedir.CacheEntry(
            name=str(url) or str(path.relative_to(place)), size=sum(map(cachedir.size_of, paths)),
            used=cachedir.last_used(paths), markers=paths, paths=paths,
        )  # fmt: skip


def _use(place: Path, entry: Path) -> None:
    """Keep an index from being pruned by the time of its `meta`: its own time says which file that is about."""
    meta = _meta_path(entry)
    cachedir.use(place, [meta if meta.exists() else entry])


def _entry(place: Path, channel: Channel, subdir: str) -> Path:
    return place / hashlib.sha256(channel.base.encode()).hexdigest()[:32] / f"{subdir}.json"


def _open_channel(channel: Channel, subdirs: Sequence["rattler.SparseRepoData"], platform: str) -> OpenChannel:
    if not subdirs:
        raise ConfigError(f"channel {channel.text} has no index (repodata.json) for {platform} and none for noarch")
    return OpenChannel(channel, _rattler_channel(channel).base_url, subdirs)


def _open_subdir(channel: Channel, subdir: str, path: Path) -> "rattler.SparseRepoData":
    import rattler

    try:
        return rattler.SparseRepoData(_rattler_channel(channel), subdir, path)
    except Exception as error:  # rattler has no class of its own for a malformed index
        raise ConfigError(f"channel {channel.text}: the index of {subdir} does not parse: {error}") from error


def _rattler_channel(channel: Channel) -> "rattler.Channel":
    """Return rattler's channel; local ones get addresses of its own making, so that no host path reaches a record."""
    import rattler

    return rattler.Channel(channel.name if channel.is_local else channel.base)


def _keep(fetched: Path, entry: Path, channel: Channel, subdir: str, meta: Mapping[str, object]) -> None:
    """Unpack what was fetched, see that it parses, and let it take the entry's place.

    Raises:
        TransferError: it is truncated or damaged; temporary, as the next answer may be whole.

    """
    import rattler

    plain = fetched
    try:
        if fetched.suffix == ".zst":
            plain = fetched.with_name("unpacked.json")
            _unpack(fetched, plain)
        rattler.SparseRepoData(_rattler_channel(channel), subdir, plain)
    except Exception as error:
        # Both zstandard's and rattler's failures end here; rattler has no class of its own for them.
        raise http.TransferError(f"{meta['url']} is truncated or damaged: {error}", temporary=True) from error
    plain.replace(entry)
    _write_meta(entry, meta)


def _unpack(packed: Path, target: Path) -> None:
    """Unpack a zstd file; a truncated one ends early, and its JSON does not parse.

    Raises:
        ValueError: it is damaged.

    """
    import zstandard

    try:
        with (
            packed.open("rb") as stream,
            zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(
                stream, read_across_frames=True
            ) as reader,
            target.open("wb") as out,
        ):
            shutil.copyfileobj(reader, out, 1 << 20)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _meta_path(entry: Path) -> Path:
    return entry.with_suffix(".meta.json")


def _write_meta(entry: Path, meta: Mapping[str, object]) -> None:
    """Write what is known about an entry, and which file it is about: two processes may write both in any order."""
    value = {"schema": _SCHEMA, **meta, "file": _identity(entry)}
    fs.atomic_write(_meta_path(entry), json.dumps(value, sort_keys=True).encode())


def _read_meta(entry: Path) -> Mapping[str, object]:
    """Return what is known about the entry; nothing when it cannot be read or is about another file."""
    try:
        value = json.loads(fs.read_file(_meta_path(entry)) or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict) or value.get("schema") != _SCHEMA or value.get("file") != _identity(entry):
        return {}
    keys: Iterable[str] = ("url", *_VALIDATORS)
    found: dict[str, object] = {key: value[key] for key in keys if isinstance(value.get(key), str)}
    return {"absent": True} if value.get("absent") is True else found


def _identity(entry: Path) -> list[int] | None:
    try:
        found = entry.stat()
    except FileNotFoundError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _age(entry: Path, meta: Mapping[str, object]) -> str:
    """Return when the index was made, by its server, else when it was fetched."""
    made = meta.get("last-modified")
    return str(made) if made else dt.datetime.fromtimestamp(entry.stat().st_mtime, dt.UTC).strftime("%Y-%m-%d %H:%MZ")
