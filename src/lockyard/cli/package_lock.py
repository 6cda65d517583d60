"""`package lock`."""

import json

import click

from lockyard.cli.options import Context, dry_run_option, index_option, json_option, pass_context


@click.command()
@click.argument("sets", nargs=-1, metavar="[SET]...")
@click.option("--check", is_flag=True, help="Change nothing; exit 4 when a file is not what it should be.")
@click.option(
    "--update", multiple=True, metavar="PKG", help="Let this package move to the newest that fits (repeatable)."
)
@click.option("--fresh", is_flag=True, help="Prefer nothing of the earlier pins.")
@click.option("--offline", is_flag=True, help="Use what uv has in its cache; ask no network.")
@index_option
@dry_run_option
@json_option
@pass_context
def lock(
    context: Context,
    *,
    sets: tuple[str, ...],
    check: bool,
    update: tuple[str, ...],
    fresh: bool,
    offline: bool,
    index_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Lock the dependencies of each set, with hashes, into requirements/requirements_SET.txt.

    [tool.lockyard.package.sets] says which extras and dependency groups a set has; without it there are `all` (every extra) and
    `dev`. uv finds versions for all platforms and every Python that the project allows; earlier pins stay where they fit. No
    address of an index gets into a file. A set with copy-to is written into the package as well. All files are one step. Prints
    the files that changed.

    \b
    Examples:
      lockyard package lock
      lockyard package lock client --update click
      lockyard package lock --check
      lockyard package lock --index-url https://pypi.example.com/simple --dry-run
    """
    if check and (update or fresh or dry_run):
        raise click.UsageError("--check only looks: it takes no --update, --fresh or --dry-run")
    from lockyard.app.packagelock import LockOptions, check_locks, plan_locks, write_locks

    options = LockOptions(update=update, fresh=fresh, offline=offline, index_url=index_url)
    locks = plan_locks(context.toolbox, context.project, options, names=sets)
    say = context.toolbox.log
    for item in locks:
        say.info(f"{item.path}: {item.why or 'current'}")
        for change in item.changes:
            say.info(f"  {change.name} {change.old or '-'} -> {change.new or '-'}")
    if check:
        check_locks(locks)
    written = () if check or dry_run else write_locks(context.project, locks)
    if as_json:
        items = [
            {
                "set": item.name, "path": item.path, "current": item.is_current, "why": item.why,
                "changes": [{"name": one.name, "old": one.old, "new": one.new} for one in item.changes],
            }
            for item in locks
        ]  # fmt: skip
        context.emit(json.dumps({"sets": items, "written": list(written)}, indent=1))
    elif written:
        context.emit("\n".join(written))


COMMANDS = (lock,)
