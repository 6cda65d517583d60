"""How far a package may move in a release: the tables of "From base to next version", for every shape of conda version.

The order is conda's (CEP 33), by rattler. A version is read as segments between dots; X and Y are the leading numbers of
the first two, a missing one counts as 0. What comes out for each shape is in docs/reference/version-bounds.md, made from `SHAPES`.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rattler import Version as CondaVersion
from rattler import VersionSpec

from lockyard.conda.spec import EnvIn, Spec, SpecLine
from lockyard.distribution import Policy
from lockyard.errors import ConfigError
from lockyard.version import Bump

DEFAULT_POLICIES: Mapping[str, Policy] = {"python": "pythonesque"}
Segment = Sequence[str | int]
"""A part of a version between dots, as rattler splits it: `2024a` is `[2024, "a"]`."""

SHAPES: tuple[tuple[str, str, str], ...] = (
    ("three numbers", "1.2.3", "X.Y.Z as in SemVer"),
    ("two numbers", "24.2", "what is missing counts as 0"),
    ("one number", "3", "what is missing counts as 0"),
    ("four numbers", "1.2.3.4", "the bound comes from the first ones, the lower bound keeps all"),
    ("five numbers", "1.2.3.4.5", "the bound comes from the first ones, the lower bound keeps all"),
    ("a number with leading zeros", "1.02.03", "a number is a number"),
    ("a date", "2025.06.13", "X is the year, Y the month"),
    ("a date as X", "20230101", "its month, its year: nothing after it says which line it is of"),
    ("a year and a month as X", "202301", "its month, its year"),
    ("an epoch", "1!2.3", "the epoch stays: another one is another numbering"),
    ("a pre-release", "1.2.3rc1", "its own final release and what follows on its line"),
    ("a pre-release of X.Y", "1.2rc1", "Y carries letters, so the next Y may: the bound is below `1.3rc1` and `1.3a0`"),
    ("a post-release", "1.2.post1", "comes after X.Y and stays below the next Y"),
    ("a development version", "1.2.3.dev4", "below its own final release"),
    ("a local part", "1.2.3+local", "the local part says nothing about the line"),
    ("an underscore or a hyphen", "1.2_3", "separates as a dot does, or begins letters: conda's order decides"),
    ("letters in X", "2024a", "the next X may carry letters too: `2025a` is below `2025`, so the bound is below that"),
    ("letters in X", "9e", "the same: `9f` is of its line, `10a` is not"),
    ("letters in Y", "0.52b1", "the next Y may carry letters too: `0.53b0` is below `0.53`"),
    ("`post` in X", "3post1", "above `3.1` in conda's order: nothing but X tells its line"),
    ("letters before X", "v1.2", "the letters stay"),
    ("letters before X", "r4", "the letters stay"),
)
"""Shape, an installed version of it, and why its bounds are what they are: every shape that conda's order knows."""

_DATE_RE = re.compile(r"(19[789]\d|20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])?")
# `<V` with V as plain numbers, or one of our `dev` bounds; the series is V without the zeros at its end.
_UPPER_RE = re.compile(
    r"(?<![<>=!~])<(?P<bound>(?P<series>(?:\d+!)?[a-z]*\d+(?:\.\d+)*?)(?:\.0+)*(?:dev)?)(?![^,|)])", re.ASCII
)
_NAMED_RE = re.compile(r"(?:^|[,|(<>=!~])([^,|()<>=!~*]+)(?=[,|)]|$)")


@dataclass(frozen=True)
class BoundsPolicy:
    """Which policy holds for which package: exact names first, then globs in their order, else `semver`."""

    policies: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, name: str) -> Policy:
        """Return the policy of a package."""
        policies = {**DEFAULT_POLICIES, **self.policies}
        if name in policies:
            return policies[name]
        return next((policy for glob, policy in policies.items() if fnmatch.fnmatchcase(name, glob)), "semver")


@dataclass(frozen=True, slots=True)
class NextSpec:
    """A line of the next spec file and where it comes from.

    `installed` is the version in the base lock, `None` when it is not there; `base` and `added` are the lines of the
    base's spec file and of the additional file that name the package.
    """

    spec: Spec
    policy: Policy
    installed: str | None = None
    base: SpecLine | None = None
    added: SpecLine | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """A package of the base lock; `channel` is a name to write before `::`, `None` when there is none to write."""

    version: str
    channel: str | None = None


def upper_bound(installed: str, bump: Bump, policy: Policy = "semver") -> str | None:
    """Return the version that a package must stay below, `None` when nothing holds it.

    `pinned` has no upper bound in this sense; `next_specs` writes it as `==`.

    Raises:
        ConfigError: `installed` is no conda version.

    """
    line = _line_that_holds(bump, policy)
    if line is None:
        version_key(installed)
        return None
    version = version_key(installed)
    segments: list[Segment] = [*version.segments(), [0]]
    prefix, first = _split_prefix(installed, segments[0])
    before = (f"{version.epoch}!" if version.epoch else "") + prefix
    x, y = _leading(first), _leading(segments[1])
    date = _DATE_RE.fullmatch(str(x))
    if date is not None:
        return f"{before}{_next_date(date, line)}"
    # `3post1` is above 3.1 in conda's order: nothing but X tells its line.
    if line == "minor" and "post" not in first:
        return f"{before}{x}.{y + 1}{'dev' if _has_letters(segments[1]) else '.0'}"
    return f"{before}{x + 1}{'dev' if _has_letters(first) else '.0.0'}"


