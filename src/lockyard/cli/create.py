"""`create-patch-version-artifacts`, `create-minor-version-artifacts`, `create-major-version-artifacts`."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from lockyard.cli.options import VERSION, Context, dry_run_option, json_option, pass_context
from lockyard.version import Bump, Version

if TYPE_CHECKING:
    from lockyard.app.create import CreateResult
    from lockyard.app.lock import LockResult
    from lockyard.artifacts.plan import ReleasePlan, Row

SCHEMA = 1
_HEADINGS = ("package", "types", "installed", "may be", "note", "bound too by")

_HELP = """Make the next {part} release directory from a base release.

{body} Each package that the base release installs may move from its installed version up to a bound that its policy sets.
The path of the new directory goes to stdout; what may move how far, what is new and what binds a package goes to stderr.
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
        lock: bool,
        dry_run: bool,
        as_json: bool,
    ) -> None:
        if lock and dry_run:
            raise click.UsageError("--dry-run writes nothing, so there is nothing to --lock")
        from lockyard.app.create import create_release

        result = create_release(
            context.toolbox, context.workspace, base, part, identifier=identifier, force=force, dry_run=dry_run
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
    context.log.table(_table(plan))
    for note in plan.notes:
        say.info(note)
    for path in plan.kept:
        say.info(f"kept: {plan.directory}/{path}")
    for path in plan.replaced:
        say.info(f"{'removed' if result.written else 'would be removed'}: {plan.directory}/{path}")
    if result.written and not lock:
        say.info(f"next: lockyard lock {plan.version}")


def _table(plan: "ReleasePlan") -> Iterator[tuple[str, str]]:
    """Yield style and text of each line of the reviewer's table."""
    lines: list[tuple[str, tuple[str, ...]]] = [("bold", _HEADINGS)]
    for row, types in _merged(plan):
        which = "all" if len(types) == len(plan.types) else ", ".join(types)
        pins = ", ".join(map(_short, row.pins))
        style = {"new": "green", "removed": "red"}.get(row.status, "")
        lines.append((style, (row.name, which, row.installed or "-", _may_be(row), _note(row), pins)))
    widths = [max(len(cells[column]) for _, cells in lines) for column in range(len(_HEADINGS))]
    for style, cells in lines:
        yield style, "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _merged(plan: "ReleasePlan") -> "list[tuple[Row, list[str]]]":
    """Return the rows with the types that share them, in the order of the first type."""
    found: dict[tuple[object, ...], tuple[Row, list[str]]] = {}
    for image_type, rows in plan.types.items():
        for row in rows:
            bounds = tuple(pin.partition(" ")[2] for pin in row.pins)
            key = (row.name, row.status, row.installed, row.old, row.new, bounds)
            found.setdefault(key, (row, []))[1].append(image_type)
    return list(found.values())


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
    parts = ["new"] if row.status == "new" else []
    if row.old is not None and not row.old.startswith(">="):
        parts.append(f"was {row.old or 'unbounded'}")
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
