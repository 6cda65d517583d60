"""One blob on its way to a registry, effects (OCI Distribution Specification 1.1, "Pushing blobs").

It goes in parts; an interrupted upload goes on where the registry says, or begins again where it cannot.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from lockyard import http
from lockyard.errors import HashMismatchError, RegistryError
from lockyard.ports.registry import UploadSession
from lockyard.registry import wire
from lockyard.registry.blobfile import BlobFile
from lockyard.registry.transport import RefusedError, Reply, Request, Transport

SMALL: Final = 1 << 20
"""Bytes up to which a blob goes in one request, checked in memory before it is sent."""
CHUNK: Final = 16 << 20
"""Bytes of one request of a larger blob: what a broken connection costs at most. ECR wants at least 5 MB."""
_RESTARTS = 5
_PIECES = 2  # restarts after which a blob goes in one request
_OCTETS = {"Content-Type": "application/octet-stream"}
_LOST = frozenset({400, 404, 405, 410, 416})
"""What registries answer to an upload session that they do not know or cannot continue."""


class Upload:
    """One blob on its way; `attempt` may be called until it succeeds and goes on where it can.

    `base` is the repository's address with a slash; `best` is how far any attempt came.
    """

    def __init__(self, transport: Transport, base: str, scopes: tuple[str, ...], blob: BlobFile, *, chunk: int) -> None:
        self._wire = transport
        self._base = base
        self._scopes = scopes
        self._blob = blob
        self._chunk = chunk
        self._restarts = 0
        self._may_be_done = False
        self.session: UploadSession | None = None
        self.on_session: Callable[[UploadSession], None] | None = None
        self.best = 0

    def attempt(self) -> None:
        """Send what is missing and close the upload.

        Raises:
            TransferError: a temporary failure; call again.
            RegistryError: the registry refuses the blob.
            HashMismatchError: the file is not what its digest names; the registry has not got it.

        """
        if self._may_be_done and self._exists():
            self._blob.report(self._blob.size)
            return
        self._may_be_done = False
        session, offset = self._begin_or_go_on()
        if self._blob.size <= SMALL and offset == 0:
            self._close(session, self._blob.whole())
        else:
            while offset < self._blob.size:
                session, offset = self._send_chunk(session, offset)
            self._verify(session)
            self._close(session, b"")
        self._blob.report(self._blob.size)

    def _begin_or_go_on(self) -> tuple[UploadSession, int]:
        session = self.session
        if session is not None and session.offset is None:
            session = self._ask(session)
        if session is None:
            reply = self._do("POST", f"{self._base}blobs/uploads/", (202,))
            session = session_of(reply, 0, insecure=self._wire.insecure)
        self._keep(session)
        return session, session.offset or 0

    def _ask(self, session: UploadSession) -> UploadSession | None:
        """Return the session with the offset that the registry has, `None` when it knows none."""
        try:
            url = wire.follow(self._base, session.location, allow_plain=self._wire.insecure)
            reply = self._do("GET", url, (200, 202, 204))
        except RefusedError:
            return None
        offset = wire.received(reply.headers.get("range")) or 0
        if offset > self._blob.size:
            return None
        return UploadSession(wire.follow(url, reply.headers.get("location") or url, allow_plain=True), offset)

    def _send_chunk(self, session: UploadSession, start: int) -> tuple[UploadSession, int]:
        # Some registries take a blob in one piece only: what is lost again and again is sent so at last.
        piece = self._chunk if self._restarts < _PIECES else self._blob.size
        length = min(piece, self._blob.size - start)
        headers = {**_OCTETS, "Content-Range": f"{start}-{start + length - 1}"}
        # Until the answer comes, only the registry knows how much it has.
        self.session = UploadSession(session.location)
        try:
            reply = self._do(
                "PATCH", session.location, (201, 202, 204), headers, lambda: self._blob.blocks(start, length), length
            )
        except RefusedError as error:
            raise self._lost(error) from error
        there = wire.received(reply.headers.get("range"))
        end = start + length if there is None else there
        if not start < end <= start + length:
            raise self._lost(
                RegistryError(f"{wire.shown(reply.url)}: {end} bytes are there, {start + length} were sent")
            )
        session = session_of(reply, end, insecure=self._wire.insecure)
        self._keep(session)
        self.best = max(self.best, end)
        return session, end

    def _verify(self, session: UploadSession) -> None:
        try:
            self._blob.verify()
        except HashMismatchError:
            with contextlib.suppress(RegistryError, http.TransferError):
                self._do("DELETE", session.location, (200, 202, 204))
            raise

    def _close(self, session: UploadSession, data: bytes) -> None:
        # The answer may be lost after the registry has taken the blob: the next try looks.
        self._may_be_done = True
        self.session = None if data else UploadSession(session.location)
        url = wire.with_digest(session.location, self._blob.digest)
        try:
            self._do("PUT", url, (200, 201, 204), _OCTETS, (lambda: iter((data,))) if data else None, len(data))
        except RefusedError as error:
            raise self._lost(error) from error

    def _lost(self, error: RegistryError) -> Exception:
        """Return what to raise when a session cannot go on: begin again a few times, then give up."""
        self.session = None
        self._restarts += 1
        refused = isinstance(error, RefusedError) and error.status not in _LOST
        if refused or self._restarts > _RESTARTS:
            return error
        return http.TransferError(error.message, temporary=True)

    def _exists(self) -> bool:
        return self._do("HEAD", f"{self._base}blobs/{self._blob.digest}", (200, 404)).status == 200

    def _keep(self, session: UploadSession) -> None:
        self.session = session
        if self._blob.size > SMALL and self.on_session is not None:
            self.on_session(session)

    def _do(
        self,
        method: str,
        url: str,
        allowed: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        length: int = 0,
    ) -> Reply:
        return self._wire.attempt(
            Request(
                method=method, url=url, allowed=allowed, scopes=self._scopes, headers=headers or {}, body=body,
                length=length,
            )
        )  # fmt: skip


def session_of(reply: Reply, offset: int, *, insecure: bool) -> UploadSession:
    """Return where an upload goes on that has `offset` bytes.

    Raises:
        RegistryError: the answer does not say, or leads to plain http where that is not allowed.

    """
    return UploadSession(wire.follow(reply.url, reply.headers.get("location"), allow_plain=insecure), offset)
