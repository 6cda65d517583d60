"""`package images`, and what it has in common with `runtimes build`."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lockyard.cli.options import Context, dry_run_option, index_option, json_option, pass_context, region_option
from lockyard.reports.text import human_size

if TYPE_CHECKING:
    from lockyard.app.bundles import BundleOptions
    from lockyard.app.packagepush import PackagePushResult
    from lockyard.app.runtimebuild import ImageOptions, PackageImage

F = TypeVar("F", bound=Callable[..., Any])

TEMPLATES = click.option(
    "--templates-dir", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
    help="Your own base templates, NAME.Dockerfile.j2 [default: `templates` of runtimes.yaml].",
)  # fmt: skip
_ENGINE = (
    click.option(
        "--engine", type=click.Choice(["auto", "native", "docker", "buildkit"]), default="auto", show_default=True,
        help="What builds; auto: native where the Dockerfile has no RUN, else docker.",
    ),
    click.option("--builder", metavar="NAME", help="BuildKit's builder, as in docker buildx ls [default: the current]."),
    click.option(
        "--secret", "secrets", multiple=True, metavar="id=N,env=V",
        help="A secret for RUN --mount=type=secret,id=N, from a variable (env=) or a file (src=); BuildKit only.",
    ),
    click.option("--rebuild", is_flag=True, help="Build images again that were built from the same files."),
    click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Busy threads [default: processors]."),
)  # fmt: skip
_SOURCE = (
    click.option("--working-tree", is_flag=True, help="Take the files as they are, ignored ones left out, not HEAD's."),
    TEMPLATES,
    click.option("--no-isolation", is_flag=True, help="Build the wheel with what is installed here."),
    index_option,
)


def build_options(function: F) -> F:
    """Give the command `bundles` and `images`: where the files come from, and how images are built."""

    @functools.wraps(function)
    def wrapper(
        *args: Any, engine: str, builder: str | None, secrets: tuple[str, ...], rebuild: bool, workers: int | None,
        working_tree: bool, templates_dir: Path | None, no_isolation: bool, index_url: str | None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        from lockyard.app.bundles import BundleOptions
        from lockyard.app.engines import EngineOptions
        from lockyard.app.packagebuild import BuildOptions
        from lockyard.app.runtimebuild import ImageOptions
        from lockyard.engines.buildx import parse_secret

        build = BuildOptions(isolated=not no_isolation, verify=False, try_out=False, index_url=index_url)
        bundles = BundleOptions(working_tree=working_tree, templates_dir=templates_dir, build=build)
        engines = EngineOptions(
            engine=engine, builder=builder, secrets=tuple(map(parse_secret, secrets)), no_cache=rebuild
        )
        images = ImageOptions(engines=engines, workers=workers, rebuild=rebuild)
        return function(*args, bundles=bundles, images=images, **kwargs)

    found: Any = wrapper
    for option in reversed((*_SOURCE, *_ENGINE)):
        found = option(found)
    return found  # type: ignore[no-any-return]  # click's decorators keep the callable


@click.command("images")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--target-ecr-repo", "targets", multiple=True, metavar="R",
    help="Publish there when all tests passed: an alias, HOST/NAME or oci:DIR below the root (repeatable).",
)  # fmt: skip
@click.option("--push", is_flag=True, help="Publish to the registry that runtimes.yaml names.")
@region_option
@click.option("--skip-tests", is_flag=True, help="Test nothing; what is published gets exact tags only.")
@click.option("--move-tag", is_flag=True, help="Let the exact tag of a pre-release move to this build.")
@click.option("--insecure", is_flag=True, help="Allow plain http to hosts other than this machine.")
@click.option(
    "--image-refs", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the answer here too."
)
@build_options
@click.option("--no-load", is_flag=True, help="Load nothing into a Docker daemon.")
@dry_run_option
@json_option
@pass_context
def images_command(
    context: Context,
    *,
    names: tuple[str, ...],
    targets: tuple[str, ...],
    push: bool,
    region: str | None,
    skip_tests: bool,
    move_tag: bool,
    insecure: bool,
    image_refs: Path | None,
    bundles: "BundleOptions",
    images: "ImageOptions",
    no_load: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Build, test and publish the images of the release: all, client, client-gpu, whatever runtimes.yaml has.

    The images are made from HEAD, with the wheel in dist/ when there is one, which must be HEAD's. Each is tested in itself: its command
    starts, the package inside has the release's version, the user is not root. The tags are VERSION for the runtime all,
    VERSION-client, VERSION-client-cudaX.Y; final releases move latest, latest-client, … as well. Published is only what was
    tested, byte for byte; an interrupted run goes on where it was. Prints NAME TAG DIGEST PATH, one image a line, or
    REPOSITORY@DIGEST TAG with targets.

    \b
    Examples:
      lockyard package images
      lockyard package images client client-gpu --engine buildkit
      lockyard package images --target-ecr-repo first --target-ecr-repo registry.example.com/lab/labservice
      lockyard package images all --push --dry-run
    """
    from lockyard.app.packageimages import build_images, describe_images, release_options
    from lockyard.app.packagepush import PackagePush, publish_images, repositories_of

    if push and targets:
        raise click.UsageError("--push takes the registry of runtimes.yaml, --target-ecr-repo names another: give one")
    project = context.project
    request = PackagePush(
        targets=targets,
        skip_tests=skip_tests,
        move_tag=move_tag,
        insecure=insecure,
        region=region,
        image_refs=image_refs,
    )
    publish = push or bool(targets)
    # Hours may pass before the push: what is wrong with its targets is said now.
    repositories = repositories_of(project, names, request) if publish else {}
    if dry_run:
        plan = [
            {**item, "repositories": repositories.get(item["name"], [])} for item in describe_images(project, names)
        ]
        context.emit(json.dumps({"schema": 1, "images": plan}, indent=1) if as_json else _plan_text(plan))
        return
    built = build_images(
        context.toolbox, project, names, bundles=release_options(project, bundles), options=images,
        skip_tests=skip_tests, load=not no_load,
    )  # fmt: skip
    table(context, built)
    if not publish:
        context.emit(answer(context, built, as_json=as_json))
        return
    result = publish_images(context.toolbox, project, names, request)
    _summary(context, result)
    context.emit(_push_json(context, built, result) if as_json else "\n".join(result.lines))


