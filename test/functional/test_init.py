"""`init`: what is written, that every command reads it, what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard.app import init as use_case
from lockyard.app.init import InitRequest, init_distribution
from lockyard.app.workspace import open_workspace
from lockyard.checks.suite import read_suite
from lockyard.cli.root import run
from lockyard.errors import LockyardError
from lockyard.fs import read_tree
from lockyard.version import Version
from support.index import record, write_index

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)

    def command(*args: str) -> tuple[int, str, str]:
        code = run(list(args), environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")})
        out, err = capsys.readouterr()
        return code, out, err

    return command


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_the_tree_is_drawn_and_written(tmp_path: Path, call: Call) -> None:
    code, dry, _ = call("init", "new", "--name", "our-images", "--dry-run")
    assert code == 0
    assert not (tmp_path / "new").exists()
    code, out, err = call("init", "new", "--name", "our-images")
    assert (code, out) == (0, dry)
    assert "next: cd new && lockyard build 0.1.0" in err
    names = [line.split("── ")[-1] for line in out.splitlines()[1:]]
    assert sorted(name for name in names if not name.endswith("/")) == sorted(
        path.rpartition("/")[2] for path in files(tmp_path / "new")
    )


def test_every_part_is_read(tmp_path: Path, call: Call) -> None:
    """Configuration, specs, image tests: what the commands read without a failure."""
    assert call("init", "new", "--types", "cpu,gpu,small-gpu")[0] == 0
    workspace = open_workspace(tmp_path / "new")
    version = Version.parse("0.1.0")
    assert workspace.versions() == (version,)
    variants = workspace.variants(version)
    assert tuple(variants) == ("cpu", "gpu", "small-gpu")
    assert variants["cpu"].virtual_packages == {"__glibc": "2.39", "__linux": "5.10"}
    assert variants["small-gpu"].virtual_packages["__cuda"] == "12.9"
    assert variants["gpu"].pytest_flags == ("--use-gpu",)
    suite = read_suite(read_tree(tmp_path / "new/test/image"), source="test/image")
    assert [test.name for test in suite.tests] == ["science", "version"]
    assert suite.pytest
    assert call("--root", "new", "ci", "generate", "--check")[0] == 0
    assert (tmp_path / "new/.github/workflows/lockyard-nightly.yml").is_file()
    release = tmp_path / "new/build_artifacts/v0/v0.1/v0.1.0"
    assert (release / "Dockerfile").read_bytes() == (tmp_path / "new/template/v0/v0.1/Dockerfile").read_bytes()
    assert "cuda-cudart" in (release / "small-gpu.env.in").read_text()
    assert "cuda-cudart" not in (release / "cpu.env.in").read_text()


def test_create_and_lock_at_once(tmp_path: Path, call: Call) -> None:
    """A directory of this machine is the channel, linked and not committed."""
    packages = {"python": "3.12.1", "numpy": "2.2.3", "pandas": "2.3.0", "pytest": "8.3.5", "cuda-cudart": "12.6.77"}
    write_index(tmp_path / "mirror", [record(name, version) for name, version in packages.items()])
    code, _, err = call("init", "new", "--channel", "./mirror", "--base", "scratch")
    assert code == 0, err
    root = tmp_path / "new"
    assert (root / "channel").readlink() == tmp_path / "mirror"
    assert "/channel\n" in (root / ".gitignore").read_text()
    assert str(tmp_path) not in "".join(path.read_text() for path in root.rglob("*") if path.is_file())
    assert call("--root", "new", "lock", "0.1.0")[0] == 0
    code, out, _ = call("--root", "new", "create-patch-version-artifacts", "--base-patch-version", "0.1.0", "--lock")
    assert (code, out) == (0, "build_artifacts/v0/v0.1/v0.1.1\n")
    assert call("--root", "new", "lock", "0.1.1", "--check")[0] == 0


def test_a_root_file_system_is_linked(tmp_path: Path, call: Call) -> None:
    (tmp_path / "debian.tar.zst").write_bytes(b"x")
    assert (
        call("init", "new", "--types", "cpu", "--base", "debian.tar.zst", "--virtual-package", "__glibc=2.36")[0] == 0
    )
    variant = open_workspace(tmp_path / "new").line(Version.parse("0.1.0")).variant("cpu")
    assert (variant.base, variant.virtual_packages["__glibc"]) == ("rootfs:base/debian.tar.zst", "2.36")
    assert (tmp_path / "new/base/debian.tar.zst").readlink() == tmp_path / "debian.tar.zst"


def test_in_the_current_directory(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty repository is filled, and whoever stands in it stands there still."""
    place = tmp_path / "cloned"
    place.mkdir()
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    monkeypatch.chdir(place)
    inode = place.stat().st_ino
    code, out, err = call("init")
    assert (code, out.splitlines()[0]) == (0, "."), err
    assert place.stat().st_ino == inode
    assert open_workspace(place).distribution.name == "cloned"
    assert sorted(os.listdir(place)) == sorted([
        ".git", ".github", ".gitignore", "README.md", "build_artifacts", "lockyard.toml", "template", "test",
    ])  # fmt: skip


