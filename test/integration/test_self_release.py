"""Lockyard releases itself: the procedure of RELEASE.md, part 2, on a clone of this very repository."""

import shutil
import zipfile
from pathlib import Path

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
