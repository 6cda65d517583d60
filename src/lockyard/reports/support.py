"""Which release lines are supported until when: months from the configuration, dates from the releases."""

import calendar
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lockyard.distribution import SupportPolicy
from lockyard.reports.model import ReleaseFacts
from lockyard.reports.text import markdown_table
from lockyard.version import Version

State = Literal["supported", "ended", "pre-release", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSupport:
    """One line, `1` or `1.4`: its first and newest final releases, when it came out and until when it is supported.

    `until` is the last day; `None` where no months are configured or the date is unknown.
    """

    line: str
    first: Version
    latest: Version
    releases: int
    released: dt.date | None
    until: dt.date | None
    state: State


def support_lines(
    versions: Sequence[Version], dates: Mapping[Version, dt.date], policy: SupportPolicy, today: dt.date
) -> tuple[LineSupport, ...]:
    """Return all lines, newest first, each major line before its minor lines.

    A line begins with its first final release. A major line lives at least as long as the last of its minor lines.
    """
    found = []
    for major in sorted({version.major for version in versions}, reverse=True):
        mine = sorted(version for version in versions if version.major == major)
        parts = []
        for minor in sorted({version.minor for version in mine}, reverse=True):
            part = [version for version in mine if version.minor == minor]
            parts.append(_line(f"{major}.{minor}", part, dates, policy, policy.minor, today))
        last = max((line.until for line in parts if line.until), default=None)
        found += [_line(str(major), mine, dates, policy, policy.major, today, least=last), *parts]
    return tuple(found)


def made_on(release: ReleaseFacts) -> dt.date | None:
    """Return the day of the newest package in a release's locks, UTC; `None` where the locks do not say."""
    moments = [
        package.timestamp
        for item in release.types.values()
        for packages in item.lock.platforms.values()
        for package in packages
        if package.timestamp
    ]
    return dt.datetime.fromtimestamp(max(moments) / 1000, dt.UTC).date() if moments else None


def add_months(day: dt.date, months: int) -> dt.date:
    """Return the same day some months later, the month's last day where it has fewer.

    >>> add_months(dt.date(2026, 8, 31), 6)
    datetime.date(2027, 2, 28)
    """
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return dt.date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def render_markdown(lines: Sequence[LineSupport], title: str, policy: SupportPolicy) -> str:
    """Return the table."""
    months = [
        f"{name} lines {number} months" for name, number in (("major", policy.major), ("minor", policy.minor)) if number
    ]
    head = [f"# Supported releases of {title}", ""]
    head += [f"From their first final release, {' and '.join(months)}.", ""] if months else []
    rows = (
        [
            line.line, str(line.latest), _day(line.released), "not limited" if _open(line) else _day(line.until), line.state,
        ]
        for line in lines
    )  # fmt: skip
    return (
        "\n".join([*head, *markdown_table(["line", "newest release", "released", "supported until", "state"], rows)])
        + "\n"
    )


def render_json(lines: Sequence[LineSupport]) -> str:
    """Return JSON."""
    value = [
        {
            "line": line.line,
            "first": str(line.first),
            "latest": str(line.latest),
            "releases": line.releases,
            "released": line.released.isoformat() if line.released else None,
            "supported_until": line.until.isoformat() if line.until else None,
            "state": line.state,
        }
        for line in lines
    ]
    return json.dumps({"lines": value}, indent=1) + "\n"


def _line(
    name: str,
    versions: Sequence[Version],
    dates: Mapping[Version, dt.date],
    policy: SupportPolicy,
    months: int | None,
    today: dt.date,
    least: dt.date | None = None,
) -> LineSupport:
    final = [version for version in versions if not version.is_pre_release]
    first, latest = (final or list(versions))[0], (final or list(versions))[-1]
    stated = policy.released.get(name)
    known = [dates[version] for version in final if version in dates]
    released = stated or (dates.get(first) if first in dates else min(known, default=None))
    until = add_months(released, months) if released and months is not None and final else None
    if until and least:
        until = max(until, least)
    state: State = "supported"
    if not final:
        state = "pre-release"
    elif until is not None:
        state = "supported" if today <= until else "ended"
    elif months is not None:
        state = "unknown"
    return LineSupport(
        line=name, first=first, latest=latest, releases=len(versions), released=released if final else None,
        until=until, state=state,
    )  # fmt: skip


def _day(day: dt.date | None) -> str:
    return day.isoformat() if day else "unknown"


def _open(line: LineSupport) -> bool:
    return line.until is None and line.state == "supported"
