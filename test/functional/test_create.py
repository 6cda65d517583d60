"""The create commands in a distribution on disk: what is written, kept, refused, and that a refusal writes nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard import fs
from lockyard.app.create import read_catalog
from lockyard.app.workspace import open_workspace
from lockyard.cli.root import run
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir
from support.releases import env_out, release, write_distribution

SRC = Path(__file__).resolve().parents[2] / "src"
Call = Callable[..., tuple[int, str, str]]
PATCH, MINOR, MAJOR = (f"create-{part}-version-artifacts" for part in ("patch", "minor", "major"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A distribution with 1.4.0 and 1.4.1-beta.1."""
    return write_distribution(tmp_path / "small", {"1.4.0": release(), "1.4.1-beta.1": release()})


@pytest.fixture
def call(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    def command(name: str, base: str, *args: str) -> tuple[int, str, str]:
        environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}
        code = run(["--root", str(root), name, "--base-patch-version", base, *args], environ=environ)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def listing(root: Path) -> dict[str, bytes]:
    """Every path below `root`, directories too, with its bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))
    }


def files_of(root: Path, version: str) -> list[str]:
    place = root / release_dir(Version.parse(version))
    return sorted(path.name for path in place.iterdir())


def test_patch(root: Path, call: Call) -> None:
    """stdout is the new directory, stderr the reviewer's table."""
    code, out, err = call(PATCH, "1.4.0")
    assert (code, out) == (0, "build_artifacts/v1/v1.4/v1.4.1\n")
    assert files_of(root, "1.4.1") == ["cpu.env.in", "gpu.env.in", "source-version.txt", "v1.4.1-beta.1"]
    rows = [line.split() for line in err.splitlines()]
    assert rows.count(["numpy", "2.2.1", "<2.3.0"]) == 1
    assert "    cpu: 3 packages\n" in err
    assert "    gpu: 3 packages; all as in cpu\n" in err
    assert not fs.leftovers(root)


@pytest.mark.parametrize(
    ("command", "base", "identifier", "expected"),
    [
        (PATCH, "1.4.0", None, "1.4.1"),
        (MINOR, "1.4.0", None, "1.5.0"),
        (MAJOR, "1.4.0", None, "2.0.0"),
        (PATCH, "1.4.0", "beta.2", "1.4.1-beta.2"),
        (MINOR, "1.4.0", "rc.1", "1.5.0-rc.1"),
        (MAJOR, "1.4.0", "alpha", "2.0.0-alpha"),
        (PATCH, "1.4.1-beta.1", None, "1.4.2-beta.1"),
        (MINOR, "1.4.1-beta.1", None, "1.5.0-beta.1"),
        (MAJOR, "1.4.1-beta.1", None, "2.0.0-beta.1"),
    ],
)
def test_versions(root: Path, call: Call, command: str, base: str, identifier: str | None, expected: str) -> None:
    code, out, _ = call(command, base, *(["--pre-release-identifier", identifier] if identifier else []))
    place = release_dir(Version.parse(expected))
    assert (code, out) == (0, f"{place}\n")
    assert (root / place / "source-version.txt").read_text() == base
    assert Version.parse(expected) in open_workspace(root).versions()


@pytest.mark.parametrize("command", [PATCH, MINOR, MAJOR])
def test_pre_release_base_takes_no_identifier(root: Path, call: Call, command: str) -> None:
    before = listing(root)
    code, out, err = call(command, "1.4.1-beta.1", "--pre-release-identifier", "beta.2")
    assert (code, out) == (2, "")
    assert "keeps its identifier" in err
    assert "beta.2" in err
    assert listing(root) == before


def break_line(root: Path) -> None:
    (root / "build_artifacts/v1/v1.4/v1.4.0/cpu.env.in").write_text("numpy\n\nnumpy[version=]\n")


def remove_lock(root: Path) -> None:
    (root / "build_artifacts/v1/v1.4/v1.4.0/gpu.env.out").unlink()


def make_target(root: Path) -> None:
    fs.write_tree(release(), root / "build_artifacts/v1/v1.4/v1.4.1", keep=["v1.4.1-beta.1"])


def break_template(root: Path) -> None:
    fs.atomic_write(root / "template/v1/v1.4/Dockerfile.j2", b"FROM x\n{{ nope }}\n")


def name_missing_asset(root: Path) -> None:
    path = root / "template/v1/variants.toml"
    path.write_text(f"assets = ['no/such.txt']\n{path.read_text()}")


