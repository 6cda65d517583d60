"""`lock`."""

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from lockyard.cli.options import (
    Context,
    dry_run_option,
    image_type_option,
    json_option,
    pass_context,
    version_argument,
)
from lockyard.reports.text import human_size
from lockyard.version import Version

if TYPE_CHECKING:
    from lockyard.app.lock import LockResult
    from lockyard.conda.lock import Reason

_SHOWN_ROWS = 60


class MomentType(click.ParamType[dt.datetime, str]):
    """A date, which counts to its end in UTC, or an ISO 8601 time; a time without zone is UTC."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:
        """Parse the text."""
        if isinstance(value, dt.datetime):
            return value
        try:
            if len(value) == len("2026-01-31"):
                day = dt.datetime.fromisoformat(value).replace(tzinfo=dt.UTC)
                return day + dt.timedelta(days=1) - dt.timedelta(milliseconds=1)
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date such as 2026-01-31 or 2026-01-31T12:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


@click.command()
@version_argument
@image_type_option
@click.option("--check", is_flag=True, help="Only tell whether the lock belongs to its inputs; exit 4 when not.")
@click.option("--update", multiple=True, metavar="PKG", help="Move this package to the newest that fits (repeatable).")
@click.option("--fresh", is_flag=True, help="Solve anew: prefer nothing of the earlier locks.")
@click.option("--exclude-newer", type=MomentType(), metavar="DATE", help="Ignore packages made after DATE.")
@click.option("--offline", is_flag=True, help="Use the channel indexes that are in the cache; ask no network.")
@dry_run_option
@json_option
@pass_context
def lock(
    context: Context,
    *,
    version: Version,
    image_types: tuple[str, ...],
    check: bool,
    update: tuple[str, ...],
    fresh: bool,
    exclude_newer: dt.datetime | None,
    offline: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Find the exact packages of a release and write its lock.

    The packages of the base release (source-version.txt) stay where they are unless a range, a conflict, --update or
    --fresh moves them. Writes TYPE.lock.json, TYPE.env.out, TYPE.conda-lock.yml and layers.json into the release
    directory, all or nothing, and prints their paths; what changed since the base release, and why, goes to stderr.

    \b
    Examples:
      lockyard lock 1.4.2
      lockyard lock 1.4.2 --update numpy
      lockyard lock 1.4.2 --check
      lockyard lock 1.4.2 --offline
      lockyard lock 1.4.2 --fresh --exclude-newer 2026-01-31 --dry-run
    """
    if check:
        if update or fresh or exclude_newer or offline or dry_run:
            raise click.UsageError(
                "--check only looks: it takes no --update, --fresh, --exclude-newer, --offline or --dry-run"
            )
        _check(context, version, image_types, as_json=as_json)
        return
    from lockyard.app.lock import lock_release

    result = lock_release(
        context.toolbox,
        context.workspace,
        version,
        image_types=image_types,
        update=update,
        fresh=fresh,
        exclude_newer=exclude_newer,
        offline=offline,
        dry_run=dry_run,
    )
    tell(context, result, dry_run=dry_run)
    if as_json:
        context.emit(_result_json(result))
    elif result.written:
        context.emit("\n".join(result.written))


def _check(context: Context, version: Version, image_types: tuple[str, ...], *, as_json: bool) -> None:
    from lockyard.app.lock import check_current, is_bad, lock_status

    statuses = lock_status(context.toolbox, context.workspace, version, image_types=image_types)
    if as_json:
        types = {item.image_type: {"state": item.state, "why": item.why} for item in statuses}
        context.emit(json.dumps({"version": str(version), "types": types}, indent=1))
    say = context.toolbox.log
    for item in statuses:
        if not is_bad(item):
            say.info(f"{item.image_type}: {item.state}{f' ({item.why})' if item.why else ''}")
    check_current(version, statuses)


