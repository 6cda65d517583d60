"""How often packages changed from release to release: the past that a layer plan is made from. No I/O.

Only releases of a lower version count, each by what it changed from its own base; the newest count most. Patch releases teach: a
minor release changes nearly every package, which says nothing about what patches change together.
"""

import json
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from lockyard.conda.lock import Lock, LockedPackage
from lockyard.version import Version

Snapshot = Mapping[str, Mapping[str, str]]
"""Image (`cpu linux-64`) → package name → what it exactly is, of one release."""

WEIGHTS = (4, 2, 1)
"""Of a change in one of the newest 20 releases, the 20 before them, and so on; older ones are forgotten."""
PERIOD = 20
DEPTH = len(WEIGHTS) * PERIOD
"""Releases that are worth reading."""
_DIST_RE = re.compile(r"(.+)-[^-]+-[^-]+")
_ARCHIVE_RE = re.compile(r"\.(?:conda|tar\.bz2)$")


def lessons(releases: Iterable[tuple[Version, Version]], version: Version) -> list[tuple[Version, Version]]:
    """Return which of (release, its base) a plan of `version` learns from, newest first: patches, or all if there is none."""
    older = sorted((pair for pair in releases if pair[0] < version), reverse=True)
    patches = [pair for pair in older if _line(pair[0]) == _line(pair[1])]
    return (patches or older)[:DEPTH]


def _line(version: Version) -> tuple[int, int]:
    return version.major, version.minor


def image_key(image_type: str, platform: str) -> str:
    """Return the name of an image of a release."""
    return f"{image_type} {platform}"


def identity(package: LockedPackage) -> str:
    """Return what a package exactly is, the same from a lock and from its export."""
    return f"{package.file_name}#{package.md5 or package.sha256 or ''}"


def snapshot_of(locks: Mapping[str, Lock]) -> Snapshot:
    """Return type → lock as a snapshot."""
    return {
        image_key(name, platform): {package.name: identity(package) for package in packages}
        for name, lock in locks.items()
        for platform, packages in lock.platforms.items()
    }


def read_names(env_out: str) -> Mapping[str, str]:
    """Read name → identity from an explicit list, in a hundredth of the time that its full reading takes.

    It is for the past only: a line that cannot be read counts as a package that was not there.
    """
    found = {}
    for line in env_out.splitlines():
        url, _, digest = line.strip().partition("#")
        name = url.rsplit("/", 1)[-1]
        match = _DIST_RE.fullmatch(_ARCHIVE_RE.sub("", name))
        if match and "/" in url:
            found[match[1]] = f"{name}#{digest.removeprefix('sha256:')}"
    return found


def read_sizes(lock_json: str) -> list[tuple[str, str, int]]:
    """Read (name, identity, bytes) of the packages of another release's lock; what cannot be read is left out."""
    try:
        platforms = json.loads(lock_json)["packages"].values()
        return [
            (
                item["name"],
                f"{item['url'].rsplit('/', 1)[-1]}#{item.get('md5') or item.get('sha256') or ''}",
                item["size"],
            )
            for packages in platforms
            for item in packages
            if isinstance(item.get("size"), int)
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of one package in one image: changes and chances, weighted and plain."""

    bits: int = 0
    """As many bits for each change as it weighs."""
    weight: int = 0
    """Weighted transitions in which it was there."""
    marks: int = 0
    """One bit for each release in which it changed."""
    seen: int = 0

    @property
    def changes(self) -> int:
        """In how many releases it changed."""
        return self.marks.bit_count()


_NOTHING = Past()


@dataclass(frozen=True)
class ChangeHistory:
    """Image → package → its past; `total` is the weight of all transitions, `count` their number."""

    images: Mapping[str, Mapping[str, Past]] = field(default_factory=dict)
    total: int = 0
    count: int = 0

    @classmethod
    def of(cls, steps: Iterable[tuple[Snapshot, Snapshot]]) -> Self:
        """Make it from older releases, newest first, each with the release that it was made from."""
        images: dict[str, dict[str, Past]] = {}
        total = count = 0
        for number, (new, old) in enumerate(steps):
            if number >= DEPTH:
                break
            weight = WEIGHTS[number // PERIOD]
            # A change counts as so many bits: the number of bits of a union is then the weight of its transitions.
            mark = ((1 << weight) - 1) << total
            total, count = total + weight, count + 1
            for image in sorted(new.keys() & old.keys()):
                pasts, before = images.setdefault(image, {}), old[image]
                for name, what in new[image].items():
                    if name in before:
                        pasts[name] = _after(
                            pasts.get(name, _NOTHING), mark if before[name] != what else 0, number, weight
                        )
        return cls(images, total, count)

    def past(self, image: str, name: str) -> Past:
        """Return what is known of a package."""
        return self.images.get(image, {}).get(name, _NOTHING)


def _after(past: Past, bits: int, number: int, weight: int) -> Past:
    marks = past.marks | 1 << number if bits else past.marks
    return Past(past.bits | bits, past.weight + weight, marks, past.seen + 1)


class Sizes:
    """Sizes of archives; one that no lock says is the median of that name's known ones, else of all."""

    def __init__(self, known: Iterable[LockedPackage], elsewhere: Iterable[tuple[str, str, int]] = ()) -> None:
        """Take packages, and (name, identity, bytes) from other locks."""
        self._known = {what: (name, size) for name, what, size in elsewhere}
        self._known |= {identity(item): (item.name, item.size) for item in known if item.size is not None}
        by_name: dict[str, list[int]] = {}
        for name, size in self._known.values():
            by_name.setdefault(name, []).append(size)
        self._medians = {name: int(statistics.median(sizes)) for name, sizes in by_name.items()}
        self._all = int(statistics.median(size for sizes in by_name.values() for size in sizes)) if by_name else 1

    def __call__(self, package: LockedPackage) -> int:
        """Return its size in bytes, known or not."""
        if package.size is not None:
            return package.size
        _, size = self._known.get(identity(package), ("", self._medians.get(package.name, self._all)))
        return size

    def knows(self, package: LockedPackage) -> bool:
        """Whether the size is no estimate."""
        return package.size is not None or identity(package) in self._known
