"""Words of a Dockerfile instruction: quotes, escapes and variables, as the Dockerfile reference describes them."""

import re
from collections.abc import Mapping

_NAME_RE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_FORM_RE = re.compile(r"(:?)([-+?])")


class WordError(ValueError):
    """A word cannot be read; the message says why."""


def expand(text: str, values: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """Split `text` at blanks and replace variables; unknown names are empty.

    The forms are `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`, `${NAME:?word}`, the last three also without the colon.
    Nothing is replaced between single quotes; a value with blanks stays one word.

    >>> expand("a=$X 'c $X' ${Y:-z}", {"X": "1 2"})
    ['a=1 2', 'c $X', 'z']

    Raises:
        WordError: a quote or a brace is open, or a form of `${…}` is not supported.

    """
    return _Reader(text, values, escape).words()


def expand_word(text: str, values: Mapping[str, str], *, escape: str = "\\") -> str:
    """Do the same to `text` as one word: its blanks stay.

    >>> expand_word("a  b 'c $X'", {})
    'a  b c $X'

    Raises:
        WordError: as `expand`.

    """
    return _Reader(text, values, escape).word()


class _Reader:
    def __init__(self, text: str, values: Mapping[str, str], escape: str) -> None:
        self.text = text
        self.values = values
        self.escape = escape
        self.at = 0

    def words(self) -> list[str]:
        found: list[str] = []
        current: list[str] | None = None
        while self.at < len(self.text):
            char = self.text[self.at]
            if char.isspace():
                self.at += 1
                if current is not None:
                    found.append("".join(current))
                    current = None
                continue
            current = current if current is not None else []
            current.append(self._piece(char))
        if current is not None:
            found.append("".join(current))
        return found

    def word(self) -> str:
        pieces = []
        while self.at < len(self.text):
            pieces.append(self._piece(self.text[self.at]))
        return "".join(pieces)

    def _piece(self, char: str) -> str:
        """Read a quoted piece, an escape, a variable or one character."""
        if char == "'":
            end = self.text.find("'", self.at + 1)
            if end < 0:
                raise WordError("a single quote is not closed")
            piece = self.text[self.at + 1 : end]
            self.at = end + 1
            return piece
        if char == '"':
            return self._double()
        if char == "$":
            return self._variable()
        if char == self.escape and self.at + 1 < len(self.text):
            self.at += 1
            char = self.text[self.at]
        self.at += 1
        return char

    def _double(self) -> str:
        out: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return "".join(out)
            if char == "$":
                out.append(self._variable())
                continue
            if char == self.escape and self.text[self.at + 1 : self.at + 2] in {'"', "$", self.escape}:
                self.at += 1
                char = self.text[self.at]
            out.append(char)
            self.at += 1
        raise WordError("a double quote is not closed")

    def _variable(self) -> str:
        if self.text[self.at + 1 : self.at + 2] != "{":
            match = _NAME_RE.match(self.text, self.at + 1)
            self.at = match.end() if match else self.at + 1
            return self.values.get(match[0], "") if match else "$"
        end = self._closing(self.at + 2)
        inner = self.text[self.at + 2 : end]
        self.at = end + 1
        match = _NAME_RE.match(inner)
        name, rest = (match[0], inner[match.end() :]) if match else ("", inner)
        form = _FORM_RE.match(rest)
        if name and not rest:
            return self.values.get(name, "")
        if name and form:
            return self._chosen(name, form[1] == ":", form[2], rest[form.end() :])
        raise WordError(f"${{{inner}}} is a form of variable that is not supported")

    def _chosen(self, name: str, empty_counts: bool, kind: str, text: str) -> str:
        """Read `${NAME:-word}` and its relatives; with the colon an empty value is as none."""
        value = self.values.get(name)
        there = bool(value) if empty_counts else value is not None
        if kind == "?" and not there:
            raise WordError(f"{name}: {text or 'not set'}")
        if there == (kind == "+"):
            return expand_word(text, self.values, escape=self.escape)
        return value or "" if there else ""

    def _closing(self, start: int) -> int:
        depth = 1
        for position in range(start, len(self.text)):
            depth += {"{": 1, "}": -1}.get(self.text[position], 0)
            if depth == 0:
                return position
        raise WordError("${ is not closed")
