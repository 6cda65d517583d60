"""Shared cache directories: what is in use stays, whatever dies; and the rule of what goes first."""

import datetime as dt
import errno
import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard import cachedir
from lockyard.app.cache import UNFINISHED, plan_prune
from lockyard.cachedir import CacheEntry
from lockyard.cli.meter import Meter, human_time

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def entry(path: Path, used: float = 1000.0) -> CacheEntry:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 100)
    os.utime(path, (used, used))
    return CacheEntry(name=path.name, size=100, used=used, markers=(path,), paths=(path,))


def other_process(place: Path, began: float) -> int:
    """What another process holds: its locked file in `.users/`, as old as its beginning."""
    users = place / ".users"
    users.mkdir(parents=True, exist_ok=True)
    handle = os.open(users / "77.other", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.utime(users / "77.other", (began, began))
    return handle


def test_what_nobody_uses_goes(tmp_path: Path) -> None:
    old = entry(tmp_path / "a")
    assert cachedir.take_out(tmp_path, old)
    assert not old.paths[0].exists()
    assert not list(tmp_path.glob(".trash-*"))
    assert cachedir.take_out(tmp_path, old), "what is gone is gone"


def test_what_a_running_process_has_used_stays_until_it_ends(tmp_path: Path) -> None:
    before, after = entry(tmp_path / "before", 1000.0), entry(tmp_path / "after", 3000.0)
    handle = other_process(tmp_path, 2000.0)
    assert cachedir.in_use(tmp_path, after)
    assert not cachedir.take_out(tmp_path, after)
    assert not cachedir.in_use(tmp_path, before)
    assert cachedir.take_out(tmp_path, before), "used before every running process began"
    os.close(handle)
    assert cachedir.take_out(tmp_path, after)
    assert list((tmp_path / ".users").iterdir()) == [], "the file of a dead process goes"


def test_use_renews_and_registers(tmp_path: Path) -> None:
    old = entry(tmp_path / "a")
    cachedir.use(tmp_path, [*old.markers, tmp_path / "absent"])
    assert cachedir.last_used(old.markers) > 2000.0
    assert not cachedir.take_out(tmp_path, old), "this process uses it"
    cachedir.use(tmp_path)
    assert len(list((tmp_path / ".users").iterdir())) == 1


def test_a_deleted_cache_is_registered_again(tmp_path: Path) -> None:
    import shutil

    place = tmp_path / "v1"
    cachedir.use(place)
    shutil.rmtree(place)
    cachedir.use(place)
    assert len(list((place / ".users").iterdir())) == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_cache_that_may_only_be_read_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Root may write everywhere, so that the refusal is the system's word only."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    cachedir.use(tmp_path / "v1")


def test_a_cache_on_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="No space"):
        cachedir.use(tmp_path / "v1")


def test_sizes_count_hard_links_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 8192)
    alone = cachedir.size_of(tmp_path)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert cachedir.size_of(tmp_path) == alone
    (tmp_path / "c").symlink_to("/")
    assert cachedir.size_of(tmp_path) - alone < 8192


def made(name: str, days: float, size: int = 10, *, unfinished: bool = False) -> tuple[str, CacheEntry]:
    used = (NOW - dt.timedelta(days=days)).timestamp()
    return "packages", CacheEntry(name=name, size=size, used=used, markers=(), paths=(), unfinished=unfinished)


def names(entries: list[tuple[str, CacheEntry]], days: int | None = None, size: int | None = None) -> list[str]:
    limit = dt.timedelta(days=days) if days is not None else None
    return [f"{item.entry.name} {item.why}" for item in plan_prune(entries, NOW, limit, size)]


def test_what_goes() -> None:
    entries = [
        made("new", 1),
        made("old", 40),
        made("older", 50),
        made("half", 2, unfinished=True),
        made("now", 0.5, unfinished=True),
    ]
    assert dt.timedelta(days=1) == UNFINISHED
    assert names(entries) == ["half unfinished"]
    assert names(entries, days=30) == ["older old", "old old"]
    assert names(entries, size=25) == ["older size", "old size", "half unfinished"]
    assert names(entries, days=45, size=40) == ["older old"]
    assert names(entries, size=0) == ["older size", "old size", "half unfinished", "new size", "now size"]


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000), st.booleans()), max_size=20),
    st.none() | st.integers(0, 100),
    st.none() | st.integers(0, 5000),
)
def test_laws_of_pruning(data: list[tuple[float, int, bool]], days: int | None, size: int | None) -> None:
    """What stays fits, is young enough, and was used after all that went for its size alone."""
    entries = [made(str(number), *item[:2], unfinished=item[2]) for number, item in enumerate(data)]
    limit = dt.timedelta(days=days) if days is not None else None
    plan = plan_prune(entries, NOW, limit, size)
    gone = {item.entry.name for item in plan}
    stay = [item for _, item in entries if item.name not in gone]
    if size is not None:
        assert sum(item.size for item in stay) <= size
    if limit is not None:
        assert all(item.used >= (NOW - limit).timestamp() for item in stay)
    for item in plan:
        if item.why == "size":
            assert all(item.entry.used <= other.used for other in stay)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_line_now_and_then_with_rate_and_time_left() -> None:
    clock, lines = Clock(), list[str]()
    meter = Meter("fetching 3 packages", 200_000_000, "B", lines.append, every=10, clock=clock)
    meter.add(10_000_000)
    clock.seconds = 10
    meter.add(10_000_000)
    clock.seconds = 12
    meter.add(5_000_000)
    clock.seconds = 25
    meter.add(25_000_000)
    assert lines == [
        "fetching 3 packages: 20 MB of 200 MB, 2 MB/s, 1 min 30 s left",
        "fetching 3 packages: 50 MB of 200 MB, 2 MB/s, 1 min 15 s left",
    ]
    assert meter.summary() == "fetching 3 packages: 50 MB in 25 s, 2 MB/s"


def test_without_a_total_and_without_bytes() -> None:
    clock, lines = Clock(), list[str]()
    meter = Meter("tests", None, "test", lines.append, every=1, clock=clock)
    assert meter.summary() == "tests: 0 test"
    clock.seconds = 2
    meter.add(4)
    assert lines == ["tests: 4 test, 2 test/s"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (90061, "25 h 1 min")]
)
def test_times(seconds: float, text: str) -> None:
    assert human_time(seconds) == text
