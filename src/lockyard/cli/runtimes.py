"""`runtimes`: the images of a Python package."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import Context, dry_run_option, json_option, pass_context

if TYPE_CHECKING:
    from lockyard.pyrelease.runtimes import Runtime

TEMPLATES = click.option(
    "--templates-dir", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
    help="Your own base templates, NAME.Dockerfile.j2 [default: `templates` of runtimes.yaml].",
)  # fmt: skip


@click.group()
def runtimes() -> None:
    """Make the images of a Python package: Dockerfiles from runtimes.yaml, bundles, builds."""


@runtimes.command("list")
@json_option
@pass_context
def list_command(context: Context, *, as_json: bool) -> None:
    r"""List the runtimes of runtimes.yaml: name, what the tags have behind the version, base image, base template.

    \b
    Examples:
      lockyard runtimes list
      lockyard runtimes list --json
    """
    from lockyard.app.runtimes import read_runtimes

    found = read_runtimes(context.project)
    if as_json:
        value = {
            "schema": 1,
            "pkg_version": found.pkg_version,
            "runtimes": [runtime.to_json() for runtime in found.chosen()],
        }
        context.emit(json.dumps(value, indent=1, ensure_ascii=False))
        return
    rows = [_row(runtime) for runtime in found.chosen()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    context.emit("\n".join(lines))


def _row(runtime: "Runtime") -> tuple[str, ...]:
    gpu = f"CUDA {runtime.gpu.cuda}" if runtime.gpu else "CPU"
    return runtime.name, f"VERSION{runtime.suffix}", runtime.base_template, gpu, runtime.image


@runtimes.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All runtimes.")
@TEMPLATES
@click.option("--check", is_flag=True, help="Write nothing; exit 8 when a Dockerfile is not what runtimes.yaml gives.")
@dry_run_option
@json_option
@pass_context
def generate(
    context: Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    templates_dir: Path | None,
    check: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Write Dockerfile.NAME of runtimes from runtimes.yaml and their base templates.

    The base templates are default (the image has Python), generic (apt installs it), internal (packages come from the
    bundle, never from an index) and native (no RUN: needs no container engine). A directory of your own may replace them
    and add others; they are Jinja2 and can extend the shipped ones. All files are rendered before the first is written.

    \b
    Examples:
      lockyard runtimes generate client
      lockyard runtimes generate --all --check
      lockyard runtimes generate client-gpu --templates-dir docker/templates --dry-run
    """
    from lockyard.app.runtimes import generate as write

    if not names and not everything:
        raise click.UsageError("which runtime? Give NAME or --all")
    files = write(context.project, names, templates_dir=templates_dir, check=check, dry_run=dry_run)
    for file in files:
        context.log.info(f"{file.path}: {file.state}")
    if as_json:
        value = [{"runtime": file.runtime, "path": file.path, "state": file.state} for file in files]
        context.emit(json.dumps({"schema": 1, "files": value}, indent=1))
    elif dry_run and len(files) == 1:
        context.emit(files[0].text)
    else:
        context.emit("\n".join(file.path for file in files))


COMMANDS = (runtimes,)
