"""One blob on its way from a registry, effects (OCI Distribution Specification 1.1, "Pulling blobs"; RFC 9110, ranges)."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from lockyard import http
from lockyard.errors import HashMismatchError, RegistryError
from lockyard.registry import wire
from lockyard.registry.transport import Request, Transport


class Download:
    """A blob that is brought into a file and goes on where an earlier try, or process, stopped."""

    def __init__(self, transport: Transport, url: str, scopes: tuple[str, ...], digest: str, size: int) -> None:
        self._wire = transport
        self._url = url
        self._scopes = scopes
        self._digest = digest
        self._size = size

    def run(self, part: Path, progress: Callable[[int], None]) -> None:
        """Complete the file `part` and check it; a file that is not the blob is removed.

        Raises:
            HashMismatchError: what came is not what the digest names.
            RegistryError: the blob cannot be had.

        """
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        progress(min(part.stat().st_size, self._size))
        while part.stat().st_size != self._size:
            before = part.stat().st_size
            try:
                self._wire.retries.call(lambda: self._attempt(part, progress))
            except http.TransferError as error:
                # A long download over a bad line: tries are counted anew as long as they bring something.
                if error.temporary and part.stat().st_size > before:
                    continue
                raise self._wire.failure(error) from error
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if f"sha256:{found}" != self._digest:
            part.unlink()
            raise HashMismatchError(f"{wire.shown(self._url)} is sha256:{found}; nothing of it was kept")

    def _attempt(self, part: Path, progress: Callable[[int], None]) -> None:
        offset = part.stat().st_size
        if offset > self._size:
            part.write_bytes(b"")
            offset = 0

        def take(status: int, blocks: Iterator[bytes]) -> None:
            start = offset if status == 206 else 0
            progress(start - offset)
            with part.open("r+b") as stream:
                stream.truncate(start)
                stream.seek(start)
                for block in blocks:
                    if stream.tell() + len(block) > self._size:
                        raise RegistryError(f"{wire.shown(self._url)}: more than the {self._size} bytes of the blob")
                    stream.write(block)
                    progress(len(block))

        headers = {"Range": f"bytes={offset}-"} if offset else {}
        self._wire.attempt(
            Request(
                method="GET", url=self._url, allowed=(200, 206), scopes=self._scopes, headers=headers, sink=take
            )
        )  # fmt: skip
        if part.stat().st_size < self._size:
            raise http.TransferError(
                f"GET {wire.shown(self._url)}: ended after {part.stat().st_size} of {self._size} bytes", temporary=True
            )