def table(context: Context, images: "tuple[PackageImage, ...]") -> None:
    """Show what was built on stderr."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False)
    for name in ("image", "tag", "engine", "layers", "size", "time", "tests"):
        found.add_column(name, justify="right" if name in {"layers", "size", "time"} else "left")
    for image in images:
        tests = f"{image.tests.count('passed')} passed" if image.tests else "not run: skipped"
        when = "as before" if image.again else f"{image.seconds:.1f} s"
        found.add_row(
            f"{image.runtime} {image.platform}", image.tag, image.engine, str(image.layers), human_size(image.size), when,
            tests,
        )  # fmt: skip
    context.console.print(found)
    for image in images:
        if image.loaded:
            context.log.info(f"in Docker: {image.loaded}")


def answer(context: Context, images: "tuple[PackageImage, ...]", *, as_json: bool) -> str:
    """Return what was built as the answer."""
    values = _values(context, images)
    if as_json:
        return json.dumps({"schema": 1, "images": values}, indent=1)
    return "\n".join(f"{item['name']} {item['tag']} {item['digest']} {item['layout']}" for item in values)


def _values(context: Context, images: "tuple[PackageImage, ...]") -> list[dict[str, Any]]:
    return [
        {
            "name": image.runtime,
            "platform": image.platform,
            "tag": image.tag,
            "digest": image.digest,
            "layout": str(image.layout.relative_to(context.project.root)),
            "engine": image.engine,
            "layers": image.layers,
            "size": image.size,
            "again": image.again,
            "tests": {test.name: test.outcome for test in image.tests.tests} if image.tests else None,
            "loaded": image.loaded or None,
        }
        for image in images
    ]


def _plan_text(plan: list[dict[str, Any]]) -> str:
    lines = []
    for item in plan:
        lines.append(f"{item['name']}: {item['dockerfile']}, from {item['image']}")
        lines.append(
            f"  tag {item['tag']}" + (f", {item['floating']} where it is the highest" if item["floating"] else "")
        )
        lines += [f"  to {repository}" for repository in item["repositories"]]
    return "\n".join(lines)


def _summary(context: Context, result: "PackagePushResult") -> None:
    report = result.report
    present = sum(plan.present_bytes for plan in result.plans)
    if result.resumed:
        context.log.info(f"an interrupted run had finished {result.resumed} blobs")
    if report is not None:
        context.log.info(
            f"sent {human_size(report.sent_bytes)} in {report.uploaded_blobs} blobs, "
            f"mounted {human_size(report.mounted_bytes)}; {human_size(present)} were there already"
        )


def _push_json(context: Context, images: "tuple[PackageImage, ...]", result: "PackagePushResult") -> str:
    from dataclasses import asdict

    value = {
        "schema": 1,
        "version": result.version,
        "tested": result.tested,
        "images": _values(context, images),
        "published": [asdict(item) for item in result.published],
        "report": asdict(result.report) if result.report is not None else None,
    }
    return json.dumps(value, indent=2, sort_keys=True)


COMMANDS = (images_command,)