def name_outside_asset(root: Path) -> None:
    path = root / "template/v1/variants.toml"
    path.write_text(f"assets = ['../secret']\n{path.read_text()}")


def put_file_at_target(root: Path) -> None:
    fs.atomic_write(root / "build_artifacts/v1/v1.5/v1.5.0", b"")


def nothing(root: Path) -> None:
    """Leave the distribution as it is."""


@pytest.mark.parametrize(
    ("prepare", "command", "base", "args", "code", "words"),
    [
        (nothing, PATCH, "1.3.9", [], 2, "there is no release 1.3.9 (build_artifacts/v1/v1.3/v1.3.9)"),
        (nothing, PATCH, "1.2", [], 2, "did you mean 1.2.0?"),
        (nothing, PATCH, "1.4.0", ["--pre-release-identifier", "../x"], 2, "'../x' is not a pre-release identifier"),
        (nothing, PATCH, "1.4.0", ["--pre-release-identifier", ""], 2, "'' is not a pre-release identifier"),
        (nothing, PATCH, "1.4.0", ["--pre-release-identifier", "beta.1"], 3, "1.4.1-beta.1 exists"),
        (nothing, PATCH, "1.4.0", ["--lock", "--dry-run"], 2, "--dry-run writes nothing"),
        (break_line, PATCH, "1.4.0", [], 2, "build_artifacts/v1/v1.4/v1.4.0/cpu.env.in:3: 'numpy[version=]'"),
        (remove_lock, MINOR, "1.4.0", [], 2, "build_artifacts/v1/v1.4/v1.4.0/gpu.lock.json is missing"),
        (make_target, PATCH, "1.4.0", [], 3, "--force replaces its generated files"),
        (break_template, PATCH, "1.4.0", ["--force"], 2, "template/v1/v1.4/Dockerfile.j2:2: 'nope' is undefined"),
        (break_template, MINOR, "1.4.0", [], 2, "template/v1/v1.4/Dockerfile.j2:2: 'nope' is undefined"),
        (name_missing_asset, PATCH, "1.4.0", [], 2, "template/v1/variants.toml: the asset no/such.txt is not a file"),
        (name_outside_asset, PATCH, "1.4.0", [], 2, "'../secret' is not a plain relative path"),
        (put_file_at_target, MINOR, "1.4.0", [], 2, "build_artifacts/v1/v1.5/v1.5.0 is not a directory"),
    ],
)
def test_refused_runs_write_nothing(
    root: Path,
    call: Call,
    prepare: Callable[[Path], None],
    command: str,
    base: str,
    args: list[str],
    code: int,
    words: str,
) -> None:
    """Exit code, one message with the place, and every byte below the root as before."""
    prepare(root)
    before = listing(root)
    found, out, err = call(command, base, *args)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert listing(root) == before


def test_new_major_line_must_be_declared(root: Path, call: Call) -> None:
    (root / "template/v2/variants.toml").unlink()
    (root / "template/v2").rmdir()
    before = listing(root)
    code, _, err = call(MAJOR, "1.4.0")
    assert code == 2
    assert "template/v2/variants.toml is missing" in err
    assert listing(root) == before


@pytest.mark.parametrize("option", ["--dry-run", "--force"])
def test_dry_run_writes_nothing(root: Path, call: Call, option: str) -> None:
    """Not even a lock file; the plan is on stdout."""
    before = listing(root)
    code, out, _ = call(MINOR, "1.4.0", "--dry-run", option)
    assert code == 0
    assert out.splitlines()[0] == "build_artifacts/v1/v1.5/v1.5.0"
    assert "would write build_artifacts/v1/v1.5/v1.5.0/cpu.env.in" in out
    assert listing(root) == before


def test_json(call: Call) -> None:
    code, out, _ = call(PATCH, "1.4.0", "--json", "--dry-run")
    value = json.loads(out)
    assert code == 0
    assert (value["schema"], value["version"], value["directory"]) == (1, "1.4.1", "build_artifacts/v1/v1.4/v1.4.1")
    assert (value["written"], value["kept"]) == (False, ["v1.4.1-beta.1"])
    assert value["types"]["gpu"][1]["new"] == ">=2.2.1,<2.3.0"


