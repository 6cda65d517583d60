"""`layers explain`."""

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import Context, image_type_option, json_option, pass_context, version_argument
from lockyard.reports.text import human_size
from lockyard.version import Version

if TYPE_CHECKING:
    from lockyard.oci.layerstory import LayerStory, PlacedPackage, PlanStory

_COLUMNS = ("package", "version", "size", "changed", "why")


@click.group()
def layers() -> None:
    """Show how packages are spread over layers."""


@layers.command("explain")
@version_argument
@image_type_option
@json_option
@pass_context
def explain(context: Context, *, version: Version, image_types: tuple[str, ...], as_json: bool) -> None:
    r"""Say which layer each package of a release is in, why, and how often it changed.

    Layers are listed as they lie in the image, those that seldom change first; `changed` is in how many of the older releases
    that a package was in it became another. A size with ~ is an estimate: no lock says it.

    \b
    Examples:
      lockyard layers explain 1.4.2
      lockyard layers explain 1.4.2 --image-type gpu
      lockyard layers explain 1.4.2 --json
    """
    from lockyard.app.layers import explain_layers
    from lockyard.app.lock import current_locks

    locks = current_locks(context.toolbox, context.workspace, version, image_types=image_types)
    story = explain_layers(context.workspace, version, locks)
    context.emit(json.dumps(_value(version, story), indent=1, ensure_ascii=False) if as_json else _text(version, story))


def _value(version: Version, story: "PlanStory") -> dict[str, object]:
    return {"schema": 1, "version": str(version), **dataclasses.asdict(story)}


def _text(version: Version, story: "PlanStory") -> str:
    past = f"{story.releases} older release changes" if story.releases else "no older releases"
    lines = [f"{version}: {len(story.layers)} layers, planned from {past}"]
    if story.unknown_sizes:
        lines[0] += f"; {story.unknown_sizes:.0%} of the packages have no known size"
    rows = [[_row(package) for package in layer.packages] for layer in story.layers]
    widths = [
        max(len(cells[column]) for cells in [_COLUMNS, *(row for found in rows for row in found)])
        for column in range(len(_COLUMNS) - 1)
    ]
    lines.append("  " + _line(_COLUMNS, widths))
    for number, (layer, found) in enumerate(zip(story.layers, rows, strict=True), 1):
        lines += ["", _head(number, layer), *("  " + _line(row, widths) for row in found)]
    return "\n".join(lines)


def _head(number: int, layer: "LayerStory") -> str:
    return f"{number} {layer.name}  {human_size(layer.size)}  in {', '.join(layer.images)}  {layer.why}"


def _row(package: "PlacedPackage") -> tuple[str, ...]:
    size = f"{'~' * package.estimated}{human_size(package.size)}"
    often = f"{package.changes}/{package.seen}"
    return package.name, package.version, size, often, package.why


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    name, version, size, changed, why = cells
    return "  ".join(
        (name.ljust(widths[0]), version.ljust(widths[1]), size.rjust(widths[2]), changed.rjust(widths[3]), why)
    )


COMMANDS = (layers,)
