"""What is sent before a push: once, only what is lacking, and no failure but a bug of ours stops anything."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from lockyard.errors import RegistryError
from lockyard.oci.values import Descriptor, MediaType
from lockyard.ports.registry import RegistryPort, UploadSession
from lockyard.registry.ahead import Ahead, Destination, SentAhead, sending
from lockyard.registry.plan import Blob
from lockyard.registry.sending import PushReport
from support.effects import RecordingLog


@dataclass
class Port:
    """A repository that takes blobs into memory."""

    there: set[str] = field(default_factory=set)
    max_blob: int | None = None
    fault: Exception | None = None
    uploads: list[str] = field(default_factory=list)
    mounts: list[tuple[str, str]] = field(default_factory=list)
    gate: threading.Event | None = None

    def present_blobs(self, blobs: Mapping[str, int]) -> frozenset[str]:
        return frozenset(blobs.keys() & self.there)

    def mount_blob(self, digest: str, source: str) -> UploadSession | None:
        self.mounts.append((digest, source))
        self.there.add(digest)
        return None

    def upload_blob(self, source: Path, digest: str, size: int, *, progress: Callable[[int], None], **_: Any) -> int:
        if self.fault is not None:
            raise self.fault
        progress(1)
        if self.gate is not None:
            assert self.gate.wait(60)
        progress(size - 1)
        self.uploads.append(digest)
        self.there.add(digest)
        return size


class Forgetful:
    """A journal that keeps nothing."""

    def session(self, repository: str, digest: str) -> UploadSession | None:
        return None

    def note_session(self, repository: str, digest: str, session: UploadSession) -> None: ...

    def note_done(self, repository: str, digest: str) -> None: ...


def blob(text: str) -> Blob:
    return Blob(Descriptor.of(MediaType.LAYER_GZIP, text.encode()), Path("/nowhere"))


def to(port: Port, **donors: str) -> Destination:
    return Destination("host/name", cast(RegistryPort, port), donors)


def test_what_is_lacking_is_sent_once() -> None:
    here, new, known = blob("here"), blob("new"), blob("known")
    port, log = Port({here.digest}), RecordingLog()
    with sending([to(port, **{known.digest: "host/other"})], memory=Forgetful(), log=log) as ahead:
        for item in (here, new, known, new):
            ahead.offer(item)
    assert (port.uploads, port.mounts) == ([new.digest], [(known.digest, "host/other")])
    report = PushReport(sent_bytes=3, uploaded_blobs=1, mounted_bytes=5, mounted_blobs=1)
    assert ahead.sent == {"host/name": SentAhead(report, {new.digest: 3, known.digest: 5})}


def test_the_end_waits_and_shows_what_is_left() -> None:
    port, log = Port(gate=threading.Event()), Shown()
    log.shown = port.gate
    with sending([to(port)], memory=Forgetful(), log=log) as ahead:
        ahead.offer(blob("slow"))
    assert len(port.uploads) == 1
    assert log.total in {3, 4}  # of 4 bytes, one goes before the gate
    assert log.advanced == log.total


class Shown(RecordingLog):
    """Tells when progress is shown."""

    shown: threading.Event | None = None

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        with super().progress(description, total, unit) as advance:
            assert self.shown is not None
            self.shown.set()
            yield advance


@pytest.mark.parametrize("fault", [RegistryError("no"), FileNotFoundError("gone")])
def test_a_failure_is_one_warning_and_ends_that_repository(fault: Exception) -> None:
    bad, good, log = Port(fault=fault), Port(), RecordingLog()
    other = Destination("other/name", cast(RegistryPort, good))
    with sending([to(bad), other], memory=Forgetful(), log=log) as ahead:
        for number in range(9):
            ahead.offer(blob(str(number)))
    assert len(good.uploads) == 9
    (warning,) = (line for line in log.lines if line.startswith("warning"))
    assert "host/name takes no layers yet" in warning
    assert ahead.sent["host/name"] == SentAhead()


def test_a_layer_that_is_too_large_is_left_to_the_push_which_refuses_it() -> None:
    port = Port(max_blob=4)
    with sending([to(port)], memory=Forgetful(), log=RecordingLog()) as ahead:
        ahead.offer(blob("12345"))
        ahead.offer(blob("1234"))
    assert port.uploads == [blob("1234").digest]


def test_a_bug_is_not_hidden() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        sending([to(Port(fault=ZeroDivisionError()))], memory=Forgetful(), log=RecordingLog()) as ahead,
    ):
        ahead.offer(blob("x"))


def test_a_failure_of_the_build_stops_the_uploads() -> None:
    port = Port(gate=threading.Event())
    assert port.gate is not None
    with pytest.raises(KeyError), sending([to(port)], memory=Forgetful(), log=RecordingLog(), workers=1) as ahead:
        _fail(ahead, port.gate)
    assert port.uploads == []


def _fail(ahead: Ahead, gate: threading.Event) -> None:
    """Fail while an upload waits at `gate`, which opens once the uploads are told to stop."""
    for number in range(3):
        ahead.offer(blob(str(number)))

    def release() -> None:
        ahead._stop.wait(60)
        gate.set()

    threading.Timer(0.0, release).start()
    raise KeyError
