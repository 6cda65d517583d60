"""`package bump`."""

import json
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import Context, dry_run_option, json_option, pass_context

if TYPE_CHECKING:
    from lockyard.app.package import BumpPlan
    from lockyard.pyrelease.bump import Identifier, Kind

KINDS = ("prerelease", "patch", "minor", "major", "release")
IDENTIFIERS = ("a", "b", "rc")


@click.command()
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.option(
    "--identifier", type=click.Choice(IDENTIFIERS), help="The kind of pre-release [default: the current one, else a]."
)
@click.option("--check", is_flag=True, help="Change nothing; exit 8 when copies of the version disagree.")
@dry_run_option
@json_option
@pass_context
def bump(
    context: Context,
    *,
    kind: "Kind | None",
    identifier: "Identifier | None",
    check: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Write the next version into every file that has it.

    The version of pyproject.toml is the truth. With it change __version__ in the modules, every pkg_version of runtimes.yaml, and
    the version-files of [tool.lockyard.package]. Every edit is shown before it is made; all files are written as one step. A
    work tree with changes is refused. patch, minor and major with --identifier start the pre-releases of that release; release
    drops the suffix. A version never goes back. Prints the new version.

    \b
    Examples:
      lockyard package bump minor --identifier a     # 1.2.3 -> 1.3.0a1
      lockyard package bump prerelease               # 1.3.0a1 -> 1.3.0a2
      lockyard package bump prerelease --identifier rc
      lockyard package bump release --dry-run        # 1.3.0rc1 -> 1.3.0
      lockyard package bump --check
    """
    if check:
        if kind or identifier or dry_run:
            raise click.UsageError("--check only looks: it takes no version and no other option")
        _check(context, as_json=as_json)
        return
    if kind is None:
        raise click.UsageError(f"which step? Give one of {', '.join(KINDS)}")
    from lockyard.app.package import apply_bump, plan_bump

    plan = plan_bump(context.project, kind, identifier)
    for line in edit_lines(plan):
        context.toolbox.log.info(line)
    for copy in plan.strays:
        context.toolbox.log.warning(f"{copy.where} said {copy.text}, not {plan.old}")
    written = () if dry_run else apply_bump(context.toolbox, context.project, plan)
    if as_json:
        context.emit(json.dumps({**_json(plan), "written": list(written)}, indent=1))
    else:
        context.emit(str(plan.new))


def edit_lines(plan: "BumpPlan") -> list[str]:
    """Return what people read of the edits."""
    lines = [f"{plan.old} -> {plan.new}"]
    for edit in plan.edits.lines:
        lines += [f"  {edit.path}:{edit.line}", f"    - {edit.old}", f"    + {edit.new}"]
    return lines


def _json(plan: "BumpPlan") -> dict[str, object]:
    edits = [{"path": item.path, "line": item.line, "old": item.old, "new": item.new} for item in plan.edits.lines]
    return {"old": str(plan.old), "new": str(plan.new), "edits": edits}


def _check(context: Context, *, as_json: bool) -> None:
    from lockyard.app.package import check_copies

    copies = check_copies(context.project)
    if as_json:
        places = [{"path": copy.path, "line": copy.line, "version": copy.text} for copy in copies]
        context.emit(json.dumps({"version": str(context.project.version), "copies": places}, indent=1))
    else:
        context.emit(str(context.project.version))
    for copy in copies:
        context.toolbox.log.info(f"{copy.where}: {copy.text}")


COMMANDS = (bump,)