def test_a_directory_with_something_in_it(tmp_path: Path, call: Call) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/notes.txt").write_text("mine")
    for extra in ([], ["--dry-run"]):
        code, out, err = call("init", "new", *extra)
        assert (code, out) == (3, "")
        assert "is not empty: notes.txt" in err
    assert files(tmp_path / "new") == ["notes.txt"]


def test_not_inside_of_a_distribution(tmp_path: Path, call: Call) -> None:
    assert call("init", "new")[0] == 0
    code, _, err = call("init", "new/inner")
    assert code == 2
    assert "is inside of the distribution" in err
    assert call("init", "new/../beside")[0] == 0
    assert (tmp_path / "beside/lockyard.toml").is_file()
    assert not (tmp_path / "new/inner").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--name", "Our Images"], "'Our Images'"),
        (["--types", "cpu,CPU"], "image type 'CPU'"),
        (["--types", "cpu,cpu"], "give names that differ"),
        (["--types", ","], "give names that differ"),
        (["--base", "not a reference"], "base"),
        (["--channel", 'a"b'], "is not a channel"),
        (["--name", 'x"\nimage = "elsewhere'], "use lower-case letters"),
        (["--base", 'x"\nowner = "1:1'], "base"),
        (["--virtual-package", "glibc"], "is not NAME=VERSION"),
        (["--kind", "package", "--types", "cpu"], "--types is for --kind conda"),
        (["--kind", "package", "--name", "2cool"], "'2cool'"),
        (["--build", "--dry-run"], "nothing to --build"),
    ],
)
def test_what_cannot_be_writes_nothing(tmp_path: Path, call: Call, args: list[str], message: str) -> None:
    code, out, err = call("init", "new", *args)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "new").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory that was there: it is as empty as before."""
    place = tmp_path / "there"
    place.mkdir()
    rename, done = Path.rename, []

    def fails(self: Path, target: Path) -> Path:
        if Path(target).parent == place:
            done.append(target)
            if len(done) == 3:
                raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="No space"):
        init_distribution(InitRequest(directory=place))
    assert len(done) == 3
    assert list(place.iterdir()) == []


def test_a_package(tmp_path: Path, call: Call) -> None:
    """Its own tests pass, and the commands of packages read it."""
    code, out, err = call("init", "service", "--kind", "package")
    assert code == 0, err
    assert "Dockerfile.all" in out
    assert "lockyard package lock" in err
    assert call("--root", "service", "runtimes", "generate", "--all", "--check")[0] == 0
    assert call("--root", "service", "package", "bump", "minor", "--dry-run")[1] == "0.2.0\n"
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path / "service", env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_json(call: Call) -> None:
    value = json.loads(call("init", "new", "--json")[1])
    assert (value["name"], value["written"], value["links"]) == ("new", True, {})
    assert "lockyard.toml" in value["files"]


def test_the_templates_are_shipped() -> None:
    """They lie in the package, beside its modules."""
    assert use_case.ASSETS.is_relative_to(Path(use_case.__file__).parents[1])
    assert len(read_tree(use_case.ASSETS)) > 15


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LockyardError, match="is not a directory"):
        init_distribution(InitRequest(directory=tmp_path / "file"))
