"""The command line, the stamps and the tools that are missing."""

import ast
import json
import sys
from pathlib import Path

import pytest

import demochannel
from demochannel import channel, commands, stamp
from demochannel.__main__ import main
from demochannel.commands import need_tool, run
from demochannel.errors import DemoError

PACKAGE = Path(demochannel.__file__).parent


def finished_channel(folder: Path) -> Path:
    folder.mkdir()
    (folder / "file").write_bytes(b"123")
    told = {"schema": 1, "inputs": stamp.inputs_hash("channel"), "files": {"file": 3}}
    (folder / channel.STAMP).write_text(json.dumps(told))
    return folder


def test_a_finished_channel_is_the_answer_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = finished_channel(tmp_path / "channel")
    assert main(["channel", "--output", str(output), "--work", str(tmp_path / "work")]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n"
    assert "complete" in printed.err


def test_a_damaged_channel_is_not_complete(tmp_path: Path) -> None:
    output = finished_channel(tmp_path / "channel")
    assert channel.is_complete(output)
    (output / "file").write_bytes(b"12")
    assert not channel.is_complete(output)


def test_a_foreign_directory_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert main(["channel", "--output", str(tmp_path / "mine"), "--work", str(tmp_path / "work")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "work"] == ["mine"]


def test_inputs_differ_by_part() -> None:
    assert stamp.inputs_hash("base") != stamp.inputs_hash("channel")
    assert stamp.inputs_hash("base") == stamp.inputs_hash("base")


def test_a_missing_tool_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "find_tool", lambda _: None)
    with pytest.raises(DemoError, match="dpkg-deb was not found: install the Debian package dpkg"):
        need_tool("dpkg-deb")


def test_a_failed_command_is_one_line() -> None:
    with pytest.raises(DemoError, match=r"failed with code 3: E: it broke$"):
        run([sys.executable, "-c", "import sys; sys.exit(sys.stderr.write('E: it broke\\nmore\\n') and 3)"])


def test_json_is_read_with_care(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert stamp.read_json(path) == {}
    path.write_text("[1]")
    assert stamp.read_json(path) == {}
    stamp.write_json(path, {"b": 1, "a": 2})
    assert list(stamp.read_json(path)) == ["a", "b"]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_it_stands_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not [name for name in names if name.split(".")[0] in {"lockyard", "rattler"}]


def test_the_pinned_list_names_no_address() -> None:
    assert "://" not in (PACKAGE / "wheels.toml").read_text()
