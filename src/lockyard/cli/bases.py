"""`pin-bases`."""

import json

import click

from lockyard.cli.options import VERSION, Context, dry_run_option, json_option, pass_context
from lockyard.version import Version


@click.command("pin-bases")
@click.argument("version", type=VERSION, required=False, metavar="[VERSION]")
@click.option("--check", is_flag=True, help="Write nothing; exit 8 when a base would change.")
@dry_run_option
@json_option
@pass_context
def pin_bases_command(context: Context, *, version: Version | None, check: bool, dry_run: bool, as_json: bool) -> None:
    r"""Write the digests of base images into variants.toml.

    Each base that is a reference with a tag gets the digest that its tag leads to now; comments stay. The image must have
    every platform of its variant. With VERSION only that version's major line is done. A pinned base is the same image
    tomorrow; run this again to take a newer one, and review the change like any other.
    Prints FILE:LINE OLD NEW, one base a line, the changed ones only.

    \b
    Examples:
      lockyard pin-bases
      lockyard pin-bases --dry-run
      lockyard pin-bases 1.4.2 --check
    """
    from lockyard.app.bases import pin_bases

    pins = pin_bases(context.toolbox, context.workspace, version=version, dry_run=dry_run, check=check)
    changed = [pin for pin in pins if pin.changed]
    if as_json:
        items = [{"where": pin.where, "old": pin.old, "new": pin.new, "changed": pin.changed} for pin in pins]
        context.emit(json.dumps({"written": bool(changed) and not dry_run, "bases": items}, indent=1))
    elif changed:
        context.emit("\n".join(f"{pin.where} {pin.old} {pin.new}" for pin in changed))
    say = context.toolbox.log
    if not pins:
        say.info("no base is a reference in a registry with a tag")
    elif not changed:
        say.info(f"{len(pins)} bases are pinned to what their tags lead to")
    else:
        say.info(f"{len(changed)} of {len(pins)} bases {'would change' if dry_run else 'were pinned'}")


COMMANDS = (pin_bases_command,)
