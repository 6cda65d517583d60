"""Scripts as image tests: exit codes, services, ready-made tests that find what is wrong."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import lockyard.checks
from lockyard import process
from lockyard.checks.run import merge_reports, read_junit, run_script
from lockyard.checks.suite import ImageTest, Kind, TestSettings
from lockyard.ports.containers import RunRequest, RunResult
from support.require import need

READY = Path(lockyard.checks.__file__).parent / "ready"


@dataclass
class Canned:
    """A runner with one answer."""

    result: RunResult
    requests: list[RunRequest] = field(default_factory=list)

    def run(self, request: RunRequest) -> RunResult:
        assert json.loads(next(source for source, place, _ in request.binds if place.endswith("json")).read_text())
        self.requests.append(request)
        return self.result


def outcome(
    result: RunResult,
    tmp_path: Path,
    kind: Kind = "shell",
    settings: Mapping[str, object] = {},
) -> tuple[str, str, RunRequest]:
    runner = Canned(result)
    test = ImageTest("a", kind, f"a.test.{kind}", TestSettings.model_validate(settings))
    found = run_script(runner, test, tmp_path, prefix="/opt/conda", context={"schema": 1}, scratch=tmp_path)
    return found.outcome, found.detail, runner.requests[0]


def test_exit_codes_tell(tmp_path: Path) -> None:
    assert outcome(RunResult(0, "fine"), tmp_path)[:2] == ("passed", "")
    assert outcome(RunResult(3, "no\n"), tmp_path)[:2] == ("failed", "no\nexit code 3")
    assert outcome(RunResult(77, "a\nno disk\n"), tmp_path)[:2] == ("skipped", "no disk")


def test_scripts_get_their_interpreter_limits_and_network(tmp_path: Path) -> None:
    *_, request = outcome(RunResult(0, ""), tmp_path, "python", {"timeout": 7, "network": True})
    assert request.argv == ("/opt/conda/bin/python", "-B", "/lockyard/tests/a.test.python")
    assert (request.timeout, request.network, request.until) == (7, True, None)
    assert {place: writable for _, place, writable in request.binds} == {
        "/lockyard/tests": False,
        "/lockyard/context.json": False,
    }
    assert outcome(RunResult(0, ""), tmp_path)[2].argv == ("/bin/sh", "/lockyard/tests/a.test.shell")


def test_a_service_passes_when_its_line_comes(tmp_path: Path) -> None:
    wait = {"wait-for": {"line": "ready", "within": 3}}
    passed = outcome(RunResult(137, "ready", found=True), tmp_path, settings=wait)
    assert passed[0] == "passed"
    assert (passed[2].until, passed[2].timeout) == ("ready", 3)
    assert outcome(RunResult(0, "done"), tmp_path, settings=wait)[:2] == (
        "failed",
        "done\nno line with 'ready' within 3 s",
    )


def test_a_process_ends_with_the_line_that_was_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 1000 & echo $! > {pid}; echo one; echo 'port 80 open'; sleep 1000"
    done = process.run_until(["/bin/sh", "-c", script], r"port \d+", env={"PATH": process.PATH}, timeout=100)
    assert (done.found, done.output) == (True, "one\nport 80 open\n")
    with contextlib.suppress(ProcessLookupError):
        ending = os.pidfd_open(int(pid.read_text()))
        assert select.select([ending], [], [], 30)[0], "what it started goes on"
        os.close(ending)


def test_a_process_without_the_line_ends_by_itself_or_by_its_time() -> None:
    env = {"PATH": process.PATH}
    done = process.run_until(["/bin/sh", "-c", "echo no; exit 4"], "yes", env=env, timeout=100)
    assert (done.found, done.timed_out, done.exit_code) == (False, False, 4)
    late = process.run_until(["/bin/sh", "-c", "echo no; sleep 1000"], "yes", env=env, timeout=0.2)
    assert (late.found, late.timed_out, late.output) == (False, True, "no\n")


def test_reports_are_joined() -> None:
    one = b'<testsuites><testsuite name="a"><testcase classname="m" name="x"/></testsuite></testsuites>'
    two = b'<testsuites><testsuite name="b"><testcase classname="s" name="y"><failure>no</failure></testcase></testsuite></testsuites>'
    assert [(test.name, test.outcome) for test in read_junit(merge_reports([one, two]))] == [
        ("m::x", "passed"),
        ("s::y", "failed"),
    ]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix with two packages, one of which imports."""
    place = tmp_path / "prefix"
    site = place / "lib/python3.11/site-packages"
    for directory in (place / "conda-meta", place / "bin", site):
        directory.mkdir(parents=True)
    (site / "good.py").write_text("x = 1\n")
    (site / "bad.py").write_text("import nothing_like_this\n")
    for name in ("good", "bad"):
        record = {"name": name, "files": [f"lib/python3.11/site-packages/{name}.py"]}
        (place / f"conda-meta/{name}-1.0-0.json").write_text(json.dumps(record))
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[console_scripts]\n{name}-cmd = {name}:x\n")
        (place / f"bin/{name}-cmd").write_text("#!/bin/sh\n")
        (place / f"bin/{name}-cmd").chmod(0o755)
    return place


