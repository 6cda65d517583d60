"""The charts of the site's first page: packages, sizes and churn over all releases."""

from collections.abc import Mapping, Sequence
from typing import Any

from lockyard.reports.changes import Comparison
from lockyard.reports.charts import bar_chart, line_chart
from lockyard.reports.model import Amount, ReleaseFacts, TypeFacts
from lockyard.reports.text import human_size
from lockyard.version import Version

_COLOURS = ("accent", "second", "good", "bad")


def charts(releases: Sequence[ReleaseFacts], comparisons: Mapping[Version, Comparison]) -> list[dict[str, Any]]:
    """Return the charts, those that have something to show."""
    final = [release for release in releases if not release.version.is_pre_release] or list(releases)
    labels = [str(release.version) for release in final]
    types = list(dict.fromkeys(name for release in final for name in release.types))[: len(_COLOURS)]
    keys = [{"name": name, "colour": colour} for name, colour in zip(types, _COLOURS, strict=False)]

    def series(get: Any) -> dict[str, list[float | None]]:
        return {name: [get(release, release.types.get(name)) for release in final] for name in types}

    found = []
    sizes = series(_size)
    missing = sum(all(values[at] is None for values in sizes.values()) for at in range(len(final)))
    if missing < len(final):
        note = f"The sizes of {missing} releases are unknown." if missing else ""
        svg = line_chart("size", labels, sizes, human_size)
        found.append({"name": "size", "title": "Size of the package archives", "svg": svg, "note": note})
    packages = series(lambda _, item: len(item.packages()) if item else None)
    svg = line_chart("packages", labels, packages, lambda value: f"{value:,.0f}")
    found.append({"name": "packages", "title": "Packages in a release", "svg": svg, "note": ""})
    churn = {name: [_churn(comparisons.get(release.version), name) for release in final] for name in types}
    if any(value for values in churn.values() for value in values):
        svg = bar_chart("churn", labels, churn, lambda value: f"{value:,.0f}")
        note = "Packages changed, new and removed since the release that each was made from; types are stacked."
        found.append({"name": "churn", "title": "Churn", "svg": svg, "note": note})
    from markupsafe import Markup

    # Drawn by the library from numbers, versions and image types, all of which it escapes.
    return [{**chart, "svg": Markup(chart["svg"]), "legend": keys} for chart in found]  # noqa: S704 - see the line above


def _size(_: ReleaseFacts, item: TypeFacts | None) -> float | None:
    return Amount.of(package.size for package in item.packages()).exact if item else None


def _churn(comparison: Comparison | None, name: str) -> float | None:
    if comparison is None or name not in comparison.types:
        return None
    return sum(change.what != "rebuilt" for change in comparison.types[name].changes)
