"""What every publication has in common: repositories looked at, a push planned, carried out with a journal.

What is published (a release of a distribution, a Python package's images) is the caller's: it gives images that are fit to be
published, and `aim`, which says of a repository which floating tags move there *now*.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs
from lockyard.app.published import Published
from lockyard.app.targets import Place, beside, present
from lockyard.app.workspace import Workspace
from lockyard.ports import Toolbox
from lockyard.registry.journal import open_journal
from lockyard.registry.plan import Present, PushImage, PushPlan, PutTag, Target, plan_push
from lockyard.registry.push import PushOutcome, run_push
from lockyard.reports.text import counted
from lockyard.version import Version

Aim = Callable[[Place], Target]
"""Asks a repository what is published there, and gives the floating tags that move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A push that was planned: its effects, and every image in every repository with its tags."""

    plan: PushPlan
    published: tuple[Published, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A push that was done; `published` lacks the floating tags that were left alone, `resumed` counts blobs of an earlier run."""

    outcome: PushOutcome
    published: tuple[Published, ...]
    resumed: int


def journal_of(workspace: Workspace, version: Version) -> Path:
    """Return where the pushes of a release remember how far they are."""
    return workspace.state_dir / "push" / f"{version}.jsonl"


def push_lock(workspace: Workspace, version: Version) -> contextlib.AbstractContextManager[None]:
    """Keep other pushes of a release out; raise `LockyardError` when one is under way."""
    return fs.lock(journal_of(workspace, version).with_suffix(".lock"))


def plan_images(
    images: Sequence[PushImage],
    places: Sequence[Place],
    aim: Aim,
    *,
    move_tags: bool = False,
    donors: Mapping[str, Mapping[str, str]] | None = None,
) -> Planned:
    """Look at all repositories beside each other and plan.

    Raises:
        RegistryError: one cannot be read, or an exact tag is taken; nothing was written.

    """

    def look(place: Place) -> tuple[Target, Present]:
        target = aim(place)
        return target, present(place.port, images, target)

    looked = beside(look, places)
    aims = [target for target, _ in looked]
    there = {target.repository: has for target, has in looked}
    plan = plan_push(images, aims, there, move_tags=move_tags, donors=donors)
    published = tuple(
        Published(
            image_type=image.image_type,
            repository=item.repository,
            digest=image.top.digest,
            tags=(image.tag, *item.floating.get(image.image_type, ())),
        )
        for item in aims
        for image in images
    )
    return Planned(plan=plan, published=published)


@contextlib.contextmanager
def pushed_images(
    toolbox: Toolbox, journal: Path, planned: Planned, places: Sequence[Place], aim: Aim, *, ahead: int = 0
) -> Iterator[Pushed]:
    """Carry a plan out, then give what was done to a `with` block that keeps it.

    The file `journal` lets a killed run go on; it goes at the end of the block. `ahead` of the blobs in it were sent by this
    run, before the plan was made.

    Raises:
        RegistryError: a registry refuses; the details say what is where.
        HashMismatchError: a built image was changed; neither its manifest nor a tag was written.

    """
    ports = {place.name: place.port for place in places}
    with open_journal(journal) as memory:
        resumed = sum(repository in ports for repository, _ in memory.finished) - ahead
        if resumed:
            toolbox.log.info(f"an interrupted run had finished {counted(resumed, 'blob')} already")
        outcome = run_push(planned.plan, ports, memory=memory, log=toolbox.log, may_float=_Floating(places, aim))
        for effect in outcome.kept_back:
            toolbox.log.warning(f"{effect.repository}:{effect.tag} stays: a newer release was published meanwhile")
        yield Pushed(outcome=outcome, published=_without(planned.published, outcome.kept_back), resumed=resumed)
        memory.remove()


class _Floating:
    """Tells whether a floating tag may still move: other people publish while we do."""

    def __init__(self, places: Iterable[Place], aim: Aim) -> None:
        self._places = {place.name: place for place in places}
        self._aim = aim
        self._tags: dict[str, frozenset[str]] = {}

    def __call__(self, effect: PutTag) -> bool:
        """Ask the repository once more what is published there."""
        name = effect.repository
        if name not in self._tags:
            target = self._aim(self._places[name])
            self._tags[name] = frozenset(tag for tags in target.floating.values() for tag in tags)
        return effect.tag in self._tags[name]


def _without(published: Iterable[Published], kept_back: Iterable[PutTag]) -> tuple[Published, ...]:
    """Return what was published less the tags that were left alone."""
    left = {(effect.repository, effect.tag) for effect in kept_back}
    return tuple(
        replace(item, tags=tuple(tag for tag in item.tags if (item.repository, tag) not in left)) for item in published
    )
