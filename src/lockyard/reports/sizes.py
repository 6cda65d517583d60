"""Why an image grew: sizes of packages and images of a release against its base, and a budget for new packages."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lockyard.reports.changes import Comparison, PackageChange, TypeComparison
from lockyard.reports.diffs import versions
from lockyard.reports.model import Amount
from lockyard.reports.text import cell, count, human_size, markdown_table, percent, signed_size

TOP = 20
BUDGET = 5.0
"""Per cent of the base's packages that new packages may weigh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeSizes:
    """One image type: bytes of package archives; `image` is (base, target) as registries hold them, where known."""

    comparison: TypeComparison
    new_packages: Amount
    image: tuple[int | None, int | None] = (None, None)

    @property
    def share(self) -> float | None:
        """New packages in per cent of all packages of the base; `None` when a size is unknown."""
        base, new = self.comparison.old_size.exact, self.new_packages.exact
        if new == 0 and not self.new_packages.unknown:
            return 0.0
        return None if not base or new is None else 100 * new / base

    @property
    def top(self) -> tuple[PackageChange, ...]:
        """The changes that weigh most, by bytes gained or lost."""
        known = [item for item in self.comparison.changes if item.grown]
        return tuple(sorted(known, key=lambda item: (-abs(item.grown or 0), item.name))[:TOP])


def type_sizes(comparison: Comparison, images: Mapping[str, tuple[int | None, int | None]]) -> dict[str, TypeSizes]:
    """Weigh every type; `images` is type → image bytes of base and target."""
    return {
        name: TypeSizes(
            comparison=item,
            new_packages=Amount.of(change.new.size for change in item.changes if change.what == "added" and change.new),
            image=images.get(name, (None, None)),
        )
        for name, item in comparison.types.items()
    }


def over_budget(types: Mapping[str, TypeSizes], budget: float) -> tuple[str, ...]:
    """Return one line for each type whose new packages weigh more than `budget` per cent, or cannot be weighed."""
    lines = []
    for name, item in types.items():
        if item.share is None:
            unknown = item.new_packages.unknown or item.comparison.old_size.unknown
            lines.append(
                f"{name}: the sizes of {count(unknown, 'package')} are unknown, so the budget cannot be checked"
            )
        elif item.share > budget:
            new = [change for change in item.comparison.changes if change.what == "added" and change.new]
            biggest = max(new, key=lambda change: change.new.size or 0 if change.new else 0)
            lines.append(
                f"{name}: {count(len(new), 'new package')} weigh {human_size(item.new_packages.known)}, "
                f"{item.share:.1f} % of the base (budget {budget:g} %); the biggest is {biggest.name}"
            )
    return tuple(lines)


def render_markdown(base: str, target: str, types: Mapping[str, TypeSizes], *, everything: bool = False) -> str:
    """Return the report; `everything` lists all packages of the target, not only what weighs most in the change."""
    lines = [f"# Sizes: {base} → {target}", ""]
    rows = []
    for name, item in types.items():
        old, new = item.comparison.old_size, item.comparison.new_size
        rows.append((name, "packages", _size(old), _size(new), *_grown(old.exact, new.exact)))
        if item.image != (None, None):
            rows.append((name, "image", human_size(item.image[0]), human_size(item.image[1]), *_grown(*item.image)))
        share = "" if item.share is None else f"+{item.share:.1f} %"
        rows.append((name, "new packages", "", _size(item.new_packages), "", share))
    lines += markdown_table(["type", "what", f">{base}", f">{target}", ">change", ">share"], rows)
    for name, item in types.items():
        if item.top:
            lines += ["", f"## {cell(name)}: what weighs most in the change", ""]
            values = ([change.name, versions(change), _word(change), signed_size(change.grown)] for change in item.top)
            lines += markdown_table(["package", "version", "change", ">bytes"], values)
        if everything:
            lines += ["", f"## {cell(name)}: all packages", "", *_all(item)]
    return "\n".join(lines) + "\n"


def render_json(base: str, target: str, types: Mapping[str, TypeSizes], all_sizes: Mapping[str, Any]) -> str:
    """Return JSON; `all_sizes` is type → package → bytes of the target."""
    value = {
        "base": base,
        "target": target,
        "types": {
            name: {
                "base": item.comparison.old_size.exact,
                "target": item.comparison.new_size.exact,
                "unknown": item.comparison.new_size.unknown,
                "new_packages": item.new_packages.exact,
                "new_packages_percent": None if item.share is None else round(item.share, 3),
                "image": {"base": item.image[0], "target": item.image[1]},
                "packages": all_sizes.get(name, {}),
                "top": [{"name": change.name, "change": change.what, "bytes": change.grown} for change in item.top],
            }
            for name, item in types.items()
        },
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _all(item: TypeSizes) -> list[str]:
    changes = {change.name: change for change in item.comparison.changes}
    packages = sorted(item.comparison.packages, key=lambda package: (-(package.size or 0), package.name))
    rows = (
        (package.name, package.version, human_size(package.size), signed_size(changes[package.name].grown) if package.name in changes else "")
        for package in packages
    )  # fmt: skip
    return markdown_table(["package", "version", ">size", ">change"], rows)


def _word(change: PackageChange) -> str:
    return {"added": "new", "removed": "removed", "rebuilt": "build"}.get(change.what) or change.kind or ""


def _size(amount: Amount) -> str:
    text = human_size(amount.known)
    return f"{text} and {amount.unknown} unknown" if amount.unknown else text


def _grown(old: int | None, new: int | None) -> tuple[str, str]:
    return ("", "") if old is None or new is None else (signed_size(new - old), percent(new - old, old))
