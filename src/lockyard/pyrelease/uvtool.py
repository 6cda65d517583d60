"""uv, effects: requirements locked with hashes, environments to try a wheel in."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockyard import process
from lockyard.errors import BuildError, UnsatisfiableError

_TIMEOUT = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """What to lock: a directory with a `pyproject.toml`, extras and groups of it, and the file with the earlier pins.

    `output` is read (its pins are preferred) and written. `update` are packages that may move, `fresh` lets all move.
    """

    directory: Path
    output: Path
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    python: str
    update: tuple[str, ...] = ()
    fresh: bool = False
    offline: bool = False


class Uv:
    """The program uv. `environ` is the user's; `index_url` replaces the default index."""

    def __init__(self, environ: Mapping[str, str], index_url: str | None = None) -> None:
        dropped = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_OUTPUT_FILE"}
        own = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
        index = {"UV_DEFAULT_INDEX": index_url} if index_url else {}
        kept = {name: value for name, value in environ.items() if name not in dropped}
        self._env = {"PATH": process.PATH, **kept, **own, **index}

    def compile(self, request: CompileRequest) -> None:
        """Lock a set of requirements for all platforms and every Python from `request.python` on.

        Raises:
            UnsatisfiableError: no versions fit together.
            BuildError: an index cannot be reached, or a package is not there.

        """
        argv = [
            "pip", "compile", "--quiet", "--directory", str(request.directory), "pyproject.toml", "--universal",
            "--python", sys.executable, "--python-version", request.python, "--generate-hashes", "--no-header",
            "--no-emit-index-url", "--no-emit-find-links", "--output-file", str(request.output),
            *(word for name in request.extras for word in ("--extra", name)),
            *(word for name in request.groups for word in ("--group", name)),
            *(word for name in request.update for word in ("--upgrade-package", name)),
            *(["--upgrade"] if request.fresh else []),
            *(["--offline"] if request.offline else []),
        ]  # fmt: skip
        done = self._run(argv)
        if done.exit_code == 0:
            return
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        if any("No solution found" in line for line in lines):
            raise UnsatisfiableError("no versions of the dependencies fit together", details=lines)
        raise BuildError("the dependencies cannot be locked", details=lines[-20:])

    def create(self, environment: Path) -> Path:
        """Make an empty environment with the Python of this process; return its Python."""
        self._must(["venv", "--quiet", "--python", sys.executable, str(environment)], "an environment cannot be made")
        return environment / "bin" / "python"

    def install(self, python: Path, *words: str) -> None:
        """Install into an environment; `words` are those of `uv pip install`.

        Raises:
            BuildError: something cannot be had or does not belong together.

        """
        self._must(["pip", "install", "--quiet", "--python", str(python), *words], "it cannot be installed")

    def check(self, python: Path) -> None:
        """Check that what is installed in an environment fits together.

        Raises:
            BuildError: it does not.

        """
        self._must(["pip", "check", "--quiet", "--python", str(python)], "what is installed does not fit together")

    def _must(self, argv: Sequence[str], what: str) -> None:
        done = self._run(argv)
        if done.exit_code != 0:
            raise BuildError(what, details=done.stderr.strip().splitlines()[-20:])

    def _run(self, argv: Sequence[str]) -> process.Captured:
        from uv import find_uv_bin

        try:
            program = find_uv_bin()
        except FileNotFoundError as error:
            raise BuildError(f"uv is not installed: {error}", hint="install Lockyard again: it brings uv") from error
        return process.capture([program, *argv], env=self._env, timeout=_TIMEOUT)
