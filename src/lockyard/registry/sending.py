"""One blob to one repository, mounted or uploaded, effects: what a push and what goes before it have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lockyard.errors import RegistryError
from lockyard.ports import Log
from lockyard.ports.registry import RegistryPort, UploadSession
from lockyard.registry.plan import SendBlob

WORKERS = 4
"""Blobs that travel at a time to one registry."""


class Memory(Protocol):
    """What a push remembers for the next run; `registry.journal` is the real one."""

    def session(self, repository: str, digest: str) -> UploadSession | None:
        """Return where the upload of a blob goes on."""

    def note_session(self, repository: str, digest: str, session: UploadSession) -> None:
        """Remember where an upload goes on."""

    def note_done(self, repository: str, digest: str) -> None:
        """Remember that a blob is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReport:
    """What a push did; `sent_bytes` counts blob bytes that went out, those of failed tries too."""

    sent_bytes: int = 0
    mounted_bytes: int = 0
    uploaded_blobs: int = 0
    mounted_blobs: int = 0
    refused_mounts: int = 0

    def __add__(self, other: "PushReport") -> "PushReport":
        return PushReport(
            sent_bytes=self.sent_bytes + other.sent_bytes,
            mounted_bytes=self.mounted_bytes + other.mounted_bytes,
            uploaded_blobs=self.uploaded_blobs + other.uploaded_blobs,
            mounted_blobs=self.mounted_blobs + other.mounted_blobs,
            refused_mounts=self.refused_mounts + other.refused_mounts,
        )


class StoppedError(RegistryError):
    """An upload that ended because it is not wanted any more: another one failed."""


def send_blob(
    effect: SendBlob, port: RegistryPort, memory: Memory, log: Log, progress: Callable[[int], None]
) -> PushReport:
    """Mount or upload one blob, going on where `memory` says.

    Raises:
        RegistryError: the registry refuses, or `progress` does.
        HashMismatchError: the blob's file is damaged; the registry has not got it.

    """
    blob, repository = effect.blob, effect.repository
    report = PushReport()
    session = None
    if effect.source is not None:
        session = port.mount_blob(blob.digest, effect.source)
        if session is None:
            memory.note_done(repository, blob.digest)
            return PushReport(mounted_blobs=1, mounted_bytes=blob.size)
        log.detail(f"{repository}: {blob.descriptor.digest.short} is not mounted from {effect.source}, so it is sent")
        report = PushReport(refused_mounts=1)
    begun = memory.session(repository, blob.digest)
    sent = port.upload_blob(
        blob.source,
        blob.digest,
        blob.size,
        progress=progress,
        session=begun or session,
        on_session=lambda now: memory.note_session(repository, blob.digest, now),
    )
    memory.note_done(repository, blob.digest)
    return report + PushReport(uploaded_blobs=1, sent_bytes=sent)
