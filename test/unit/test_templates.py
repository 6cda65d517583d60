"""Templates: values in, text out, everything else refused with file and line."""

import pytest

from lockyard.errors import ConfigError
from lockyard.templates import render


def test_render() -> None:
    text = "FROM x\n{% for t in types %}{{ t }} {% endfor %}\n"
    assert render(text, {"types": ["cpu", "gpu"]}, source="f") == "FROM x\ncpu gpu \n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{ nope }}", 1),
        ("a\n\n{{ version.nope }}", 3),
        ("a\n{% for %}", 2),
        ("a\n{{ version.__class__.__mro__ }}", 2),
        ("a\n{{ 1 // 0 }}", 2),
        ("{% include 'other' %}", 1),
    ],
)
def test_refused(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        render(text, {"version": "1.0.0"}, source="d/Dockerfile.j2")
    assert caught.value.message.startswith(f"d/Dockerfile.j2:{line}: ")
