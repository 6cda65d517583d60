"""`create-* --lock` with a real solver: the new release is there with its locks, or without them when they cannot be."""

import os
import re
from pathlib import Path

import pytest

from lockyard.cli.root import run
from support.channel import package, write_channel, write_distribution

pytestmark = pytest.mark.integration

VERSIONS = ("1.0.1", "1.1.0rc1", "1.1.0", "2.0.0a1", "2.0.0", "2.1.0rc1")
"""The solver takes the highest that it may: a pre-release of the next series unless its bound keeps that out."""

RELEASE = "build_artifacts/v0/v0.1/v0.1.1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    packages = [package("base"), package("tool", "1.0.0", depends=["base"])]
    root = write_distribution(tmp_path / "small", {"cpu": ["tool"], "gpu": ["tool"]}, packages)
    assert lockyard(root, "lock", "0.1.0") == 0
    write_channel(
        root / "channel",
        [*packages, *(package("tool", version, depends=["base"]) for version in VERSIONS)],
    )
    return root


def lockyard(root: Path, *args: str) -> int:
    return run(["--root", str(root), *args], environ={**os.environ, "LOCKYARD_CACHE_DIR": str(root / "cache")})


def test_locked_at_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lockyard(root, "create-patch-version-artifacts", "--base-patch-version", "0.1.0", "--lock") == 0
    out, err = capsys.readouterr()
    assert out == f"{RELEASE}\n"
    assert re.search(r"cpu linux-64: 2 packages, [0-9.]+ kB; the same as in 0\.1\.0", err)
    assert "tool-1.0.0-" in (root / RELEASE / "cpu.env.out").read_text()
    assert lockyard(root, "lock", "0.1.1", "--check") == 0


@pytest.mark.parametrize(
    ("part", "version", "moved"),
    [("patch", "0.1.1", "1.0.1"), ("minor", "0.2.0", "1.1.0"), ("major", "1.0.0", "2.1.0rc1")],
)
def test_a_fresh_lock_moves_as_far_as_the_bump_allows(root: Path, part: str, version: str, moved: str) -> None:
    (root / "template/v1").mkdir()
    (root / "template/v1/variants.toml").write_bytes((root / "template/v0/variants.toml").read_bytes())
    assert lockyard(root, f"create-{part}-version-artifacts", "--base-patch-version", "0.1.0") == 0
    assert lockyard(root, "lock", version, "--fresh") == 0
    (env_out,) = root.glob(f"build_artifacts/*/*/v{version}/cpu.env.out")
    assert f"tool-{moved}-" in env_out.read_text()


def test_unsatisfiable_leaves_the_release_to_be_mended(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = root / RELEASE
    place.mkdir(parents=True)
    (place / "cpu.additional_packages_env.in").write_text("no-such-package\n")
    assert lockyard(root, "create-patch-version-artifacts", "--base-patch-version", "0.1.0", "--lock") == 4
    assert f"{RELEASE}/cpu.env.in:2: no-such-package" in capsys.readouterr().err
    assert sorted(path.name for path in place.iterdir()) == [
        "cpu.additional_packages_env.in",
        "cpu.env.in",
        "gpu.env.in",
        "source-version.txt",
    ]
