"""Words and tables of the reports: sizes for people, Markdown that untrusted names cannot break."""

import re
from collections.abc import Callable, Iterable, Sequence

Paint = Callable[[str, str], str]
"""Takes a style (`added`, `removed`, `title` …) and text, returns the text in that style."""

_MARKDOWN_RE = re.compile(r"([\\`*_{}\[\]<>|~&#@!()])")
_CONTROL_RE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(_style: str, text: str) -> str:
    """Return the text without style."""
    return text


def counted(count: int, noun: str) -> str:
    """Return a number of things with their regular noun: `1 layer`, `2 layers`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def human_size(size: float | None) -> str:
    """Return bytes for people, powers of 1000.

    >>> human_size(1_258_000_000)
    '1.26 GB'
    """
    if size is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}" if abs(size) < 1000 else f"{size:.0f} {unit}"


def signed_size(size: float | None) -> str:
    """Return a difference in bytes with its sign; empty when it is unknown."""
    if size is None:
        return ""
    return f"{'+' if size > 0 else '-' if size < 0 else '±'}{human_size(abs(size))}"


def percent(part: float, whole: float) -> str:
    """Return a signed change in percent, one decimal."""
    if not whole:
        return "new" if part else "±0.0 %"
    value = 100 * part / whole
    return f"{'+' if value > 0 else '-' if value < 0 else '±'}{abs(value):.1f} %"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 package` or `2 packages`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def clean(text: str) -> str:
    """Return text for a terminal: no control characters, nothing that turns the direction of writing."""
    return _CONTROL_RE.sub("\N{REPLACEMENT CHARACTER}", text)


def cell(text: str) -> str:
    """Return text for a Markdown table: what would be syntax, HTML or a mention is escaped, line ends are gone."""
    return _MARKDOWN_RE.sub(r"\\\1", clean(text))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; cells are escaped, a header that begins with `>` is right-aligned."""
    marks = ["---:" if title.startswith(">") else "---" for title in header]
    lines = [f"| {' | '.join(title.lstrip('>') for title in header)} |", f"|{'|'.join(marks)}|"]
    return [*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)]


def columns(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[list[str]]:
    """Return the rows with every cell as wide as its column; those in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [text.rjust(width) if at in right else text.ljust(width) for at, (text, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]  # fmt: skip
