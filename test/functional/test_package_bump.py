"""`package bump` as a user runs it: every copy, what is refused, what a killed one leaves."""

import json
from pathlib import Path

import pytest

from support.faults import kill_at_every_effect, listing
from support.lab import Lab, bare_project, make_lab

COPIES = ("pyproject.toml", "src/labservice/__init__.py", "runtimes.yaml", "README.md")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path / "lab", tmp_path / "home")


def test_the_way_of_a_version(lab: Lab) -> None:
    for words, version in (
        (("minor", "--identifier", "a"), "0.2.0a1"), (("prerelease",), "0.2.0a2"), (("prerelease", "--identifier", "b"), "0.2.0b1"),
        (("prerelease", "--identifier", "rc"), "0.2.0rc1"), (("release",), "0.2.0"), (("patch",), "0.2.1"), (("major",), "1.0.0"),
    ):  # fmt: skip
        assert lab.ok("package", "bump", *words) == version
        assert lab.git("diff", "--name-only").splitlines() == sorted(COPIES)
        assert lab.git("diff", "--numstat").replace("\t", " ").splitlines() == [
            f"1 1 {path}" for path in sorted(COPIES)
        ]
        assert lab.ok("package", "bump", "--check") == version
        lab.commit()


def test_every_edit_is_shown_and_a_dry_run_changes_nothing(lab: Lab) -> None:
    done = lab.run("package", "bump", "patch", "--dry-run")
    assert (done.code, done.out) == (0, "0.1.1\n")
    assert lab.git("status", "--porcelain") == ""
    for path in COPIES:
        assert f"{path}:" in done.err
    assert '- version = "0.1.0"' in done.err
    assert '+ version = "0.1.1"' in done.err
    answer = json.loads(lab.ok("package", "bump", "patch", "--json"))
    assert sorted(answer["written"]) == sorted(COPIES)
    assert {edit["path"] for edit in answer["edits"]} == set(COPIES)


def test_a_dirty_tree_is_refused(lab: Lab) -> None:
    lab.write({"notes.txt": "mine\n"})
    assert "?? notes.txt" in lab.refused("package", "bump", "patch")
    assert (lab.root / "notes.txt").read_text() == "mine\n"


def test_never_backwards(lab: Lab) -> None:
    lab.ok("package", "bump", "minor", "--identifier", "rc")
    lab.commit()
    assert "0.2.0rc1 cannot go back to 0.2.0b1" in lab.refused("package", "bump", "prerelease", "--identifier", "b")


def test_copies_that_disagree_are_drift(lab: Lab) -> None:
    lab.edit("runtimes.yaml", "0.1.0", "0.0.9")
    lab.commit()
    said = lab.refused("package", "bump", "--check", code=8)
    assert "runtimes.yaml:3: 0.0.9" in said
    assert "runtimes.yaml:3 said 0.0.9, not 0.1.0" in lab.run("package", "bump", "patch").err
    assert lab.ok("package", "bump", "--check") == "0.1.1"


def test_wrong_words(lab: Lab) -> None:
    assert "which step?" in lab.refused("package", "bump")
    assert "--check only looks" in lab.refused("package", "bump", "patch", "--check")
    assert "Invalid value" in lab.refused("package", "bump", "patch", "--identifier", "alpha")


def test_outside_a_repository(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    lab = Lab(tmp_path, tmp_path / "home")
    done = lab.run("package", "bump", "patch")
    assert done.code == 2
    assert "is in no git work tree" in done.err


def test_a_project_of_poetry(tmp_path: Path) -> None:
    lab = bare_project(
        tmp_path / "lab", tmp_path / "home",
        {
            "pyproject.toml": '[tool.poetry]\nname = "lab"\nversion = "1.0.0"  # kept\n', "lab/__init__.py": "__version__ = '1.0.0'\n",
        },
    )  # fmt: skip
    assert lab.ok("package", "bump", "minor", "--identifier", "b") == "1.1.0b1"
    assert (lab.root / "lab/__init__.py").read_text() == "__version__ = '1.1.0b1'\n"
    assert 'version = "1.1.0b1"  # kept' in (lab.root / "pyproject.toml").read_text()


@pytest.mark.integration
def test_a_bump_killed_anywhere_is_undone_or_done(tmp_path: Path) -> None:
    """SIGKILL before each effect of the edits: the next command begins from the old state, or finds the new one whole."""
    lab = make_lab(tmp_path / "template", tmp_path / "home")
    environ = {**lab.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    rounds = kill_at_every_effect(
        lab.root, ["package", "bump", "patch"], work=tmp_path / "work", watch=["."], env=environ
    )
    assert [item.killed for item in rounds] == [True] * (len(rounds) - 1) + [False]
    assert len(rounds) > 15
    new = tracked(rounds[-1].between)
    assert new != tracked(listing(lab.root, ["."]))
    for item in rounds:
        assert tracked(item.after) == new, item.effect
        assert item.code == 0 or "changes that are not committed" in item.output, item.effect
    assert any("restored pyproject.toml" in item.output for item in rounds)


def tracked(found: dict[str, str]) -> dict[str, str]:
    """The files of the project, without git's and Lockyard's own."""
    return {path: digest for path, digest in found.items() if not path.startswith((".git/", ".lockyard/"))}
