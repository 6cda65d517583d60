"""Blobs that travel before the push that refers to them, effects: while other layers are made, and while images are tested.

A blob to which no manifest refers is shown to nobody, and registries remove it after a while: so this publishes nothing. The push
asks what is there, as always, and sends the rest. Whatever fails here is left to it, too.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from lockyard.errors import LockyardError
from lockyard.ports import Log
from lockyard.ports.registry import RegistryPort
from lockyard.registry.plan import Blob, SendBlob
from lockyard.registry.sending import WORKERS, Memory, PushReport, StoppedError, send_blob
from lockyard.reports.text import counted


@dataclass(frozen=True, slots=True)
class Destination:
    """A repository that gets blobs ahead; `donors` says which repositories of its registry have some: digest → repository."""

    repository: str
    port: RegistryPort
    donors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentAhead:
    """What a repository got before its push: the report, and the blobs that are there because of it (digest → bytes)."""

    report: PushReport = field(default_factory=PushReport)
    blobs: Mapping[str, int] = field(default_factory=dict)


class Ahead:
    """Uploads under way; thread-safe. Get one from `sending`."""

    def __init__(self, destinations: Sequence[Destination], memory: Memory, log: Log, workers: int) -> None:
        self._memory = memory
        self._log = log
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._advance: Callable[[int], None] = lambda _: None
        self._left = 0
        self._offered: set[str] = set()
        self._jobs: list[Future[None]] = []
        self._failed: set[str] = set()
        self._sent = {item.repository: SentAhead() for item in destinations}
        # One slow registry does not keep the others waiting.
        self._lanes = [(item, ThreadPoolExecutor(workers, thread_name_prefix="ahead")) for item in destinations]

    @property
    def sent(self) -> Mapping[str, SentAhead]:
        """Repository → what it got so far."""
        with self._guard:
            return dict(self._sent)

    def offer(self, blob: Blob) -> None:
        """Send a blob, whose file is complete, as soon as there is room; one that was offered before is not sent again."""
        with self._guard:
            if blob.digest in self._offered:
                return
            self._offered.add(blob.digest)
            self._left += blob.size * len(self._lanes)
            self._jobs += [lane.submit(self._send, destination, blob) for destination, lane in self._lanes]

    def drain(self) -> None:
        """Wait until all that was offered is there, or has failed."""
        with self._guard:
            left = self._left
        progress = self._log.progress("upload", left, "B") if left else contextlib.nullcontext(self._advance)
        with progress as advance:
            with self._guard:
                self._advance, since = advance, left - self._left
            advance(since)
            for job in self._jobs:
                job.result()
        for _, lane in self._lanes:
            lane.shutdown()

    def stop(self) -> None:
        """End all uploads, and say what has arrived; how far the large ones are is remembered."""
        self._stop.set()
        for _, lane in self._lanes:
            lane.shutdown(cancel_futures=True)
        for repository, sent in self.sent.items():
            if sent.blobs:
                self._log.info(
                    f"{repository} has got {counted(len(sent.blobs), 'layer')}; no manifest refers to them, nothing is published"
                )

    def _send(self, destination: Destination, blob: Blob) -> None:
        repository, port = destination.repository, destination.port
        gone = 0

        def progress(amount: int) -> None:
            nonlocal gone
            if self._stop.is_set():
                raise StoppedError("stopped, because nothing is published")
            gone += amount
            self._count(amount)

        report, there = PushReport(), False
        wanted = repository not in self._failed and (port.max_blob is None or blob.size <= port.max_blob)
        try:
            if wanted and not port.present_blobs({blob.digest: blob.size}):
                effect = SendBlob(repository, blob, destination.donors.get(blob.digest))
                report, there = send_blob(effect, port, self._memory, self._log, progress), True
        except StoppedError:
            return
        except (LockyardError, OSError) as error:
            # Whatever it is, the push meets it too and says what to do.
            with self._guard:
                first = repository not in self._failed
                self._failed.add(repository)
            if first:
                self._log.warning(f"{repository} takes no layers yet, so the push sends them: {error}")
        self._count(blob.size - gone)
        with self._guard:
            old = self._sent[repository]
            blobs = {**old.blobs, blob.digest: blob.size} if there else old.blobs
            self._sent[repository] = SentAhead(old.report + report, blobs)

    def _count(self, amount: int) -> None:
        with self._guard:
            self._left -= amount
            advance = self._advance
        advance(amount)


@contextlib.contextmanager
def sending(
    destinations: Sequence[Destination], *, memory: Memory, log: Log, workers: int = WORKERS
) -> Iterator[Ahead]:
    """Send what is offered in the `with` block, `workers` blobs at a time to one repository, and wait for it at its end.

    A failure in the block, an interrupt too, ends the uploads and goes on its way.
    """
    ahead = Ahead(destinations, memory, log, workers)
    with contextlib.ExitStack() as stack:
        stack.callback(ahead.stop)
        yield ahead
        ahead.drain()
        stack.pop_all()
