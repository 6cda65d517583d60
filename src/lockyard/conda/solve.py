"""The solver, effects: rattler over channel indexes on disk. The only caller of rattler's solver.

Traps that this module stands for, each with a test: `solve()` leaks strict channel priority, so only
`solve_with_sparse_repodata` is used; virtual packages are stated, never detected; `exclude_newer` must be UTC; a
preferred record is a candidate even when no channel has it any more, so records are taken from the index, never from
the old lock; and the interpreter crashes when it ends right after a rattler coroutine (`run_rattler`).
"""

import asyncio
import datetime as dt
import json
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from lockyard import http
from lockyard.conda.indexes import Indexes, OpenChannel
from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError, UnsatisfiableError
from lockyard.ports import Log
from lockyard.ports.solving import IndexRecord, SolveRequest

if TYPE_CHECKING:
    import rattler

T = TypeVar("T")
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
        self._indexes = Indexes(cache_dir, log, make_client, retries or http.Retries())

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
        try:
            records = run_rattler(
                rattler.solve_with_sparse_repodata(
                    [_match_spec(spec) for spec in request.specs],
                    [index for channel in channels for index in channel.subdirs],
                    locked_packages=_preferred(channels, request),
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
        except OSError as error:
            # rattler reads records while it solves.
            raise _malformed(error, channels) from error
        return _in_install_order(records, channels)

    def available(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        """Return those of `request.preferred` whose exact package a channel has, with all that it says of them."""
        channels = self._indexes.open(request)
        return tuple(_locked(record, channels) for record in _preferred(channels, request))

    def absent(self, request: SolveRequest) -> frozenset[str]:
        """Return the names in `request.specs` of which no channel has any package for the platform."""
        channels = self._indexes.open(request)
        names = {spec.name.normalized for spec in map(_match_spec, request.specs)}
        return frozenset(name for name in names if name and not any(channel.records(name) for channel in channels))

    def records(self, request: SolveRequest, names: Collection[str]) -> Mapping[str, tuple[IndexRecord, ...]]:
        """Return what the first channel that has a name says of it (the `ChannelIndex` port)."""
        channels = self._indexes.open(request)
        found = {}
        for name in sorted(names):
            records = next((records for channel in channels if (records := channel.records(name))), None)
            if records:
                found[name] = tuple(map(_index_record, records.values()))
        return found


def _malformed(error: OSError, channels: Sequence[OpenChannel]) -> ConfigError:
    for channel in channels:
        why = channel.find_malformed()
        if why is not None:
            return channel.malformed(why)
    return ConfigError(f"a channel's index cannot be read: {error}")


def _preferred(channels: Sequence[OpenChannel], request: SolveRequest) -> list["rattler.RepoDataRecord"]:
    """Return the index's own records for the preferred packages; those that are gone have none."""
    cutoff = _utc(request.exclude_newer)
    asked = _asked_channels(request.specs)
    kept = []
    for package in request.preferred:
        # Strict priority: only the first channel that has the name counts, unless a spec names another.
        allowed = [item for item in channels if asked.get(package.name, item.base_url) == item.base_url]
        record = next((_same(found, package) for channel in allowed if (found := channel.records(package.name))), None)
        if record is not None and (cutoff is None or (record.timestamp is not None and record.timestamp <= cutoff)):
            kept.append(record)
    return kept


def _asked_channels(specs: Iterable[str]) -> dict[str, str]:
    """Return name → base URL of the channel for the specs that name one: such a spec goes before channel priority."""
    found = {}
    for spec in map(_match_spec, specs):
        if spec.channel is not None and spec.name.normalized is not None:
            found[spec.name.normalized] = spec.channel.base_url
    return found


def _same(
    records: Mapping[tuple[str, str], "rattler.RepoDataRecord"], package: LockedPackage
) -> "rattler.RepoDataRecord | None":
    """Return the index record that is the locked package; the `.conda` of a locked `.tar.bz2` build is."""
    name = unquote(package.file_name)
    found = records.get((package.subdir, name))
    if found is None and name.endswith(".tar.bz2"):
        return records.get((package.subdir, f"{name.removesuffix('.tar.bz2')}.conda"))
    if found is None:
        return None
    if package.sha256 is not None and found.sha256 is not None:
        return found if found.sha256.hex() == package.sha256 else None
    return found if package.md5 is None or found.md5 is None or found.md5.hex() == package.md5 else None


def _in_install_order(
    records: Sequence["rattler.RepoDataRecord"], channels: Sequence[OpenChannel]
) -> tuple[LockedPackage, ...]:
    import rattler

    # The sorted records come back without addresses: map them back by name.
    by_name = {record.name.normalized: record for record in records}
    ordered = rattler.PackageRecord.sort_topologically(list(records))
    return tuple(_locked(by_name[record.name.normalized], channels) for record in ordered)


def _locked(record: "rattler.RepoDataRecord", channels: Sequence[OpenChannel]) -> LockedPackage:
    origin = max((item for item in channels if record.url.startswith(item.base_url)), key=_base_length)
    known = origin.locked.get(record.url)
    if known is None:
        known = origin.locked[record.url] = _read_record(record, origin)
    return known


def _base_length(channel: OpenChannel) -> int:
    return len(channel.base_url)


def _read_record(record: "rattler.RepoDataRecord", origin: OpenChannel) -> LockedPackage:
    value = json.loads(record.to_json())
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


def _index_record(record: "rattler.RepoDataRecord") -> IndexRecord:
    moment = record.timestamp
    return IndexRecord(
        name=record.name.normalized,
        version=str(record.version),
        build=str(record.build),
        build_number=record.build_number,
        md5=record.md5.hex() if record.md5 else None,
        sha256=record.sha256.hex() if record.sha256 else None,
        size=record.size,
        timestamp=None if moment is None else round(moment.timestamp() * 1000),
        license=record.license,
        depends=tuple(record.depends),
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