def test_force_keeps_what_people_wrote(root: Path, call: Call) -> None:
    """Generated files are replaced; hand-written inputs and nested pre-releases stay the same files."""
    assert call(PATCH, "1.4.0")[0] == 0
    place = root / "build_artifacts/v1/v1.4/v1.4.1"
    for name, text in {
        "cpu.additional_packages_env.in": "scipy\n",
        "gpu.pinned_env.in": "numpy<2.2.9\n",
        "patch_x": "mine",
        "Dockerfile-cpu.patch": "mine",
        "NOTES": "mine",
        "cpu.env.in": "spoiled",
        "cpu.lock.json": "{}",
    }.items():
        (place / name).write_text(text)
    kept = ["Dockerfile-cpu.patch", "NOTES", "cpu.additional_packages_env.in", "gpu.pinned_env.in", "patch_x"]
    nested = place / "v1.4.1-beta.1" / "cpu.env.in"
    inodes = {path: path.stat().st_ino for path in [nested, *(place / name for name in kept)]}
    assert call(PATCH, "1.4.0")[0] == 3
    code, _, err = call(PATCH, "1.4.0", "--force")
    assert code == 0
    assert {path: path.stat().st_ino for path in inodes} == inodes
    for name in [*kept, "v1.4.1-beta.1"]:
        assert f"kept: build_artifacts/v1/v1.4/v1.4.1/{name}" in err
    assert "removed: build_artifacts/v1/v1.4/v1.4.1/cpu.lock.json" in err
    assert (place / "cpu.env.in").read_text().splitlines()[1] == "scipy"
    assert not (place / "cpu.lock.json").exists()


def test_a_release_that_is_made_again_keeps_its_lock(root: Path, call: Call) -> None:
    """With `--keep-lock` only what `create` itself writes is made anew; locks of types that are gone go."""
    assert call(PATCH, "1.4.0")[0] == 0
    place = root / "build_artifacts/v1/v1.4/v1.4.1"
    kept = [
        "cpu.lock.json", "cpu.env.out", "cpu.linux-aarch64.env.out", "gpu.conda-lock.yml", "layers.json", "CHANGELOG-gpu.md",
        "RELEASE.md", "RELEASE-NOTE.md", "images.json",
    ]  # fmt: skip
    for name in [*kept, "old.lock.json", "CHANGELOG-old.md", "cpu.env.in"]:
        (place / name).write_text("as it was")
    code, _, err = call(PATCH, "1.4.0", "--force", "--keep-lock")
    assert code == 0
    assert {name: (place / name).read_text() for name in kept} == dict.fromkeys(kept, "as it was")
    assert "removed: build_artifacts/v1/v1.4/v1.4.1/old.lock.json" in err
    assert not (place / "CHANGELOG-old.md").exists()
    assert "numpy" in (place / "cpu.env.in").read_text()
    code, _, err = call(PATCH, "1.4.0", "--keep-lock")
    assert (code, "give --force too" in err) == (2, True)


def test_hand_written_target_needs_no_force(root: Path, call: Call) -> None:
    place = root / "build_artifacts/v1/v1.5/v1.5.0"
    fs.atomic_write(place / "cpu.additional_packages_env.in", b"conda-forge::mlflow[version'>=2']\n")
    code, _, err = call(MINOR, "1.4.0")
    assert code == 0
    assert (place / "cpu.env.in").read_text().splitlines()[1] == "conda-forge::mlflow[version='>=2']"
    assert "warning: build_artifacts/v1/v1.5/v1.5.0/cpu.additional_packages_env.in:1: " in err


def test_new_minor_line_gets_its_template(root: Path, call: Call) -> None:
    """Made from the previous minor's once; a later release uses it as it is."""
    fs.write_tree(
        Tree(
            {
                "Dockerfile.j2": File(b"# {{ version }}\n"),
                "dirs/run": File(b"#!/bin/sh\n", 0o755),
                "dirs/etc/secret": File(b"", 0o600),
                "dirs/etc/link": File.link("../run"),
                "dirs/etc/dangling": File.link("/opt/conda/bin/python"),
            }
        ),
        root / "template/v1/v1.4",
    )
    (root / "template/v1/v1.4/Dockerfile.base").write_text("FROM debian\n")
    code, _, err = call(MINOR, "1.4.0")
    assert code == 0
    assert "template/v1/v1.5 is new, made from template/v1/v1.4" in err
    assert fs.read_tree(root / "template/v1/v1.5") == fs.read_tree(root / "template/v1/v1.4")
    place = root / "build_artifacts/v1/v1.5/v1.5.0"
    assert (place / "Dockerfile").read_text() == "# 1.5.0\n"
    assert (place / "dirs/run").stat().st_mode & 0o777 == 0o755
    assert (place / "dirs/etc/secret").stat().st_mode & 0o777 == 0o600
    assert (place / "dirs/etc/link").readlink() == Path("../run")
    assert (place / "dirs/etc/dangling").readlink() == Path("/opt/conda/bin/python")
    assert not (place / "Dockerfile.base").exists()
    (root / "template/v1/v1.5/Dockerfile.j2").write_text("# changed {{ version }}\n")
    assert call(MINOR, "1.4.0", "--force")[0] == 0
    assert (place / "Dockerfile").read_text() == "# changed 1.5.0\n"


