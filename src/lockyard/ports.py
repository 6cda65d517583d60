"""The ports: what the CLI builds once and tests replace. Pure types only; EDGE modules satisfy the protocols.

A port that needs a heavy library is a factory in the `Toolbox`, so that commands which do not use it never load it.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lockyard.conda.lock import LockedPackage


class Log(Protocol):
    """The story, told by meaning; the CLI decides how it looks. Nothing here reaches stdout."""

    def step(self, message: str) -> None:
        """Say that a stage begins."""

    def info(self, message: str) -> None:
        """Say a fact of interest."""

    def detail(self, message: str) -> None:
        """Say what only `-v` shows."""

    def warning(self, message: str) -> None:
        """Say what the user should look at."""

    def progress(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Open a progress display; the yielded function advances it (thread-safe). `unit` is `B` or a noun."""


class Clock(Protocol):
    """The time."""

    def now(self) -> dt.datetime:
        """Return the time now, UTC, aware."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveRequest:
    """What a solve depends on, for one platform.

    `specs` are conda match specs; `channels` are in strict priority order, names, URLs or `file:` paths relative to
    `root`; `preferred` are the records that stay unless something asks otherwise; `constraints` are specs that
    bind only packages which are chosen anyway; `exclude_newer` is aware, UTC.
    """

    specs: tuple[str, ...]
    channels: tuple[str, ...]
    platform: str
    root: Path
    virtual_packages: Mapping[str, str] = field(default_factory=dict)
    preferred: tuple[LockedPackage, ...] = ()
    constraints: tuple[str, ...] = ()
    exclude_newer: dt.datetime | None = None
    offline: bool = False


class Solver(Protocol):
    """Finds the exact packages."""

    def solve(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        """Return the packages in install order.

        Raises:
            UnsatisfiableError: with the solver's words as details.

        """


@dataclass(frozen=True, slots=True)
class FetchedPackage:
    """A package in the cache: its archive, its extracted directory, and whether this run fetched it."""

    package: LockedPackage
    archive: Path
    directory: Path
    fetched: bool


class PackageSource(Protocol):
    """Brings packages into the package cache."""

    def fetch(self, packages: Sequence[LockedPackage], *, root: Path) -> Mapping[str, FetchedPackage]:
        """Return `dist` → package for all, verified by hash, in parallel, resumable.

        Raises:
            HashMismatchError: bytes differ from the lock; nothing of that package is kept.
            BuildError: a package cannot be reached.

        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A command inside a built image. `binds` are (host path, place inside, writable)."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    binds: tuple[tuple[Path, str, bool], ...] = ()
    timeout: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended; `output` is stdout and stderr together."""

    exit_code: int
    output: str


class Runner(Protocol):
    """Runs commands inside one image; a context manager removes what it made."""

    def run(self, request: RunRequest) -> RunResult:
        """Run one command to its end."""


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """The effects, as factories where they load something heavy."""

    log: Log
    clock: Clock
    environ: Mapping[str, str]
    cache_dir: Path
    solver: Callable[[], Solver]
    packages: Callable[[], PackageSource]
    sandbox: Callable[[Path], AbstractContextManager[Runner]]
    """Takes an OCI layout (its only image) and gives a runner inside it."""
    registry: Callable[[str], "RegistryPort"]
    """Takes a repository (`HOST/NAME` or `oci:DIR`) and gives its registry."""


class RegistryPort(Protocol):
    """One repository of a registry, or an OCI layout that stands for one."""

    def manifest_digest(self, reference: str) -> str | None:
        """Return the digest behind a tag or digest, `None` when there is none."""

    def has_blob(self, digest: str) -> bool:
        """Tell whether the blob is there."""

    def mount_blob(self, digest: str, size: int, source: str) -> bool:
        """Try to mount from the repository name `source` of the same registry; `False` when it must be uploaded."""

    def upload_blob(self, path: Path, digest: str, size: int, progress: Callable[[int], None]) -> int:
        """Send one blob; return the bytes sent."""

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> None:
        """Put a manifest under a tag or digest."""

    def get_manifest(self, reference: str) -> bytes:
        """Return the manifest's bytes."""

    def tags(self) -> Iterable[str]:
        """Return all tags."""
