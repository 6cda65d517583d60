"""The example `labservice` as a project of its own in a temporary git repository, and commands run in it."""

import datetime as dt
import io
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard.app.packagebuild import BuildOptions, PackageBuild
from lockyard.cli.root import make_toolbox, run
from lockyard.ports import Log, Toolbox
from lockyard.pyrelease.dist import DistFile
from lockyard.pyrelease.project import Project
from support.package_index import PASSWORD, USER
from support.require import ROOT

EXAMPLE = ROOT / "examples" / "labservice"
START = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
_GIT = "[user]\nname = Lab\nemail = lab@example.com\n[init]\ndefaultBranch = main\n[advice]\ndetachedHead = false\n"


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


class _Clock:
    """A clock that stands still."""

    def now(self) -> dt.datetime:
        return START


@dataclass
class Lab:
    """A project in a git repository; `index` is where packages come from, nowhere without it."""

    root: Path
    home: Path
    index: str = "http://127.0.0.1:9/simple/"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "UV_DEFAULT_INDEX": self.index,
            "UV_CACHE_DIR": str(self.home / "uv"), "UV_NO_CONFIG": "1", "TWINE_USERNAME": USER, "TWINE_PASSWORD": PASSWORD,
            "LOCKYARD_CACHE_DIR": str(self.home / "cache"), "GIT_CONFIG_NOSYSTEM": "1",
        }  # fmt: skip

    def git(self, *words: str) -> str:
        """Run git; what it commits is of one moment, so that the same work is the same commit."""
        dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-02-28T12:00:00Z")
        done = subprocess.run(
            ["git", "-C", str(self.root), *words],
            capture_output=True,
            text=True,
            check=False,
            env={**self.environ, **dates},
        )
        assert done.returncode == 0, f"git {words}: {done.stderr}"
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | None]) -> None:
        for path, text in files.items():
            target = self.root / path
            if text is None:
                target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text, f"{path} has no {old!r}"
        (self.root / path).write_text(text.replace(old, new, 1))

    def commit(self, message: str = "work") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def run(self, *words: str) -> Result:
        """Run a command in this process; the clock of its releases stands still."""

        def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
            return replace(make_toolbox(log, environ), clock=_Clock())

        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run(["--root", str(self.root), *words], environ=self.environ, make=make)
        return Result(code, out.getvalue(), err.getvalue())

    def ok(self, *words: str) -> str:
        """Run a command that must succeed; return its answer."""
        done = self.run(*words)
        assert done.code == 0, f"{words}: {done.code}\n{done.err}"
        return done.out.strip()

    def refused(self, *words: str, code: int = 2) -> str:
        """Run a command that must fail and change nothing; return what it says."""
        before = (
            self.git("status", "--porcelain", "--untracked-files=all"),
            self.git("rev-parse", "HEAD", "--branches", "--tags"),
        )
        done = self.run(*words)
        assert done.code == code, f"{words}: {done.code}\n{done.err}"
        after = (
            self.git("status", "--porcelain", "--untracked-files=all"),
            self.git("rev-parse", "HEAD", "--branches", "--tags"),
        )
        assert before == after
        return done.err

    def python(self, *words: str) -> Result:
        """Run this Python in the project, as another process."""
        env = {**self.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'test'}", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=self.root, env=env, capture_output=True, text=True, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)


def make_lab(root: Path, home: Path, *, index: str | None = None, files: Mapping[str, str | None] | None = None) -> Lab:
    """Put the example, without its locks, into a repository at `root` and change `files` of it."""
    hidden = shutil.ignore_patterns(".*_cache", "__pycache__", ".lockyard", "dist", "out", "requirements*")
    shutil.copytree(EXAMPLE, root, ignore=hidden)
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitconfig").write_text(_GIT)
    lab = Lab(root, home, index) if index else Lab(root, home)
    lab.git("init", "--quiet")
    lab.write(files or {})
    lab.commit("The example")
    return lab


def bare_project(root: Path, home: Path, files: Mapping[str, str], *, index: str | None = None) -> Lab:
    """Put a project of these files into a repository."""
    root.mkdir(parents=True)
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitconfig").write_text(_GIT)
    lab = Lab(root, home, index) if index else Lab(root, home)
    lab.git("init", "--quiet")
    lab.write(files)
    lab.commit("The project")
    return lab


def quick_build(
    toolbox: Toolbox, project: Project, options: BuildOptions, *,
    revision: str | None = None, epoch: int | None = None, out: Path | None = None, expect_changes: bool = False,
) -> PackageBuild:  # fmt: skip
    """Stand for `build_package` where builds are not what a test is about: files that depend on what they are built from."""
    sdist, wheel = (DistFile(f"x{end}", f"{revision} {project.version}".encode()) for end in (".tar.gz", ".whl"))
    if out is not None:
        out.mkdir(exist_ok=True)
        (out / ".gitignore").write_text("*\n")
        for file in (sdist, wheel):
            (out / file.name).write_bytes(file.data)
    return PackageBuild(project.version, epoch or 0, (sdist, wheel))
