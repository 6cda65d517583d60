"""Use case: several releases in one go. A release that fails is told and left out; the others finish.

What they share is made once: packages and layers come from the caches that the releases before have filled, connections, logins
and blobs from the registries that they have been pushed to.
"""

import dataclasses
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lockyard.app.create import create_release
from lockyard.app.images import BuildResult
from lockyard.app.lock import lock_release
from lockyard.app.publish import PublishResult
from lockyard.app.schedule import read_schedule
from lockyard.app.workspace import Workspace
from lockyard.artifacts.schedule import FILE_NAME, Entry
from lockyard.errors import ConfigError, LockyardError
from lockyard.ports import Toolbox
from lockyard.version import Version

T = TypeVar("T")
Build = Callable[[Workspace, Version, bool], BuildResult]
"""Builds a release; the last argument is whether to solve it again."""
Publish = Callable[[Workspace, Version], PublishResult]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one release; `error` says why the rest is missing."""

    version: Version
    built: BuildResult | None = None
    published: PublishResult | None = None
    error: LockyardError | None = None


def build_wave(
    toolbox: Toolbox,
    workspace: Workspace,
    versions: Sequence[Version],
    build: Build,
    publish: Publish | None = None,
    *,
    scheduled: Sequence[Entry] = (),
    force: bool = False,
) -> tuple[Outcome, ...]:
    """Build all releases, then publish those that were built; nothing of a release that failed is published.

    A version of `scheduled` whose directory is not there yet, or with `force`, is created from its base first and locked with
    everything that is new. A failure that is no `LockyardError` ends that release only, too.
    """
    entries = {entry.target: entry for entry in scheduled}

    def make(version: Version) -> BuildResult:
        entry = entries.get(version)
        if entry is None or (workspace.has_release(version) and not force):
            return build(workspace, version, force)
        create_release(toolbox, workspace, entry.base, entry.part, force=force)
        # A new view of the workspace: this one may have listed the releases before.
        fresh = dataclasses.replace(workspace)
        # What the channels have now: the night finds what breaks before the day of the release does.
        lock_release(toolbox, fresh, version, fresh=True)
        return build(fresh, version, False)

    built, failed = _each(toolbox, versions, make)
    published: dict[Version, PublishResult] = {}
    if publish is not None:
        published, refused = _each(toolbox, built, lambda version: publish(dataclasses.replace(workspace), version))
        failed |= refused
    return tuple(
        Outcome(
            version=version,
            built=built.get(version),
            published=published.get(version),
            error=failed.get(version),
        )
        for version in versions
    )


def publish_wave(
    toolbox: Toolbox, workspace: Workspace, versions: Sequence[Version], publish: Publish
) -> tuple[Outcome, ...]:
    """Publish several releases that are built; one that cannot be leaves the others alone."""
    published, failed = _each(toolbox, versions, lambda version: publish(dataclasses.replace(workspace), version))
    return tuple(
        Outcome(version=version, published=published.get(version), error=failed.get(version)) for version in versions
    )


def scheduled_entries(workspace: Workspace) -> tuple[Entry, ...]:
    """Return what is scheduled, in the order of the new versions.

    Raises:
        ConfigError: nothing is, or the file is malformed.

    """
    entries = read_schedule(workspace).entries
    if not entries:
        raise ConfigError(f"{FILE_NAME} schedules nothing", hint="lockyard schedule add VERSION")
    return tuple(sorted(entries, key=lambda entry: entry.target))


def _each(
    toolbox: Toolbox, versions: Iterable[Version], work: Callable[[Version], T]
) -> tuple[dict[Version, T], dict[Version, LockyardError]]:
    """Do the work for each version; a failure ends that version only."""
    done: dict[Version, T] = {}
    failed: dict[Version, LockyardError] = {}
    for version in versions:
        try:
            done[version] = work(version)
        except Exception as error:  # noqa: BLE001 - whatever befalls one release, the others finish; it is told at the end
            failed[version] = _told(toolbox, error)
            toolbox.log.warning(f"{version}: {failed[version].message}; the other releases go on")
    return done, failed


def _told(toolbox: Toolbox, error: Exception) -> LockyardError:
    """Return a failure as users are told of it."""
    if isinstance(error, LockyardError):
        return error
    for line in traceback.format_exception(error):
        toolbox.log.detail(line.rstrip())
    return LockyardError(f"{type(error).__name__}: {error}", hint="run it again with -v and report the traceback")
