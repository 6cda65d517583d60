"""Atomic writes, swaps and what an interruption leaves."""

import contextlib
import os
from pathlib import Path

import pytest

from lockyard import fs
from lockyard.errors import LockyardError
from lockyard.tree import File, Tree


def listing(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_tree_round_trip(tmp_path: Path) -> None:
    """What is written is read: data, modes, links."""
    tree = Tree({"a/b.sh": File(b"#!/bin/sh\n", 0o755), "a/link": File.link("b.sh"), "c": File(b"\0\xff")})
    fs.write_tree(tree, tmp_path / "target")
    assert fs.read_tree(tmp_path / "target") == tree
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o755


def test_swap_keeps_what_is_asked(tmp_path: Path) -> None:
    """Kept paths live on as the same inodes; the rest of the old directory goes."""
    target = tmp_path / "v1"
    fs.write_tree(Tree({"old": File(b"old"), "mine": File(b"mine"), "v1-beta/x": File(b"x")}), target)
    inode = (target / "mine").stat().st_ino
    fs.write_tree(Tree({"new": File(b"new")}), target, keep=("mine", "v1-beta"))
    assert listing(target) == {"new": b"new", "mine": b"mine", "v1-beta/x": b"x"}
    assert (target / "mine").stat().st_ino == inode
    assert os.listdir(tmp_path) == ["v1"]


def test_failure_leaves_the_old_state(tmp_path: Path) -> None:
    """A stage that cannot be written leaves nothing behind."""
    target = tmp_path / "v1"
    fs.write_tree(Tree({"a": File(b"a")}), target)
    with pytest.raises(OSError):
        fs.write_tree(Tree({"x" * 300: File(b"")}), target)
    assert listing(tmp_path) == {"v1/a": b"a"}
    assert os.listdir(tmp_path) == ["v1"]


def test_leftovers(tmp_path: Path) -> None:
    """An old directory without its new one comes back; stages and finished swaps are cleaned away."""
    line = tmp_path / "build_artifacts" / "v1" / "v1.0"
    (line / ".v1.0.0.old").mkdir(parents=True)
    (line / ".v1.0.0.old" / "a").write_bytes(b"a")
    (line / ".v1.0.1.new-abc").mkdir()
    (line / "v1.0.2").mkdir()
    (line / ".v1.0.2.old").mkdir()
    assert len(fs.leftovers(tmp_path)) == 3
    assert len(fs.restore_leftovers(tmp_path)) == 3
    assert sorted(os.listdir(line)) == ["v1.0.0", "v1.0.2"]
    assert (line / "v1.0.0" / "a").read_bytes() == b"a"


def test_lock_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    with contextlib.ExitStack() as other:
        other.enter_context(fs.lock(tmp_path / "lock"))
        told: list[str] = []
        waited: list[float] = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                other.close()

        with fs.lock(tmp_path / "lock", patience=60, tell=told.append, wait=wait):
            assert len(waited) == 3
        assert told == [f"another lockyard command is writing here (process {os.getpid()}): waiting up to 60 s"]
        with fs.lock(tmp_path / "lock"):
            waited.clear()
            with pytest.raises(LockyardError), fs.lock(tmp_path / "lock", patience=1, wait=waited.append):
                pass
            assert sum(waited) == pytest.approx(1)


def test_lock_is_exclusive(tmp_path: Path) -> None:
    """A second holder is told who holds it."""
    with fs.lock(tmp_path / "lock"), pytest.raises(LockyardError, match=str(os.getpid())), fs.lock(tmp_path / "lock"):
        pass
    with fs.lock(tmp_path / "lock"):
        pass


def test_atomic_write(tmp_path: Path) -> None:
    """Replaces, makes parents, leaves no temporary name."""
    fs.atomic_write(tmp_path / "a" / "b", b"1")
    fs.atomic_write(tmp_path / "a" / "b", b"2", 0o600)
    assert (tmp_path / "a" / "b").read_bytes() == b"2"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "a") == ["b"]


def test_sweep_old_removes_old_leftovers_only(tmp_path: Path) -> None:
    for name in (".old.new-a", ".young.new-b", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    for name in (".old.new-a", "kept"):
        os.utime(tmp_path / name, (1, 1))
    fs.sweep_old(tmp_path)
    fs.sweep_old(tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".young.new-b", "kept"]
