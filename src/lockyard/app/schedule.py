"""Use cases of `schedule`: the committed list of releases whose successors are made every night."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from lockyard import fs
from lockyard.app.workspace import Workspace, decode
from lockyard.artifacts.schedule import FILE_NAME, Entry, Line, Schedule, format_schedule, parse_schedule
from lockyard.errors import ConfigError
from lockyard.ports import Toolbox
from lockyard.version import Bump, Version

_PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class ScheduleResult:
    """The schedule, what came to it and what went; `written` is false when nothing changed or on a dry run."""

    schedule: Schedule
    added: tuple[Entry, ...] = ()
    removed: tuple[Entry, ...] = ()
    written: bool = False


@dataclass(frozen=True)
class NextResult:
    """What a night makes; `done` are entries whose target is released already."""

    entries: tuple[Entry, ...]
    done: tuple[Entry, ...] = ()


def read_schedule(workspace: Workspace) -> Schedule:
    """Read the schedule; none is an empty one.

    Raises:
        ConfigError: the file is malformed.

    """
    data = fs.read_file(workspace.root / FILE_NAME)
    return parse_schedule(decode(data, FILE_NAME)) if data is not None else Schedule()


def add_releases(
    toolbox: Toolbox,
    workspace: Workspace,
    versions: Iterable[Version],
    *,
    parts: Collection[Bump] = (),
    dry_run: bool = False,
) -> ScheduleResult:
    """Schedule what follows released versions: the next patch, after X.Y.0 also the next minor, or just `parts`.

    Predecessors go; a newer base that is there stays. A pre-release changes nothing: only final versions are bases.

    Raises:
        ConfigError: a release does not exist, or the file is malformed.

    """
    wanted = []
    for version in versions:
        if version.is_pre_release:
            toolbox.log.info(f"{version} is a pre-release: the schedule stays as it is")
        elif not workspace.has_release(version):
            raise ConfigError(
                f"there is no release {version} to follow ({workspace.release_path(version).relative_to(workspace.root)})",
                hint="schedule a release that exists; what follows it is made at night",
            )
        else:
            wanted.append(version)

    def change(schedule: Schedule) -> Schedule:
        for version in wanted:
            schedule = schedule.after(version, parts)
        return schedule

    return _change(toolbox, workspace, change, dry_run=dry_run)


def remove_releases(
    toolbox: Toolbox,
    workspace: Workspace,
    lines: Iterable[Line],
    *,
    parts: Collection[Bump] = (),
    dry_run: bool = False,
) -> ScheduleResult:
    """Take out the entries whose base is one of these releases or on one of these lines; nothing found is no failure.

    Raises:
        ConfigError: the file is malformed.

    """
    wanted = tuple(lines)

    def change(schedule: Schedule) -> Schedule:
        for line in wanted:
            fewer = schedule.remove(line, parts)
            if fewer == schedule:
                toolbox.log.info(f"nothing of {line} is scheduled")
            schedule = fewer
        return schedule

    return _change(toolbox, workspace, change, dry_run=dry_run)


def next_releases(workspace: Workspace) -> NextResult:
    """Return what a night makes: every entry whose target is not released yet.

    Raises:
        ConfigError: the file is malformed, or a base does not exist; the file is named.

    """
    entries = read_schedule(workspace).entries
    lost = [str(item.base) for item in entries if not workspace.has_release(item.base)]
    if lost:
        raise ConfigError(
            f"{FILE_NAME}: there is no release {', '.join(dict.fromkeys(lost))}",
            hint=f"lockyard schedule remove {lost[0]}",
        )
    done = tuple(item for item in entries if workspace.has_release(item.target))
    return NextResult(tuple(item for item in entries if item not in done), done)


def _change(
    toolbox: Toolbox, workspace: Workspace, change: Callable[[Schedule], Schedule], *, dry_run: bool
) -> ScheduleResult:
    if dry_run:
        old = read_schedule(workspace)
        new = change(old)
        return ScheduleResult(new, new.without(old.entries), old.without(new.entries))
    with workspace.lock(patience=_PATIENCE, tell=toolbox.log.info):
        old = read_schedule(workspace)
        new = change(old)
        if new != old:
            fs.atomic_write(workspace.root / FILE_NAME, format_schedule(new).encode())
    return ScheduleResult(new, new.without(old.entries), old.without(new.entries), written=new != old)
