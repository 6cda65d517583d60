"""The static site of a catalog: releases in, a tree of pages out. It needs no server and opens from a file.

Pages work without JavaScript, apart from search and comparison. Every name in a lock is untrusted: templates escape, and
scripts only ever make text nodes.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lockyard.reports.changes import Comparison, compare
from lockyard.reports.diffs import merged, summary, versions
from lockyard.reports.model import Amount, ReleaseFacts, TypeFacts
from lockyard.reports.sitecharts import charts
from lockyard.reports.sitedata import catalog_data, to_script
from lockyard.reports.support import LineSupport
from lockyard.reports.text import clean, count, human_size, signed_size
from lockyard.tree import File, Tree
from lockyard.version import Version

if TYPE_CHECKING:
    from jinja2 import Environment

_PLAIN = ("style.css", "theme.js", "search-form.js", "site.js")
_MATRIX_ROWS = 220
"""Rows of the matrix at most: a page has to stay light; the search knows all packages."""
_MATRIX_CELLS = 9_000


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a site is made of.

    `releases` are sorted; `dates` say when they came out, where that is known; `lines` which are supported. `boms` is
    version → names of files below `boms/`, with their content in `files`. `tool` is the version of Lockyard.
    """

    title: str
    tool: str
    releases: tuple[ReleaseFacts, ...]
    dates: Mapping[Version, dt.date]
    lines: tuple[LineSupport, ...]
    boms: Mapping[Version, tuple[str, ...]] = field(default_factory=dict)
    files: Tree = field(default_factory=Tree)


def render_site(site: Site, assets: Tree, advance: Callable[[int], None] = lambda _: None) -> Tree:
    """Return all pages; `assets` are the templates, style and scripts, `advance` hears of each finished page.

    The same releases give the same bytes.
    """
    return Tree(dict(_pages(site, assets, advance))).merge(site.files)


def _pages(site: Site, assets: Tree, advance: Callable[[int], None]) -> Iterator[tuple[str, File]]:
    environment = _environment(assets)
    known = {release.version: release for release in site.releases}
    comparisons = {
        release.version: compare(known[release.source], release)
        for release in site.releases
        if release.source in known and release.source is not None
    }
    common = {"title": clean(site.title), "releases": count(len(site.releases), "release"), "tool": site.tool}

    def page(template: str, here: str, up: str = "", **values: object) -> File:
        text = environment.get_template(template).render(site=common, here=here, up=up, **values)
        return File.text(text)

    for name in _PLAIN:
        yield name, File(assets[name].data)
    yield "data.js", File.text(to_script(catalog_data(site.releases)))
    latest = next((str(item.version) for item in reversed(site.releases) if not item.version.is_pre_release), None)
    yield (
        "index.html",
        page(
            "index.html.j2",
            "index.html",
            majors=_majors(site),
            latest=latest,
            charts=charts(site.releases, comparisons),
        ),
    )
    yield "packages.html", page("packages.html.j2", "packages.html", matrix=_matrix(site))
    yield "compare.html", page("compare.html.j2", "compare.html")
    for release in site.releases:
        values = _release(site, release, comparisons.get(release.version), known)
        yield f"releases/{release.version}.html", page("release.html.j2", "", "../", r=values)
        advance(1)


