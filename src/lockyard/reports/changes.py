"""The whole difference of two releases: packages with kind and reason, sizes, layers, and what a client downloads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lockyard.conda.diff import LockDiff, Section, diff_locks
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.oci.layering import LayerPlan
from lockyard.reports.kinds import KINDS, Kind, change_kind
from lockyard.reports.model import Amount, ImageFacts, ReleaseFacts, TypeFacts

What = Literal["changed", "added", "removed", "rebuilt"]
WHATS: tuple[What, ...] = ("changed", "added", "removed", "rebuilt")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageChange:
    """One package that differs; `why` is the lock's reason, empty where the lock does not say."""

    name: str
    what: What
    direct: bool
    kind: Kind | None = None
    old: LockedPackage | None = None
    new: LockedPackage | None = None
    why: str = ""

    @property
    def grown(self) -> int | None:
        """Bytes of archive more than before, `None` when a size is unknown."""
        sizes = [package.size if package else 0 for package in (self.old, self.new)]
        return None if sizes[0] is None or sizes[1] is None else sizes[1] - sizes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """A layer that is in either release, bytes before and after (`None`: not there), and whether B sends it again."""

    name: str
    old: Amount | None
    new: Amount | None
    sent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What a client that has A fetches for B; `how` says what the figure was read or estimated from."""

    amount: Amount
    exact: bool
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeComparison:
    """The difference of one image type on one platform; sizes are those of the package archives."""

    image_type: str
    platform: str
    diff: LockDiff
    changes: tuple[PackageChange, ...]
    packages: tuple[LockedPackage, ...]
    """All of the target."""
    promoted: tuple[str, ...]
    demoted: tuple[str, ...]
    old_size: Amount
    new_size: Amount
    old_count: int
    new_count: int
    layers: tuple[LayerChange, ...]
    download: Download

    def of(self, *, direct: bool, what: What | None = None) -> tuple[PackageChange, ...]:
        """Return the changes of one section."""
        return tuple(item for item in self.changes if item.direct == direct and what in {None, item.what})


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of two releases, type by type in file order."""

    base: str
    target: str
    types: Mapping[str, TypeComparison]


def compare(base: ReleaseFacts, target: ReleaseFacts, platform: str | None = None) -> Comparison:
    """Compare two releases, on each type's first platform or on `platform`, where types that have not got it are left out.

    A type that one release has not is compared with nothing.
    """
    types = {}
    for name in dict.fromkeys([*target.types, *base.types]):
        old, new = base.types.get(name), target.types.get(name)
        if platform is None or any(item and platform in item.lock.platforms for item in (old, new)):
            types[name] = compare_types(old, new, base.plan, target.plan, platform)
    return Comparison(base.label, target.label, types)


