"""What changed between two releases: direct and indirect packages, versions and builds. Values in, values and text out.

A package is direct when its name is in the release's `env.in`. One that became direct while it was in the base lock is
never "added", one that stopped being direct while it stays in the lock is never "removed": it shows in its new section,
and only if it changed.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lockyard.conda.lock import LockedPackage

_KINDS: tuple[Literal["changed", "added", "removed", "rebuilt"], ...] = ("changed", "added", "removed", "rebuilt")


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


@dataclass(frozen=True, slots=True)
class ReleaseDiff:
    """The difference of two releases, type by type in file order."""

    base: str
    target: str
    types: Mapping[str, LockDiff]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that `diff --json` prints."""
        return {
            "base": self.base,
            "target": self.target,
            "types": {name: value.to_json() for name, value in self.types.items()},
        }


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


def render_json(diff: ReleaseDiff) -> str:
    """Return the JSON text, one final newline."""
    return json.dumps(diff.to_json(), indent=1, ensure_ascii=False) + "\n"


def render_text(diff: ReleaseDiff) -> str:
    """Return plain text for a terminal: one line a package."""
    lines = [f"{diff.base} -> {diff.target}"]
    for image_type, types in diff.types.items():
        lines += ["", f"{image_type}: {_summary(types)}"]
        for title, part in (("direct", types.direct), ("indirect", types.indirect)):
            rows = [(_SIGNS[kind], name, change) for kind in _KINDS for name, change in _changes(part, kind, " -> ")]
            width = max((len(name) for _, name, _ in rows), default=0)
            lines += (
                [f"  {title}", *(f"    {sign} {name:<{width}}  {text}" for sign, name, text in rows)] if rows else []
            )
    return "\n".join(lines) + "\n"


def render_markdown(diff: ReleaseDiff) -> str:
    """Return Markdown for a pull request: direct packages in the open, indirect ones folded."""
    lines = [f"## {diff.base} → {diff.target}", ""]
    for image_type, types in diff.types.items():
        lines += [f"### {image_type}", "", f"{_summary(types).capitalize()}.", ""]
        lines += _table(types.direct)
        indirect = _table(types.indirect)
        if indirect:
            lines += ["<details>", "<summary>Indirect packages</summary>", "", *indirect, "</details>", ""]
    return "\n".join(lines).rstrip() + "\n"


_SIGNS = {"changed": "~", "added": "+", "removed": "-", "rebuilt": "="}


def _changes(
    part: Section, kind: Literal["changed", "added", "removed", "rebuilt"], arrow: str
) -> list[tuple[str, str]]:
    values: Mapping[str, str | tuple[str, str]] = getattr(part, kind)
    return [(name, value if isinstance(value, str) else arrow.join(value)) for name, value in values.items()]


def _table(part: Section) -> list[str]:
    rows = [f"| {name} | {kind} | {_cell(change)} |" for kind in _KINDS for name, change in _changes(part, kind, " → ")]
    return ["| package | change | version |", "|---|---|---|", *rows, ""] if rows else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _summary(types: LockDiff) -> str:
    counts = [
        f"{number} {kind}"
        for kind in _KINDS
        if (number := len(getattr(types.direct, kind)) + len(getattr(types.indirect, kind)))
    ]
    return ", ".join(counts) or "nothing changed"
