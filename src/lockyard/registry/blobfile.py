"""A blob's file while it is sent, effects: read in blocks, hashed on the way, its progress told."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lockyard.errors import HashMismatchError

_BLOCK = 1 << 18


class BlobFile:
    """The file of one blob; parts of it may be read again, it is still hashed as a whole.

    Args:
        path: the file.
        digest: `sha256:…` that its bytes must have.
        size: bytes that it must have.
        progress: gets bytes as they are read for sending, negative when they must be sent again.

    Raises:
        HashMismatchError: the file cannot be read or has another size.

    """

    def __init__(self, path: Path, digest: str, size: int, progress: Callable[[int], None]) -> None:
        self.path = path
        self.digest = digest
        self.size = size
        self.sent = 0
        """All bytes that were read for sending, those of failed tries too."""
        self._progress = progress
        self._reported = 0
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._stream: BinaryIO
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from error
        there = self._stream.seek(0, 2)
        if there != size:
            self._stream.close()
            raise self._damaged(f"it has {there} bytes, not {size}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()

    def blocks(self, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes from `start` on, counted as sent.

        Raises:
            HashMismatchError: the file ends before that.

        """
        self._hash_up_to(start)
        self.report(start)
        self._stream.seek(start)
        while length:
            block = self._next(min(_BLOCK, length))
            length -= len(block)
            self.sent += len(block)
            yield block
            # Told when the next block is wanted: this one has left then.
            self._progress(len(block))
            self._reported += len(block)

    def whole(self) -> bytes:
        """Return all bytes, checked, counted as sent; only for small blobs.

        Raises:
            HashMismatchError: they are not what the digest names.

        """
        self._hash_up_to(0)
        self._stream.seek(0)
        data = b"".join(self._read_on(self.size))
        self.verify()
        self.sent += len(data)
        return data

    def verify(self) -> None:
        """Check the whole file against its digest; what was read once in order is not read again.

        Raises:
            HashMismatchError: it is something else.

        """
        self._hash_up_to(self.size)
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self.digest:
            raise self._damaged(f"its bytes are {found}")

    def report(self, position: int) -> None:
        """Tell that the receiver has `position` bytes now."""
        if position != self._reported:
            self._progress(position - self._reported)
            self._reported = position

    def _hash_up_to(self, position: int) -> None:
        if self._hashed > position:
            self._hash = hashlib.sha256()
            self._hashed = 0
        self._stream.seek(self._hashed)
        for _ in self._read_on(position - self._hashed):
            pass

    def _read_on(self, length: int) -> Iterator[bytes]:
        while length:
            block = self._next(min(_BLOCK, length))
            length -= len(block)
            yield block

    def _next(self, length: int) -> bytes:
        block = self._stream.read(length)
        if not block:
            raise self._damaged("it became shorter while it was read")
        self._hash.update(block)
        self._hashed += len(block)
        return block

    def _damaged(self, what: str) -> HashMismatchError:
        return HashMismatchError(
            f"{self.path} is not the blob {self.digest}: {what}", hint="build the image again, nothing was tagged"
        )
