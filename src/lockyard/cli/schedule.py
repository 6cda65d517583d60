"""`schedule add`, `remove`, `list` and `next`."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from lockyard.cli.options import VERSION, Context, dry_run_option, json_option, pass_context
from lockyard.version import Bump, Version

if TYPE_CHECKING:
    from lockyard.app.schedule import ScheduleResult
    from lockyard.artifacts.schedule import Entry

SCHEMA = 1
_BUMP = click.option(
    "--bump", "parts", multiple=True, type=click.Choice([str(part) for part in Bump]),
    help="Only what follows by this (repeatable).",
)  # fmt: skip


@click.group()
def schedule() -> None:
    """Keep the list of releases whose successors are made every night: schedule.toml, committed."""


@schedule.command("add")
@click.argument("versions", nargs=-1, required=True, type=VERSION, metavar="VERSION...")
@_BUMP
@dry_run_option
@json_option
@pass_context
def add(
    context: Context, *, versions: tuple[Version, ...], parts: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    r"""Schedule what follows a release: its next patch, after X.Y.0 also its next minor.

    Run it after each release. Predecessors go: 1.4.2 takes the place of 1.4.1, also as the base of the next minor; after
    1.5.0 the minor that followed 1.4.x goes. It may be repeated and changes nothing then; a newer base that is there stays.
    A pre-release changes nothing. Prints what changed, one entry a line.

    \b
    Examples:
      lockyard schedule add 1.4.2
      lockyard schedule add 1.4.2 --bump patch --bump minor
      lockyard schedule add 1.5.0 --dry-run
    """
    from lockyard.app.schedule import add_releases

    result = add_releases(context.toolbox, context.workspace, versions, parts=_bumps(parts), dry_run=dry_run)
    _answer(context, result, as_json=as_json)


@schedule.command("remove")
@click.argument("lines", nargs=-1, required=True, metavar="VERSION|LINE...")
@_BUMP
@dry_run_option
@json_option
@pass_context
def remove(context: Context, *, lines: tuple[str, ...], parts: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    r"""Schedule nothing any more after a release X.Y.Z, or after the releases of a line X.Y or X.

    Numbers are compared one by one: 3.1 takes out what follows 3.1.0 or 3.1.4 and leaves 3.10.0. What is not there is no
    failure. Prints what changed, one entry a line.

    \b
    Examples:
      lockyard schedule remove 3.1
      lockyard schedule remove 1.4.2
      lockyard schedule remove 2 --bump minor
    """
    from lockyard.app.schedule import remove_releases
    from lockyard.artifacts.schedule import Line

    result = remove_releases(
        context.toolbox, context.workspace, map(Line.parse, lines), parts=_bumps(parts), dry_run=dry_run
    )
    _answer(context, result, as_json=as_json)


@schedule.command("list")
@json_option
@pass_context
def list_command(context: Context, *, as_json: bool) -> None:
    r"""Print the schedule: base release, bump, the release that is made of it; one entry a line.

    \b
    Examples:
      lockyard schedule list
      lockyard schedule list --json
    """
    from lockyard.app.schedule import read_schedule

    entries = read_schedule(context.workspace).entries
    if as_json:
        context.emit(json.dumps({"schema": SCHEMA, "schedule": _values(entries)}, indent=1))
    elif entries:
        context.emit("\n".join(map(_line, entries)))
    else:
        context.toolbox.log.info("nothing is scheduled: lockyard schedule add VERSION")


@schedule.command("next")
@json_option
@pass_context
def next_command(context: Context, *, as_json: bool) -> None:
    r"""Print what a night makes: base release, bump, new version; one a line.

    Entries whose new version is released already are left out, with a warning. With --json it is one line, the matrix of a
    CI workflow: {"include": [{"base": "1.4.2", "bump": "patch", "version": "1.4.3"}]}.

    \b
    Examples:
      lockyard schedule next
      lockyard schedule next --json
    """
    from lockyard.app.schedule import next_releases

    result = next_releases(context.workspace)
    for entry in result.done:
        context.toolbox.log.warning(f"{entry.target} is released already: lockyard schedule add {entry.target}")
    if as_json:
        context.emit(json.dumps({"include": _values(result.entries)}, separators=(",", ":")))
    elif result.entries:
        context.emit("\n".join(map(_line, result.entries)))


def _bumps(parts: Iterable[str]) -> tuple[Bump, ...]:
    return tuple(map(Bump, parts))


def _line(entry: "Entry") -> str:
    return f"{entry.base} {entry.part} {entry.target}"


def _values(entries: "Iterable[Entry]") -> list[dict[str, Any]]:
    return [{"base": str(item.base), "bump": str(item.part), "version": str(item.target)} for item in entries]


def _answer(context: Context, result: "ScheduleResult", *, as_json: bool) -> None:
    if as_json:
        value = {
            "schema": SCHEMA,
            "written": result.written,
            "added": _values(result.added),
            "removed": _values(result.removed),
            "schedule": _values(result.schedule.entries),
        }
        context.emit(json.dumps(value, indent=1))
        return
    lines = [f"- {_line(item)}" for item in result.removed] + [f"+ {_line(item)}" for item in result.added]
    if lines:
        context.emit("\n".join(lines))
    else:
        context.toolbox.log.info("the schedule is as it should be")


COMMANDS = (schedule,)
