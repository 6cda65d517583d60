"""Carry a push plan out, effects: registries beside each other, blobs beside each other, tags last, exact tags read back."""

import concurrent.futures
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lockyard.errors import LockyardError, RegistryError
from lockyard.oci.values import Digest
from lockyard.ports import Log
from lockyard.ports.registry import RegistryPort
from lockyard.registry.plan import PushPlan, PutManifest, PutTag, SendBlob, Stage, StageKind
from lockyard.registry.sending import WORKERS, Memory, PushReport, StoppedError, send_blob

_KINDS: tuple[StageKind, ...] = ("blobs", "manifests", "exact tags", "floating tags")


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What each repository took, and the floating tags that were left alone because something newer was published."""

    reports: Mapping[str, PushReport]
    kept_back: tuple[PutTag, ...] = ()

    @property
    def total(self) -> PushReport:
        """The sum of all repositories."""
        return sum(self.reports.values(), PushReport())


class _Run:
    """One push under way: what its threads share."""

    def __init__(
        self, plan: PushPlan, ports: Mapping[str, RegistryPort], memory: Memory, log: Log, workers: int
    ) -> None:
        self.plan = plan
        self.ports = ports
        self.memory = memory
        self.log = log
        self.workers = workers
        self.reports: dict[str, PushReport] = {}
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._done: Counter[tuple[str, StageKind]] = Counter()
        self._advance: Callable[[int], None] = lambda _: None

    def content(self) -> None:
        """Bring blobs and manifests everywhere; each registry gets them in the plan's order."""
        chains: dict[str, list[Stage]] = {}
        for stage in self.plan.stages:
            if stage.kind in {"blobs", "manifests"}:
                registry = self.ports[stage.repository].registry or stage.repository
                chains.setdefault(registry, []).append(stage)
        with self.log.progress("push", self.plan.upload_bytes, "B") as self._advance:
            _beside(self._chain, chains.values(), len(chains), self._stop.set)

    def tags(self, kind: StageKind, may: Callable[[PutTag], bool]) -> tuple[PutTag, ...]:
        """Put the exact or the floating tags of all repositories; return those that may not be put."""
        kept_back = []
        for stage in self.plan.stages:
            for effect in stage.effects if stage.kind == kind else ():
                if isinstance(effect, PutTag) and not may(effect):
                    kept_back.append(effect)
                elif isinstance(effect, PutTag):
                    _put_tag(effect, self.ports[stage.repository], exact=kind == "exact tags")
                    self._note(stage)
        return tuple(kept_back)

    def lines(self) -> list[str]:
        """Return what is done of what was planned, one line a repository."""
        wanted: Counter[tuple[str, StageKind]] = Counter()
        for stage in self.plan.stages:
            wanted[stage.repository, stage.kind] += len(stage.effects)
        repositories = dict.fromkeys(repository for repository, _, _ in self.plan.tags)
        lines = []
        for repository in repositories:
            parts = [
                f"{kind} {self._done[repository, kind]} of {wanted[repository, kind]}"
                for kind in _KINDS
                if wanted[repository, kind]
            ]
            lines.append(f"{repository}: {', '.join(parts) or 'complete before'}")
        return lines

    def _chain(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            if stage.kind == "blobs":
                sends = [effect for effect in stage.effects if isinstance(effect, SendBlob)]
                _beside(self._send, sends, self.workers, self._stop.set)
                continue
            for effect in stage.effects:
                if isinstance(effect, PutManifest):
                    self._check_stop()
                    manifest = effect.manifest
                    port = self.ports[stage.repository]
                    port.put_manifest(manifest.digest, manifest.body, manifest.descriptor.media_type)
                    self._note(stage)

    def _send(self, effect: SendBlob) -> None:
        self._check_stop()
        report = send_blob(effect, self.ports[effect.repository], self.memory, self.log, self._progress)
        with self._guard:
            self.reports[effect.repository] = self.reports.get(effect.repository, PushReport()) + report
            self._done[effect.repository, "blobs"] += 1

    def _progress(self, amount: int) -> None:
        self._check_stop()
        self._advance(amount)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError("stopped, because another upload failed")

    def _note(self, stage: Stage) -> None:
        with self._guard:
            self._done[stage.repository, stage.kind] += 1


def run_push(
    plan: PushPlan,
    ports: Mapping[str, RegistryPort],
    *,
    memory: Memory,
    log: Log,
    workers: int = WORKERS,
    may_float: Callable[[PutTag], bool] = lambda _: True,
) -> PushOutcome:
    """Do all effects of `plan` and return what each repository took; `ports` maps each repository to its registry.

    `workers` blobs travel at a time to one registry. Floating tags move only after every exact tag was read back, and only
    those that `may_float` allows then: hours may have passed since the plan was made.

    Raises:
        RegistryError: a registry refused, or an exact tag does not lead to its image; its details say what is where.
            Run it again to go on.
        HashMismatchError: a blob file is damaged; neither its manifest nor a tag was written.

    """
    run = _Run(plan, ports, memory, log, workers)
    try:
        run.content()
        run.tags("exact tags", lambda _: True)
        _read_back(plan, ports)
        kept_back = run.tags("floating tags", may_float)
    except LockyardError as error:
        error.details = (*error.details, *run.lines())
        raise
    return PushOutcome(run.reports, kept_back)


def _beside(function: Callable[..., None], items: Iterable[object], workers: int, stop: Callable[[], None]) -> None:
    """Call `function` with all items, so many at a time; the first failure stops the others and is raised."""
    items = list(items)
    if len(items) < 2:
        for item in items:
            function(item)
        return
    with concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="push") as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException as error:
            # An interrupt, too, ends the uploads that run; how far they are is in the journal.
            stop()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, StoppedError):
                _raise_reason(futures)
            raise


def _raise_reason(futures: Iterable["concurrent.futures.Future[None]"]) -> None:
    """Raise why the others were stopped, when one of `futures` knows."""
    for future in futures:
        reason = None if future.cancelled() else future.exception()
        if reason is not None and not isinstance(reason, StoppedError):
            raise reason


def _put_tag(effect: PutTag, port: RegistryPort, *, exact: bool) -> None:
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
    def read(tag: tuple[str, str, str]) -> None:
        repository, name, digest = tag
        body = ports[repository].get_manifest(name)
        found = str(Digest.of(body)) if body is not None else "nothing"
        if found != digest:
            raise RegistryError(
                f"{repository}:{name} leads to {found} instead of {digest}",
                hint="no floating tag was moved; look at the registry, then push again",
            )

    _beside(read, plan.tags, 2 * WORKERS, lambda: None)
