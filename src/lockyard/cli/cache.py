"""`cache`: what is kept below LOCKYARD_CACHE_DIR."""

import datetime as dt
import json
import re
from collections.abc import Sequence
from pathlib import Path
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
    from lockyard.app.cache import KindInfo, PruneResult, Removal

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SHOWN = 20


class AgeType(click.ParamType[dt.timedelta, str]):
    """A length of time: `30d`, `12h`, `2w`."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.timedelta:
        """Parse the text."""
        match = re.fullmatch(r"(\d{1,6})([smhdw])", str(value).strip().lower(), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not a length of time such as 30d, 12h or 2w", param, ctx)
        return dt.timedelta(seconds=int(match[1]) * _UNITS[match[2]])


class SizeType(click.ParamType[int, str]):
    """A number of bytes: `20GB`, `500MiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the text."""
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([kmgt]i?)?b?", str(value).strip().lower(), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not a size such as 20GB, 500MB or 8GiB", param, ctx)
        return round(float(match[1]) * _SIZES[match[2] or ""])


def _kind_option(function: Any) -> Any:
    return click.option(
        "--kind",
        "kinds",
        multiple=True,
        metavar="KIND",
        help="Only packages, index, blobs, bases or rootfs (repeatable).",
    )(function)


@click.group()
def cache() -> None:
    """Show and tend what is kept for all distributions: packages, indexes, layers, bases."""


@cache.command("info")
@_kind_option
@json_option
@pass_context
def info(context: Context, *, kinds: tuple[str, ...], as_json: bool) -> None:
    r"""Show what the cache holds: kinds of things, how many, bytes on disk, when they were used last.

    The cache is below LOCKYARD_CACHE_DIR and shared by all distributions. It is safe to delete.

    \b
    Examples:
      lockyard cache info
      lockyard cache info --kind packages --json
    """
    from lockyard.app.cache import cache_info

    found = cache_info(context.toolbox, kinds)
    total = sum(item.size for item in found)
    if as_json:
        value = {
            "cache": str(context.toolbox.cache_dir),
            "size": total,
            "kinds": {k.name: _info_json(k) for k in found},
        }
        context.emit(json.dumps(value, indent=1))
        return
    rows = [("kind", "entries", "size", "last used", "what")]
    for item in found:
        entries = f"{item.entries}" + (f" + {item.unfinished} unfinished" if item.unfinished else "")
        rows.append((item.name, entries, human_size(item.size), _span(item), item.title))
    rows.append(
        ("total", str(sum(item.entries for item in found)), human_size(total), "", str(context.toolbox.cache_dir))
    )
    context.emit(_columns(rows))


@cache.command("prune")
@_kind_option
@click.option("--older-than", type=AgeType(), metavar="AGE", help="What was not used for AGE goes: 30d, 12h, 2w.")
@click.option(
    "--max-size", type=SizeType(), metavar="SIZE", help="What was used longest ago goes until SIZE is left: 20GB."
)
@dry_run_option
@json_option
@pass_context
def prune(
    context: Context,
    *,
    kinds: tuple[str, ...],
    older_than: dt.timedelta | None,
    max_size: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Take out of the cache what is old or too much; it comes again when it is needed.

    Without --older-than and --max-size only what interrupted commands left more than a day ago goes. SIZE holds for
    the named kinds together. Safe beside running builds, on this machine and on others that share the directory: what
    a running command may use stays.

    \b
    Examples:
      lockyard cache prune --older-than 30d
      lockyard cache prune --max-size 20GB --kind packages --kind blobs --dry-run
    """
    from lockyard.app.cache import prune_cache

    result = prune_cache(context.toolbox, kinds, older_than=older_than, max_size=max_size, dry_run=dry_run)
    say = context.toolbox.log
    for item in result.removed:
        say.detail(f"{'would remove' if dry_run else 'removed'} {_line(item)}")
    if result.in_use:
        say.info(f"{_entries(len(result.in_use))} left alone: running commands may use them")
    if as_json:
        context.emit(json.dumps(_prune_json(result), indent=1))
        return
    if dry_run:
        for item in result.removed[:_SHOWN]:
            context.emit(_line(item))
        if len(result.removed) > _SHOWN:
            context.emit(f"… and {len(result.removed) - _SHOWN} more, -v shows all")
    what = "would be removed" if dry_run else "removed"
    context.emit(
        f"{_entries(len(result.removed))} {what}, {human_size(result.freed)}; "
        f"{result.kept} stay, {human_size(result.kept_size)}"
    )


@cache.command("fetch")
@version_argument
@image_type_option
@click.option("--platform", "platforms", multiple=True, metavar="SUBDIR", help="Only this platform (repeatable).")
@json_option
@pass_context
def fetch(
    context: Context, *, version: Version, image_types: tuple[str, ...], platforms: tuple[str, ...], as_json: bool
) -> None:
    r"""Bring the packages of a locked release into the cache, so that builds need no channel.

    In parallel, each checked by its hash. When it is interrupted or a connection breaks, the same command goes on
    where it stopped.

    \b
    Examples:
      lockyard cache fetch 1.4.2
      lockyard cache fetch 1.4.2 --image-type cpu --platform linux-64
    """
    from lockyard.app.cache import fetch_release

    found = fetch_release(context.toolbox, context.workspace, version, image_types=image_types, platforms=platforms)
    if as_json:
        value = {"version": str(version), "packages": found.packages, "fetched": found.fetched, "size": found.size}
        context.emit(json.dumps(value, indent=1))
        return
    context.emit(f"{found.packages} packages, {human_size(found.size)}; {found.fetched} of them fetched now")


@cache.command("add-index")
@click.argument("channel")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@json_option
@pass_context
def add_index(context: Context, *, channel: str, directory: Path, as_json: bool) -> None:
    r"""Put a channel's index from a directory into the cache, for `lock --offline`.

    DIRECTORY holds SUBDIR/repodata.json or SUBDIR/repodata.json.zst, as a channel does. Locks made from it carry the
    channel's own addresses; nothing of this machine gets into them.

    \b
    Examples:
      lockyard cache add-index conda-forge /media/usb/conda-forge
      lockyard lock 1.4.2 --offline
    """
    from lockyard.app.cache import add_index as use_case

    found = use_case(context.toolbox, channel, directory)
    if as_json:
        context.emit(
            json.dumps({"channel": found.channel, "address": found.address, "subdirs": dict(found.subdirs)}, indent=1)
        )
        return
    for subdir, size in found.subdirs.items():
        context.emit(f"{found.address}/{subdir} {human_size(size)}")


def _info_json(item: "KindInfo") -> dict[str, object]:
    return {
        "place": str(item.place),
        "entries": item.entries,
        "unfinished": item.unfinished,
        "size": item.size,
        "oldest": item.oldest.isoformat(timespec="seconds") if item.oldest else None,
        "newest": item.newest.isoformat(timespec="seconds") if item.newest else None,
    }


def _prune_json(result: "PruneResult") -> dict[str, object]:
    def plain(item: "Removal") -> dict[str, object]:
        used = dt.datetime.fromtimestamp(item.entry.used, dt.UTC).isoformat(timespec="seconds")
        return {"kind": item.kind, "name": item.entry.name, "size": item.entry.size, "used": used, "why": item.why}

    return {
        "freed": result.freed,
        "removed": [plain(item) for item in result.removed],
        "in_use": [plain(item) for item in result.in_use],
        "kept": {"entries": result.kept, "size": result.kept_size},
    }


def _line(item: "Removal") -> str:
    used = dt.datetime.fromtimestamp(item.entry.used, dt.UTC).strftime("%Y-%m-%d %H:%MZ")
    return f"{item.kind} {item.entry.name}, {human_size(item.entry.size)}, last used {used} ({item.why})"


def _entries(count: int) -> str:
    return f"{count} entr{'y' if count == 1 else 'ies'}"


def _span(item: "KindInfo") -> str:
    if item.oldest is None or item.newest is None:
        return ""
    days = [f"{moment:%Y-%m-%d}" for moment in (item.oldest, item.newest)]
    return " to ".join(dict.fromkeys(days))


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {1, 2}
    lines = (
        "  ".join(f"{text:>{widths[i]}}" if i in right else f"{text:<{widths[i]}}" for i, text in enumerate(row))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


COMMANDS = (cache,)
