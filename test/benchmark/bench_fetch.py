"""Fetching packages in parallel against one stream after the other, from a server on loopback in a process of its own.

The single stream is what `curl` does for a list of addresses: one connection, one file after the other, nothing checked and nothing
unpacked. Lockyard's fetch hashes and unpacks, too. Each answer of the server begins 60 ms after the question, as over a network; the
speed of the line is that of the loopback.
"""

import hashlib
import io
import itertools
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from lockyard import http
from lockyard.cli.output import ConsoleLog
from lockyard.conda.fetch import PackageCache
from lockyard.conda.lock import LockedPackage
from support.bench import ROOT, measure, report

COUNT, FILES, SIZE = 80, 40, 8_000
LATENCY = 0.06  # seconds to the first byte, as from a channel some thousand kilometres away
SERVER = """
import pathlib, sys, time
from support.package_server import PackageServer, serve
files = {f"/c/noarch/{path.name}": path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()}
with serve(PackageServer(files, delay=lambda: time.sleep(float(sys.argv[2])))) as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""


def archive(name: str) -> bytes:
    """A package of `FILES` files that do not compress."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as outer:
        for part, files in (
            ("pkg", [f"lib/{name}/{number}" for number in range(FILES)]),
            ("info", ["info/index.json"]),
        ):
            tar = io.BytesIO()
            with tarfile.open(fileobj=tar, mode="w") as members:
                for path in files:
                    info = tarfile.TarInfo(path)
                    info.size = SIZE
                    members.addfile(info, io.BytesIO(hashlib.shake_128(f"{name}{path}".encode()).digest(SIZE)))
            outer.writestr(f"{part}-{name}-1-0.tar.zst", zstandard.compress(tar.getvalue()))
    return out.getvalue()


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LockedPackage]]:
    """The packages of a channel that a process of its own serves."""
    place = tmp_path_factory.mktemp("channel")
    archives = {f"p{number}": archive(f"p{number}") for number in range(COUNT)}
    for name, data in archives.items():
        (place / f"{name}-1-0.conda").write_bytes(data)
    argv = [sys.executable, "-c", SERVER, str(place), str(LATENCY)]
    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'test'}"}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        yield [
            LockedPackage(
                name=name, version="1", build="0", subdir="noarch", url=f"{address}/c/noarch/{name}-1-0.conda",
                sha256=hashlib.sha256(data).hexdigest(), size=len(data),
            )
            for name, data in archives.items()
        ]  # fmt: skip
        server.kill()


def test_fetch(channel: list[LockedPackage], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = itertools.count()

    def single() -> None:
        target = tmp_path / f"single-{next(numbers)}"
        target.mkdir()
        with http.make_client() as client:
            for package in channel:
                with client.stream("GET", package.url) as answer, (target / package.dist).open("wb") as out:
                    for chunk in answer.iter_raw():
                        out.write(chunk)

    def fetch(workers: int, *, anew: bool = True) -> Callable[[], None]:
        def run() -> None:
            cache = tmp_path / (f"cache-{next(numbers)}" if anew else "cache")
            log = ConsoleLog(verbosity=-1)
            found = PackageCache(cache_dir=cache, log=log, workers=workers).fetch(channel, root=tmp_path)
            assert len(found) == COUNT

        return run

    things: dict[str, Callable[[], object]] = {
        "one stream, one after the other": single,
        "fetch, 1 worker": fetch(1),
        "fetch, 8 workers": fetch(8),
        "fetch, all in the cache": fetch(8, anew=False),
    }
    fetch(8, anew=False)()
    timings = measure(things, runs=3)
    size = sum(package.size or 0 for package in channel) / 1e6
    faster = timings["one stream, one after the other"].least / timings["fetch, 8 workers"].least
    with capsys.disabled():
        print(
            report(
                f"fetch of {COUNT} packages, {size:.0f} MB, {COUNT * FILES} files, {LATENCY * 1000:.0f} ms to each answer",
                timings,
                f"parallel fetch (hashed, unpacked) is {faster:.1f} times as fast as one stream (neither)",
            )
        )
