"""`adopt` on a tree as an earlier generator left it: what is found, written, refused, and that the next commands work on it."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard import fs
from lockyard.cli.root import run
from lockyard.distribution import parse_line
from support.adoptable import write_adoptable, write_channel

Call = Callable[..., tuple[int, str, str]]
WRITTEN = [
    "lockyard.toml",
    "template/v1/variants.toml",
    "template/v2/variants.toml",
    "test/test_artifacts/v1/tests.toml",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_adoptable(tmp_path / "Our Images")


@pytest.fixture
def call(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def command(*args: str) -> tuple[int, str, str]:
        code = run(["--root", str(root), *args], environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")})
        out, err = capsys.readouterr()
        return code, out, err

    return command


def listing(root: Path) -> dict[str, tuple[bytes, int]]:
    """Path → bytes and time of every file."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_files_are_added_and_none_is_changed(root: Path, call: Call) -> None:
    before = listing(root)
    code, out, _ = call("adopt")
    assert code == 0
    assert [line.removeprefix("wrote ") for line in out.splitlines() if line.startswith("wrote ")] == WRITTEN
    after = listing(root)
    assert sorted(set(after) - set(before)) == WRITTEN
    assert {path: value for path, value in after.items() if path in before} == before


def test_a_dry_run_writes_nothing(root: Path, call: Call) -> None:
    before = listing(root)
    code, out, _ = call("adopt", "--dry-run")
    assert code == 0
    assert [line.removeprefix("would write ") for line in out.splitlines() if line.startswith("would")] == WRITTEN
    assert listing(root) == before


def test_the_report(call: Call) -> None:
    """Everything that the tree tells, with the line that tells it."""
    _, out, _ = call("adopt", "--dry-run")
    lines = out.splitlines()
    assert lines[0] == "releases recognised: 6/9 (1.0.0 to 2.0.0)"
    assert "  build_artifacts/v1/v1.1/v1.1.2: inputs of a release to come" in lines
    assert "  build_artifacts/v1/v1.0/v1.1.9: its place would be build_artifacts/v1/v1.1/v1.1.9" in lines
    assert "  build_artifacts/v1/v1.0/v1.0.8: neither source-version.txt nor specs nor a lock" in lines
    assert "  build_artifacts/v1/v1.0/v1.0.02: '1.0.02' is not a version X.Y.Z or X.Y.Z-pre.1" in lines
    assert "env.in reproduced: 8 of 10 by the rules of create" in lines
    assert "  1.1.1 gpu, from 1.1.0: 2 lines differ" in lines
    assert "  not planned again: 1.0.0: no source-version.txt" in lines
    assert "Dockerfiles: 2 classic, 1 derived, 2 finish" in lines
    assert "  classic: template/v1, 1.1.1" in lines
    assert "  derived: 1.1.1 Dockerfile-gpu.patch" in lines
    assert "  finish: template/v2/v2.0, 2.0.0" in lines
    place = "build_artifacts/v1/v1.1/v1.1.1/Dockerfile"
    blockers = [line.split("; ")[0].removeprefix("    blocker ") for line in lines if "blocker " in line]
    assert blockers == [
        f"{place}:2: a classic Dockerfile has its own base",
        f"{place}:12: RUN changes the operating system",
        f"{place}:17: RUN installs packages",
        f"{place}:18: RUN",
        f"{place}:19: ADD of an address",
        f"{place}:20: COPY --from",
    ]
    assert "    the native engine builds it" in lines
    assert "  lsp.test.Dockerfile: needs jupyterlab, lsp; for cpu" in lines
    assert "  numpy.test.Dockerfile: needs numpy" in lines
    assert "  other.test.sh: nothing says what it needs" in lines
    assert "  torch.examples.Dockerfile: needs pytorch; not run: its name does not end in .test.Dockerfile" in lines