def tell(context: Context, result: "LockResult", *, dry_run: bool = False) -> None:
    """Say on stderr what a solve found and why."""
    say = context.toolbox.log
    for image_type, lock_ in result.locks.items():
        for platform, packages in lock_.platforms.items():
            reasons = lock_.reasons.get(platform)
            sizes = {item.name: item.size for item in packages}
            size = human_size(_sum(sizes.values()))
            say.info(f"{image_type} {platform}: {len(packages)} packages, {size}; {_since(reasons, lock_.base, sizes)}")
            for line in _table(reasons or (), sizes):
                say.info(line)
    for warning in _warnings(result):
        say.warning(warning)
    for item in result.disagreements:
        versions = ", ".join(f"{name} {text}" for name, text in item.versions.items())
        why = "; ".join(f"{name}: {text}" for name, text in item.why.items())
        say.info(f"types differ in {item.name} on {item.platform}: {versions}{f' ({why})' if why else ''}")
    if not result.changes:
        say.info(f"nothing changed: the lock of {result.version} stays as it is")
    elif dry_run:
        for change in result.changes:
            say.info(f"would write {change.path} ({change.kind})")


def _warnings(result: "LockResult") -> list[str]:
    lines = [
        f"{image_type}: went down, as nothing else was possible: {', '.join(names)}"
        for image_type, names in result.lowered.items()
        if names
    ]
    lines += [
        f"{image_type}: {name} stays: nothing newer fits its specs and the other packages"
        for image_type, names in result.stuck.items()
        for name in names
    ]
    return lines


def _since(reasons: "tuple[Reason, ...] | None", base: str | None, sizes: Mapping[str, int | None]) -> str:
    if reasons is None:
        return "no base lock to compare with"
    if not reasons:
        return f"the same as in {base}"
    counts = Counter(_change(item) for item in reasons)
    parts = [f"{counts[name]} {name}" for name in ("changed", "rebuilt", "added", "removed") if counts[name]]
    new = human_size(_sum(sizes[item.name] for item in reasons if item.new is not None))
    return f"since {base}: {', '.join(parts)}; {new} of packages that {base} does not have"


def _change(reason: "Reason") -> str:
    if reason.old is None:
        return "added"
    if reason.new is None:
        return "removed"
    return "rebuilt" if reason.old.split()[0] == reason.new.split()[0] else "changed"


def _sum(sizes: Iterable[int | None]) -> int | None:
    """Return the bytes of all, `None` when an index does not say one."""
    found = list(sizes)
    return None if None in found else sum(size for size in found if size is not None)


def _table(reasons: "tuple[Reason, ...]", sizes: Mapping[str, int | None]) -> list[str]:
    """Return aligned lines, what was asked for first; told as lines of the log, so that -q and --log-format hold for them.

    Only what is new has a size: nobody fetches what was removed.
    """
    order = sorted(reasons, key=lambda item: (item.kind.startswith(("required", "not required")), item.name))
    rows = [
        (item.name, item.old or "-", item.new or "-", human_size(sizes[item.name]) if item.new else "-", item.kind)
        for item in order[:_SHOWN_ROWS]
    ]
    if not rows:
        return []
    rows.insert(0, ("package", "from", "to", "size", "why"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}"
        for row in rows
    ]
    more = len(reasons) - _SHOWN_ROWS
    return [*lines, f"  … and {more} more, see the lock file"] if more > 0 else lines


def _result_json(result: "LockResult") -> str:
    types = {}
    for name, item in result.locks.items():
        types[name] = {
            "input_hash": item.input_hash,
            "packages": {platform: len(packages) for platform, packages in item.platforms.items()},
            "bytes": {platform: _sum(p.size for p in packages) for platform, packages in item.platforms.items()},
            "reasons": {
                platform: [{"name": r.name, "old": r.old, "new": r.new, "kind": r.kind} for r in reasons]
                for platform, reasons in item.reasons.items()
            },
            "lowered": list(result.lowered[name]),
            "stuck": list(result.stuck[name]),
        }
    differ = [
        {"platform": item.platform, "name": item.name, "versions": dict(item.versions), "why": dict(item.why)}
        for item in result.disagreements
    ]
    value = {
        "version": str(result.version),
        "changed": bool(result.changes),
        "written": list(result.written),
        "types": types,
        "disagreements": differ,
    }
    return json.dumps(value, indent=1, ensure_ascii=False)


COMMANDS = (lock,)