def compare_types(
    old: TypeFacts | None,
    new: TypeFacts | None,
    old_plan: LayerPlan | None = None,
    new_plan: LayerPlan | None = None,
    asked: str | None = None,
) -> TypeComparison:
    """Compare one image type, at least one side of which is there, on the platform `asked` or on its first."""
    some = new or old
    if some is None:
        raise ValueError("nothing to compare")
    platform = asked or some.lock.first_platform
    before, after = (_packages(item, platform, asked=asked is not None) for item in (old, new))
    was, now = frozenset(old.direct if old else ()), frozenset(new.direct if new else ())
    diff = diff_locks(before, after, old_direct=was, new_direct=now)
    here, there = {item.name: item for item in before}, {item.name: item for item in after}
    reasons = _reasons(new.lock if new else None, platform)
    changes = [
        *_changes(diff.direct, here, there, reasons, direct=True),
        *_changes(diff.indirect, here, there, reasons, direct=False),
    ]
    layers = _layers(before, after, old_plan or new_plan, new_plan or old_plan)
    both = sorted(set(here) & set(there))
    return TypeComparison(
        image_type=some.image_type,
        platform=platform,
        diff=diff,
        changes=tuple(changes),
        packages=after,
        promoted=tuple(name for name in both if name in now - was),
        demoted=tuple(name for name in both if name in was - now),
        old_size=Amount.of(item.size for item in before),
        new_size=Amount.of(item.size for item in after),
        old_count=len(before),
        new_count=len(after),
        layers=layers,
        download=_download(
            old.images.get(platform) if old else None, new.images.get(platform) if new else None, layers, changes
        ),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return what `diff --json` prints."""
    return {
        "base": comparison.base,
        "target": comparison.target,
        "types": {name: _type_json(item) for name, item in comparison.types.items()},
    }


def _type_json(item: TypeComparison) -> dict[str, Any]:
    return {
        **item.diff.to_json(),
        "platform": item.platform,
        "promoted": list(item.promoted),
        "demoted": list(item.demoted),
        "packages": {
            change.name: {
                "change": change.what,
                "kind": change.kind,
                "direct": change.direct,
                "why": change.why or None,
                "base_size": change.old.size if change.old else None,
                "target_size": change.new.size if change.new else None,
            }
            for change in sorted(item.changes, key=lambda change: change.name)
        },
        "size": {"base": item.old_size.exact, "target": item.new_size.exact},
        "layers": {
            layer.name: {
                "base": layer.old.exact if layer.old else None,
                "target": layer.new.exact if layer.new else None,
                "sent": layer.sent,
            }
            for layer in item.layers
        },
        "download": {
            "bytes": item.download.amount.exact,
            "exact": item.download.exact,
            "how": item.download.how,
        },
    }


def _packages(facts: TypeFacts | None, platform: str, *, asked: bool) -> tuple[LockedPackage, ...]:
    """Return the packages of a platform; a release that has not got it is compared by its first, unless it was asked for."""
    if facts is None or (asked and platform not in facts.lock.platforms):
        return ()
    return facts.packages(platform if platform in facts.lock.platforms else None)


def _reasons(lock: Lock | None, platform: str) -> dict[tuple[str, str | None, str | None], str]:
    """Return the lock's reasons; one counts only for exactly the change that it explains."""
    found = lock.reasons.get(platform, ()) if lock else ()
    return {(reason.name, reason.old, reason.new): reason.kind for reason in found}


def _label(package: LockedPackage | None) -> str | None:
    return f"{package.version} {package.build}" if package else None


def _changes(
    section: Section,
    before: Mapping[str, LockedPackage],
    after: Mapping[str, LockedPackage],
    reasons: Mapping[tuple[str, str | None, str | None], str],
    *,
    direct: bool,
) -> list[PackageChange]:
    """Return the changes of a section in reading order: changed by kind, then added, removed, rebuilt, each by name."""
    found = []
    for what in WHATS:
        for name in getattr(section, what):
            old, new = before.get(name), after.get(name)
            kind = change_kind(old.version, new.version) if old and new else None
            why = reasons.get((name, _label(old), _label(new)), "")
            found.append(PackageChange(name=name, what=what, direct=direct, kind=kind, old=old, new=new, why=why))
    return sorted(
        found, key=lambda item: (WHATS.index(item.what), KINDS.index(item.kind) if item.kind else 0, item.name)
    )


def _layers(
    before: Sequence[LockedPackage],
    after: Sequence[LockedPackage],
    old_plan: LayerPlan | None,
    new_plan: LayerPlan | None,
) -> tuple[LayerChange, ...]:
    """Return the layers of either release by their plans; none where no plan is."""
    if old_plan is None or new_plan is None:
        return ()
    old, new = _grouped(before, old_plan), _grouped(after, new_plan)
    return tuple(
        LayerChange(
            name=name,
            old=_amount(old.get(name)),
            new=_amount(new.get(name)),
            sent=name in new and _content(new[name]) != _content(old.get(name, [])),
        )
        for name in sorted({*old, *new})
    )


def _grouped(packages: Sequence[LockedPackage], plan: LayerPlan) -> dict[str, list[LockedPackage]]:
    layers: dict[str, list[LockedPackage]] = {}
    for package in packages:
        layers.setdefault(plan.layers.get(package.name, f"package-{package.name}"), []).append(package)
    return layers


def _amount(packages: Sequence[LockedPackage] | None) -> Amount | None:
    return None if packages is None else Amount.of(item.size for item in packages)


def _content(packages: Sequence[LockedPackage]) -> set[str]:
    return {package.sha256 or package.md5 or package.dist for package in packages}


def _download(
    old: ImageFacts | None, new: ImageFacts | None, layers: Sequence[LayerChange], changes: Sequence[PackageChange]
) -> Download:
    """Return the bytes by the digests of layers where both images are known, else an estimate from the packages."""
    if old is not None and new is not None and old.source == new.source:
        had = {layer.digest for layer in old.layers}
        sent = sum(layer.size for layer in new.layers if layer.digest not in had)
        if new.source == "build.json" and old.base_digest != new.base_digest:
            sent += new.size - sum(layer.size for layer in new.layers)
        return Download(amount=Amount(sent), exact=True, how=f"layers that differ, by {new.source}")
    if layers:
        sizes = [layer.new for layer in layers if layer.sent and layer.new is not None]
        amount = Amount(sum(size.known for size in sizes), sum(size.unknown for size in sizes))
        return Download(amount=amount, exact=False, how="package archives of the layers that change, without the base")
    amount = Amount.of(item.new.size for item in changes if item.new is not None)
    return Download(amount=amount, exact=False, how="package archives that change, without layers and base")
