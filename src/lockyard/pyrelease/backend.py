"""The build backend of a project (PEP 517, through `build`) and twine, effects. Both run as programs of their own."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from lockyard import process
from lockyard.errors import BuildError, RegistryError
from lockyard.ports import Log
from lockyard.pyrelease.dist import DistFile
from lockyard.pyrelease.indexes import Target

T = TypeVar("T")
Kind = Literal["sdist", "wheel"]
_KEPT = 25  # lines of a failure
_COLOUR_RE = re.compile(r"\x1b\[[0-9;]*m")
_TIMEOUT = 600.0
_UPLOAD_TIMEOUT = 3600.0


class Backend:
    """The build backend of the project in `source`, run by `python`, which has (or gets) what it requires.

    `epoch` is SOURCE_DATE_EPOCH, seconds since 1970. Every failure is a `BuildError` with the backend's last words.
    """

    def __init__(self, source: Path, python: Path, *, environ: Mapping[str, str], epoch: int, log: Log) -> None:
        from build import BuildException, ProjectBuilder

        self._log = log
        self._lines: list[str] = []
        self._env = {
            **_environ(environ),
            "SOURCE_DATE_EPOCH": str(epoch),
            "PYTHONHASHSEED": "0",  # a backend that walks over a set does it in one order
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
        }
        self._env["PATH"] = f"{python.parent}:{self._env['PATH']}"  # programs that the backend requires
        try:
            self._builder = ProjectBuilder(source, str(python), self._run)
        except BuildException as error:
            raise BuildError(f"pyproject.toml: {error}") from error

    def requires(self) -> tuple[str, ...]:
        """Return what `[build-system]` requires."""
        return tuple(sorted(self._builder.build_system_requires))

    def requires_for(self, kind: Kind) -> tuple[str, ...]:
        """Return what the backend asks for beside that."""
        return tuple(sorted(self._guarded(lambda: self._builder.get_requires_for_build(kind))))

    def lacking(self, kind: Kind) -> tuple[str, ...]:
        """Return what it requires and this very Python has not."""
        return tuple(sorted(chain[0] for chain in self._guarded(lambda: self._builder.check_dependencies(kind))))

    def build(self, kind: Kind, out: Path) -> DistFile:
        """Build a distribution."""
        path = Path(self._guarded(lambda: self._builder.build(kind, out)))
        return DistFile(path.name, path.read_bytes())

    def _guarded(self, call: Callable[[], T]) -> T:
        from build import BuildBackendException, BuildException

        self._lines.clear()
        try:
            return call()
        except (BuildException, BuildBackendException) as error:
            said = self._lines[-_KEPT:] or [str(error)]
            raise BuildError("the build backend failed", details=said) from error

    def _run(self, cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
        def say(line: str) -> None:
            self._lines.append(line)
            self._log.detail(line)

        env = {**self._env, **(extra_environ or {})}
        if process.follow(cmd, say, env=env, cwd=None if cwd is None else Path(cwd)) != 0:
            raise BuildError("the build backend failed", details=self._lines[-_KEPT:])


def twine_check(files: Sequence[Path], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Check that an index can show the description, and return what twine warns of, each once.

    Raises:
        BuildError: it cannot.

    """
    done = _twine(["check", *map(str, files)], environ, _TIMEOUT)
    if done.exit_code != 0:
        raise BuildError("twine check refuses the distributions", details=_last(done))
    warned = [line.removeprefix("WARNING").strip() for line in _last(done) if line.startswith("WARNING")]
    return tuple(dict.fromkeys(f"twine check: {line}" for line in warned))


def twine_upload(files: Sequence[Path], target: Target, environ: Mapping[str, str]) -> None:
    """Upload to an index. Credentials are twine's business: ~/.pypirc, keyring, TWINE_* variables, trusted publishing.

    Raises:
        RegistryError: the index refuses.

    """
    # By address twine looks into no section of ~/.pypirc, and these two variables would win over the name.
    where = ["--repository", target.section] if target.section else ["--repository-url", target.upload]
    env = {name: value for name, value in environ.items() if name not in {"TWINE_REPOSITORY", "TWINE_REPOSITORY_URL"}}
    argv = ["upload", "--non-interactive", "--disable-progress-bar", *where, *map(str, files)]
    done = _twine(argv, env, _UPLOAD_TIMEOUT)
    if done.exit_code != 0:
        raise RegistryError(
            f"the upload to {target.name} failed", details=_last(done),
            hint="credentials: ~/.pypirc, keyring, or TWINE_USERNAME and TWINE_PASSWORD; run it again: what is there stays",
        )  # fmt: skip


def _twine(argv: list[str], environ: Mapping[str, str], timeout: float) -> process.Completed:
    env = {**_environ(environ), "NO_COLOR": "1", "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return process.run([sys.executable, "-m", "twine", *argv], env=env, timeout=timeout)


def _last(done: process.Completed) -> list[str]:
    """Return the last lines, without the colours that twine's logging writes into a pipe, too."""
    lines = [_COLOUR_RE.sub("", line).rstrip() for line in done.output.splitlines()]
    return [line for line in lines if line][-_KEPT:]


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment without what would lead these programs to other modules."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV"}
    return {"PATH": process.PATH, **{name: value for name, value in environ.items() if name not in dropped}}
