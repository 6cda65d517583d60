"""A Dockerfile as its instructions: logical lines, flags, the exec form. No I/O here.

Reference: Dockerfile reference 1.x, "Format", "Escape", "Shell and exec form".
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lockyard.errors import BuildError

Kind = Literal["finish", "classic", "derived"]
FLAG_RE = re.compile(r"--([a-z-]+)(?:=(\S*))?\s+")
"""One flag at the start of a value: its name, and its value where it has one."""
_CONTINUED = {"\\": re.compile(r"\\[ \t]*$"), "`": re.compile(r"`[ \t]*$")}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, the rest of its logical line, where it begins, the file's escape character."""

    name: str
    value: str
    where: str
    escape: str = "\\"


def parse(text: str, source: str) -> tuple[Instruction, ...]:
    """Split a Dockerfile into instructions (`source` is its name, for messages).

    Raises:
        BuildError: a line is no instruction, or a here-document is used.

    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    escape = _escape(lines, source)
    continued = _CONTINUED[escape]
    instructions = []
    number = 0
    while number < len(lines):
        start = number
        line = lines[number].strip()
        number += 1
        if not line or line.startswith("#"):
            continue
        parts = []
        while continued.search(line):
            parts.append(continued.sub("", line))
            # Comments and empty lines inside of a continued instruction do not end it.
            while number < len(lines) and (not lines[number].strip() or lines[number].lstrip().startswith("#")):
                number += 1
            if number == len(lines):
                line = ""
                break
            line = lines[number].rstrip()
            number += 1
        parts.append(line)
        instructions.append(_instruction("".join(parts), f"{source}:{start + 1}", escape))
    return tuple(instructions)


def _escape(lines: Iterable[str], source: str) -> str:
    """Return the escape character that a parser directive at the top names."""
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"\s*#\s*(\w+)\s*=\s*(\S+)\s*", line)
        if match is None:
            break
        if match[1].lower() == "escape":
            if match[2] not in _CONTINUED:
                raise BuildError(f"{source}:{number}: escape={match[2]} is neither \\ nor `")
            return match[2]
    return "\\"


def _instruction(text: str, where: str, escape: str) -> Instruction:
    name, _, value = text.strip().replace("\t", " ").partition(" ")
    if not re.fullmatch(r"[A-Za-z]+", name):
        raise BuildError(f"{where}: {name!r} is no Dockerfile instruction")
    if name.upper() in {"COPY", "ADD", "RUN"} and re.search(r"<<-?[\"']?\w", value):
        raise BuildError(
            f"{where}: here-documents need a container engine", hint="put the text into a file and COPY it"
        )
    return Instruction(name.upper(), value.strip(), where, escape)


def kind_of(instructions: Iterable[Instruction]) -> Kind:
    """Return which of the three kinds of Dockerfile this is."""
    for item in instructions:
        if item.name == "FROM" and re.match(r"\$(ENV_IMAGE\b|\{ENV_IMAGE\})", item.value):
            return "finish"
        if item.name == "ARG" and item.value.split("=")[0].strip() == "ENV_IN_FILENAME":
            return "classic"
    return "derived"


def json_words(value: str) -> list[str] | None:
    """Return the words of the exec form, `None` when it is not one."""
    if not value.startswith("["):
        return None
    try:
        words = json.loads(value)
    except json.JSONDecodeError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def without_flags(value: str) -> str:
    """Return what follows the flags (`--chown=…`) of an instruction's value."""
    while match := FLAG_RE.match(value):
        value = value[match.end() :]
    return value