def test_the_lines(root: Path, call: Call) -> None:
    """Values come from the newest release's files, the earlier generator's literals, the Dockerfile, the lock."""
    assert call("adopt")[0] == 0
    first, second = (parse_line((root / f"template/v{major}/variants.toml").read_text(), source="") for major in (1, 2))
    assert first.types == second.types == ("cpu", "gpu")
    cpu, gpu = first.variants["cpu"], first.variants["gpu"]
    assert (cpu.base, cpu.args) == ("docker.io/mambaorg/micromamba:jammy", {"TAG_FOR_BASE": "jammy"})
    assert cpu.virtual_packages == {"__glibc": "2.35", "__linux": "5.10"}
    assert gpu.base == "docker.io/mambaorg/micromamba:jammy-cuda-12.4.1"
    assert gpu.args == {"TAG_FOR_BASE": "jammy-cuda-12.4.1", "CUDA_MAJOR_MINOR_VERSION": "12.4"}
    assert gpu.virtual_packages["__cuda"] == "12.4"
    assert (gpu.pytest_flags, gpu.tag) == (("--use-gpu",), "{version}-cuda")
    assert second.variants["gpu"].args == {"CUDA_MAJOR_MINOR_VERSION": "12.6"}
    assert second.variants["gpu"].base == "scratch"
    assert second.variants["cpu"].virtual_packages == {"__glibc": "2.28", "__linux": "5.10"}
    text = (root / "template/v1/variants.toml").read_text()
    assert 'TAG_FOR_BASE = "jammy"  # src/config.py:5' in text
    assert 'base = "docker.io/mambaorg/micromamba:jammy"  # build_artifacts/v1/v1.1/v1.1.1/Dockerfile:2' in text


def test_a_lock_overrules_what_was_written_down(root: Path, call: Call) -> None:
    """The generator's file holds for all releases at once, the lock for the newest one."""
    text = (root / "src/config.py").read_text()
    (root / "src/config.py").write_text(
        text.replace('"CUDA_MAJOR_MINOR_VERSION": "12.4"', '"CUDA_MAJOR_MINOR_VERSION": "11.8"')
    )
    code, out, _ = call("adopt")
    assert code == 0
    where = "build_artifacts/v1/v1.1/v1.1.1/gpu.env.out has cuda-version 12.4"
    assert f"  note: gpu: CUDA_MAJOR_MINOR_VERSION: src/config.py:6 says 11.8, {where}" in out.splitlines()
    line = parse_line((root / "template/v1/variants.toml").read_text(), source="")
    assert line.variants["gpu"].args["CUDA_MAJOR_MINOR_VERSION"] == "12.4"


def test_the_tests_of_an_earlier_harness(root: Path, call: Call) -> None:
    assert call("adopt")[0] == 0
    found = tomllib.loads((root / "test/test_artifacts/v1/tests.toml").read_text())["tests"]
    assert found == {
        "lsp": {"packages": ["jupyterlab", "lsp"], "types": ["cpu"], "image-argument": "DISTRIBUTION_IMAGE"},
        "numpy": {"packages": ["numpy"], "image-argument": "DISTRIBUTION_IMAGE"},
    }


def test_the_next_commands_work(root: Path, call: Call, tmp_path: Path) -> None:
    """create, diff and lock right after adopt, with no change by hand."""
    write_channel(tmp_path / "index")
    assert call("cache", "add-index", "conda-forge", str(tmp_path / "index"))[0] == 0
    assert call("adopt")[0] == 0
    assert call("diff", "1.0.0", "1.0.1")[0] == 0
    code, out, err = call("create-patch-version-artifacts", "--base-patch-version", "1.1.1")
    assert (code, out) == (0, "build_artifacts/v1/v1.1/v1.1.2\n"), err
    place = root / "build_artifacts/v1/v1.1/v1.1.2"
    assert "conda-forge::scipy\n" in (place / "cpu.env.in").read_text()
    assert (place / "gpu.arg_based_env.in").exists()
    code, _, err = call("lock", "1.1.2", "--offline")
    assert code == 0, err
    packages = json.loads((place / "gpu.lock.json").read_text())["packages"]["linux-64"]
    assert {item["name"]: item["version"] for item in packages} == {
        "python": "3.11.10", "numpy": "2.2.3", "cuda-version": "12.4",
    }  # fmt: skip
    code, out, _ = call("diff", "1.1.1", "1.1.2", "--json")
    assert (code, json.loads(out)["types"]["cpu"]["direct"]["added"]) == (0, {"scipy": "1.15.0"})
    # An adopted release itself, and one of the line whose Dockerfile is a finish.
    for version in ("1.1.1", "2.0.0"):
        code, _, err = call("lock", version, "--offline")
        assert code == 0, err
    code, _, err = call("create-minor-version-artifacts", "--base-patch-version", "2.0.0", "--lock", "--dry-run")
    assert code == 2  # nothing to lock on a dry run
    code, out, err = call("create-minor-version-artifacts", "--base-patch-version", "2.0.0")
    assert (code, out) == (0, "build_artifacts/v2/v2.1/v2.1.0\n"), err
    assert (root / "template/v2/v2.1/Dockerfile").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [("lockyard.toml", 'name = "mine"\n'), ("template/v2/variants.toml", "schema = 1\n[variants.cpu]\n")],
)
def test_nothing_is_overwritten(root: Path, call: Call, path: str, text: str) -> None:
    (root / path).write_text(text)
    before = listing(root)
    code, out, err = call("adopt")
    assert (code, out) == (2, "")
    assert f"{path}: there already; adopt overwrites nothing" in err
    assert listing(root) == before
    code, out, _ = call("adopt", "--dry-run")
    assert code == 0
    assert f"there already: {path}" in out
    assert f"would write {path}" not in out


