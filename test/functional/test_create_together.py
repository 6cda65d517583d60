"""Two create commands at the same time: real processes that wait for each other, and one that gives up clearly."""

import subprocess
import sys
from pathlib import Path

import pytest

from lockyard import fs
from lockyard.app import create
from lockyard.app.workspace import open_workspace
from lockyard.cli.root import run
from lockyard.version import Version, release_dir
from support.releases import release, write_distribution

SRC = Path(__file__).resolve().parents[2] / "src"
PATCH, MINOR = "create-patch-version-artifacts", "create-minor-version-artifacts"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_distribution(tmp_path / "small", {"1.4.0": release()})


def start(root: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lockyard", "--root", str(root), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(SRC), "LOCKYARD_CACHE_DIR": str(root / "cache")},
    )


def together(root: Path, *commands: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Start the commands while the distribution is locked, let them go when each is waiting, and return how they ended."""
    with fs.lock(root / ".lockyard" / "lock"):
        processes = [start(root, *command) for command in commands]
        for process in processes:
            assert process.stderr is not None
            heard = [process.stderr.readline()]
            while heard[-1] and "waiting up to" not in heard[-1]:
                heard.append(process.stderr.readline())
            assert "another lockyard command is writing here" in heard[-1], heard
    ended = [process.communicate(timeout=60) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, ended, strict=True)]


def test_the_same_release_twice(root: Path) -> None:
    """One makes it, the other finds it made: what was planned before the wait is planned again."""
    command = (PATCH, "--base-patch-version", "1.4.0")
    first, second = sorted(together(root, command, command))
    assert first[:2] == (0, "build_artifacts/v1/v1.4/v1.4.1\n")
    assert second[:2] == (3, "")
    assert "1.4.1 exists" in second[2]
    assert "Traceback" not in first[2] + second[2]
    whole = fs.read_tree(root / release_dir(Version(1, 4, 1)))
    assert sorted(whole) == ["cpu.env.in", "gpu.env.in", "source-version.txt"]
    assert not fs.leftovers(root)


def test_the_same_release_twice_by_force(root: Path) -> None:
    """The second replaces what the first made; a file written between keeps its hand-written state."""
    fs.atomic_write(root / release_dir(Version(1, 4, 1)) / "cpu.additional_packages_env.in", b"scipy\n")
    command = (PATCH, "--base-patch-version", "1.4.0", "--force")
    assert [code for code, *_ in together(root, command, command, command)] == [0, 0, 0]
    place = root / release_dir(Version(1, 4, 1))
    assert (place / "cpu.env.in").read_text().splitlines()[1] == "scipy"
    assert (place / "cpu.additional_packages_env.in").read_bytes() == b"scipy\n"
    assert not fs.leftovers(root)


def test_two_releases(root: Path) -> None:
    codes = [
        code
        for code, *_ in together(
            root, (PATCH, "--base-patch-version", "1.4.0"), (MINOR, "--base-patch-version", "1.4.0")
        )
    ]
    assert codes == [0, 0]
    assert [str(version) for version in open_workspace(root).versions()] == ["1.4.0", "1.4.1", "1.5.0"]
    assert not fs.leftovers(root)


def test_patience_ends(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A long build holds the distribution: one clear message, nothing written."""
    monkeypatch.setattr(create, "_PATIENCE", 0.0)
    with fs.lock(root / ".lockyard" / "lock"):
        code = run(["--root", str(root), PATCH, "--base-patch-version", "1.4.0"], environ={})
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert "error: another lockyard command is writing here (process " in err
    assert "next: wait for it to end" in err
    assert not (root / release_dir(Version(1, 4, 1))).exists()
