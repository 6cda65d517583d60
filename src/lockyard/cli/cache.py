"""`cache`: what is kept below LOCKYARD_CACHE_DIR."""

import json
from pathlib import Path

import click

from lockyard.cli.options import Context, json_option, pass_context
from lockyard.cli.output import human_size


@click.group()
def cache() -> None:
    """Show and tend what is kept for all distributions: packages, indexes, layers, bases."""


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


COMMANDS = (cache,)
