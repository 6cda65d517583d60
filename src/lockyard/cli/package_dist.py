"""`package build` and `package publish`."""

import json
from pathlib import Path

import click

from lockyard.cli.options import Context, dry_run_option, index_option, json_option, pass_context


@click.command()
@click.option("--revision", metavar="REV", help="Build from this commit or tag [default: the work tree].")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where to write [default: dist]."
)
@click.option("--no-isolation", is_flag=True, help="Use the backend that is installed here.")
@click.option("--no-verify", is_flag=True, help="Build once: do not prove that a second build gives the same bytes.")
@click.option("--no-install", is_flag=True, help="Do not try the wheel in a fresh environment.")
@index_option
@json_option
@pass_context
def build(
    context: Context,
    *,
    revision: str | None,
    output: Path | None,
    no_isolation: bool,
    no_verify: bool,
    no_install: bool,
    index_url: str | None,
    as_json: bool,
) -> None:
    r"""Build the sdist and the wheel, the same bytes every time.

    Only files that git does not ignore get in; the time in them is that of the last commit. The wheel is made from the sdist. Both
    are built twice and compared, then checked: names, versions, metadata, the files of RECORD and their hashes, that the wheel's
    modules are those of the sdist, that nothing strayed in, and by twine. The wheel is installed into a fresh environment with
    what is locked, imported, and its commands are loaded. Prints the paths.

    \b
    Examples:
      lockyard package build
      lockyard package build --revision v1.2.0 --output /tmp/again
      lockyard package build --no-isolation --no-verify
    """
    from lockyard.app.packagebuild import DIST, BuildOptions, build_package

    options = BuildOptions(isolated=not no_isolation, verify=not no_verify, try_out=not no_install, index_url=index_url)
    out = output.absolute() if output else context.project.root / DIST
    done = build_package(context.toolbox, context.project, options, revision=revision, out=out)
    if as_json:
        files = [
            {"path": str(path), "sha256": file.sha256, "size": len(file.data)}
            for path, file in zip(done.written, done.files, strict=True)
        ]
        context.emit(json.dumps({"version": str(done.version), "epoch": done.epoch, "files": files}, indent=1))
    else:
        context.emit("\n".join(map(str, done.written)))


@click.command()
@click.option(
    "--repository",
    metavar="URL|NAME",
    help="The index: an upload address, pypi, testpypi, or a name of the configuration or of ~/.pypirc [default: pypi].",
)
@click.option("--no-isolation", is_flag=True, help="Use the backend that is installed here.")
@index_option
@dry_run_option
@json_option
@pass_context
def publish(
    context: Context, *, repository: str | None, no_isolation: bool, index_url: str | None, dry_run: bool, as_json: bool
) -> None:
    r"""Publish the tagged version to a package index.

    The tag of the version must name the current commit, and the work tree must have no changes. The distributions are built from
    that commit and checked as `package build` does, then uploaded by twine with its own credentials (~/.pypirc, keyring,
    TWINE_USERNAME and TWINE_PASSWORD, trusted publishing in CI). A version that the index has is refused (exit 3); an upload that
    was cut goes on. A test index takes pre-releases only. Prints INDEX FILE SHA256, one uploaded file a line.

    \b
    Examples:
      lockyard package publish --dry-run
      lockyard package publish --repository testpypi
      lockyard package publish --repository https://packages.example.com/pypi/team/
    """
    from lockyard.app.packagebuild import BuildOptions
    from lockyard.app.packagepublish import publish_package, refuse_published

    options = BuildOptions(isolated=not no_isolation, index_url=index_url)
    done = publish_package(context.toolbox, context.project, options, index=repository, dry_run=dry_run)
    refuse_published(done, context.project.version)
    names = [file.name for file in done.uploaded]
    if dry_run:
        context.toolbox.log.info(f"would upload to {done.target.upload}: {', '.join(names)}")
    if as_json:
        files = [
            {
                "name": file.name,
                "sha256": file.sha256,
                "size": len(file.data),
                "uploaded": file.name in names and not dry_run,
            }
            for file in done.files
        ]
        answer = {"version": str(context.project.version), "index": done.target.upload, "files": files}
        context.emit(json.dumps(answer, indent=1))
    elif not dry_run:
        context.emit("\n".join(f"{done.target.name} {file.name} {file.sha256}" for file in done.uploaded))


COMMANDS = (build, publish)
