"""The solver, effects: rattler over channel indexes on disk. The only caller of rattler's solver.

Traps that this module stands for, each with a test: `solve()` leaks strict channel priority, so only
`solve_with_sparse_repodata` is used; virtual packages are stated, never detected; `exclude_newer` must be UTC; a
preferred record is a candidate even when no channel has it any more, so records are taken from the index, never from
the old lock; and the interpreter crashes when it ends right after a rattler coroutine (`run_rattler`).
"""

import asyncio
import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from lockyard import fs, http
from lockyard.conda.channels import Channel, parse_channels
from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError, ConfigError, UnsatisfiableError
from lockyard.ports import Log, SolveRequest

if TYPE_CHECKING:
    import rattler

T = TypeVar("T")
_SCHEMA = 1
_RECORD_FIELDS = (
    ("build_number", 0),
    ("md5", None),
    ("sha256", None),
    ("size", None),
    ("timestamp", None),
    ("license", None),
    ("license_family", None),
    ("noarch", None),
    ("arch", None),
    ("platform", None),
    ("features", None),
    ("python_site_packages_path", None),
)


def run_rattler(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of rattler to its end.

    The short sleep lets rattler's worker threads drop their Python objects: without it 4 to 10 % of short processes
    crash when the interpreter ends.
    """

    async def main() -> T:
        try:
            return await coroutine
        finally:
            await asyncio.sleep(0.02)

    return asyncio.run(main())


class RattlerSolver:
    """The `Solver` port. Indexes that were read stay open for the next solve of this object.

    `make_client` and `retries` are for tests.
    """

    def __init__(
        self,
        *,
        cache_dir: Path,
        log: Log,
        make_client: Callable[[], Any] = http.make_client,
        retries: http.Retries | None = None,
    ) -> None:
        self._indexes = _Indexes(cache_dir / "index" / "v1", log, make_client, retries or http.Retries())

    def solve(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        """Return the packages in install order, as rattler installs them.

        Raises:
            UnsatisfiableError: with the solver's words as details.
            ConfigError: a spec, channel or virtual package does not parse.
            BuildError: a channel cannot be reached.

        """
        import rattler
        from rattler.exceptions import SolverError

        channels = self._indexes.open(request)
        kept, _ = _preferred(channels, request)
        try:
            records = run_rattler(
                rattler.solve_with_sparse_repodata(
                    [_match_spec(spec) for spec in request.specs],
                    [index for channel in channels for index in channel.subdirs],
                    locked_packages=kept,
                    virtual_packages=_virtual_packages(request),
                    channel_priority=rattler.ChannelPriority.Strict,
                    exclude_newer=_utc(request.exclude_newer),
                    constraints=[_match_spec(spec) for spec in request.constraints],
                )
            )
        except SolverError as error:
            words = [line.rstrip() for line in str(error).splitlines() if line.strip()]
            raise UnsatisfiableError(
                f"no set of packages for {request.platform} meets the specs", details=words
            ) from None
        return _in_install_order(records, channels)

    def unavailable(self, request: SolveRequest) -> frozenset[str]:
        """Return the names in `request.preferred` whose exact package the channels do not have (any more)."""
        _, lost = _preferred(self._indexes.open(request), request)
        return lost


class _OpenChannel:
    """A channel's indexes, opened, and the records that were asked for."""

    def __init__(self, channel: Channel, base_url: str, subdirs: Sequence["rattler.SparseRepoData"]) -> None:
        self.channel = channel
        self.base_url = base_url
        self.subdirs = subdirs
        self._records: dict[str, list[rattler.RepoDataRecord]] = {}

    def records(self, name: str) -> list["rattler.RepoDataRecord"]:
        if name not in self._records:
            self._records[name] = [record for index in self.subdirs for record in index.load_records(name)]
        return self._records[name]


def _preferred(
    channels: Sequence[_OpenChannel], request: SolveRequest
) -> tuple[list["rattler.RepoDataRecord"], frozenset[str]]:
    """Return the index's own records for the preferred packages, and the names that have none."""
    cutoff = _utc(request.exclude_newer)
    asked = _asked_channels(request.specs)
    kept, lost = [], set()
    for package in request.preferred:
        # Strict priority: only the first channel that has the name counts, unless a spec names another.
        allowed = [item for item in channels if asked.get(package.name, item.base_url) == item.base_url]
        candidates = next((found for channel in allowed if (found := channel.records(package.name))), [])
        record = next((item for item in candidates if _is_same(item, package)), None)
        if record is None or (cutoff is not None and (record.timestamp is None or record.timestamp > cutoff)):
            lost.add(package.name)
        else:
            kept.append(record)
    return kept, frozenset(lost)


def _asked_channels(specs: Iterable[str]) -> dict[str, str]:
    """Return name → base URL of the channel for the specs that name one: such a spec goes before channel priority."""
    found = {}
    for spec in map(_match_spec, specs):
        if spec.channel is not None and spec.name.normalized is not None:
            found[spec.name.normalized] = spec.channel.base_url
    return found


def _is_same(record: "rattler.RepoDataRecord", package: LockedPackage) -> bool:
    """Tell whether an index record is the locked package; the `.conda` of a locked `.tar.bz2` build is."""
    named = (str(record.version), str(record.build), record.subdir) == (package.version, package.build, package.subdir)
    if not named or unquote(record.file_name) != unquote(package.file_name):
        return named and package.file_name.endswith(".tar.bz2") and record.file_name.endswith(".conda")
    if package.sha256 is not None and record.sha256 is not None:
        return bool(record.sha256.hex() == package.sha256)
    return package.md5 is None or record.md5 is None or bool(record.md5.hex() == package.md5)


def _in_install_order(
    records: Sequence["rattler.RepoDataRecord"], channels: Sequence[_OpenChannel]
) -> tuple[LockedPackage, ...]:
    import rattler

    # The sorted records come back without addresses: map them back by name.
    by_name = {record.name.normalized: record for record in records}
    ordered = rattler.PackageRecord.sort_topologically(list(records))
    return tuple(_locked(by_name[record.name.normalized], channels) for record in ordered)


def _locked(record: "rattler.RepoDataRecord", channels: Sequence[_OpenChannel]) -> LockedPackage:
    value = json.loads(record.to_json())
    origin = max(
        (item for item in channels if record.url.startswith(item.base_url)), key=lambda item: len(item.base_url)
    )
    features = value.get("track_features") or ()
    return LockedPackage(
        name=record.name.normalized,
        version=value["version"],
        build=value["build"],
        url=f"{origin.channel.base}/{record.url.removeprefix(origin.base_url)}",
        subdir=value["subdir"],
        channel=origin.channel.name,
        depends=tuple(value.get("depends") or ()),
        constrains=tuple(value.get("constrains") or ()),
        track_features=tuple(features.split() if isinstance(features, str) else features),
        **{name: value.get(name, default) for name, default in _RECORD_FIELDS},
    )


def _match_spec(text: str) -> "rattler.MatchSpec":
    import rattler
    from rattler.exceptions import InvalidMatchSpecError

    try:
        return rattler.MatchSpec(text)
    except InvalidMatchSpecError as error:
        raise ConfigError(f"{text!r} is not a package spec: {error}") from error


def _virtual_packages(request: SolveRequest) -> list["rattler.GenericVirtualPackage"]:
    """Return what the variant states (`VERSION` or `VERSION=BUILD`) and the `__unix` that the platform implies."""
    import rattler
    from rattler.exceptions import InvalidVersionError

    stated = dict(request.virtual_packages)
    if request.platform.startswith(("linux-", "osx-")):
        stated.setdefault("__unix", "0")
    packages = []
    for name, text in sorted(stated.items()):
        version, _, build = text.partition("=")
        try:
            packages.append(
                rattler.GenericVirtualPackage(
                    rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build or "0")
                )
            )
        except InvalidVersionError as error:
            raise ConfigError(f"virtual package {name}: {text!r} is not a version") from error
    return packages


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Return the same moment in UTC: rattler reads the clock face of any other zone as UTC."""
    return None if moment is None else moment.astimezone(dt.UTC)


class _Indexes:
    """Index files of channels: local ones in place, compressed and remote ones below `place`."""

    def __init__(self, place: Path, log: Log, make_client: Callable[[], Any], retries: http.Retries) -> None:
        self._place = place
        self._log = log
        self._make_client = make_client
        self._retries = retries
        self._open: dict[tuple[object, ...], _OpenChannel] = {}

    def open(self, request: SolveRequest) -> list[_OpenChannel]:
        """Open the channels of a request in their order.

        Raises:
            ConfigError: a channel is not there or holds no index for the platform.
            BuildError: a channel cannot be reached.

        """
        opened = []
        for channel in parse_channels(request.channels, source="channels"):
            key = (channel.base, request.platform, request.root, request.offline)
            if key not in self._open:
                self._open[key] = self._open_channel(channel, request)
            opened.append(self._open[key])
        return opened

    def _open_channel(self, channel: Channel, request: SolveRequest) -> _OpenChannel:
        import rattler

        # Local channels get addresses of rattler's own making, so that no host path reaches a record.
        opened = rattler.Channel(channel.name if channel.is_local else channel.base)
        subdirs = []
        for subdir in (request.platform, "noarch"):
            path = (
                self._local(channel, subdir, request.root)
                if channel.is_local
                else self._remote(channel, subdir, request)
            )
            if path is None:
                continue
            try:
                subdirs.append(rattler.SparseRepoData(opened, subdir, path))
            except Exception as error:  # rattler has no class of its own for a malformed index
                raise ConfigError(f"channel {channel.text}: the index of {subdir} does not parse: {error}") from error
        if not subdirs:
            raise ConfigError(
                f"channel {channel.text} has no index (repodata.json) for {request.platform} and none for noarch"
            )
        return _OpenChannel(channel, opened.base_url, subdirs)

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
        if not target.is_file():
            self._unpack(packed, target, channel)
        return target

    def _remote(self, channel: Channel, subdir: str, request: SolveRequest) -> Path | None:
        entry = self._place / hashlib.sha256(channel.base.encode()).hexdigest()[:32] / f"{subdir}.json"
        meta = entry.with_suffix(".meta.json")
        known = _read_meta(meta) if entry.is_file() else {}
        if request.offline:
            if not entry.is_file():
                raise ConfigError(
                    f"channel {channel.text}: its index of {subdir} is not in the cache, and this is offline"
                )
            return entry
        self._log.detail(f"index of {channel.name}/{subdir}")
        with self._make_client() as client, fs.temporary_directory(entry.parent, subdir) as stage:
            for name in ("repodata.json.zst", "repodata.json"):
                url = f"{channel.base}/{subdir}/{name}"
                validators = (
                    {key: value for key, value in known.items() if key != "url"} if known.get("url") == url else {}
                )
                try:
                    found = http.fetch_if_changed(
                        client, url, stage / name, validators=validators, retries=self._retries
                    )
                except http.TransferError as error:
                    if error.status == 404:
                        continue
                    raise BuildError(f"channel {channel.text} cannot be reached: {error}") from error
                if found is not None:
                    self._keep(stage / name, entry, channel)
                    fs.atomic_write(meta, json.dumps({"schema": _SCHEMA, "url": url, **found}, sort_keys=True).encode())
                return entry
        return None

    def _keep(self, fetched: Path, entry: Path, channel: Channel) -> None:
        if fetched.suffix == ".zst":
            self._unpack(fetched, entry, channel)
        else:
            fetched.replace(entry)

    @staticmethod
    def _unpack(packed: Path, target: Path, channel: Channel) -> None:
        import zstandard

        with fs.temporary_directory(target.parent, target.stem) as stage:
            try:
                with (
                    packed.open("rb") as stream,
                    zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(stream) as reader,
                    (stage / "index").open("wb") as out,
                ):
                    shutil.copyfileobj(reader, out, 1 << 20)
            except zstandard.ZstdError as error:
                raise ConfigError(f"channel {channel.text}: {packed.name} is damaged: {error}") from error
            (stage / "index").replace(target)


def _read_meta(path: Path) -> Mapping[str, str]:
    """Return address and validators of a cached index; nothing when they cannot be read."""
    try:
        value = json.loads(fs.read_file(path) or b"{}")
    except ValueError:
        return {}
    if not isinstance(value, dict) or value.get("schema") != _SCHEMA:
        return {}
    keys: Iterable[str] = ("url", "etag", "last-modified")
    return {key: value[key] for key in keys if isinstance(value.get(key), str)}
