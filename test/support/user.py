"""Runs Python as an ordinary user, for tests that run as root."""

import os
import subprocess
import sys
from pathlib import Path

from support.require import ROOT, lack, need

NOBODY = "65534"


def run_as_user(code: str, *args: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with the modules of this process as the user `nobody`; skip where that user has no such Python."""
    need("root", "setpriv")
    path = os.pathsep.join([str(ROOT / "src"), *(item for item in sys.path if item.endswith("site-packages"))])
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        # setpriv itself still has root's rights when it looks for the program; env has not.
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", python, "-B", "-c"]
        env = {"PYTHONPATH": path, "HOME": str(home), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        try:
            subprocess.run(
                [*argv, "import lockyard, zstandard, zlib_ng.zlib_ng"], env=env, check=True, capture_output=True
            )
        except (subprocess.CalledProcessError, PermissionError, FileNotFoundError):
            continue
        return subprocess.run([*argv, code, *args], env=env, check=False, capture_output=True, text=True)
    return lack("root", "no Python that another user can run has the libraries")
