"""`create-patch-version-artifacts`, `create-minor-version-artifacts`, `create-major-version-artifacts`."""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from lockyard.cli.options import VERSION, Context, dry_run_option, json_option, pass_context
from lockyard.version import Bump, Version

if TYPE_CHECKING:
    from lockyard.app.create import CreateResult
    from lockyard.app.lock import LockResult
    from lockyard.artifacts.typeplan import Row

SCHEMA = 1
_STATUSES = {"new": "new", "unbounded": "not in the base lock", "removed": "removed", "pinned": "only pinned"}
_STATUSES |= {"argument": "by argument"}
_HEADINGS = ("package", "installed", "may move to", "note", "pinned by")
_STYLES = {"new": "green", "removed": "red"}

_HELP = """Make the next {part} release directory from a base release.

{body} Each package that the base release installs may move from its installed version up to a bound that its policy sets.
The path of the new directory goes to stdout; per image type, what may move how far, what is new, removed or pinned, and by
which file, goes to stderr (types after the first show what differs; -v shows all).
Hand-written inputs in the target (TYPE.additional_packages_env.in, TYPE.pinned_env.in, patch_*) are read and kept.

\b
Examples:
  lockyard create-{part}-version-artifacts --base-patch-version 1.4.2
  lockyard create-{part}-version-artifacts --base-patch-version 1.4.2 --dry-run
  lockyard create-{part}-version-artifacts --base-patch-version 1.4.2 --pre-release-identifier beta.1
  lockyard create-{part}-version-artifacts --base-patch-version 1.4.2 --force --lock
"""
_BODIES = {
    Bump.PATCH: "1.4.2 leads to 1.4.3: packages stay below their next minor version.",
    Bump.MINOR: "1.4.2 leads to 1.5.0: packages stay below their next major version, python below its next minor one.",
    Bump.MAJOR: "1.4.2 leads to 2.0.0: packages only never go down. template/v2/variants.toml must be there.",
}


def _command(part: Bump) -> click.Command:
    @click.option(
        "--base-patch-version", "base", type=VERSION, metavar="V", required=True, help="The release to start from."
    )
    @click.option(
        "--pre-release-identifier",
        "identifier",
        metavar="ID",
        help="Make a pre-release, such as beta.1; a pre-release base keeps its own.",
    )
    @click.option("--force", is_flag=True, help="Replace the generated files of a release that exists.")
    @click.option("--keep-lock", is_flag=True, help="With --force: leave the lock and the texts written from it.")
    @click.option("--lock", is_flag=True, help="Lock the release too.")
    @dry_run_option
    @json_option
    @pass_context
    def create(
        context: Context,
        *,
        base: Version,
        identifier: str | None,
        force: bool,
        keep_lock: bool,
        lock: bool,
        dry_run: bool,
        as_json: bool,
    ) -> None:
        if lock and dry_run:
            raise click.UsageError("--dry-run writes nothing, so there is nothing to --lock")
        if keep_lock and not force:
            raise click.UsageError("--keep-lock is about a release that is made again: give --force too")
        from lockyard.app.create import create_release

        result = create_release(
            context.toolbox,
            context.workspace,
            base,
            part,
            identifier=identifier,
            force=force,
            keep_lock=keep_lock,
            dry_run=dry_run,
        )
        _tell(context, result, lock=lock)
        if not as_json:
            context.emit(_text(result))
        locked = _lock(context, result.plan.version) if lock else None
        if as_json:
            context.emit(_json(result, locked))

    decorate: Callable[[Any], click.Command] = click.command(
        f"create-{part}-version-artifacts",
        help=_HELP.format(part=part, body=_BODIES[part]),
        short_help=f"Make the next {part} release directory from a base release.",
    )
    return decorate(create)


def _lock(context: Context, version: Version) -> "LockResult":
    """Lock what was just made; when that cannot be, the release stays as it is, to be mended."""
    from lockyard.app.lock import lock_release
    from lockyard.cli.lock import tell

    # A new view of the workspace: this one has listed the releases before.
    result = lock_release(context.toolbox, dataclasses.replace(context.workspace), version)
    tell(context, result)
    return result