def ready_made(name: str, prefix: Path, **context: object) -> subprocess.CompletedProcess[str]:
    whole = {
        "prefix": str(prefix), "direct": ["good"], "packages": ["good-1.0-0", "bad-1.0-0"], "skip_imports": [],
        "size": 10, "max_size": None, **context,
    }  # fmt: skip
    place = prefix.parent / "context.json"
    place.write_text(json.dumps(whole))
    env = {"LOCKYARD_CONTEXT": str(place), "PATH": os.environ["PATH"]}
    env["PYTHONPATH"] = str(prefix / "lib/python3.11/site-packages")
    return subprocess.run(
        [sys.executable, READY / f"{name}.test.py"], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "context", "code", "words"),
    [
        ("imports", {}, 0, "good: works"),
        ("imports", {"direct": ["good", "bad"]}, 1, "nothing_like_this"),
        ("imports", {"direct": ["good", "bad"], "skip_imports": ["bad"]}, 0, "bad: skipped"),
        ("entry-points", {}, 0, "1 console scripts, 0 broken"),
        ("entry-points", {"direct": ["good", "bad"]}, 1, "bad-cmd does not load: ModuleNotFoundError"),
        ("entry-points", {"direct": []}, 77, "no direct package"),
        ("equals-lock", {}, 0, "2 packages"),
        ("equals-lock", {"packages": ["good-1.0-0"]}, 1, "bad-1.0-0: in the image, not in the lock"),
        ("equals-lock", {"packages": ["bad-1.0-0", "good-1.0-0", "z-1-0"]}, 1, "z-1-0: in the lock, not in the image"),
        ("size", {}, 77, "no budget"),
        ("size", {"max_size": 10}, 0, "0.0 MB of 0.0 MB"),
        ("size", {"max_size": 9}, 1, ""),
        ("cuda-loads", {}, 77, "no CUDA runtime"),
    ],
)
def test_ready_made_tests_find_what_is_wrong(
    prefix: Path, name: str, context: dict[str, object], code: int, words: str
) -> None:
    done = ready_made(name, prefix, **context)
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda path: os.chown(path, 4711, 4712), "owner 4711:4712 is not in /etc/passwd"),
        (lambda path: path.chmod(0o666), "writable by all (-rw-rw-rw-)"),
        (lambda path: None, ""),
    ],
)
def test_files_of_nobody_and_for_everybody_are_found(prefix: Path, wrong: Callable[[Path], object], words: str) -> None:
    """In a root of its own: the test looks at the whole file system."""
    need("root", "sandbox")
    root = prefix.parent / "root"
    (root / "srv").mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o777)
    for name in ("etc", "context"):
        (root / name).mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "srv/file").write_text("x")
    wrong(root / "srv/file")
    (root / "context/context.json").write_text(json.dumps({"owner": [0, 0]}))
    script = (
        "import json, os, pathlib, stat, sys; text = sys.stdin.read(); read = pathlib.Path.read_text; "
        "pathlib.Path.read_text = lambda self: '0 0 4294967295' if str(self) == '/proc/self/uid_map' else read(self); "
        "os.chroot(sys.argv[1]); os.chdir('/'); exec(compile(text, 'ownership', 'exec'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], input=(READY / "ownership.test.py").read_text(), capture_output=True,
        text=True, check=False, env={"LOCKYARD_CONTEXT": "/context/context.json"},
    )  # fmt: skip
    assert done.returncode == (1 if words else 0), done.stdout + done.stderr
    assert words in done.stdout


def test_a_command_that_is_gone_is_found(prefix: Path) -> None:
    (prefix / "bin/good-cmd").chmod(0o644)
    done = ready_made("entry-points", prefix)
    assert done.returncode == 1
    assert "cannot be run" in done.stdout
