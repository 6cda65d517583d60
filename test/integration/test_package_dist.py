"""Locks, distributions and publications of Python packages with a real index, uv, build backends and twine; no network."""

import hashlib
import json
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockyard.app import packagepublish
from lockyard.app.packagebuild import BuildOptions, build_package
from support.lab import Lab, bare_project
from support.package_index import PASSWORD, Index, serve_index, tiny_wheel

pytestmark = pytest.mark.integration

SETUPTOOLS = {
    "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    '[project]\nname = "lab-tools"\nversion = "1.0.0"\ndescription = "Tools."\nreadme = "README.md"\n[tool.setuptools]\npackages = ["lab_tools"]\n',
    "README.md": "# Lab tools\n",
    "lab_tools/__init__.py": '__version__ = "1.0.0"\n',
    ".gitignore": "secret.py\n",
}  # fmt: skip
BACKEND = """\
from setuptools.build_meta import *
from setuptools import build_meta as real
import pathlib
def build_sdist(directory, settings=None):
    {sdist}
    return real.build_sdist(directory, settings)
def build_wheel(directory, settings=None, metadata=None):
    {wheel}
    return real.build_wheel(directory, settings, metadata)
"""


def own_backend(sdist: str = "pass", wheel: str = "pass") -> dict[str, str]:
    """The setuptools project with a backend that does something first."""
    text = SETUPTOOLS["pyproject.toml"].replace('"setuptools.build_meta"', '"own"\nbackend-path = ["."]')
    own = BACKEND.format(sdist=sdist, wheel=wheel)
    return {**SETUPTOOLS, "pyproject.toml": text, "own.py": own, "MANIFEST.in": "include own.py\n"}


# Locks


def test_sets_are_locked_with_hashes(lab: Lab, index: Index) -> None:
    written = lab.ok("package", "lock").splitlines()
    copy = "src/labservice/data/requirements_client.txt"
    assert sorted(written) == sorted(
        [*(f"requirements/requirements_{name}.txt" for name in ("all", "client", "dev")), copy]
    )
    client = (lab.root / "requirements/requirements_client.txt").read_text()
    assert client.startswith(
        '# Made by "lockyard package lock": set client of labservice (extras: client). Do not edit.\nclick=='
    )
    wheel = next(path for path in index.directory.iterdir() if path.name.startswith("click-"))
    assert f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" in client
    assert (lab.root / copy).read_text() == client
    whole = "".join((lab.root / path).read_text() for path in written)
    assert index.address.removeprefix("http://") not in whole
    assert "index" not in whole
    assert "pytest==" in (lab.root / "requirements/requirements_dev.txt").read_text()
    assert lab.run("package", "lock", "--check").code == 0
    assert lab.ok("package", "lock") == ""


def test_stale_locks_are_found_and_nothing_changes(lab: Lab) -> None:
    lab.ok("package", "lock")
    lab.edit("pyproject.toml", 'client = ["click>=8.1"]', 'client = ["click>=8.1", "idna-none==1"]')
    lab.commit()
    assert "idna-none" in lab.refused("package", "lock", "--check", code=4)
    lab.edit("pyproject.toml", '"idna-none==1"', '"mdurl"')
    lab.commit()
    said = lab.refused("package", "lock", "--check", code=4)
    assert "requirements/requirements_client.txt: 1 pins differ" in said
    assert "mdurl - ->" in said
    answer = json.loads(lab.ok("package", "lock", "client", "--json"))
    assert [item["set"] for item in answer["sets"]] == ["client"]
    assert answer["sets"][0]["changes"][0]["name"] == "mdurl"
    (lab.root / "src/labservice/data/requirements_client.txt").write_text("# old\n")
    lab.commit()
    said = lab.refused("package", "lock", "--check", code=4)
    assert "its copy src/labservice/data/requirements_client.txt differs" in said


