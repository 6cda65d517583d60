"""`create` on a real release with 946 packages, among 164 releases, against an interpreter that does nothing.

The goal is at most 0.25 s and 60 MB over the bare interpreter, with no daemon and no network.
"""

import shutil
import sys
from pathlib import Path

import pytest

from lockyard.version import Version, release_dir
from support.bench import ROOT, Command, measure, report
from support.upstream import upstream_distribution

BASE, TARGET = Version(2, 14, 10), Version(2, 14, 11)


def test_create(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = upstream_distribution(tmp_path / "upstream")
    with (root / "template/v2/variants.toml").open("a") as stream:
        stream.write("args = { CUDA_MAJOR_MINOR_VERSION = '12.6' }\n")
    counts = [(root / release_dir(BASE) / f"{name}.env.out").read_text().count("\nhttp") for name in ("cpu", "gpu")]
    lockyard = [sys.executable, str(ROOT / "src/main.py")]
    create = [*lockyard, "--root", str(root), "create-patch-version-artifacts", "--base-patch-version", str(BASE)]
    things = {
        "bare interpreter": Command([sys.executable, "-c", "pass"]),
        "lockyard --version": Command([*lockyard, "--version"]),
        "create": Command(create, prepare=lambda: shutil.rmtree(root / release_dir(TARGET), ignore_errors=True)),
    }
    timings = measure(things, runs=9)
    assert (root / release_dir(TARGET) / "gpu.env.in").is_file()
    bare, made = timings["bare interpreter"], timings["create"]
    assert made.peak is not None
    assert bare.peak is not None
    more = f"over the bare interpreter: {made.least - bare.least:.3f} s, cpu {made.cpu - bare.cpu:.3f} s (goal 0.250)"
    more += f", {(made.peak - bare.peak) / 1e6:.0f} MB (goal 60)"
    with capsys.disabled():
        print(report(f"create {TARGET} from {BASE}: cpu {counts[0]} and gpu {counts[1]} packages", timings, more))