def test_a_broken_lock_is_told(root: Path, call: Call) -> None:
    """It stops neither the report nor the configuration; the file and its line are named."""
    path = root / "build_artifacts/v1/v1.1/v1.1.1/gpu.env.out"
    path.write_text(path.read_text().replace("@EXPLICIT", "@EXPLICIT\nhttps://example.com/nonsense"))
    code, out, _ = call("adopt")
    assert code == 0
    assert "build_artifacts/v1/v1.1/v1.1.1/gpu.env.out:3: 'https://example.com/nonsense'" in out
    assert (root / "template/v1/variants.toml").is_file()


def test_a_failure_leaves_nothing(root: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files or none: the command can be given again."""
    before, really, done = listing(root), fs.atomic_write, []

    def fails(path: Path, data: bytes, mode: int = 0o644) -> None:
        done.append(path)
        if len(done) == 3:
            raise OSError(28, "No space left on device")
        really(path, data, mode)

    monkeypatch.setattr(fs, "atomic_write", fails)
    assert call("adopt")[0] == 1
    assert len(done) == 3
    assert listing(root) == before
    monkeypatch.undo()
    assert call("adopt")[0] == 0


def test_a_table_in_pyproject_counts(root: Path, call: Call) -> None:
    (root / "pyproject.toml").write_text('[tool.lockyard]\nname = "x"\n')
    code, _, err = call("adopt")
    assert code == 2
    assert "[tool.lockyard] in pyproject.toml: there already" in err
    code, out, _ = call("adopt", "--dry-run")
    assert code == 0
    assert "would write lockyard.toml" not in out


def test_nothing_to_adopt(tmp_path: Path, call: Call, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["--root", str(tmp_path / "empty"), "adopt"], environ={}) == 2
    assert "there is no build_artifacts/" in capsys.readouterr().err
    (tmp_path / "empty/build_artifacts/v1/v1.0/v1.0.8").mkdir(parents=True)
    assert run(["--root", str(tmp_path / "empty"), "adopt"], environ={}) == 2
    assert "v1.0.8: neither source-version.txt" in capsys.readouterr().err


def test_the_rules_of_a_tree_that_is_adopted_are_its_own(root: Path, call: Call) -> None:
    """`--dry-run` looks again, with the policies that were written since."""
    assert call("adopt")[0] == 0
    path = root / "template/v1/variants.toml"
    path.write_text(path.read_text().replace('python = "pythonesque"', 'python = "pythonesque"\nnumpy = "latest"'))
    _, out, _ = call("adopt", "--dry-run")
    assert "env.in reproduced: 2 of 10 by the rules of create" in out.splitlines()


def test_json_says_all(call: Call) -> None:
    code, out, _ = call("adopt", "--json", "--dry-run", "--name", "images")
    value = json.loads(out)
    assert (code, value["name"], value["written"]) == (0, "images", False)
    assert list(value["files"]) == WRITTEN
    assert value["env_in"]["reproduced"] == 8
    assert value["lines"]["1"]["types"]["gpu"]["args"]["CUDA_MAJOR_MINOR_VERSION"] == {
        "value": "12.4", "where": "src/config.py:6",
    }  # fmt: skip
    assert len(value["dockerfiles"]) == 5
    assert value["tests"][0]["tests"][0]["path"] == "lsp.test.Dockerfile"


def test_a_name_that_cannot_be(call: Call) -> None:
    code, _, err = call("adopt", "--name", "Our Images")
    assert code == 2
    assert "'Our Images'" in err
    code, out, _ = call("adopt", "--dry-run", "--json")
    assert json.loads(out)["name"] == "our-images"
