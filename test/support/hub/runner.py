"""Runs generated workflows: each job in a clone of its own, each `run:` step by bash, actions by what they would leave behind."""

import fnmatch
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from support.hub import gh as gh_program
from support.hub.expressions import as_text, condition, expand

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
_RECORD = '#!/bin/sh\necho "$GITHUB_JOB: {name} $*" >> "$HUB/calls.txt"\ncat > /dev/null < /dev/null\n'


@dataclass
class Job:
    """One job of a run, or one entry of its matrix."""

    name: str
    result: str
    log: str
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""


@dataclass
class Run:
    """A workflow that has run: its jobs by id."""

    jobs: dict[str, list[Job]] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, str]:
        return {name: _joined(jobs) for name, jobs in self.jobs.items()}

    @property
    def log(self) -> str:
        return "\n".join(f"=== {job.name}: {job.result}\n{job.log}" for jobs in self.jobs.values() for job in jobs)

    def check(self, **expected: str) -> "Run":
        """Fail with the whole log unless all jobs ended well, or as is said."""
        assert self.results == {**dict.fromkeys(self.results, "success"), **expected}, self.log
        return self


class Hub:
    """A repository at GitHub: `origin` is the bare repository, `state` what `gh` knows."""

    def __init__(self, place: Path, root: Path) -> None:
        """Host the distribution at `root`."""
        self.place = place
        self.origin = place / "origin.git"
        self._bin = place / "bin"
        self._jobs = 0
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

    # ── what people do

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
            ["git", *words], cwd=cwd or self.origin, env={**self._base_env(), **_BOT, "HUB_ADMIN": "1"},
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
        self._jobs += 1
        work = self.place / f"clone-{self._jobs}"
        self.git("clone", "--quiet", "--branch", branch, str(self.origin), str(work), cwd=self.place)
        return work

    def lockyard(self, work: Path, *words: str) -> str:
        """Run a command in a clone, as a person does."""
        done = subprocess.run(
            ["lockyard", *words], cwd=work, env={**self._base_env(), "LOCKYARD_CACHE_DIR": str(self.place / "cache")},
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
        env = {**self._base_env(), **spec["env"]["variables"], **variables, **cache}
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

    # ── what GitHub does

    def dispatch(self, workflow: str, **inputs: str | bool) -> Run:
        """Start a workflow by hand."""
        body = self._workflow(workflow)
        declared = (body["on"]["workflow_dispatch"] or {}).get("inputs", {})
        assert set(inputs) <= set(declared)
        values: dict[str, Any] = {}
        for name, item in declared.items():
            options = item.get("options", [])
            values[name] = inputs.get(name, item.get("default", options[0] if options else None))
            assert values[name] is not None, f"the input {name} is required"
            assert not options or values[name] in options
        return self._run(body, {"event_name": "workflow_dispatch", "ref": "refs/heads/main"}, self.tip(), values)

    def pushed(self, workflow: str, before: str, after: str) -> Run | None:
        """Tell a workflow of a push to main; `None` when it does not listen to these paths."""
        body = self._workflow(workflow)
        event = body["on"]["push"]
        assert event["branches"] == ["main"]
        paths = self.git("diff", "--name-only", before, after).splitlines()
        if not any(
            fnmatch.fnmatchcase(path, pattern.replace("**", "*")) for path in paths for pattern in event["paths"]
        ):
            return None
        return self._run(body, {"event_name": "push", "ref": "refs/heads/main", "event": {"before": before}}, after, {})

    def scheduled(self, workflow: str) -> Run:
        """Start a workflow by its clock."""
        body = self._workflow(workflow)
        assert body["on"]["schedule"][0]["cron"].count(" ") == 4
        return self._run(body, {"event_name": "schedule", "ref": "refs/heads/main"}, self.tip(), {})

    def opened(self, workflow: str, branch: str, *labels: str) -> Run:
        """Tell a workflow of a pull request of a branch: it sees the branch merged into main."""
        body = self._workflow(workflow)
        work = self.clone()
        self.git("merge", "--quiet", "--no-ff", "--message", "merged", f"origin/{branch}", cwd=work)
        self.git("push", "--quiet", "origin", "+HEAD:refs/pull/merge", cwd=work)
        sha = self.git("rev-parse", "HEAD", cwd=work)
        event = {"pull_request": {"labels": [{"name": name} for name in labels]}}
        github = {"event_name": "pull_request", "ref": "refs/pull/merge", "base_ref": "main", "event": event}
        return self._run(body, github, sha, {})

    def _workflow(self, name: str) -> dict[str, Any]:
        text = self.git("show", f"main:.github/workflows/lockyard-{name}.yml")
        body: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
        return body

    def _run(self, body: Mapping[str, Any], github: Mapping[str, Any], sha: str, inputs: Mapping[str, Any]) -> Run:
        assert body["permissions"] == {}, "nothing is granted to all jobs"
        github = {
            "token": "t0ken", "actor": "someone", "repository": "team/images", "server_url": "https://github.example",
            "run_id": "1", "run_attempt": "1", "sha": sha, "event": {}, "base_ref": "", **github,
        }  # fmt: skip
        base = {"github": github, "inputs": inputs, "vars": {}, "secrets": {}}
        expand(body["concurrency"], base)
        run = Run()
        needs: dict[str, Any] = {}
        for job_id, job in body["jobs"].items():
            wanted = [job["needs"]] if isinstance(job.get("needs", []), str) else job.get("needs", [])
            mine = {name: needs[name] for name in wanted}
            all_well = all(item["result"] == "success" for item in mine.values())
            context = {**base, "needs": mine, "functions": _functions(ok=all_well)}
            run.jobs[job_id] = list(self._job(job_id, job, context))
            outputs = {key: value for one in run.jobs[job_id] for key, value in one.outputs.items()}
            needs[job_id] = {"result": _joined(run.jobs[job_id]), "outputs": outputs}
        return run

    def _job(self, job_id: str, job: Mapping[str, Any], context: Mapping[str, Any]) -> Iterator[Job]:
        assert job["timeout-minutes"]
        assert "permissions" in job, f"{job_id} says nothing of its permissions"
        if not condition(job.get("if"), context):
            yield Job(job_id, "skipped", "")
            return
        matrix = expand(job.get("strategy", {}).get("matrix", {"include": [{}]}), context)
        for entry in matrix["include"]:
            yield self._one(job_id, job, {**context, "matrix": entry})

    def _one(self, job_id: str, job: Mapping[str, Any], context: Mapping[str, Any]) -> Job:
        self._jobs += 1
        place = self.place / f"job-{self._jobs}-{job_id}"
        work = place / "work"
        (place / "temp").mkdir(parents=True)
        expand(
            [job["runs-on"], job.get("concurrency"), job.get("name"), job.get("environment")],
            {**context, "steps": _Any()},
        )
        job_env = expand(job.get("env", {}), context)
        steps: dict[str, Any] = {}
        log: list[str] = []
        well = True
        for step in job["steps"]:
            here = {**context, "steps": steps, "functions": _functions(ok=well), "env": job_env}
            if not condition(step.get("if"), here):
                continue
            outputs = place / "outputs.txt"
            outputs.write_text("")
            log.append(f"--- {step.get('name') or step.get('uses')}")
            if "uses" in step:
                self._action(step["uses"].partition("@")[0], expand(step.get("with", {}), here), work, outputs)
            else:
                env = {**job_env, **expand(step.get("env", {}), here)}
                code, text = self._step(
                    job_id, job, step["run"], place, {key: as_text(value) for key, value in env.items()}, context
                )
                log.append(text)
                if code != 0:
                    log.append(f"exit code {code}")
                    well = False
            if "id" in step:
                lines = (line.partition("=") for line in outputs.read_text().splitlines())
                steps[step["id"]] = {"outputs": {name: value for name, _, value in lines}}
        summary = place / "summary.md"
        values = expand(job.get("outputs", {}), {**context, "steps": steps}) if well else {}
        shutil.rmtree(work, ignore_errors=True)
        return Job(
            f"{job_id} {as_text(context['matrix']) if context['matrix'] else ''}", "success" if well else "failure", "\n".join(log),
            {key: as_text(value) for key, value in values.items()}, summary.read_text() if summary.exists() else "",
        )  # fmt: skip

    def _step(
        self,
        job_id: str,
        job: Mapping[str, Any],
        script: str,
        place: Path,
        env: Mapping[str, str],
        context: Mapping[str, Any],
    ) -> tuple[int, str]:
        path = place / "step.sh"
        path.write_text(script)
        github = context["github"]
        whole = {
            **self._base_env(),
            "HOME": str(place / "home"),
            "LOCKYARD_CACHE_DIR": str(place / "cache"),
            "HUB_PERMISSIONS": json.dumps(job["permissions"]),
            "CI": "true",
            "GITHUB_JOB": job_id,
            "GITHUB_REPOSITORY": github["repository"],
            "GITHUB_SHA": github["sha"],
            "GITHUB_OUTPUT": str(place / "outputs.txt"),
            "GITHUB_STEP_SUMMARY": str(place / "summary.md"),
            "RUNNER_TEMP": str(place / "temp"),
            **env,
        }
        (place / "home").mkdir(exist_ok=True)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(path)], cwd=place / "work", env=whole, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout

    def _action(self, name: str, values: Mapping[str, Any], work: Path, outputs: Path) -> None:
        """Do what an action does, as far as later steps see it."""
        if name == "actions/checkout":
            self._checkout(values, work)
        elif name == "actions/upload-pages-artifact":
            shutil.copytree(work / values["path"], self.place / "pages", dirs_exist_ok=True)
        elif name == "actions/deploy-pages":
            outputs.write_text("page_url=https://team.github.example/images\n")
        else:
            assert name in {"actions/setup-python", "sigstore/cosign-installer"}, name

    def _checkout(self, values: Mapping[str, Any], work: Path) -> None:
        """Clone everything where `fetch-depth` is 0, else fetch the one commit."""
        assert values["persist-credentials"] is False, "no token stays in the clone"
        ref = values.get("ref", "refs/pull/merge")
        depth = ["--depth=1"] if values.get("fetch-depth") != 0 else []
        if depth:
            self.git("init", "--quiet", "--initial-branch=main", str(work), cwd=self.place)
            self.git("remote", "add", "origin", f"file://{self.origin}", cwd=work)
        else:
            self.git("clone", "--quiet", "--no-checkout", str(self.origin), str(work), cwd=self.place)
        if depth or ref.startswith("refs/"):
            self.git("fetch", "--quiet", *depth, "origin", ref, cwd=work)
            ref = "FETCH_HEAD"
        self.git("checkout", "--quiet", ref, cwd=work)

    def _base_env(self) -> dict[str, str]:
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
            **{name: _RECORD.format(name=name) for name in ("python", "sudo", "docker", "cosign")},
        }
        for name, text in programs.items():
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)


class _Any(dict[str, Any]):
    """Outputs that are not known yet."""

    def get(self, key: str, default: Any = None) -> Any:
        return _Any()


def _functions(*, ok: bool) -> dict[str, Any]:
    return {"success": lambda: ok, "failure": lambda: not ok, "cancelled": lambda: False, "always": lambda: True}


def _joined(jobs: list[Job]) -> str:
    results = {job.result for job in jobs}
    return "failure" if "failure" in results else "skipped" if results == {"skipped"} else "success"
