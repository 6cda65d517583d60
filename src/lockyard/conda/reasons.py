"""Why a lock differs from the base release's lock, and where the locks of a release disagree. Values in, values out."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lockyard.conda.lock import LockedPackage, Reason

ASKED = "asked"
BOUND = "bound"
FRESH = "fresh"
UNAVAILABLE = "not available any more"
UNREQUIRED = "not required any more"
CONFLICT = "conflict"
_DEPENDENCY_NAME_RE = re.compile(r"[A-Za-z0-9_.-]+")

Packages = Mapping[str, LockedPackage]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked of a solve, as far as reasons depend on it.

    `specs` is name → the texts of its specs without channel; `update` the names of `--update`; `was_direct` the names
    in the base release's `env.in`; `unavailable` the preferred packages that no channel has any more; `earlier` the
    reasons that the release's own lock had before.
    """

    specs: Mapping[str, Sequence[str]]
    update: Collection[str] = ()
    fresh: bool = False
    was_direct: Collection[str] = ()
    unavailable: Collection[str] = ()
    earlier: Sequence[Reason] = ()


def by_name(packages: Iterable[LockedPackage]) -> dict[str, LockedPackage]:
    """Return name → package."""
    return {package.name: package for package in packages}


def explain(base: Packages, new: Packages, asked: Asked) -> tuple[Reason, ...]:
    """Return one reason for each package that was added, removed, moved or rebuilt since `base`, sorted by name.

    A change that an earlier run already explained keeps its reason: a re-lock does not forget what was asked.
    """
    known = {(reason.name, reason.old, reason.new): reason for reason in asked.earlier}
    view = _View(base, new, asked)
    reasons = []
    for name in sorted({*base, *new}):
        old, now = _label(base.get(name)), _label(new.get(name))
        if old != now:
            reasons.append(known.get((name, old, now)) or Reason(name, old, now, view.kind(name)))
    return tuple(reasons)


@dataclass(frozen=True)
class Disagreement:
    """A package of which the types of a release have different versions or builds on one platform.

    `versions` is type → `VERSION BUILD`, `why` type → what in that type's lock excludes the others' version.
    """

    platform: str
    name: str
    versions: Mapping[str, str]
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_version(self) -> bool:
        """Whether versions differ, not only builds."""
        return len({text.split()[0] for text in self.versions.values()}) > 1


def disagreements(types: Mapping[str, Mapping[str, Sequence[LockedPackage]]]) -> tuple[Disagreement, ...]:
    """Compare type → platform → packages; sorted by platform and name."""
    found = []
    for platform in sorted({platform for platforms in types.values() for platform in platforms}):
        locks = {kind: by_name(platforms[platform]) for kind, platforms in types.items() if platform in platforms}
        for name in sorted({name for lock in locks.values() for name in lock}):
            having = {kind: lock[name] for kind, lock in locks.items() if name in lock}
            if len({(package.version, package.build) for package in having.values()}) > 1:
                labels = {kind: f"{package.version} {package.build}" for kind, package in having.items()}
                found.append(Disagreement(platform, name, labels, _excluders(name, having, locks)))
    return tuple(found)


def is_newer(old: LockedPackage, new: LockedPackage) -> bool:
    """Tell whether `new` has a higher version, or the same version and a higher build number."""
    from rattler import Version

    before, after = Version(old.version), Version(new.version)
    return bool(after > before) or (before == after and new.build_number > old.build_number)


def is_lower(old: LockedPackage, new: LockedPackage) -> bool:
    """Tell whether `new` has a lower version."""
    from rattler import Version

    return bool(Version(new.version) < Version(old.version))


@dataclass(frozen=True)
class _View:
    base: Packages
    new: Packages
    asked: Asked

    def kind(self, name: str) -> str:
        if name not in self.new:
            return self._removed(name)
        if name not in self.base:
            return self._added(name)
        return self._moved(name)

    def _removed(self, name: str) -> str:
        if name in self.asked.was_direct:
            return ASKED
        return UNAVAILABLE if name in self.asked.unavailable else UNREQUIRED

    def _added(self, name: str) -> str:
        if name in self.asked.specs or name in self.asked.update:
            return ASKED
        requirers = [package for package in self.new.values() if any(_names(text, name) for text in package.depends)]
        return self._required_by(requirers)

    def _moved(self, name: str) -> str:
        old, asked = self.base[name], self.asked
        if name in asked.update:
            return ASKED
        if not all(matches(text, old) for text in asked.specs.get(name, ())):
            return BOUND
        if name in asked.unavailable:
            return UNAVAILABLE
        if asked.fresh:
            return FRESH
        return self._required_by([*excluding(old, self.new.values()), *needs_another(old, self.new)])

    def _required_by(self, packages: Sequence[LockedPackage]) -> str:
        """Name the one that moved itself, if there is one, as that is where the change comes from."""
        if not packages:
            return CONFLICT
        moved = [package for package in packages if _label(self.base.get(package.name)) != _label(package)]
        return f"required by {min(package.name for package in moved or packages)}"


def excluding(package: LockedPackage, others: Iterable[LockedPackage]) -> list[LockedPackage]:
    """Return those of `others` whose dependencies or constraints exclude exactly `package`."""
    return [
        other
        for other in others
        if any(
            _names(text, package.name) and not matches(text, package) for text in (*other.depends, *other.constrains)
        )
    ]


def needs_another(package: LockedPackage, others: Packages) -> list[LockedPackage]:
    """Return those of `others` that the dependencies of `package` exclude."""
    found = []
    for text in (*package.depends, *package.constrains):
        other = others.get(_dependency_name(text))
        if other is not None and not matches(text, other):
            found.append(other)
    return found


def matches(spec: str, package: LockedPackage) -> bool:
    """Tell whether a match spec without channel accepts a package."""
    from rattler import BuildString, MatchSpec, PackageRecord

    record = PackageRecord(
        package.name,
        package.version,
        BuildString(package.build),
        package.build_number,
        package.subdir,
        sha256=bytes.fromhex(package.sha256) if package.sha256 else None,
        md5=bytes.fromhex(package.md5) if package.md5 else None,
    )
    return bool(MatchSpec(spec).matches(record))


def _excluders(name: str, having: Packages, locks: Mapping[str, Packages]) -> dict[str, str]:
    """Return type → the packages of its lock that exclude the version another type has."""
    why = {}
    for kind, own in having.items():
        others = [package for package in having.values() if package != own]
        found = sorted({other.name for package in others for other in excluding(package, locks[kind].values())})
        if found:
            why[kind] = f"{', '.join(found[:3])} {'excludes' if len(found) == 1 else 'exclude'} the other {name}"
    return why


def _label(package: LockedPackage | None) -> str | None:
    return None if package is None else f"{package.version} {package.build}"


def _names(spec: str, name: str) -> bool:
    return spec.startswith(name) and _dependency_name(spec) == name


def _dependency_name(spec: str) -> str:
    match = _DEPENDENCY_NAME_RE.match(spec)
    return match[0].lower() if match else ""
