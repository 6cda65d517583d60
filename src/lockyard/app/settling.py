"""Solve one platform of an image type so that nothing moves without need, and nothing goes down."""

import dataclasses
import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lockyard.conda.lock import LockedPackage
from lockyard.conda.reasons import by_name, excluding, is_lower, is_newer, matches, needs_another
from lockyard.conda.relax import fewest_dropped, most_kept
from lockyard.errors import UnsatisfiableError
from lockyard.ports import Log
from lockyard.ports.solving import Solver, SolveRequest

_MOST_SOLVES = 24
"""How many solves the search for the fewest packages that go down may take; each takes about 0.1 s for 300 packages."""
_MOST_STILL = 16
"""How many solves the search for packages that need not move may take: enough for all but a new Python."""
_WORD_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Packages = tuple[LockedPackage, ...]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """One platform's packages; `lowered` went down, `stuck` did not move by `--update`, `unavailable` are gone."""

    packages: Packages
    lowered: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    unavailable: frozenset[str] = frozenset()
    known: Mapping[str, LockedPackage] = field(default_factory=dict)
    """The old packages as the channels have them."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One platform to be solved.

    `request` has the specs, and the constraints that hold whatever happens; `specs` is name → the texts of its own specs
    without channel; `old` is name → the package that stays unless something asks otherwise; `before` are the packages of
    the types before, in their order.
    """

    solver: Solver
    log: Log
    request: SolveRequest
    specs: Mapping[str, Sequence[str]]
    old: Mapping[str, LockedPackage]
    before: Sequence[Sequence[LockedPackage]] = ()
    update: frozenset[str] = frozenset()
    fresh: bool = False
    moving: set[str] = field(default_factory=set)
    """Packages that earlier solves of this platform could not leave where they are; not tried again, more come to it."""

    conflicts: dict[tuple[str, ...], list[frozenset[str]]] = field(default_factory=dict)
    """Constraints → the bounds that earlier solves of this platform found in conflict; more come to it."""

    dropped: list[frozenset[str]] = field(default_factory=list)
    """Bounds that earlier solves of this platform had to drop; more come to it."""

    def settle(self) -> Settled:
        """Solve.

        Raises:
            UnsatisfiableError: the specs alone cannot be met.

        """
        packages, dropped = self._bounded()
        within = dataclasses.replace(self, request=self._constrained(self._bounds(dropped)))
        return within._settle(packages, dropped)  # noqa: SLF001 - another object of this class

    def _settle(self, packages: Packages, dropped: frozenset[str]) -> Settled:
        """Go on from a first result, within the bounds that hold."""
        if not self.fresh:
            packages = self._still(packages)
        packages, stuck = self._updated(packages)
        packages = self._agreeing(packages)
        now = by_name(packages)
        return Settled(
            packages=packages,
            lowered=tuple(sorted(name for name in dropped if name in now and is_lower(self.old[name], now[name]))),
            stuck=stuck,
            unavailable=self.unavailable,
            known=self.known,
        )

    @functools.cached_property
    def known(self) -> Mapping[str, LockedPackage]:
        """The old packages as the channels have them."""
        return by_name(self.solver.available(dataclasses.replace(self.request, preferred=tuple(self.old.values()))))

    @property
    def unavailable(self) -> frozenset[str]:
        """The old packages that no channel has any more."""
        return frozenset(self.old.keys() - self.known.keys())

    def is_acceptable(self, name: str) -> bool:
        """Tell whether the old package meets its own specs and is still to be had."""
        return name in self.known and self._is_asked(name)

    def _is_asked(self, name: str) -> bool:
        return all(matches(text, self.old[name]) for text in self.specs.get(name, ()))

    @functools.cached_property
    def _preferred(self) -> dict[str, LockedPackage]:
        """Old packages that can stay, then those of the types before."""
        found = {} if self.fresh else {name: item for name, item in self.old.items() if self.is_acceptable(name)}
        for packages in self.before:
            for package in packages:
                found.setdefault(package.name, package)
        return found

    def _bounds(self, dropped: Collection[str]) -> list[str]:
        """Return one `>=` for each old package that its own specs let stay."""
        return [
            f"{name}[version='>={package.version}']"
            for name, package in sorted(self.old.items())
            if name not in dropped and self._is_asked(name)
        ]

    def _constrained(
        self, constraints: Iterable[str], preferred: Iterable[LockedPackage] | None = None
    ) -> SolveRequest:
        chosen = self._preferred.values() if preferred is None else preferred
        return dataclasses.replace(
            self.request, preferred=tuple(chosen), constraints=(*self.request.constraints, *constraints)
        )

    def _attempt(self, constraints: Iterable[str]) -> tuple[Packages | None, frozenset[str]]:
        """Solve; where that is impossible return the words of the conflict, names of packages among them."""
        try:
            return self.solver.solve(self._constrained(constraints)), frozenset()
        except UnsatisfiableError as error:
            return None, frozenset(_WORD_RE.findall("\n".join(error.details)))

    def _bounded(self) -> tuple[Packages, frozenset[str]]:
        """Solve so that no package goes down; where that is impossible drop the fewest of these bounds."""
        try:
            return self.solver.solve(self._constrained(self._bounds(()))), frozenset()
        except UnsatisfiableError as error:
            try:
                free = self.solver.solve(self._constrained(()))
            except UnsatisfiableError as real:
                raise real from error
        self.log.detail(f"{self.request.platform}: something must go down; looking for the least")
        bounded = frozenset(name for name in self.old if self._is_asked(name))

        def attempt(kept: frozenset[str]) -> tuple[Packages | None, frozenset[str]]:
            return self._attempt(self._bounds(bounded - kept))

        for dropped in self.dropped:
            # What was the least without these constraints is the least with them, if it is enough.
            packages, _ = attempt(bounded - dropped)
            if packages is not None:
                return packages, dropped
        # A conflict without the constraints of this solve is one with them, too.
        mine = self.conflicts.setdefault(self.request.constraints, [])
        mine += [conflict for conflict in self.conflicts.get((), ()) if conflict <= bounded and conflict not in mine]
        found = fewest_dropped(bounded, attempt, limit=_MOST_SOLVES, conflicts=mine)
        if found is not None:
            self.dropped.append(found[1])
            return found
        # Too many conflicts for the exact answer: start from what the free solve lowered, put back what can be.
        lowered = [item.name for item in free if item.name in bounded and is_lower(self.old[item.name], item)]
        others = bounded.difference(lowered)
        packages, kept = most_kept(lowered, lambda names: attempt(others | names), limit=_MOST_SOLVES)
        self.dropped.append(frozenset(lowered) - kept)
        return packages or attempt(others)[0] or free, self.dropped[-1]

    def _still(self, packages: Packages) -> Packages:
        """Put back what moved without need.

        What the specs asked for stays as it was solved. Of the rest as much as possible goes back to the old package.
        """
        now = by_name(packages)
        moved = [
            name
            for name in self.old
            if name in now and now[name] != self.old[name] and not _is_one(now, self.old, name)
        ]
        movable = {name for name in moved if self.is_acceptable(name)}
        asked = {name: now[name] for name in self.specs if name in now and name not in movable}
        needed = {name for name in movable if _excluded(self.known[name], asked)}
        candidates = sorted(movable - needed - self.moving, key=lambda name: (name not in self.specs, name))
        if not candidates:
            return packages
        fixed = {name: item for name, item in now.items() if name in asked or _is_one(now, self.old, name)}

        def attempt(names: frozenset[str]) -> tuple[Packages | None, frozenset[str]]:
            return self._attempt(map(_exactly, [*fixed.values(), *(self.old[name] for name in sorted(names))]))

        found, kept = most_kept(candidates, attempt, limit=_MOST_STILL)
        self.moving.update(set(candidates) - kept)
        if kept:
            self.log.detail(f"{self.request.platform}: {len(kept)} packages need not move: {', '.join(sorted(kept))}")
        return found or packages

    def _updated(self, packages: Packages) -> tuple[Packages, tuple[str, ...]]:
        """Move what `--update` names, starting from a solve without it.

        Only these packages move if something newer fits beside all the others as they are; if not, something newer is
        demanded and the others, still preferred, may follow. The types before are preferred for the moved packages.
        """
        settled = by_name(packages)
        names = self.update & self.old.keys() & settled.keys()
        if not names:
            return packages, ()
        chosen = {
            package.name: package
            for items in reversed(self.before)
            for package in items
            if package.name in names and is_newer(settled[package.name], package)
        }
        others = {name: package for name, package in settled.items() if name not in names}
        preferred = (*others.values(), *chosen.values())
        packages = self.solver.solve(self._constrained(map(_exactly, others.values()), preferred))
        for name in sorted(names):
            if is_newer(settled[name], by_name(packages)[name]):
                continue
            rest = tuple(package for package in packages if package.name != name)
            # Nothing newer fits beside the others: demand it, else it stays; it goes neither down nor sideways.
            moved = self._newer(rest, settled[name])
            packages = moved or self.solver.solve(self._constrained((), (*rest, settled[name])))
        return packages, tuple(sorted(name for name in names if not is_newer(self.old[name], by_name(packages)[name])))

    def _newer(self, rest: Packages, old: LockedPackage) -> Packages | None:
        for asked in (
            f"{old.name}[version='>{old.version}']",
            f"{old.name}[version='=={old.version}',build_number='>{old.build_number}']",
        ):
            request = self._constrained((), rest)
            try:
                return self.solver.solve(dataclasses.replace(request, specs=(*request.specs, asked)))
            except UnsatisfiableError:
                continue
        return None

    def _agreeing(self, packages: Packages) -> Packages:
        """Take the versions of the types before where that moves nothing that can stay.

        A build of another type often cannot be taken (CPU and GPU builds), so preferring it does nothing; its version can.
        """
        wanted: dict[str, LockedPackage] = {}
        for items in self.before:
            for package in items:
                wanted.setdefault(package.name, package)
        fixed = {
            item.name for item in packages if not self.fresh and _is_one({item.name: item}, self.old, item.name)
        } | self.update
        taken: list[str] = []
        for name in self._differing(packages, wanted, fixed):
            if name not in self._differing(packages, wanted, fixed):
                continue  # an earlier one brought it along
            stay = [_exactly(item) for item in packages if item.name in fixed]
            asked = f"{name}[version='=={wanted[name].version}']"
            try:
                found = self.solver.solve(self._constrained([*stay, *taken, asked]))
            except UnsatisfiableError:
                continue
            if len(self._differing(found, wanted, fixed)) < len(self._differing(packages, wanted, fixed)):
                packages = found
                taken.append(asked)
        return packages

    def _differing(
        self, packages: Packages, wanted: Mapping[str, LockedPackage], fixed: Collection[str]
    ) -> tuple[str, ...]:
        """Return the names whose version is another than in `wanted`, what the specs name first."""
        names = [
            item.name
            for item in packages
            if item.name in wanted and item.name not in fixed and item.version != wanted[item.name].version
        ]
        return tuple(sorted(names, key=lambda name: (name not in self.specs, name)))


def _is_one(now: Mapping[str, LockedPackage], old: Mapping[str, LockedPackage], name: str) -> bool:
    """Tell whether both have the same build of a package; an adopted lock knows no more of it."""
    return name in old and name in now and (old[name].version, old[name].build) == (now[name].version, now[name].build)


def _excluded(package: LockedPackage, fixed: Mapping[str, LockedPackage]) -> bool:
    """Tell whether `package` cannot live beside one of `fixed`."""
    return bool(excluding(package, fixed.values())) or bool(needs_another(package, fixed))


def _exactly(package: LockedPackage) -> str:
    return f"{package.name}[version='=={package.version}',build='{package.build}']"