def _tell(context: Context, result: "CreateResult", *, lock: bool) -> None:
    """Say on stderr what the reviewer should know."""
    plan, say = result.plan, context.toolbox.log
    say.step(f"{plan.base} → {plan.version} ({plan.bump}){'' if result.written else ', nothing is written'}")
    seen: dict[tuple[object, ...], str] = {}
    for image_type, rows in plan.types.items():
        differing = [row for row in rows if _key(row) not in seen]
        say.info(_summary(image_type, rows, [seen[_key(row)] for row in rows if _key(row) in seen]))
        context.log.table(_table(rows if context.log.verbosity > 0 else differing))
        seen.update({_key(row): image_type for row in differing})
    for note in plan.notes:
        say.info(note)
    for path in plan.kept:
        say.info(f"kept: {plan.directory}/{path}")
    for path in plan.replaced:
        say.info(f"{'removed' if result.written else 'would be removed'}: {plan.directory}/{path}")
    if result.written and not lock:
        say.info(f"next: lockyard lock {plan.version}")


def _summary(image_type: str, rows: "Sequence[Row]", same: Sequence[str]) -> str:
    """Return one line: how many packages, what becomes of them, how many are as in a type before."""
    counts = collections.Counter[str](row.status for row in rows)
    packages = sum(counts[status] for status in ("kept", "new", "unbounded"))
    parts = [f"{counts[status]} {text}" for status, text in _STATUSES.items() if counts[status]]
    bound = sum(bool(row.pins) for row in rows)
    parts += [f"{bound} pinned too"] if bound else []
    line = f"{image_type}: {packages} {'package' if packages == 1 else 'packages'}"
    line += f" ({', '.join(parts)})" if parts else ""
    found = collections.Counter(same)
    return "; ".join(
        [line, *(f"{count if count < len(rows) else 'all'} as in {name}" for name, count in found.items())]
    )


def _key(row: "Row") -> tuple[object, ...]:
    """Return what makes two types' rows say the same: all but the places of their lines."""
    bounds = tuple(pin.partition(" ")[2] for pin in row.pins)
    return (row.name, row.status, row.installed, row.old, row.new, bounds)


def _table(rows: "Sequence[Row]") -> Iterator[tuple[str, str]]:
    """Yield style and text of each line of the reviewer's table."""
    if not rows:
        return
    lines: list[tuple[str, tuple[str, ...]]] = [("bold", _HEADINGS)]
    for row in rows:
        pins = ", ".join(map(_short, row.pins))
        cells: tuple[str, ...] = (row.name, row.installed or "-", _may_be(row), _note(row), pins)
        lines.append((_STYLES.get(row.status, ""), cells))
    widths = [max(len(cells[column]) for _, cells in lines) for column in range(len(_HEADINGS))]
    for style, cells in lines:
        yield style, "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _may_be(row: "Row") -> str:
    if row.status == "removed":
        return "removed"
    if not row.new:
        return "any version"
    if row.installed and row.status in {"kept", "new"}:
        return row.new.removeprefix(f">={row.installed}").removeprefix(",") or "any newer"
    return row.new


def _note(row: "Row") -> str:
    if row.status in {"pinned", "argument"}:
        return f"only in {_short(row.where)}"
    parts = []
    if row.status == "new":
        parts.append("new, indirect before" if row.installed else "new")
    if row.status == "unbounded":
        parts.append("not in the base lock")
    if row.status != "removed" and row.old and not row.old.startswith(">="):
        parts.append(f"was {row.old}")
    if row.policy not in {"", "semver"}:
        parts.append(row.policy)
    return ", ".join(parts)


def _short(where: str) -> str:
    """Return `file:line` and what follows without the directory."""
    place, space, rest = where.partition(" ")
    return f"{place.rpartition('/')[2]}{space}{rest}"


def _text(result: "CreateResult") -> str:
    """Return the answer: the directory; on a dry run also each file that would be written."""
    plan = result.plan
    if result.written:
        return plan.directory
    files = [f"{plan.directory}/{path}" for path in plan.tree]
    files += [f"{plan.template.directory}/{path}" for path in plan.template.tree]
    return "\n".join([plan.directory, *(f"would write {path}" for path in files)])


def _json(result: "CreateResult", locked: "LockResult | None") -> str:
    plan = result.plan
    value = {
        "schema": SCHEMA,
        "base": str(plan.base),
        "version": str(plan.version),
        "directory": plan.directory,
        "written": result.written,
        "files": list(plan.tree),
        "kept": list(plan.kept),
        "removed": list(plan.replaced),
        "template": {"source": plan.template.source, "made": plan.template.directory},
        "types": {name: [dataclasses.asdict(row) for row in rows] for name, rows in plan.types.items()},
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "locked": list(locked.written) if locked is not None else None,
    }
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)


COMMANDS = tuple(_command(part) for part in Bump)
