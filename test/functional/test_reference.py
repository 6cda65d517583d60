"""The reference distribution: what a reader of this repository opens first is whole, current, and made by the commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reference
from lockyard import fs
from lockyard.app.workspace import Workspace, open_workspace
from lockyard.cli.root import run
from lockyard.conda.formats import lock_from_tree
from lockyard.oci.instructions import kind_of, parse
from lockyard.version import Version, release_dir
from support.require import ROOT

VERSIONS = [release.version for release in reference.RELEASES]
OFFLINE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return open_workspace(ROOT)


def texts(*places: str) -> Iterator[tuple[str, str]]:
    for place in places:
        for path, file in fs.read_tree(ROOT / place).items():
            yield f"{place}/{path}", file.data.decode()


def test_the_releases_are_those_of_the_table(workspace: Workspace) -> None:
    assert [str(version) for version in workspace.versions()] == VERSIONS
    assert not (ROOT / release_dir(Version.parse("0.0.1"))).exists()
    assert (ROOT / "template/v1/variants.toml").is_file()
    for release in reference.RELEASES[1:]:
        place = workspace.release_path(Version.parse(release.version))
        assert (place / "source-version.txt").read_text().strip() == release.base


@pytest.mark.parametrize("version", VERSIONS)
def test_every_lock_is_current(version: str, tmp_path: Path) -> None:
    assert run(["--root", str(ROOT), "lock", version, "--check"], environ={"LOCKYARD_CACHE_DIR": str(tmp_path)}) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_locks_name_the_public_channel_and_the_cut_off_date(workspace: Workspace, version: str) -> None:
    tree = workspace.release_tree(Version.parse(version))
    cutoffs = {release.version: release.cutoff for release in reference.RELEASES}
    platforms = {"cpu": ["linux-64", "linux-aarch64"], "gpu": ["linux-64"]}
    for image_type, expected in platforms.items():
        lock = lock_from_tree(tree, image_type, source=version)
        assert lock is not None
        assert list(lock.platforms) == expected
        assert str(lock.exclude_newer).startswith(cutoffs[version])
        for packages in lock.platforms.values():
            assert 200 < len(packages) < 450
            for package in packages:
                assert package.url.startswith("https://conda.anaconda.org/conda-forge/")
                assert package.sha256
                assert package.size
    gpu = lock_from_tree(tree, "gpu", source=version)
    assert gpu is not None
    assert next(package.build for package in gpu.platforms["linux-64"] if package.name == "pytorch").startswith("cuda")


def test_no_digest_of_a_base_is_invented_and_no_place_of_a_machine_is_named() -> None:
    for path, text in texts("template", "build_artifacts"):
        assert not re.search(r"/(?:home/(?!ubuntu)|root|tmp|work|Users)/|\bfile:", text), path
        if path.endswith((".toml", "Dockerfile")):
            assert "@sha256:" not in text, path


@pytest.mark.parametrize("version", VERSIONS)
def test_dockerfiles_need_no_daemon(workspace: Workspace, version: str) -> None:
    tree = workspace.release_tree(Version.parse(version))
    instructions = parse(tree["Dockerfile"].data.decode(), "Dockerfile")
    assert kind_of(instructions) == "finish"
    assert "RUN" not in {item.name for item in instructions}
    copied = {
        word for item in instructions if item.name == "COPY" for word in item.value.split() if word.startswith("dirs/")
    }
    assert copied == {path for path in tree if path.startswith("dirs/")}


def test_every_release_is_what_create_makes_of_its_base(tmp_path: Path) -> None:
    """Created again in a copy, with the committed locks of the bases, every spec file comes out as it is."""
    copy = tmp_path / "copy"
    for name in ("template", "build_artifacts"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for release in reference.RELEASES[1:]:
        assert run(["--root", str(copy), *release.create, "--force"], environ={}) == 0
        place = release_dir(Version.parse(release.version))
        old, new = fs.read_tree(ROOT / place), fs.read_tree(copy / place)
        made = {path: file for path, file in new.items() if not path.startswith("v")}
        assert made
        assert made == {path: old.get(path) for path in made}
        shutil.rmtree(copy / place)  # the next release is made from the committed one
        shutil.copytree(ROOT / place, copy / place, symlinks=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files of a fresh clone that the commands read."""
    for name in ("src", "template", "build_artifacts"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "made", "python"),
    [
        ("create-patch-version-artifacts", "build_artifacts/v0/v0.0/v0.0.1", "python[version='>=3.11.11,<3.12.0']"),
        ("create-major-version-artifacts", "build_artifacts/v1/v1.0/v1.0.0", "python[version='>=3.11.11']"),
    ],
)
def test_the_commands_run_as_they_stand_on_a_fresh_clone(clone: Path, command: str, made: str, python: str) -> None:
    argv = [sys.executable, "src/main.py", command, "--base-patch-version=0.0.0"]
    env = {**os.environ, **OFFLINE, "LOCKYARD_CACHE_DIR": str(clone / "cache")}
    env.pop("LOCKYARD_ROOT", None)
    done = subprocess.run(argv, cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{made}\n"
    files = fs.read_tree(clone / made)
    assert {"cpu.env.in", "gpu.env.in", "gpu.pinned_env.in", "source-version.txt", "Dockerfile"} <= set(files)
    assert f"conda-forge::{python}" in files["cpu.env.in"].data.decode().splitlines()
    assert not (clone / "cache").exists()


def test_the_diff_of_a_patch_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--root", str(ROOT), "diff", "0.1.1", "0.1.2", "--json"], environ={}) == 0
    types = json.loads(capsys.readouterr().out)["types"]
    assert set(types) == {"cpu", "gpu"}
    for found in types.values():
        assert found["direct"]["changed"]
        assert not found["direct"]["added"]
        assert not found["direct"]["removed"]
    assert run(["--root", str(ROOT), "diff", "0.1.1", "0.1.2", "--format", "markdown"], environ={}) == 0
    assert "jupyterlab" in capsys.readouterr().out
