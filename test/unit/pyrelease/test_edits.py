"""Copies of the version are found and edited; nothing else of any file changes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from lockyard.errors import ConfigError
from lockyard.pyrelease.edits import Edits, disagreeing, find_copies, plan_edits
from lockyard.pyrelease.project import parse_project

PYPROJECT = """\
# the project
[project]
name = "lab"
version = "0.1.0" # kept
dependencies = ["other==0.1.0"]

[tool.lockyard.package]
version-files = [
  { path = "README.md", pattern = "lab=={version}" },
  { path = "conf.py", pattern = "release = '{version}'" },
]
"""
FILES = {
    "pyproject.toml": PYPROJECT,
    "src/lab/__init__.py": '"""Lab."""\n\n__version__ = "0.1.0"  # here\n',
    "src/lab/_version.py": "__version__ = compute()\n",
    "README.md": "pip install lab==0.1.0. Not otherlab==0.1.0\n",
    "conf.py": "release = '0.1.0'\nversion = '0.1.0'\n",
    "runtimes.yaml": 'defaults:\n  pkg_version: 0.1.0  # of the package\nruntimes:\n  - name: x\n    pkg_version: "0.1.0"\n    image: a:0.1.0\n',
}


def edit(files: dict[str, str], new: str) -> tuple[tuple[str, ...], Edits]:
    project = parse_project(files["pyproject.toml"], root=Path("/nowhere"), read=files.get)
    copies = find_copies(project, files.get)
    return tuple(copy.where for copy in copies), plan_edits(copies, files.get, Version(new))


def test_every_copy_is_edited_and_nothing_else() -> None:
    where, edits = edit(FILES, "0.2.0rc1")
    assert where == (
        "pyproject.toml:4", "src/lab/__init__.py:3", "runtimes.yaml:2", "runtimes.yaml:5", "README.md:1", "conf.py:1",
    )  # fmt: skip
    assert edits.files["pyproject.toml"] == PYPROJECT.replace('version = "0.1.0"', 'version = "0.2.0rc1"')
    assert edits.files["README.md"] == "pip install lab==0.2.0rc1. Not otherlab==0.1.0\n"
    assert edits.files["conf.py"] == "release = '0.2.0rc1'\nversion = '0.1.0'\n"
    assert edits.files["runtimes.yaml"].count("0.2.0rc1") == 2
    assert "image: a:0.1.0" in edits.files["runtimes.yaml"]
    assert [(line.path, line.line, line.old, line.new) for line in edits.lines][:2] == [
        ("pyproject.toml", 4, 'version = "0.1.0" # kept', 'version = "0.2.0rc1" # kept'),
        ("src/lab/__init__.py", 3, '__version__ = "0.1.0"  # here', '__version__ = "0.2.0rc1"  # here'),
    ]


def test_there_and_back_is_the_same_bytes() -> None:
    _, there = edit(FILES, "1.0.0")
    _, back = edit({**FILES, **there.files}, "0.1.0")
    assert {**FILES, **there.files, **back.files} == FILES


def test_copies_that_disagree() -> None:
    files = {**FILES, "runtimes.yaml": FILES["runtimes.yaml"].replace('"0.1.0"', '"0.0.9"')}
    project = parse_project(PYPROJECT, root=Path("/nowhere"), read=files.get)
    assert [(copy.where, copy.text) for copy in disagreeing(find_copies(project, files.get))] == [
        ("runtimes.yaml:5", "0.0.9")
    ]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("README.md", "nothing\n", "README.md holds 'lab=={version}' nowhere"),
        ("README.md", "lab==1.0\nlab==2.0\n", "README.md holds 'lab=={version}' 2 times"),
        ("README.md", None, "version-files: README.md is missing"),
        ("runtimes.yaml", "a: [1\nb: 2\n", "runtimes.yaml:2: "),
    ],
)
def test_what_is_refused(path: str, text: str | None, message: str) -> None:
    files = {name: data for name, data in {**FILES, path: text}.items() if data is not None}
    with pytest.raises(ConfigError) as caught:
        edit(files, "0.2.0")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[tool.poetry]\nname = 'lab'\nversion = '0.1.0'\n", "pyproject.toml"),
        ("project = { name = 'lab', version = '0.1.0' }\n", "pyproject.toml"),
        ("project.name = 'lab'\nproject.version = '0.1.0'\n", "pyproject.toml"),
        ("[project]\nname = 'lab'\ndynamic = ['version']\n[tool.hatch.version]\npath = 'lab.py'\n", "lab.py"),
        ("[project]\nname = 'lab'\ndynamic = ['version']\n[tool.setuptools.dynamic]\nversion.file = 'V'\n", "V"),
    ],
)
def test_every_place_of_a_version(text: str, path: str) -> None:
    files = {"pyproject.toml": text, "lab.py": "__version__ = '0.1.0'\n", "V": "0.1.0\n"}
    _, edits = edit(files, "0.2.0")
    assert path in edits.files
    project = parse_project(
        {**files, **edits.files}["pyproject.toml"], root=Path("/x"), read={**files, **edits.files}.get
    )
    assert str(project.version) == "0.2.0"


@given(st.lists(st.text(alphabet="ab{}=.0123 \n'\"", max_size=20), max_size=6))
def test_any_text_around_a_pattern_survives(parts: list[str]) -> None:
    """Only the bytes of the version change, or the file is refused."""
    text = "\n".join(parts) + "\nlab==0.1.0\n" + "\n".join(reversed(parts))
    try:
        _, edits = edit({**FILES, "README.md": text}, "0.2.0")
    except ConfigError:
        return
    assert edits.files["README.md"].replace("lab==0.2.0", "lab==0.1.0") == text
