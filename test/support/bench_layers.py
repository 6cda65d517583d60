"""Layer production, or the compressor alone on the same tars, in a process of its own, as users have it.

`python bench_layers.py produce LOCKYARD-ARGUMENTS…` runs the command and times its engine, `python bench_layers.py compress NAME THREADS TAR…` compresses.
Prints wall and processor time in seconds as JSON, in the last line.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from lockyard.cli.root import run
from lockyard.engines.native import NativeEngine
from lockyard.engines.request import BuildRequest, BuiltImage
from lockyard.oci.tar import BLOCK, open_compressor
from lockyard.oci.values import Compression


def timed(function: Callable[[], Any]) -> Any:
    """Call and print what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
    return result


def produce(argv: Sequence[str]) -> int:
    """Run a `build`; what is timed is the engine alone: reading, checking, tar, two hashes, compressing, writing."""
    real = NativeEngine.build

    def build(self: NativeEngine, request: BuildRequest) -> BuiltImage:
        built: BuiltImage = timed(lambda: real(self, request))
        return built

    with mock.patch.object(NativeEngine, "build", build):
        return run(argv, environ=os.environ)


def compress(name: Compression, threads: int, paths: Sequence[str]) -> int:
    """Compress tars, the largest first, as many at a time as there are threads."""

    def one(path: str) -> None:
        compressor = open_compressor(name, lambda _: None, executor, threads)
        with Path(path).open("rb") as stream:
            while data := stream.read(BLOCK):
                compressor.write(data)
        compressor.close()

    with ThreadPoolExecutor(threads) as executor, ThreadPoolExecutor(threads) as layers:
        timed(lambda: list(layers.map(one, sorted(paths, key=lambda path: -Path(path).stat().st_size))))
    return 0


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    sys.exit(produce(rest) if what == "produce" else compress(cast(Compression, rest[0]), int(rest[1]), rest[2:]))
