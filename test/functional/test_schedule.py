"""`schedule` in a distribution on disk."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard.cli.root import run
from support.releases import release, write_distribution

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    releases = {version: release() for version in ("1.4.0", "1.4.1", "1.5.0", "2.0.0", "2.0.1-beta.1")}
    return write_distribution(tmp_path / "small", releases)


@pytest.fixture
def call(root: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def command(*args: str) -> tuple[int, str, str]:
        code = run(["--root", str(root), "schedule", *args], environ={})
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_a_life(root: Path, call: Call) -> None:
    """Releases come, lines end; the file is small, sorted and the same after a repetition."""
    assert call("add", "1.4.0")[:2] == (0, "+ 1.4.0 patch 1.4.1\n+ 1.4.0 minor 1.5.0\n")
    assert call("add", "1.4.1")[:2] == (
        0, "- 1.4.0 patch 1.4.1\n- 1.4.0 minor 1.5.0\n+ 1.4.1 patch 1.4.2\n+ 1.4.1 minor 1.5.0\n",
    )  # fmt: skip
    assert call("add", "1.5.0", "2.0.0")[0] == 0
    assert call("list")[1].splitlines() == [
        "1.4.1 patch 1.4.2", "1.5.0 patch 1.5.1", "1.5.0 minor 1.6.0", "2.0.0 patch 2.0.1", "2.0.0 minor 2.1.0",
    ]  # fmt: skip
    before = (root / "schedule.toml").read_bytes()
    code, out, err = call("add", "2.0.0", "1.5.0")
    assert (code, out, err) == (0, "", "    the schedule is as it should be\n")
    assert (root / "schedule.toml").read_bytes() == before
    assert call("remove", "1.4", "--dry-run")[1] == "- 1.4.1 patch 1.4.2\n"
    assert (root / "schedule.toml").read_bytes() == before
    assert call("remove", "1", "--bump", "minor")[1] == "- 1.5.0 minor 1.6.0\n"
    assert call("remove", "1")[1] == "- 1.4.1 patch 1.4.2\n- 1.5.0 patch 1.5.1\n"
    code, out, err = call("remove", "1")
    assert (code, out) == (0, "")
    assert "nothing of 1 is scheduled" in err


def test_next_is_a_matrix_of_one_line(call: Call) -> None:
    call("add", "1.4.1", "2.0.0")
    code, out, err = call("next", "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "include": [
            {"base": "1.4.1", "bump": "patch", "version": "1.4.2"},
            {"base": "2.0.0", "bump": "patch", "version": "2.0.1"},
            {"base": "2.0.0", "bump": "minor", "version": "2.1.0"},
        ]
    }
    assert call("next")[1] == "1.4.1 patch 1.4.2\n2.0.0 patch 2.0.1\n2.0.0 minor 2.1.0\n"


def test_what_is_released_is_not_made_again(call: Call) -> None:
    call("add", "1.4.0")
    code, out, err = call("next", "--json")
    assert (code, json.loads(out)) == (0, {"include": []})
    assert "1.4.1 is released already: lockyard schedule add 1.4.1" in err


def test_nothing_is_scheduled(root: Path, call: Call) -> None:
    assert call("next", "--json")[:2] == (0, '{"include":[]}\n')
    code, out, err = call("list")
    assert (code, out) == (0, "")
    assert "lockyard schedule add" in err
    assert not (root / "schedule.toml").exists()


def test_only_releases_that_exist(root: Path, call: Call) -> None:
    code, _, err = call("add", "1.4.1", "1.9.0")
    assert code == 2
    assert "there is no release 1.9.0" in err
    assert not (root / "schedule.toml").exists()
    (root / "schedule.toml").write_text('schema = 1\nnightly = [{ base = "1.9.0" }]\n')
    code, out, err = call("next")
    assert (code, out) == (2, "")
    assert "lockyard schedule remove 1.9.0" in err


def test_a_pre_release_changes_nothing(root: Path, call: Call) -> None:
    code, out, err = call("add", "2.0.1-beta.1")
    assert (code, out) == (0, "")
    assert "2.0.1-beta.1 is a pre-release" in err
    assert not (root / "schedule.toml").exists()


def test_json(call: Call) -> None:
    value = json.loads(call("add", "1.4.0", "--json")[1])
    assert value["written"] is True
    assert value["added"] == value["schedule"]
    assert value["added"][1] == {"base": "1.4.0", "bump": "minor", "version": "1.5.0"}
    value = json.loads(call("remove", "1.4.0", "--json", "--dry-run")[1])
    assert (value["written"], value["schedule"], len(value["removed"])) == (False, [], 2)
    assert len(json.loads(call("list", "--json")[1])["schedule"]) == 2


def test_a_word_is_no_line(call: Call) -> None:
    code, _, err = call("remove", "1.x")
    assert code == 2
    assert "'1.x' is neither a release X.Y.Z nor a line X.Y or X" in err
