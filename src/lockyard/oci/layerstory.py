"""Why a layer plan is as it is, for people: which package lies where, how often it changed, what moved and why. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockyard.conda.lock import LockedPackage
from lockyard.oci.history import ChangeHistory, Past, Sizes, identity
from lockyard.oci.layering import BaseLayers, Images, LayerPlan

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPackage:
    """A package of a layer: it changed in `changes` of the `seen` older releases that it was in.

    `size` is in bytes, an estimate where no lock says it (`estimated`).
    """

    name: str
    version: str
    size: int
    estimated: bool
    changes: int
    seen: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStory:
    """A layer of a plan: the images that have it, in how many older releases something in it changed, and its packages."""

    name: str
    images: tuple[str, ...]
    size: int
    """Bytes of the archives of its packages, of the biggest image."""
    changes: int
    why: str
    packages: tuple[PlacedPackage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStory:
    """A plan: its layers as they lie, the number of older releases it was made from, the share of packages of unknown size."""

    layers: tuple[LayerStory, ...]
    releases: int
    unknown_sizes: float


def explain_plan(
    plan: LayerPlan, images: Images, *, base: BaseLayers | None, history: ChangeHistory, sizes: Sizes
) -> PlanStory:
    """Explain a plan by the base release's and the past; it needs not be the one that `plan_layers` would make now."""
    teller = _Teller(plan, images, base, history, sizes)
    packages = {identity(item): item for items in images.values() for item in items}.values()
    unknown = sum(not sizes.knows(item) for item in packages)
    return PlanStory(
        layers=tuple(teller.layer(name) for name in plan.order if name in teller.members),
        releases=history.count,
        unknown_sizes=unknown / max(1, len(packages)),
    )


class _Teller:
    def __init__(
        self, plan: LayerPlan, images: Images, base: BaseLayers | None, history: ChangeHistory, sizes: Sizes
    ) -> None:
        self.plan, self.images, self.base, self.history, self.sizes = plan, images, base, history, sizes
        self.members: dict[str, dict[str, LockedPackage]] = {}
        for key in sorted(images):
            for package in sorted(images[key], key=lambda item: item.name):
                self.members.setdefault(plan.layers[package.name], {}).setdefault(package.name, package)
        self.changed = self._changed()

    def layer(self, name: str) -> LayerStory:
        members = self.members[name]
        keys = tuple(key for key in sorted(self.images) if any(item.name in members for item in self.images[key]))
        size = max(
            (sum(self.sizes(item) for item in self.images[key] if item.name in members) for key in keys), default=0
        )
        pasts = {package: [self.history.past(key, package) for key in keys] for package in members}
        times = _times([past for found in pasts.values() for past in found])
        each = max((_most(found).changes for found in pasts.values()), default=0)
        return LayerStory(
            name=name,
            images=keys,
            size=size,
            changes=times,
            why=self._why_layer(len(members), times, each),
            packages=tuple(
                self._package(members[package], _most(pasts[package])) for package in self._by_size(members)
            ),
        )

    def _by_size(self, members: Mapping[str, LockedPackage]) -> list[str]:
        return sorted(members, key=lambda name: (-self.sizes(members[name]), name))

    def _why_layer(self, count: int, times: int, each: int) -> str:
        if not self.history.count:
            return "alone by its size" if count == 1 else "grouped by size: there are no older releases to learn from"
        often = f"changed in {times} of {self.history.count} older releases"
        if count == 1:
            return f"alone: {often}"
        return f"{count} packages: {often}, the busiest of them in {each}"

    def _package(self, package: LockedPackage, past: Past) -> PlacedPackage:
        return PlacedPackage(
            name=package.name,
            version=package.version,
            size=self.sizes(package),
            estimated=not self.sizes.knows(package),
            changes=past.changes,
            seen=past.seen,
            why=self._why(package.name),
        )

    def _why(self, name: str) -> str:
        layer = self.plan.layers[name]
        if self.base is None:
            return "planned anew"
        before = self.base.plan.layers.get(name)
        if before is None:
            return "new in this release"
        causes = self.changed.get(before, ())
        if not causes:
            return "kept: nothing in its layer changed" if before == layer else f"was in {before}"
        also = f" and {len(causes) - _SHOWN} more" if len(causes) > _SHOWN else ""
        sent = f"{', '.join(causes[:_SHOWN])}{also} changed, so its layer {before} is sent again anyway"
        return f"kept: {sent}" if before == layer else f"moved: {sent}"

    def _changed(self) -> Mapping[str, Sequence[str]]:
        """Return layer of the base's plan → its packages that are not what they were."""
        found: dict[str, set[str]] = {}
        if self.base is None:
            return {}
        layers = self.base.plan.layers
        for key, packages in self.images.items():
            before = self.base.snapshot.get(key, {})
            for package in packages:
                name, now = package.name, identity(package)
                if name in layers and before.get(name, now) != now:
                    found.setdefault(layers[name], set()).add(name)
        return {layer: sorted(names) for layer, names in found.items()}


def _most(pasts: Sequence[Past]) -> Past:
    return max(pasts, key=lambda past: (past.seen, past.changes), default=Past())


def _times(pasts: Sequence[Past]) -> int:
    """Return in how many releases any of them changed: `marks` has one bit per release."""
    marks = 0
    for past in pasts:
        marks |= past.marks
    return marks.bit_count()
