"""What a test needs of the machine: absent things skip with a reason, or fail where `LOCKYARD_REQUIRE` names them."""

import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def _command(name: str, package: str) -> str | None:
    return None if shutil.which(name) else f"{name} is not installed (Debian package {package})"


def _docker() -> str | None:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    path = host.removeprefix("unix://")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
    except OSError as error:
        return f"no Docker engine answers at {host}: {error.strerror}"
    return None


def _sandbox() -> str | None:
    if not shutil.which("unshare"):
        return "unshare is not installed (Debian package util-linux)"
    argv = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "--mount", "--pid", "--fork", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"namespaces are not allowed here: {done.stderr.strip()}"


def _buildkit() -> str | None:
    """A second daemon of Debian's next suite (`support.buildkit`) needs these of the machine."""
    for name, package in (("unshare", "util-linux"), ("runc", "runc"), ("iptables", "iptables"), ("dpkg", "dpkg")):
        reason = _command(name, package)
        if reason is not None:
            return reason
    return None if os.geteuid() == 0 else "needs root"


_CHECKS: dict[str, Callable[[], str | None]] = {
    "docker": _docker,
    "buildkit": _buildkit,
    "registry": lambda: _command("docker-registry", "docker-registry"),
    "debian": lambda: _command("apt-get", "apt") or _command("dpkg-deb", "dpkg"),
    "sandbox": _sandbox,
    "root": lambda: None if os.geteuid() == 0 else "needs root",
    "chromium": lambda: _command("chromium", "chromium") or _command("chromedriver", "chromium-driver"),
    "realdata": lambda: None if SHARED.is_dir() else "no shared data beside the project",
}


@functools.cache
def missing(name: str) -> str | None:
    """Return why `name` is not to be had, `None` when it is."""
    return _CHECKS[name]() if name in _CHECKS else _command(name, name)


def need(*names: str) -> None:
    """Skip the test, or fail it where it is required, unless the machine has all of `names`."""
    for name in names:
        reason = missing(name)
        if reason is not None:
            lack(name, reason)


def lack(name: str, reason: str) -> NoReturn:
    """Skip the test, or fail it where `name` is required: what it needs is not to be had."""
    if name in os.environ.get("LOCKYARD_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"{name} is required by LOCKYARD_REQUIRE: {reason}")
    pytest.skip(f"{name}: {reason}")
