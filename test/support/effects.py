"""Stand-ins for the small ports: a log that remembers, credentials that are given."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping

from lockyard.http import Retries
from lockyard.registry.wire import Credential

WAITLESS = Retries(attempts=4, sleep=lambda _: None)
"""Tries again without waiting."""


class RecordingLog:
    """A `Log` that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.advanced = 0
        self.total: int | None = None
        self._guard = threading.Lock()

    def step(self, message: str) -> None:
        self.lines.append(message)

    info = detail = step

    def warning(self, message: str) -> None:
        self.lines.append(f"warning: {message}")

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        self.total = total

        def advance(amount: int) -> None:
            with self._guard:
                self.advanced += amount

        yield advance


class GivenCredentials:
    """Credentials by host; counts how often they are asked for."""

    def __init__(self, credentials: Mapping[str, Credential] | None = None) -> None:
        self._credentials = credentials or {}
        self.asked: list[str] = []

    def for_host(self, host: str, *, refused: Credential | None = None) -> Credential | None:
        self.asked.append(host)
        return self._credentials.get(host)

    def endpoint(self, host: str) -> str:
        return ""
