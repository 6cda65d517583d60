"""HTTP, effects: the one maker of clients, the retry rule, resumable downloads and conditional requests.

Nothing that leaves this module carries credentials: addresses in messages are redacted, and httpx's errors become
`TransferError`, which every EDGE module turns into its own `LockyardError`.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lockyard import __version__
from lockyard.conda.channels import redact

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_CHUNK = 1 << 17
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 60.0  # seconds
_PROGRESS = 1 << 16  # bytes that make a round of tries a success


class TransferError(Exception):
    """A request failed; the message is fit for people. `status` is the HTTP status, `None` when there was none."""

    def __init__(
        self, message: str, *, status: int | None = None, temporary: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.temporary = temporary
        self.wait = wait
        """Seconds that the server asked to wait."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried and how waiting is done; tests give a `sleep` that does not wait."""

    attempts: int = 5
    sleep: Callable[[float], None] = time.sleep

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` until it succeeds, waiting longer each time, as long as failures are temporary.

        Raises:
            TransferError: the last failure.

        """
        import tenacity

        backoff = tenacity.wait_random_exponential(multiplier=0.5, max=20)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = error.wait if isinstance(error, TransferError) else None
            return min(asked, _LONGEST_WAIT) if asked is not None else backoff(state)

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=wait,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, TransferError) and error.temporary),
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(function)


def make_client(*, timeout: float = 60.0, connections: int = 16, **options: Any) -> "httpx.Client":
    """Make a client: follows redirects, honours proxy and certificate variables, `timeout` in seconds per operation.

    `options` go to `httpx.Client`. Close it, or use it as a context manager.
    """
    # httpx loads a command line of its own, with rich and pygments, where these are installed; it does without, and much faster.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None is "not to be found", as the import system has it
    import httpx

    settings: dict[str, Any] = {
        "follow_redirects": True,
        "timeout": httpx.Timeout(timeout, connect=min(timeout, 20.0)),
        "limits": httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        "headers": {"User-Agent": f"lockyard/{__version__}"},
    }
    return httpx.Client(**{**settings, **options})


@contextlib.contextmanager
def transfer_errors(method: str, url: str) -> Iterator[None]:
    """Turn the failures of a connection into `TransferError`, which is temporary for them."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        temporary = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
        text = redact(str(error)) or type(error).__name__
        raise TransferError(f"{method} {redact(url)}: {text}", temporary=temporary) from error
    except httpx.InvalidURL as error:
        raise TransferError(f"{method} {redact(url)}: {error}") from error


def check_status(response: "httpx.Response", *allowed: int) -> None:
    """Raise `TransferError` unless the status is one of `allowed`; 408, 425, 429 and 5xx are temporary."""
    if response.status_code in allowed:
        return
    asked = response.headers.get("Retry-After", "")
    raise TransferError(
        f"{response.request.method} {redact(str(response.request.url))}: "
        f"HTTP {response.status_code} {response.reason_phrase}",
        status=response.status_code,
        temporary=response.status_code in _TEMPORARY,
        wait=float(asked) if asked.isascii() and asked.isdigit() else None,
    )


def download(
    client: "httpx.Client",
    url: str,
    part: Path,
    *,
    size: int | None,
    retries: Retries,
    progress: Callable[[int], None],
) -> None:
    """Bring `url` into the file `part`, going on where an earlier call or process stopped.

    The bytes are not checked here: the caller knows the hash. `size` is the expected number of bytes; more than that is
    refused as soon as it comes. `progress` gets the count of bytes as they become part of the file (negative when they
    were lost). As long as tries bring something, there are more of them: a line that breaks often is no reason to stop.

    Raises:
        TransferError: it cannot be had.

    """
    transfer = _Transfer(client, url, part, size, progress)
    while True:
        before = transfer.held
        try:
            retries.call(transfer.attempt)
        except TransferError as error:
            if error.temporary and transfer.held >= before + _PROGRESS:
                continue
            raise
        return


@dataclass(frozen=True, slots=True)
class _Transfer:
    """One address on its way into one file."""

    client: "httpx.Client"
    url: str
    part: Path
    size: int | None
    progress: Callable[[int], None]

    @property
    def held(self) -> int:
        """Bytes that are in the file."""
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> None:
        """Ask for what is missing."""
        offset = self.held
        if self.size is not None and offset >= self.size:
            if offset == self.size:
                return
            offset = self._lose()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        with transfer_errors("GET", self.url), self.client.stream("GET", self.url, headers=headers) as response:
            if response.status_code == 416:
                self._lose()
                text = f"GET {redact(self.url)}: the rest of it cannot be had"
                raise TransferError(text, status=416, temporary=True)
            check_status(response, 200, 206)
            if response.status_code == 200:
                offset = self._lose()
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                raise TransferError(f"GET {redact(self.url)}: the server sent another range than was asked")
            _append(response, self.part, offset, self.size, self.progress, self.url)

    def _lose(self) -> int:
        """Begin again from the first byte, 0."""
        self.progress(-self.held)
        self.part.unlink(missing_ok=True)
        return 0


def _append(
    response: "httpx.Response", part: Path, offset: int, size: int | None, progress: Callable[[int], None], url: str
) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("r+b" if offset else "wb") as stream:
        stream.seek(offset)
        stream.truncate()
        for (
            chunk
        ) in response.iter_raw():  # as they come: a wanted size would lose what it collects when the line breaks
            offset += len(chunk)
            if size is not None and offset > size:
                raise TransferError(f"GET {redact(url)}: more than the {size} bytes that were expected")
            stream.write(chunk)
            progress(len(chunk))
    if size is not None and offset < size:
        raise TransferError(f"GET {redact(url)}: ended after {offset} of {size} bytes", temporary=True)


def fetch_if_changed(
    client: "httpx.Client",
    url: str,
    target: Path,
    *,
    validators: Mapping[str, str],
    retries: Retries,
    progress: Callable[[int], None] = lambda _: None,
) -> Mapping[str, str] | None:
    """Bring `url` into the file `target` unless the server's copy is the one that `validators` name.

    Returns the new validators (`etag`, `last-modified`), `None` when nothing changed and `target` was not written.
    `progress` gets the count of new bytes.

    Raises:
        TransferError: it cannot be had; a missing file has status 404.

    """
    headers = {"Accept-Encoding": "identity"}
    for name, header in (("etag", "If-None-Match"), ("last-modified", "If-Modified-Since")):
        if name in validators:
            headers[header] = validators[name]

    def attempt() -> Mapping[str, str] | None:
        with transfer_errors("GET", url), client.stream("GET", url, headers=headers) as response:
            if response.status_code == 304 and validators:
                return None
            check_status(response, 200)
            with target.open("wb") as stream:
                for chunk in response.iter_raw(_CHUNK):
                    stream.write(chunk)
                    progress(len(chunk))
                stream.flush()
                os.fsync(stream.fileno())
            return {name: response.headers[name] for name in ("etag", "last-modified") if name in response.headers}

    return retries.call(attempt)
