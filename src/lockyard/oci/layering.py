"""Which package goes into which layer: the plan that is committed as `layers.json` (schema 1). No I/O here.

A layer none of whose packages changed is never touched, so a plan costs no byte: what the base release published stays published.
A layer that must be sent again anyway, because a package in it changed, is free: its packages are grouped anew with those of the
other free layers and the new ones, by how often they changed, with what, and by size. Where no layer is free, layers that were
kept unused take the new packages; no package moves because another comes or goes. One plan serves all images of a release.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError
from lockyard.oci.grouping import group
from lockyard.oci.history import WEIGHTS, ChangeHistory, Sizes, Snapshot, identity
from lockyard.oci.pieces import Odds, Piece, Share, join

SCHEMA = 1
FILE_NAME = "layers.json"
DEFAULT_BUDGET = 100
LEAST_BUDGET = 8
HARD_CAP = 120
"""Layers that an image may have, those of the base and the Dockerfile included."""
BIG = 1_000_000
"""Bytes of an archive from which on a new package gets a layer of its own, if one is left."""

_PRIOR = 2.0 * WEIGHTS[0]
"""How much a short past is doubted: as if there were two more releases in it, of which nothing is known."""
_PRIOR_RATE = 0.08
"""The chance that a package of which nothing is known changes in a release."""
_ALONE = 0.3
"""The share of past changes that would have come to each package alone; the rest comes to its companions, too."""
_HORIZON = 10.0
"""Releases over which a new package's place is chosen."""

Images = Mapping[str, Sequence[LockedPackage]]
"""Image (`cpu linux-64`) → its packages."""