def test_earlier_pins_stay(tmp_path: Path, home: Path) -> None:
    """A newer version moves nothing unless it is asked for."""
    directory = tmp_path / "index"
    directory.mkdir()

    def add(name: str, version: str) -> None:
        file, data = tiny_wheel(name, version)
        (directory / file).write_bytes(data)

    add("one", "1.0")
    add("two", "1.0")
    with serve_index(directory) as index:
        text = '[project]\nname = "lab"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["one", "two"]\n'
        lab = bare_project(tmp_path / "lab", tmp_path / "home", {"pyproject.toml": text}, index=index.simple)
        lab.ok("package", "lock")
        add("one", "1.1")
        add("two", "1.1")
        assert lab.run("package", "lock", "--check").code == 0
        assert "one 1.0 -> 1.1" in lab.run("package", "lock", "--update", "one").err
        pins = (lab.root / "requirements/requirements_all.txt").read_text()
        assert ("one==1.1" in pins, "two==1.0" in pins) == (True, True)
        lab.ok("package", "lock", "--fresh")
        assert "two==1.1" in (lab.root / "requirements/requirements_all.txt").read_text()


def test_unknown_extras_and_sets(lab: Lab) -> None:
    assert "did you mean 'client'?" in lab.refused("package", "lock", "clint")
    lab.edit("pyproject.toml", 'extras = ["client"], copy-to', 'extras = ["clint"], copy-to')
    lab.commit()
    said = lab.refused("package", "lock")
    assert "set 'client': unknown extra 'clint'; there are client, server" in said
    assert "pyproject.toml:" in said


def test_dependencies_that_do_not_fit(lab: Lab) -> None:
    lab.edit("pyproject.toml", "markdown-it-py>=3.0", "markdown-it-py>=3.0, <3.0")
    lab.commit()
    assert "no versions of the dependencies fit together" in lab.refused("package", "lock", code=4)


def test_a_poetry_project(tmp_path: Path, home: Path, index: Index) -> None:
    """Locked as poetry reads it, built by poetry's own backend, released like any other."""
    lab = bare_project(
        tmp_path / "lab", home,
        {
            "pyproject.toml": '[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n'
            '[tool.poetry]\nname = "lab"\nversion = "1.0.0"\ndescription = "Lab."\nauthors = []\n'
            '[tool.poetry.dependencies]\npython = "^3.11"\nclick = {version = "^8.1", optional = true}\n'
            '[tool.poetry.extras]\nclient = ["click"]\n[tool.poetry.group.dev.dependencies]\nmdurl = "*"\n'
            '[tool.poetry.scripts]\nlab = "lab:main"\n',
            "lab/__init__.py": "import click\n\n__version__ = '1.0.0'\n\n\ndef main() -> None:\n    click.echo('lab')\n",
        },
        index=index.simple,
    )  # fmt: skip
    assert lab.ok("package", "lock").splitlines() == [
        "requirements/requirements_all.txt",
        "requirements/requirements_dev.txt",
    ]
    dev = (lab.root / "requirements/requirements_dev.txt").read_text()
    assert ("click==8" in dev, "mdurl==" in dev, "# via lab (pyproject.toml:dev)" in dev) == (True, True, True)
    lab.commit()
    assert lab.run("package", "lock", "--check").code == 0
    out = lab.ok("package", "release", "final", "--bump", "minor").splitlines()
    assert (out[0], [line.split()[1] for line in out[1:]]) == (
        "v1.1.0",
        ["lab-1.1.0.tar.gz", "lab-1.1.0-py3-none-any.whl"],
    )
    assert 'version = "1.1.0"' in lab.git("show", "v1.1.0:pyproject.toml")
    assert 'version = "1.2.0.dev0"' in lab.git("show", "main:pyproject.toml")


# Distributions


