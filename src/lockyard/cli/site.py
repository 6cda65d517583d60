"""`site`."""

import click

from lockyard.cli.options import Context, json_option, pass_context


@click.command()
@click.option("--output", metavar="DIR", help="Where to, below the root; replaced whole [default: out/site].")
@click.option(
    "--index", is_flag=True, help="Look up in the channel's index what locks made before Lockyard do not say."
)
@click.option("--offline", is_flag=True, help="Read channel indexes from the cache only.")
@json_option
@pass_context
def site(context: Context, *, output: str | None, index: bool, offline: bool, as_json: bool) -> None:
    r"""Make a site of all releases that opens from a file.

    Releases by line, which package has which version where, a page for each release (packages, sizes, layers, tests,
    digests, bills of materials), the difference of any two, and charts. It needs no server and, apart from search and
    comparison, no JavaScript. Prints the path of its first page.

    \b
    Examples:
      lockyard site
      lockyard site --output public --index
    """
    import json

    from lockyard.app.site import build_site
    from lockyard.reports.text import human_size

    result = build_site(context.toolbox, context.workspace, output=output, index=index, offline=offline)
    context.toolbox.log.info(f"{result.pages} pages, {human_size(result.size)}")
    context.emit(
        json.dumps({"index": result.index, "pages": result.pages, "bytes": result.size}) if as_json else result.index
    )


COMMANDS = (site,)
