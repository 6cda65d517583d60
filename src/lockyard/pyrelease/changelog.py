"""A changelog by Keep a Changelog 1.1.0: what is unreleased becomes the section of a version. Pure: text in, text out."""

import datetime as dt
import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from lockyard.errors import ConfigError

_SECTION_RE = re.compile(r"^## +\[?(?P<name>[^\]\s]+)\]?(?P<rest>.*)$", re.MULTILINE)
_KIND_RE = re.compile(r"^### +(?P<name>.+?)\s*$", re.MULTILINE)
_LINK_RE = re.compile(r"^\[(?P<name>[^\]]+)\]: *(?P<url>\S+)\s*$", re.MULTILINE)
_KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
NOTHING = "Nothing that users notice."


@dataclass(frozen=True, slots=True)
class Released:
    """The changelog after a release: its text, and the text of the new section without its heading."""

    text: str
    section: str


def release(text: str, version: Version, day: dt.date, tag: str, *, source: str) -> Released:
    """Make the unreleased entries, and those of its own pre-releases where `version` is final, the section of a version.

    Links at the end (`[Unreleased]: …/compare/v1.0...HEAD`) go on in their own manner, `tag` being the new tag.

    Raises:
        ConfigError: there is no [Unreleased], the version has a section, or a final version has nothing to tell.

    """
    sections = _sections(text)
    names = [name for name, _, _ in sections]
    if "unreleased" not in (name.lower() for name in names):
        raise ConfigError(f"{source} has no section [Unreleased]", hint="see https://keepachangelog.com/en/1.1.0/")
    if str(version) in names:
        line = text.count("\n", 0, sections[names.index(str(version))][1]) + 1
        raise ConfigError(f"{source}:{line}: {version} has a section already")
    merged = [section for section in sections if _belongs(section[0], version)]
    body = _merge([_body(text, start, end) for _, start, end in merged])
    if not body and not version.is_prerelease:
        raise ConfigError(
            f"{source}: [Unreleased] says nothing, and {version} is a final version",
            hint="write what changed for users under ## [Unreleased]",
        )
    section = body or f"{NOTHING}\n"
    heading = f"## [Unreleased]\n\n## [{version}] - {day.isoformat()}\n\n{section}"
    return Released(_linked(_replaced(text, merged, heading), version, tag), section)


def section_of(text: str, version: Version) -> str | None:
    """Return the text of a version's section, `None` when there is none."""
    found = [_body(text, start, end) for name, start, end in _sections(text) if name == str(version)]
    return found[0] if found else None


def _sections(text: str) -> list[tuple[str, int, int]]:
    """Return (name, start, end) of each section; the last one ends where the links begin."""
    found = list(_SECTION_RE.finditer(text))
    last = _LINK_RE.search(text, found[-1].end()) if found else None
    ends = [match.start() for match in found[1:]] + [last.start() if last else len(text)]
    return [(match["name"], match.start(), end) for match, end in zip(found, ends, strict=False)]


def _body(text: str, start: int, end: int) -> str:
    lines = text[start:end].splitlines()[1:]
    body = "\n".join(lines).strip("\n")
    return f"{body}\n" if body and body != NOTHING else ""


def _belongs(name: str, version: Version) -> bool:
    """Tell whether a section's entries go into that of `version`."""
    if name.lower() == "unreleased":
        return True
    try:
        other = Version(name)
    except InvalidVersion:
        return False
    return (
        not version.is_prerelease
        and other.is_prerelease
        and Version(other.base_version) == Version(version.base_version)
    )


def _merge(bodies: list[str]) -> str:
    """Join the entries kind by kind, newest first within a kind; text before the first kind comes first."""
    kinds: dict[str, list[str]] = {}
    for body in bodies:
        found = list(_KIND_RE.finditer(body))
        head = body[: found[0].start() if found else len(body)].strip("\n")
        if head:
            kinds.setdefault("", []).append(head)
        for match, after in zip(found, [*found[1:], None], strict=False):
            entries = body[match.end() : after.start() if after else len(body)].strip("\n")
            if entries:
                kinds.setdefault(match["name"], []).append(entries)
    order = sorted(kinds, key=lambda kind: (kind != "", _KINDS.index(kind) if kind in _KINDS else len(_KINDS)))
    parts = [f"### {kind}\n\n" * bool(kind) + _joined(kinds[kind]) for kind in order]
    return "\n\n".join(parts) + "\n" if parts else ""


def _joined(entries: list[str]) -> str:
    # Lists go on; paragraphs stay apart.
    between = "\n" if all(entry.lstrip().startswith(("-", "*", "+")) for entry in entries) else "\n\n"
    return between.join(entries)


def _replaced(text: str, merged: list[tuple[str, int, int]], heading: str) -> str:
    """Put the new section where [Unreleased] was, and remove the others."""
    for name, start, end in reversed(merged):
        if name.lower() == "unreleased":
            rest = text[end:]
            text = text[:start] + heading + ("\n" if rest else "") + rest
        else:
            text = text[:start] + text[end:]
    return text


def _linked(text: str, version: Version, tag: str) -> str:
    """Let the links go on: what compared the last tag with HEAD compares the new one."""
    for match in _LINK_RE.finditer(text):
        head, dots, _ = match["url"].rpartition("...HEAD")
        if match["name"].lower() == "unreleased" and dots:
            base = head.rpartition("/")[0]
            lines = f"[{match['name']}]: {base}/{tag}...HEAD\n[{version}]: {head}...{tag}"
            return text[: match.start()] + lines + "\n" + text[match.end() :].lstrip("\n")
    return text
