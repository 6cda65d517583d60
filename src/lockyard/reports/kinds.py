"""How far a version moved: major, minor, patch or down, for versions of every shape that conda has."""

import functools
from typing import Literal

from lockyard.conda.bounds import version_key
from lockyard.errors import ConfigError

Kind = Literal["major", "minor", "patch", "build", "downgrade", "other"]
KINDS: tuple[Kind, ...] = ("downgrade", "major", "minor", "patch", "other", "build")
"""Sorted by how much a reviewer wants to see them."""


@functools.lru_cache(maxsize=1 << 16)
def change_kind(old: str, new: str) -> Kind:
    """Return the kind of a change of version, by conda's order and the first two numbers; `build` when it is the same.

    A version that conda cannot order is `other`; letters behind a number (`9e` to `9f`, `2024a` to `2024b`) count as a patch.

    >>> change_kind("1.26.4", "2.0.0"), change_kind("2024a", "2024b"), change_kind("1.1", "1.0.9")
    ('major', 'patch', 'downgrade')
    """
    if old == new:
        return "build"
    try:
        before, after = version_key(old), version_key(new)
    except ConfigError:
        return "other"
    if after < before:
        return "downgrade"
    if before == after:  # such as 1.0 and 1.0.0
        return "patch"
    if before.epoch != after.epoch:
        return "major"
    first, second = _numbers(before.segments()), _numbers(after.segments())
    return "major" if first[0] != second[0] else "minor" if first[1] != second[1] else "patch"


def _numbers(segments: list[list[str | int]]) -> tuple[int, int]:
    found = [segment[0] if segment and isinstance(segment[0], int) else 0 for segment in segments[:2]]
    return found[0] if found else 0, found[1] if len(found) > 1 else 0