def test_an_isolated_build_from_a_tag_anywhere(lab: Lab, tmp_path: Path) -> None:
    """The same bytes from the work tree and from the tag, in any directory; ignored files never get in."""
    lab.ok("package", "lock")
    lab.commit()
    lab.git("tag", "v0.1.0")
    (lab.root / "src/labservice/__pycache__").mkdir(exist_ok=True)
    (lab.root / "src/labservice/__pycache__/x.pyc").write_bytes(b"x")
    done = lab.run("package", "build")
    assert done.code == 0, done.err
    assert "built twice: the same bytes" in done.err
    assert "with what is locked: imports labservice; commands labservice, labservice-server" in done.err
    sdist, wheel = (Path(line) for line in done.out.splitlines())
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        moment = archive.infolist()[0].date_time
    assert "labservice/data/requirements_client.txt" in names
    assert not [name for name in names if "pycache" in name]
    assert moment[0] >= 2026
    with tarfile.open(sdist) as archive:
        times = {member.mtime for member in archive}
        assert {(member.uid, member.gid, member.uname) for member in archive} == {(0, 0, "")}
    assert times == {int(lab.git("show", "-s", "--format=%ct", "HEAD"))}
    assert lab.git("status", "--porcelain") == ""
    lab.write({"src/labservice/later.py": "LATER = 1\n"})
    lab.commit()
    again = json.loads(
        lab.ok("package", "build", "--revision", "v0.1.0", "--output", str(tmp_path / "again"), "--json")
    )
    assert [item["sha256"] for item in again["files"]] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (sdist, wheel)
    ]


def test_setuptools_is_steady_too(tmp_path: Path, home: Path, index: Index) -> None:
    lab = bare_project(tmp_path / "lab", home, SETUPTOOLS, index=index.simple)
    lab.write({"secret.py": "PASSWORD = 1\n"})
    done = lab.run("package", "build", "--no-isolation")
    assert done.code == 0, done.err
    assert "built twice: the same bytes" in done.err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (own_backend(wheel="pathlib.Path('lab_tools/__init__.py').write_text('__version__ = \"1.0.0\"  # here\\n')"), "differs from that of"),
        (own_backend(wheel="pathlib.Path('lab_tools/new.py').write_text('x = 1\\n')"), "lab_tools/new.py is not in"),
        (own_backend(sdist="import os; pathlib.Path('README.md').write_text(os.getcwd())"), "a second build gives other bytes"),
        (own_backend(sdist="raise SystemExit('no such compiler')"), "the build backend failed"),
        ({**SETUPTOOLS, "lab_tools/__init__.py": 'import nowhere\n__version__ = "1.0.0"\n'}, "does not work where it is installed"),
        ({**SETUPTOOLS, "lab_tools/__init__.py": '__version__ = "".join("0.9")\n'}, "lab_tools.__version__ is 0.9, not 1.0.0"),
        ({**SETUPTOOLS, "lab_tools/.env": "X=1\n", "MANIFEST.in": "include lab_tools/.env\n"}, "which belongs to no distribution"),
    ],
    ids=["changed", "added", "unsteady", "fails", "import", "version", "stray"],
)  # fmt: skip
def test_distributions_that_are_refused(
    tmp_path: Path, home: Path, index: Index, files: dict[str, str], message: str
) -> None:
    lab = bare_project(tmp_path / "lab", home, files, index=index.simple)
    once = () if "second build" in message else ("--no-verify",)
    said = lab.refused("package", "build", "--no-isolation", *once, code=5)
    assert message in said
    assert "Traceback" not in said.splitlines()[-1]
    assert not (lab.root / "dist").exists()


def test_a_backend_that_cannot_be_had(tmp_path: Path, home: Path, index: Index) -> None:
    text = SETUPTOOLS["pyproject.toml"].replace('["setuptools"]', '["setuptools", "not-on-this-index"]')
    lab = bare_project(tmp_path / "lab", home, {**SETUPTOOLS, "pyproject.toml": text}, index=index.simple)
    assert "not-on-this-index" in lab.refused("package", "build", code=5)
    assert "not-on-this-index" in lab.refused("package", "build", "--no-isolation", code=5)


# Publication


