"""Ports of channels: the solver, their index, their packages, findings about them."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lockyard.conda.lock import LockedPackage


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

    def available(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        """Return those of `request.preferred` whose exact package a channel has, with all that it says of them."""

    def absent(self, request: SolveRequest) -> frozenset[str]:
        """Return the names in `request.specs` of which no channel has any package for the platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRecord:
    """One build of a package in a channel's index: size in bytes, timestamp in milliseconds; `None` where it does not say."""

    name: str
    version: str
    build: str
    build_number: int = 0
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
    timestamp: int | None = None
    license: str | None = None
    depends: tuple[str, ...] = ()


class ChannelIndex(Protocol):
    """Says what channels have."""

    def records(self, request: SolveRequest, names: Collection[str]) -> Mapping[str, tuple[IndexRecord, ...]]:
        """Return name → every build of it in the first channel that has any; names that no channel has are left out.

        Of the request only channels, platform, root and `offline` count.

        Raises:
            ConfigError: a channel is malformed, or its index is not in the cache and this is offline.
            BuildError: a channel cannot be reached.

        """


class ScanSource(Protocol):
    """Says what a registry's own scanner found."""

    def scan_findings(self, repository: str, tag: str, *, region: str | None = None) -> bytes | None:
        """Return the JSON of `describe-image-scan-findings`, all pages in one; `None` when there is no finished scan.

        Raises:
            RegistryError: the registry refuses or has no such image.

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

    def fetch(
        self, packages: Sequence[LockedPackage], *, root: Path, files: Mapping[str, Path] | None = None
    ) -> Mapping[str, FetchedPackage]:
        """Return `dist` → package for all, verified by hash, in parallel, resumable.

        `files` is `dist` → the package file to take instead of what the address leads to.

        Raises:
            HashMismatchError: bytes differ from the lock; nothing of that package is kept.
            BuildError: a package cannot be reached.

        """
