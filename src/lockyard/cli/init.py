"""`init`."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lockyard.cli.options import Context, dry_run_option, json_option, pass_context

if TYPE_CHECKING:
    from lockyard.app.init import InitResult

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
    "--kind", type=click.Choice(["conda", "package"]), default="conda", show_default=True,
    help="Images of conda packages, or a Python package with its images.",
)  # fmt: skip
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
    kind: Literal["conda", "package"],
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
    CI workflows and a README that says what to do next. --build locks, builds and tests the first release on the spot, from the
    channel. A channel's directory or a root file system (a tar file) of this machine is linked beside the files; the link is not
    committed. With --kind package: pyproject.toml, code, tests, runtimes.yaml and its Dockerfile. Prints the tree.

    \b
    Examples:
      lockyard init images --name our-images
      lockyard init images --types cpu --dry-run
      lockyard init images --build
      lockyard init images --channel /media/mirror/conda-forge --base ~/debian.tar.zst
      lockyard init service --kind package
    """
    from lockyard.app.init import InitRequest, init_distribution

    if build_it and dry_run:
        raise click.UsageError("--dry-run writes nothing, so there is nothing to --build")
    if kind == "package":
        _only_for_conda(click.get_current_context())
    request = InitRequest(
        directory=directory, name=name, kind=kind, types=types, channel=channel, base=base, virtual=virtual
    )
    result = init_distribution(request, dry_run=dry_run)
    if as_json:
        context.emit(json.dumps(_value(result), indent=1))
    else:
        context.emit("\n".join(_tree(result.files, str(directory))))
    if build_it:
        _build(context, result)
    elif result.written:
        where = f"cd {directory} && " if str(directory) != "." else ""
        first = "lockyard package lock" if kind == "package" else "lockyard build 0.1.0"
        context.toolbox.log.info(f"next: {where}{first}; README.md goes on")


def _only_for_conda(ctx: click.Context) -> None:
    """Refuse options that a package has no use for."""
    for name, option in {"types": "--types", "channel": "--channel", "base": "--base", "virtual": "--virtual-package",
                         "build_it": "--build"}.items():  # fmt: skip
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{option} is for --kind conda")


def _build(context: Context, result: "InitResult") -> None:
    """Lock, build and test the first release; what was written stays when that fails."""
    from lockyard.app.build import build_release
    from lockyard.cli.build import tell_built
    from lockyard.starter.conda import FIRST

    there = Context(context.toolbox, context.log, result.directory)
    tell_built(there, build_release(there.toolbox, there.workspace, FIRST))


def _tree(files: Iterable[str], root: str) -> Iterator[str]:
    """Yield the lines of a drawing of the tree; `files` are sorted paths."""
    yield root
    yield from _branches([path.split("/") for path in files], "")


def _branches(paths: list[list[str]], indent: str) -> Iterator[str]:
    groups = [
        (name, [path[1:] for path in group]) for name, group in itertools.groupby(paths, key=lambda path: path[0])
    ]
    for number, (name, inner) in enumerate(groups, 1):
        below = [path for path in inner if path]
        yield f"{indent}{'└── ' if number == len(groups) else '├── '}{name}{'/' if below else ''}"
        yield from _branches(below, indent + ("    " if number == len(groups) else "│   "))


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
