"""How far a package may move in a release: the tables of "From base to next version", for every shape of conda version.

The order is conda's (CEP 33), by rattler. A version is read as segments; X, Y are the leading numbers of the first two.

| shape | example | patch | minor |
|---|---|---|---|
| numbers | `1.2.3`, `24.2`, `1.2.3.4`, `3` | `<1.3.0` | `<2.0.0` |
| epoch | `1!2.3` | `<1!2.4.0` | `<1!3.0.0` |
| suffix after Y | `1.2.3rc1`, `1.2.post1`, `1.2+local` | `<1.3.0` | `<2.0.0` |
| letters in X | `2024a`, `9e` | `<2024.1.0` | `<2025dev` |
| `post` in X | `3post1` | `<4dev` | `<4dev` |
| letters in Y | `0.52b1` | `<0.53dev` | `<1.0.0` |
| letters before X | `v1.2`, `r4` | `<v1.3.0` | `<v2.0.0` |
| a date | `2025.06.13` | `<2025.7.0` | `<2026.0.0` |
| a date as X | `20230115`, `202301` | `<20230200` (its month) | `<20240000` (its year) |

Where X or Y carries letters, the first release of the next line may too (`2025a`, `0.53b0`), and in conda's order that is
*below* `2025` and `0.53`: the bound ends in `dev`, which is below all other letters.

| policy | patch | minor | major |
|---|---|---|---|
| `semver` | `<X.(Y+1).0` | `<(X+1).0.0` | none |
| `pythonesque` | `<X.(Y+1).0` | `<X.(Y+1).0` | none |
| `calver` (X is a year or a date) | the same year | none | none |
| `pinned` | `==installed` | `==installed` | `==installed` |
| `latest` | none | none | none |
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
        if type(error).__module__ != "exceptions":
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
