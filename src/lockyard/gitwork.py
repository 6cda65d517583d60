"""A git work tree, effects: what is there, branches, commits, tags. Argument lists only; git itself checks names.

Commits and tags get the date that the caller gives, so that the same step made twice is the same commit. Hooks and signing
are those of the user's configuration.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lockyard import process
from lockyard.errors import ConfigError, LockyardError, RegistryError

_TIMEOUT = 120.0
_PUSH_TIMEOUT = 600.0
# Set inside hooks and aliases: they would lead to another repository.
_DROPPED = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}
_NAME_RE = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\-][^\x00-\x20\x7f~^:?*\[\\]*")


class GitWork:
    """The work tree around a directory. `environ` is the environment of the user: git needs its home and credentials."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root = root
        kept = {name: value for name, value in environ.items() if name not in _DROPPED}
        self._env = {"PATH": process.PATH, **kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        if process.find("git") is None:
            raise ConfigError("git is not installed, and releases are commits and tags")
        if self._word("rev-parse", "--is-inside-work-tree") != "true":
            raise ConfigError(f"{root} is in no git work tree", hint="git init, and commit the project")

    def status(self) -> tuple[str, ...]:
        """Return what differs from the last commit, in the words of `git status --short`; ignored files do not count."""
        return tuple(self._ask("status", "--porcelain=v1", "--untracked-files=all").splitlines())

    def changed(self) -> tuple[str, ...]:
        """Return the files below the root that differ from the last commit, new ones too, sorted."""
        tracked = self._ask("diff", "--name-only", "-z", "--no-renames", "--relative", "HEAD")
        new = self._ask("ls-files", "-z", "--others", "--exclude-standard")
        return tuple(sorted({path for path in f"{tracked}\0{new}".split("\0") if path}))

    def files(self) -> tuple[str, ...]:
        """Return the files below the root that are tracked or could be, ignored ones left out, sorted."""
        text = self._ask("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
        return tuple(sorted(path for path in text.split("\0") if path))

    def tracked(self) -> frozenset[str]:
        """Return the tracked files below the root."""
        return frozenset(path for path in self._ask("ls-files", "-z", "--cached").split("\0") if path)

    def head(self) -> str:
        """Return the id of the current commit.

        Raises:
            ConfigError: there is none yet.

        """
        found = self.resolve("HEAD")
        if found is None:
            raise ConfigError(f"{self._root} has no commit yet", hint="commit the project first")
        return found

    def resolve(self, revision: str) -> str | None:
        """Return the commit that a revision names, `None` when there is none."""
        return self._word("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")

    def parent(self, commit: str) -> str | None:
        """Return the first parent of a commit."""
        return self.resolve(f"{commit}^1")

    def branch(self) -> str | None:
        """Return the current branch, `None` when no branch is checked out."""
        return self._word("symbolic-ref", "--quiet", "--short", "HEAD")

    def branch_commit(self, name: str) -> str | None:
        """Return the commit of a local branch."""
        return self.resolve(f"refs/heads/{_name(name)}")

    def tag_commit(self, name: str) -> str | None:
        """Return the commit that a tag names."""
        return self.resolve(f"refs/tags/{_name(name)}")

    def is_shallow(self) -> bool:
        """Tell whether this is a shallow clone, which need not have all tags."""
        return self._word("rev-parse", "--is-shallow-repository") == "true"

    def upstream(self) -> str | None:
        """Return the remote branch that the current one follows, as it was when it was last fetched."""
        return self._word("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")

    def contains(self, revision: str, ancestor: str) -> bool:
        """Tell whether `ancestor` is `revision` or among its ancestors."""
        return self._run("merge-base", "--is-ancestor", ancestor, revision).exit_code == 0

    def time(self, revision: str) -> int:
        """Return when a commit was made, in seconds since 1970."""
        return int(self._ask("show", "--no-patch", "--format=%ct", f"{revision}^{{commit}}"))

    def read(self, revision: str, path: str) -> bytes | None:
        """Return a file (relative to the root) as a revision has it, `None` when it has not."""
        done = self._run("cat-file", "blob", f"{revision}:./{path}")
        return done.stdout if done.exit_code == 0 else None

    def describe(self, tags: str) -> str | None:
        """Return `TAG-N-gCOMMIT`: how far `HEAD` is from the last tag that fits the glob `tags`, `None` without one."""
        return self._word("describe", "--tags", "--long", "--match", tags, "HEAD")

    def subject(self, revision: str) -> str:
        """Return the first line of a commit's message."""
        return self._ask("show", "--no-patch", "--format=%s", f"{revision}^{{commit}}").strip()

    def create_branch(self, name: str) -> None:
        """Make a branch here and change to it; the work tree stays as it is."""
        self._ask("switch", "--quiet", "--create", _name(name))

    def switch(self, name: str) -> None:
        """Change to a branch."""
        self._ask("switch", "--quiet", "--no-guess", _name(name))

    def fast_forward(self, commit: str) -> None:
        """Move the current branch forward to a commit."""
        self._ask("merge", "--quiet", "--ff-only", commit)

    def commit(self, paths: Sequence[str], message: str, moment: dt.datetime) -> str:
        """Commit these files (relative to the root) and nothing else; return the commit.

        Raises:
            LockyardError: git or a hook of the repository refuses.

        """
        self._ask("add", "--all", "--", *paths)
        self._ask("commit", "--quiet", "--message", message, "--", *paths, at=moment)
        return self.head()

    def tag(self, name: str, message: str, commit: str, moment: dt.datetime) -> None:
        """Make an annotated tag. The message is kept as it is: lines that begin with `#` are headings of it."""
        argv = ("tag", "--annotate", "--cleanup=verbatim", "--message", message, _name(name), commit)
        self._ask(*argv, at=moment)

    def has_remote(self, name: str) -> bool:
        """Tell whether there is a remote of this name."""
        return name in self._ask("remote").splitlines()

    def push(self, remote: str, refs: Sequence[str]) -> None:
        """Push refs, all or none, never by force.

        Raises:
            RegistryError: the remote refuses or cannot be reached.

        """
        done = self._run("push", "--atomic", "--quiet", "--", remote, *refs, timeout=_PUSH_TIMEOUT)
        if done.exit_code != 0:
            raise RegistryError(
                f"git push to {remote} failed: {_last(done.stderr)}", details=done.stderr.strip().splitlines()[-10:],
                hint="git pull, or look at the remote; then go on with --resume",
            )  # fmt: skip

    def _ask(self, *words: str, at: dt.datetime | None = None) -> str:
        """Return what git answers; a failure is an error."""
        done = self._run(*words, at=at)
        if done.exit_code != 0:
            said = done.stderr.strip() or done.stdout.decode(errors="replace").strip()
            raise LockyardError(f"git {words[0]} failed: {_last(said)}", details=said.splitlines()[-10:])
        return done.stdout.decode(errors="surrogateescape")

    def _word(self, *words: str) -> str | None:
        """Return a one-line answer, `None` when git says no."""
        done = self._run(*words)
        return done.stdout.decode(errors="surrogateescape").strip() if done.exit_code == 0 else None

    def _run(self, *words: str, at: dt.datetime | None = None, timeout: float = _TIMEOUT) -> process.Captured:
        dates = {}
        if at is not None:
            dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{at.timestamp():.0f} +0000")
        # Paths come as they are.
        argv = ["git", "-C", str(self._root), "-c", "core.quotePath=false", *words]
        return process.capture(argv, env={**self._env, **dates}, timeout=timeout)


def _name(text: str) -> str:
    if not _NAME_RE.fullmatch(text):
        raise ConfigError(f"{text!r} is no name that git takes")
    return text


def _last(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return lines[-1].removeprefix("fatal: ").removeprefix("error: ") if lines else "it said nothing"
