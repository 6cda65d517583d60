"""Projects of both kinds, and what is refused, by file and line."""

from pathlib import Path

import pytest
from packaging.version import Version

from lockyard.errors import ConfigError
from lockyard.pyrelease.project import Project, parse_project

ROOT = Path("/nowhere")
CORE = '[project]\nname = "lab-service"\nversion = "1.2.0"\n'


def parse(text: str, **files: str) -> Project:
    named = {name.replace("__", "/") + ".py": data for name, data in files.items()}
    return parse_project(text, root=ROOT, read=named.get)


def test_a_pep_621_project() -> None:
    project = parse(
        CORE + 'requires-python = ">=3.11"\n[project.optional-dependencies]\nclient = []\nserver = []\n'
        '[dependency-groups]\ndev = []\n[project.scripts]\nlab = "lab:main"\n'
    )
    assert (project.name, project.version, project.style) == ("lab-service", Version("1.2"), "pep621")
    assert project.extras == ("client", "server")
    assert project.modules == ("lab_service",)
    assert {name: (item.extras, item.groups) for name, item in project.sets.items()} == {
        "all": (("client", "server"), ()),
        "dev": (("client", "server"), ("dev",)),
    }
    assert project.tag(Version("1.2.1")) == "v1.2.1"
    assert project.branch(Version("1.2.1")) == "release/1.2.1"
    assert project.scripts == {"lab": "lab:main"}


def test_a_poetry_project() -> None:
    project = parse(
        '[tool.poetry]\nname = "lab"\nversion = "0.3.0rc1"\n[tool.poetry.dependencies]\npython = "^3.11"\n'
        '[tool.poetry.extras]\nclient = ["click"]\n[tool.poetry.group.dev.dependencies]\npytest = "*"\n'
    )
    assert (project.style, project.place.key, project.requires_python) == (
        "poetry",
        ("tool", "poetry", "version"),
        "^3.11",
    )
    assert (project.extras, project.groups) == (("client",), ("dev",))


def test_a_project_of_poetry_2() -> None:
    """The core is PEP 621, the groups are poetry's: poetry has to read them."""
    project = parse(CORE + "[tool.poetry.group.dev.dependencies]\npytest = '*'\n")
    assert (project.style, project.place.key, project.groups) == ("poetry", ("project", "version"), ("dev",))
    assert parse(CORE + "[tool.poetry]\npackages = []\n").style == "pep621"


@pytest.mark.parametrize(
    ("table", "path", "text"),
    [
        ('[tool.hatch.version]\npath = "lab.py"\n', "lab", '__version__ = "2.0"\n'),
        ('[tool.hatch.version]\npath = "lab.py"\npattern = "V = (?P<version>.+)"\n', "lab", "V = 2.0\n"),
        ('[tool.setuptools.dynamic]\nversion = { attr = "lab.number" }\n', "src__lab", 'number = "2.0"\n'),
        ('[tool.setuptools.dynamic]\nversion = { file = "lab.py" }\n', "lab", "2.0\n"),
        ('[build-system]\nbuild-backend = "flit_core.buildapi"\n', "lab", '__version__: str = "2.0"\n'),
    ],
)  # fmt: skip
def test_dynamic_versions(table: str, path: str, text: str) -> None:
    project = parse('[project]\nname = "lab"\ndynamic = ["version"]\n' + table, **{path: text})
    assert (str(project.version), project.place.path) == ("2.0", path.replace("__", "/") + ".py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.black]\n", "neither [project] nor [tool.poetry]"),
        ('[project]\nname = "lab"\ndynamic = ["version"]\n', "pyproject.toml:1: the version stands in no file"),
        ('[project]\nname = "lab"\nversion = "one"\n', "pyproject.toml:3: 'one' is not a version"),
        (CORE + "[tool.lockyard.package]\nchanglog = 'x'\n", "pyproject.toml:5: unknown key 'package.changlog'; did you mean 'changelog'?"),
        (CORE + "[tool.lockyard.package.sets]\nall = { extra = [] }\n", "pyproject.toml:5: unknown key 'package.sets.all.extra'; did you mean 'extras'?"),
        (CORE + "[tool.lockyard.package.sets]\nall = { extras = ['clint'] }\n", "unknown extra 'clint'; the project has no extras"),
        (CORE + "[tool.lockyard.package]\nversion-files = [{ path = '../x' }]\n", "is not a plain relative path"),
        (CORE + "[tool.lockyard.package]\nversion-files = [{ path = 'x', pattern = 'v' }]\n", "must hold {version} exactly once"),
        (CORE + "[tool.lockyard.package]\nbranch = 'release {version}'\n", "is no name that git takes"),
        ("[project\n", "pyproject.toml:1: this is no TOML"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert message in caught.value.message


def test_an_unknown_extra_has_its_nearest() -> None:
    text = CORE + "[project.optional-dependencies]\nclient = []\n[tool.lockyard.package.sets.c]\nextras = ['clint']\n"
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message == "pyproject.toml:6: set 'c': unknown extra 'clint'; there are client"
    assert caught.value.hint == "did you mean 'client'?"
