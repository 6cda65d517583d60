"""`package release` on the example: from the first alpha to a patch of the final release, published, interrupted, refused."""

import contextlib
import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lockyard.app import packagerelease, releasesteps
from lockyard.app.packagebuild import BuildOptions, build_package
from lockyard.pyrelease.plan import STEPS, Journal, parse_journal
from support.lab import Lab, make_lab, quick_build
from support.package_index import Index, tiny_wheel
from support.require import need

pytestmark = pytest.mark.integration
QUICK = ("--no-isolation", "--no-images")
PATCH_NOTES = "## [Unreleased]\n\n### Fixed\n\n- A pressure.\n"


def versions(lab: Lab, revision: str) -> set[str]:
    """The versions that the copies of a revision say."""
    texts = [
        lab.git("show", f"{revision}:{path}")
        for path in ("pyproject.toml", "src/labservice/__init__.py", "runtimes.yaml")
    ]
    lines = [
        line
        for text in texts
        for line in text.splitlines()
        if line.startswith(("version =", "__version__", "pkg_version"))
    ]
    assert len(lines) == 3
    return {line.replace("=", ":").split(":")[1].strip().strip('"') for line in lines}


def test_from_alpha_to_a_patch_of_the_final(lab: Lab, index: Index, tmp_path: Path) -> None:
    """a1 → a2 → rc1 → final → the next patch from its branch; all of them published, pushed and installed."""
    remote = tmp_path / "remote.git"
    lab.git("init", "--quiet", "--bare", str(remote))
    lab.git("remote", "add", "origin", str(remote))
    lab.git("push", "--quiet", "--set-upstream", "origin", "main")
    release = ("package", "release")
    publish = (*QUICK, "--repository", index.upload, "--publish")

    # The first one in two steps, as careful people do it: nothing leaves the machine before --publish.
    before = lab.git("ls-remote", "origin")
    out = lab.ok(*release, "pre", "--bump", "minor", "--identifier", "a", "--no-images").splitlines()
    assert out[0] == "v0.2.0a1"
    assert (index.uploads, lab.git("ls-remote", "origin")) == (0, before)
    said = lab.run(*release, "pre", "--resume", *publish)
    assert said.code == 0, said.err
    assert "going on with 0.2.0a1" in said.err
    assert index.uploads == 2
    assert lab.git("ls-remote", "origin", "refs/tags/v0.2.0a1^{}").split()[0] == lab.git("rev-parse", "main")

    lab.ok(*release, "pre", *publish)
    lab.edit("CHANGELOG.md", "## [Unreleased]\n", PATCH_NOTES)
    lab.commit("A fix")
    lab.ok(*release, "pre", "--identifier", "rc", *publish)
    lab.ok(*release, "final", *publish)
    assert lab.git("branch", "--show-current") == "release/0.2.0"
    assert (versions(lab, "release/0.2.0"), versions(lab, "main")) == ({"0.2.0"}, {"0.3.0.dev0"})
    assert (
        lab.git("rev-parse", "main~1", "v0.2.0^{commit}", "release/0.2.0").split()[0:3]
        == [lab.git("rev-parse", "HEAD")] * 3
    )

    lab.edit("CHANGELOG.md", "## [Unreleased]\n", PATCH_NOTES)
    lab.commit("Another fix")
    lab.ok(*release, "final", "--bump", "patch", *publish)
    assert lab.git("branch", "--show-current") == "release/0.2.1"
    assert versions(lab, "main") == {"0.3.0.dev0"}

    tags = ["v0.2.0", "v0.2.0a1", "v0.2.0a2", "v0.2.0rc1", "v0.2.1"]
    assert lab.git("tag").splitlines() == tags
    assert {lab.git("cat-file", "-t", tag) for tag in tags} == {"tag"}
    assert "- A pressure." in lab.git("tag", "--list", "--format=%(contents)", "v0.2.0")
    text = lab.git("show", "v0.2.1:CHANGELOG.md")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## [Unreleased]", "## [0.2.1] - 2026-03-01", "## [0.2.0] - 2026-03-01",
    ]  # fmt: skip
    assert lab.git("status", "--porcelain") == ""
    for name in ("main", "release/0.2.0", "release/0.2.1"):
        found = lab.git("ls-remote", "origin", f"refs/heads/{name}").split()[0]
        assert lab.git("merge-base", "--is-ancestor", found, name) == ""
    assert lab.git("ls-remote", "--tags", "origin").count("refs/tags/v0.2") == 10
    names = [name for name in index.names() if name.startswith("labservice")]
    assert len(names) == 10
    _install(lab, index, tmp_path, "0.2.1", "labservice[client,server]")
    _install(lab, index, tmp_path, "0.2.0rc1", "labservice[client]==0.2.0rc1")