def _environment(assets: Tree) -> "Environment":
    from jinja2 import DictLoader, Environment, StrictUndefined

    templates = {name: file.data.decode() for name, file in assets.items() if name.endswith(".j2")}
    return Environment(
        loader=DictLoader(templates), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip


# ── releases by line


def _majors(site: Site) -> list[dict[str, Any]]:
    """Return the major lines, newest first, each with the bars of its minor lines."""
    found = []
    for line in site.lines:
        if "." in line.line:
            continue
        mine = [item for item in site.lines if item.line.startswith(f"{line.line}.")]
        scale = _Scale(
            [release.version for release in site.releases if str(release.version.major) == line.line], site.dates, mine
        )
        found.append(
            {
                "name": line.line,
                "state": line.state if line.until or line.state == "pre-release" else "",
                "releases": count(line.releases, "release"),
                "until": line.until.isoformat() if line.until else "",
                "first": scale.first,
                "last": scale.last,
                "lines": [_bar(item, scale) for item in mine],
            }
        )
    return found


class _Scale:
    """Where a release stands on the bar of its major line: by its date where all are known, else by its position."""

    def __init__(
        self, releases: Sequence[Version], dates: Mapping[Version, dt.date], lines: Sequence[LineSupport]
    ) -> None:
        self.releases = list(releases)
        self.dated = bool(releases) and all(version in dates for version in releases)
        self.dates = dates
        days = [dates[version] for version in releases] if self.dated else []
        days += [line.until for line in lines if line.until] if self.dated else []
        self._from, self._to = (
            (min(days).toordinal(), max(days).toordinal()) if days else (0, max(1, len(releases) - 1))
        )
        self.first = min(days).isoformat() if days else str(releases[0])
        self.last = max(days).isoformat() if days else str(releases[-1])

    def at(self, version: Version) -> float:
        """Return per cent from the left."""
        return self.percent(self.dates[version].toordinal() if self.dated else self.releases.index(version))

    def percent(self, number: int) -> float:
        return round(100 * (number - self._from) / max(1, self._to - self._from), 2)


def _bar(line: LineSupport, scale: _Scale) -> dict[str, Any]:
    mine = [version for version in scale.releases if f"{version.major}.{version.minor}" == line.line]
    places = [scale.at(version) for version in mine]
    end = scale.percent(line.until.toordinal()) if scale.dated and line.until else max(places)
    words = count(len(mine), "release")
    if line.state == "ended" and line.until:
        words += f", ended {line.until}"
    elif line.until:
        words += f", until {line.until}"
    return {
        "name": line.line,
        "latest": line.latest,
        "state": line.state,
        "left": min(places),
        "width": round(max(end - min(places), 0), 2),
        "words": words,
        "dots": [
            {
                "version": version,
                "left": place,
                "words": f"{version}, {scale.dates[version].isoformat()}" if scale.dated else str(version),
            }
            for version, place in zip(mine, places, strict=True)
        ],
    }


# ── packages


def _matrix(site: Site) -> dict[str, Any]:
    """Return the direct packages of the newest release of each minor line, newest first, equal neighbours joined."""
    newest: dict[tuple[int, int], ReleaseFacts] = {}
    for release in site.releases:
        key = (release.version.major, release.version.minor)
        if release.types and (not release.version.is_pre_release or key not in newest):
            newest[key] = release
    columns = [newest[key] for key in sorted(newest, reverse=True)]
    kind = next((name for release in columns for name in release.types), "")
    tables = [_versions(release.types.get(kind)) for release in columns]
    asked = dict.fromkeys(name for release in columns if kind in release.types for name in release.types[kind].direct)
    rows, cells = [], 0
    # What the newest release asks for comes first; old releases may list everything as asked for.
    now = set(columns[0].types[kind].direct) if columns and kind in columns[0].types else set()
    for name in sorted(asked, key=lambda item: (item not in now, item))[:_MATRIX_ROWS]:
        row = _joined([found.get(name, "") for found in tables])
        cells += len(row)
        if cells > _MATRIX_CELLS:
            break
        rows.append({"name": clean(name), "cells": row})
    return {"type": kind, "versions": [release.version for release in columns], "rows": rows}


def _versions(item: TypeFacts | None) -> dict[str, str]:
    return {package.name: package.version for package in item.packages()} if item else {}


def _joined(texts: Sequence[str]) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = []
    for text in texts:
        if cells and cells[-1]["version"] == text:
            cells[-1]["span"] += 1
        else:
            cells.append({"version": text, "span": 1})
    return cells


# ── one release


def _release(
    site: Site, release: ReleaseFacts, changes: Comparison | None, known: Mapping[Version, ReleaseFacts]
) -> dict[str, Any]:
    day = site.dates.get(release.version)
    sized = any(package.size is not None for item in release.types.values() for package in item.packages())
    rows = [
        {
            "name": clean(change.name), "versions": clean(versions(change)), "kind": change.kind or ("new" if change.what == "added" else change.what),
            "style": change.kind or change.what,
            "grown": signed_size(change.grown), "why": clean(change.why), "types": types,
        }
        for change, types in (merged(changes.types, direct=True) if changes else ())
    ]  # fmt: skip
    return {
        "version": release.version,
        "major": release.version.major,
        "date": day.isoformat() if day else "",
        "base": release.source,
        "base_known": release.source in known,
        "adopted": all(item.is_adopted for item in release.types.values()),
        "sized": sized,
        "types": list(release.types),
        "facts": list(_facts(release, changes)),
        "changes": changes is not None,
        "with_why": any(row["why"] for row in rows),
        "with_grown": any(row["grown"] for row in rows),
        "summary": [{"type": name, "text": summary(item)} for name, item in changes.types.items()] if changes else [],
        "direct_changes": rows,
        "images": list(_images(release)),
        "places": [
            {"type": name, "pull": clean(f"{place.repository}@{place.digest}")}
            for name, item in release.types.items()
            for place in item.published
        ],
        "boms": [
            {"path": f"../boms/{name}", "name": name.rsplit("/", 1)[-1]} for name in site.boms.get(release.version, ())
        ],
        "layers": list(_layers(release)),
        "packages": list(_packages(release)),
    }


def _facts(release: ReleaseFacts, changes: Comparison | None) -> Iterator[dict[str, str]]:
    for name, item in release.types.items():
        packages = item.packages()
        yield {"name": f"{name} packages", "value": f"{len(packages):,}"}
        amount = Amount.of(package.size for package in packages)
        if amount.exact is not None:
            yield {"name": f"{name} archives", "value": human_size(amount.exact)}
        if changes and name in changes.types:
            yield {"name": f"{name} changes", "value": f"{len(changes.types[name].changes):,}"}


def _images(release: ReleaseFacts) -> Iterator[dict[str, str]]:
    for name, item in release.types.items():
        for platform, image in item.images.items():
            base = f"{image.base}@{image.base_digest}" if image.base_digest else image.base
            yield {
                "type": name,
                "platform": platform,
                "digest": clean(image.manifest),
                "base": clean(base),
                "size": human_size(image.size),
                "tests": image.tested or "not tested here",
            }


def _layers(release: ReleaseFacts) -> Iterator[dict[str, Any]]:
    """Yield the layers as built, else as planned."""
    for name, item in release.types.items():
        image = item.images.get(item.lock.first_platform)
        if image is not None and image.source == "build.json":
            rows = [
                {
                    "name": clean(layer.name or layer.digest),
                    "packages": len(layer.packages),
                    "size": human_size(layer.size),
                }
                for layer in image.layers
            ]
            yield {"type": name, "rows": rows, "size": human_size(image.size)}
        elif release.plan is not None:
            groups: dict[str, list[int | None]] = {}
            for package in item.packages():
                groups.setdefault(release.plan.layers.get(package.name, package.name), []).append(package.size)
            rows = [
                {"name": clean(layer), "packages": len(sizes), "size": human_size(Amount.of(sizes).exact)}
                for layer, sizes in sorted(groups.items())
            ]
            total = Amount.of(package.size for package in item.packages()).exact
            yield {"type": name, "rows": rows, "size": f"package archives {human_size(total)}"}


def _packages(release: ReleaseFacts) -> Iterator[dict[str, Any]]:
    """Yield the direct packages, then the others, every image type a column."""
    tables = [{package.name: package for package in item.packages()} for item in release.types.values()]
    names = sorted({name for found in tables for name in found})
    direct = {name for item in release.types.values() for name in item.direct}
    for title, wanted in (("Packages that were asked for", True), ("Packages that others require", False)):
        rows = []
        for name in names:
            if (name in direct) == wanted:
                having = [found.get(name) for found in tables]
                some = next(package for package in having if package is not None)
                rows.append(
                    {
                        "name": clean(name),
                        "versions": [clean(package.version) if package else "" for package in having],
                        "size": human_size(some.size),
                        "license": clean(some.license or "unknown"),
                    }
                )
        if rows:
            yield {"title": f"{title} ({len(rows):,})", "id": "direct" if wanted else "indirect", "rows": rows}
