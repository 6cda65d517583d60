"""The demo channel and the base, really made: reproducible, moving, and installable."""

import asyncio
import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from rattler import (
    Channel,
    GenericVirtualPackage,
    MatchSpec,
    PackageName,
    SparseRepoData,
    Subdir,
    Version,
    install,
    solve_with_sparse_repodata,
)
from rattler.package.build_string import BuildString

from demochannel.base import build_base
from demochannel.channel import build_channel, is_complete
from demochannel.editions import EDITIONS
from support.require import need

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SUBDIRS = ("linux-64", "noarch")
VIRTUAL_PACKAGES = {"__glibc": "2.36", "__linux": "5.10", "__unix": "0"}
TRY_EVERYTHING = """\
import bz2, ctypes, curses, decimal, lzma, readline, sqlite3, ssl, uuid, zlib
import numpy, pandas, pytest
frame = pandas.DataFrame({"a": numpy.arange(3)}, index=pandas.date_range("2026-01-01", periods=3, tz="Europe/Paris"))
assert frame["a"].sum() == 3
assert ssl.create_default_context().get_ca_certs()
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
print(numpy.__version__, pandas.__version__, pytest.__version__)
"""


@pytest.fixture(scope="session")
def demo_cache() -> Path:
    """Where downloads and results are kept between runs."""
    need("debian")
    return Path(os.environ.get("LOCKYARD_TEST_CACHE") or ROOT / ".cache") / "demochannel"


@pytest.fixture(scope="session")
def demo_channel(demo_cache: Path) -> Path:
    """The finished channel."""
    return build_channel(demo_cache / "channel", demo_cache / "work", print)


@pytest.fixture(scope="session")
def demo_base(demo_cache: Path) -> Path:
    """The finished base."""
    return build_base(demo_cache / "base.tar.zst", demo_cache / "work", print)


@pytest.fixture(scope="session")
def editions(demo_channel: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The newest record of each package in each edition."""
    found = {}
    for edition in EDITIONS:
        newest: dict[str, dict[str, Any]] = {}
        for record in sorted(records(demo_channel / edition), key=lambda record: record["timestamp"]):
            newest[record["name"]] = record
        found[edition] = newest
    return found


def records(channel: Path) -> list[dict[str, Any]]:
    return [
        {**record, "file": channel / subdir / name}
        for subdir in SUBDIRS
        for name, record in json.loads((channel / subdir / "repodata.json").read_bytes())["packages.conda"].items()
    ]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def unpack(archive: Path, target: Path) -> None:
    with (
        archive.open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as plain,
        tarfile.open(fileobj=plain, mode="r|") as members,
    ):
        members.extractall(target, filter="fully_trusted")


def run_inside(root: Path, *command: str) -> str:
    inside = ("env", "-i", "PATH=/opt/conda/bin:/usr/bin", *command)
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--root", str(root), "--mount-proc")
    done = subprocess.run([*namespaces, *inside], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def install_from(channel: Path, target: Path, specs: list[str], cache: Path) -> dict[str, str]:
    source = Channel(f"{channel.as_uri()}/")
    virtual = [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString("0"))
        for name, version in VIRTUAL_PACKAGES.items()
    ]
    solved = await solve_with_sparse_repodata(
        [MatchSpec(spec) for spec in specs],
        [SparseRepoData(source, subdir, channel / subdir / "repodata.json") for subdir in SUBDIRS],
        virtual_packages=virtual,
    )
    await install(
        solved,
        target,
        cache_dir=cache,
        platform=Subdir("linux-64"),
        show_progress=False,
        alternative_target_prefix="/opt/conda",
    )
    await asyncio.sleep(0.02)
    return {record.name.normalized: str(record.version) for record in solved}


def test_a_second_channel_is_the_same_bytes(demo_cache: Path, demo_channel: Path, tmp_path: Path) -> None:
    again = build_channel(tmp_path / "channel", demo_cache / "work", print)
    assert hashes(again) == hashes(demo_channel)
    assert is_complete(demo_channel)


def test_the_index_tells_the_truth(demo_channel: Path) -> None:
    for edition, made in EDITIONS.items():
        names = set()
        for record in records(demo_channel / edition):
            data = record["file"].read_bytes()
            assert hashlib.sha256(data).hexdigest() == record["sha256"]
            assert hashlib.md5(data, usedforsecurity=False).hexdigest() == record["md5"]
            assert len(data) == record["size"]
            assert record["timestamp"] <= made.timestamp() * 1000
            assert record["license"]
            names.add(record["name"])
        assert len(names) >= 38


def test_every_source_is_listed_by_hash(demo_channel: Path) -> None:
    told = json.loads((demo_channel / "sources.json").read_bytes())
    assert told["schema"] == 1
    assert {source["kind"] for source in told["sources"]} == {"deb", "wheel"}
    assert all(len(source["sha256"]) == 64 for source in told["sources"])


@pytest.mark.parametrize(("old", "new", "wanted"), [("2026-01", "2026-02", 8), ("2026-02", "2026-03", 6)])
def test_packages_move(editions: dict[str, dict[str, dict[str, Any]]], old: str, new: str, wanted: int) -> None:
    before, after = editions[old], editions[new]
    moved = {name for name in before if before[name]["version"] != after[name]["version"]}
    rebuilt = {name for name in before if before[name]["build"] != after[name]["build"]} - moved
    assert len(moved) >= wanted
    assert rebuilt
    assert not {"python", "openssl", "libzlib"} & (moved | rebuilt)


def test_the_base_is_the_same_bytes_and_has_a_shell(demo_cache: Path, demo_base: Path, tmp_path: Path) -> None:
    again = build_base(tmp_path / "base.tar.zst", demo_cache / "work", print)
    assert again.read_bytes() == demo_base.read_bytes()
    root = tmp_path / "root"
    root.mkdir()
    unpack(demo_base, root)
    owners = json.loads(demo_base.with_name("base.tar.zst.sources.json").read_bytes())
    assert owners["sources"]
    need("root", "sandbox")
    assert {"bin", "etc", "lib", "opt", "tmp", "usr"} <= set(run_inside(root, "/bin/bash", "-c", "ls /").split())
    assert run_inside(root, "/bin/sh", "-c", "id -un; stat -c %a /tmp /root").split() == ["root", "1777", "700"]


def test_an_environment_runs_in_the_base(demo_channel: Path, demo_base: Path, tmp_path: Path) -> None:
    need("root", "sandbox")
    root = tmp_path / "root"
    unpack(demo_base, root)
    specs = ["python", "numpy", "pandas", "pytest", "pytest-xdist", "pip", "linkzoo", "noarchzoo"]
    channel = demo_channel / "2026-03"
    solved = asyncio.run(install_from(channel, root / "opt" / "conda", specs, tmp_path / "packages"))
    versions = [solved[name] for name in ("numpy", "pandas", "pytest")]
    assert run_inside(root, "python", "-W", "error", "-c", TRY_EVERYTHING).split() == versions
    assert "No broken requirements" in run_inside(root, "pip", "check")
    assert run_inside(root, "bash", "-c", "zoo; zoo-main; zoo-keeper; zoo-script").split() == [
        "/opt/conda/share",
        "hi",
        "keeper",
        "1",
    ]
    (root / "dev" / "null").touch()  # a sandbox mounts the real one
    (root / "tmp" / "test_inside.py").write_text("def test_inside():\n    assert True\n")
    assert "1 passed" in run_inside(root, "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", "/tmp/test_inside.py")
