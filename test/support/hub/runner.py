"""Runs generated workflows: each job in a clone of its own, each `run:` step by bash, actions by what they would leave behind."""

import fnmatch
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ruamel.yaml import YAML

from support.hub.expressions import as_text, condition, expand
from support.hub.repository import Repository


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


class Hub(Repository):
    """A repository whose workflows run when something happens to it."""

    secrets: Mapping[str, str] = MappingProxyType({"LOCKYARD_STAGE_USER": "me", "LOCKYARD_STAGE_PASSWORD": "s3cret"})

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
        base = {"github": github, "inputs": inputs, "vars": {}, "secrets": self.secrets}
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
        place = self.fresh(job_id)
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
            **self.base_env(),
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


class _Any(dict[str, Any]):
    """Outputs that are not known yet."""

    def get(self, key: str, default: Any = None) -> Any:
        return _Any()


def _functions(*, ok: bool) -> dict[str, Any]:
    return {"success": lambda: ok, "failure": lambda: not ok, "cancelled": lambda: False, "always": lambda: True}


def _joined(jobs: list[Job]) -> str:
    results = {job.result for job in jobs}
    return "failure" if "failure" in results else "skipped" if results == {"skipped"} else "success"
