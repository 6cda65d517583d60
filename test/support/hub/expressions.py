"""The expressions of GitHub Actions, as far as generated workflows use them.

"Evaluate expressions in workflows and actions", GitHub documentation: literals, operators, filters of arrays, functions.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][\w-]*)|(?P<op>&&|\|\||==|!=|[!()\[\],.*]))"
)
_WHOLE = re.compile(r"\$\{\{((?:(?!\}\}).)*)\}\}", re.DOTALL)
_STATUS = re.compile(r"\b(?:success|failure|cancelled|always)\s*\(")


def evaluate(text: str, context: Mapping[str, Any]) -> Any:
    """Evaluate what stands between `${{` and `}}`."""
    parser = _Parser(text, context)
    value = parser.either()
    parser.end()
    return value


def expand(value: Any, context: Mapping[str, Any]) -> Any:
    """Replace the expressions in a value of a workflow; a text that is one expression becomes its value."""
    if isinstance(value, dict):
        return {key: expand(item, context) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, context) for item in value]
    if not isinstance(value, str):
        return value
    whole = _WHOLE.fullmatch(value.strip())
    if whole:
        return evaluate(whole[1], context)
    return _WHOLE.sub(lambda match: as_text(evaluate(match[1], context)), value)


def condition(text: str | None, context: Mapping[str, Any]) -> bool:
    """Evaluate an `if`; without a status function it means that all went well so far."""
    if text is None:
        return bool(evaluate("success()", context))
    inner = _WHOLE.fullmatch(text.strip())
    expression = inner[1] if inner else text
    if not _STATUS.search(expression) and not evaluate("success()", context):
        return False
    return bool(evaluate(expression, context))


def as_text(value: Any) -> str:
    """Return a value as it stands in a text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


class _Parser:
    def __init__(self, text: str, context: Mapping[str, Any]) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            assert match, f"cannot read {text[at:]!r}"
            assert match.lastgroup
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self._at = 0
        self._context = context

    def end(self) -> None:
        assert self._at == len(self._tokens), self._tokens[self._at :]

    def either(self) -> Any:
        value = self.both()
        while self._take("||"):
            other = self.both()
            value = value or other
        return value

    def both(self) -> Any:
        value = self.compared()
        while self._take("&&"):
            other = self.compared()
            value = value and other
        return value

    def compared(self) -> Any:
        value = self.unary()
        for operator in ("==", "!="):
            if self._take(operator):
                return (value == self.unary()) == (operator == "==")
        return value

    def unary(self) -> Any:
        return not self.unary() if self._take("!") else self.access(self.primary())

    def primary(self) -> Any:
        kind, token = self._tokens[self._at]
        self._at += 1
        if kind == "string":
            return token[1:-1].replace("''", "'")
        if kind == "number":
            return float(token) if "." in token else int(token)
        if token == "(":
            value = self.either()
            assert self._take(")")
            return value
        assert kind == "name", token
        if token in {"true", "false", "null"}:
            return {"true": True, "false": False, "null": None}[token]
        return self._call(token) if self._take("(") else self._context[token]

    def access(self, value: Any) -> Any:
        while True:
            if self._take("."):
                kind, name = self._tokens[self._at]
                self._at += 1
                if name == "*":
                    _, name = self._tokens[self._at + 1]
                    self._at += 2
                    value = [item.get(name) for item in value or ()]
                else:
                    assert kind == "name", name
                    value = value.get(name) if isinstance(value, Mapping) else None
            elif self._take("["):
                index = self.either()
                assert self._take("]")
                value = value[index] if isinstance(value, list) and index < len(value) else None
            else:
                return value

    def _call(self, name: str) -> Any:
        values = []
        while not self._take(")"):
            values.append(self.either())
            self._take(",")
        functions: dict[str, Callable[..., Any]] = {
            "fromJSON": json.loads,
            "contains": lambda whole, part: part in (whole or ()),
            "startsWith": lambda text, start: as_text(text).startswith(start),
            **self._context.get("functions", {}),
        }
        return functions[name](*values)

    def _take(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == ("op", token):
            self._at += 1
            return True
        return False
