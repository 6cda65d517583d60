"""What changed between two locks: direct and indirect packages, versions and builds. Values in, values out.

A package is direct when its name is in the release's `env.in`. One that became direct while it was in the base lock is
never "added", one that stopped being direct while it stays in the lock is never "removed": it shows in its new section,
and only if it changed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lockyard.conda.lock import LockedPackage


@dataclass(frozen=True, slots=True)
class Section:
    """The changes of the direct, or of the indirect, packages, each sorted by name.

    `changed` is name → (old version, new version), `rebuilt` name → (old build, new build) of one version, `added` and
    `removed` name → version.
    """

    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    added: Mapping[str, str] = field(default_factory=dict)
    removed: Mapping[str, str] = field(default_factory=dict)
    rebuilt: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed or self.rebuilt)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "changed": {name: list(pair) for name, pair in self.changed.items()},
            "added": dict(self.added),
            "removed": dict(self.removed),
            "rebuilt": {name: list(pair) for name, pair in self.rebuilt.items()},
        }


@dataclass(frozen=True, slots=True)
class LockDiff:
    """The difference of one image type between two releases."""

    direct: Section
    indirect: Section

    def __bool__(self) -> bool:
        return bool(self.direct or self.indirect)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"direct": self.direct.to_json(), "indirect": self.indirect.to_json()}


def diff_locks(
    old: Sequence[LockedPackage],
    new: Sequence[LockedPackage],
    *,
    old_direct: Collection[str],
    new_direct: Collection[str],
) -> LockDiff:
    """Compare two locks; `old_direct` and `new_direct` are the names in the `env.in` of each release."""
    before = {package.name: package for package in old}
    after = {package.name: package for package in new}
    was, now = frozenset(old_direct), frozenset(new_direct)

    def section(is_direct: Callable[[str], bool], was_direct: Callable[[str], bool]) -> Section:
        both = [name for name in sorted(after) if name in before and is_direct(name)]
        return Section(
            changed={
                name: (before[name].version, after[name].version)
                for name in both
                if before[name].version != after[name].version
            },
            added={name: after[name].version for name in sorted(after) if name not in before and is_direct(name)},
            removed={name: before[name].version for name in sorted(before) if name not in after and was_direct(name)},
            rebuilt={
                name: (before[name].build, after[name].build)
                for name in both
                if before[name].version == after[name].version and before[name].build != after[name].build
            },
        )

    return LockDiff(
        direct=section(lambda name: name in now, lambda name: name in was),
        indirect=section(lambda name: name not in now, lambda name: name not in was),
    )
