"""Settings that are read strictly: the tables of `pyproject.toml`."""

import pytest

from lockyard.errors import ConfigError
from lockyard.strict import tool_table


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("[tool.lockyard]\nname = 'x'", {"name": "x"}),
        ("[tool.other]\nname = 'x'", {}),
        ("[tool]\nlockyard = 3", {}),
        ("tool = 3", {}),
        ("", {}),
    ],
)
def test_a_tool_table(text: str, table: dict[str, object]) -> None:
    assert tool_table(text, "pyproject.toml", "lockyard") == table


def test_no_toml() -> None:
    with pytest.raises(ConfigError, match=r"pyproject\.toml:2: this is no TOML"):
        tool_table("a = 1\n[tool\n", "pyproject.toml", "lockyard")
