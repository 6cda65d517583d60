"""Solve one image type, and all types of a release: preferences, bounds that keep packages from going down, order."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rattler import Version

from lockyard.app.settling import Platform
from lockyard.app.unsatisfiable import explain_unsatisfiable
from lockyard.conda.bounds import solver_spec
from lockyard.conda.formats import LockInputs
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.conda.reasons import Asked, Disagreement, by_name, disagreements, explain
from lockyard.conda.spec import EnvIn, Spec, SpecLine, parse_spec
from lockyard.errors import UnsatisfiableError
from lockyard.ports import Log
from lockyard.ports.solving import Solver, SolveRequest

_PER_PLATFORM = ("packages", "lowered", "stuck", "unavailable", "known")
Solved = dict[str, tuple[LockedPackage, ...]]
"""Platform → packages."""


_PLATFORM_PACKAGES = "variants.toml: platform-packages"


@dataclass(frozen=True, kw_only=True)
class TypeInputs:
    """What one image type's lock is made from; `lines` are its spec files' lines, `direct` the names in `env.in`."""

    image_type: str
    files: Mapping[str, EnvIn]
    inputs: LockInputs
    own: Lock | None = None
    base: Lock | None = None
    base_direct: frozenset[str] = frozenset()

    @property
    def lines(self) -> tuple[SpecLine, ...]:
        """All spec lines in file order."""
        return tuple(line for file in self.files.values() for line in file.lines)

    @property
    def direct(self) -> frozenset[str]:
        """The names in `env.in`."""
        return frozenset(self.files[f"{self.image_type}.env.in"].by_name)

    def lines_for(self, platform: str) -> tuple[SpecLine, ...]:
        """Return the lines of packages that exist on `platform`, and what `platform-packages` asks of these there."""
        known: dict[str, set[str]] = {}
        more: dict[str, list[SpecLine]] = {}
        for text, platforms in self.inputs.platform_packages.items():
            spec = parse_spec(text, source=_PLATFORM_PACKAGES)
            known.setdefault(spec.name, set()).update(platforms)
            if platform in platforms and spec.is_bounded:
                more.setdefault(spec.name, []).append(SpecLine(spec, _PLATFORM_PACKAGES, 0, text))
        lines = tuple(line for line in self.lines if platform in known.get(line.spec.name, {platform}))
        return (
            *lines,
            *(extra for name in dict.fromkeys(line.spec.name for line in lines) for extra in more.get(name, ())),
        )

    def old(self, platform: str, *, fresh: bool = False) -> tuple[LockedPackage, ...]:
        """Return what stays unless something asks otherwise: the release's own lock, else the base release's."""
        found: dict[str, LockedPackage] = {}
        for lock in (None if fresh else self.own, self.base):
            for package in lock.platforms.get(platform, ()) if lock is not None else ():
                found.setdefault(package.name, package)
        return tuple(found.values())


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked: `--update` names, `--fresh`, `--exclude-newer` (aware), `--offline`."""

    update: frozenset[str] = frozenset()
    fresh: bool = False
    exclude_newer: dt.datetime | None = None
    offline: bool = False


@dataclass
class TypeResult:
    """One type solved: packages, what had to go down, what `--update` could not move, what was not available."""

    packages: Solved = field(default_factory=dict)
    lowered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stuck: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unavailable: dict[str, frozenset[str]] = field(default_factory=dict)
    known: dict[str, Mapping[str, LockedPackage]] = field(default_factory=dict)
    """Platform → the old packages as the channels have them; an adopted lock says little of them."""
    agreed: dict[str, str] = field(default_factory=dict)
    """Direct packages that differed between platforms → the platform that had the lowest version."""


