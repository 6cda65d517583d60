"""The texts that live in a release's directory: `CHANGELOG-{type}.md`, `RELEASE.md` and `RELEASE-NOTE.md`.

They say only what committed files say, so that writing them again gives the same bytes on any machine.
"""

from collections.abc import Mapping, Sequence

from lockyard.distribution import Distribution
from lockyard.reports.changes import Comparison, PackageChange, TypeComparison, compare
from lockyard.reports.model import ReleaseFacts, TypeFacts
from lockyard.reports.text import cell, clean, count, human_size, markdown_table
from lockyard.reports.textfiles import RELEASE_NOTES, VERSION_NOTE, changelog_name
from lockyard.tree import File, Tree

MARK = "<!-- Written by `lockyard"
"""What tells our texts from those that an adopted release came with."""
_WORDS = {"changed": "Changed", "added": "New", "removed": "Removed", "rebuilt": "Rebuilt"}


def changelogs(target: ReleaseFacts, base: ReleaseFacts | None) -> Tree:
    """Return the change log of every type; without a base release it says that this is the first."""
    found = compare(base, target) if base else None
    return Tree(
        {changelog_name(name): File.text(_changelog(target, item, found)) for name, item in target.types.items()}
    )


def release_notes(release: ReleaseFacts) -> Tree:
    """Return `RELEASE.md`: the version of each direct package in each image type, in the order of the specs."""
    names = dict.fromkeys(name for item in release.types.values() for name in item.direct)
    versions = {
        name: {package.name: package.version for package in item.packages()} for name, item in release.types.items()
    }
    rows = [(name, *(found.get(name, "-") for found in versions.values())) for name in names]
    lines = [
        f"# Release notes: {release.version}",
        "",
        _mark(release, "generate-release-notes"),
        "",
        "The packages that were asked for, and their version in each image type.",
        "",
        *markdown_table(["Package", *release.types], rows),
    ]
    return Tree({RELEASE_NOTES: File.text("\n".join(lines) + "\n")})


def version_note(release: ReleaseFacts, base: ReleaseFacts | None, distribution: Distribution) -> Tree:
    """Return `RELEASE-NOTE.md`: where the images are, by tag and digest, what they stand on, what changed, where to read on."""
    lines = [f"# {cell(distribution.title)} {release.version}", "", _mark(release, "generate-version-release-note"), ""]
    lines += _images(release)
    lines += _bases(release.types)
    lines += ["## What changed", ""]
    if base is None:
        lines += ["This is the first release.", ""]
    else:
        found = compare(base, release)
        lines += [f"Since {base.version}:", "", *(_change_line(name, item) for name, item in found.types.items()), ""]
    lines += [
        "## Read on",
        "",
        f"- [{RELEASE_NOTES}]({RELEASE_NOTES}): every package that was asked for, with its version",
    ]
    lines += [f"- [{changelog_name(name)}]({changelog_name(name)}): what changed in {name}" for name in release.types]
    for name, item in release.types.items():
        file_name = f"{name}.env.out" if item.is_adopted else f"{name}.lock.json"
        lines.append(f"- [{file_name}]({file_name}): the exact packages of {name}")
    return Tree({VERSION_NOTE: File.text("\n".join(lines) + "\n")})


def release_texts(release: ReleaseFacts, base: ReleaseFacts | None, distribution: Distribution) -> Tree:
    """Return all texts of a release's directory."""
    return changelogs(release, base).merge(release_notes(release)).merge(version_note(release, base, distribution))


def _mark(release: ReleaseFacts, command: str) -> str:
    return f"{MARK} {command} {release.version}`; do not edit. -->"


def _changelog(target: ReleaseFacts, item: TypeFacts, found: Comparison | None) -> str:
    lines = [f"# Change log: {target.version} ({item.image_type})", "", _mark(target, "generate-changelog"), ""]
    changes = found.types[item.image_type] if found else None
    if found is None or changes is None:
        lines.append(
            f"The first release: {count(len(item.packages()), 'package')}, {len(item.direct)} of them asked for."
        )
        return "\n".join(lines) + "\n"
    platform = f" on {changes.platform}" if len(item.lock.platforms) > 1 else ""
    lines.append(
        f"Compared with {found.base}{platform}. Direct packages were asked for, indirect ones are required by others."
    )
    for title, direct in (("Direct packages", True), ("Indirect packages", False)):
        lines += ["", f"## {title}", *_sections(changes, direct=direct)]
    for title, names in (("Became direct", changes.promoted), ("No longer direct", changes.demoted)):
        lines += ["", f"## {title}", "", *(f"- {cell(name)}" for name in names)] if names else []
    return "\n".join(lines) + "\n"


def _sections(changes: TypeComparison, *, direct: bool) -> list[str]:
    lines: list[str] = []
    for what, title in _WORDS.items():
        found = [item for item in changes.of(direct=direct) if item.what == what]
        if found:
            lines += ["", f"### {title} ({len(found)})", "", *_table(what, found)]
    return lines or ["", "No change."]


def _table(what: str, changes: Sequence[PackageChange]) -> list[str]:
    if what in {"added", "removed"}:
        packages = [item.new or item.old for item in changes]
        return markdown_table(["Package", "Version"], [(item.name, item.version) for item in packages if item])
    both = [(item, item.old, item.new) for item in changes]
    if what == "rebuilt":
        rows = [(item.name, new.version, old.build, new.build) for item, old, new in both if old and new]
        return markdown_table(["Package", "Version", "Previous build", "Current build"], rows)
    rows = [(item.name, old.version, new.version, item.kind or "") for item, old, new in both if old and new]
    return markdown_table(["Package", "Previous version", "Current version", "Kind"], rows)


def _images(release: ReleaseFacts) -> list[str]:
    rows = [
        (name, f"{place.repository}:{tag}", f"{place.repository}@{place.digest}")
        for name, item in release.types.items()
        for place in item.published
        for tag in place.tags[:1]
    ]
    lines = ["## Images", ""]
    if not rows:
        return [*lines, "Not published yet.", ""]
    lines += ["| Type | Tag | Digest |", "|---|---|---|"]
    lines += [f"| {cell(name)} | `{clean(tag)}` | `{clean(digest)}` |" for name, tag, digest in rows]
    moving = sorted({tag for item in release.types.values() for place in item.published for tag in place.tags[1:]})
    if moving:
        lines += ["", f"Tags that led here when it was published: {', '.join(f'`{clean(tag)}`' for tag in moving)}."]
    return [*lines, ""]


def _bases(types: Mapping[str, TypeFacts]) -> list[str]:
    rows = [
        (name, platform, image.base, image.base_digest or "unknown", human_size(image.size))
        for name, item in types.items()
        for platform, image in item.images.items()
        if image.source == "images.json"
    ]
    if not rows:
        return []
    return ["## Platforms", "", *markdown_table(["Type", "Platform", "Base", "Base digest", ">Size"], rows), ""]


def _change_line(name: str, item: TypeComparison) -> str:
    direct = len(item.of(direct=True))
    return f"- **{cell(name)}**: {count(len(item.changes), 'package')} differ{'s' if len(item.changes) == 1 else ''}, {direct} of them direct"
