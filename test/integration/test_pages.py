"""The tutorial, README and how-to pages, run block by block as a reader does."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from support.lab import make_lab
from support.package_index import BUILD, LAB, Index, fill, serve_index
from support.pages import Command, commands, run_page
from support.require import ROOT, SHARED, need

pytestmark = pytest.mark.integration

PAGES = sorted(page for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if page.name != "CHANGELOG.md")


def steps(page: Path) -> list[Command]:
    return [command for command in commands(page) if command.place]


def environment(**more: str | Path) -> dict[str, str]:
    """A reader's: no setting of Lockyard, its commands on the path, no colours, wide lines."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKYARD_", "GIT_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}", "COLUMNS": "200", "NO_COLOR": "1"}
    identity = {
        f"GIT_{who}_{what}": f"reader{at}example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what, at in (("NAME", " "), ("EMAIL", "@"))
    }
    return env | identity | {name: str(value) for name, value in more.items()}


@pytest.fixture(scope="module")
def made_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` leaves, its downloads kept between runs."""
    from support.demo import demo_base, demo_cache, demo_channel

    need("debian", "sandbox")
    place = tmp_path_factory.mktemp("demo")
    (place / "base").mkdir()
    (place / "channel").symlink_to(demo_channel())
    (place / "base" / "debian.tar.zst").symlink_to(demo_base())
    (place / "work").symlink_to(demo_cache() / "work")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "demo.py", "--directory", place],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture
def demo(made_demo: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the demo's distribution beside its channel and base, a git repository as every distribution."""
    work = tmp_path / "data-science"
    shutil.copytree(made_demo / "data-science", work, symlinks=True)
    for name in ("channel", "base"):
        (tmp_path / name).symlink_to(made_demo / name)
    env = environment(LOCKYARD_CACHE_DIR=made_demo / "cache")
    committed(work, env)
    return work, env


@pytest.fixture
def reference(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A checkout of this repository's own distribution, offline."""
    work = tmp_path / "checkout"
    work.mkdir()
    for name in ("build_artifacts", "template", "test/image"):
        shutil.copytree(ROOT / name, work / name, symlinks=True)
    for name in ("pyproject.toml", "CHANGELOG-cpu.md", "CHANGELOG-gpu.md", "RELEASE-NOTE.md"):
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, work / name)
    env = environment(LOCKYARD_CACHE_DIR=tmp_path / "cache")
    committed(work, env)
    return work, env


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """What the example of a Python package needs, from what is installed here."""
    with serve_index(fill(tmp_path_factory.mktemp("packages"), *BUILD, *LAB)) as index:
        yield index


@pytest.fixture
def labservice(tmp_path: Path, package_index: Index) -> tuple[Path, dict[str, str]]:
    """The example of a Python package in a repository of its own; its dependencies come from a local index."""
    lab = make_lab(tmp_path / "labservice", tmp_path / "home")
    return lab.root, environment(UV_DEFAULT_INDEX=package_index.simple, UV_NO_CONFIG="1", HOME=lab.home)


@pytest.fixture
def upstream(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The real releases of a public distribution, as its own repository had them."""
    need("realdata")
    work = tmp_path / "upstream"
    with tarfile.open(SHARED / "upstream-releases.tar.xz") as archive:
        archive.extractall(work, filter="data")
    env = environment(LOCKYARD_CACHE_DIR=tmp_path / "cache")
    committed(work, env, ignored="")
    return work, env


@pytest.fixture
def images(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A clone of examples/labservice that needs no network: a base, and wheels of what is installed here."""
    from support.labimages import make_lab, python_base
    from support.package_index import BUILD, LAB, fill

    need("docker", "debian", "sandbox")
    index = fill(tmp_path / "index", *BUILD, *LAB)
    lab = make_lab(tmp_path, base=python_base())
    env = environment(LOCKYARD_CACHE_DIR=tmp_path / "cache", UV_NO_INDEX="1", UV_FIND_LINKS=index)
    subprocess.run(["lockyard", "package", "lock", "--fresh"], cwd=lab.root, env=env, check=True, capture_output=True)
    lab.commit("locks")
    lab.git("tag", "--force", "v0.1.0")
    yield lab.root, env
    for image in ("0.1.0", "0.1.0-client", "0.1.0-client-dirty", "0.1.0-client-cuda12.9"):
        lab.remove_image(f"localhost/labservice:{image}")


def committed(work: Path, env: dict[str, str], ignored: str = "out/\n.lockyard/\nregistry/\nchannel\nbase\n") -> None:
    (work / ".gitignore").write_text(ignored)
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "All releases so far"]):
        subprocess.run(["git", *args], cwd=work, env=env, check=True, capture_output=True)


@pytest.mark.parametrize("page", [page for page in PAGES if steps(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, request: pytest.FixtureRequest) -> None:
    """Each command of the page does what the page says, in the place that the page names."""
    todo = steps(page)
    for place in dict.fromkeys(command.place for command in todo):
        work, env = cast("tuple[Path, dict[str, str]]", request.getfixturevalue(str(place)))
        mine = [command for command in todo if command.place == place]
        problems = [problem for result in run_page(mine, work, env) if (problem := result.problem())]
        assert not problems, "\n\n".join(problems)