@dataclass(frozen=True, kw_only=True)
class Solving:
    """Solves types of one release."""

    solver: Solver
    log: Log
    root: Path
    wishes: Wishes
    others: Mapping[str, Lock] = field(default_factory=dict)
    """Locks of the types that are not solved now; they are preferred as if they had been solved before."""
    moving: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Type and platform → what solves so far could not leave where it is."""
    conflicts: dict[tuple[str, str], dict[tuple[str, ...], list[frozenset[str]]]] = field(default_factory=dict)
    """Type and platform → constraints → bounds that solves so far found in conflict."""
    dropped: dict[tuple[str, str], list[frozenset[str]]] = field(default_factory=dict)
    """Type and platform → the sets of bounds that solves so far had to drop."""

    def solve_types(self, types: Sequence[TypeInputs]) -> tuple[dict[str, TypeResult], tuple[Disagreement, ...]]:
        """Solve in file order and in reverse, and keep the result with fewer disagreements, file order when equal.

        Raises:
            UnsatisfiableError: a type cannot be solved, or a direct package differs between its platforms.

        """
        results = self._in_order(types)
        differ = self._disagreements(results)
        if differ and len(types) > 1:
            turned = self._in_order(types[::-1])
            fewer = self._disagreements(turned)
            if _weight(fewer) < _weight(differ):
                self.log.detail(f"solved in reverse order: {len(fewer)} disagreements instead of {len(differ)}")
                results, differ = turned, fewer
        return {item.image_type: results[item.image_type] for item in types}, differ

    def _disagreements(self, results: Mapping[str, TypeResult]) -> tuple[Disagreement, ...]:
        solved = {name: result.packages for name, result in results.items()}
        return disagreements({**{name: dict(lock.platforms) for name, lock in self.others.items()}, **solved})

    def _in_order(self, types: Sequence[TypeInputs]) -> dict[str, TypeResult]:
        results: dict[str, TypeResult] = {}
        for inputs in types:
            before = [dict(lock.platforms) for lock in self.others.values()]
            before += [result.packages for result in results.values()]
            results[inputs.image_type] = self._type(inputs, before)
        return results

    def _type(self, inputs: TypeInputs, before: Sequence[Mapping[str, Sequence[LockedPackage]]]) -> TypeResult:
        """Solve every platform so that each direct package has one version on all of them.

        Where they differ the highest version is tried on all; if a platform cannot have it, none may be above the
        lowest, and so on down.
        """
        result = TypeResult()
        platforms = inputs.inputs.platforms
        for platform in platforms:
            try:
                self._platform(inputs, platform, before, result)
            except UnsatisfiableError as error:
                raise explain_unsatisfiable(
                    error,
                    self.solver,
                    self._request(inputs, platform),
                    image_type=inputs.image_type,
                    lines=inputs.lines_for(platform),
                    platforms=platforms,
                ) from error
        caps: dict[str, str] = {}
        while differing := _differing(inputs, result):
            result.agreed |= {name: _lowest(versions) for name, versions in differing.items()}
            trial = self._highest(inputs, before, result, differing, tuple(caps.values()))
            if trial is not None:
                return trial
            caps |= {name: f"{name}[version='<={_order(found)[0]}']" for name, found in differing.items()}
            for platform in platforms:
                try:
                    self._platform(inputs, platform, before, result, tuple(caps.values()))
                except UnsatisfiableError as error:
                    raise _no_common_version(inputs, differing, platform) from error
        return result

    def _highest(
        self,
        inputs: TypeInputs,
        before: Sequence[Mapping[str, Sequence[LockedPackage]]],
        result: TypeResult,
        differing: Mapping[str, Mapping[str, str]],
        caps: tuple[str, ...],
    ) -> TypeResult | None:
        """Return the result with the highest versions of `differing` on all platforms, `None` when one cannot have it."""
        trial = dataclasses.replace(result, **{key: dict(getattr(result, key)) for key in _PER_PLATFORM})
        highest = {name: _order(versions)[-1] for name, versions in differing.items()}
        pins = tuple(f"{name}[version='=={version}']" for name, version in highest.items())
        for platform in inputs.inputs.platforms:
            if all(versions.get(platform) == highest[name] for name, versions in differing.items()):
                continue
            try:
                self._platform(inputs, platform, before, trial, (*caps, *pins))
            except UnsatisfiableError:
                return None
        return None if _differing(inputs, trial) else trial

    def _request(self, inputs: TypeInputs, platform: str, constraints: tuple[str, ...] = ()) -> SolveRequest:
        return SolveRequest(
            specs=tuple(dict.fromkeys(_spec_text(line.spec) for line in inputs.lines_for(platform))),
            channels=inputs.inputs.channels,
            platform=platform,
            root=self.root,
            virtual_packages=inputs.inputs.virtual_packages[platform],
            constraints=constraints,
            exclude_newer=self.wishes.exclude_newer,
            offline=self.wishes.offline,
        )

    def _platform(
        self,
        inputs: TypeInputs,
        platform: str,
        before: Sequence[Mapping[str, Sequence[LockedPackage]]],
        result: TypeResult,
        constraints: tuple[str, ...] = (),
    ) -> None:
        wishes = self.wishes
        settled = Platform(
            solver=self.solver,
            log=self.log,
            request=self._request(inputs, platform, constraints),
            specs=_own_specs(inputs.lines_for(platform)),
            old=by_name(inputs.old(platform, fresh=wishes.fresh)),
            before=[solved[platform] for solved in before if platform in solved],
            update=wishes.update,
            fresh=wishes.fresh,
            moving=self.moving.setdefault((inputs.image_type, platform), set()),
            conflicts=self.conflicts.setdefault((inputs.image_type, platform), {}),
            dropped=self.dropped.setdefault((inputs.image_type, platform), []),
        ).settle()
        result.packages[platform] = settled.packages
        result.lowered[platform] = settled.lowered
        result.stuck[platform] = settled.stuck
        result.unavailable[platform] = settled.unavailable
        result.known[platform] = settled.known


def _weight(differ: Sequence[Disagreement]) -> tuple[int, int]:
    """Return what makes one set of disagreements worse than another: versions first, then all, builds too."""
    return sum(item.is_version for item in differ), len(differ)


def make_lock(inputs: TypeInputs, result: TypeResult, wishes: Wishes, base_version: str | None) -> Lock:
    """Make the lock of a solved type, with the reason of each change since the base release."""
    reasons = {}
    for platform, packages in result.packages.items():
        base = inputs.base.platforms.get(platform) if inputs.base is not None else None
        if base is None:
            continue
        asked = Asked(
            specs=_own_specs(inputs.lines_for(platform)),
            update=wishes.update,
            fresh=wishes.fresh,
            was_direct=inputs.base_direct,
            unavailable=result.unavailable[platform],
            agreed={name: other for name, other in result.agreed.items() if other != platform},
            earlier=inputs.own.reasons.get(platform, ()) if inputs.own is not None else (),
        )
        known = result.known[platform]
        old = {item.name: found if _same(found := known.get(item.name, item), item) else item for item in base}
        reasons[platform] = explain(old, by_name(packages), asked)
    cutoff = wishes.exclude_newer
    return Lock(
        image_type=inputs.image_type,
        platforms=dict(result.packages),
        channels=inputs.inputs.channels,
        virtual_packages=inputs.inputs.virtual_packages,
        specs=tuple(dict.fromkeys(str(line.spec) for line in inputs.lines)),
        exclude_newer=cutoff.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if cutoff is not None else None,
        input_hash=inputs.inputs.digest,
        base=base_version,
        reasons=reasons,
    )


def _differing(inputs: TypeInputs, result: TypeResult) -> dict[str, dict[str, str]]:
    """Return direct package → platform → version, for those that have more than one."""
    locks = {platform: by_name(packages) for platform, packages in result.packages.items()}
    found = {
        name: {platform: lock[name].version for platform, lock in locks.items() if name in lock}
        for name in sorted(inputs.direct)
    }
    return {name: versions for name, versions in found.items() if len(set(versions.values())) > 1}


def _order(versions: Mapping[str, str]) -> list[str]:
    return sorted(versions.values(), key=Version)


def _lowest(versions: Mapping[str, str]) -> str:
    """Return the platform that has the lowest version: it is why the others have it, too."""
    return min(versions, key=lambda platform: (Version(versions[platform]), platform))


def _no_common_version(
    inputs: TypeInputs, differing: Mapping[str, Mapping[str, str]], platform: str
) -> UnsatisfiableError:
    lines = [line for line in inputs.lines if line.spec.name in differing]
    return UnsatisfiableError(
        f"{inputs.image_type}: {', '.join(differing)} cannot have one version on"
        f" {' and '.join(inputs.inputs.platforms)} ({platform} has none that low)",
        hint="widen these lines; or, for a package that one platform does not need, list it under platform-packages",
        details=[
            *(
                f"{name}: {', '.join(f'{version} on {place}' for place, version in versions.items())}"
                for name, versions in differing.items()
            ),
            "the lines that ask for them:",
            *(f"  {line.where}: {line.text}" for line in lines),
        ],
    )


def _spec_text(spec: Spec) -> str:
    """Return the solver's match spec; a line of an explicit list asks for exactly its package."""
    return str(solver_spec(dataclasses.replace(spec, url=None)))


def _same(one: LockedPackage, other: LockedPackage) -> bool:
    return (one.version, one.build) == (other.version, other.build)


def _own_specs(lines: Sequence[SpecLine]) -> dict[str, list[str]]:
    """Return name → the texts of its specs without channel."""
    specs: dict[str, list[str]] = {}
    for line in lines:
        specs.setdefault(line.spec.name, []).append(_spec_text(dataclasses.replace(line.spec, channel=None)))
    return specs
