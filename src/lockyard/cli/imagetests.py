"""`test`: image tests inside what was built, or inside what was pushed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockyard.cli.options import (
    Context,
    image_type_option,
    json_option,
    optional_version_argument,
    pass_context,
    region_option,
)
from lockyard.version import Version

if TYPE_CHECKING:
    from lockyard.app.images import ImageResult
    from lockyard.app.testing import TestOptions
    from lockyard.checks.plan import Record


@click.command("test")
@optional_version_argument
@click.option(
    "--image", "references", multiple=True, metavar="REF",
    help="Test what was pushed instead: REPOSITORY@sha256:… or REPOSITORY:TAG (repeatable).",
)  # fmt: skip
@image_type_option
@click.option(
    "--platform", "platforms", multiple=True, metavar="P",
    help="Only this conda platform, such as linux-64 [default for --image: this machine's].",
)  # fmt: skip
@click.option("-k", "select", metavar="EXPR", default="", help="Only tests whose names match; leaves no record.")
@click.option("-n", "workers", type=click.IntRange(1, 64), metavar="N", help="Scripts at a time [default: processors].")
@click.option("--use-gpu", is_flag=True, help="Run the tests that need a GPU, too.")
@click.option("--rerun", is_flag=True, help="Run them although this image has passed this suite before.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=1800, show_default=True, metavar="S",
    help="Seconds for the tests of one image.",
)  # fmt: skip
@click.option("--no-attach", is_flag=True, help="With --image: attach no record to the image in its repository.")
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one JUnit report of all images.",
)
@region_option
@click.option("--insecure", is_flag=True, help="Allow plain http to hosts other than this machine.")
@json_option
@pass_context
def test_command(
    context: Context,
    *,
    version: Version | None,
    references: tuple[str, ...],
    image_types: tuple[str, ...],
    platforms: tuple[str, ...],
    select: str,
    workers: int | None,
    use_gpu: bool,
    rerun: bool,
    timeout: float,
    no_attach: bool,
    junit: Path | None,
    region: str | None,
    insecure: bool,
    as_json: bool,
) -> None:
    r"""Run the image tests inside the built images, or inside images that were pushed.

    Scripts (NAME.test.py, NAME.test.sh) and files of pytest in test/image/ run inside the image with its own Python, with no
    daemon and no network; tests.toml beside them says what each needs. The record, tests.json beside the image, belongs to
    its digest and to the test files as they are now; push believes no other. JUnit results are in tests.xml.

    With --image, any machine with a checkout tests what a repository has: the image is pulled into the cache, checked by its
    digest, and the record is attached to it there, where push --from finds it. Version and type come from the image's labels;
    give VERSION and --image-type for an image without. Prints TYPE PLATFORM DIGEST and the counts, one image a line.

    \b
    Examples:
      lockyard test 1.4.2
      lockyard test 1.4.2 --image-type gpu --use-gpu
      lockyard test 1.4.2 -k "numpy or pandas" -n 4
      lockyard test --image stage:1.4.2-gpu --use-gpu
      lockyard test --image registry.example.com/team/image@sha256:4f53…
    """
    from lockyard.app.testing import TestOptions, require_green

    options = TestOptions(timeout=timeout, select=select, workers=workers, use_gpu=use_gpu, rerun=rerun)
    if references:
        shown = _pushed(
            context, options, references, version=version, image_types=image_types, platforms=platforms, region=region,
            insecure=insecure, attach=not no_attach,
        )  # fmt: skip
    else:
        if no_attach or insecure or region:
            raise click.UsageError("--no-attach, --insecure and --region are for --image")
        shown = _built(context, options, version, image_types, platforms)
    images = [item.image for item in shown]
    _table(context, images)
    if junit is not None:
        _write_junit(junit, images)
    if as_json:
        context.emit(json.dumps({"schema": 1, "images": [_json(context, item) for item in shown]}, indent=1))
    else:
        context.emit("\n".join(_line(item) for item in shown))
    require_green(images)


test_command.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


@dataclass(frozen=True)
class _Shown:
    """An image whose tests are shown; `more` is what only images of repositories have."""

    version: Version
    image: "ImageResult"
    more: Mapping[str, Any] = field(default_factory=dict)


def _built(
    context: Context,
    options: "TestOptions",
    version: Version | None,
    image_types: tuple[str, ...],
    platforms: tuple[str, ...],
) -> list[_Shown]:
    from lockyard.app.testing import check_release

    if version is None:
        raise click.UsageError("which release? Give VERSION, --target-patch-version V or --image REF")
    result = check_release(
        context.toolbox, context.workspace, version, image_types=image_types, platforms=platforms, options=options
    )
    return [_Shown(version, image) for image in result.images]


def _pushed(
    context: Context,
    options: "TestOptions",
    references: tuple[str, ...],
    *,
    image_types: tuple[str, ...],
    **fields: Any,
) -> list[_Shown]:
    from lockyard.app.pushed import PushedRequest, check_pushed

    if len(image_types) > 1:
        raise click.UsageError("an image of a repository has one type: give one --image-type")
    image_type = image_types[0] if image_types else None
    request = PushedRequest(references=references, image_type=image_type, options=options, **fields)
    return [
        _Shown(item.version, item.image, {"reference": item.reference, "known": item.known, "record": item.attached})
        for item in check_pushed(context.toolbox, context.workspace, request)
    ]


def _line(item: _Shown) -> str:
    from lockyard.app.testing import summary

    image = item.image
    outcome = summary(image.tests) if image.tests is not None else f"not run: {image.skipped}"
    return f"{image.image_type} {image.platform} {item.more.get('reference', image.digest)} {outcome}"


def _json(context: Context, item: _Shown) -> dict[str, Any]:
    image = item.image
    tests = image.tests.tests if image.tests is not None else ()
    return {
        "version": str(item.version),
        "image_type": image.image_type,
        "platform": image.platform,
        "tag": image.tag,
        "digest": image.digest,
        "results": str(image.layout.relative_to(context.workspace.root)),
        "green": image.tests is not None and image.tests.green,
        **{outcome: sum(test.outcome == outcome for test in tests) for outcome in ("passed", "failed", "skipped")},
        "not_run": image.skipped or None,
        "tests": [asdict(test) for test in tests],
        **item.more,
    }


def _table(context: Context, images: Sequence["ImageResult"]) -> None:
    """Say of each image how many tests passed, and of each test that failed or did not run why."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("image", "passed", "failed", "skipped", "why"):
        table.add_column(name, justify="left" if name in {"image", "why"} else "right")
    for image in images:
        name = f"{image.image_type} {image.platform}"
        if image.tests is None:
            table.add_row(name, "", "", "", f"not run: {image.skipped}")
            continue
        counts = [str(image.tests.count(outcome)) for outcome in ("passed", "failed", "skipped")]
        first, *others = _reasons(image.tests) or [""]
        table.add_row(name, *counts, first)
        for reason in others:
            table.add_row("", "", "", "", reason)
    context.console.print(table)


def _reasons(record: "Record") -> list[str]:
    failed = [f"{test.name}: failed" for test in record.tests if test.outcome == "failed"]
    return [*failed, *(f"{test.name}: {test.detail}" for test in record.tests if test.outcome == "skipped")]


def _write_junit(path: Path, images: Sequence["ImageResult"]) -> None:
    """Write one report of all images that were tested, earlier or now; each is a suite, named by type and platform."""
    from lockyard import fs
    from lockyard.checks.plan import junit_of

    records = {f"{item.image_type} {item.platform}": item.tests for item in images if item.tests is not None}
    fs.atomic_write(path, junit_of(records))


COMMANDS = (test_command,)
