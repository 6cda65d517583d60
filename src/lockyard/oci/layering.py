"""Which package goes into which layer: the plan that is committed as `layers.json` (schema 1). No I/O here.

A package that the previous plan knows stays where it was. Of the new ones, big packages get a layer of their own while
the budget lasts, biggest first; the others go to a group chosen by the hash of their name, so that a package that comes
or goes moves no other. Packages that all image types have are grouped apart from those that only some have, so that
types share whole layers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError

SCHEMA = 1
FILE_NAME = "layers.json"
DEFAULT_BUDGET = 100
BIG = 1_000_000
"""Bytes of an archive from which on a package has a layer of its own."""
_SHARED_GROUPS = 12
_OTHER_GROUPS = 4
_GROUPS = _SHARED_GROUPS + _OTHER_GROUPS
_ALONE = "package-"


@dataclass(frozen=True)
class LayerPlan:
    """Package name → layer name, and why. Layers lie in the order of their names."""

    layers: Mapping[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    def group(self, packages: Sequence[LockedPackage]) -> dict[str, list[LockedPackage]]:
        """Return layer → its packages of one environment; both in the order of names.

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
        return dict(sorted(grouped.items()))

    def to_json(self) -> str:
        """Return the text of `layers.json`."""
        value = {"schema": SCHEMA, "layers": dict(self.layers)}
        return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

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
        if not isinstance(layers, dict) or not all(isinstance(name, str) and name for name in layers.values()):
            raise ConfigError(f'{source}: not {{"schema": {SCHEMA}, "layers": {{PACKAGE: LAYER}}}}')
        return cls(dict(sorted(layers.items())))


def plan_layers(
    packages_by_type: Mapping[str, Sequence[LockedPackage]],
    *,
    previous: LayerPlan | None = None,
    budget: int = DEFAULT_BUDGET,
) -> LayerPlan:
    """Plan the layers of a release, shared by all its image types (of a type with several platforms: all packages).

    Raises:
        ConfigError: the budget is smaller than the number of groups.

    """
    if budget < _GROUPS:
        raise ConfigError(f"a budget of {budget} layers is too small; the least is {_GROUPS}")
    sizes: dict[str, int] = {}
    types: dict[str, set[str]] = {}
    for image_type, packages in packages_by_type.items():
        for package in packages:
            sizes[package.name] = max(sizes.get(package.name, 0), package.size or 0)
            types.setdefault(package.name, set()).add(image_type)
    old = {name: layer for name, layer in (previous.layers if previous else {}).items() if name in sizes}
    room = budget - _GROUPS
    layers: dict[str, str] = {}
    reasons: dict[str, str] = {}
    # Packages that have a layer of their own come first: they keep it, biggest first, as long as there is room.
    for name in sorted(sizes, key=lambda item: (not old.get(item, "").startswith(_ALONE), -sizes[item], item)):
        kept = old.get(name)
        alone = kept.startswith(_ALONE) if kept is not None else sizes[name] >= BIG
        if kept is not None and not alone:
            layers[name], reasons[name] = kept, "as in the previous release"
        elif alone and room > 0:
            room -= 1
            layers[name] = f"{_ALONE}{name}"
            reasons[name] = "as in the previous release" if kept else f"alone: {sizes[name]:,} bytes"
        else:
            layers[name] = _group(name, shared=len(types[name]) == len(packages_by_type))
            what = "the budget has no more layers of their own" if alone else "small"
            where = "all types" if len(types[name]) == len(packages_by_type) else ", ".join(sorted(types[name]))
            reasons[name] = f"grouped by the hash of its name: {what}, {sizes[name]:,} bytes, in {where}"
    if len(set(layers.values())) > budget:
        raise ConfigError(f"the previous {FILE_NAME} names more layers than the budget of {budget}")
    return LayerPlan(dict(sorted(layers.items())), dict(sorted(reasons.items())))


def _group(name: str, *, shared: bool) -> str:
    kind, count = ("shared", _SHARED_GROUPS) if shared else ("other", _OTHER_GROUPS)
    return f"group-{kind}-{int(hashlib.sha256(name.encode()).hexdigest(), 16) % count:02}"
