"""`import pandas` in a fresh container with and without compiled modules, and what they cost in bytes.

The numbers behind the default of `compile-pyc` (docs/decisions/0004-compiled-modules.md).
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from demochannel.editions import EDITIONS
from support.bench import ROOT, Command, Timing, measure, report
from support.demo import demo_base, demo_channel
from support.require import need

VERSION = "0.1.0"


def test_startup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("sandbox", "debian")
    env = {**os.environ, "LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}
    things, sizes = {}, {}
    for name, value in (("compiled", "true"), ("not compiled", "false")):
        root = tmp_path / value / "data-science"
        shutil.copytree(
            ROOT / "examples" / "data-science", root, ignore=shutil.ignore_patterns("channel", "base", "out")
        )
        (root / "channel").symlink_to(demo_channel() / next(iter(EDITIONS)))
        (root / "base").mkdir()
        (root / "base" / "debian.tar.zst").symlink_to(demo_base().absolute())
        variants = root / "template/v0/variants.toml"
        variants.write_text(variants.read_text().replace('owner = "0:0"', f'owner = "0:0"\ncompile-pyc = {value}'))
        lockyard = [sys.executable, str(ROOT / "src/main.py"), "-q", "--root", str(root)]
        types = ["--image-type", "cpu"]
        measure({"build": Command([*lockyard, "build", VERSION, *types, "--skip-tests", "--no-load"], env)}, runs=1)
        record = json.loads((root / "out" / VERSION / "cpu/linux-64/build.json").read_text())
        sizes[name] = (record["size"], sum(layer["uncompressed"] for layer in record["layers"]))
        run = [*lockyard, "run", VERSION, *types, "--", "python", "-c"]
        things[f"{name}: import pandas"] = Command([*run, "import pandas"], env)
        things[f"{name}: python alone"] = Command([*run, "pass"], env)
    timings = measure(things, runs=7)
    imports: dict[str, Timing] = {name: timings[f"{name}: import pandas"] for name in sizes}
    alone = {name: timings[f"{name}: python alone"] for name in sizes}
    ratio = (imports["not compiled"].cpu - alone["not compiled"].cpu) / (
        imports["compiled"].cpu - alone["compiled"].cpu
    )
    more = [f"CPU time of the import alone: {ratio:.1f} times as long without compiled modules"]
    more += [f"{name}: {size / 1e6:.1f} MB, uncompressed {whole / 1e6:.1f} MB" for name, (size, whole) in sizes.items()]
    with capsys.disabled():
        print(report("start in a fresh container", timings, *more))
