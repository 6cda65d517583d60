"""A blob while it is sent, effects: read in blocks, hashed on the way, its progress told."""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from lockyard.errors import HashMismatchError
from lockyard.ports.registry import BlobContent

WINDOW: Final = 16 << 20
"""Bytes of a blob from elsewhere that are held at a time."""
_BLOCK = 1 << 18


class BlobFile:
    """The bytes of one blob; parts of them may be read again, they are still hashed as a whole.

    A file is always checked to its end. What comes from elsewhere is checked where it was read in order; where an upload
    went on in its middle, the registry's own check of the digest is relied on.

    Args:
        source: the file, or what reads the bytes from elsewhere.
        digest: `sha256:…` that its bytes must have.
        size: bytes that it must have.
        progress: gets bytes as they are read for sending, negative when they must be sent again.

    Raises:
        HashMismatchError: the file cannot be read or has another size.

    """

    def __init__(self, source: Path | BlobContent, digest: str, size: int, progress: Callable[[int], None]) -> None:
        self.source = source
        self.digest = digest
        self.size = size
        self.sent = 0
        """All bytes that were read for sending, those of failed tries too."""
        self._progress = progress
        self._reported = 0
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._mark = (0, self._hash.copy())
        self._in_order = True
        if not isinstance(source, Path):
            self._stream: BinaryIO | _Window = _Window(source, size)
            return
        try:
            self._stream = source.open("rb")
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
        self._mark = (start, self._hash.copy())
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
        if not self._in_order:
            return
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
        if self._hashed != position and self._mark[0] == position:
            # The same part once more: its beginning was hashed already.
            self._hashed, self._hash = position, self._mark[1].copy()
        if self._hashed > position:
            self._hashed, self._hash = 0, hashlib.sha256()
        if self._hashed != position and not isinstance(self.source, Path):
            self._hashed, self._in_order = position, False
        self._in_order = self._in_order or position == 0
        self._stream.seek(self._hashed)
        for _ in self._read_on(position - self._hashed):
            pass

    def _read_on(self, length: int) -> Iterator[bytes]:
        while length:
            block = self._next(min(_BLOCK, length))
            length -= len(block)
            yield block

    def _next(self, length: int) -> bytes:
        block = self._stream.read(length) or b""
        if not block:
            raise self._damaged("it became shorter while it was read")
        self._hash.update(block)
        self._hashed += len(block)
        return block

    def _damaged(self, what: str) -> HashMismatchError:
        return HashMismatchError(
            f"{self.source} is not the blob {self.digest}: {what}", hint="build the image again, nothing was tagged"
        )


class _Window(io.RawIOBase):
    """Reads a blob from elsewhere, a bounded part at a time; the last part is kept, so that it can be sent once more."""

    def __init__(self, content: BlobContent, size: int) -> None:
        self._content = content
        self._size = size
        self._position = 0
        self._start = 0
        self._part = b""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read from the part, get another one where it ends."""
        inside = self._position - self._start
        if not 0 <= inside < len(self._part):
            self._start, inside = self._position, 0
            length = max(0, min(WINDOW, self._size - self._start))
            self._part = self._content.read(self._start, length) if length else b""
        view = memoryview(buffer)
        piece = self._part[inside : inside + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
