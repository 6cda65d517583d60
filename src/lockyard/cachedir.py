"""Cache directories that processes share, effects: who uses them, when each entry was used last, taking entries out.

A *place* is one directory of the cache, such as `packages/v1`. A process that works with it says so by `use`: it holds a
lock on a file of its own in `.users/` until it ends, however it ends, and what it is about to read gets the time of now.
`take_out` removes an entry only when it was used last before every process that is at work began. Both hold the place's
lock for a moment, `use` shared, `take_out` alone, so there is no instant in which a reader loses what it has just found.
"""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs

_USERS = ".users"
_LOCK = ".lock"
_TRASH = ".trash-"
_mine: dict[Path, tuple[Path, int]] = {}
"""Place → this process's file in it and the descriptor that holds its lock."""
_guard = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """Something that can be taken out of a cache alone.

    `size` is in bytes on disk, `used` in seconds since the epoch. The times of `markers` are those of the last use;
    `paths` go when the entry goes, the first one first. `unfinished` is what a process left half-done.
    """

    name: str
    size: int
    used: float
    markers: tuple[Path, ...]
    paths: tuple[Path, ...]
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class CacheKind:
    """A kind of things in the cache: its name, what it is in a few words, its place, and how its entries are listed.

    `remove` takes an entry out unless it is in use and tells whether it is gone; `None` stands for `take_out`.
    """

    name: str
    title: str
    place: Path
    entries: Callable[[], Iterable[CacheEntry]]
    remove: Callable[[CacheEntry], bool] | None = None


def use(place: Path, markers: Iterable[Path] = ()) -> None:
    """Keep the entries with these marker files, those that are there, from being taken out until this process ends.

    What is there afterwards stays. A cache that this process may only read is used as it is: nobody prunes it from here.
    """
    try:
        _register(place)
        with _held(place, fcntl.LOCK_SH):
            for marker in markers:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.utime(marker)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise


def take_out(place: Path, entry: CacheEntry) -> bool:
    """Remove an entry, unless a process that is at work may use it; tell whether it is gone.

    Raises `OSError` when the cache cannot be written to.
    """
    with _held(place, fcntl.LOCK_EX):
        if _is_used(place, entry):
            return False
        trash = Path(tempfile.mkdtemp(dir=place, prefix=_TRASH))
        for number, path in enumerate(entry.paths):
            with contextlib.suppress(FileNotFoundError):
                path.rename(trash / str(number))
    fs.remove(trash)
    return True


def last_used(markers: Iterable[Path]) -> float:
    """Return the latest time of the marker files, in seconds since the epoch; 0 when none is there."""
    latest = 0.0
    for marker in markers:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            latest = max(latest, marker.stat().st_mtime)
    return latest


def size_of(path: Path) -> int:
    """Return the bytes on disk of a file or of all that is below a directory; hard links count once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    todo = [os.fspath(path)]
    while todo:
        current = todo.pop()
        with contextlib.suppress(FileNotFoundError, PermissionError):
            found = os.lstat(current)
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
            if stat.S_ISDIR(found.st_mode):
                todo.extend(f"{current}/{name}" for name in os.listdir(current))  # noqa: PTH208 - Path costs four times as much
    return total


def unfinished(place: Path, directories: Iterable[Path]) -> Iterator[CacheEntry]:
    """Yield what processes left half-written directly in `directories`, and half-removed in `place`."""
    found = [path for directory in directories for path in fs.unfinished(directory)]
    with contextlib.suppress(FileNotFoundError):
        found += sorted(path for path in place.iterdir() if path.name.startswith(_TRASH))
    for path in found:
        used = last_used([path])
        yield CacheEntry(
            name=str(path.relative_to(place)),
            size=size_of(path),
            used=used,
            markers=(path,),
            paths=(path,),
            unfinished=True,
        )


@contextlib.contextmanager
def _held(place: Path, how: int) -> Iterator[None]:
    """Hold the lock of a place. Raises `OSError` where the cache cannot be written to."""
    place.mkdir(parents=True, exist_ok=True)
    handle = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def _register(place: Path) -> None:
    """Hold a file in `.users/` for the rest of this process; its time is that of the beginning."""
    with _guard:
        if place in _mine and _mine[place][0].exists():
            return
        users = place / _USERS
        with _held(place, fcntl.LOCK_EX):
            users.mkdir(exist_ok=True)
            _living_users(users)
            handle, name = tempfile.mkstemp(dir=users, prefix=f"{os.getpid()}.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        _mine[place] = (Path(name), handle)


def in_use(place: Path, entry: CacheEntry) -> bool:
    """Tell whether a process that is at work may use an entry."""
    with _held(place, fcntl.LOCK_EX):
        return _is_used(place, entry)


def _is_used(place: Path, entry: CacheEntry) -> bool:
    oldest = min(_living_users(place / _USERS), default=None)
    return oldest is not None and last_used(entry.markers) >= oldest


def _living_users(users: Path) -> list[float]:
    """Return when the processes at work began; the files of dead ones are removed. The place's lock is held alone."""
    began = []
    for path in users.iterdir() if users.is_dir() else ():
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            began.append(os.fstat(handle).st_mtime)
        finally:
            os.close(handle)
    return began
