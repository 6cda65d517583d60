"""The tutorial, README and how-to pages, run block by block as a reader does."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import cast

import pytest

from support.lab import make_lab
from support.package_index import Index
from support.pages import check_page, environment, places
from support.require import ROOT, SHARED, need

pytestmark = pytest.mark.integration

HERE = {"demo", "reference", "labservice", "upstream"}
"""The places of this file; `images` is in `test_package_images.py`, because names of images are the engine's."""
PAGES = sorted(page for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if page.name != "CHANGELOG.md")


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
    work, cache = tmp_path / "data-science", tmp_path / "cache"
    shutil.copytree(made_demo / "data-science", work, symlinks=True)
    for name in ("channel", "base"):
        (tmp_path / name).symlink_to(made_demo / name)
    # What a page brings into the cache is not there for the next one; files are replaced there, never written again.
    shutil.copytree(made_demo / "cache", cache, copy_function=os.link, ignore=shutil.ignore_patterns("rootfs"))
    env = environment(LOCKYARD_CACHE_DIR=cache, DOCKER_HOST=f"unix://{tmp_path}/no-engine")
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


@pytest.fixture
def labservice(tmp_path: Path, index: Index) -> tuple[Path, dict[str, str]]:
    """The example of a Python package in a repository of its own; its dependencies come from a local index."""
    lab = make_lab(tmp_path / "labservice", tmp_path / "home")
    return lab.root, environment(UV_DEFAULT_INDEX=index.simple, UV_NO_CONFIG="1", HOME=lab.home)


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


def committed(work: Path, env: dict[str, str], ignored: str = "out/\n.lockyard/\nregistry/\nchannel\nbase\n") -> None:
    (work / ".gitignore").write_text(ignored)
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "All releases so far"]):
        subprocess.run(["git", *args], cwd=work, env=env, check=True, capture_output=True)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if HERE & places(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_page(page: Path, request: pytest.FixtureRequest) -> None:
    """Each command of the page does what the page says, in the place that the page names."""
    for place in sorted(HERE & places(page)):
        work, env = cast("tuple[Path, dict[str, str]]", request.getfixturevalue(place))
        check_page(page, place, work, env)
