"""`adopt` on 164 real releases of a public distribution: all are recognised, and the next commands work on the tree."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lockyard.cli.root import run
from lockyard.conda.formats import read_env_out
from support.require import SHARED, need

pytestmark = pytest.mark.realdata

NEWEST = "2.14.10"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("realdata")
    place = tmp_path_factory.mktemp("upstream")
    with tarfile.open(SHARED / "upstream-releases.tar.xz") as archive:
        archive.extractall(place, filter="data")
    return place


def files(root: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def published(root: Path) -> tuple[int, int]:
    """How many published `env.in` are what the rules give, and how many there are to compare."""
    same = [
        path.read_text().splitlines() == path.with_suffix("").read_text().splitlines()
        for path in root.rglob("*.env.in.expected")
    ]
    return sum(same), len(same)


def whole_index(root: Path, directory: Path) -> None:
    """The real channel index, with what it lacks of the newest release's packages (they depend on nothing here)."""
    place = root / "build_artifacts/v2/v2.14" / f"v{NEWEST}"
    for subdir in ("linux-64", "noarch"):
        packed = (SHARED / "conda-index" / subdir / "repodata.json.zst").read_bytes()
        with zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            index: dict[str, Any] = json.loads(stream.read())
        for name in ("cpu", "gpu"):
            for item in read_env_out((place / f"{name}.env.out").read_text(), name):
                kind = "packages.conda" if item.url.endswith(".conda") else "packages"
                file_name = item.url.rpartition("/")[2]
                if item.subdir == subdir and file_name not in index[kind]:
                    index[kind][file_name] = {
                        "name": item.name, "version": item.version, "build": item.build, "md5": item.md5,
                        "build_number": item.build_number, "subdir": subdir, "depends": [], "size": 1,
                    }  # fmt: skip
        (directory / subdir).mkdir(parents=True)
        (directory / subdir / "repodata.json").write_text(json.dumps(index))


def test_all_releases_are_recognised(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """164 of 164; `env.in` reproduced as often as it was published as the rules give it; create, diff and lock work."""
    environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}

    def call(*args: str) -> str:
        code = run(["-q", "--root", str(root), *args], environ=environ)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    before, (same, total) = files(root), published(root)
    value = json.loads(call("adopt", "--name", "upstream", "--json"))
    after = files(root)
    added = ["lockyard.toml", *(f"template/v{major}/variants.toml" for major in (0, 1, 2))]
    assert sorted(set(after) - set(before)) == added
    assert {path: data for path, data in after.items() if path in before} == before
    assert (len(value["releases"]["recognised"]), value["releases"]["found"]) == (164, 164)
    assert (value["env_in"]["reproduced"], value["env_in"]["of"]) == (same, total)
    assert value["env_in"]["not_planned"] == ["0.0.0: no source-version.txt", "1.0.0: no source-version.txt"]
    cuda = {
        major: line["types"]["gpu"]["args"]["CUDA_MAJOR_MINOR_VERSION"]["value"]
        for major, line in value["lines"].items()
    }
    assert cuda == {"0": "11.8", "1": "11.8", "2": "12.6"}
    with capsys.disabled():
        print(f"\nreleases recognised 164/164, env.in reproduced {same} of {total} by the rules that create uses")
    whole_index(root, tmp_path / "index")
    call("cache", "add-index", "conda-forge", str(tmp_path / "index"))
    assert (
        call("create-patch-version-artifacts", "--base-patch-version", NEWEST) == "build_artifacts/v2/v2.14/v2.14.11\n"
    )
    call("lock", "2.14.11", "--offline")
    for name, types in json.loads(call("diff", NEWEST, "2.14.11", "--json"))["types"].items():
        assert types["direct"]["changed"] == types["direct"]["added"] == types["direct"]["removed"] == {}, name
    # An adopted release itself gets a lock that holds what it installs.
    call("lock", NEWEST, "--offline")
    assert (root / "build_artifacts/v2/v2.14" / f"v{NEWEST}" / "gpu.lock.json").is_file()
