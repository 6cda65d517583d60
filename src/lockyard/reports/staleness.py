"""How old a release is: for each package the newest version that its line allows, and the newest of all."""

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockyard.conda.bounds import BoundsPolicy, upper_bound, version_key
from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError
from lockyard.ports.solving import IndexRecord
from lockyard.reports.kinds import change_kind
from lockyard.reports.text import cell, count, markdown_table
from lockyard.version import Bump, Version

_UNSTABLE_RE = re.compile(r"(?:dev|alpha|beta|rc)|\d(?:a|b|c)\d", re.IGNORECASE)
_DAY = 86_400_000  # milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """One package: `allowed` is the newest version that the release's line allows, `newest` that of the channel.

    `age` is the days since the installed package was made, `behind` those since the first newer allowed version was;
    `None` where a time or a version is unknown.
    """

    name: str
    installed: str
    allowed: str | None
    newest: str | None
    direct: bool
    age: int | None = None
    behind: int | None = None
    downloads: int | None = None

    @property
    def is_stale(self) -> bool:
        """Whether the release's line allows something newer."""
        return self.allowed is not None and self.allowed != self.installed

    @property
    def kind(self) -> str:
        """How far the newest version of all is away."""
        return change_kind(self.installed, self.newest) if self.newest and self.newest != self.installed else ""


def bump_of(version: Version) -> Bump:
    """Return what kind of release a version is: what may move in it follows from that."""
    if version.patch:
        return Bump.PATCH
    return Bump.MINOR if version.minor else Bump.MAJOR


def staleness(
    packages: Sequence[LockedPackage],
    records: Mapping[str, Sequence[IndexRecord]],
    version: Version,
    policy: BoundsPolicy,
    *,
    direct: Sequence[str],
    now: dt.datetime,
    downloads: Mapping[str, int] | None = None,
) -> tuple[Staleness, ...]:
    """Compare packages with the channel's records; stale ones first, those longest behind on top, then by name."""
    bump = bump_of(version)
    moment = int(now.timestamp() * 1000)
    known = frozenset(direct)
    found = [
        _one(package, records.get(package.name, ()), _upper(package, bump, policy), package.name in known, moment)
        for package in packages
    ]
    if downloads:
        found = [_with_downloads(item, downloads) for item in found]
    return tuple(sorted(found, key=lambda item: (not item.is_stale, -(item.behind or 0), item.name)))


def render_markdown(version: Version, types: Mapping[str, Sequence[Staleness]]) -> str:
    """Return the report, one table a type; what is not stale is counted only."""
    lines = [f"# Staleness: {version}"]
    for name, items in types.items():
        stale = [item for item in items if item.is_stale or item.kind]
        behind = sum(item.is_stale for item in items)
        unknown = sum(item.newest is None for item in items)
        lines += ["", f"## {cell(name)}", ""]
        lines.append(
            f"{behind} of {count(len(items), 'package')} could be newer in this kind of release"
            + (f"; {unknown} are not in the channel's index" if unknown else "")
            + "."
        )
        if stale:
            with_downloads = any(item.downloads is not None for item in stale)
            header = ["package", "installed", "allowed", "newest", "kind", ">age (days)", ">behind (days)"]
            header += [">downloads"] if with_downloads else []
            lines += ["", *markdown_table(header, (_row(item, downloads=with_downloads) for item in stale))]
    return "\n".join(lines) + "\n"


def render_json(version: Version, types: Mapping[str, Sequence[Staleness]]) -> str:
    """Return JSON, every package."""
    value = {
        "version": str(version),
        "types": {
            name: [
                {
                    "name": item.name, "installed": item.installed, "allowed": item.allowed, "newest": item.newest,
                    "direct": item.direct, "stale": item.is_stale, "age_days": item.age, "behind_days": item.behind,
                    "downloads": item.downloads,
                }
                for item in items
            ]
            for name, items in types.items()
        },
    }  # fmt: skip
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def parse_downloads(text: str, source: str) -> dict[str, int]:
    """Read download counts: a JSON object, or lines `NAME COUNT` separated by a tab, a comma or spaces.

    Raises:
        ConfigError: a line or a value is malformed; it is named.

    """
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{source}: not JSON: {error}") from error
        for name, number in value.items():
            if type(number) is not int or number < 0:
                raise ConfigError(f"{source}: {name}: {number!r:.80} is not a count")
        return {str(name): number for name, number in value.items()}
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = re.split(r"[\s,]+", line.strip())
        if line.strip() and not line.startswith("#"):
            if len(words) != 2 or not words[1].isdecimal():
                raise ConfigError(f"{source}:{number}: {line[:80]!r} is not NAME COUNT")
            found[words[0]] = int(words[1])
    return found


def _upper(package: LockedPackage, bump: Bump, policy: BoundsPolicy) -> str | None:
    rule = policy.of(package.name)
    if rule == "pinned":
        return package.version
    try:
        return upper_bound(package.version, bump, rule)
    except ConfigError:
        return None


def _one(
    package: LockedPackage, records: Sequence[IndexRecord], upper: str | None, direct: bool, now: int
) -> Staleness:
    installed = version_key(package.version)
    stable = not _UNSTABLE_RE.search(package.version)
    usable: dict[str, int | None] = {}
    made = package.timestamp
    for record in records:
        if made is None and record.md5 == package.md5 and package.md5:
            made = record.timestamp
        if stable and _UNSTABLE_RE.search(record.version):
            continue
        first = usable.get(record.version)
        usable[record.version] = min(first, record.timestamp or first) if first else record.timestamp
    ordered = sorted((version_key(text), text) for text in usable)
    top = version_key(upper) if upper is not None else None
    pinned = upper == package.version
    allowed = [(key, text) for key, text in ordered if key >= installed and (top is None or key < top) and not pinned]
    newer = [usable[text] for key, text in allowed if key > installed]
    times = [time for time in newer if time]
    return Staleness(
        name=package.name,
        installed=package.version,
        allowed=(allowed[-1][1] if allowed and allowed[-1][0] > installed else package.version) if ordered else None,
        newest=(ordered[-1][1] if ordered[-1][0] > installed else package.version) if ordered else None,
        direct=direct,
        age=max(0, (now - made) // _DAY) if made else None,
        behind=max(0, (now - min(times)) // _DAY) if times else None,
    )


def _with_downloads(item: Staleness, downloads: Mapping[str, int]) -> Staleness:
    from dataclasses import replace

    return replace(item, downloads=downloads.get(item.name))


def _row(item: Staleness, *, downloads: bool) -> list[str]:
    row = [item.name, item.installed, item.allowed or "unknown", item.newest or "unknown", item.kind]
    row += ["unknown" if item.age is None else str(item.age), "" if item.behind is None else str(item.behind)]
    return [*row, "" if item.downloads is None else f"{item.downloads:,}"] if downloads else row
