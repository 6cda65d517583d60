"""`repositories check`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import Context, json_option, pass_context, region_option

if TYPE_CHECKING:
    from lockyard.app.repositories import CheckedRepository


@click.group()
def repositories() -> None:
    """Look at the repositories that images are published to."""


@repositories.command("check")
@click.argument("names", nargs=-1, metavar="[REPOSITORY]...")
@region_option
@click.option("--insecure", is_flag=True, help="Allow plain http to hosts other than this machine.")
@json_option
@pass_context
def check(context: Context, *, names: tuple[str, ...], region: str | None, insecure: bool, as_json: bool) -> int:
    r"""Say what repositories lack for publishing, with the AWS command that mends each thing.

    Looks at aliases or addresses, at all of [tool.lockyard.repositories] when none is named, and changes nothing. Of Amazon
    ECR: whether the repository exists, is scanned on push, keeps exact tags while floating ones move, and whether the account
    lets layers be mounted. Exits with 6 when something would make a push fail.

    \b
    Examples:
      lockyard repositories check
      lockyard repositories check production --json
    """
    from lockyard.app.repositories import check_repositories

    found = check_repositories(context.toolbox, context.workspace, names, region=region, insecure=insecure)
    if as_json:
        value = {"schema": 1, "repositories": [asdict(item) for item in found]}
        context.emit(json.dumps(value, indent=2, sort_keys=True))
    else:
        context.emit("\n".join(line for item in found for line in _lines(item)))
    return 6 if any(finding.level == "error" for item in found for finding in item.findings) else 0


def _lines(item: "CheckedRepository") -> list[str]:
    name = item.repository if item.name == item.repository else f"{item.name} ({item.repository})"
    if not item.findings:
        return [f"{name}: ready{' for staging' if item.stage else ''}"]
    lines = [f"{name}:"]
    for finding in item.findings:
        lines.append(f"  {finding.level}: {finding.what}")
        if finding.command:
            lines.append(f"    {finding.command}")
    return lines


COMMANDS = (repositories,)
