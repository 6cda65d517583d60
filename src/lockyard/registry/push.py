"""Carry a push plan out, effects: blobs beside each other, everything else in the plan's order, exact tags read back."""

import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from lockyard.errors import RegistryError
from lockyard.oci.values import Digest
from lockyard.ports import Log, RegistryPort, UploadSession
from lockyard.registry.plan import PushPlan, PutManifest, PutTag, SendBlob, Stage

WORKERS = 4


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


def run_push(
    plan: PushPlan, ports: Mapping[str, RegistryPort], *, memory: Memory, log: Log, workers: int = WORKERS
) -> PushReport:
    """Do all effects of `plan`; `ports` maps each repository to its registry, `workers` blobs travel at a time.

    Floating tags move only after every exact tag was read back from its registry.

    Raises:
        RegistryError: a registry refused, or an exact tag does not lead to its image; run it again to go on.
        HashMismatchError: a blob file is damaged; neither its manifest nor a tag was written.

    """
    report = PushReport()
    with log.progress("push", plan.upload_bytes, "B") as advance:
        for stage in plan.stages:
            if stage.kind == "blobs":
                report += _send_blobs(stage, ports[stage.repository], memory, log, advance, workers)
            elif stage.kind == "manifests":
                _put_manifests(stage, ports[stage.repository])
    for stage in plan.stages:
        if stage.kind == "exact tags":
            _put_tags(stage, ports[stage.repository], exact=True)
    _read_back(plan, ports)
    for stage in plan.stages:
        if stage.kind == "floating tags":
            _put_tags(stage, ports[stage.repository], exact=False)
    return report


def _send_blobs(
    stage: Stage, port: RegistryPort, memory: Memory, log: Log, advance: Callable[[int], None], workers: int
) -> PushReport:
    stop = threading.Event()

    def progress(amount: int) -> None:
        if stop.is_set():
            raise RegistryError("stopped, because another upload failed")
        advance(amount)

    sends = [effect for effect in stage.effects if isinstance(effect, SendBlob)]
    with concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="push") as pool:
        futures = [pool.submit(_send_blob, effect, port, memory, log, progress) for effect in sends]
        report = PushReport()
        try:
            for future in concurrent.futures.as_completed(futures):
                report += future.result()
        except BaseException:
            # An interrupt, too, ends the uploads that run; how far they are is in the journal.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return report


def _send_blob(
    effect: SendBlob, port: RegistryPort, memory: Memory, log: Log, progress: Callable[[int], None]
) -> PushReport:
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
        blob.path,
        blob.digest,
        blob.size,
        progress=progress,
        session=begun or session,
        on_session=lambda now: memory.note_session(repository, blob.digest, now),
    )
    memory.note_done(repository, blob.digest)
    return report + PushReport(uploaded_blobs=1, sent_bytes=sent)


def _put_manifests(stage: Stage, port: RegistryPort) -> None:
    for effect in stage.effects:
        if isinstance(effect, PutManifest):
            manifest = effect.manifest
            port.put_manifest(manifest.digest, manifest.body, manifest.descriptor.media_type)


def _put_tags(stage: Stage, port: RegistryPort, *, exact: bool) -> None:
    for effect in stage.effects:
        if not isinstance(effect, PutTag):
            continue
        manifest = effect.manifest
        if exact:
            # Someone else may have published since the plan was made.
            there = port.manifest_digest(effect.tag)
            if there not in {None, effect.moves, manifest.digest}:
                raise RegistryError(
                    f"{effect.repository}:{effect.tag} appeared as {there} while {manifest.digest} was pushed",
                    hint="two people publish this version: compare their builds",
                )
        port.put_manifest(effect.tag, manifest.body, manifest.descriptor.media_type)


def _read_back(plan: PushPlan, ports: Mapping[str, RegistryPort]) -> None:
    for repository, tag, digest in plan.tags:
        body = ports[repository].get_manifest(tag)
        found = str(Digest.of(body)) if body is not None else "nothing"
        if found != digest:
            raise RegistryError(
                f"{repository}:{tag} leads to {found} instead of {digest}",
                hint="no floating tag was moved; look at the registry, then push again",
            )
