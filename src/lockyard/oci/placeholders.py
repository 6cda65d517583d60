"""Prefix placeholders: the build-time prefix inside a package's files becomes the target prefix. Bytes in, bytes out.

The rules are those of conda's and rattler's installers, so that an image equals an installed environment: in text the
prefix is replaced everywhere and a first line `#!…` is kept runnable; in binaries a C string keeps its length, what
gets free is filled with NULs before its end. Wide strings (UTF-16, UTF-32) count as well.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lockyard.errors import BuildError

_ENCODINGS = (("utf-8", 1), ("utf-16-le", 2), ("utf-16-be", 2), ("utf-32-le", 4), ("utf-32-be", 4))
_SHEBANG_RE = re.compile(r"#! *(/(?:\\ |[^ \n\r\t])*)(.*)")
_PYTHON_RE = re.compile(r"python(?:\d+(?:\.\d+)?)?", re.ASCII)
MAX_SHEBANG = 127
"""Bytes of a first line that the kernel reads."""


def replace_text(data: bytes, placeholder: str, prefix: str) -> bytes:
    """Return a text file at the target prefix."""
    end = (data.find(b"\n") + 1 or len(data)) if data.startswith(b"#!") else 0
    out = []
    if end:
        line = data[:end].removesuffix(b"\n")
        # A first line that is not UTF-8 loses its odd bytes, as in rattler: no interpreter path has them.
        first = shebang(line.decode(errors="replace"), placeholder, prefix)
        out.append(first.encode() + data[len(line) : end])
    last = end
    for start, old, new in _occurrences(data, placeholder, prefix):
        if start >= last:
            out += [data[last:start], new]
            last = start + len(old)
    out.append(data[last:])
    return b"".join(out)


def shebang(line: str, placeholder: str, prefix: str) -> str:
    """Return the first line of a script at the target prefix: one that is too long or has a space goes around it."""
    if " " in prefix:
        return _indirect(line).replace(placeholder, prefix) if placeholder in line else line
    line = line.replace(placeholder, prefix)
    return line if len(line.encode()) <= MAX_SHEBANG else _indirect(line)


def python_shebang(interpreter: str) -> str:
    """Return the first line of a generated Python script for an absolute interpreter path."""
    if len(interpreter.encode()) > MAX_SHEBANG - 2 or " " in interpreter:
        return f"#!/bin/sh\n'''exec' \"{interpreter}\" \"$0\" \"$@\" #'''"
    return f"#!{interpreter}"


def _indirect(line: str) -> str:
    """Start the interpreter another way: Python by `exec` in a line that is also a Python string, others by `env`."""
    match = _SHEBANG_RE.fullmatch(line)
    if match is None:
        return line
    path, rest = match.groups()
    name = path.rsplit("/", 1)[-1]
    if _PYTHON_RE.fullmatch(name):
        return f"#!/bin/sh\n'''exec' \"{path}\"{rest} \"$0\" \"$@\" #'''"
    return f"#!/usr/bin/env {name}{rest}"


def _occurrences(data: bytes, placeholder: str, prefix: str) -> list[tuple[int, bytes, bytes]]:
    """Return start, old and new bytes of every occurrence under every encoding, by position."""
    found = []
    for encoding, _ in _ENCODINGS:
        old, new = placeholder.encode(encoding), prefix.encode(encoding)
        found += [(start, old, new) for start in _find_all(data, old, 0, len(data))]
    return sorted(found)


def _find_all(data: bytes, text: bytes, start: int, end: int) -> Iterator[int]:
    while (start := data.find(text, start, end)) >= 0:
        yield start
        start += len(text)


@dataclass(frozen=True, slots=True)
class _String:
    """A C string that holds the placeholder: its occurrences, its end, and how sure we are that it is one."""

    doubt: int
    offsets: tuple[int, ...]
    end: int
    old: bytes
    new: bytes


def replace_binary(data: bytes, placeholder: str, prefix: str) -> bytes:
    """Return a binary file at the target prefix, of the same length.

    Raises:
        BuildError: the target prefix is longer than the placeholder.

    """
    strings = [
        string
        for encoding, unit in _ENCODINGS
        for string in _strings(data, placeholder.encode(encoding), prefix.encode(encoding), unit)
    ]
    chosen: list[_String] = []
    # UTF-16 text of one byte order is text of the other one byte off: the likelier of overlapping strings counts.
    for string in sorted(strings, key=lambda item: (item.doubt, item.offsets)):
        if all(string.end <= other.offsets[0] or other.end <= string.offsets[0] for other in chosen):
            chosen.append(string)
    out = []
    last = 0
    for string in sorted(chosen, key=lambda item: item.offsets):
        if len(string.new) > len(string.old):
            raise BuildError(
                f"the prefix {prefix!r} is longer than the placeholder of {len(placeholder)} characters in a binary",
                hint="choose a shorter prefix in variants.toml",
            )
        for offset in string.offsets:
            out += [data[last:offset], string.new]
            last = offset + len(string.old)
        out += [data[last : string.end], bytes(len(string.offsets) * (len(string.old) - len(string.new)))]
        last = string.end
    out.append(data[last:])
    return b"".join(out)


def _strings(data: bytes, old: bytes, new: bytes, unit: int) -> Iterator[_String]:
    covered = [0] * unit  # per alignment, so that each string is found once
    for start in _find_all(data, old, 0, len(data)):
        if start < covered[start % unit]:
            continue
        end, terminated = _terminator(data, start + len(old), unit)
        covered[start % unit] = end
        aligned = start % unit == 0
        doubt = 0 if unit == 1 else 1 + 2 * (not aligned) + (not terminated)
        yield _String(doubt, tuple(_find_all(data, old, start, end)), end, old, new)


def _terminator(data: bytes, start: int, unit: int) -> tuple[int, bool]:
    """Return where the C string ends that goes on at `start`, and whether a zero code unit ends it."""
    position = start
    zero = bytes(unit)
    while (position := data.find(zero, position)) >= 0:
        if (position - start) % unit == 0:
            return position, True
        position += 1
    return len(data), False
