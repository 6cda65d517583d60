"""`schedule.toml`: the releases whose successors are made every night. Pure: `lockyard.app.schedule` reads and writes it.

One entry is a base release and what follows it: its next patch, minor or major release. There is one entry for each line:
the next patch of X.Y, the next minor of X, the next major; the entry of a newer base takes the place of its predecessor.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic

from lockyard.errors import ConfigError
from lockyard.strict import Model, validate_toml
from lockyard.version import Bump, Version, bump

FILE_NAME = "schedule.toml"
SCHEMA = 1
_HEADER = "# The releases whose successors are made every night. `lockyard schedule` writes it, `lockyard schedule next` reads it.\n"
_LINE_RE = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", re.ASCII)
_PARTS = {part: place for place, part in enumerate(Bump)}


def _final(text: str) -> str:
    try:
        version = Version.parse(text)
    except ConfigError as error:
        raise ValueError(error.message) from error
    if version.is_pre_release:
        raise ValueError(f"{text} is a pre-release; bases are final versions")
    return text


class _Entry(Model):
    base: Annotated[str, pydantic.AfterValidator(_final)]
    bump: Literal["patch", "minor", "major"] = "patch"


class _File(Model):
    schema_version: Literal[1] = pydantic.Field(alias="schema")
    nightly: tuple[_Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """What follows `base` is made every night."""

    base: Version
    part: Bump = Bump.PATCH

    @property
    def target(self) -> Version:
        """The release that is made."""
        return bump(self.base, self.part)

    @property
    def line(self) -> tuple[object, ...]:
        """What there is one entry of: the next patch of X.Y, the next minor of X, the next major."""
        numbers = {Bump.PATCH: (self.base.major, self.base.minor), Bump.MINOR: (self.base.major,), Bump.MAJOR: ()}
        return (self.part, *numbers[self.part])

    def __str__(self) -> str:
        return f"{self.base} {self.part}"


@dataclass(frozen=True, slots=True)
class Line:
    """`X`, `X.Y` or `X.Y.Z`, compared number by number: 3.1 is not 3.10."""

    numbers: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Line":
        """Parse `text`.

        Raises:
            ConfigError: it is none of the three forms.

        """
        match = _LINE_RE.fullmatch(text) if len(text) <= 100 else None
        if match is None:
            raise ConfigError(f"{text[:100]!r} is neither a release X.Y.Z nor a line X.Y or X")
        return cls(tuple(int(part) for part in match.groups() if part is not None))

    def __contains__(self, version: Version) -> bool:
        return (version.major, version.minor, version.patch)[: len(self.numbers)] == self.numbers

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))


@dataclass(frozen=True)
class Schedule:
    """All entries, sorted by version and kind, each once."""

    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "entries", tuple(sorted(set(self.entries), key=lambda item: (item.base, _PARTS[item.part])))
        )

    def add(self, entry: Entry) -> "Schedule":
        """Return the schedule with `entry` in the place of its predecessors; that of a newer base stays.

        >>> v = Version.parse
        >>> [str(item) for item in Schedule((Entry(v("1.4.1")),)).add(Entry(v("1.4.2"))).entries]
        ['1.4.2 patch']
        """
        rivals = [item for item in self.entries if item.line == entry.line]
        if any(item.base >= entry.base for item in rivals):
            return self
        return Schedule((*(item for item in self.entries if item not in rivals), entry))

    def after(self, version: Version, parts: Collection[Bump] = ()) -> "Schedule":
        """Return the schedule after the release of `version`: its next patch, after X.Y.0 also its next minor, or `parts`.

        What followed an older release of its X.Y line follows `version` now: the next minor is made from the newest patch.
        """
        usual = {Bump.PATCH} | ({Bump.MINOR} if version.patch == 0 else set())
        line = Line((version.major, version.minor))
        wanted = set(parts) or usual | {item.part for item in self.entries if item.base in line}
        found = self
        for part in wanted:
            found = found.add(Entry(version, part))
        return found

    def remove(self, line: Line, parts: Collection[Bump] = ()) -> "Schedule":
        """Return the schedule without the entries whose base is on `line`, of these kinds (all by default).

        >>> v = Version.parse
        >>> [str(item) for item in Schedule((Entry(v("3.1.0")), Entry(v("3.10.0")))).remove(Line.parse("3.1")).entries]
        ['3.10.0 patch']
        """
        return Schedule(
            tuple(item for item in self.entries if item.base not in line or (parts and item.part not in parts))
        )

    def without(self, others: Iterable[Entry]) -> tuple[Entry, ...]:
        """Return the entries that `others` lack."""
        known = set(others)
        return tuple(item for item in self.entries if item not in known)


def parse_schedule(text: str, *, source: str = FILE_NAME) -> Schedule:
    """Parse the file (`source` is its path, for messages).

    Raises:
        ConfigError: it is no TOML, its schema is newer than ours, or a value is wrong.

    """
    found = validate_toml(_File, text, source=source, models={"nightly": _Entry})
    return Schedule(tuple(Entry(Version.parse(item.base), Bump(item.bump)) for item in found.nightly))


def format_schedule(schedule: Schedule) -> str:
    """Return the text of the file: one entry a line, so that two branches that change it merge."""
    rows = [f'  {{ base = "{item.base}", bump = "{item.part}" }},\n' for item in schedule.entries]
    return "".join([_HEADER, f"schema = {SCHEMA}\n", "nightly = [\n" if rows else "nightly = [", *rows, "]\n"])