def test_templates_fall_back(root: Path, call: Call) -> None:
    """The minor line's, the major line's, the base release's own: each is used where the one before is absent."""
    base = root / "build_artifacts/v1/v1.4/v1.4.0"
    fs.write_tree(Tree({"etc/a": File.link("b"), "run": File(b"x", 0o755)}), base / "dirs")
    (base / "Dockerfile").write_text("FROM base\n")
    code, _, err = call(PATCH, "1.4.0")
    place = root / "build_artifacts/v1/v1.4/v1.4.1"
    assert code == 0
    assert "no template in template/v1: Dockerfile and dirs/ are those of 1.4.0" in err
    assert (place / "Dockerfile").read_text() == "FROM base\n"
    assert (place / "dirs/etc/a").readlink() == Path("b")
    assert os.access(place / "dirs/run", os.X_OK)
    (root / "template/v1/Dockerfile").write_text("FROM major\n")
    assert call(PATCH, "1.4.0", "--force")[0] == 0
    assert (place / "Dockerfile").read_text() == "FROM major\n"
    fs.atomic_write(root / "template/v1/v1.4/Dockerfile", b"FROM minor\n")
    code, _, err = call(PATCH, "1.4.0", "--force")
    assert code == 0
    assert "Dockerfile is replaced; the old one was different" in err
    assert (place / "Dockerfile").read_text() == "FROM minor\n"
    # A new major line's template must be there: no fallback to another line's.
    assert call(MAJOR, "1.4.0")[0] == 0
    assert (root / "build_artifacts/v2/v2.0/v2.0.0/Dockerfile").read_text() == "FROM base\n"
    assert not (root / "template/v2/v2.0").exists()


def test_the_reviewers_tables(root: Path, call: Call) -> None:
    """Per type: what may move how far, what is new, removed, pinned, and by which file; a later type shows what differs."""
    target = root / "build_artifacts/v1/v1.4/v1.4.1"
    fs.atomic_write(target / "cpu.additional_packages_env.in", b"conda-forge::mlflow[version='>=2']\n")
    fs.atomic_write(target / "cpu.pinned_env.in", b"# why\nnumpy<2.2.9\nlibcurl<9\n")
    path = root / "template/v1/variants.toml"
    path.write_text(f"removed_packages = ['tzdata']\n{path.read_text()}")
    code, out, err = call(PATCH, "1.4.0", "--json")
    assert code == 0
    lines = [line.split("  ") for line in err.splitlines() if line.startswith("    ")]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert table[:10] == [
        ["cpu: 3 packages (1 new, 1 removed, 1 only pinned, 1 pinned too)"],
        ["package", "installed", "may move to", "note", "pinned by"],
        ["mlflow", "-", ">=2", "new"],
        ["python", "3.11.9", "<3.12.0", "pythonesque"],
        ["numpy", "2.2.1", "<2.3.0", "cpu.pinned_env.in:2 <2.2.9"],
        ["tzdata", "2024a", "removed"],
        ["libcurl", "-", "<9", "only in cpu.pinned_env.in:3"],
        ["gpu: 2 packages (1 removed); 2 as in cpu"],
        ["package", "installed", "may move to", "note", "pinned by"],
        ["numpy", "2.2.1", "<2.3.0"],
    ]
    rows = {row["name"]: row for row in json.loads(out)["types"]["cpu"]}
    assert (rows["tzdata"]["status"], rows["mlflow"]["status"], rows["libcurl"]["status"]) == (
        "removed",
        "new",
        "pinned",
    )
    assert rows["numpy"]["pins"] == ["build_artifacts/v1/v1.4/v1.4.1/cpu.pinned_env.in:2 <2.2.9"]


