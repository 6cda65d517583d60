"""Locking: a solve through Lockyard against rattler's own call, and `lock --check`, on 22,000 real records.

The goals: the solve at most 1.1 of the bare call, `--check` under 0.5 s.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from lockyard.cli.output import ConsoleLog
from lockyard.cli.root import run
from lockyard.conda.channels import parse_channel
from lockyard.conda.indexes import index_path
from lockyard.conda.solve import RattlerSolver
from lockyard.ports.solving import SolveRequest
from support.bench import ROOT, Command, measure, report
from support.realindex import seed_index

SPECS = ("python", "numpy", "pandas", "scikit-learn", "matplotlib", "jupyterlab", "scipy", "pytorch")
SYSTEM = {"__glibc": "2.39", "__linux": "5.10"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cache")
    seed_index(place)
    return place


def test_solve(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both with indexes open, as within one `lock`; what was solved is compared."""
    import rattler

    channel = parse_channel("conda-forge", source="bench")
    indexes = [
        rattler.SparseRepoData(rattler.Channel("conda-forge"), subdir, index_path(cache, channel, subdir))
        for subdir in ("linux-64", "noarch")
    ]
    system = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(text), rattler.BuildString("0"))
        for name, text in {**SYSTEM, "__unix": "0"}.items()
    ]
    found: dict[str, Any] = {}

    async def call() -> None:
        found["bare"] = await rattler.solve_with_sparse_repodata(
            [rattler.MatchSpec(text) for text in SPECS], indexes, virtual_packages=system
        )
        await asyncio.sleep(0.02)  # without it the process may crash at its end: part of any use

    solver = RattlerSolver(cache_dir=cache, log=ConsoleLog(verbosity=-1))
    request = SolveRequest(
        specs=SPECS, channels=("conda-forge",), platform="linux-64", root=cache, virtual_packages=SYSTEM, offline=True
    )

    def ours() -> None:
        found["ours"] = solver.solve(request)

    ours()
    timings = measure({"bare call": lambda: asyncio.run(call()), "through Lockyard": ours}, runs=15)
    assert {item.file_name for item in found["ours"]} == {record.file_name for record in found["bare"]}
    least = timings["through Lockyard"].least / timings["bare call"].least
    with capsys.disabled():
        print(report(f"solve of {len(found['ours'])} packages", timings, f"least over least: {least:.2f} (goal 1.10)"))


def test_check(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lockyard.toml").write_text('name = "bench"\n')
    (tmp_path / "template/v0").mkdir(parents=True)
    virtual = "virtual-packages = { __glibc = '2.39', __linux = '5.10' }\n"
    text = f"schema = 1\n[variants.cpu]\nplatforms = ['linux-64', 'linux-aarch64']\n{virtual}"
    (tmp_path / "template/v0/variants.toml").write_text(text)
    release = tmp_path / "build_artifacts/v0/v0.1/v0.1.0"
    release.mkdir(parents=True)
    (release / "cpu.env.in").write_text("".join(f"{line}\n" for line in SPECS))
    argv = ["--root", str(tmp_path), "-q", "lock", "0.1.0"]
    assert run([*argv, "--offline"], environ={"LOCKYARD_CACHE_DIR": str(cache)}) == 0
    things = {
        "bare interpreter": Command([sys.executable, "-c", "pass"]),
        "lock --check": Command([sys.executable, str(ROOT / "src/main.py"), *argv, "--check"]),
    }
    timings = measure(things, runs=9)
    with capsys.disabled():
        print(report("lock --check, 2 platforms", timings, f"least: {timings['lock --check'].least:.3f} s (goal 0.5)"))
