"""The journal of a push, effects: one JSON object a line, appended, so that a killed push can go on.

It remembers where begun uploads go on. What a registry *has* is asked of the registry: the journal is never believed about
that, so an old or damaged one costs bytes at most. Therefore it is not synchronised to the disk either, which would wait for the
gigabytes of layers that a build has just written: a kill loses nothing, a crash of the machine bytes. It may hold upload addresses and is readable by its owner only.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lockyard.errors import ConfigError
from lockyard.ports.registry import UploadSession

SCHEMA = 1


class Journal:
    """An open journal; thread-safe. Get one from `open_journal`."""

    def __init__(self, path: Path, handle: int, lines: list[dict[str, Any]]) -> None:
        self._path = path
        self._handle = handle
        self._guard = threading.Lock()
        self._sessions: dict[tuple[str, str], str] = {}
        self._done: set[tuple[str, str]] = set()
        for line in lines:
            self._remember(line)

    @property
    def finished(self) -> frozenset[tuple[str, str]]:
        """The (repository, digest) of the blobs that an earlier run or this one has finished."""
        with self._guard:
            return frozenset(self._done)

    def session(self, repository: str, digest: str) -> UploadSession | None:
        """Return where the upload of a blob goes on; only the registry knows how far it is."""
        with self._guard:
            location = self._sessions.get((repository, digest))
        return UploadSession(location) if location is not None else None

    def note_session(self, repository: str, digest: str, session: UploadSession) -> None:
        """Remember where an upload goes on."""
        self._append({"event": "session", "repository": repository, "digest": digest, "location": session.location})

    def note_done(self, repository: str, digest: str) -> None:
        """Remember that a blob is finished."""
        self._append({"event": "done", "repository": repository, "digest": digest})

    def remove(self) -> None:
        """Forget everything: the push is complete."""
        self._path.unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        with self._guard:
            # One write: what is torn by a kill is the last line only.
            os.write(self._handle, json.dumps(line, sort_keys=True).encode() + b"\n")
            self._remember(line)

    def _remember(self, line: dict[str, Any]) -> None:
        key = (str(line.get("repository")), str(line.get("digest")))
        if line.get("event") == "session":
            self._sessions[key] = str(line.get("location"))
        elif line.get("event") == "done":
            self._sessions.pop(key, None)
            self._done.add(key)


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open the journal at `path`, make it when there is none, and cut a torn last line off.

    Raises:
        ConfigError: a newer Lockyard wrote it.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            os.ftruncate(handle, len(whole))
        lines = _parse(whole)
        schema = lines[0].get("schema") if lines else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise ConfigError(
                f"{path}: a newer Lockyard began this push", hint="finish it with that one, or remove the file"
            )
        journal = Journal(path, handle, lines)
        if not lines:
            journal._append({"event": "begin", "schema": SCHEMA})  # noqa: SLF001 - the two are one unit
        yield journal
    finally:
        os.close(handle)


def _parse(data: bytes) -> list[dict[str, Any]]:
    lines = []
    for text in data.splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(text)
            if isinstance(value, dict):
                lines.append(value)
    return lines
