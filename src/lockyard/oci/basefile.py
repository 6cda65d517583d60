"""`bases.json`: which image `build-base` made for each type and platform of a line. No I/O here.

Example::

    {"schema": 1, "bases": {"cpu": {"linux-64": {"digest": "sha256:…", "reference": "REPO:TAG@sha256:…" or null, "inputs": "sha256:…"}}}}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lockyard.errors import ConfigError
from lockyard.oci.values import Digest

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class BuiltBase:
    """A built base: its manifest digest, where it was pushed to, and the digest of what it was made from."""

    digest: str
    reference: str | None
    inputs: str


Bases = Mapping[str, Mapping[str, BuiltBase]]
"""Image type → platform → base."""


def parse_bases(data: bytes, source: str) -> dict[str, dict[str, BuiltBase]]:
    """Read the file.

    Raises:
        ConfigError: it is malformed, or newer than this Lockyard.

    """
    try:
        value: dict[str, Any] = json.loads(data)
        schema = value["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise ConfigError(
                f"{source}: schema {schema} is newer than this Lockyard knows ({SCHEMA})", hint="upgrade Lockyard"
            )
        found = {
            name: {platform: BuiltBase(**fields) for platform, fields in platforms.items()}
            for name, platforms in value["bases"].items()
        }
        for platforms in found.values():
            for base in platforms.values():
                Digest(base.digest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{source} is not a list of bases: {error}", hint="lockyard build-base writes it") from error
    return found


def format_bases(bases: Bases) -> bytes:
    """Return the text of the file."""
    value = {
        name: {platform: asdict(base) for platform, base in platforms.items()} for name, platforms in bases.items()
    }
    return (json.dumps({"schema": SCHEMA, "bases": value}, indent=1, sort_keys=True) + "\n").encode()
