"""`python -m support.engine_cli ROOT COMMAND …`: the command line in a process of its own, on a site of `engine_site`."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lockyard.cli.root import make_toolbox, run
from lockyard.ports import Log, Toolbox
from support.packages import DirectorySource

_TESTS = Path(__file__).resolve().parents[1]


def start(root: Path, *args: str, environ: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start a command; its outputs are one pipe."""
    paths = [str(_TESTS), str(_TESTS.parent / "src"), str(_TESTS.parent / "tools")]
    return subprocess.Popen(
        [sys.executable, "-m", "support.engine_cli", str(root), *args], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, **environ, "PYTHONPATH": os.pathsep.join(paths), "LOCKYARD_CACHE_DIR": str(root.with_name("cache"))},
    )  # fmt: skip


def wait_for(process: "subprocess.Popen[str]", text: str) -> list[str]:
    """Read the output up to the line that holds `text`."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came: {''.join(seen)}")


def _main(root: str, args: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `main` does

    def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
        source = DirectorySource(Path(root).with_name("packages"))
        return dataclasses.replace(make_toolbox(log, environ), packages=lambda: source)

    return run(["--root", root, *args], environ=dict(os.environ), make=make)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