def _install(lab: Lab, index: Index, tmp_path: Path, version: str, what: str) -> None:
    from uv import find_uv_bin

    place = tmp_path / version
    for argv in (
        ["venv", str(place)],
        ["pip", "install", "--python", str(place / "bin/python"), "--default-index", index.simple, what],
    ):
        subprocess.run([find_uv_bin(), *argv], check=True, capture_output=True, env=lab.environ)
    done = subprocess.run([place / "bin/labservice", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"labservice, version {version}"


class Crash(BaseException):
    """The process is gone."""


@pytest.fixture
def quick_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releasesteps, "build_package", quick_build)


@pytest.fixture
def plain_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real distributions, built once and not tried."""
    plain = BuildOptions(isolated=False, verify=False, try_out=False)
    monkeypatch.setattr(
        releasesteps, "build_package", lambda box, project, _, **words: build_package(box, project, plain, **words)
    )


def state(lab: Lab) -> dict[str, object]:
    """What a release leaves: refs (commits and annotated tags by their ids), branch, files, distributions, journal."""
    journal = parse_journal((lab.root / ".lockyard/release.json").read_bytes(), source="")
    return {
        "refs": lab.git("for-each-ref", "--format=%(refname) %(objectname)"),
        "branch": lab.git("branch", "--show-current"),
        "status": lab.git("status", "--porcelain"),
        "dist": {path.name: path.read_bytes() for path in (lab.root / "dist").iterdir()},
        "left": journal.left,
        "done": {step: done.commit for step, done in journal.done.items()},
    }


def test_a_crash_after_each_step_and_then_the_same_end(
    tmp_path: Path, home: Path, index: Index, quick_builds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step has had its effects, its note is not written: the same command ends in the same commits, tags and files."""
    command = ("package", "release", "final", "--bump", "minor", *QUICK)

    def make(name: str) -> Lab:
        return make_lab(tmp_path / name / "lab", home, index=index.simple)

    whole = make("whole")
    whole.ok(*command)
    wanted = state(whole)
    save = packagerelease.save_journal
    steps = [step for step in STEPS if step in dict(wanted["done"])]  # type: ignore[call-overload]  # a mapping
    assert len(steps) == 11
    for number, step in enumerate(steps):
        lab = make(step)

        def crash(root: Path, journal: Journal, at: int = number + 1) -> None:
            if len(journal.done) == at:
                raise Crash
            save(root, journal)

        monkeypatch.setattr(packagerelease, "save_journal", crash)
        with pytest.raises(Crash):
            lab.run(*command)
        monkeypatch.setattr(packagerelease, "save_journal", save)
        if step in {"checks", "bump", "commit", "next"}:  # by another command, too, that opens the project
            lab.run("package", "bump", "--check")
        done = lab.run(*command, *(("--resume",) if number % 2 else ()))
        assert done.code == 0, f"{step}: {done.err}"
        assert state(lab) == wanted, step


PROGRAM = """\
import os, signal, sys
from pathlib import Path
from lockyard.app import releasesteps
from support.lab import Lab, quick_build

root, home, index, step = sys.argv[1:]
real = releasesteps._STEPS[step]

def killed(release):
    real(release)
    os.kill(os.getpid(), signal.SIGKILL)

releasesteps.build_package = quick_build
releasesteps._STEPS = {**releasesteps._STEPS, step: killed}
Lab(Path(root), Path(home), index).run("package", "release", "final", "--bump", "minor", "--no-isolation", "--no-images")
"""


def test_a_killed_process_goes_on(tmp_path: Path, home: Path, index: Index, quick_builds: None) -> None:
    """SIGKILL when a step has had its effects, then the same command in another process."""
    command = ("package", "release", "final", *QUICK)
    whole = make_lab(tmp_path / "whole" / "lab", home, index=index.simple)
    whole.ok(*command, "--bump", "minor")
    for step in ("bump", "commit", "next"):
        lab = make_lab(tmp_path / step / "lab", home, index=index.simple)
        first = lab.python("-c", PROGRAM, str(lab.root), str(lab.home), lab.index, step)
        assert first.code == -signal.SIGKILL, first.err
        done = lab.run(*command)
        assert done.code == 0, done.err
        assert state(lab) == state(whole), step


def crashing(monkeypatch: pytest.MonkeyPatch, lab: Lab, step: str, *words: str) -> None:
    """Run a command that ends when `step` has had its effects and before its note is written."""
    save = packagerelease.save_journal

    def crash(root: Path, journal: Journal) -> None:
        if step in journal.done:
            raise Crash
        save(root, journal)

    with monkeypatch.context() as patch:
        patch.setattr(packagerelease, "save_journal", crash)
        with pytest.raises(Crash):
            lab.run(*words)


@pytest.mark.parametrize(("step", "bump"), [("publish-git", "major"), ("publish-index", "patch")])
def test_a_crash_after_a_publishing_step(
    step: str, bump: str, lab: Lab, index: Index, plain_builds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was pushed and uploaded already is found, not refused, and nothing is sent twice."""
    remote = tmp_path / "remote.git"
    lab.git("init", "--quiet", "--bare", str(remote))
    lab.git("remote", "add", "origin", str(remote))
    lab.git("push", "--quiet", "origin", "main")
    publish = (*QUICK, "--repository", index.upload, "--publish")
    crashing(monkeypatch, lab, step, "package", "release", "final", "--bump", bump, *publish)
    before = lab.git("ls-remote", "origin")
    assert index.uploads == (2 if step == "publish-index" else 0)
    done = lab.run("package", "release", "final", "--resume")
    assert done.code == 0, done.err
    assert lab.git("ls-remote", "origin") == before
    assert index.uploads == 2
    version = {"major": "1.0.0", "patch": "0.1.1"}[bump]
    assert len([name for name in index.names() if name.startswith(f"labservice-{version}")]) == 2
    assert state(lab)["left"] == ()


def test_a_failed_publication_goes_on(lab: Lab, index: Index, quick_builds: None, tmp_path: Path) -> None:
    """A remote that refuses ends it before anything is uploaded; afterwards only what is left is done."""
    remote = tmp_path / "remote.git"
    lab.git("init", "--quiet", "--bare", str(remote))
    lab.git("remote", "add", "origin", str(remote))
    lab.git("push", "--quiet", "origin", "main")
    hook = remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    words = ("package", "release", "pre", "--bump", "patch", *QUICK, "--repository", "none", "--publish")
    said = lab.run(*words)
    assert said.code == 6
    assert "not today" in said.err
    assert index.uploads == 0
    note = lab.root / ".lockyard" / "release.json"
    kept = note.read_bytes()
    lab.ok("package", "release", "pre", "--abandon")  # what is made stays
    assert lab.git("tag") == "v0.1.1a1"
    note.write_bytes(kept)
    hook.unlink()
    done = lab.run("package", "release", "pre")
    assert done.code == 0, done.err
    assert "publish-git main, v0.1.1a1 pushed to origin" in done.out
    assert lab.git("ls-remote", "origin", "v0.1.1a1") != ""


def tags_of(lab: Lab, name: str) -> set[str]:
    """The tags of an OCI layout that stands for a repository."""
    found = json.loads((lab.root / "registry" / name / "index.json").read_text())["manifests"]
    return {item["annotations"]["org.opencontainers.image.ref.name"] for item in found}


def test_images_are_released_too(
    tmp_path: Path, home: Path, index: Index, plain_builds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three images without a container engine, tested, published to two repositories; floating tags for the final ones only.

    A crash when they are published and nobody knows it yet changes nothing.
    """
    from support.labimages import make_lab as image_lab
    from support.labimages import python_base

    need("debian", "sandbox", "root")
    whole = make_lab(tmp_path / "plain", home)  # writes the settings of git
    lab = replace(whole, root=image_lab(tmp_path, template="native", base=python_base()).root, index=index.simple)
    kinds = ("", "-client", "-client-cuda12.9")
    targets = ("--repository", "none", "--target-ecr-repo", "oci:registry/one", "--target-ecr-repo", "oci:registry/two")

    out = lab.ok("package", "release", "pre", "--bump", "minor", "--no-isolation", *targets)
    assert [line.split()[1] for line in out.splitlines() if line.startswith("images ")] == [
        f"0.2.0a1{kind}" for kind in kinds
    ]
    assert not (lab.root / "registry").exists()
    assert "pkg_version: 0.2.0a1" in lab.git("show", "v0.2.0a1:runtimes.yaml")
    assert "0.2.0a1" in lab.git("show", "v0.2.0a1:Dockerfile.client")
    crashing(monkeypatch, lab, "publish-images", "package", "release", "pre", "--resume", "--publish")
    there = [(lab.root / "registry" / name / "index.json").read_bytes() for name in ("one", "two")]
    out = lab.ok("package", "release", "pre", "--resume", "--publish")
    assert [(lab.root / "registry" / name / "index.json").read_bytes() for name in ("one", "two")] == there
    assert out.count("publish-images registry/one@sha256:") + out.count("publish-images oci:registry/one@sha256:") == 3
    for name in ("one", "two"):
        assert tags_of(lab, name) == {f"0.2.0a1{kind}" for kind in kinds}

    lab.ok("package", "release", "final", "--no-isolation", "--publish", *targets)
    assert lab.run("runtimes", "generate", "--all", "--check").code == 0
    floating = {f"latest{kind}" for kind in kinds}
    for name in ("one", "two"):
        assert (
            tags_of(lab, name) == {f"{version}{kind}" for version in ("0.2.0a1", "0.2.0") for kind in kinds} | floating
        )
    lab.git("switch", "--quiet", "main")
    assert lab.run("runtimes", "generate", "--all", "--check").code == 0


def test_targets_are_looked_at_first(lab: Lab) -> None:
    """A repository or an index that cannot be is told before the first step, not after the last but one."""
    words = ("package", "release", "pre", "--bump", "minor", "--no-isolation", "--publish")
    assert "Not/A Name" in lab.refused(*words, "--repository", "none", "--target-ecr-repo", "Not/A Name")
    assert "unknown package index 'tset'" in lab.refused(*words, "--repository", "tset")


def test_a_plan_changes_nothing(lab: Lab) -> None:
    done = lab.run("package", "release", "final", "--bump", "minor", "--dry-run", "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert [item["step"] for item in answer["steps"]] == [
        "checks", "bump", "lock", "build", "dockerfiles", "changelog", "branch", "commit", "tag", "next", "distributions", "images",
    ]  # fmt: skip
    assert {item["done"] for item in answer["steps"]} == {None}
    assert (answer["new"], answer["branch"], answer["next"], answer["publish"]) == (
        "0.2.0",
        "release/0.2.0",
        "0.3.0.dev0",
        False,
    )
    text = lab.ok("package", "release", "final", "--bump", "minor", "--dry-run", "--publish", "--repository", "pypi")
    assert "publish-index upload to pypi" in text
    assert lab.git("status", "--porcelain", "--ignored", "--untracked-files=all") == ""
    assert not (lab.root / ".lockyard").exists()


def test_what_is_refused_before_anything_happens(lab: Lab) -> None:
    final = ("package", "release", "final", "--bump", "minor", *QUICK)
    lab.write({"notes.txt": "x"})
    assert "?? notes.txt" in lab.refused(*final)
    (lab.root / "notes.txt").unlink()
    lab.git("branch", "release/0.2.0")
    assert "the branch release/0.2.0 is there already" in lab.refused(*final)
    lab.git("branch", "--delete", "release/0.2.0")
    lab.git("tag", "v0.2.0")
    assert "the tag v0.2.0 is there already" in lab.refused(*final)
    lab.git("tag", "--delete", "v0.2.0")
    lab.git("switch", "--quiet", "--detach", "HEAD")
    assert "no branch is checked out" in lab.refused(*final)
    lab.git("switch", "--quiet", "main")
    lab.write({".git/shallow": lab.git("rev-parse", "HEAD") + "\n"})
    assert "this is a shallow clone" in lab.refused(*final)
    (lab.root / ".git" / "shallow").unlink()
    assert "0.1.0 is a final version: which release are the pre-releases for?" in lab.refused(
        "package", "release", "pre"
    )
    assert "a final release has no --identifier" in lab.refused("package", "release", "final", "--identifier", "a")
    assert "testpypi is a test index" in lab.refused(*final, "--repository", "testpypi")
    assert "there is no release to go on with" in lab.refused("package", "release", "final", "--resume")
    lab.git("tag", "v0.1.0")
    assert "0.1.0 is released already: which one is next?" in lab.refused("package", "release", "final")
    lab.edit("CHANGELOG.md", "### Added", "")
    lab.write({"CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n"})
    lab.commit()
    assert "[Unreleased] says nothing, and 0.2.0 is a final version" in lab.refused(*final)


def test_checks_come_first(lab: Lab, index: Index, tmp_path: Path) -> None:
    """Drift, a check of the project, a version on the index, a remote that is ahead: found before a file is touched."""
    final = ("package", "release", "final", "--bump", "minor", *QUICK)
    lab.edit("runtimes.yaml", "0.1.0", "0.0.9")
    lab.commit()
    assert "runtimes.yaml:3: 0.0.9" in lab.refused(*final, code=8)
    lab.edit("runtimes.yaml", "0.0.9", "0.1.0")
    lab.edit(
        "pyproject.toml", "[tool.lockyard.package]", '[tool.lockyard.package]\nchecks = [["git", "no-such-command"]]'
    )
    lab.commit()
    assert "the check `git no-such-command` failed" in lab.refused(*final, code=5)
    lab.edit("pyproject.toml", '["git", "no-such-command"]', '["touch", "stray.txt"]')
    lab.commit()
    done = lab.run(*final)
    assert (done.code, "?? stray.txt" in done.err) == (2, True)
    (lab.root / "stray.txt").unlink()
    lab.edit("pyproject.toml", 'checks = [["touch", "stray.txt"]]\n', "")
    ahead = lab.commit()
    name, data = tiny_wheel("labservice", "0.2.0")
    (index.directory / name).write_bytes(data)
    said = lab.refused(*final, "--publish", "--repository", index.upload, code=3)
    assert "0.2.0 is on http://127.0.0.1" in said
    (index.directory / name).unlink()
    lab.git("init", "--quiet", "--bare", str(tmp_path / "remote.git"))
    lab.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    lab.git("push", "--quiet", "--set-upstream", "origin", "main")
    lab.git("reset", "--quiet", "--hard", f"{ahead}~1")
    assert "main lacks commits of origin/main" in lab.refused(*final)


def test_another_release_waits_and_abandon_restores(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lab.git("rev-parse", "HEAD")

    def fail(release: object) -> None:
        raise Crash

    steps = releasesteps._STEPS
    monkeypatch.setattr(releasesteps, "_STEPS", {**steps, "build": fail})
    with contextlib.suppress(Crash):
        lab.run("package", "release", "pre", "--bump", "minor", *QUICK)
    assert lab.git("status", "--porcelain") != ""
    for words in (("final", "--bump", "minor"), ("pre", "--bump", "major"), ("pre", "--identifier", "b", "--resume")):
        said = lab.refused("package", "release", *words, *QUICK)
        assert "the pre-release of 0.2.0a1 was interrupted before build" in said
        assert "--abandon" in said
    lab.ok("package", "release", "pre", "--abandon")
    assert (lab.git("status", "--porcelain"), lab.git("rev-parse", "HEAD")) == ("", before)
    assert "no release to abandon" in lab.refused("package", "release", "pre", "--abandon")
    monkeypatch.setattr(releasesteps, "_STEPS", {**steps, "tag": fail})
    with contextlib.suppress(Crash):
        lab.run("package", "release", "final", "--bump", "minor", *QUICK)
    said = lab.refused("package", "release", "final", "--abandon", code=1)
    assert "git branch --delete --force release/0.2.0" in said
    commands = [line.split()[1:] for line in said.splitlines() if line.startswith("  git ")]
    assert len(commands) == 3
    for command in commands:
        lab.git(*command)
    lab.ok("package", "release", "final", "--abandon")
    assert (lab.git("status", "--porcelain"), lab.git("rev-parse", "--branches")) == ("", before)


def test_a_version_that_is_there_is_released_as_it_is(lab: Lab, quick_builds: None) -> None:
    """The first release of a project, or one whose version was written by `bump`."""
    assert lab.ok("package", "release", "final", *QUICK).startswith("v0.1.0\n")
    assert versions(lab, "v0.1.0") == {"0.1.0"}
    assert versions(lab, "main") == {"0.2.0.dev0"}
    lab.git("switch", "--quiet", "main")
    lab.edit("CHANGELOG.md", "## [Unreleased]\n", PATCH_NOTES)
    lab.commit()
    assert lab.ok("package", "release", "pre", *QUICK).startswith("v0.2.0a1\n")
    assert lab.ok("package", "bump", "prerelease", "--identifier", "b") == "0.2.0b1"
    lab.commit("Beta")
    assert lab.ok("package", "release", "pre", *QUICK).startswith("v0.2.0b1\n")


def test_the_makefile_is_one_command_each(lab: Lab) -> None:
    """Every name that teams know is one Lockyard command line that parses."""
    from lockyard.cli.package import package
    from lockyard.cli.runtimes import COMMANDS

    groups = {"package": package, **{command.name: command for command in COMMANDS}}
    images = [f"docker-{name}{end}" for name in ("all", "client", "client-gpu") for end in ("", "-push")]
    for target in ("preversion", "build", "publish", "publish-test", "generate-docker", *images):
        done = subprocess.run(
            ["make", "--no-print-directory", "-n", target], cwd=lab.root, capture_output=True, text=True, check=True
        )
        (line,) = done.stdout.splitlines()
        program, group, name, *words = line.split()
        assert program == "lockyard"
        command = getattr(groups[group], "commands")[name]  # noqa: B009 - groups of click
        command.make_context(name, words)
