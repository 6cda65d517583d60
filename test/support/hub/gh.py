"""A `gh` that keeps pull requests, comments and releases in a file. It takes what generated workflows say, and nothing else.

`HUB` is its directory, `HUB_PERMISSIONS` what the job may do. Run as a program.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HUB = Path(os.environ.get("HUB", "."))
STATE = HUB / "state.json"


def main() -> int:
    arguments = sys.argv[1:]
    with (HUB / "calls.txt").open("a") as calls:
        calls.write(f"{os.environ.get('GITHUB_JOB')}: gh {' '.join(arguments)}\n")
    if not os.environ.get("GH_TOKEN"):
        sys.exit("gh: To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN environment variable")
    state = json.loads(STATE.read_text())
    name = "_".join(arguments[:2]) if arguments[0] != "api" else "api"
    rest = arguments[1:] if name == "api" else arguments[2:]
    COMMANDS[name.replace("-", "_")](state, rest)
    STATE.write_text(json.dumps(state, indent=1))
    return 0


def permit(*needed: str) -> None:
    """Refuse what the job's token may not do; `write` includes `read`."""
    granted = json.loads(os.environ["HUB_PERMISSIONS"])
    for permission in needed:
        scope, _, level = permission.partition(": ")
        if granted.get(scope) not in {level, "write"}:
            sys.exit(f"gh: Resource not accessible by integration (needs {permission})")


def parse(arguments: list[str], *flags: str, positional: int = 0, switches: tuple[str, ...] = ()) -> Any:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for number in range(positional):
        parser.add_argument(f"arg{number}")
    for flag in flags:
        parser.add_argument(f"--{flag}")
    for switch in switches:
        parser.add_argument(f"--{switch}", action="store_true")
    parser.add_argument("files", nargs="*")
    return parser.parse_intermixed_args(arguments)


def answer(value: object, program: str | None) -> None:
    if program is None:
        print(json.dumps(value))
        return
    done = subprocess.run(["jq", "-r", program], input=json.dumps(value), capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    sys.stdout.write(done.stdout)
    if done.returncode:
        sys.exit(done.returncode)


def auth_setup_git(state: dict[str, Any], arguments: list[str]) -> None:
    assert not arguments


def pr_list(state: dict[str, Any], arguments: list[str]) -> None:
    permit("pull-requests: read")
    found = parse(arguments, "head", "base", "state", "json", "jq")
    pulls = [
        pull for pull in state["pulls"]
        if (pull["head"], pull["base"], pull["state"]) == (found.head, found.base, found.state)
    ]  # fmt: skip
    answer([{key: pull[key] for key in found.json.split(",")} for pull in pulls], found.jq)


def pr_create(state: dict[str, Any], arguments: list[str]) -> None:
    permit("pull-requests: write")
    found = parse(arguments, "head", "base", "title", "body-file", "body", switches=("draft",))
    branches = subprocess.run(
        ["git", "ls-remote", "--heads", "origin", found.head], capture_output=True, text=True, check=True
    ).stdout
    assert branches.strip(), f"no branch {found.head}"
    number = len(state["pulls"]) + 1
    body = Path(found.body_file).read_text() if found.body_file else found.body
    assert len(body) <= 65536, len(body)
    state["pulls"].append(
        {
            "number": number, "head": found.head, "base": found.base, "title": found.title, "body": body,
            "state": "open", "isDraft": found.draft, "isCrossRepository": False, "comments": [], "labels": [],
        }
    )  # fmt: skip
    print(f"https://github.example/team/images/pull/{number}")


def pr_edit(state: dict[str, Any], arguments: list[str]) -> None:
    permit("pull-requests: write")
    found = parse(arguments, "body-file", positional=1)
    state["pulls"][int(found.arg0) - 1]["body"] = Path(found.body_file).read_text()


def pr_ready(state: dict[str, Any], arguments: list[str]) -> None:
    permit("pull-requests: write")
    state["pulls"][int(parse(arguments, positional=1).arg0) - 1]["isDraft"] = False


def api(state: dict[str, Any], arguments: list[str]) -> None:
    found = parse(arguments, "method", "field", "jq", positional=1, switches=("paginate", "silent"))
    body = ""
    if found.field:
        name, _, file = found.field.partition("=@")
        assert name == "body", name
        body = Path(file).read_text()
        assert len(body) <= 65536, len(body)
    match = re.fullmatch(r"repos/team/images/issues/(?:(\d+)/(comments|labels)|comments/(\d+))", found.arg0)
    assert match, found.arg0
    number, what, comment = match.groups()
    method = found.method or "GET"
    permit("pull-requests: read" if method == "GET" else "pull-requests: write")
    if method == "PATCH":
        (mine,) = [item for pull in state["pulls"] for item in pull["comments"] if item["id"] == int(comment)]
        mine["body"] = body
    elif method == "POST":
        state["comment"] += 1
        state["pulls"][int(number) - 1]["comments"].append({"id": state["comment"], "body": body})
    else:
        answer(state["pulls"][int(number) - 1][what], found.jq)


def release_view(state: dict[str, Any], arguments: list[str]) -> None:
    if parse(arguments, positional=1).arg0 not in state["releases"]:
        sys.exit("release not found")


def release_create(state: dict[str, Any], arguments: list[str]) -> None:
    permit("contents: write")
    found = parse(arguments, "target", "title", "notes-file", positional=1, switches=("prerelease",))
    assert found.arg0 not in state["releases"]
    state["releases"][found.arg0] = {
        "target": found.target, "title": found.title, "notes": Path(found.notes_file).read_text(),
        "prerelease": found.prerelease, "assets": {},
    }  # fmt: skip


def release_edit(state: dict[str, Any], arguments: list[str]) -> None:
    permit("contents: write")
    found = parse(arguments, "notes-file", positional=1)
    state["releases"][found.arg0]["notes"] = Path(found.notes_file).read_text()


def release_upload(state: dict[str, Any], arguments: list[str]) -> None:
    permit("contents: write")
    found = parse(arguments, positional=1, switches=("clobber",))
    names = [Path(file).name for file in found.files]
    assert len(set(names)) == len(names), names
    state["releases"][found.arg0]["assets"] |= {Path(file).name: Path(file).stat().st_size for file in found.files}


COMMANDS = {
    function.__name__: function
    for function in (
        auth_setup_git, pr_list, pr_create, pr_edit, pr_ready, api, release_view, release_create, release_edit, release_upload
    )
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
