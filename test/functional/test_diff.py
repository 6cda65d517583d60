"""`diff` from the command line: releases, git revisions, formats, errors."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard.cli.root import run
from support.releases import ENV_IN, INSTALLED, env_out, release, write_distribution
from support.require import need

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    newer = release(("cpu", "gpu"), cpu__env__out=env_out({**INSTALLED, "numpy": "2.3.0"}))
    return write_distribution(tmp_path / "small", {"1.0.0": release(), "1.0.1": newer})


@pytest.fixture
def lockyard(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(root)

    def call(*args: str) -> tuple[int, str, str]:
        code = run(args, environ={})
        out, err = capsys.readouterr()
        return code, out, err

    return call


def git(root: Path, *words: str) -> None:
    need("git")
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)


def test_two_releases(lockyard: Run) -> None:
    code, out, err = lockyard("diff", "1.0.0", "1.0.1")
    assert (code, err) == (0, "")
    assert "    ~ numpy  2.2.1 -> 2.3.0  minor\n" in out
    assert "\x1b" not in out
    assert "gpu: nothing changed" in out


def test_colour_when_asked(lockyard: Run) -> None:
    assert "\x1b[" in lockyard("--color", "always", "diff", "1.0.0", "1.0.1")[1]
    assert "\x1b[" not in lockyard("--color", "never", "diff", "1.0.0", "1.0.1")[1]


def test_json_and_format_json_are_one(lockyard: Run) -> None:
    answers = [lockyard("diff", "1.0.0", "1.0.1", *words)[1] for words in (("--json",), ("--format", "json"))]
    assert answers[0] == answers[1]
    assert json.loads(answers[0])["types"]["cpu"]["direct"]["changed"] == {"numpy": ["2.2.1", "2.3.0"]}


def test_a_release_and_a_revision_of_itself(lockyard: Run, root: Path) -> None:
    git(root.parent, "init", "-q")
    git(root.parent, "add", "-A")
    git(root.parent, "commit", "-q", "-m", "one")
    place = root / "build_artifacts/v1/v1.0/v1.0.1"
    (place / "cpu.env.out").write_text(env_out({**INSTALLED, "numpy": "2.4.0"}))
    for words in (("1.0.1@HEAD", "1.0.1"), ("1.0.1", "--rev", "HEAD")):
        code, out, _ = lockyard("diff", *words, "--json")
        value = json.loads(out)
        assert (code, value["base"], value["target"]) == (0, "1.0.1@HEAD", "1.0.1")
        assert value["types"]["cpu"]["direct"]["changed"] == {"numpy": ["2.3.0", "2.4.0"]}


def test_a_revision_with_names_that_need_quotes_and_modes(lockyard: Run, root: Path) -> None:
    git(root, "init", "-q")
    place = root / "build_artifacts/v1/v1.0/v1.0.1"
    (place / "dirs").mkdir()
    (place / "dirs" / 'a "ü .env.in').write_text("conda-forge::numpy\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "one")
    assert lockyard("diff", "1.0.1@main", "1.0.1")[0] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("1.0.0",), "give two releases, or one release and --rev REV"),
        (("1.0.0", "1.0.1", "--rev", "HEAD"), "give two releases"),
        (("1.0.1@", "1.0.1"), "names no git revision"),
        (("1.0.0", "1.0.1", "--platform", "osx-64"), "no lock has the platform 'osx-64'; there are linux-64"),
        (("1.0.1@--output=x", "1.0.1"), "is not a git revision"),
        (("1.0.1@nowhere", "1.0.1"), "git has no revision 'nowhere'"),
        (("1.0.7", "1.0.1"), "there is no release 1.0.7"),
        (("1.0.0@HEAD", "1.0.1", "--image-type", "gpux"), "did you mean 'gpu'?"),
        (
            ("1.0.1@HEAD~1", "1.0.1"),
            "there is no release 1.0.1 (build_artifacts/v1/v1.0/v1.0.1) in git revision HEAD~1",
        ),
    ],
)
def test_usage_errors(lockyard: Run, root: Path, args: tuple[str, ...], words: str) -> None:
    git(root, "init", "-q")
    git(root, "add", "build_artifacts/v1/v1.0/v1.0.0")
    git(root, "commit", "-q", "-m", "one")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "two")
    code, out, err = lockyard("diff", *args)
    assert (code, out) == (2, "")
    assert words in err.replace("\n", " ").replace("  ", " ")


def test_no_repository(lockyard: Run) -> None:
    code, _, err = lockyard("diff", "1.0.0", "--rev", "HEAD")
    assert code == 2
    assert "not a git repository" in err


def test_a_malformed_spec_is_named(lockyard: Run, root: Path) -> None:
    (root / "build_artifacts/v1/v1.0/v1.0.1/cpu.env.in").write_text(ENV_IN + "a::b::[\n")
    code, _, err = lockyard("diff", "1.0.0", "1.0.1")
    assert code == 2
    assert "build_artifacts/v1/v1.0/v1.0.1/cpu.env.in:4" in err


def test_an_ambiguous_revision_is_what_git_takes_it_for(lockyard: Run, root: Path) -> None:
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "one")
    git(root, "branch", "both")
    git(root, "tag", "both")
    code, out, _ = lockyard("diff", "1.0.1", "--rev", "both")
    assert code == 0
    assert "cpu: nothing changed" in out


def test_without_git(lockyard: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from lockyard import process

    monkeypatch.setattr(process, "find", lambda name: None)
    code, _, err = lockyard("diff", "1.0.1", "--rev", "HEAD")
    assert code == 2
    assert "git is not installed" in err
    assert lockyard("support")[0] == 0
