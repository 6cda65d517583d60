"""`diff` and the reports about one release."""

import os
import sys
from pathlib import Path
from typing import Any, Literal

import click

from lockyard.cli.options import VERSION, Context, image_type_option, json_option, pass_context, version_argument
from lockyard.reports.ref import ReleaseRef
from lockyard.version import Version

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
@click.option("--platform", metavar="P", help="Compare this platform [default: the first of each type].")
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
    platform: str | None,
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
    found = diff_releases(
        context.toolbox, context.workspace, base, target or base, image_types=image_types, platform=platform
    )
    if as_json or style == "json":
        context.emit(render_json(found))
    elif style == "markdown":
        context.emit(render_markdown(found))
    else:
        context.emit(render_text(found, lambda name, text: paint(context, name, text)))


def format_option(function: Any) -> Any:
    """Give the command `style`."""
    return click.option(
        "--format", "style", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True,
        help="What to print.",
    )(function)  # fmt: skip


def base_option(function: Any) -> Any:
    """Give the command `base`."""
    return click.option(
        "--base", "--base-patch-version", "base", type=VERSION, metavar="V",
        help="Compare with this release [default: the one that it was made from].",
    )(function)  # fmt: skip


def index_option(function: Any) -> Any:
    """Give the command `index`."""
    return click.option(
        "--index", is_flag=True, help="Look up in the channel's index what locks made before Lockyard do not say."
    )(function)


def offline_option(function: Any) -> Any:
    """Give the command `offline`."""
    return click.option("--offline", is_flag=True, help="Read channel indexes from the cache only.")(function)


@click.command("generate-size-report")
@version_argument
@base_option
@image_type_option
@format_option
@json_option
@click.option("--all", "everything", is_flag=True, help="List every package, not only what weighs most in the change.")
@click.option("--validate", is_flag=True, help="Exit 8 when new packages weigh more than the budget.")
@click.option("--budget", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="PERCENT",
              help="What new packages may weigh, in per cent of the base's packages.")  # fmt: skip
@click.option("--repository", metavar="R", help="Read the sizes of images from this repository.")
@click.option("--insecure", is_flag=True, help="Allow plain http to that repository.")
@index_option
@offline_option
@pass_context
def size_report(
    context: Context,
    *,
    version: Version,
    base: Version | None,
    image_types: tuple[str, ...],
    style: str,
    as_json: bool,
    everything: bool,
    validate: bool,
    budget: float,
    repository: str | None,
    insecure: bool,
    index: bool,
    offline: bool,
) -> None:
    r"""Show why a release grew.

    Total and per package, against the base release, with the twenty changes that weigh most. Package sizes are those of
    the archives; the size of an image is that of its blobs, from what is built or published, or from --repository.

    \b
    Examples:
      lockyard generate-size-report 1.4.2
      lockyard generate-size-report 1.4.2 --validate --budget 5
      lockyard generate-size-report 1.4.2 --base 1.3.0 --all --json
    """
    from lockyard.app import reports as app
    from lockyard.errors import DriftError
    from lockyard.reports import sizes

    pair = app.read_pair(
        context.toolbox, context.workspace, version, base, image_types=image_types, index=index, offline=offline
    )
    found = app.size_report(context.toolbox, context.workspace, pair, repository=repository, insecure=insecure)
    labels = (pair.base.label, pair.target.label)
    if as_json or style == "json":
        all_sizes = {
            name: {package.name: package.size for package in sorted(item.packages(), key=lambda one: one.name)}
            for name, item in pair.target.types.items()
        }
        context.emit(sizes.render_json(*labels, found, all_sizes))
    else:
        context.emit(sizes.render_markdown(*labels, found, everything=everything))
    if validate:
        problems = sizes.over_budget(found, budget)
        if problems:
            first, *others = problems
            raise DriftError(first, details=others, hint="raise --budget when this growth is wanted")
        context.toolbox.log.info(f"new packages are within the budget of {budget:g} %")


@click.command("generate-staleness-report")
@version_argument
@image_type_option
@format_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Indirect packages too.")
@click.option("--downloads", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
              help="Download counts: a JSON object or lines NAME COUNT.")  # fmt: skip
