"""The answer to `build` and `push` of several releases: one summary, one line of stdout for each thing made, an exit code."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockyard.cli.options import Context
from lockyard.reports.text import human_size

if TYPE_CHECKING:
    from lockyard.app.images import ImageResult
    from lockyard.app.publish import PublishResult
    from lockyard.app.wave import Outcome
    from lockyard.errors import LockyardError

SCHEMA = 1
_LEFT = frozenset({"release", "image", "tests", "published"})


def answer(context: Context, outcomes: "Sequence[Outcome]", *, image_refs: Path | None, as_json: bool) -> int:
    """Tell what became of each release; return 0, or the exit code of the first one that failed."""
    from lockyard import fs

    _table(context, outcomes)
    lines = [line for item in outcomes if item.published is not None for line in item.published.lines]
    if image_refs is not None:
        fs.atomic_write(image_refs, "".join(f"{line}\n" for line in lines).encode())
    if as_json:
        value = {"schema": SCHEMA, "releases": [_value(context, item) for item in outcomes]}
        context.emit(json.dumps(value, indent=1))
    else:
        built = [image_line(context, image) for item in outcomes if item.built for image in item.built.images]
        planned = [
            line
            for item in outcomes
            if item.published is not None and item.published.report is None
            for line in item.published.plan.lines()
        ]
        text = [*built, *(planned or lines)]
        if text:
            context.emit("\n".join(text))
    failed = [item.error for item in outcomes if item.error is not None]
    for item in outcomes:
        if item.error is not None:
            context.log.error(_named(item.error, str(item.version)))
    return failed[0].exit_code if failed else 0


def image_line(context: Context, image: "ImageResult") -> str:
    """Return the line of stdout for a built image."""
    return f"{image.image_type} {image.platform} {image.digest} {image.layout.relative_to(context.workspace.root)}"


def image_value(context: Context, image: "ImageResult") -> dict[str, Any]:
    """Return a built image as `--json` prints it."""
    from lockyard.app.testing import summary

    return {
        "image_type": image.image_type,
        "platform": image.platform,
        "tag": image.tag,
        "digest": image.digest,
        "layout": str(image.layout.relative_to(context.workspace.root)),
        "layers": image.layers,
        "rebuilt": image.rebuilt,
        "size": image.size,
        "tests": summary(image.tests) if image.tests else None,
        "skipped": image.skipped or None,
        "loaded": image.loaded or None,
    }


def _table(context: Context, outcomes: "Sequence[Outcome]") -> None:
    """Print one summary: what was made anew for each image, what each release sent, what failed."""
    from rich.markup import escape
    from rich.table import Table

    from lockyard.app.testing import summary

    names = ("release", "image", "packages", "fetched", "layers", "rebuilt", "rebuilt size", "tests", "published")
    rows: list[tuple[str, ...]] = []
    for item in outcomes:
        end = f"failed: {item.error.message}" if item.error is not None else _sent(item.published)
        images = item.built.images if item.built is not None else ()
        for number, image in enumerate(images):
            rows.append((
                str(item.version) if number == 0 else "", f"{image.image_type} {image.platform}", str(image.packages),
                str(image.fetched), str(image.layers), str(image.rebuilt), human_size(image.rebuilt_size),
                summary(image.tests) if image.tests else f"not run: {image.skipped or 'skipped'}",
                escape(end) if number == 0 else "",
            ))  # fmt: skip
        if not images:
            rows.append((str(item.version), *[""] * (len(names) - 2), escape(end)))
    filled = [number for number in range(len(names)) if any(row[number] for row in rows)]
    table = Table(box=None, pad_edge=False)
    for number in filled:
        table.add_column(names[number], justify="left" if names[number] in _LEFT else "right")
    for row in rows:
        table.add_row(*(row[number] for number in filled))
    context.console.print(table)
    context.toolbox.log.info(_sum(outcomes))


def _sum(outcomes: "Sequence[Outcome]") -> str:
    """Return the last line of the summary: all releases together."""
    images = [image for item in outcomes if item.built is not None for image in item.built.images]
    sent = [item.published.report.sent_bytes for item in outcomes if item.published and item.published.report]
    failed = sum(item.error is not None for item in outcomes)
    parts = [f"{len(outcomes) - failed} of {len(outcomes)} releases"]
    if images:
        parts += [f"{sum(image.fetched for image in images)} packages fetched"]
        parts += [f"{sum(image.rebuilt for image in images)} layers made"]
    parts += [f"{human_size(sum(sent))} sent"] if sent else []
    return ", ".join(parts)


def _sent(published: "PublishResult | None") -> str:
    if published is None:
        return ""
    there = human_size(sum(published.present_bytes.values()))
    if published.report is None:
        return f"would send {human_size(published.plan.upload_bytes)}; {there} are there"
    return f"sent {human_size(published.report.sent_bytes)}; {there} were there"


def _named(error: "LockyardError", version: str) -> "LockyardError":
    if version in error.message:
        return error
    return type(error)(f"{version}: {error.message}", hint=error.hint, details=error.details)


def _value(context: Context, item: "Outcome") -> dict[str, Any]:
    from lockyard.cli.publish import publish_value

    return {
        "version": str(item.version),
        "images": [image_value(context, image) for image in item.built.images] if item.built is not None else [],
        "published": publish_value(item.published) if item.published is not None else None,
        "error": {"message": item.error.message, "exit_code": item.error.exit_code} if item.error is not None else None,
    }