def test_assets(root: Path, call: Call) -> None:
    fs.atomic_write(root / "legal/NOTICE", b"notice", 0o640)
    name_missing_asset(root)
    path = root / "template/v1/variants.toml"
    path.write_text(path.read_text().replace("no/such.txt", "legal/NOTICE"))
    assert call(PATCH, "1.4.0")[0] == 0
    assert (root / "build_artifacts/v1/v1.4/v1.4.1/NOTICE").read_bytes() == b"notice"


def test_failed_write_takes_the_new_template_back(root: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.atomic_write(root / "template/v1/v1.4/Dockerfile", b"FROM x\n")
    before = listing(root)
    write_tree = fs.write_tree

    def fail(tree: Tree, target: Path, **kwargs: object) -> None:
        if target.name == "v1.5.0":
            raise OSError(28, "No space left on device", str(target))
        write_tree(tree, target)

    monkeypatch.setattr(fs, "write_tree", fail)
    code, out, err = call(MINOR, "1.4.0")
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert {path: data for path, data in listing(root).items() if not path.startswith(".lockyard")} == before


def test_base_that_is_not_the_newest_is_said(root: Path, call: Call) -> None:
    make_target(root)
    code, _, err = call(MINOR, "1.4.0")
    assert code == 0
    assert "1.4.0 is not the newest release of its line: 1.4.1 is" in err
    code, _, err = call(PATCH, "1.4.0")
    assert code == 3
    assert "--base-patch-version 1.4.1 is the newest of its line" in err


def test_interrupted_swap_is_restored_first(root: Path, call: Call) -> None:
    """A left-over .NAME.old of a killed run comes back before anything else."""
    place = root / "build_artifacts/v1/v1.4/v1.4.0"
    place.rename(place.with_name(".v1.4.0.old"))
    code, _, err = call(PATCH, "1.4.0")
    assert code == 0
    assert "restored build_artifacts/v1/v1.4/v1.4.0" in err


def test_quiet_and_json_logs(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}
    args = ["--root", str(root), PATCH, "--base-patch-version", "1.4.0", "--dry-run"]
    assert run(["-q", *args], environ=environ) == 0
    assert capsys.readouterr().err == ""
    assert run(["--log-format", "json", *args], environ=environ) == 0
    assert all(json.loads(line) for line in capsys.readouterr().err.splitlines())


def test_catalog_is_read_from_the_directories(root: Path) -> None:
    fs.atomic_write(root / "build_artifacts/v1/v1.4/v1.4.2/cpu.env.out", env_out().encode())
    catalog = read_catalog(open_workspace(root))
    assert {str(version): tuple(types) for version, types in catalog.releases.items()} == {
        "1.4.0": ("cpu", "gpu"),
        "1.4.1-beta.1": ("cpu", "gpu"),
        "1.4.2": ("cpu",),
    }


def test_stray_directories_are_no_releases(root: Path) -> None:
    """Neither a name that is no version nor a version in the wrong place stops anything."""
    for place in (
        "v1/v1.4/v1.4.02",
        "v1/v1.4/v1.5.0",
        "v1/v1.4/v1.4.0/v1.4.9-rc.1",
        "v1/v1.4/v1.4.3-01",
        "v1/v1.4/v1.4.4",
    ):
        (root / "build_artifacts" / place).mkdir(parents=True)
        if place != "v1/v1.4/v1.4.4":
            (root / "build_artifacts" / place / "source-version.txt").write_text("1.4.0")
    workspace = open_workspace(root)
    assert [str(version) for version in workspace.versions()] == ["1.4.0", "1.4.1-beta.1"]
    assert workspace.minor_line(Version(1, 4, 7)) == workspace.versions()
    assert workspace.minor_line(Version(1, 5, 0)) == ()


def test_create_is_light(root: Path) -> None:
    """rattler's values are loaded; no solver, no HTTP client, no engine, no conda-lock."""
    code = (
        "import sys\n"
        "from lockyard.cli.root import run\n"
        "code = run(sys.argv[1:], environ={'HOME': '/nonexistent'})\n"
        "assert code == 0, code\n"
        "print(*sorted(sys.modules))\n"
    )
    args = ["-q", "--root", str(root), PATCH, "--base-patch-version", "1.4.0"]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SRC)}
    )
    loaded = set(done.stdout.split())
    assert "rattler" in loaded
    assert not loaded & {"docker", "boto3", "conda_lock", "httpx", "lockyard.http", "lockyard.conda.solve"}
