"""What is recorded of a package's files when they are taken apart: a digest of each, to check them by whenever they are read.

The digest is BLAKE3, as safe as SHA-256 and three times as fast on one core. Only files whose SHA-256 was that of `info/paths.json`
are recorded, so what has the recorded digest has the other one, too.
"""

import json
from collections.abc import Mapping

from blake3 import blake3

FILE_NAME = "digests.json"
"""The file beside the extracted package."""
SCHEMA = 1

state = blake3


def to_json(digests: Mapping[str, str]) -> str:
    """Return the text of the file: path → digest."""
    return json.dumps({"schema": SCHEMA, "blake3": dict(sorted(digests.items()))}, separators=(",", ":"))


def from_json(data: bytes | None) -> Mapping[str, str]:
    """Read the file; nothing is recorded where there is none, or one that we do not know."""
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    known = isinstance(value, dict) and value.get("schema") == SCHEMA
    digests = value.get("blake3") if known else None
    return digests if isinstance(digests, dict) else {}
