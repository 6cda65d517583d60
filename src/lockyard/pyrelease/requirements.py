"""`requirements_SET.txt`: the header, the pins, what differs between two of them, what must not be in one. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from lockyard.errors import BuildError
from lockyard.pyrelease.project import Project, RequirementSet

_PIN_RE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*(?P<version>[^\s;\\]+)")
_URL_PIN_RE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*@\s*(?P<url>\S+)")
_ADDRESS_RE = re.compile(
    r"\s*(--index-url|--extra-index-url|--default-index|--index|--find-links|--trusted-host|-i|-f)\b"
)
_SECRET_RE = re.compile(r"://[^/\s]*@")
_PYTHON_RE = re.compile(r"(?:>=|\^|~=|~|==|>)\s*(3\.\d+)")


@dataclass(frozen=True, slots=True)
class PinChange:
    """A package whose pin differs: `None` is not there. Several versions (for different platforms) are joined."""

    name: str
    old: str | None
    new: str | None


def header(project: Project, name: str, chosen: RequirementSet) -> str:
    """Return the lines above the pins."""
    parts = [f"extras: {', '.join(chosen.extras)}"] if chosen.extras else []
    parts += [f"groups: {', '.join(chosen.groups)}"] if chosen.groups else []
    what = f" ({'; '.join(parts)})" if parts else ""
    return f'# Made by "lockyard package lock": set {name} of {project.name}{what}. Do not edit.\n'


def body(text: str) -> str:
    """Return a file without its header."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[1:] if lines and lines[0].startswith("# Made by ") else lines)


def pins(text: str) -> dict[str, str]:
    """Return normalised name → version, or what stands for it."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = _PIN_RE.match(line) or _URL_PIN_RE.match(line)
        if match is not None:
            found.setdefault(canonicalize_name(match["name"]), []).append(match[2])
    return {name: " | ".join(dict.fromkeys(versions)) for name, versions in sorted(found.items())}


def changes(old: str, new: str) -> tuple[PinChange, ...]:
    """Return the pins that differ, by name."""
    before, after = pins(old), pins(new)
    names = sorted({*before, *after})
    return tuple(
        PinChange(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    )


def check_committable(text: str, path: str) -> None:
    """Refuse a file that says where its packages come from, holds credentials, or a pin without a hash.

    Raises:
        BuildError: it does; the line is named.

    """
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if _ADDRESS_RE.match(line):
            raise BuildError(f"{where}: an index address would get into a committed file")
        if _SECRET_RE.search(line) or " @ file:" in line:
            raise BuildError(f"{where}: a path of this machine or a credential would get into a committed file")
        if (_PIN_RE.match(line) or _URL_PIN_RE.match(line)) and "--hash=" not in "".join(lines[number : number + 1]):
            raise BuildError(f"{where}: no hash: {line.strip()}")


def lowest_python(project: Project, default: str) -> str:
    """Return the lowest Python that the locks are for: as configured, else that of the project, else `default`."""
    if project.table.python:
        return project.table.python
    found = _PYTHON_RE.findall(project.requires_python or "")
    return min(found, key=lambda text: int(text.split(".")[1])) if found else default


def project_document(
    project: Project, requires: Mapping[str, list[str]], uv: Mapping[str, object]
) -> dict[str, object]:
    """Return a `pyproject.toml` of PEP 621 that asks for the same as a poetry project.

    `requires` is requirements by extra (`extra:NAME`), by group (`group:NAME`) and of the project itself (empty name);
    `uv` is the project's table for uv.
    """
    optional = {name.removeprefix("extra:"): items for name, items in requires.items() if name.startswith("extra:")}
    groups = {name.removeprefix("group:"): items for name, items in requires.items() if name.startswith("group:")}
    core = {
        "name": project.name, "version": str(project.version), "dependencies": requires.get("", []),
        "optional-dependencies": optional,
    }  # fmt: skip
    return {"project": core, "dependency-groups": groups, "tool": {"uv": dict(uv)}}
