"""Ready-made image test: every direct package imports, or its command runs. Runs inside the image, standard library only."""

import json
import os
import subprocess
import sys
from pathlib import Path

context = json.loads(Path(os.environ["LOCKYARD_CONTEXT"]).read_text())
prefix = Path(context["prefix"])
skipped = set(context["skip_imports"])
_PRIVATE = {"tests", "test", "docs", "examples"}


def files_of(name: str) -> list[str]:
    """Return the files that a package has put into the prefix."""
    for path in (prefix / "conda-meta").glob(f"{name}-*.json"):
        record = json.loads(path.read_text())
        if record["name"] == name:
            return list(record.get("files", ()))
    return []


def modules_of(files: list[str]) -> list[str]:
    """Return the top-level modules among the files."""
    found = set()
    for file in files:
        if "/site-packages/" not in f"/{file}":
            continue
        first, *rest = file.split("site-packages/", 1)[1].split("/")
        if rest == ["__init__.py"]:
            found.add(first)
        elif not rest and first.endswith((".py", ".so")):
            found.add(first.split(".")[0])
    return sorted(name for name in found if name.isidentifier() and not name.startswith("_") and name not in _PRIVATE)


def run(*argv: str) -> str:
    """Run a command; return the end of its output when it fails, else nothing."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-500:] or f"exit code {done.returncode}"


def check(name: str) -> str:
    """Return what is wrong with a package, nothing when it works or has nothing to try."""
    files = files_of(name)
    if not files:
        return ""  # a package of dependencies alone
    modules = modules_of(files)
    if modules:
        return run(
            sys.executable, "-c", "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]", *modules
        )
    commands = [str(prefix / file) for file in files if file.startswith("bin/") and file.count("/") == 1]
    if not commands:
        return ""
    wrong = ""
    for command in sorted(commands)[:3]:
        for flag in ("--version", "-V", "--help"):
            wrong = run(command, flag)
            if not wrong:
                return ""
    return wrong


failed = 0
for package in context["direct"]:
    problem = "" if package in skipped else check(package)
    print(f"{package}: {problem or 'skipped' if package in skipped else problem or 'works'}")
    failed += bool(problem)
sys.exit(1 if failed else 0)
