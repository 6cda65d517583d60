"""Patterns of Dockerfiles, no I/O: Go's `filepath.Match` for `COPY`, and `.dockerignore` (Dockerfile reference, ".dockerignore file")."""

import functools
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from lockyard.errors import BuildError


@functools.cache
def compiled(pattern: str) -> "re.Pattern[str]":
    """Return the regular expression of a pattern; `**` stands for any number of directories.

    Raises:
        ValueError: a bracket is not closed.

    """
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("**/", at) else 2
            out.append("(?:.*/)?" if pattern[at - 1] == "/" else ".*")
            continue
        if char == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise ValueError(f"the bracket in {pattern!r} is not closed")
            out.append(f"[{pattern[at + 1 : end]}]")
            at = end + 1
            continue
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            out.append(re.escape(pattern[at]))
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
        at += 1
    return re.compile("".join(out), re.DOTALL)


def matches(path: str, pattern: str) -> bool:
    """Say whether a path matches a pattern as a whole."""
    return compiled(pattern).fullmatch(path) is not None


@dataclass(frozen=True, slots=True)
class Ignore:
    """The rules of a `.dockerignore` in their order: (pattern, whether it takes paths back in)."""

    rules: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Read a `.dockerignore` (`source` is its name, for messages).

        Raises:
            BuildError: a pattern is malformed.

        """
        rules = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            word = line.strip()
            if not word or line.startswith("#"):
                continue
            back = word.startswith("!")
            pattern = posixpath.normpath(word.removeprefix("!").strip().lstrip("/") or ".")
            try:
                compiled(pattern)
            except ValueError as error:
                raise BuildError(f"{source}:{number}: {error}") from error
            rules.append((pattern, back))
        return cls(tuple(rules))

    def excludes(self, path: str) -> bool:
        """Say whether a file is left out: the last rule that fits it, or a directory above it, decides."""
        parents = _with_parents(path)
        out = False
        for pattern, back in self.rules:
            if out == back and any(matches(item, pattern) for item in parents):
                out = not back
        return out


def _with_parents(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
