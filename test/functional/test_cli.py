"""The root command: help, exit codes, one message for each failure, no traceback without -vv, no secrets."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest

from lockyard.cli import root as cli
from lockyard.cli.output import ConsoleLog, redact
from lockyard.errors import ConfigError, LockyardError
from lockyard.ports import Log, Toolbox
from lockyard.reports.text import human_size

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> tuple[int, str, str]:
        code = cli.run(args, environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")})
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_help_lists_every_command_by_section(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for section, names in cli.SECTIONS.items():
        assert f"{section}:" in out
        for name in names:
            assert f"  {name} " in out


@pytest.mark.parametrize("name", [name for names in cli.SECTIONS.values() for name in names])
def test_each_command_helps_with_examples(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    command = cli.root_command.get_command(click.Context(cli.root_command), name)
    assert isinstance(command, click.Group) or "\n  Examples:\n    " in out
    assert "\\b" not in out


def test_typo_names_the_nearest_command(run: Run) -> None:
    code, out, err = run("bild")
    assert (code, out) == (2, "")
    assert "did you mean 'build'?" in err


@pytest.mark.parametrize("args", [("lock", "1.2"), ("build", "1.2"), ("push", "1.2", "--target-ecr-repo", "oci:x")])
def test_short_version_suggests(run: Run, args: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert "did you mean 1.2.0?" in err
    assert not list(tmp_path.iterdir())


def test_no_distribution(run: Run, tmp_path: Path) -> None:
    code, out, err = run("lock", "1.2.0")
    assert (code, out) == (2, "")
    assert "no distribution here" in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


class BrokenError(Exception):
    pass


def broken(error: BaseException) -> Callable[[Log, Mapping[str, str]], Toolbox]:
    def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
        raise error

    return make


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BrokenError("inside https://me:secret@host/"), 1, "BrokenError: inside https://***@host/"),
        (ConfigError("it is wrong", hint="do this", details=["detail one"]), 2, "detail one"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (LockyardError("plain"), 1, "plain"),
    ],
)
def test_failures(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each failure has its exit code and one message; the traceback is there with -vv only."""
    assert cli.run(["completion", "bash"], environ={}, make=broken(error)) == code
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert "Traceback" not in err
    cli.run(["-vv", "completion", "bash"], environ={}, make=broken(error))
    assert ("Traceback" in capsys.readouterr().err) == (code != 130)


def test_json_log(capsys: pytest.CaptureFixture[str]) -> None:
    """With --log-format json every line of stderr is JSON."""
    assert cli.run(["--log-format", "json", "lock", "9.9.9", "--root"], environ={}) == 2
    capsys.readouterr()
    log = ConsoleLog(log_format="json")
    log.step("one")
    log.error(ConfigError("bad", hint="do"))
    with log.progress("fetch", 10, "B") as advance:
        advance(10)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["kind"] for line in lines] == ["step", "error", "info"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_LOCKYARD_COMPLETE" in out


def test_main_py_is_the_same_command() -> None:
    """`python src/main.py` works from a checkout."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "src" / "main.py"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("lockyard, version ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefghijkl", "Authorization: ***"),
        ("token=abc&x=1", "token=***&x=1"),
        ("https://host/path", "https://host/path"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert "abcdefgh" not in redact(text)
    assert redact(text).startswith(expected.split("***", maxsplit=1)[0])


@pytest.mark.parametrize(
    ("size", "text"), [(None, "unknown"), (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2500 GB")]
)
def test_human_size(size: float | None, text: str) -> None:
    assert human_size(size) == text
