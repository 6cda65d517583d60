"""What new direct packages pull in, and who requires a package."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lockyard.conda.lock import LockedPackage
from lockyard.reports.graph import Graph
from lockyard.reports.model import Amount
from lockyard.reports.text import cell, clean, count, human_size

_SHOWN_PATHS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A new direct package: what it brings that the base had not, as (depth, package) in tree order, and the bytes.

    A package that stands in the tree already is not opened again. `alone` are the bytes that go away when only this one
    is not added.
    """

    name: str
    tree: tuple[tuple[int, LockedPackage], ...]
    amount: Amount
    alone: Amount


def brought(
    base: Sequence[LockedPackage], target: Sequence[LockedPackage], new_direct: Sequence[str]
) -> tuple[Brought, ...]:
    """Return what each new direct package brings, heaviest first."""
    graph = Graph.of(target)
    had = {package.name for package in base}
    fresh = {name for name in graph.packages if name not in had}
    roots = [name for name in new_direct if name in fresh]
    found = []
    for root in roots:
        mine = graph.closure([root]) & fresh
        others = graph.closure(name for name in roots if name != root)
        rest = graph.closure(name for name in had if name in graph.packages)
        found.append(
            Brought(
                name=root,
                tree=tuple(_tree(graph, root, fresh)),
                amount=Amount.of(graph.packages[name].size for name in mine),
                alone=Amount.of(graph.packages[name].size for name in mine - others - rest),
            )
        )
    return tuple(sorted(found, key=lambda item: (-item.amount.known, item.name)))


def render_markdown(base: str, target: str, types: Mapping[str, Sequence[Brought]]) -> str:
    """Return the report: for each type and new direct package a tree with sizes."""
    lines = [f"# New dependencies: {base} → {target}"]
    for name, items in types.items():
        lines += ["", f"## {cell(name)}", ""]
        if not items:
            lines.append("No new direct package.")
        for item in items:
            number = len(item.tree)
            lines.append(
                f"- **{cell(item.name)}** brings {count(number, 'package')}, {_size(item.amount)}"
                + (f" ({_size(item.alone)} by it alone)" if item.alone != item.amount else "")
            )
            lines += [
                f"{'  ' * (depth + 1)}- {cell(package.name)} {cell(package.version)}, {human_size(package.size)}"
                for depth, package in item.tree
            ]
    return "\n".join(lines) + "\n"


def render_json(base: str, target: str, types: Mapping[str, Sequence[Brought]]) -> str:
    """Return JSON."""
    value = {
        "base": base,
        "target": target,
        "types": {
            name: {
                item.name: {
                    "bytes": item.amount.exact,
                    "bytes_alone": item.alone.exact,
                    "packages": {package.name: package.size for _, package in item.tree},
                }
                for item in items
            }
            for name, items in types.items()
        },
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why a package is in an environment: who requires it and, from each direct package, the shortest way to it."""

    package: LockedPackage
    direct: bool
    required_by: tuple[tuple[str, str], ...]
    """(name, the dependency as written)."""
    paths: tuple[tuple[str, ...], ...]
    known: bool


def why(packages: Sequence[LockedPackage], name: str, direct: Sequence[str]) -> Why | None:
    """Return why `name` is there; `None` when it is not."""
    graph = Graph.of(packages)
    if name not in graph.packages:
        return None
    users = [
        (user, text)
        for user in graph.required_by[name]
        for text in graph.packages[user].depends
        if text.split(maxsplit=1)[0].lower() == name
    ]
    return Why(
        package=graph.packages[name],
        direct=name in direct,
        required_by=tuple(users),
        paths=graph.paths_to(name, [item for item in direct if item != name]),
        known=graph.is_known,
    )


def render_why(version: str, types: Mapping[str, Why | None], name: str) -> str:
    """Return text for a terminal."""
    lines = []
    for image_type, item in types.items():
        if item is None:
            lines.append(f"{image_type} {version}: {clean(name)} is not there")
            continue
        what = "direct: it is asked for in env.in" if item.direct else "indirect"
        lines.append(f"{image_type} {version}: {clean(item.package.name)} {clean(item.package.version)}, {what}")
        if not item.known:
            lines.append("  who requires it is unknown: this release was made before Lockyard")
        width = max((len(user) for user, _ in item.required_by), default=0)
        lines += [f"  required by {clean(user):<{width}}  {clean(text)}" for user, text in item.required_by]
        lines += [f"  {' -> '.join(map(clean, path))}" for path in item.paths[:_SHOWN_PATHS]]
        if len(item.paths) > _SHOWN_PATHS:
            lines.append(
                f"  … and from {count(len(item.paths) - _SHOWN_PATHS, 'more direct package')}; --json has them all"
            )
        if item.known and not item.required_by and not item.direct:
            lines.append("  nothing requires it")
    return "\n".join(lines) + "\n"


def why_json(version: str, types: Mapping[str, Why | None], name: str) -> str:
    """Return JSON; a type that has not got the package is null."""
    value = {
        "version": version,
        "package": name,
        "types": {
            image_type: None
            if item is None
            else {
                "version": item.package.version,
                "build": item.package.build,
                "direct": item.direct,
                "known": item.known,
                "required_by": dict(item.required_by),
                "paths": [list(path) for path in item.paths],
            }
            for image_type, item in types.items()
        },
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _tree(graph: Graph, root: str, fresh: set[str]) -> Iterator[tuple[int, LockedPackage]]:
    seen: set[str] = set()
    todo = [(0, root)]
    while todo:
        depth, name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        yield depth, graph.packages[name]
        todo += [(depth + 1, word) for word in reversed(graph.requires[name]) if word in fresh and word not in seen]


def _size(amount: Amount) -> str:
    if amount.unknown:
        return f"at least {human_size(amount.known)}" if amount.known else "size unknown"
    return human_size(amount.known)
