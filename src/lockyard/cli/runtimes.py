"""`runtimes`: the images of a Python package."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import Context, dry_run_option, json_option, pass_context
from lockyard.cli.package_images import TEMPLATES, answer, build_options, table

if TYPE_CHECKING:
    from lockyard.app.bundles import BundleOptions
    from lockyard.app.runtimebuild import ImageOptions
    from lockyard.pyrelease.runtimes import Runtime


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


@runtimes.command("build")
@click.argument("name")
@click.option("--only-bundle", is_flag=True, help="Write what the image is built from as a tar, and build nothing.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where --only-bundle writes [default: out/package/VERSION/NAME.tar].",
)  # fmt: skip
@build_options
@click.option("--skip-tests", is_flag=True, help="Do not test the image.")
@click.option("--no-load", is_flag=True, help="Load nothing into a Docker daemon.")
@json_option
@pass_context
def build_command(
    context: Context,
    *,
    name: str,
    only_bundle: bool,
    output: Path | None,
    bundles: "BundleOptions",
    images: "ImageOptions",
    skip_tests: bool,
    no_load: bool,
    as_json: bool,
) -> None:
    r"""Build the image of one runtime from HEAD, or from the work tree as it is.

    The files, less what .dockerignore leaves out, with the package's wheel, the locked requirements and the wheels that the
    runtime names, are one bundle: a tar with the same bytes on every machine. The image's version is by git describe:
    the tag's, or how far HEAD is from the last one. The image becomes an OCI layout in out/package/VERSION/NAME/PLATFORM/, and is
    tested. Prints NAME TAG DIGEST PATH, or with --only-bundle the path of the tar.

    \b
    Examples:
      lockyard runtimes build client
      lockyard runtimes build client-gpu --working-tree --engine buildkit
      lockyard runtimes build all --only-bundle --output all.tar
    """
    from lockyard.app.packageimages import build_images, bundle_runtime

    if output is not None and not only_bundle:
        raise click.UsageError("--output is for --only-bundle")
    if only_bundle:
        path = output.absolute() if output else None
        done = bundle_runtime(context.toolbox, context.project, name, bundles, path)
        context.log.info(f"{name} {done.image_version}: {done.digest}")
        value = {"schema": 1, "path": str(done.path), "digest": str(done.digest), "version": done.image_version}
        context.emit(json.dumps(value, indent=1) if as_json else str(done.path))
        return
    built = build_images(
        context.toolbox, context.project, (name,), bundles=bundles, options=images, skip_tests=skip_tests,
        load=not no_load,
    )  # fmt: skip
    table(context, built)
    context.emit(answer(context, built, as_json=as_json))


COMMANDS = (runtimes,)
