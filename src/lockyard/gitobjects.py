"""Files as a git revision has them, read from the object database: the work tree is not looked at. Effects."""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from lockyard import process
from lockyard.errors import ConfigError
from lockyard.tree import SYMLINK, File, Tree

_REVISION_RE = re.compile(r"[^\x00-\x20\x7f-][^\x00-\x1f\x7f]*")
_COMMIT_RE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_KEPT = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_COUNT")
_TIMEOUT = 60.0


class GitObjects:
    """The repository around a directory. `environ` tells git where its configuration is; nothing else of it counts."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root = root
        self._env = {
            "PATH": process.PATH,
            "LC_ALL": "C",
            "GIT_OPTIONAL_LOCKS": "0",
            **{name: environ[name] for name in _KEPT if name in environ},
        }

    def commit(self, revision: str) -> str:
        """Return the id of the commit that `revision` names.

        Raises:
            ConfigError: there is no repository or no such commit, or git is not installed.

        """
        if not _REVISION_RE.fullmatch(revision):
            raise ConfigError(f"{revision!r} is not a git revision")
        if process.find("git") is None:
            raise ConfigError("git is not installed, and only git knows its revisions")
        argv = self._argv("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        done = process.run(argv, env=self._env, timeout=_TIMEOUT)
        if done.exit_code == 1:
            raise ConfigError(f"git has no revision {revision!r}", hint="see git log; fetch it first when it is remote")
        if done.exit_code != 0:
            raise ConfigError(f"git cannot read {self._root}: {done.output.strip().removeprefix('fatal: ')}")
        # What git warns of (an ambiguous name) comes before the answer.
        commit = done.output.strip().rpartition("\n")[2]
        if not _COMMIT_RE.fullmatch(commit):
            raise ConfigError(f"git cannot read {self._root}: {commit}")
        return commit

    def read_tree(self, revision: str, directory: str, *, wanted: Callable[[str], bool] = lambda _: True) -> Tree:
        """Return the files below `directory` (relative to the root, empty for the root) whose relative paths are `wanted`.

        A directory that the revision has not is an empty tree.

        Raises:
            ConfigError: there is no such revision, or git cannot be asked.

        """
        commit = self.commit(revision)
        prefix = f"{directory}/" if directory else ""
        found: dict[str, tuple[str, str]] = {}
        for entry in self._ask("ls-tree", "-r", "-z", commit, *(["--", prefix] if prefix else [])).split(b"\0"):
            head, _, path = entry.partition(b"\t")
            relative = path.decode(errors="replace").removeprefix(prefix)
            if path and wanted(relative):
                mode, _, name = head.decode().split(" ")
                found[relative] = (mode, name)
        blobs = self._blobs([name for _, name in found.values()])
        modes = {"120000": SYMLINK, "100755": 0o755}
        return Tree({path: File(blobs[name], modes.get(mode, 0o644)) for path, (mode, name) in found.items()})

    def changed(self, revision: str, directory: str) -> tuple[str, ...]:
        """Return the paths (relative to the root) below `directory` that differ from where this branch left `revision`.

        The work tree counts; files that git does not know are left out.

        Raises:
            ConfigError: there is no such revision, or no history that leads to it.

        """
        commit = self.commit(revision)
        argv = self._argv("merge-base", commit, "HEAD")
        done = process.run(argv, env=self._env, timeout=_TIMEOUT)
        base = done.output.strip().rpartition("\n")[2]
        if done.exit_code != 0 or not _COMMIT_RE.fullmatch(base):
            raise ConfigError(
                f"git knows no commit that {revision!r} and this branch have in common",
                hint="fetch the whole history: a shallow clone lacks it",
            )
        answer = self._ask("diff", "--name-only", "--no-renames", "--relative", "-z", base, "--", f"{directory}/")
        return tuple(path.decode(errors="replace") for path in answer.split(b"\0") if path)

    def added_on(self, directory: str) -> dict[str, dt.date]:
        """Return path (relative to the root) → the day, UTC, of the commit that first added it, below `directory`.

        Nothing without a repository, and nothing from a shallow clone, whose oldest commit seems to add everything.
        """
        argv = self._argv("rev-parse", "--is-shallow-repository")
        if process.find("git") is None or process.run(argv, env=self._env, timeout=_TIMEOUT).output.strip() != "false":
            return {}
        # No commit yet: git log fails, and there is nothing to tell.
        argv = self._argv(
            "-c", "core.quotePath=false", "log", "--diff-filter=A", "--no-renames", "--relative", "--name-only",
            "--format=%x01%ct", "--", directory,
        )  # fmt: skip
        done = process.run(argv, env=self._env, timeout=_TIMEOUT)
        found: dict[str, dt.date] = {}
        day = dt.date.min
        for line in done.output.splitlines() if done.exit_code == 0 else ():
            if line.startswith("\x01"):
                day = dt.datetime.fromtimestamp(int(line[1:]), dt.UTC).date()
            elif line:
                found[line] = day  # newest first: the oldest commit is the last to speak
        return found

    def _blobs(self, names: list[str]) -> dict[str, bytes]:
        """Return object id → bytes, all asked of one process (gitformat: `NAME SP TYPE SP SIZE LF DATA LF`)."""
        if not names:
            return {}
        answer = self._ask("cat-file", "--batch", question="".join(f"{name}\n" for name in names).encode())
        blobs, at = {}, 0
        for name in names:
            end = answer.index(b"\n", at)
            words = answer[at:end].decode().split(" ")
            if len(words) != 3 or words[1] != "blob":
                raise ConfigError(f"git has no file {name}: {' '.join(words[1:])}", hint="the clone may be partial")
            size = int(words[2])
            blobs[name] = answer[end + 1 : end + 1 + size]
            at = end + size + 2
        return blobs

    def _ask(self, *words: str, question: bytes = b"") -> bytes:
        answer = process.ask(self._argv(*words), question, env=self._env, timeout=_TIMEOUT)
        if answer.exit_code != 0:
            raise ConfigError(f"git {words[0]} failed in {self._root}")
        return answer.stdout

    def _argv(self, *words: str) -> list[str]:
        return ["git", "-C", str(self._root), *words]
