"""What to say when no set of packages meets the specs: the solver's tree, our lines that start it, what to try."""

import dataclasses
import re
from collections.abc import Sequence

from lockyard.conda.bounds import solver_spec
from lockyard.conda.spec import SpecLine
from lockyard.errors import UnsatisfiableError
from lockyard.ports.solving import Solver, SolveRequest

_SHOWN_LINES = 20
_SHOWN_WORDS = 80
_TRIES = 10
_CONFLICT_RE = re.compile(
    r"(?P<indent>[│ ]*)(?P<arm>[├└]─ )(?P<name>\S+) (?P<versions>[^,]+)"
    r"(?P<tail>, which conflicts with the versions reported above\.)"
)
_NAME_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VIRTUAL_RE = re.compile(
    r"(__[a-z0-9_]+)[^\n]*, for which no candidates were found|(__[a-z0-9_]+) \S+ cannot be installed"
)


def explain_unsatisfiable(
    error: UnsatisfiableError,
    solver: Solver,
    request: SolveRequest,
    *,
    image_type: str,
    lines: Sequence[SpecLine],
    platforms: Sequence[str],
) -> UnsatisfiableError:
    """Return the error for people; `lines` are our files' lines, `platforms` those of the image type."""
    absent = solver.absent(request)
    if absent:
        others = [item for item in platforms if item != request.platform]
        having = [item for item in others if not absent & solver.absent(dataclasses.replace(request, platform=item))]
        return _absent(absent, request, image_type, lines, having)
    words = set(_NAME_RE.findall("\n".join(error.details)))
    named = [line for line in lines if line.spec.name in words] or list(lines)
    tries = _tries(solver, request, named)
    virtual = sorted({one or two for one, two in _VIRTUAL_RE.findall("\n".join(error.details))})
    hint = "widen or remove one of these lines"
    if virtual:
        hint = (
            f"state {', '.join(virtual)} under virtual-packages of {image_type} in variants.toml, or change these lines"
        )
    elif tries:
        hint = 'one of the changes under "what would do" is enough'
    shown = condensed(error.details)
    return UnsatisfiableError(
        f"{image_type}: {error.message}",
        hint=hint,
        details=[
            *shown[:_SHOWN_WORDS],
            *([f"… and {len(shown) - _SHOWN_WORDS} more lines"] if len(shown) > _SHOWN_WORDS else []),
            "the lines that start it:",
            *_shown(named),
            *(["what would do:", *(f"  {text}" for text in tries)] if tries else []),
        ],
    )


def condensed(words: Sequence[str]) -> list[str]:
    """Join lines of the solver's tree that say the same of several versions of one package."""
    found: list[str] = []
    last: re.Match[str] | None = None
    versions: list[str] = []
    for line in words:
        match = _CONFLICT_RE.fullmatch(line)
        if match is not None and last is not None and match.group("indent", "name") == last.group("indent", "name"):
            versions += [text for text in match["versions"].split(" | ") if text not in versions]
            found[-1] = f"{match['indent']}{match['arm']}{match['name']} {_some(versions)}{match['tail']}"
        else:
            found.append(line)
            versions = match["versions"].split(" | ") if match is not None else []
        last = match
    return found


def _some(versions: Sequence[str]) -> str:
    return " | ".join(versions if len(versions) <= 4 else [*versions[:2], "...", versions[-1]])


def _absent(
    names: frozenset[str],
    request: SolveRequest,
    image_type: str,
    lines: Sequence[SpecLine],
    having: Sequence[str],
) -> UnsatisfiableError:
    asked = [line for line in lines if line.spec.name in names]
    listed = ", ".join(sorted(names))
    hint = f"check the name, or add a channel that has it to channels (now {', '.join(request.channels)})"
    if having:
        places = ", ".join(f'"{platform}"' for platform in having)
        entries = ", ".join(f'"{name}" = [{places}]' for name in sorted(names))
        hint = (
            f"if {request.platform} can do without: platform-packages = {{ {entries} }} in variants.toml; else {hint}"
        )
    return UnsatisfiableError(
        f"{image_type}: no channel has {listed} for {request.platform}",
        hint=hint,
        details=["the lines that ask for it:", *_shown(asked)],
    )


def _shown(lines: Sequence[SpecLine]) -> list[str]:
    more = [f"  and {len(lines) - _SHOWN_LINES} more"] if len(lines) > _SHOWN_LINES else []
    return [*(f"  {line.where}: {line.text}" for line in lines[:_SHOWN_LINES]), *more]


def _tries(solver: Solver, request: SolveRequest, lines: Sequence[SpecLine]) -> list[str]:
    """Return the single changes that make a solve possible: one line without its bounds, or no --exclude-newer."""
    free = dataclasses.replace(request, preferred=(), constraints=())
    found = []
    for line in [line for line in lines if line.spec.is_bounded][:_TRIES]:
        wide = str(
            dataclasses.replace(line.spec, version=None, build=None, build_number=None, md5=None, sha256=None, url=None)
        )
        narrow = str(solver_spec(dataclasses.replace(line.spec, url=None)))
        specs = tuple(wide if text == narrow else text for text in free.specs)
        versions = _solved(solver, dataclasses.replace(free, specs=specs), line.spec.name)
        if versions is not None:
            found.append(f"{line.where}: {line.spec.name} without its bounds ({versions})")
    if (
        request.exclude_newer is not None
        and _solved(solver, dataclasses.replace(free, exclude_newer=None), "") is not None
    ):
        found.append(f"--exclude-newer later than {request.exclude_newer:%Y-%m-%d}, or none")
    return found


def _solved(solver: Solver, request: SolveRequest, name: str) -> str | None:
    """Return the version of `name` in the result of a solve, `None` when there is none."""
    try:
        packages = solver.solve(request)
    except UnsatisfiableError:
        return None
    return next((f"then it would be {item.version}" for item in packages if item.name == name), "")