@dataclass(frozen=True)
class LayerPlan:
    """Package name → layer name; `order` has the layers as they lie in an image, those that seldom change first."""

    layers: Mapping[str, str]
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Complete the order by the names that it lacks, and drop those without packages."""
        used = set(self.layers.values())
        kept = [name for name in dict.fromkeys(self.order) if name in used]
        object.__setattr__(self, "order", (*kept, *sorted(used.difference(kept))))

    def group(self, packages: Sequence[LockedPackage]) -> dict[str, list[LockedPackage]]:
        """Return layer → its packages of one environment, in the order of the layers and of names.

        Raises:
            ConfigError: a package is in no layer.

        """
        missing = sorted(package.name for package in packages if package.name not in self.layers)
        if missing:
            raise ConfigError(
                f"{FILE_NAME} does not name {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
                hint="make it again: lockyard lock",
            )
        grouped: dict[str, list[LockedPackage]] = {}
        for package in sorted(packages, key=lambda item: item.name):
            grouped.setdefault(self.layers[package.name], []).append(package)
        return {name: grouped[name] for name in self.order if name in grouped}

    def to_json(self) -> str:
        """Return the text of `layers.json`."""
        value = {"schema": SCHEMA, "order": list(self.order), "layers": dict(sorted(self.layers.items()))}
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = FILE_NAME) -> Self:
        """Read `layers.json` (`source` is its path, for messages).

        Raises:
            ConfigError: it is malformed or newer than we know.

        """
        try:
            value: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{source}:{error.lineno}: not JSON: {error.msg}") from error
        schema = value.get("schema") if isinstance(value, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise ConfigError(f"{source}: schema {schema} is newer than this Lockyard knows", hint="upgrade Lockyard")
        layers = value.get("layers") if isinstance(value, dict) and schema == SCHEMA else None
        order = value.get("order", []) if isinstance(value, dict) else None
        if not isinstance(layers, dict) or not isinstance(order, list) or not _are_names([*layers.values(), *order]):
            raise ConfigError(f'{source}: not {{"schema": {SCHEMA}, "order": [LAYER], "layers": {{PACKAGE: LAYER}}}}')
        return cls(dict(sorted(layers.items())), tuple(order))


@dataclass(frozen=True)
class BaseLayers:
    """What the base release published: its plan, and what its packages exactly are."""

    plan: LayerPlan
    snapshot: Snapshot


def plan_layers(
    images: Images,
    *,
    base: BaseLayers | None = None,
    history: ChangeHistory | None = None,
    sizes: Sizes | None = None,
    budget: int = DEFAULT_BUDGET,
) -> LayerPlan:
    """Plan the layers of a release, shared by all its images; `budget` is the most that its packages may have.

    The order of packages and images means nothing.

    Raises:
        ConfigError: the budget is out of bounds.

    """
    check_budget(budget)
    planner = _Planner(images, history or ChangeHistory(), sizes or Sizes(_every(images)), budget, base)
    return planner.fresh() if base is None else planner.after(base)


def check_budget(budget: int) -> int:
    """Return the budget; raise `ConfigError` when it is out of bounds."""
    if not LEAST_BUDGET <= budget <= HARD_CAP:
        raise ConfigError(f"a budget of {budget} layers is not within {LEAST_BUDGET} and {HARD_CAP}")
    return budget


def reserve_of(budget: int) -> int:
    """Return how many of `budget` layers are kept unused for new packages."""
    return max(2, budget // 50)


@dataclass
class _Planner:
    images: Images
    history: ChangeHistory
    sizes: Sizes
    budget: int
    base: BaseLayers | None
    pieces: dict[str, Piece] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = sorted(self.images)
        self.reserve = reserve_of(self.budget)
        self.odds = Odds((1.0 - _ALONE) / (self.history.total + _PRIOR))
        self.bytes = {key: {item.name: self.sizes(item) for item in self.images[key]} for key in self.keys}
        self.now = {key: {item.name: identity(item) for item in self.images[key]} for key in self.keys}
        # Each image counts alike: what is lost of a small one is as bad as the same share of a big one. New packages do
        # not count here, so that they change nothing for the others.
        base = self.base
        totals = {
            key: sum(size for name, size in sized.items() if base is None or name in base.plan.layers) or 1
            for key, sized in self.bytes.items()
        }
        least = min(totals.values(), default=1)
        self.scale = {key: least / total for key, total in totals.items()}
        for name in sorted({name for key in self.keys for name in self.bytes[key]}):
            self.pieces[name] = Piece((name,), tuple(self._share(key, name) for key in self.keys))

    def _share(self, key: str, name: str) -> Share:
        if name not in self.bytes[key]:
            return 0.0, 1.0, 0
        past = self.history.past(key, name)
        alone = (_PRIOR * _PRIOR_RATE + _ALONE * past.bits.bit_count()) / (past.weight + _PRIOR)
        return self.bytes[key][name] * self.scale[key], 1.0 - min(alone, 0.95), past.bits

    def fresh(self) -> LayerPlan:
        """Plan with nothing published before."""
        groups = group(self.pieces.values(), self.budget - self.reserve, self.odds)
        return self._finish(self._named(groups, set()), ())

    def after(self, base: BaseLayers) -> LayerPlan:
        """Plan from what the base release published."""
        kept = {name: base.plan.layers[name] for name in self.pieces if name in base.plan.layers}
        # A layer that must go out again in every image that has it, because of a change, may be grouped anew for nothing.
        sent = self._sent(base)
        changed = {kept[name] for name in kept if self._changed(base.snapshot, name)}
        free = {
            layer
            for layer, members in _members(kept).items()
            if layer in changed
            and all((layer, key) in sent for key in self.keys if any(name in self.bytes[key] for name in members))
        }
        kept = self._fitting(kept)
        used = set(kept.values())
        free &= used
        if free:
            # New packages take part: what is sent anyway is grouped with them as if it were new, too.
            new = self.pieces.keys() - kept.keys()
            pool = [*new, *(name for name, layer in kept.items() if layer in free)]
            big = sum(self._size(name) >= BIG for name in new)
            room = self.budget - len(used) - max(0, self.reserve - big)
            groups = group((self.pieces[name] for name in pool), max(1, len(free) + room), self.odds)
            kept |= self._named(groups, used - free)
        clean = self._place_new(kept)
        prefix = []
        for layer in base.plan.order:
            if layer not in clean or any((layer, key) in sent for key in self.keys):
                break
            prefix.append(layer)
        return self._finish(kept, prefix)

    def _sent(self, base: BaseLayers) -> set[tuple[str, str]]:
        """Return (layer, image) where the layer of the base's plan has other packages than the base published."""
        found = set()
        for key in self.keys:
            before, now = base.snapshot.get(key, {}), self.now[key]
            for name in before.keys() | now.keys():
                if name in base.plan.layers and before.get(name) != now.get(name):
                    found.add((base.plan.layers[name], key))
        return found

    def _changed(self, before: Snapshot, name: str) -> bool:
        return any(
            name in self.now[key] and before.get(key, {}).get(name, self.now[key][name]) != self.now[key][name]
            for key in self.keys
        )

    def _fitting(self, kept: Mapping[str, str]) -> dict[str, str]:
        """Return the assignment with whole layers merged where the budget has become smaller than their number."""
        members = _members(kept)
        if len(members) <= self.budget:
            return dict(kept)
        wholes = [join([self.pieces[name] for name in names]) for names in members.values()]
        return self._named(group(wholes, self.budget - self.reserve, self.odds), set())

    def _place_new(self, kept: dict[str, str]) -> set[str]:
        """Add what is not placed yet, the biggest first, each where it costs least; return the layers that none came into."""
        layers = {
            layer: join([self.pieces[name] for name in names]).shares for layer, names in sorted(_members(kept).items())
        }
        untouched = set(layers)
        shared = ""
        for name in sorted(self.pieces.keys() - kept.keys(), key=lambda item: (-self._size(item), item)):
            piece = self.pieces[name]
            room = self.budget - len(layers)
            big = self._size(name) >= BIG
            # The last unused layer is for all the small ones together.
            if not (shared and not big) and room > big:
                layer = _unused(name, layers)
                layers[layer] = tuple((0.0, 1.0, 0) for _ in self.keys)
                shared = shared if big else layer
            elif shared and not big:
                layer = shared
            else:
                layer = min(layers, key=lambda item: (self._added(layers[item], piece, item in untouched), item))
            layers[layer] = join([Piece((), layers[layer]), piece]).shares
            untouched.discard(layer)
            kept[name] = layer
        return untouched

    def _added(self, layer: Sequence[Share], piece: Piece, published: bool) -> float:  # private
        """Return what a new package adds to a layer: its bytes now, if it is published, and those of later releases."""
        now = sum(share[0] for share, more in zip(layer, piece.shares, strict=True) if more[0]) if published else 0.0
        added = self.odds.added(
            piece.shares, [[share] for share in layer], [[self.odds.cost(share)] for share in layer]
        )
        return now + _HORIZON * added[0]

    def _size(self, name: str) -> int:
        return max((self.bytes[key].get(name, 0) for key in self.keys), default=0)

    def _named(self, groups: Iterable[Piece], taken: set[str]) -> dict[str, str]:
        """Name each group by its biggest package."""
        names = set(taken)
        result: dict[str, str] = {}
        for piece in sorted(groups, key=lambda item: item.names):
            layer = _unused(min(piece.names, key=lambda name: (-self._size(name), name)), names)
            names.add(layer)
            result |= dict.fromkeys(piece.names, layer)
        return result

    def _finish(self, layers: Mapping[str, str], prefix: Sequence[str]) -> LayerPlan:
        """Order the layers: what lies below the first that changed stays so, the others by their chance to change."""
        chances = {}
        for layer, names in _members(layers).items():
            shares = join([self.pieces[name] for name in names]).shares
            chances[layer] = max(self.odds.change(share) for share in shares)
        rest = sorted(chances.keys() - set(prefix), key=lambda item: (chances[item], item))
        return LayerPlan(dict(sorted(layers.items())), (*prefix, *rest))


def _members(layers: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, layer in sorted(layers.items()):
        found.setdefault(layer, []).append(name)
    return found


def _unused(name: str, taken: Iterable[str]) -> str:
    names = set(taken)
    number = 2
    layer = name
    while layer in names:
        layer, number = f"{name}~{number}", number + 1
    return layer


def _every(images: Images) -> list[LockedPackage]:
    return [package for packages in images.values() for package in packages]


def _are_names(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and value for value in values)
