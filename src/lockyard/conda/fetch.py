"""The package cache, effects: archives brought in, checked by hash, taken apart safely, kept as one step.

`packages/v1/KIND/HEX/` holds `archive.conda` (or `archive.tar.bz2`), the extracted `files/`, `digests.json` of them and `stamp.json`. It appears
by one rename, so it is whole or not there; readers take no lock. `packages/v1/partial/` holds downloads under way, which
a later run continues. Nothing of a package whose bytes are not those of the lock, or whose archive names a place outside
of the package, is ever kept. The archive is hashed when it comes, and again when its size or time is not what it was then.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from lockyard import cachedir, fs, http
from lockyard.conda import digests
from lockyard.conda.archive import unpack
from lockyard.conda.channels import parse_package_url, redact
from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError, HashMismatchError
from lockyard.ports import Log
from lockyard.ports.solving import FetchedPackage

_SCHEMA = 1
_CHUNK = 1 << 20
_WORKERS = 8
Progress = Callable[[int], None]


class PackageCache:
    """The `PackageSource` port: packages below `cache_dir`; any number of processes may use it at once.

    `make_client` and `retries` are for tests; a client is only made when something must come over HTTP.
    """

    def __init__(
        self,
        *,
        cache_dir: Path,
        log: Log,
        workers: int = _WORKERS,
        make_client: Callable[[], Any] = http.make_client,
        retries: http.Retries | None = None,
    ) -> None:
        self._place = cache_dir / "packages" / "v1"
        self._log = log
        self._workers = workers
        self._make_client = make_client
        self._retries = retries or http.Retries()

    def fetch(
        self, packages: Sequence[LockedPackage], *, root: Path, files: Mapping[str, Path] | None = None
    ) -> Mapping[str, FetchedPackage]:
        """Bring all `packages` into the cache; `file:` addresses are relative to `root`.

        `files` is `dist` → the package file to take instead of what the address leads to.

        Raises:
            HashMismatchError: bytes differ from the lock; nothing of that package is kept.
            BuildError: a package cannot be reached, has no hash, or its archive is damaged or hostile.
            ConfigError: an address leaves the root.

        """
        wanted = {package.dist: package for package in packages}
        weak = [dist for dist, package in wanted.items() if package.sha256 is None and package.md5 is not None]
        if weak:
            self._log.warning(f"{len(weak)} packages are checked by md5 only, the lock has no sha256: {_some(weak)}")
        places = {dist: self._entry(package) for dist, package in wanted.items()}
        cachedir.use(self._place, (_stamp_path(entry) for entry in places.values()))
        missing = [package for dist, package in wanted.items() if not _stamp_path(places[dist]).is_file()]
        total = sum(package.size or 0 for package in missing) if all(item.size for item in missing) else None
        with contextlib.ExitStack() as stack:
            client = _LazyClient(self._make_client, stack)
            advance = stack.enter_context(self._progress(len(missing), total))
            pool = ThreadPoolExecutor(self._workers, thread_name_prefix="fetch")
            # On the first failure what has not begun is dropped; what runs ends by itself.
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            # The largest first: else one of them is often what all wait for at the end.
            order = sorted(wanted.items(), key=lambda item: -(item[1].size or 0))
            jobs = {
                dist: pool.submit(self._one, item, (files or {}).get(dist), root, client, advance)
                for dist, item in order
            }
            failed = next((job for job in as_completed(jobs.values()) if job.exception() is not None), None)
            if failed is not None:
                failed.result()
            return {dist: jobs[dist].result() for dist in wanted}

    def _progress(self, count: int, total: int | None) -> contextlib.AbstractContextManager[Progress]:
        if not count:
            return contextlib.nullcontext(lambda _: None)
        return self._log.progress(f"fetching {count} package{'s' * (count != 1)}", total, "B")

    def _entry(self, package: LockedPackage) -> Path:
        kind, digest = _key(package)
        return self._place / kind / digest

    def _part(self, package: LockedPackage) -> Path:
        return self._place / "partial" / f"{'-'.join(_key(package))}.part"

    def _one(
        self, package: LockedPackage, file: Path | None, root: Path, client: "_LazyClient", advance: Progress
    ) -> FetchedPackage:
        parse_package_url(package.url, source=package.dist)
        entry = self._entry(package)
        archive = entry / f"archive{'.conda' if package.url.endswith('.conda') else '.tar.bz2'}"
        if not self._is_sound(package, entry, archive):
            with _wait_for(entry.with_name(f".{entry.name}.lock")):
                if not self._is_sound(package, entry, archive, quiet=True):
                    get = functools.partial(self._get, package, file, root, client, advance)
                    self._bring(package, entry, archive.name, get, advance)
                    return FetchedPackage(package, archive, entry / "files", fetched=True)
        part = self._part(package)
        if part.exists():  # of a process that was killed after its last step but this
            part.unlink(missing_ok=True)
        return FetchedPackage(package, archive, entry / "files", fetched=False)

    def _is_sound(self, package: LockedPackage, entry: Path, archive: Path, *, quiet: bool = False) -> bool:
        """Tell whether the entry is there and its archive is still the bytes of the lock."""
        data = fs.read_file(_stamp_path(entry))
        if data is None:
            return False
        try:
            stamp = json.loads(data)
            sound = stamp["schema"] == _SCHEMA and (entry / "files").is_dir()
            if sound and not (stamp.get("archive") == _identity(archive) and _matches(package, stamp)):
                found = _digests(archive, package)
                sound = stamp["sha256"] == found["sha256"] and _matches(package, found)
        except (OSError, ValueError, KeyError, TypeError):
            sound = False
        if not sound and not quiet:
            self._log.warning(f"{package.dist}: its files in the package cache were changed; fetching it again")
        return sound

    def _bring(
        self, package: LockedPackage, entry: Path, name: str, get: Callable[[Path], None], advance: Progress
    ) -> None:
        part = self._part(package)
        part.parent.mkdir(parents=True, exist_ok=True)
        cachedir.use(self._place, [part])
        resumed = part.exists()
        found = {}
        if resumed:
            advance(part.stat().st_size)
            found = _digests(part, package)
        if not resumed or not _matches(package, found):
            get(part)
            found = _digests(part, package)
        if resumed and not _matches(package, found):
            # What an earlier run left may itself be wrong: once more from the first byte.
            advance(-part.stat().st_size)
            part.unlink()
            get(part)
            found = _digests(part, package)
        if not _matches(package, found):
            part.unlink()
            kind, expected = _key(package)
            raise HashMismatchError(
                f"{package.dist}: the bytes at {redact(package.url)} are not those of the lock",
                hint="if the channel replaced the package on purpose, lock again: lockyard lock",
                details=(f"{kind} in the lock: {expected}", f"{kind} received:    {found[kind]}"),
            )
        for stale in entry.parent.glob(f".{entry.name}.new-*"):  # of a killed process: the entry's lock is ours
            shutil.rmtree(stale)
        with fs.temporary_directory(entry.parent, entry.name) as stage:
            _link(part, stage / name)
            try:
                known = unpack(stage / name, stage / "files")
            except BuildError as error:
                part.unlink(missing_ok=True)
                raise BuildError(f"{package.dist}: {error.message}", hint=error.hint, details=error.details) from error
            (stage / digests.FILE_NAME).write_text(digests.to_json(known))
            disk = cachedir.size_of(stage)
            stamp = {
                "schema": _SCHEMA, "dist": package.dist, "archive": _identity(stage / name), "disk": disk, **found
            }  # fmt: skip
            _stamp_path(stage).write_text(json.dumps(stamp, sort_keys=True))
            stage.chmod(0o755)
            if entry.exists():
                shutil.rmtree(entry)
            stage.rename(entry)
        part.unlink(missing_ok=True)

    def _get(
        self,
        package: LockedPackage,
        file: Path | None,
        root: Path,
        client: "_LazyClient",
        advance: Progress,
        part: Path,
    ) -> None:
        if file is not None or package.url.startswith("file:"):
            _copy(file or _local_path(package, root), part, package, advance)
            return
        try:
            http.download(client.get(), package.url, part, size=package.size, retries=self._retries, progress=advance)
        except http.TransferError as error:
            hint = "the channel has it no more: lock again" if error.status in {404, 410} else None
            raise BuildError(f"{package.dist} cannot be fetched: {error}", hint=hint) from error


class _LazyClient:
    """One client for all threads, made at first use, closed with the stack."""

    def __init__(self, make: Callable[[], Any], stack: contextlib.ExitStack) -> None:
        import threading

        self._make = make
        self._stack = stack
        self._guard = threading.Lock()
        self._client: Any = None

    def get(self) -> Any:
        with self._guard:
            if self._client is None:
                self._client = self._stack.enter_context(self._make())
            return self._client


def _key(package: LockedPackage) -> tuple[str, str]:
    if package.sha256 is not None:
        return "sha256", package.sha256
    if package.md5 is not None:
        return "md5", package.md5
    raise BuildError(
        f"{package.dist}: the lock has no hash for it, so nothing can check what is fetched",
        hint="lock the release again: lockyard lock",
    )


def _matches(package: LockedPackage, found: Mapping[str, object]) -> bool:
    kind, expected = _key(package)
    return found.get(kind) == expected


def _stamp_path(entry: Path) -> Path:
    return entry / "stamp.json"


def _link(part: Path, archive: Path) -> None:
    """Give the whole download its name beside the files; it is in `partial/` until these are there, too."""
    try:
        archive.hardlink_to(part)
    except OSError:  # a file system without hard links
        part.replace(archive)


def _identity(path: Path) -> list[int]:
    """Return what changes when a file is written to: its size and time."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _digests(path: Path, package: LockedPackage) -> dict[str, str]:
    """Return the sha256 of a file, and its md5 where the lock has nothing better."""
    states = {"sha256": hashlib.sha256()}
    if package.sha256 is None:
        states["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            for state in states.values():
                state.update(chunk)
    return {kind: state.hexdigest() for kind, state in states.items()}


def _local_path(package: LockedPackage, root: Path) -> Path:
    """Return the file behind a `file:` address; `parse_package_url` has refused what leaves the root."""
    if package.url.startswith("file:///"):
        return Path(unquote(urlsplit(package.url).path))
    return fs.inside(root, unquote(package.url.removeprefix("file:")), source=package.dist)


def _copy(source: Path, part: Path, package: LockedPackage, advance: Progress) -> None:
    try:
        with source.open("rb") as stream, part.open("ab") as out:
            stream.seek(out.tell())
            _pour(stream, out, advance)
    except (FileNotFoundError, NotADirectoryError) as error:
        part.unlink(missing_ok=True)
        raise BuildError(
            f"{package.dist}: {package.url} does not exist", hint="the channel has it no more: lock again"
        ) from error


def _pour(stream: IO[bytes], out: IO[bytes], advance: Progress) -> None:
    while chunk := stream.read(_CHUNK):
        out.write(chunk)
        advance(len(chunk))


@contextlib.contextmanager
def _wait_for(path: Path) -> Iterator[None]:
    """Hold the lock file, waiting for other threads and processes that fetch the same package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                current = path.stat().st_ino == os.fstat(handle.fileno()).st_ino
            except FileNotFoundError:
                current = False
            if current:  # else it was taken out of the cache while we waited, and others hold a newer one
                yield
                return


def cache_kind(cache_dir: Path) -> cachedir.CacheKind:
    """Return how the packages in the cache are listed."""
    place = cache_dir / "packages" / "v1"
    return cachedir.CacheKind("packages", "package archives and their files", place, lambda: _entries(place))


def _entries(place: Path) -> Iterator[cachedir.CacheEntry]:
    kinds = [place / "sha256", place / "md5"]
    yield from cachedir.unfinished(place, [*kinds, place / "partial"])
    for part in sorted((place / "partial").glob("*.part")):
        yield cachedir.CacheEntry(
            name=f"partial/{part.name}", size=cachedir.size_of(part), used=cachedir.last_used([part]), markers=(part,),
            paths=(part,), unfinished=True,
        )  # fmt: skip
    for entry in (path for kind in kinds for path in sorted(kind.glob("[0-9a-f]*"))):
        stamp = _read_stamp(entry)
        markers = (_stamp_path(entry),)
        disk = stamp.get("disk")
        yield cachedir.CacheEntry(
            name=str(stamp.get("dist") or f"{entry.parent.name}/{entry.name}"),
            size=disk if isinstance(disk, int) else cachedir.size_of(entry),
            used=cachedir.last_used(markers),
            markers=markers,
            paths=(entry, entry.with_name(f".{entry.name}.lock")),
        )


def _read_stamp(entry: Path) -> Mapping[str, object]:
    try:
        value = json.loads(fs.read_file(_stamp_path(entry)) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
