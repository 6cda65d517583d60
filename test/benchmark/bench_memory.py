"""Peak memory of layer production for an environment of more than 6 GB: 600 packages with 60,000 files, six of 1 GiB (sparse)."""

import json
import sys
from pathlib import Path

import pytest

from support.bench import ROOT, Command, measure, report
from support.packages import Node, Package

pytestmark = pytest.mark.timeout(3600)

BUILD = """
import sys
from pathlib import Path
from lockyard.engines.native import NativeEngine
from lockyard.engines.request import Base, BuildRequest
from lockyard.oci.cache import BlobCache
from lockyard.oci.image import empty_image, oci_platform
from lockyard.oci.layering import LayerPlan
from lockyard.version import Version
from support.effects import RecordingLog
from support.packages import DirectorySource
from benchmark.bench_memory import packages

place = Path(sys.argv[1])
locked = tuple(item.locked() for item in packages())
when = "2026-01-15T00:00:00Z"
request = BuildRequest(
    version=Version.parse("1.0.0"), image_type="cpu", platform="linux-64", packages=locked,
    fetched=DirectorySource(place / "packages").fetch(locked, root=place),
    plan=LayerPlan({item.name: f"layer-{number % 80:03}" for number, item in enumerate(locked)}),
    base=Base("scratch", None, empty_image(oci_platform("linux-64"), when), {}), prefix="/opt/conda", owner=(0, 0),
    created=when, title="t", compression=sys.argv[2], workers=4,
)
built = NativeEngine(BlobCache(place / f"cache-{sys.argv[2]}"), RecordingLog()).build(request)
assert sum(layer.uncompressed for layer in built.layers) > 6 << 30
"""
GIB = 1 << 30


def packages() -> list[Package]:
    """The packages; their big files are made longer on disk."""
    found = [
        Package(
            f"package-{number:03}",
            files={f"lib/package-{number:03}/{part // 20}/file-{part}.py": Node(b"x = %d\n" % part) for part in range(100)},
        )
        for number in range(600)
    ]  # fmt: skip
    return found + [Package(f"big-{number}", files={f"lib/big-{number}.bin": Node(b"")}) for number in range(6)]


def test_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for item in packages():
        item.extract(tmp_path / "packages")
        if item.name.startswith("big"):
            place = tmp_path / "packages" / item.locked().dist
            (binary,) = place.glob("lib/*.bin")
            with binary.open("r+b") as stream:
                stream.truncate(GIB)
            (place / "info/paths.json").write_text(
                json.dumps(
                    {
                        "paths_version": 1,
                        "paths": [{"_path": f"lib/{binary.name}", "path_type": "hardlink", "size_in_bytes": GIB}],
                    }
                )
            )
    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'test'}:{ROOT / 'tools'}", "PATH": "/usr/bin:/bin"}
    commands = {
        f"6 GiB, 60,000 files, {name}": Command([sys.executable, "-c", BUILD, str(tmp_path), name], env=env)
        for name in ("gzip", "zstd")
    }
    found = measure(commands, runs=1)
    peaks = ", ".join(f"{(timing.peak or 0) / 1e6:.0f} MB" for timing in found.values())
    assert all(timing.peak for timing in found.values())
    with capsys.disabled():
        print(report("memory of layer production, 4 workers", found, f"peaks: {peaks} (goal 300 MB)"))
