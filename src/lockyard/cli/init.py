"""`init`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import Context, dry_run_option, json_option, pass_context

if TYPE_CHECKING:
    from lockyard.app.init import InitResult
    from lockyard.tree import Tree

SCHEMA = 1
_VIRTUAL_RE = re.compile(r"(__[a-z0-9_]+)=([A-Za-z0-9_.]+)")


def _types(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(item.strip() for item in value.split(",") if item.strip())
    if not names or len(set(names)) != len(names):
        raise click.BadParameter(f"{value!r}: give names that differ, such as cpu,gpu")
    return names


def _virtual(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        match = _VIRTUAL_RE.fullmatch(value)
        if match is None:
            raise click.BadParameter(f"{value!r} is not NAME=VERSION such as __glibc=2.36")
        found[match[1]] = match[2]
    return found


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="[DIR]")
@click.option("--name", metavar="N", help="The distribution's name [default: that of its directory].")
@click.option(
    "--types", callback=_types, default="cpu,gpu", show_default=True, metavar="T,…",
    help="The image types; one with gpu or cuda in its name is a GPU image.",
)  # fmt: skip
@click.option(
    "--channel", default="conda-forge", show_default=True, metavar="C", help="A channel's name, URL or directory."
)
@click.option("--base", metavar="B", help="What images begin from: a reference, or a root file system (a tar file).")
@click.option(
    "--virtual-package", "virtual", multiple=True, callback=_virtual, metavar="NAME=V",
    help="What the hosts have, such as __glibc=2.36 (repeatable) [default: what the base's name tells].",
)  # fmt: skip
@click.option("--build", "build_it", is_flag=True, help="Lock, build and test the first release at once.")
@dry_run_option
@json_option
@pass_context
def init(
    context: Context,
    *,
    directory: Path,
    name: str | None,
    types: tuple[str, ...],
    channel: str,
    base: str | None,
    virtual: dict[str, str],
    build_it: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Begin a new distribution: a small complete one in a directory that is empty or not there yet.

    Writes lockyard.toml, variants.toml, the template of the first minor line, the first release with its packages, image tests,
    CI workflows and a README that says what to do next. Works at once against the channel; a channel's directory or a root
    file system of this machine is linked beside the files, and the link is not committed. --build locks, builds and tests
    the first release on the spot. Prints the tree.

    \b
    Examples:
      lockyard init images --name our-images
      lockyard init images --types cpu --dry-run
      lockyard init images --build
      lockyard init images --channel /media/mirror/conda-forge --base base/debian.tar.zst
    """
    from lockyard.app.init import InitRequest, init_distribution

    if build_it and dry_run:
        raise click.UsageError("--dry-run writes nothing, so there is nothing to --build")
    request = InitRequest(directory=directory, name=name, types=types, channel=channel, base=base, virtual=virtual)
    result = init_distribution(request, dry_run=dry_run)
    if as_json:
        context.emit(json.dumps(_value(result), indent=1))
    else:
        context.emit("\n".join(_tree(result.files, str(directory))))
    if build_it:
        _build(context, result)
    elif result.written:
        where = f"cd {directory} && " if str(directory) != "." else ""
        context.toolbox.log.info(f"next: {where}lockyard lock 0.1.0 && lockyard build 0.1.0")


def _build(context: Context, result: "InitResult") -> None:
    """Lock, build and test the first release; what was written stays when that fails."""
    from lockyard.app.build import build_release
    from lockyard.app.workspace import open_workspace
    from lockyard.cli.build import tell
    from lockyard.starter.conda import FIRST

    workspace = open_workspace(result.directory)
    tell(context, workspace, build_release(context.toolbox, workspace, FIRST))


def _tree(files: "Tree", root: str) -> Iterator[str]:
    """Yield the lines of a drawing of the tree."""
    nodes: dict[str, dict[str, object]] = {}
    for path in files:
        here: dict[str, object] = nodes  # type: ignore[assignment]  # a tree of dictionaries, leaves are empty ones
        for part in path.split("/"):
            here = here.setdefault(part, {})  # type: ignore[assignment]  # the same
    yield root
    yield from _branches(nodes, "")


def _branches(nodes: "dict[str, dict[str, object]]", indent: str) -> Iterator[str]:
    last = len(nodes) - 1
    for number, (name, children) in enumerate(nodes.items()):
        yield f"{indent}{'└── ' if number == last else '├── '}{name}{'/' if children else ''}"
        yield from _branches(children, indent + ("    " if number == last else "│   "))  # type: ignore[arg-type]  # the same


def _value(result: "InitResult") -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "name": result.name,
        "directory": str(result.directory),
        "written": result.written,
        "files": list(result.files),
        "links": dict(result.links),
    }


COMMANDS = (init,)
