"""`lockyard cache` on caches that hold a little of everything."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from lockyard.cli.root import run
from lockyard.oci.cache import BlobCache
from lockyard.oci.tar import LayerBlob
from lockyard.oci.values import Digest, MediaType
from support.index import record, write_index

LONG_AGO = 1_700_000_000.0


@pytest.fixture
def lockyard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*args: str) -> tuple[int, str, str]:
        code = run(["cache", *args], environ={"LOCKYARD_CACHE_DIR": str(tmp_path)})
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO))


def write_package(cache: Path, digest: str, dist: str, size: int) -> Path:
    place = cache / "packages/v1/sha256" / digest
    (place / "files").mkdir(parents=True)
    (place / "files/data").write_bytes(b"x" * size)
    (place / "stamp.json").write_text(json.dumps({"schema": 1, "dist": dist, "disk": size}))
    (place.parent / f".{digest}.lock").touch()
    return place


def write_base(cache: Path, name: str, reference: str, blobs: list[str]) -> Path:
    place = cache / "bases/v1"
    for digest in blobs:
        (place / "sha256").mkdir(parents=True, exist_ok=True)
        (place / "sha256" / digest).write_bytes(b"b" * 5000)
        age(place / "sha256" / digest)
    (place / "images").mkdir(exist_ok=True)
    path = place / "images" / f"{name}.json"
    path.write_text(json.dumps({"schema": 1, "reference": reference, "blobs": [f"sha256:{item}" for item in blobs]}))
    return path


def test_an_empty_cache(lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = lockyard("info")
    assert code == 0
    assert "packages" in out
    assert out.splitlines()[-1].split()[:3] == ["total", "0", "0"]
    assert lockyard("prune", "--older-than", "1d")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_every_kind_is_listed_and_goes(lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    old = write_package(tmp_path, "a" * 64, "numpy-2.2.1-py_0", 9000)
    new = write_package(tmp_path, "b" * 64, "pandas-2.2.1-py_0", 9000)
    age(old / "stamp.json")
    partial = tmp_path / "packages/v1/partial" / f"sha256-{'c' * 64}.part"
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    age(partial)
    age(write_base(tmp_path, "d" * 64, "docker.io/library/ubuntu:24.04", ["d" * 64, "e" * 64]))
    age(write_base(tmp_path, "f" * 64, "docker.io/nvidia/cuda:12.9", ["d" * 64, "f" * 64]))
    code, out, _ = lockyard("info", "--json")
    kinds = json.loads(out)["kinds"]
    assert code == 0
    assert (kinds["packages"]["entries"], kinds["packages"]["unfinished"]) == (2, 1)
    assert kinds["packages"]["oldest"].startswith("2023-11-14")
    assert kinds["bases"]["entries"] == 2
    assert "1 unfinished" in lockyard("info", "--kind", "packages")[1]

    code, out, _ = lockyard("prune", "--older-than", "52w", "--dry-run")
    assert "packages numpy-2.2.1-py_0" in out
    assert "bases docker.io/library/ubuntu:24.04" in out
    assert "4 entries would be removed" in out
    assert old.is_dir()

    result = json.loads(lockyard("prune", "--older-than", "52w", "--json")[1])
    assert sorted(item["name"].split("/")[-1][:8] for item in result["removed"]) == [
        "cuda:12.",
        "numpy-2.",
        "sha256-c",
        "ubuntu:2",
    ]
    assert result["kept"]["entries"] == 1
    assert result["in_use"] == []
    assert new.is_dir()
    assert not old.exists()
    assert not old.with_name(f".{old.name}.lock").exists()
    assert not partial.exists()
    assert not any((tmp_path / "bases/v1/sha256").iterdir())


def test_a_blob_of_two_bases_goes_with_the_last(lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    age(write_base(tmp_path, "d" * 64, "docker.io/library/ubuntu:24.04", ["a" * 64, "b" * 64]))
    write_base(tmp_path, "f" * 64, "docker.io/nvidia/cuda:12.9", ["a" * 64, "c" * 64])
    assert "1 entry removed" in lockyard("prune", "--older-than", "1d")[1]
    assert sorted(path.name[0] for path in (tmp_path / "bases/v1/sha256").iterdir()) == ["a", "c"]


def test_a_layer_goes_with_its_keys_and_is_made_again(
    lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    data = b"layer" * 1000
    count = 0

    def make(sink: Callable[[bytes], object]) -> LayerBlob:
        nonlocal count
        count += 1
        sink(data)
        return LayerBlob(MediaType.LAYER_GZIP, Digest.of(data), len(data), Digest.of(data), len(data))

    blobs = BlobCache(tmp_path)
    for name in ("one", "two"):
        blobs.layer({"name": name}, name, make)
    assert json.loads(lockyard("info", "--json")[1])["kinds"]["blobs"]["entries"] == 1
    assert "1 entry left alone" in lockyard("prune", "--max-size", "0")[2], "this process has used it"
    assert not blobs.layer({"name": "one"}, "one", make).rebuilt
    assert count == 2


def test_max_size_takes_what_was_used_longest_ago(
    lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for number, digest in enumerate("abcd"):
        stamp = write_package(tmp_path, digest * 64, f"{digest}-1-0", 1_000_000) / "stamp.json"
        os.utime(stamp, (LONG_AGO + number, LONG_AGO + number))
    out = lockyard("prune", "--max-size", "2.5MB", "--kind", "packages")[1]
    assert out.startswith("2 entries removed, 2 MB; 2 stay, 2 MB")
    assert sorted(path.name[0] for path in (tmp_path / "packages/v1/sha256").glob("[a-f]*")) == ["c", "d"]


@pytest.mark.parametrize(
    "args", [("--older-than", "soon"), ("--max-size", "much"), ("--max-size", "-1"), ("--kind", "blob")]
)
def test_wrong_words_are_usage_errors(lockyard: Callable[..., tuple[int, str, str]], args: tuple[str, str]) -> None:
    assert lockyard("prune", *args)[0] == 2


def test_an_index_from_a_directory_is_what_offline_uses(
    lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_index(tmp_path / "mirror", [record("a", "1"), record("b", "1", subdir="linux-64")], packed=True)
    code, out, err = lockyard("add-index", "conda-forge", str(tmp_path / "mirror"))
    assert code == 0, err
    assert out.startswith("https://conda.anaconda.org/conda-forge/linux-64 ")
    value = json.loads(lockyard("info", "--kind", "index", "--json")[1])
    assert value["kinds"]["index"]["entries"] == 3
    assert str(tmp_path) not in (tmp_path / "index/v1").rglob("noarch.meta.json").__next__().read_text()


@pytest.mark.parametrize(
    ("data", "said"),
    [(None, "has no index"), (b"{", "is no index"), (zstandard.compress(b'{"packages": ')[:-4], "is no index")],
)
def test_no_index_is_refused(
    lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path, data: bytes | None, said: str
) -> None:
    place = tmp_path / "mirror" / "noarch"
    place.mkdir(parents=True)
    if data is not None:
        (place / ("repodata.json" if data == b"{" else "repodata.json.zst")).write_bytes(data)
    code, _, err = lockyard("add-index", "conda-forge", str(place.parent))
    assert code == 2
    assert said in err
    assert not list(tmp_path.rglob("noarch.json"))


def test_a_local_channel_needs_no_cache(lockyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = lockyard("add-index", "file:channel", str(tmp_path))
    assert code == 2
    assert "read in place" in err
