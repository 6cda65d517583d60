"""A comparison as text for a terminal, as Markdown for a pull request, as JSON. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence

from lockyard.reports.changes import WHATS, Comparison, LayerChange, PackageChange, TypeComparison, to_json
from lockyard.reports.kinds import KINDS
from lockyard.reports.model import Amount
from lockyard.reports.text import Paint, clean, columns, count, human_size, markdown_table, percent, plain, signed_size

_SIGNS = {"changed": "~", "added": "+", "removed": "-", "rebuilt": "="}
_COMMENT_LIMIT = 60_000
"""Characters; a pull-request comment ends at 65,536 on the strictest forge."""


def render_json(comparison: Comparison) -> str:
    """Return the JSON text, one final newline."""
    return json.dumps(to_json(comparison), indent=1, ensure_ascii=False) + "\n"


def render_text(comparison: Comparison, paint: Paint = plain) -> str:
    """Return text for a terminal: one line a package."""
    lines = [paint("title", f"{comparison.base} -> {comparison.target}")]
    for name, item in comparison.types.items():
        lines += ["", f"{paint('title', name)}: {summary(item)}", f"  {_sizes(item, comparison.base)}"]
        for title, direct in (("direct", True), ("indirect", False)):
            lines += _text_rows(title, item.of(direct=direct), paint)
        for title, names in (("became direct", item.promoted), ("no longer direct", item.demoted)):
            lines += [f"  {paint('title', title)}: {', '.join(map(clean, names))}"] if names else []
        lines += _text_layers(item.layers, paint)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_markdown(comparison: Comparison, limit: int = _COMMENT_LIMIT) -> str:
    """Return Markdown for a pull-request comment: a summary, the direct changes, and the rest folded.

    Folded parts that do not fit into `limit` characters are named, not printed.
    """
    lines = [f"## {comparison.base} → {comparison.target}", ""]
    lines += [
        f"- **{name}**: {summary(item)}. {_sizes(item, comparison.base)}." for name, item in comparison.types.items()
    ]
    direct = merged(comparison.types, direct=True)
    lines += ["", *_table(direct)] if direct else ["", "No direct package changed."]
    lines += _moved(comparison.types)
    size = len("\n".join(lines))
    for title, rows in _folded(comparison.types):
        part = ["", "<details>", f"<summary>{title}</summary>", "", *rows, "", "</details>"]
        length = sum(len(line) + 1 for line in part)
        if size + length > limit:
            part = ["", f"{title}: too long for a comment; see `lockyard diff {comparison.base} {comparison.target}`."]
        size += sum(len(line) + 1 for line in part)
        lines += part
    return "\n".join(lines) + "\n"


def versions(change: PackageChange, arrow: str = " → ") -> str:
    """Return what moved: versions, or builds of one version."""
    if change.old is None or change.new is None:
        package = change.new or change.old
        return package.version if package else ""
    if change.what == "rebuilt":
        return f"{change.new.version} {change.old.build}{arrow}{change.new.build}"
    return f"{change.old.version}{arrow}{change.new.version}"


def _word(change: PackageChange) -> str:
    return {"added": "new", "removed": "removed", "rebuilt": "build"}.get(change.what) or change.kind or ""


def summary(item: TypeComparison) -> str:
    """Return the counts of one type in one line."""
    if not item.changes:
        return "nothing changed"
    parts = []
    for what in WHATS:
        numbers = [len(item.of(direct=direct, what=what)) for direct in (True, False)]
        if any(numbers):
            parts.append(f"{sum(numbers)} {what} ({numbers[0]} direct)" if numbers[0] else f"{sum(numbers)} {what}")
    kinds = [change.kind for change in item.changes if change.what == "changed"]
    notable = [(kind, kinds.count(kind)) for kind in KINDS[:2] if kind in kinds]
    parts += [f"{number} {'major' if kind == 'major' else 'down'}" for kind, number in reversed(notable)]
    return ", ".join(parts)


def _sizes(item: TypeComparison, base: str) -> str:
    old, new = item.old_size.exact, item.new_size.exact
    packages = f"{item.old_count} → {count(item.new_count, 'package')}"
    if old is None or new is None:
        unknown = max(item.old_size.unknown, item.new_size.unknown)
        return f"{packages}; sizes of {unknown} are unknown"
    grown = f"{human_size(old)} → {human_size(new)} ({signed_size(new - old)}, {percent(new - old, old)})"
    return f"{packages}, {grown}; a client of {base} downloads {_download(item)}"


def _download(item: TypeComparison) -> str:
    found = item.download
    text = human_size(found.amount.known)
    if found.amount.unknown:
        return f"at least {text}"
    return text if found.exact else f"about {text} (estimated from {found.how})"


def _text_rows(title: str, changes: Sequence[PackageChange], paint: Paint) -> list[str]:
    if not changes:
        return []
    table = columns(
        [
            (clean(item.name), clean(versions(item, " -> ")), _word(item), signed_size(item.grown), clean(item.why))
            for item in changes
        ],
        right=frozenset({3}),
    )
    lines = [f"  {paint('title', title)}"]
    for item, row in zip(changes, table, strict=True):
        style = item.kind if item.kind in {"major", "downgrade"} else item.what
        lines.append(
            f"    {paint(style, f'{_SIGNS[item.what]} {row[0]}')}  {row[1]}  {paint(style, row[2])}  {row[3]}  {paint('dim', row[4])}"
        )
    return lines


def _text_layers(layers: Sequence[LayerChange], paint: Paint) -> list[str]:
    sent = [layer for layer in layers if layer.sent]
    if not sent:
        return []
    rows = columns(
        [(clean(layer.name), _amount(layer.old), "->", _amount(layer.new)) for layer in sent], frozenset({1, 3})
    )
    title = paint("title", f"layers that change: {len(sent)} of {sum(layer.new is not None for layer in layers)}")
    return [f"  {title}", *(f"    {'  '.join(row)}" for row in rows)]


def _amount(amount: Amount | None) -> str:
    if amount is None:
        return "-"
    return human_size(amount.exact)


def merged(types: Mapping[str, TypeComparison], *, direct: bool) -> list[tuple[PackageChange, str]]:
    """Return each change once, with the types that share it."""
    found: dict[tuple[object, ...], tuple[PackageChange, list[str]]] = {}
    for name, item in types.items():
        for change in item.of(direct=direct):
            key = (change.name, change.what, versions(change), change.kind)
            found.setdefault(key, (change, []))[1].append(name)
    rows = [(change, "all" if len(names) == len(types) else ", ".join(names)) for change, names in found.values()]
    return sorted(
        rows, key=lambda row: (WHATS.index(row[0].what), KINDS.index(row[0].kind) if row[0].kind else 0, row[0].name)
    )


def _table(rows: Iterable[tuple[PackageChange, str]]) -> list[str]:
    listed = list(rows)
    with_types = any(types != "all" for _, types in listed)
    with_why = any(change.why for change, _ in listed)
    header = ["package", "version", "kind", ">size", *(["why"] if with_why else []), *(["types"] if with_types else [])]
    values = (
        [
            change.name, versions(change), _word(change), signed_size(change.grown),
            *([change.why] if with_why else []), *([types] if with_types else []),
        ]
        for change, types in listed
    )  # fmt: skip
    return markdown_table(header, values)


def _moved(types: Mapping[str, TypeComparison]) -> list[str]:
    lines = []
    for title, get in (("Became direct", "promoted"), ("No longer direct", "demoted")):
        names: dict[str, list[str]] = {}
        for image_type, item in types.items():
            for name in getattr(item, get):
                names.setdefault(name, []).append(image_type)
        if names:
            texts = (
                f"`{clean(name)}`" + ("" if len(where) == len(types) else f" ({', '.join(where)})")
                for name, where in sorted(names.items())
            )
            lines += ["", f"{title}: {', '.join(texts)}."]
    return lines


def _folded(types: Mapping[str, TypeComparison]) -> Iterable[tuple[str, list[str]]]:
    indirect = merged(types, direct=False)
    moved = [row for row in indirect if row[0].what != "rebuilt"]
    rebuilt = [row for row in indirect if row[0].what == "rebuilt"]
    if moved:
        yield f"Indirect packages ({len(moved)})", _table(moved)
    if rebuilt:
        yield f"Rebuilt indirect packages ({len(rebuilt)})", _table(rebuilt)
    for name, item in types.items():
        sent = [layer for layer in item.layers if layer.sent]
        if sent:
            rows = ([layer.name, _amount(layer.old), _amount(layer.new)] for layer in sent)
            total = sum(layer.new is not None for layer in item.layers)
            yield (
                f"Layers of {name} that change ({len(sent)} of {total})",
                markdown_table(["layer", ">from", ">to"], rows),
            )
