"""Lockyard releases itself: the procedure of RELEASE.md, part 2, on a clone of this very repository."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest

from lockyard import __version__
from lockyard.gitwork import GitWork
from support.lab import Lab
from support.require import ROOT, need

pytestmark = pytest.mark.integration


@pytest.fixture
def clone(tmp_path: Path) -> Lab:
    """The tracked files as they are here, committed in a repository of their own."""
    need("git")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Lab\nemail = lab@example.com\n[init]\ndefaultBranch = main\n")
    lab = Lab(tmp_path / "lockyard", home)
    for path in GitWork(ROOT, lab.environ).files():
        if (ROOT / path).is_file():
            (lab.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, lab.root / path, follow_symlinks=False)
    lab.git("init", "--quiet")
    lab.commit("Lockyard")
    return lab


def test_the_plan_and_the_distributions(clone: Lab) -> None:
    """Copies agree, the plan is the whole procedure, the wheel holds what Lockyard needs at run time."""
    assert clone.ok("package", "bump", "--check") == __version__
    steps = clone.ok("package", "release", "final", "--dry-run", "--bump", "minor").splitlines()
    assert [line.split()[0] for line in steps] == [
        "checks", "bump", "lock", "build", "changelog", "branch", "commit", "tag", "next", "distributions",
    ]  # fmt: skip
    done = clone.run("package", "build", "--no-isolation", "--no-verify", "--no-install")
    assert done.code == 0, done.err
    assert "not in lockyard" not in done.err  # every tracked file of the package is in the wheel
    with zipfile.ZipFile(done.out.splitlines()[1]) as archive:
        names = set(archive.namelist())
    assert {
        "lockyard/py.typed",
        "lockyard/checks/ready/imports.test.py",
        "lockyard/pyrelease/templates/default.Dockerfile.j2",
    } <= names
    assert not [name for name in names if name.startswith(("test", "tools", "docs"))]


def test_a_pre_release_of_lockyard(clone: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bump, changelog, commit, tag, distributions from the tag; its own checks and locks are run by CI and by `make`."""
    from lockyard.app import releasesteps
    from lockyard.pyrelease.plan import Done
    from support.lab import quick_build

    monkeypatch.setattr(releasesteps, "_run_check", lambda release, argv: None)
    monkeypatch.setattr(releasesteps, "build_package", quick_build)
    monkeypatch.setattr(releasesteps, "_STEPS", {**releasesteps._STEPS, "lock": lambda release: Done("no network")})
    out = clone.ok("package", "release", "pre", "--bump", "minor", "--identifier", "a", "--no-isolation").splitlines()
    version = out[0].removeprefix("v")
    assert version.endswith("a1")
    assert f'__version__ = "{version}"' in clone.git("show", f"{out[0]}:src/lockyard/__init__.py")
    assert f"## [{version}] - 2026-03-01" in clone.git("show", f"{out[0]}:CHANGELOG.md")
    assert clone.git("diff", "--name-only", "main~1", "main").splitlines() == [
        "CHANGELOG.md",
        "pyproject.toml",
        "src/lockyard/__init__.py",
    ]
    assert clone.git("status", "--porcelain") == ""


def test_the_release_workflow(clone: Lab) -> None:
    """actionlint with shellcheck, and zizmor at its strictest, find nothing; its commands are those of the procedure."""
    tools = Path(sys.executable).parent
    workflow = str(clone.root / ".github" / "workflows" / "release.yml")
    for argv in (
        [str(tools / "actionlint"), "-shellcheck", str(tools / "shellcheck"), workflow],
        [str(tools / "zizmor"), "--offline", "--quiet", "--persona", "pedantic", workflow],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_release_workflow_runs(clone: Lab, tmp_path: Path) -> None:
    """The script of its release job, as the runner runs it, with a stand-in for Lockyard that notes what it is asked."""
    from ruamel.yaml import YAML

    jobs = YAML(typ="safe").load((clone.root / ".github/workflows/release.yml").read_text())["jobs"]
    script = next(step["run"] for step in jobs["release"]["steps"] if step.get("id") == "release")
    place = tmp_path / "bin"
    for path, text in (
        (place / "gh", "#!/bin/sh\n"),
        (clone.root / ".venv/bin/lockyard", '#!/bin/sh\necho "v1.0.0"\necho "$@"\n'),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    output = tmp_path / "output"
    for kind, part, identifier, wanted in (
        ("pre", "minor", "a", "package release pre --bump minor --identifier a --repository none --publish"),
        ("final", "", "", "package release final --repository none --publish"),
    ):
        env = {
            "KIND": kind,
            "BUMP": part,
            "IDENTIFIER": identifier,
            "GITHUB_OUTPUT": str(output),
            "PATH": f"{place}:/usr/bin:/bin",
        }
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=clone.root, env={**clone.environ, **env},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["v1.0.0", wanted]
        assert problem_of(wanted.split()) is None
        assert clone.git("status", "--porcelain") == ""
    assert output.read_text() == "tag=v1.0.0\n" * 2


def problem_of(words: list[str]) -> str | None:
    """Parse a command line of `lockyard package` as click does."""
    from lockyard.cli.package import package

    command = getattr(package, "commands")[words[1]]  # noqa: B009 - groups of click
    try:
        command.make_context(words[1], words[2:])
    except click.UsageError as error:
        return error.message
    return None
