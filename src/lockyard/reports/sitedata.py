"""What the site's search and comparison know: every package of every release, in runs, small enough for a page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lockyard.conda.lock import LockedPackage
from lockyard.reports.model import ReleaseFacts

VARIABLE = "LOCKYARD_CATALOG"


def catalog_data(releases: Sequence[ReleaseFacts]) -> dict[str, Any]:
    """Return the catalog: releases and types by position, then name → [builds, runs of each type, runs of direct ones].

    `builds` is a list of [version, build, size or null]; runs are flat lists `build, first release, number of releases`,
    those of direct packages `first release, number`.
    """
    types = list(dict.fromkeys(name for release in releases for name in release.types))
    builds: dict[str, dict[tuple[str, str], int]] = {}
    sizes: dict[tuple[str, str, str], int | None] = {}
    found: dict[str, list[list[int]]] = {}
    direct: dict[str, list[list[int]]] = {}
    for at, release in enumerate(releases):
        for kind, name in enumerate(types):
            item = release.types.get(name)
            if item is None:
                continue
            packages = item.packages()
            for package in packages:
                _note(package, kind, at, len(types), builds, sizes, found)
            there = {package.name for package in packages}
            for word in item.direct:
                if word in there:
                    runs = direct.setdefault(word, [[] for _ in types])[kind]
                    _extend(runs, None, at)
    return {
        "releases": [str(release.version) for release in releases],
        "types": types,
        "packages": {
            name: [
                [[version, build, sizes[name, version, build]] for version, build in builds[name]],
                found[name],
                direct.get(name, []),
            ]
            for name in sorted(found)
        },
    }


def to_script(data: Mapping[str, Any]) -> str:
    """Return the data as a script: a page that is opened from a file may not fetch JSON."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return f"var {VARIABLE}={text};\n"


def _note(
    package: LockedPackage,
    kind: int,
    at: int,
    kinds: int,
    builds: dict[str, dict[tuple[str, str], int]],
    sizes: dict[tuple[str, str, str], int | None],
    found: dict[str, list[list[int]]],
) -> None:
    known = builds.setdefault(package.name, {})
    number = known.setdefault((package.version, package.build), len(known))
    key = (package.name, package.version, package.build)
    sizes[key] = sizes.get(key) or package.size
    _extend(found.setdefault(package.name, [[] for _ in range(kinds)])[kind], number, at)


def _extend(runs: list[int], number: int | None, at: int) -> None:
    """Lengthen the last run when it goes on at `at`, else begin one."""
    width = 2 if number is None else 3
    if runs and runs[-2] + runs[-1] == at and (number is None or runs[-3] == number):
        runs[-1] += 1
    else:
        runs += [at, 1] if number is None else [number, at, 1]
    if len(runs) % width:
        raise ValueError("runs are out of step")
