"""`init --build`: from nothing to images with green tests, then the next release; no daemon, no network of its own."""

import json
import re
import shlex
import time
from pathlib import Path

import pytest

from lockyard.cli.root import run
from support.demo import demo_base, demo_channel
from support.require import need

pytestmark = pytest.mark.integration


def test_from_nothing_to_green_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command; then create, lock and build, on the demo's channel."""
    need("sandbox")
    channel, base = demo_channel() / "2026-02", demo_base()
    root, environ = tmp_path / "new", {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}

    def call(*args: str) -> str:
        code = run(["-q", *args], environ=environ)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    start = time.monotonic()
    call(
        "init",
        str(root),
        "--channel",
        str(channel),
        "--base",
        str(base),
        "--virtual-package",
        "__glibc=2.36",
        "--build",
    )
    seconds = time.monotonic() - start
    with capsys.disabled():
        print(f"\nfrom init to green image tests: {seconds:.0f} s")
    outcomes = {kind: record(root, "0.1.0", kind) for kind in ("cpu", "gpu")}
    assert outcomes["gpu"] >= {
        "science passed", "version passed", "ready-made/imports passed", "ready-made/equals-lock passed",
        "ready-made/cuda-loads passed",
    }  # fmt: skip
    assert not [line for lines in outcomes.values() for line in lines if "failed" in line or "error" in line]
    # What its README says comes next; the address to publish to is the reader's own.
    todo = [line for line in readme(root) if " push " not in line]
    assert any("create-patch" in line for line in todo)
    for line in todo:
        call("--root", str(root), *shlex.split(line)[1:])
    assert "science passed" in record(root, "0.1.1", "cpu")
    assert (root / "schedule.toml").is_file()


def readme(root: Path) -> list[str]:
    """The commands of the blocks of a new distribution's README."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (root / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def record(root: Path, version: str, kind: str) -> set[str]:
    value = json.loads((root / "out" / version / kind / "linux-64" / "tests.json").read_text())
    return {f"{test['name']} {test['outcome']}" for test in value["tests"]}
