"""Charts as SVG, drawn by pygal; colours and fonts come from the page's own style sheet, so that they follow its theme."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LABELS = 12
"""How many labels an axis of releases carries; every release has its own tooltip."""


def line_chart(
    name: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], form: Callable[[float], str]
) -> str:
    """Return a line chart; `name` is unique on its page, a missing value is `None`."""
    return _draw(_library().Line, name, labels, series, form)


def bar_chart(
    name: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], form: Callable[[float], str]
) -> str:
    """Return a chart of stacked bars."""
    return _draw(_library().StackedBar, name, labels, series, form)


def _library() -> Any:
    """Return pygal without its import hook, which knows nothing of Python 3 and makes later imports warn."""
    import pygal

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal


def _draw(
    kind: type,
    name: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    form: Callable[[float], str],
) -> str:
    step = max(1, -(-len(labels) // _LABELS))
    chart = kind(
        width=1000, height=300, explicit_size=False, disable_xml_declaration=True, no_prefix=True, js=[], css=[],
        show_legend=False, dots_size=2, stroke_style={"width": 2}, show_minor_x_labels=False, show_y_guides=True,
        x_labels_major=list(labels[::step]), value_formatter=lambda value: form(value) if value is not None else "",
        include_x_axis=True, margin=4, spacing=6,
        classes=("chart",), pretty_print=False, x_label_rotation=0, show_x_guides=False, truncate_label=-1,
    )  # fmt: skip
    chart.uuid = name  # the library's own is random
    chart.add_xml_filter(_plain)
    chart.x_labels = list(labels)
    chart.y_labels = _ticks(series, stacked=kind.__name__.startswith("Stacked"))
    for title, values in series.items():
        chart.add(title, list(values))
    text = str(chart.render(is_unicode=True))
    return text.replace("<svg ", f'<svg role="img" aria-labelledby="{name}" ', 1)


def _ticks(series: Mapping[str, Sequence[float | None]], *, stacked: bool) -> list[float]:
    """Return round values from 0 to above the highest, about five."""
    columns = [[value or 0 for value in column] for column in zip(*series.values(), strict=True)]
    top = max((sum(column) if stacked else max(column) for column in columns), default=0) or 1
    magnitude = 10 ** math.floor(math.log10(top / 4))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude * 5 >= top)
    return [number * step for number in range(math.ceil(top / step) + 1)]


def _plain(root: Any) -> Any:
    """Take out scripts, styles, comments (one holds today's date) and empty decoration; a mark's words become its tooltip."""
    root.attrib.pop("id", None)
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag in {"script", "defs", "title"} or _is_empty(child):
                parent.remove(child)
        words = {item.get("class", "").split(" ")[0]: item for item in parent if item.tag == "desc"}
        for item in words.values():
            parent.remove(item)
        if "value" in words:
            label = words["x_label"].text if "x_label" in words else ""
            title = parent.makeelement("title", {})
            title.text = ": ".join(filter(None, (label, words["value"].text)))
            parent.insert(0, title)
    return root


def _is_empty(element: Any) -> bool:
    return (element.tag == "g" and len(element) == 0) or element.get("class") in {
        "background",
        "text-overlay",
        "tooltip",
    }
