"""What uv installs into a directory, as the files of an image: the same bytes on every machine. No I/O here."""

import base64
import hashlib
from collections.abc import Mapping

from lockyard.pyrelease.bundle import Content

SHEBANG = b"#!/usr/bin/env python3\n"
_OWN = {".lock", "uv_cache.json"}
"""What uv keeps for itself; it holds times."""


def site_files(installed: Mapping[str, Content]) -> dict[str, Content]:
    """Return the files of an installation as `lib/…` and `bin/…`: scripts start the image's Python, records fit.

    `installed` is what `uv pip install --target` has made: path → file, scripts in `bin/`.
    """
    kept = {path: file for path, file in installed.items() if path.rsplit("/", 1)[-1] not in _OWN}
    scripts = {path: _script(b"".join(file.chunks())) for path, file in kept.items() if path.startswith("bin/")}
    found = {f"lib/{path}": file for path, file in kept.items() if path not in scripts and not _is_record(path)}
    found |= {path: _content(data, 0o755) for path, data in scripts.items()}
    for path, file in kept.items():
        if _is_record(path):
            found[f"lib/{path}"] = _content(_record(b"".join(file.chunks()).decode(), scripts).encode(), 0o644)
    return found


def _is_record(path: str) -> bool:
    return path.endswith(".dist-info/RECORD")


def _script(data: bytes) -> bytes:
    first, _, rest = data.partition(b"\n")
    return SHEBANG + rest if first.startswith(b"#!") and b"python" in first else data


def _record(text: str, scripts: Mapping[str, bytes]) -> str:
    """Return a RECORD for the changed files ("Recording installed projects": paths relative to `lib`)."""
    lines = []
    for line in text.splitlines():
        path = line.split(",", 1)[0]
        if path.rsplit("/", 1)[-1] in _OWN:
            continue
        if path in scripts:
            state = hashlib.sha256(scripts[path]).digest()
            digest = base64.urlsafe_b64encode(state).rstrip(b"=").decode()
            line = f"../{path},sha256={digest},{len(scripts[path])}"  # noqa: PLW2901 - the same entry, as it is now
        lines.append(line)
    return "\n".join(sorted(lines)) + "\n"


def _content(data: bytes, mode: int) -> Content:
    return Content(mode, len(data), lambda: (data,))
