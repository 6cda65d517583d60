"""Packages over real HTTP on loopback: connections that break, processes that are killed, a cache that is pruned meanwhile."""

import contextlib
import dataclasses
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from lockyard import http
from lockyard.cli.output import ConsoleLog
from lockyard.conda.fetch import PackageCache
from lockyard.conda.formats import write_env_out
from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError
from support.package_server import PackageServer, serve
from support.require import ROOT

pytestmark = pytest.mark.integration

SIZES = [7_000_000, 3_000_000, 1_500_000, 400_000, 50_000, 900]


def conda(name: str, size: int) -> bytes:
    """A package with one file that does not compress."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for part, path, data in (
            ("pkg", f"share/{name}", hashlib.shake_128(name.encode()).digest(size)),
            ("info", "info/index.json", b"{}"),
        ):
            tar = io.BytesIO()
            with tarfile.open(fileobj=tar, mode="w") as members:
                info = tarfile.TarInfo(path)
                info.size = len(data)
                members.addfile(info, io.BytesIO(data))
            archive.writestr(f"{part}-{name}-1-0.tar.zst", zstandard.ZstdCompressor().compress(tar.getvalue()))
    return out.getvalue()


ARCHIVES = {f"p{number}": conda(f"p{number}", size) for number, size in enumerate(SIZES)}
FILES = {f"/channel/noarch/{name}-1-0.conda": data for name, data in ARCHIVES.items()}
TOTAL = sum(map(len, ARCHIVES.values()))


def locked(server: PackageServer, *, weak: bool = False) -> list[LockedPackage]:
    """The packages as a lock has them; `weak` as an `env.out` has them, with md5 only and no size."""
    return [
        LockedPackage(
            name=name, version="1", build="0", subdir="noarch",
            url=f"{server.address}/channel/noarch/{name}-1-0.conda",
            md5=hashlib.md5(data).hexdigest(), sha256=None if weak else hashlib.sha256(data).hexdigest(), size=None if weak else len(data),
        )
        for name, data in ARCHIVES.items()
    ]  # fmt: skip


def packages(cache: Path, waits: list[float]) -> PackageCache:
    return PackageCache(
        cache_dir=cache, log=ConsoleLog(verbosity=-1), retries=http.Retries(sleep=waits.append), workers=3
    )


def check(cache: Path, server: PackageServer, *, fetched: set[bool], weak: bool = False) -> None:
    """Everything is in the cache, as it should be."""
    found = packages(cache, []).fetch(locked(server, weak=weak), root=cache)
    assert {item.fetched for item in found.values()} <= fetched
    for name, data in ARCHIVES.items():
        item = found[f"{name}-1-0"]
        assert item.archive.read_bytes() == data
        assert (item.directory / "share" / name).stat().st_size == SIZES[int(name[1:])]
    assert list((cache / "packages/v1/partial").iterdir()) == []


def test_every_connection_breaks_and_no_byte_is_asked_for_twice(tmp_path: Path) -> None:
    """Each of the first 40 answers ends after 64 kB; the rest is asked for from there."""
    waits: list[float] = []
    with serve(PackageServer(FILES, cut=lambda number: 65_536 if number < 40 else None)) as server:
        packages(tmp_path, waits).fetch(locked(server), root=tmp_path)
        assert server.sent == TOTAL
        assert waits
        check(tmp_path, server, fetched={False})
        assert server.sent == TOTAL


def test_a_long_file_over_a_line_that_always_breaks(tmp_path: Path) -> None:
    """More breaks than tries: as long as each round brings a megabyte it goes on."""
    data = conda("long", 9_000_000)
    package = LockedPackage(
        name="long", version="1", build="0", subdir="noarch", url="", sha256=hashlib.sha256(data).hexdigest(), size=len(data)
    )  # fmt: skip
    with serve(PackageServer({"/c/noarch/long-1-0.conda": data}, cut=lambda _: 400_000)) as server:
        url = f"{server.address}/c/noarch/long-1-0.conda"
        found = packages(tmp_path, []).fetch([dataclasses.replace(package, url=url)], root=tmp_path)["long-1-0"]
        assert found.archive.read_bytes() == data
        assert len(server.requests) > 20


def test_a_server_that_gives_nothing_is_given_up(tmp_path: Path) -> None:
    waits: list[float] = []
    with serve(PackageServer(FILES, cut=lambda _: 0)) as server:
        with pytest.raises(BuildError, match="cannot be fetched"):
            packages(tmp_path, waits).fetch(locked(server)[:1], root=tmp_path)
        assert len(server.requests) == 5
        assert len(waits) == 4


def distribution(root: Path, server: PackageServer) -> Path:
    """A distribution with an adopted release of these packages."""
    place = root / "build_artifacts/v0/v0.1/v0.1.0"
    place.mkdir(parents=True)
    (place / "cpu.env.out").write_text(write_env_out(locked(server), "linux-64"))
    (place / "cpu.env.in").write_text("".join(f"{name}\n" for name in ARCHIVES))
    (place / "source-version.txt").write_text("0.0.0")
    (root / "template/v0").mkdir(parents=True)
    (root / "template/v0/variants.toml").write_text("schema = 1\n[variants.cpu]\n")
    (root / "lockyard.toml").write_text('name = "small"\n')
    return root


@contextlib.contextmanager
def command(root: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "LOCKYARD_CACHE_DIR": str(root / "cache")}
    argv = [sys.executable, str(ROOT / "src/main.py"), "--root", str(root), *args]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def on_disk(cache: Path) -> int:
    """Bytes of archives in the cache, whole or not."""
    place = cache / "packages/v1"
    found = {}
    for path in (*place.glob("partial/*.part"), *place.glob("md5/*/archive.conda")):
        with contextlib.suppress(FileNotFoundError):
            found[path.stat().st_ino] = path.stat().st_size
    return sum(found.values())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9])
def test_killed_it_goes_on_where_it_was(tmp_path: Path, share: float) -> None:
    """Killed with a share of all bytes on disk, the next run asks for exactly what is missing."""
    server = PackageServer(FILES)
    with serve(server):
        root = distribution(tmp_path / "d", server)
        cache = root / "cache"
        with command(root, "cache", "fetch", "0.1.0") as victim:

            def step(total: int) -> None:
                """Send nothing before the client has written what was sent but for a megabyte; kill it at its share."""
                end = time.monotonic() + 30
                while (there := on_disk(cache)) < total - (1 << 20) and time.monotonic() < end:
                    if victim.poll() is not None:
                        return
                if there >= share * TOTAL:
                    victim.kill()

            server.on_bytes = step
            assert victim.wait(60) == -signal.SIGKILL
        server.on_bytes = lambda _: None
        server.forget()
        there = on_disk(cache)
        assert there >= share * TOTAL
        with command(root, "cache", "fetch", "0.1.0") as second:
            output, _ = second.communicate(timeout=60)
        assert second.returncode == 0, output
        assert f"{len(ARCHIVES)} packages" in output
        assert server.sent == TOTAL - there
        check(cache, server, fetched={False}, weak=True)


def test_pruned_beside_a_running_fetch(tmp_path: Path) -> None:
    """While a command holds packages nothing of them goes; once it is killed everything may go."""
    server = PackageServer(FILES)
    with serve(server):
        root = distribution(tmp_path / "d", server)
        with command(root, "cache", "fetch", "0.1.0") as first:
            first.communicate(timeout=60)
        with command(root, "cache", "info", "--kind", "packages") as info:
            assert f"packages  {len(ARCHIVES):>7}" in info.communicate(timeout=60)[0]
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(root / "cache")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with command(root, "cache", "prune", "--older-than", "0s") as prune:
                output = prune.communicate(timeout=60)[0]
            assert f"{len(ARCHIVES)} entries left alone: running commands may use them" in output
            assert "0 entries removed" in output
            holder.kill()
        with command(root, "cache", "prune", "--older-than", "0s", "--kind", "packages") as prune:
            assert f"{len(ARCHIVES)} entries removed" in prune.communicate(timeout=60)[0]
        check(root / "cache", server, fetched={True}, weak=True)


HOLD = """
import sys
from pathlib import Path
from lockyard import cachedir
place = Path(sys.argv[1]) / "packages/v1"
cachedir.use(place, place.glob("*/*/stamp.json"))
print("held", flush=True)
sys.stdin.read()
"""
