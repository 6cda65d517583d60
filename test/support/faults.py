"""Kill a command before each of its effects, run it again, and report what was found each time.

`python -m support.faults REQUEST.json` works through a request in a process of its own: it loads the modules once, then forks a child
per effect. The child counts file-system effects below the watched directory by an audit hook and kills itself with SIGKILL before
number N: buffers are lost, nothing is cleaned up, as with `kill -9`.
"""

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EFFECTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"}


@dataclass(frozen=True)
class Outcome:
    """One round: which effect was not done, what was there then, how the second run ended, what was there at last."""

    effect: str
    killed: bool
    between: dict[str, str]
    code: int
    output: str
    after: dict[str, str]


def listing(root: Path, parts: Sequence[str]) -> dict[str, str]:
    """Path → content hash (links: their target) of all below the `parts` of `root`."""
    import hashlib

    found: dict[str, str] = {}
    for part in parts:
        for path in sorted((root / part).rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            elif not any(path.iterdir()):
                found[name] = "empty directory"
    return found


def kill_at_every_effect(
    template: Path,
    args: Sequence[str],
    *,
    work: Path,
    watch: Sequence[str],
    env: Mapping[str, str],
) -> list[Outcome]:
    """Run `args` in copies of `template` at `work`, killed at effect 1, 2, …, until a run is not killed.

    `watch` are directories below the root whose files are listed; `env` values may hold `{work}`.
    """
    request = {
        "template": str(template),
        "work": str(work),
        "args": list(args),
        "watch": list(watch),
        "env": {key: value.replace("{work}", str(work)) for key, value in env.items()},
    }
    path = work.with_name(f"{work.name}.request.json")
    path.write_text(json.dumps(request))
    pythonpath = os.pathsep.join(str(ROOT / part) for part in ("src", "test", "tools"))
    done = subprocess.run(
        [sys.executable, "-m", "support.faults", str(path)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": pythonpath, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [Outcome(**item) for item in json.loads(done.stdout)]


def _absolute(value: Any, directory: Any = -1) -> str:
    """The absolute path of an audited argument; names relative to an open directory are looked up."""
    if isinstance(value, int) or value is None:
        return ""
    text = os.fsdecode(value)
    if not text.startswith("/") and isinstance(directory, int) and directory >= 0:
        with contextlib.suppress(OSError):
            text = str(Path(f"/proc/self/fd/{directory}").readlink() / text)
    return str(Path.cwd() / text)


def _written(event: str, args: tuple[Any, ...]) -> str:
    """The path that an audit event is about to change, empty when it changes nothing."""
    if event == "open":
        return _absolute(args[0]) if isinstance(args[2], int) and args[2] & _WRITE else ""
    if event in {"os.symlink", "os.link", "os.rename"}:
        return _absolute(args[1])
    return _absolute(args[0], args[-1]) if event in _EFFECTS else ""


def _hook(work: str, target: int) -> Callable[[str, tuple[Any, ...]], None]:
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        path = _written(event, args)
        if not path.startswith(work + "/"):
            return
        count += 1
        if count == target:
            os.write(2, f"killed before {event} {path.removeprefix(work + '/')}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _child(request: Mapping[str, Any], target: int | None, log: Path, modules: Path | None = None) -> int:
    """Fork, run the command, and return the wait status; the names of what it has loaded go to `modules`."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = 70
    try:
        with log.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
        os.chdir(request["work"])
        os.environ.update(request["env"])
        from lockyard.cli.root import run

        if target is not None:
            sys.addaudithook(_hook(request["work"], target))
        code = run(request["args"], environ=dict(os.environ))
        if modules is not None:
            modules.write_text("\n".join(sorted(sys.modules)))
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _load(request: Mapping[str, Any]) -> None:
    """Import what an undisturbed run imports, so that no child needs to: a run itself would start threads, which forks lose."""
    work = Path(request["work"])
    names = work.with_name(f"{work.name}.modules")
    shutil.copytree(request["template"], work, symlinks=True)
    _child(request, None, work.with_name(f"{work.name}.log"), names)
    for name in names.read_text().split() if names.exists() else ():
        with contextlib.suppress(Exception):  # what cannot be imported alone is imported by the children
            importlib.import_module(name)


def _rounds(request: Mapping[str, Any]) -> Iterator[Outcome]:
    work, log = Path(request["work"]), Path(request["work"] + ".log")
    target = 1
    while True:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(request["template"], work, symlinks=True)
        status = _child(request, target, log)
        killed = os.WIFSIGNALED(status)
        effect = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
        between = listing(work, request["watch"])
        second = _child(request, None, log)
        yield Outcome(
            effect=effect[0] if killed else "none",
            killed=killed,
            between=between,
            code=os.waitstatus_to_exitcode(second),
            output=log.read_text(errors="replace")[-3000:],
            after=listing(work, request["watch"]),
        )
        if not killed:
            return
        target += 1


def main() -> int:
    """Work through the request."""
    request = json.loads(Path(sys.argv[1]).read_text())
    _load(request)
    print(json.dumps([asdict(item) for item in _rounds(request)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