@pytest.fixture
def tools(tmp_path: Path, home: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A tagged project, built once and not tried, which other tests are about; what it uploads is removed from the index."""
    plain = BuildOptions(isolated=False, verify=False, try_out=False)
    monkeypatch.setattr(
        packagepublish,
        "build_package",
        lambda box, project, _, revision: build_package(box, project, plain, revision=revision),
    )
    before = set(index.names())
    index.forget()
    lab = bare_project(tmp_path / "lab", home, SETUPTOOLS, index=index.simple)
    lab.git("tag", "--annotate", "--message", "x", "v1.0.0")
    yield lab
    for name in set(index.names()) - before:
        (index.directory / name).unlink()


PUBLISH = ("package", "publish", "--no-isolation", "--repository")


def test_published_once_and_installed(tools: Lab, index: Index, tmp_path: Path) -> None:
    done = tools.run(*PUBLISH, index.upload, "--dry-run", "--json")
    assert done.code == 0, done.err
    assert [item["uploaded"] for item in json.loads(done.out)["files"]] == [False, False]
    assert "would upload" in done.err
    assert index.uploads == 0
    answer = tools.ok(*PUBLISH, index.upload).splitlines()
    assert [line.split()[1] for line in answer] == ["lab_tools-1.0.0.tar.gz", "lab_tools-1.0.0-py3-none-any.whl"]
    for line in answer:
        _, name, digest = line.split()
        assert hashlib.sha256((index.directory / name).read_bytes()).hexdigest() == digest
    said = tools.refused(*PUBLISH, index.upload, code=3)
    assert "is on http://127.0.0.1" in said
    assert "with the same bytes" in said
    from uv import find_uv_bin

    target = tmp_path / "site"
    argv = [
        find_uv_bin(),
        "pip",
        "install",
        "--target",
        str(target),
        "--default-index",
        index.simple,
        "lab-tools==1.0.0",
    ]
    subprocess.run(argv, check=True, capture_output=True, env=tools.environ)
    assert (target / "lab_tools/__init__.py").read_text() == '__version__ = "1.0.0"\n'


def test_other_bytes_are_refused(tools: Lab, index: Index) -> None:
    name, data = tiny_wheel("lab_tools", "1.0.0")
    (index.directory / name).write_bytes(data)
    assert "with other bytes" in tools.refused(*PUBLISH, index.upload, code=3)
    assert index.uploads == 0


def test_refused_and_cut_uploads_go_on(tools: Lab, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "another-secret-of-the-index"
    with monkeypatch.context() as patch:
        patch.setattr("support.lab.PASSWORD", wrong)
        said = tools.refused("-v", *PUBLISH, index.upload, code=6)
    assert "403" in said
    assert not [secret for secret in (wrong, PASSWORD) if secret in said]
    index.forget()
    index.refuse_after(1)
    said = tools.refused(*PUBLISH, index.upload, code=6)
    assert "the upload to" in said
    there = [name for name in index.names() if name.startswith("lab_tools")]
    assert len(there) == 1
    index.forget()
    assert len(tools.ok(*PUBLISH, index.upload).splitlines()) == 1
    assert len([name for name in index.names() if name.startswith("lab_tools")]) == 2


def test_what_is_not_published(tools: Lab, index: Index) -> None:
    assert "1.0.0 is a final version, and testpypi is a test index" in tools.refused(*PUBLISH, "testpypi")
    assert "did you mean 'testpypi'?" in tools.refused(*PUBLISH, "testpipy")
    assert "in the clear" in tools.refused(*PUBLISH, "http://packages.example.com/")
    assert "holds credentials" in tools.refused(*PUBLISH, "https://me:pw@packages.example.com/")
    tools.write({"new.txt": "x"})
    assert "changes that are not committed" in tools.refused(*PUBLISH, index.upload)
    tools.commit()
    assert "the tag v1.0.0 names" in tools.refused(*PUBLISH, index.upload)
    tools.edit("pyproject.toml", "1.0.0", "1.0.1")
    tools.commit()
    assert "no tag names 1.0.1: there is no v1.0.1" in tools.refused(*PUBLISH, index.upload)
    assert index.uploads == 0