@offline_option
@pass_context
def staleness_report(
    context: Context,
    *,
    version: Version,
    image_types: tuple[str, ...],
    style: str,
    as_json: bool,
    everything: bool,
    downloads: Path | None,
    offline: bool,
) -> None:
    r"""Show which packages of a release could be newer.

    For each direct package: the newest version that this kind of release allows (a patch release stays in X.Y, a minor
    one in X, by the line's policies), the newest version of all, the age of the installed one in days, and for how many
    days a newer allowed version has been there. Stale packages first.

    \b
    Examples:
      lockyard generate-staleness-report 1.4.2
      lockyard generate-staleness-report 1.4.2 --all --json
      lockyard generate-staleness-report 1.4.2 --downloads counts.json --offline
    """
    from lockyard.app import reports as app
    from lockyard.app.workspace import decode
    from lockyard.reports import staleness

    release = app.read_release_facts(context.toolbox, context.workspace, version, image_types)
    counts = None
    if downloads is not None:
        counts = staleness.parse_downloads(decode(downloads.read_bytes(), str(downloads)), str(downloads))
    found = app.staleness_report(
        context.toolbox, context.workspace, release, everything=everything, offline=offline, downloads=counts
    )
    render = staleness.render_json if as_json or style == "json" else staleness.render_markdown
    context.emit(render(version, found))


@click.command("generate-dependency-report")
@version_argument
@base_option
@image_type_option
@format_option
@json_option
@index_option
@offline_option
@pass_context
def dependency_report(
    context: Context,
    *,
    version: Version,
    base: Version | None,
    image_types: tuple[str, ...],
    style: str,
    as_json: bool,
    index: bool,
    offline: bool,
) -> None:
    r"""Show what new direct packages bring with them.

    For each package that is asked for and was not in the base: the tree of what it needs that was not there before, and
    the bytes, all of them and those that it alone is the reason for.

    \b
    Examples:
      lockyard generate-dependency-report 1.4.2
      lockyard generate-dependency-report 1.4.2 --base 1.3.0 --json
    """
    from lockyard.app import reports as app
    from lockyard.reports import dependencies

    pair = app.read_pair(
        context.toolbox, context.workspace, version, base, image_types=image_types, index=index, offline=offline
    )
    render = dependencies.render_json if as_json or style == "json" else dependencies.render_markdown
    context.emit(render(pair.base.label, pair.target.label, app.dependency_report(pair)))


@click.command()
@click.argument("package")
@click.argument("version", type=VERSION, required=False)
@image_type_option
@json_option
@index_option
@offline_option
@pass_context
def why(
    context: Context,
    *,
    package: str,
    version: Version | None,
    image_types: tuple[str, ...],
    as_json: bool,
    index: bool,
    offline: bool,
) -> None:
    r"""Say who requires a package.

    In a release, by default the newest: whether the package is asked for, which packages require it and with which
    range, and the shortest way to it from each direct package.

    \b
    Examples:
      lockyard why openssl
      lockyard why openssl 1.4.2 --image-type gpu
      lockyard why openssl 1.4.2 --json
    """
    from lockyard.app import reports as app
    from lockyard.reports import dependencies

    release = app.read_release_facts(
        context.toolbox, context.workspace, version, image_types, index=index, offline=offline
    )
    found = app.explain_package(release, package)
    render = dependencies.why_json if as_json else dependencies.render_why
    context.emit(render(release.label, found, package.lower()))


@click.command()
@format_option
@json_option
@pass_context
def support(context: Context, *, style: str, as_json: bool) -> None:
    r"""Show which release lines are supported until when.

    A line begins with its first final release and is supported for the months that [support] of the configuration
    names. The day of a release is that of the newest package in its lock, else of the commit that added it; [support]
    released = { "1.4" = 2026-01-31 } states one.

    \b
    Examples:
      lockyard support
      lockyard support --json
    """
    from lockyard.app import reports as app
    from lockyard.reports import support as reports

    lines = app.support_report(context.toolbox, context.workspace)
    if as_json or style == "json":
        context.emit(reports.render_json(lines))
    else:
        distribution = context.workspace.distribution
        context.emit(reports.render_markdown(lines, distribution.title, distribution.support))


COMMANDS = (diff, size_report, staleness_report, dependency_report, why, support)
