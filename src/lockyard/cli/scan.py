"""`scan`."""

from pathlib import Path
from typing import Any

import click

from lockyard.cli.options import Context, image_type_option, json_option, pass_context, version_argument
from lockyard.version import Version


class ReportType(click.ParamType[tuple[str | None, Path], str]):
    """`TYPE=FILE`, or `FILE` where only one image type is meant."""

    name = "report"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, Path]:  # noqa: ARG002 - the signature of click
        """Split the text."""
        if isinstance(value, tuple):
            return value
        name, mark, path = value.partition("=")
        return (name, Path(path)) if mark else (None, Path(value))


@click.command()
@version_argument
@image_type_option
@click.option("--report", "reports", multiple=True, type=ReportType(), metavar="[TYPE=]FILE",
              help="JSON of Trivy, Grype or ECR (repeatable).")  # fmt: skip
@click.option("--repository", metavar="R", help="Read what Amazon ECR's own scan of this repository found.")
@click.option("--region", metavar="R", help="The region of that repository [default: the one in its name].")
@click.option("--threshold", type=click.Choice(["critical", "high", "medium", "low", "negligible", "unknown"]),
              default="high", show_default=True, help="Exit 7 when something this severe is left.")  # fmt: skip
@click.option("--allow-list", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="What is allowed for a time [default: scan-allow.toml of the root, if it is there].")  # fmt: skip
@click.option("--format", "style", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True,
              help="What to print.")  # fmt: skip
@json_option
@pass_context
def scan(
    context: Context,
    *,
    version: Version,
    image_types: tuple[str, ...],
    reports: tuple[tuple[str | None, Path], ...],
    repository: str | None,
    region: str | None,
    threshold: str,
    allow_list: Path | None,
    style: str,
    as_json: bool,
) -> None:
    r"""Show the vulnerabilities of a release's images; exit 7 when a severe one is left.

    Findings come from Amazon ECR's own scan or from the JSON of a scanner. scan-allow.toml, committed, allows single
    ones for a time: [[allow]] with id, reason, expires and optionally package. Printed are severity, id, package, the
    installed version, the version that mends it, and the image types.

    \b
    Examples:
      lockyard scan 1.4.2 --repository 123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/image
      lockyard scan 1.4.2 --report cpu=trivy-cpu.json --report gpu=trivy-gpu.json
      lockyard scan 1.4.2 --image-type cpu --report grype.json --threshold critical --format markdown
    """
    from lockyard.app.scan import require_none, scan_release
    from lockyard.reports import scan as report

    result = scan_release(
        context.toolbox,
        context.workspace,
        version,
        image_types=image_types,
        reports=reports,
        repository=repository,
        region=region,
        threshold=threshold,
        allow_list=allow_list,
    )
    if as_json or style == "json":
        context.emit(report.render_json(result, str(version), threshold))
    elif style == "markdown":
        context.emit(report.render_markdown(result, str(version)))
    else:
        context.emit(report.render_text(result))
    say = context.toolbox.log
    for entry in result.expired:
        say.warning(f"the allow-list's entry for {entry.id} expired on {entry.expires}")
    for entry in result.unused:
        say.info(f"the allow-list's entry for {entry.id} allows nothing that was found")
    require_none(result, threshold)


COMMANDS = (scan,)
