"""`diff` and the reports about one release."""

import os
import sys
from typing import Any, Literal

import click

from lockyard.cli.options import Context, image_type_option, json_option, pass_context
from lockyard.reports.ref import ReleaseRef

_STYLES: dict[str, dict[str, Any]] = {
    "title": {"bold": True},
    "added": {"fg": "green"},
    "removed": {"fg": "red"},
    "major": {"fg": "yellow", "bold": True},
    "downgrade": {"fg": "magenta", "bold": True},
    "rebuilt": {"dim": True},
    "dim": {"dim": True},
}


class ReleaseType(click.ParamType[ReleaseRef, str]):
    """A release, `VERSION` or `VERSION@REVISION`."""

    name = "release"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ReleaseRef:  # noqa: ARG002 - the signature of click
        """Parse the text."""
        return value if isinstance(value, ReleaseRef) else ReleaseRef.parse(value)


def paint(context: Context, style: str, text: str) -> str:
    """Return `text` in a style where stdout shows colour."""
    return click.style(text, **_STYLES[style]) if style in _STYLES and has_colour(context) and text else text


def has_colour(context: Context) -> bool:
    """Whether the answer on stdout may be coloured: `--color`, else a terminal without NO_COLOR."""
    choice = context.log.color
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not context.toolbox.environ.get("NO_COLOR") and os.name != "nt"


@click.command()
@click.argument("base", type=ReleaseType())
@click.argument("target", type=ReleaseType(), required=False)
@click.option("--rev", metavar="REV", help="Compare the release with itself in this git revision.")
@image_type_option
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="What to print; markdown is for a pull request.",
)
@json_option
@pass_context
def diff(
    context: Context,
    *,
    base: ReleaseRef,
    target: ReleaseRef | None,
    rev: str | None,
    image_types: tuple[str, ...],
    style: Literal["text", "markdown", "json"],
    as_json: bool,
) -> None:
    r"""Show what changed between two locked releases.

    A package is direct when its name is in the release's env.in. The same version with another build is "rebuilt",
    listed apart. Sizes are those of the package archives; what a client of BASE downloads for TARGET is exact when both
    are built or published, else estimated from the layer plan, and said so. VERSION@REV is the release as a git revision
    has it. Releases made before Lockyard, which have an env.out only, can be compared too; their sizes are unknown.

    \b
    Examples:
      lockyard diff 1.4.1 1.4.2
      lockyard diff 1.4.1 1.4.2 --format markdown > comment.md
      lockyard diff 1.4.2@main 1.4.2
      lockyard diff 1.4.2 --rev HEAD~1 --json
    """
    from lockyard.app.reports import diff_releases
    from lockyard.reports.diffs import render_json, render_markdown, render_text

    if (target is None) == (rev is None):
        raise click.UsageError("give two releases, or one release and --rev REV")
    if rev is not None:
        base, target = ReleaseRef(base.version, rev), base
    found = diff_releases(context.toolbox, context.workspace, base, target or base, image_types=image_types)
    if as_json or style == "json":
        context.emit(render_json(found))
    elif style == "markdown":
        context.emit(render_markdown(found))
    else:
        context.emit(render_text(found, lambda name, text: paint(context, name, text)))


COMMANDS = (diff,)
