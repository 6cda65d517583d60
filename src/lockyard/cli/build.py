"""`build` and `run`."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import (
    VERSION,
    Context,
    image_type_option,
    json_option,
    one_or_more,
    pass_context,
    region_option,
    versions_argument,
)
from lockyard.cli.wave import answer, image_line, image_value
from lockyard.reports.text import human_size
from lockyard.version import Version

if TYPE_CHECKING:
    from lockyard.app.ahead import EarlyUploads
    from lockyard.app.images import BuildResult
    from lockyard.app.publish import PublishResult
    from lockyard.app.wave import Build, Publish
    from lockyard.app.workspace import Workspace

_PLATFORM = click.option(
    "--platform", "platforms", multiple=True, metavar="P", help="Only this conda platform, such as linux-64."
)


def _build_args(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE")
    return dict(value.split("=", 1) for value in values)


@click.command()
@versions_argument
@click.option(
    "--all-scheduled", is_flag=True, help="Every release that is scheduled; one that is not there is created."
)
@image_type_option
@_PLATFORM
@click.option("--target-ecr-repo", "targets", multiple=True, metavar="R", help="Publish there when all tests passed.")
@region_option
@click.option(
    "--upload-early/--no-upload-early", default=True, show_default=True,
    help="Send finished layers while the rest is built and tested; no manifest refers to them before tests passed.",
)  # fmt: skip
@click.option("--skip-tests", is_flag=True, help="Run no image tests; what is published is marked untested.")
@click.option("--force", is_flag=True, help="Solve again, even when there is a lock.")
@click.option("--build-arg", "build_args", multiple=True, callback=_build_args, metavar="K=V", help="A build argument.")
@click.option(
    "--package-dir", type=click.Path(path_type=Path), metavar="DIR",
    help="Package files for lines of the lock with no hash or no reachable address.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["auto", "native", "docker", "buildkit"]), default="auto", show_default=True,
    help="What builds; auto: native where the Dockerfile has no RUN, else docker.",
)  # fmt: skip
@click.option(
    "--builder", metavar="NAME", help="BuildKit's builder, as in docker buildx ls [default: the current one]."
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="id=N,env=V",
    help="A secret for RUN --mount=type=secret,id=N, from a variable (env=) or a file (src=); BuildKit only.",
)  # fmt: skip
@click.option(
    "--image-refs", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write what was published here too, one REPOSITORY@DIGEST TAG a line.",
)  # fmt: skip
@click.option("--no-load", is_flag=True, help="Load nothing into a Docker daemon.")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Busy threads [default: processors].")
@json_option
@pass_context
def build(
    context: Context,
    *,
    versions: tuple[Version, ...],
    all_scheduled: bool,
    image_types: tuple[str, ...],
    platforms: tuple[str, ...],
    targets: tuple[str, ...],
    region: str | None,
    upload_early: bool,
    skip_tests: bool,
    force: bool,
    build_args: dict[str, str],
    package_dir: Path | None,
    engine: str,
    builder: str | None,
    secrets: tuple[str, ...],
    image_refs: Path | None,
    no_load: bool,
    workers: int | None,
    as_json: bool,
) -> int:
    r"""Build the images of a release, or of several, test them, and publish them where targets are given.

    Needs no daemon and no root. Each image becomes an OCI layout in out/VERSION/TYPE/PLATFORM/, the same bytes from any
    directory on any machine; layers that did not change come from the cache. Without a lock the release is locked first.
    A reachable Docker daemon (DOCKER_HOST) gets the images too, as IMAGE:VERSION-TYPE; only layers that it lacks are sent.
    Prints TYPE PLATFORM DIGEST PATH, one image a line, then REPOSITORY@DIGEST TAG for what was published.

    With targets, layers are sent as soon as they are finished. Nothing refers to them before all tests have passed, and what the
    tests stop is never published.

    Several releases share what they fetch, build and send. One that fails is not published; the others finish, and the exit
    code is that of the first failure. --all-scheduled takes them from schedule.toml.

    \b
    Examples:
      lockyard build 1.4.2
      lockyard build 1.4.2 --image-type cpu --skip-tests
      lockyard build 1.4.2 --target-ecr-repo registry.example.com/team/image
      lockyard build 1.4.2 --engine buildkit --builder cluster --secret id=PIP,env=PIP_TOKEN
      lockyard build 1.4.3 1.5.1 2.0.0
      lockyard build --all-scheduled --target-ecr-repo stage
    """
    from lockyard.app.build import build_release
    from lockyard.app.engines import EngineOptions
    from lockyard.engines.buildx import parse_secret

    if not targets and image_refs is not None:
        raise click.UsageError("--image-refs is for what is published: add --target-ecr-repo")
    uploads = None
    if targets:
        from lockyard.app.ahead import EarlyUploads

        # A typo in a target is told here, before hours of building.
        uploads = EarlyUploads(context.toolbox, context.workspace, targets, region=region, wanted=upload_early)
    engines = EngineOptions(engine=engine, builder=builder, secrets=tuple(map(parse_secret, secrets)), no_cache=force)

    def make(workspace: "Workspace", version: Version, solve: bool) -> "BuildResult":
        during = uploads.during(workspace, version) if uploads else contextlib.nullcontext(lambda *_: None)
        with during as finished:
            return build_release(
                context.toolbox,
                workspace,
                version,
                image_types=image_types,
                platforms=platforms,
                skip_tests=skip_tests,
                force=solve,
                build_args=build_args,
                workers=workers,
                load=not no_load,
                package_dir=package_dir,
                engines=engines,
                finished=finished,
            )

    single = len(versions) == 1 and not all_scheduled
    publish = _publisher(
        context, targets, image_types, skip_tests=skip_tests, region=region, image_refs=image_refs if single else None,
        uploads=uploads,
    ) if uploads else None  # fmt: skip
    if not single:
        return _wave(
            context,
            versions,
            make,
            publish,
            all_scheduled=all_scheduled,
            force=force,
            image_refs=image_refs,
            as_json=as_json,
        )
    (version,) = versions
    result = make(context.workspace, version, force)
    _table(context, result)
    if not as_json:
        context.emit("\n".join(image_line(context, image) for image in result.images))
    published = publish(context.workspace, version) if publish is not None else None
    if as_json:
        context.emit(_json(context, result, published))
    elif published is not None:
        context.emit("\n".join(published.lines))
    _how_to_run(context, result)
    return 0


def _wave(
    context: Context,
    versions: tuple[Version, ...],
    make: "Build",
    publish: "Publish | None",
    *,
    all_scheduled: bool,
    force: bool,
    image_refs: Path | None,
    as_json: bool,
) -> int:
    """Build several releases, publish those that are green, and tell of all."""
    from lockyard.app.wave import build_wave, scheduled_entries

    entries = scheduled_entries(context.workspace) if all_scheduled else ()
    wanted = tuple(dict.fromkeys((*versions, *(entry.target for entry in entries))))

    outcomes = build_wave(
        context.toolbox, context.workspace, one_or_more(wanted), make, publish,
        scheduled=entries, force=force,
    )  # fmt: skip
    return answer(context, outcomes, image_refs=image_refs, as_json=as_json)


@click.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("version", type=VERSION)
@click.option("--image-type", metavar="T", help="The image type [default: the first of the line].")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_context
def run_command(context: Context, *, version: Version, image_type: str | None, command: tuple[str, ...]) -> int:
    r"""Run a command in a built image, with no daemon.

    The image is not changed and nothing that the command writes is kept; there is no network. Without a command the
    image's own one runs. Exits with the command's code.

    \b
    Examples:
      lockyard run 1.4.2 -- python -c "import numpy; print(numpy.__version__)"
      lockyard run 1.4.2 --image-type gpu -- bash
    """
    from lockyard.app.images import run_in_image

    if command and command[0].startswith("-"):
        raise click.UsageError(f"no option {command[0]}; write the command after --")
    chosen = image_type or context.workspace.line(version).types[0]
    return run_in_image(context.toolbox, context.workspace, version, chosen, command).exit_code


def _json(context: Context, result: "BuildResult", published: "PublishResult | None") -> str:
    from lockyard.cli.publish import publish_value

    images = [image_value(context, image) for image in result.images]
    pushed = publish_value(published) if published is not None else None
    return json.dumps({"schema": 1, "version": str(result.version), "images": images, "published": pushed}, indent=1)


def _table(context: Context, result: "BuildResult") -> None:
    from rich.table import Table

    from lockyard.app.testing import summary

    table = Table(box=None, pad_edge=False)
    for name in ("image", "packages", "fetched", "layers", "rebuilt", "size", "rebuilt size", "time", "tests"):
        table.add_column(name, justify="left" if name in {"image", "tests"} else "right")
    for image in result.images:
        table.add_row(
            f"{image.image_type} {image.platform}",
            str(image.packages),
            str(image.fetched),
            str(image.layers),
            str(image.rebuilt),
            human_size(image.size),
            human_size(image.rebuilt_size),
            f"{image.seconds:.1f} s",
            summary(image.tests) if image.tests else f"not run: {image.skipped or 'skipped'}",
        )
    context.console.print(table)


def tell_built(context: Context, result: "BuildResult") -> None:
    """Say on stderr what was built and how it is run."""
    _table(context, result)
    _how_to_run(context, result)


def _how_to_run(context: Context, result: "BuildResult") -> None:
    """Say as the last line how the first image is run: by the daemon that has it, else without one."""
    if not result.images:
        return
    image = result.images[0]
    say = context.toolbox.log
    for item in result.images:
        if item.loaded:
            say.info(f"in Docker: {item.loaded}")
    if image.loaded:
        say.info(f"run it: docker run --rm -it {image.loaded}")
        return
    place = image.layout.relative_to(context.workspace.root)
    name = f"{context.workspace.distribution.image}:{image.tag}"
    say.info(f"load it into Docker: skopeo copy oci:{place}:{image.tag} docker-daemon:{name}")
    say.info(f"run it here: lockyard run {result.version} --image-type {image.image_type} -- python")


def _publisher(
    context: Context,
    targets: tuple[str, ...],
    image_types: tuple[str, ...],
    *,
    skip_tests: bool,
    region: str | None,
    image_refs: Path | None,
    uploads: "EarlyUploads",
) -> "Publish":
    """Return what publishes a release to the targets and tells of it; loads the registry's modules."""
    from lockyard.app.publish import PublishRequest, publish_release
    from lockyard.cli.publish import tell_published

    request = PublishRequest(
        targets=targets, image_types=image_types, skip_tests=skip_tests, region=region, image_refs=image_refs
    )

    def publish(workspace: "Workspace", version: Version) -> "PublishResult":
        context.toolbox.log.step(f"publishing {version}")
        result = publish_release(context.toolbox, workspace, version, request, ahead=uploads.sent(version))
        tell_published(context, result)
        return result

    return publish


COMMANDS = (build, run_command)
