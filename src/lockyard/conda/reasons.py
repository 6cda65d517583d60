"""Why a lock differs from the base release's lock, and where the locks of a release disagree. Values in, values out."""

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lockyard.conda.lock import LockedPackage, Reason

ASKED = "asked"
BOUND = "bound"
FRESH = "fresh"
UNAVAILABLE = "not available any more"
UNREQUIRED = "not required any more"
_DEPENDENCY_NAME_RE = re.compile(r"[A-Za-z0-9_.-]+")

Packages = Mapping[str, LockedPackage]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked of a solve, as far as reasons depend on it.

    `specs` is name → the texts of its specs without channel; `update` the names of `--update`; `was_direct` the names
    in the base release's `env.in`; `unavailable` the preferred packages that no channel has any more; `agreed` is direct
    package → the platform that has no newer one, for those that differed between platforms; `earlier` the reasons that the
    release's own lock had before.
    """

    specs: Mapping[str, Sequence[str]]
    update: Collection[str] = ()
    fresh: bool = False
    was_direct: Collection[str] = ()
    unavailable: Collection[str] = ()
    agreed: Mapping[str, str] = field(default_factory=dict)
    earlier: Sequence[Reason] = ()


def by_name(packages: Iterable[LockedPackage]) -> dict[str, LockedPackage]:
    """Return name → package."""
    return {package.name: package for package in packages}


def explain(base: Packages, new: Packages, asked: Asked) -> tuple[Reason, ...]:
    """Return one reason for each package that was added, removed, moved or rebuilt since `base`, sorted by name.

    A change that an earlier run already explained keeps its reason: a re-lock does not forget what was asked.
    """
    known = {(reason.name, reason.old, reason.new): reason for reason in asked.earlier}
    changes = {
        name: (_label(base.get(name)), _label(new.get(name)))
        for name in sorted({*base, *new})
        if _label(base.get(name)) != _label(new.get(name))
    }
    kinds = _View(base, new, asked, frozenset(changes)).kinds()
    return tuple(known.get((name, *change)) or Reason(name, *change, kinds[name]) for name, change in changes.items())


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
    changed: frozenset[str]

    def kinds(self) -> dict[str, str]:
        """Return changed name → kind.

        What a changed package requires is explained by the one that requires it, beginning with those that have a reason
        of their own: of all that exclude the old libfreetype, the matplotlib that was asked for comes before freetype,
        which followed libfreetype.
        """
        kinds = {name: kind for name in self.changed if (kind := self._own_kind(name))}
        causes = {name: self._causes(name) for name in self.changed - kinds.keys()}
        level = set(kinds)
        while level:
            level = {name for name in causes.keys() - kinds.keys() if causes[name] & level}
            kinds |= {name: f"required by {min(causes[name] & kinds.keys())}" for name in level}
        roots = frozenset(kinds)
        for name in causes.keys() - kinds.keys():
            # A circle, or only packages that stayed: they are the reason then. Else the solver had to, and no single
            # package says why: the nearest change that has a reason of its own is behind it.
            found = min(causes[name], default=None) or self._nearest(name, roots)
            kinds[name] = f"required by {found}" if found else UNAVAILABLE
        return kinds

    def _nearest(self, name: str, roots: frozenset[str]) -> str | None:
        """Return that of `roots` which the fewest dependencies, in either direction, lead to from `name`.

        Packages that none leads to count as far away, so that it is `None` for no roots only.
        """
        seen, level = {name}, {name}
        while level and not level & roots:
            level = {other for one in level for other in self._neighbours.get(one, ())} - seen
            seen |= level
        return min(level & roots or roots, default=None)

    @functools.cached_property
    def _neighbours(self) -> dict[str, set[str]]:
        """Name → the packages of either lock that it names as dependencies or constraints, or that name it."""
        found: dict[str, set[str]] = {}
        for package in (*self.base.values(), *self.new.values()):
            for other in {_dependency_name(text) for text in (*package.depends, *package.constrains)}:
                found.setdefault(package.name, set()).add(other)
                found.setdefault(other, set()).add(package.name)
        return found

    def _own_kind(self, name: str) -> str | None:
        """Return the reason that a package has by itself, `None` when others are the reason."""
        if name not in self.new:
            return self._removed(name)
        if name in self.asked.update or (name not in self.base and name in self.asked.specs):
            return ASKED
        return self._moved(name) if name in self.base else None

    def _moved(self, name: str) -> str | None:
        asked = self.asked
        if not all(matches(text, self.base[name]) for text in asked.specs.get(name, ())):
            return BOUND
        if name in asked.unavailable:
            return UNAVAILABLE
        if name in asked.agreed:
            return f"required by {asked.agreed[name]}"
        return FRESH if asked.fresh else None

    def _removed(self, name: str) -> str:
        if name in self.asked.was_direct:
            return ASKED
        return UNAVAILABLE if name in self.asked.unavailable else UNREQUIRED

    @functools.cached_property
    def _mentions(self) -> dict[str, list[LockedPackage]]:
        """Name → the packages of the new lock whose dependencies or constraints name it."""
        found: dict[str, dict[str, LockedPackage]] = {}
        for package in self.new.values():
            for text in (*package.depends, *package.constrains):
                found.setdefault(_dependency_name(text), {})[package.name] = package
        return {name: list(packages.values()) for name, packages in found.items()}

    def _causes(self, name: str) -> frozenset[str]:
        """Return the packages of the new lock that require an added package, or exclude the old one of a moved."""
        near = self._mentions.get(name, [])
        if name not in self.base:
            found = [item for item in near if any(_names(text, name) for text in item.depends)]
        else:
            old = self.base[name]
            # Of an adopted lock nothing but the name is known; then only what others say counts.
            found = [*excluding(old, near), *needs_another(old, self.new)]
        return frozenset(item.name for item in found) - {name}


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
