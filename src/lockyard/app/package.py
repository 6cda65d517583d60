"""Use cases around a Python package's version: open the project, bump, find copies that disagree."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from lockyard import fs
from lockyard.app.workspace import decode
from lockyard.errors import ConfigError, DriftError
from lockyard.gitwork import GitWork
from lockyard.ports import Toolbox
from lockyard.pyrelease.bump import Identifier, Kind, bump
from lockyard.pyrelease.edits import Copy, Edits, disagreeing, find_copies, plan_edits
from lockyard.pyrelease.files import state_dir, write_files
from lockyard.pyrelease.project import PYPROJECT, Project, Read, parse_project


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


def open_project(root: Path) -> Project:
    """Open the Python project at `root`.

    Raises:
        ConfigError: there is none, or its configuration is wrong.

    """
    read = reader(root)
    text = read(PYPROJECT)
    if text is None:
        raise ConfigError(f"{root} has no {PYPROJECT}", hint="give the root of a Python project: --root DIR")
    return parse_project(text, root=root, read=read)


def reader(root: Path) -> Read:
    """Return what reads the texts of a project; it refuses what is not UTF-8 and paths that lead out of the project."""

    def read(path: str) -> str | None:
        data = fs.read_file(fs.inside(root, path, source=PYPROJECT))
        return None if data is None else decode(data, path)

    return read


def project_lock(
    root: Path, *, patience: float = 0.0, tell: Callable[[str], object] | None = None
) -> AbstractContextManager[None]:
    """Hold the project's write lock.

    Raises:
        LockyardError: another command does, and still after `patience` seconds; `tell` is told of the waiting.

    """
    return fs.lock(state_dir(root) / "lock", patience=patience, tell=tell)


def refuse_dirty(git: GitWork, why: str) -> None:
    """Refuse a work tree that differs from its last commit.

    Raises:
        ConfigError: it does; the files are listed.

    """
    changed = git.status()
    if changed:
        raise ConfigError(
            f"the work tree has changes that are not committed: {why}", hint="commit or stash them",
            details=[*changed[:20], *([f"… and {len(changed) - 20} more"] if len(changed) > 20 else [])],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BumpPlan:
    """From which version to which, by which edits; `strays` are the copies that said something else."""

    old: Version
    new: Version
    edits: Edits
    strays: tuple[Copy, ...]


def plan_bump(project: Project, kind: Kind, identifier: Identifier | None) -> BumpPlan:
    """Plan the next version; nothing is changed.

    Raises:
        ConfigError: there is no such step, or a copy of the version cannot be found.

    """
    return plan_version(project, bump(project.version, kind, identifier), reader(project.root))


def plan_version(project: Project, new: Version, read: Read) -> BumpPlan:
    """Plan the edits that write a version into every copy."""
    copies = find_copies(project, read)
    return BumpPlan(project.version, new, plan_edits(copies, read, new), disagreeing(copies))


def apply_bump(toolbox: Toolbox, project: Project, plan: BumpPlan) -> tuple[str, ...]:
    """Make the edits as one step, and return the files that changed.

    Raises:
        ConfigError: the work tree has changes, or a file is no longer what was planned for.

    """
    refuse_dirty(GitWork(project.root, toolbox.environ), "a bump must be a commit of its own")
    with project_lock(project.root):
        now = plan_version(project, plan.new, reader(project.root))
        if now.edits != plan.edits:
            raise ConfigError("the files changed since the edits were shown", hint="run it again")
        return write_files(project.root, {path: text.encode() for path, text in plan.edits.files.items()})


def check_copies(project: Project) -> tuple[Copy, ...]:
    """Return every copy of the version.

    Raises:
        DriftError: copies disagree; each is named with its line.

    """
    copies = find_copies(project, reader(project.root))
    strays = disagreeing(copies)
    if strays:
        raise DriftError(
            f"{len(strays)} of {len(copies)} copies of the version disagree with {copies[0].where}, {copies[0].text}",
            details=[f"{copy.where}: {copy.text}" for copy in strays],
            hint="mend them by hand, or with the next lockyard package bump",
        )
    return copies
