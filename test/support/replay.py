"""The real releases, planned again one after the other, each from what was committed before it; and what each then re-sends."""

import functools
import hashlib
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import zstandard

from lockyard.conda.formats import read_env_out
from lockyard.conda.lock import LockedPackage
from lockyard.oci.history import ChangeHistory, Sizes, Snapshot, identity, lessons
from lockyard.oci.layering import BaseLayers, LayerPlan, plan_layers
from lockyard.version import Version
from support.require import SHARED, need
from support.upstream import upstream_texts

IMAGES = {"cpu": "cpu linux-64", "gpu": "gpu linux-64"}


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release: image → packages, their sizes, the release it was made from, the newest timestamp of its packages."""

    version: Version
    base: Version | None
    images: Mapping[str, tuple[LockedPackage, ...]]
    sizes: Mapping[str, Mapping[str, int]]
    snapshot: Snapshot
    timestamp: int

    @property
    def is_patch(self) -> bool:
        """Whether it is a patch of its own minor line."""
        base = self.base
        return base is not None and (base.major, base.minor) == (self.version.major, self.version.minor)


@dataclass(frozen=True)
class Releases:
    """All real releases in the order in which they were made; `known` says for what share the index has a size."""

    releases: Mapping[Version, Release]
    known: float
    known_bytes: float
    sizes: Sizes
    histories: dict[Version, ChangeHistory] = field(default_factory=dict)

    def history(self, version: Version) -> ChangeHistory:
        """Return what the older releases that were committed before one tell."""
        if version not in self.histories:
            before = list(self.releases)[: list(self.releases).index(version)]
            known = [(item, base) for item in before if (base := self.releases[item].base) is not None]
            steps = [tuple(self.releases[item].snapshot for item in pair) for pair in lessons(known, version)]
            self.histories[version] = ChangeHistory.of((new, old) for new, old in steps)
        return self.histories[version]

    def patches(self, majors: Iterable[int]) -> list[Version]:
        """Return the patch releases of major lines."""
        return [item.version for item in self.releases.values() if item.is_patch and item.version.major in set(majors)]


Planner = Callable[[Release, Mapping[Version, LayerPlan]], LayerPlan | Mapping[str, str]]


@dataclass
class Replay:
    """Image → release → bytes that it re-sends; the slowest plan's seconds of CPU, its history read."""

    sent: dict[str, dict[Version, int]] = field(default_factory=lambda: {key: {} for key in IMAGES.values()})
    most_layers: int = 0
    slowest: float = 0.0

    def figures(self, image: str, versions: Sequence[Version]) -> tuple[float, float, float]:
        """Return total, median and 90th percentile (nearest rank) of the bytes."""
        values = sorted(self.sent[image][version] for version in versions)
        return sum(values), statistics.median(values), values[math.ceil(0.9 * len(values)) - 1]


@functools.cache
def load() -> Releases:
    """Read the real releases, with the sizes of the real channel index."""
    need("realdata")
    index = _index()
    texts = upstream_texts()
    trees: dict[Version, dict[str, str]] = {}
    for path, text in texts.items():
        *_, directory, name = path.split("/")
        trees.setdefault(Version.parse(directory.removeprefix("v")), {})[name] = text
    raw = {version: _packages(tree, index) for version, tree in trees.items()}
    everything = [package for images in raw.values() for packages in images.values() for package in packages]
    sizes = Sizes(_records(index))
    releases = []
    for version, images in raw.items():
        source = trees[version].get("source-version.txt", "").strip()
        base = Version.parse(source) if source else None
        releases.append(
            Release(
                version=version,
                base=base if base in raw else None,
                images=images,
                sizes={key: {item.name: sizes(item) for item in packages} for key, packages in images.items()},
                snapshot={key: {item.name: identity(item) for item in packages} for key, packages in images.items()},
                timestamp=max(item.timestamp or 0 for packages in images.values() for item in packages),
            )
        )
    releases.sort(key=lambda item: (item.timestamp, item.version))
    ordered: dict[Version, Release] = {}
    for release in releases:
        _append(release, {item.version: item for item in releases}, ordered)
    known = sum(item.size is not None for item in everything) / len(everything)
    known_bytes = sum(item.size or 0 for item in everything) / sum(sizes(item) for item in everything)
    return Releases(ordered, known, known_bytes, sizes)


def _append(release: Release, known: Mapping[Version, Release], ordered: dict[Version, Release]) -> None:
    """Add a release after its base: packages of the same day leave their order open."""
    if release.base is not None and release.base not in ordered:
        _append(known[release.base], known, ordered)
    ordered.setdefault(release.version, release)


