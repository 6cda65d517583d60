"""`generate-changelog`, `generate-release-notes` and `generate-version-release-note`: the texts of a release's directory."""

from collections.abc import Callable
from typing import Any

import click

from lockyard.cli.options import VERSION, Context, dry_run_option, pass_context
from lockyard.version import Version

_CHECKING = """With --check nothing is written: exit 8 when a text is not what would be written; without a version every
    release is checked, and those made before Lockyard may keep the texts that they came with."""


def _command(name: str, kind: str, summary: str, what: str) -> click.Command:
    """Make one of the three commands, which differ in what they write."""

    def function(
        context: Context, *, version: Version | None, target_patch_version: Version | None, check: bool, dry_run: bool
    ) -> None:
        chosen = _one(version, target_patch_version)
        if check:
            _check(context, chosen, kind, name)
        elif chosen is None:
            raise click.UsageError("which release? Give VERSION or --target-patch-version V")
        else:
            _write(context, chosen, kind, dry_run=dry_run)

    function.__doc__ = f"""{summary}

    {what} The text follows from committed files alone: writing it again gives the same bytes. {_CHECKING}

    \b
    Examples:
      lockyard {name} 1.4.2
      lockyard {name} 1.4.2 --dry-run
      lockyard {name} --check
    """
    decorated: Any = pass_context(function)
    decorators: tuple[Callable[..., Any], ...] = (
        dry_run_option,
        click.option("--check", is_flag=True, help="Only compare; exit 8 on a difference."),
        click.option(
            "--target-patch-version", type=VERSION, metavar="V", help="The release, the same as the argument."
        ),
        click.argument("version", type=VERSION, required=False, metavar="[VERSION]"),
    )
    for decorator in decorators:
        decorated = decorator(decorated)
    return click.command(name)(decorated)


def _one(version: Version | None, other: Version | None) -> Version | None:
    if version and other and version != other:
        raise click.UsageError(f"two versions are given: {version} and {other}")
    return version or other


def _write(context: Context, version: Version, kind: str, *, dry_run: bool) -> None:
    from lockyard.app.texts import write_texts

    result = write_texts(context.workspace, version, (kind,), dry_run=dry_run)
    if dry_run:
        context.emit("\n".join(result.texts.values()))
        return
    for path in result.texts:
        context.toolbox.log.info(f"{'wrote' if path in result.written else 'is right already:'} {path}")
    context.emit("\n".join(result.texts))


def _check(context: Context, version: Version | None, kind: str, name: str) -> None:
    from lockyard.app.texts import check_texts, require_no_drift
    from lockyard.reports.text import counted

    status = check_texts(context.workspace, (version,) if version else (), (kind,))
    if status.passed_over:
        releases = counted(len(status.passed_over), "release")
        context.toolbox.log.info(f"passed over {releases} made before Lockyard or not locked; name one to check it")
    require_no_drift(status, name)
    context.toolbox.log.info(f"checked {counted(len(status.checked), 'release')}: no difference")


COMMANDS = (
    _command(
        "generate-changelog",
        "changelog",
        "Write what changed since the base release.",
        "CHANGELOG-TYPE.md lists direct and indirect packages apart, changed (by kind of change), new, removed, rebuilt.",
    ),
    _command(
        "generate-release-notes",
        "notes",
        "Write the versions of all packages that were asked for.",
        "RELEASE.md is one table: a direct package a row, an image type a column.",
    ),
    _command(
        "generate-version-release-note",
        "note",
        "Write where the images of a release are, and what to read.",
        "RELEASE-NOTE.md names tags, digests and bases as published (images.json), counts the changes, links to the rest.",
    ),
)
