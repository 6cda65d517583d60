"""Bases opened as a build opens them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lockyard.engines.request import Base
from lockyard.oci.bases import BaseOpener
from lockyard.oci.cache import BlobCache
from lockyard.oci.image import oci_platform
from lockyard.oci.pulled import PulledBases
from lockyard.ports import Log
from lockyard.ports.registry import RegistryPort
from support.effects import RecordingLog


def no_registry(repository: str) -> RegistryPort:
    raise AssertionError(f"no base of this test is in a registry: {repository}")


def open_base(
    place: Path,
    reference: str,
    platform: str = "linux-64",
    *,
    registry: Callable[[str], RegistryPort] = no_registry,
    log: Log | None = None,
) -> Base:
    """Open a base with paths relative to `place` and the caches in `place/cache`."""
    log = log or RecordingLog()
    with ThreadPoolExecutor(2) as executor:
        opener = BaseOpener(
            root=place, source="variants.toml", created="2026-01-15T00:00:00Z", cache=BlobCache(place / "cache"),
            pulled=PulledBases(place / "cache", log), registry=registry, compression="gzip", executor=executor, log=log,
        )  # fmt: skip
        return opener.open(reference, oci_platform(platform))