def _index() -> Mapping[tuple[str, str], Mapping[str, object]]:
    found = {}
    for subdir in ("linux-64", "noarch"):
        with (SHARED / "conda-index" / subdir / "repodata.json.zst").open("rb") as stream:
            value = json.load(io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream), encoding="utf-8"))
        for kind in ("packages", "packages.conda"):
            for name, record in value.get(kind, {}).items():
                found[subdir, name] = record
    return found


def _records(index: Mapping[tuple[str, str], Mapping[str, object]]) -> Iterable[LockedPackage]:
    for (subdir, name), record in index.items():
        url = f"https://conda.anaconda.org/conda-forge/{subdir}/{name}"
        package = LockedPackage(
            name=str(record["name"]), version=str(record["version"]), build=str(record["build"]), url=url, subdir=subdir,
            md5=str(record["md5"]) if record.get("md5") else None,
        )  # fmt: skip
        yield _completed(package, record)


def _packages(
    tree: Mapping[str, str], index: Mapping[tuple[str, str], Mapping[str, object]]
) -> dict[str, tuple[LockedPackage, ...]]:
    images = {}
    for image_type, key in IMAGES.items():
        name = f"{image_type}.env.out"
        if name in tree:
            packages = read_env_out(tree[name], name)
            images[key] = tuple(_completed(item, index.get((item.subdir, item.file_name), {})) for item in packages)
    return images


def _completed(package: LockedPackage, record: Mapping[str, object]) -> LockedPackage:
    size, timestamp = record.get("size"), record.get("timestamp")
    return replace(
        package, size=size if isinstance(size, int) and size else None,
        timestamp=_milliseconds(timestamp) if isinstance(timestamp, int) else None,
    )  # fmt: skip


def _milliseconds(timestamp: int) -> int:
    return timestamp if timestamp > 100_000_000_000 else timestamp * 1000


def replay(releases: Releases, planner: Planner) -> Replay:
    """Plan every release in order, and compare its layers with those of its base as they were planned then."""
    plans: dict[Version, LayerPlan] = {}
    result = Replay()
    for version, release in releases.releases.items():
        start = time.process_time()
        made = planner(release, plans)
        result.slowest = max(result.slowest, time.process_time() - start)
        plans[version] = made if isinstance(made, LayerPlan) else LayerPlan(made)
        for image in release.images:
            mine = _layers(release, image, plans[version])
            result.most_layers = max(result.most_layers, len(mine))
            if release.base is not None:
                before = _layers(releases.releases[release.base], image, plans[release.base]).keys()
                result.sent[image][version] = sum(size for layer, size in mine.items() if layer not in before)
    return result


def _layers(release: Release, image: str, plan: LayerPlan) -> dict[frozenset[str], int]:
    """Return what each layer holds → its bytes."""
    names: dict[str, list[str]] = {}
    for name in release.snapshot.get(image, {}):
        names.setdefault(plan.layers[name], []).append(name)
    return {
        frozenset(release.snapshot[image][name] for name in members): sum(
            release.sizes[image][name] for name in members
        )
        for members in names.values()
    }


def ours(releases: Releases, budget: int) -> Planner:
    """The plan that `lock` makes."""

    def plan(release: Release, plans: Mapping[Version, LayerPlan]) -> LayerPlan:
        base = None
        if release.base is not None:
            base = BaseLayers(plans[release.base], releases.releases[release.base].snapshot)
        history = releases.history(release.version)
        return plan_layers(release.images, base=base, history=history, sizes=releases.sizes, budget=budget)

    return plan


def one_layer(release: Release, plans: Mapping[Version, LayerPlan]) -> Mapping[str, str]:
    """Everything in one layer: what a RUN instruction gives."""
    del plans
    return dict.fromkeys(_sizes(release), "all")


def floor(release: Release, plans: Mapping[Version, LayerPlan]) -> Mapping[str, str]:
    """One layer per package: nothing re-sends less."""
    del plans
    return {name: name for name in _sizes(release)}


def size_ranked(budget: int) -> Planner:
    """The biggest packages alone, the others together."""

    def plan(release: Release, plans: Mapping[Version, LayerPlan]) -> Mapping[str, str]:
        del plans
        sizes = _sizes(release)
        ranked = sorted(sizes, key=lambda name: (-sizes[name], name))
        return {name: str(min(rank, budget - 1)) for rank, name in enumerate(ranked)}

    return plan


def name_hash(budget: int) -> Planner:
    """A layer by the hash of the name."""

    def plan(release: Release, plans: Mapping[Version, LayerPlan]) -> Mapping[str, str]:
        del plans
        return {name: str(int(hashlib.sha256(name.encode()).hexdigest(), 16) % budget) for name in _sizes(release)}

    return plan


def _sizes(release: Release) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for sizes in release.sizes.values():
        for name, size in sizes.items():
            found[name] = max(found.get(name, 0), size)
    return found
