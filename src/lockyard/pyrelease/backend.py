"""The build backend of a project (PEP 517, through `build`) and twine, effects. Both run as programs of their own."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lockyard import fs, process
from lockyard.errors import BuildError, RegistryError
from lockyard.ports import Log
from lockyard.pyrelease.dist import DistFile

_KEPT = 25  # lines of a failure
_TIMEOUT = 600.0
_UPLOAD_TIMEOUT = 3600.0


def build_distributions(
    source: Path,
    out: Path,
    *,
    environ: Mapping[str, str],
    epoch: int,
    isolated: bool,
    index_url: str | None,
    log: Log,
) -> tuple[DistFile, DistFile]:
    """Build the sdist of `source`, then the wheel from that sdist, and return both. `epoch` is SOURCE_DATE_EPOCH.

    Isolated: in an environment that uv makes with what `[build-system]` requires.

    Raises:
        BuildError: the backend refuses; its last words are the details.

    """
    how = ["--installer", "uv"] if isolated else ["--no-isolation"]
    env = {
        **_environ(environ),
        "SOURCE_DATE_EPOCH": str(epoch),
        "PYTHONHASHSEED": "0",  # a backend that walks over a set does it in one order
        "NO_COLOR": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        **({"UV_DEFAULT_INDEX": index_url, "PIP_INDEX_URL": index_url} if index_url else {}),
    }
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        log.detail(line)

    argv = [sys.executable, "-m", "build", *how, "--outdir", str(out), str(source)]
    if process.follow(argv, say, env=env) != 0:
        raise BuildError(
            "the build backend failed", details=lines[-_KEPT:],
            hint=None if isolated else "without isolation everything that [build-system] requires must be installed here",
        )  # fmt: skip
    found = [DistFile(name, (out / name).read_bytes()) for name in fs.names(out) if name.endswith((".whl", ".tar.gz"))]
    wheels = [file for file in found if file.is_wheel]
    sdists = [file for file in found if not file.is_wheel]
    if len(wheels) != 1 or len(sdists) != 1:
        raise BuildError(f"the build backend made {', '.join(file.name for file in found) or 'nothing'}")
    return sdists[0], wheels[0]


def twine_check(files: Sequence[Path], environ: Mapping[str, str]) -> None:
    """Check that an index can show the description.

    Raises:
        BuildError: it cannot.

    """
    done = _twine(["check", "--strict", *map(str, files)], environ, _TIMEOUT)
    if done.exit_code != 0:
        raise BuildError("twine check refuses the distributions", details=done.output.strip().splitlines()[-_KEPT:])


def twine_upload(files: Sequence[Path], url: str, environ: Mapping[str, str]) -> None:
    """Upload to an index. Credentials are twine's business: ~/.pypirc, keyring, TWINE_* variables, trusted publishing.

    Raises:
        RegistryError: the index refuses.

    """
    argv = ["upload", "--non-interactive", "--disable-progress-bar", "--repository-url", url, *map(str, files)]
    done = _twine(argv, environ, _UPLOAD_TIMEOUT)
    if done.exit_code != 0:
        lines = [line for line in done.output.strip().splitlines() if line.strip()]
        raise RegistryError(
            f"the upload to {url} failed", details=lines[-_KEPT:],
            hint="credentials: ~/.pypirc, keyring, or TWINE_USERNAME and TWINE_PASSWORD; run it again: what is there stays",
        )  # fmt: skip


def _twine(argv: list[str], environ: Mapping[str, str], timeout: float) -> process.Completed:
    env = {**_environ(environ), "NO_COLOR": "1", "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return process.run([sys.executable, "-m", "twine", *argv], env=env, timeout=timeout)


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment without what would lead these programs to other modules."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV"}
    return {"PATH": process.PATH, **{name: value for name, value in environ.items() if name not in dropped}}
