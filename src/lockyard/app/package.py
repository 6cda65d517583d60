"""Use cases around a Python package: open the project."""

from pathlib import Path

from lockyard import fs
from lockyard.app.workspace import decode
from lockyard.errors import ConfigError
from lockyard.pyrelease.project import PYPROJECT, Project, parse_project


def open_project(root: Path) -> Project:
    """Open the Python project at `root`.

    Raises:
        ConfigError: there is none, or its configuration is wrong.

    """
    text = read_text(root, PYPROJECT)
    if text is None:
        raise ConfigError(f"{root} has no {PYPROJECT}", hint="give the root of a Python project: --root DIR")
    return parse_project(text, root=root, read=lambda path: read_text(root, path))


def find_project_root(start: Path) -> Path:
    """Return the nearest parent of `start` with a `pyproject.toml`.

    Raises:
        ConfigError: there is none.

    """
    for directory in (start, *start.parents):
        if (directory / PYPROJECT).is_file():
            return directory
    raise ConfigError(
        f"no Python project here: neither {start} nor a parent has {PYPROJECT}",
        hint="change to a project's directory or give --root DIR",
    )


def read_text(root: Path, path: str) -> str | None:
    """Return the text of a file of the project, `None` when it is not there.

    Raises:
        ConfigError: it is not UTF-8, or leads out of the project.

    """
    data = fs.read_file(fs.inside(root, path, source=PYPROJECT))
    return None if data is None else decode(data, path)
