"""The use case of locking a Python package's dependencies: one requirements file with hashes for each set."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.app.package import project_lock, reader
from lockyard.errors import ConfigError, StaleLockError
from lockyard.ports import Toolbox
from lockyard.pyrelease import requirements
from lockyard.pyrelease.files import state_dir, write_files
from lockyard.pyrelease.project import PYPROJECT, Project, RequirementSet
from lockyard.pyrelease.requirements import PinChange
from lockyard.pyrelease.uvtool import CompileRequest, Uv
from lockyard.strict import tool_table
from lockyard.suggest import nearest


@dataclass(frozen=True, kw_only=True)
class LockOptions:
    """How to lock: `update` names packages that may move, `fresh` lets all move; `index_url` replaces the default index."""

    update: tuple[str, ...] = ()
    fresh: bool = False
    offline: bool = False
    index_url: str | None = None


@dataclass(frozen=True, slots=True)
class SetLock:
    """A set's file as it should be; `old` is as it is, `None` when it is not there. Paths are relative to the root."""

    name: str
    path: str
    old: str | None
    new: str
    copy_to: str | None
    copy_is_current: bool

    @property
    def changes(self) -> tuple[PinChange, ...]:
        """The pins that differ."""
        return requirements.changes(self.old or "", self.new)

    @property
    def is_current(self) -> bool:
        """Whether the file and its copy are as they should be."""
        return self.old == self.new and self.copy_is_current

    @property
    def why(self) -> str:
        """Why it is not current, for people."""
        if self.old is None:
            return "missing"
        if self.old != self.new:
            count = len(self.changes)
            return f"{count} pins differ" if count else "hashes or comments differ"
        return "" if self.copy_is_current else f"its copy {self.copy_to} differs"

    def files(self) -> dict[str, bytes]:
        """Return what to write."""
        data = self.new.encode()
        return {self.path: data, **({self.copy_to: data} if self.copy_to else {})}


def plan_locks(
    toolbox: Toolbox, project: Project, options: LockOptions, *, names: tuple[str, ...] = ()
) -> tuple[SetLock, ...]:
    """Find the pins of each set, all sets at the same time; nothing in the project is changed.

    Raises:
        ConfigError: a set does not exist.
        UnsatisfiableError: the dependencies of a set do not fit together.
        BuildError: an index does not answer.

    """
    sets = _chosen(project, names)
    uv = Uv(toolbox.environ, options.index_url)
    with (
        _source(project) as directory,
        fs.temporary_directory(state_dir(project.root), "lock") as work,
        ThreadPoolExecutor(max_workers=4) as pool,
    ):
        one = functools.partial(_lock_set, project, options, uv, directory, work)
        return tuple(pool.map(one, sets, sets.values()))


def write_locks(project: Project, locks: tuple[SetLock, ...]) -> tuple[str, ...]:
    """Write the files as one step, and return those that changed."""
    files = {path: data for lock in locks for path, data in lock.files().items()}
    with project_lock(project.root):
        return write_files(project.root, files)


def check_locks(locks: tuple[SetLock, ...]) -> None:
    """Refuse files that are not as they should be.

    Raises:
        StaleLockError: some are not.

    """
    stale = [lock for lock in locks if not lock.is_current]
    if stale:
        raise StaleLockError(
            f"{len(stale)} of {len(locks)} requirement files do not belong to {PYPROJECT}",
            details=[f"{lock.path}: {lock.why}" for lock in stale], hint="lockyard package lock",
        )  # fmt: skip


def _chosen(project: Project, names: tuple[str, ...]) -> dict[str, RequirementSet]:
    known = project.sets
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown set {name!r}; there are {', '.join(known)}", hint=nearest(name, dict(known)))
    return {name: chosen for name, chosen in known.items() if not names or name in names}


def _lock_set(
    project: Project, options: LockOptions, uv: Uv, directory: Path, work: Path, name: str, chosen: RequirementSet
) -> SetLock:
    read = reader(project.root)
    path = project.requirements_path(name)
    old = read(path)
    output = work / f"{name}.txt"
    if old is not None:
        output.write_text(requirements.body(old))
    default = f"{sys.version_info.major}.{sys.version_info.minor}"
    uv.compile(
        CompileRequest(
            directory=directory,
            output=output,
            extras=chosen.extras,
            groups=chosen.groups,
            python=requirements.lowest_python(project, default),
            update=options.update,
            fresh=options.fresh,
            offline=options.offline,
        )
    )
    new = requirements.header(project, name, chosen) + output.read_text()
    requirements.check_committable(new, path)
    current = chosen.copy_to is None or read(chosen.copy_to) == new
    return SetLock(name, path, old, new, chosen.copy_to, current)


@contextlib.contextmanager
def _source(project: Project) -> Iterator[Path]:
    """Give a directory with a `pyproject.toml` that uv can read: the project, or for poetry one that asks for the same."""
    if project.style == "pep621":
        yield project.root
        return
    import tomlkit

    from lockyard.pyrelease.poetry import read_requirements

    text = (project.root / PYPROJECT).read_text()
    document = requirements.project_document(
        project, read_requirements(project.root), tool_table(text, PYPROJECT, "uv")
    )
    with fs.temporary_directory(state_dir(project.root), "poetry") as place:
        (place / PYPROJECT).write_text(tomlkit.dumps(document))
        yield place