def version_key(text: str) -> CondaVersion:
    """Return the conda version, which orders.

    Raises:
        ConfigError: it is none.

    """
    try:
        return CondaVersion(text)
    except Exception as error:
        # rattler's own errors, and text that is no UTF-8.
        if type(error).__module__ != "exceptions" and not isinstance(error, UnicodeEncodeError):
            raise
        raise ConfigError(f"{text[:100]!r} is not a conda version: {error}") from error


def solver_spec(spec: Spec) -> Spec:
    """Return what the solver is asked for a spec: each bound `<V` also leaves out what V's own series begins with.

    In conda's order `1.3.0rc1` and `1.3.0+local` are below `1.3.0`, so that `<1.3.0` would let the first pre-release of
    the next series in; `<1.3.0,!=1.3.*` does not. A series that the same alternative asks for by name
    (`>=2.0rc1,<2.0`) stays.
    """
    if spec.version is None or "<" not in spec.version:
        return spec
    # A comma binds closer than a bar, so the pair can stand wherever the bound stood.
    alternatives = [spec.version] if "(" in spec.version else spec.version.split("|")
    return dataclasses.replace(spec, version="|".join(map(_without_next_series, alternatives)))


def _without_next_series(version: str) -> str:
    named = [match[1] for match in _NAMED_RE.finditer(version)]

    def whole(match: re.Match[str]) -> str:
        bound, series = match["bound"], match["series"]
        begun = VersionSpec(f"{series}.*")
        asked = (version_key(other) for other in named if other != bound)
        if any(begun.matches(other) and other < version_key(bound) for other in asked):
            return match[0]
        return f"{match[0]},!={series}.*"

    return _UPPER_RE.sub(whole, version)


def next_specs(
    base: EnvIn, additional: EnvIn, installed: Mapping[str, Installed], bump: Bump, policy: BoundsPolicy
) -> tuple[NextSpec, ...]:
    """Return the next release's specs: the additional file's names in its order, then the base's in its order.

    A name of both keeps the base's treatment. What is in the base lock gets `>=installed` and the upper bound; of the
    rest, what the additional file names keeps that file's constraint, and the others are unbounded.

    Raises:
        ConfigError: an installed version is malformed.

    """
    base_lines, added_lines = base.by_name, _last_by_name(additional.lines)
    found = []
    # The order of the first, the values of the second.
    for name, line in {**added_lines, **base_lines}.items():
        rule = policy.of(name)
        package, added = installed.get(name), added_lines.get(name)
        # An address names its channel and subdir by the way; only a spec asks for them.
        asked = line.spec if line.spec.url is None else Spec(name=name)
        if package is not None:
            channel = asked.channel or package.channel
            version = _range(package.version, bump, rule)
            spec = Spec(name=name, channel=channel, subdir=asked.subdir, version=version)
        elif added is not None:
            spec = added.spec
        else:
            spec = Spec(name=name, channel=line.spec.channel, subdir=asked.subdir)
        found.append(NextSpec(spec, rule, package.version if package else None, base_lines.get(name), added))
    return tuple(found)


def _range(installed: str, bump: Bump, policy: Policy) -> str:
    if policy == "pinned":
        version_key(installed)
        return f"=={installed}"
    upper = upper_bound(installed, bump, policy)
    return f">={installed},<{upper}" if upper is not None else f">={installed}"


def _line_that_holds(bump: Bump, policy: Policy) -> str | None:
    """Return which part of the version must not change: `major` (X) or `minor` (X.Y)."""
    if bump is Bump.MAJOR or policy in {"pinned", "latest"}:
        return None
    if policy == "pythonesque":
        return "minor"
    if policy == "calver":
        return "major" if bump is Bump.PATCH else None
    return "minor" if bump is Bump.PATCH else "major"


def _next_date(date: re.Match[str], line: str) -> int:
    """Return a number above every date of the same month (`minor`) or year (`major`)."""
    year, month, day = date.groups()
    if line == "major":
        return (int(year) + 1) * (10000 if day else 100)
    return (int(year) * 100 + int(month) + 1) * (100 if day else 1)


def _split_prefix(text: str, segment: Segment) -> tuple[str, Segment]:
    """Split the letters off that a version such as `v1.2` or `r4` begins with; a segment has a 0 before them."""
    if text.rpartition("!")[2][:1].isalpha() and len(segment) > 1:
        return str(segment[1]), segment[2:]
    return "", segment


def _leading(segment: Segment) -> int:
    return int(segment[0]) if segment and isinstance(segment[0], int) else 0


def _has_letters(segment: Segment) -> bool:
    return any(isinstance(part, str) for part in segment)


def _last_by_name(lines: Iterable[SpecLine]) -> dict[str, SpecLine]:
    found: dict[str, SpecLine] = {}
    for line in lines:
        found[line.spec.name] = line
    return found
