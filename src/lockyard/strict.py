"""Settings read strictly: an unknown key or a wrong value is an error that names the line and the nearest valid key.

Parsing only: `lockyard.fs` reads the bytes.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from lockyard.errors import ConfigError
from lockyard.suggest import nearest

_TOML_PLACE_RE = re.compile(r"(?P<what>.*) \(at line (?P<line>\d+), column \d+\)")
"""How the standard library says where a file is wrong."""


class Model(pydantic.BaseModel):
    """A frozen model whose keys are written with hyphens or underscores as declared and nothing else is allowed."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


M = TypeVar("M", bound=Model)


def validate_toml(model: type[M], text: str, *, source: str, models: Mapping[str, type[Model]]) -> M:
    """Parse another TOML file as strictly as the configuration; `models` are the tables by their key, for suggestions.

    Raises:
        ConfigError: it is no TOML, or a value is wrong.

    """
    return validate(model, parse_toml(text, source), text, source, models)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return what a TOML file holds (`source` is its name, for messages).

    Raises:
        ConfigError: it is no TOML; the message names the line.

    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_PLACE_RE.fullmatch(str(error))
        where, what = (f"{source}:{found['line']}", found["what"]) if found else (source, error)
        raise ConfigError(f"{where}: this is no TOML: {what}") from error


def tool_table(text: str, source: str, name: str) -> dict[str, Any]:
    """Return the table `[tool.NAME]` of a `pyproject.toml`, an empty one where there is none.

    Raises:
        ConfigError: it is no TOML; the message names the line.

    """
    return table_at(parse_toml(text, source), "tool", name)


def table_at(data: object, *path: str) -> dict[str, Any]:
    """Return the table at a path of keys, an empty one where there is none."""
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def validate(model: type[M], data: object, text: str, source: str, models: Mapping[str, type[Model]]) -> M:
    """Check `data`, which `text` (of the file `source`) was parsed to; `models` are the tables by their key.

    Raises:
        ConfigError: a value is wrong; the message names the line, and the nearest key for an unknown one.

    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        problems = [_problem(model, item, text, source, models) for item in error.errors()]
    first, *rest = problems
    raise ConfigError(first, details=rest)


def _problem(model: type[Model], item: Any, text: str, source: str, models: Mapping[str, type[Model]]) -> str:
    path = [str(part) for part in item["loc"]]
    where = f"{source}:{line_of(text, path)}"
    key = ".".join(path)
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1], models)
        hint = nearest(path[-1], known) or f"valid keys: {', '.join(sorted(known))}"
        return f"{where}: unknown key {key!r}; {hint}"
    if item["type"] == "missing":
        return f"{where}: {key!r} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {key}: {message}"


def _known_keys(model: type[Model], path: list[str], models: Mapping[str, type[Model]]) -> list[str]:
    """Return the keys of the model that `path` leads to."""
    current: type[Model] = model
    for part in path:
        current = models.get(part, current)
    return [field.alias or name for name, field in current.model_fields.items()]


def line_of(text: str, path: list[str]) -> int:
    """Return the line that most likely holds the key: the last table header on the way, then the key below it."""
    lines = text.splitlines()
    start = 0
    for depth in range(len(path), 0, -1):
        header = re.compile(rf"\s*\[(?:tool\.lockyard\.)?{re.escape('.'.join(path[:depth]))}\]")
        found = next((number for number, line in enumerate(lines) if header.match(line)), None)
        if found is not None and depth == len(path):
            return found + 1
        if found is not None:
            start = found
            break
    for part in reversed(path):
        key = re.compile(rf'\s*"?{re.escape(part)}"?\s*=')
        for number in range(start, len(lines)):
            if key.match(lines[number]):
                return number + 1
    return start + 1
