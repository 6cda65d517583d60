"""A repository at GitHub as people and programs see it: a bare repository, and in a file what `gh` knows of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from support.hub import gh as gh_program

_BOT = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}
_HOOK = """#!/bin/sh
# A push by a job needs its permission; a protected branch takes no pushes at all.
if [ -n "$HUB_PERMISSIONS" ]; then
  case "$HUB_PERMISSIONS" in *'"contents": "write"'*) ;; *) echo "refused: contents: write is missing" >&2; exit 1;; esac
  [ -n "$GH_TOKEN" ] || { echo "refused: no token" >&2; exit 1; }
fi
while read -r _ _ ref; do
  if [ "$ref" = refs/heads/main ] && [ -f "$HUB/protected" ] && [ -z "$HUB_ADMIN" ]; then echo "refused: protected" >&2; exit 1; fi
done
"""
_RECORD = '#!/bin/sh\necho "$GITHUB_JOB: {name} $*" >> "$HUB/calls.txt"\n'


class Repository:
    """A repository at GitHub: `origin` is the bare repository, `state` what `gh` knows."""

    def __init__(self, place: Path, root: Path) -> None:
        """Host the distribution at `root`."""
        self.place = place
        self.origin = place / "origin.git"
        self._bin = place / "bin"
        self._used = 0
        place.mkdir()
        (place / "state.json").write_text(json.dumps({"pulls": [], "comment": 0, "releases": {}}))
        self._write_programs()
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.origin), cwd=place)
        self.git("config", "uploadpack.allowReachableSHA1InWant", "true")
        hook = self.origin / "hooks" / "pre-receive"
        hook.write_text(_HOOK)
        hook.chmod(0o755)
        self.git("init", "--quiet", "--initial-branch=main", cwd=root)
        self.git("remote", "add", "origin", str(self.origin), cwd=root)
        self.commit(root, "Begin")

    @property
    def state(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.place / "state.json").read_text())
        return value

    @property
    def calls(self) -> list[str]:
        """What was called of the fake programs: `JOB: PROGRAM ARGUMENTS`."""
        path = self.place / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    def git(self, *words: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *words], cwd=cwd or self.origin, env={**self.base_env(), **_BOT, "HUB_ADMIN": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"git {words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def commit(self, work: Path, message: str) -> None:
        """Commit everything in a clone and push its branch."""
        self.git("add", "--all", cwd=work)
        self.git("commit", "--quiet", "--message", message, cwd=work)
        self.git("push", "--quiet", "origin", "HEAD", cwd=work)

    def clone(self, branch: str = "main") -> Path:
        work = self.fresh("clone")
        self.git("clone", "--quiet", "--branch", branch, str(self.origin), str(work), cwd=self.place)
        return work

    def fresh(self, what: str) -> Path:
        """Return a path that was not used before."""
        self._used += 1
        return self.place / f"{self._used}-{what}"

    def lockyard(self, work: Path, *words: str) -> str:
        """Run a command in a clone, as a person does."""
        done = subprocess.run(
            ["lockyard", *words], cwd=work, env={**self.base_env(), "LOCKYARD_CACHE_DIR": str(self.place / "cache")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def buildspec(self, name: str, work: Path, **variables: str) -> Path:
        """Run the commands of a build specification of CodeBuild in a clone, and return the clone."""
        spec = YAML(typ="safe", pure=True).load((work / "codebuild" / f"lockyard-{name}.yml").read_text())
        assert spec["version"] == 0.2
        cache = {"LOCKYARD_CACHE_DIR": str(self.place / f"cache-{name}")}
        assert set(variables) <= set(spec["env"]["variables"])
        env = {**self.base_env(), **spec["env"]["variables"], **variables, **cache}
        for phase in spec["phases"].values():
            for command in phase["commands"]:
                done = subprocess.run(
                    [spec["env"].get("shell", "sh"), "-c", command],
                    cwd=work,
                    env=env,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        kept = [
            *spec.get("artifacts", {}).get("files", []),
            *(file for item in spec.get("reports", {}).values() for file in item["files"]),
        ]
        assert all((work / file).is_file() for file in kept), kept
        return work

    def label(self, number: int, *names: str) -> None:
        state = self.state
        state["pulls"][number - 1]["labels"] = [{"name": name} for name in names]
        (self.place / "state.json").write_text(json.dumps(state))

    def fork_asks(self, branch: str) -> None:
        """Somebody opens a pull request from a branch of this name in a fork."""
        state = self.state
        state["pulls"].append(
            {
                "number": len(state["pulls"]) + 1, "head": branch, "base": "main", "title": "Take this", "body": "",
                "state": "open", "isDraft": False, "isCrossRepository": True, "comments": [], "labels": [],
            }
        )  # fmt: skip
        (self.place / "state.json").write_text(json.dumps(state))

    def merge(self, number: int) -> tuple[str, str]:
        """Merge a pull request by hand; return main before and after."""
        state = self.state
        pull = state["pulls"][number - 1]
        work = self.clone()
        before = self.git("rev-parse", "HEAD", cwd=work)
        self.git("merge", "--quiet", "--no-ff", "--message", f"Merge #{number}", f"origin/{pull['head']}", cwd=work)
        self.git("push", "--quiet", "origin", "HEAD", cwd=work)
        pull["state"] = "closed"
        (self.place / "state.json").write_text(json.dumps(state))
        return before, self.git("rev-parse", "HEAD", cwd=work)

    def tip(self, branch: str = "main") -> str:
        return self.git("rev-parse", f"refs/heads/{branch}")

    def base_env(self) -> dict[str, str]:
        return {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "HUB": str(self.place),
            "HOME": str(self.place),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "LANG": "C.UTF-8",
        }

    def _write_programs(self) -> None:
        self._bin.mkdir()
        programs = {
            "lockyard": f'#!/bin/sh\nexec {sys.executable} -m lockyard "$@"\n',
            "gh": f'#!/bin/sh\nexec {sys.executable} {gh_program.__file__} "$@"\n',
            **{name: _RECORD.format(name=name) for name in ("python", "sudo", "cosign")},
            "docker": _RECORD.format(name="docker") + "cat > /dev/null\n",  # it reads a password
        }
        for name, text in programs.items():
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)
