"""The copies of a project's version, and the edits that change all of them. Pure: texts in, texts out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from lockyard.errors import ConfigError
from lockyard.pyrelease.project import PYPROJECT, Project, Read, VersionFile, VersionPlace, key_line

_DUNDER_FILES = ("__init__", "__about__", "_version", "version", "__version__")
_LITERAL_RE = re.compile(r"\d[^\s{}]*")
_KEYS = (("project", "version"), ("tool", "poetry", "version"))


@dataclass(frozen=True, slots=True)
class Copy:
    """A place that holds the version: the text of it from `start` to `end`, or (`key`) a key of a TOML file."""

    path: str
    line: int
    text: str
    start: int = 0
    end: int = 0
    key: tuple[str, ...] = ()

    @property
    def version(self) -> Version | None:
        """The version that it says, `None` when it is none by PEP 440."""
        try:
            return Version(self.text)
        except InvalidVersion:
            return None

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class LineEdit:
    """A line that changes, as it was and as it will be."""

    path: str
    line: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Edits:
    """The files that change, path to new text, and the lines that people look at."""

    files: Mapping[str, str]
    lines: tuple[LineEdit, ...]


def find_copies(project: Project, read: Read) -> tuple[Copy, ...]:
    """Return every copy of the version, the source of truth first, each place once.

    These are the project's own place, a second one in `pyproject.toml`, `__version__ = "…"` in the modules, every
    `pkg_version` of `runtimes.yaml`, and the `version-files` of the configuration.

    Raises:
        ConfigError: a file of the configuration is missing or does not hold its pattern exactly once.

    """
    found = {(copy.path, copy.start, copy.key): copy for copy in _all(project, read)}
    return tuple(found.values())


def disagreeing(copies: tuple[Copy, ...]) -> tuple[Copy, ...]:
    """Return the copies that say another version than the first one."""
    truth = copies[0].version
    return tuple(copy for copy in copies if copy.version != truth)


def plan_edits(copies: tuple[Copy, ...], read: Read, new: Version) -> Edits:
    """Return the edits that write `new` into every copy; what says so already is left alone.

    Raises:
        ConfigError: a file cannot be edited without changing more than the version.

    """
    files: dict[str, str] = {}
    for path in dict.fromkeys(copy.path for copy in copies):
        old = read(path) or ""
        text = _replaced(old, [copy for copy in copies if copy.path == path], str(new))
        if text != old:
            files[path] = text
    return Edits(
        files, tuple(line for path, text in files.items() for line in line_edits(path, read(path) or "", text))
    )


def line_edits(path: str, old: str, new: str) -> Iterator[LineEdit]:
    """Give the lines that differ; the texts have the same number of lines."""
    pairs = zip(old.splitlines(), new.splitlines(), strict=True)
    for number, (before, after) in enumerate(pairs, start=1):
        if before != after:
            yield LineEdit(path, number, before.strip(), after.strip())


def _all(project: Project, read: Read) -> Iterator[Copy]:
    yield _at(project.place, read)
    for key in _KEYS:
        if key != project.place.key and (text := _value(read(PYPROJECT) or "", key)) is not None:
            yield Copy(PYPROJECT, key_line(read(PYPROJECT) or "", key), text, key=key)
    yield from _modules(project, read)
    runtimes = read(project.table.runtimes)
    if runtimes is not None:
        yield from _pkg_versions(runtimes, project.table.runtimes)
    for item in project.table.version_files:
        yield _configured(item, read)


def _at(place: VersionPlace, read: Read) -> Copy:
    text = read(place.path) or ""
    if place.key:
        return Copy(place.path, key_line(text, place.key), _value(text, place.key) or "", key=place.key)
    found = re.search(place.regex, text)
    if found is None:
        raise ConfigError(f"{place.path}: no version")
    return _copy(place.path, text, found)


def _copy(path: str, text: str, found: re.Match[str]) -> Copy:
    start, end = found.span("version")
    return Copy(path, text.count("\n", 0, start) + 1, found["version"], start, end)


def _modules(project: Project, read: Read) -> Iterator[Copy]:
    """Give `__version__ = "…"` of the modules; one that is computed is no copy."""
    for module in project.modules:
        name = module.replace(".", "/")
        for base in ("src/", ""):
            for path in (*(f"{base}{name}/{stem}.py" for stem in _DUNDER_FILES), f"{base}{name}.py"):
                text = read(path)
                found = [] if text is None else list(VersionFile(path=path).regex.finditer(text))
                if text is not None and len(found) == 1 and _LITERAL_RE.fullmatch(found[0]["version"]):
                    yield _copy(path, text, found[0])


def _pkg_versions(text: str, path: str) -> Iterator[Copy]:
    """Give every scalar under a key `pkg_version`, as it stands."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        tree = YAML().compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from error
    yield from _walk(tree, path)


def _walk(node: Any, path: str) -> Iterator[Copy]:
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == "pkg_version" and isinstance(value, ScalarNode):
                quote = 1 if value.style in {'"', "'"} else 0
                start, end = value.start_mark.index + quote, value.end_mark.index - quote
                yield Copy(path, value.start_mark.line + 1, value.value, start, end)
            else:
                yield from _walk(value, path)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            yield from _walk(item, path)


def _configured(item: VersionFile, read: Read) -> Copy:
    text = read(item.path)
    if text is None:
        raise ConfigError(f"{PYPROJECT}: version-files: {item.path} is missing")
    found = list(item.regex.finditer(text))
    if len(found) == 1:
        return _copy(item.path, text, found[0])
    pattern = item.pattern or '__version__ = "{version}"'
    lines = [f"{item.path}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in found]
    times = "nowhere" if not found else f"{len(found)} times"
    raise ConfigError(
        f"{item.path} holds {pattern!r} {times}; it must hold it once",
        hint=f"mend version-files in {PYPROJECT}: a longer pattern is found only once" if found else None,
        details=lines,
    )


def _value(text: str, key: tuple[str, ...]) -> str | None:
    import tomllib

    current: Any = tomllib.loads(text)
    for part in key:
        current = current.get(part) if isinstance(current, dict) else None
    return current if isinstance(current, str) else None


def _replaced(text: str, copies: list[Copy], new: str) -> str:
    for copy in sorted((item for item in copies if not item.key), key=lambda item: -item.start):
        text = text[: copy.start] + new + text[copy.end :]
    keys = [copy.key for copy in copies if copy.key and copy.text != new]
    return _replaced_keys(text, keys, new) if keys else text


def _replaced_keys(text: str, keys: list[tuple[str, ...]], new: str) -> str:
    """Edit a TOML text; tomlkit keeps comments, order and layout."""
    import tomlkit

    document = tomlkit.parse(text)
    for *tables, last in keys:
        table: Any = document
        for name in tables:
            table = table[name]
        table[last] = new
    edited = tomlkit.dumps(document)
    if len(edited.splitlines()) != len(text.splitlines()):
        raise ConfigError(f"{PYPROJECT} cannot be edited without changing its layout")
    return edited
