"""The ports: what the CLI builds once and tests replace. Pure types only; EDGE modules satisfy the protocols.

A port that needs a heavy library is a factory in the `Toolbox`, so that commands which do not use it never load it; nor do
they load the types of such ports, which are in modules of their own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lockyard.errors import BuildError, ConfigError, LockyardError

if TYPE_CHECKING:
    from lockyard.ports.containers import BaseSandbox, Builder, BuilderFactory, BuildSecret, Containers, Daemon, Runner
    from lockyard.ports.registry import EcrSettings, RegistryFactory
    from lockyard.ports.solving import ChannelIndex, PackageSource, ScanSource, Solver
    from lockyard.registry.places import EcrPlace


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


def no_index() -> ChannelIndex:
    """Stand for an index in a toolbox that has none."""
    raise LockyardError("this toolbox has no channel index")


def no_scans() -> ScanSource:
    """Stand for a scanner in a toolbox that has none."""
    raise LockyardError("this toolbox has no source of scan findings")


def no_containers() -> Containers:
    """Refuse what needs a container engine."""
    raise BuildError("there is no container engine")


def no_buildkit(builder: str | None, secrets: Sequence[BuildSecret]) -> Builder:
    """Refuse what needs BuildKit."""
    raise BuildError(f"there is no BuildKit for {builder or 'builds'}", details=[item.name for item in secrets])


def no_daemon() -> Daemon | None:
    """Find no daemon."""
    return None


def no_ecr(place: EcrPlace) -> EcrSettings:
    """Stand for a toolbox that reaches no Amazon ECR."""
    raise ConfigError(f"no Amazon ECR is at hand for {place.host}")


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """The effects, as factories where they load something heavy."""

    log: Log
    clock: Clock
    environ: Mapping[str, str]
    cache_dir: Path
    solver: Callable[[], Solver]
    packages: Callable[[], PackageSource]
    index: Callable[[], ChannelIndex] = no_index
    scans: Callable[[], ScanSource] = no_scans
    sandbox: Callable[[Path], AbstractContextManager[Runner]]
    """Takes an OCI layout (its only image) and gives a runner inside it."""
    base_sandbox: BaseSandbox
    """Takes an image and the places of its layers, and gives a runner inside it."""
    registry: RegistryFactory
    """Takes a repository (`HOST/NAME` or `oci:DIR`) and gives its registry."""
    daemon: Callable[[], Daemon | None] = no_daemon
    """Gives the reachable container engine; `None` when there is none."""
    ecr: Callable[[EcrPlace], EcrSettings] = no_ecr
    """Takes a repository in Amazon ECR and gives what knows its settings."""
    containers: Callable[[], Containers] = no_containers
    """Gives the container engine; raises `BuildError`, which names what was tried, when there is none."""
    buildkit: BuilderFactory = no_buildkit
    """Takes the name of a builder and build secrets, and gives BuildKit."""
