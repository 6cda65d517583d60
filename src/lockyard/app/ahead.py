"""Layers sent to the targets of releases while these are still built and tested; `registry.ahead` sends them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lockyard.app.published import donors
from lockyard.app.pushing import journal_of, push_lock
from lockyard.app.targets import OCI, open_places, resolve
from lockyard.app.workspace import Workspace
from lockyard.distribution import Repository
from lockyard.engines.request import Finished
from lockyard.errors import LockyardError
from lockyard.oci.values import Descriptor
from lockyard.ports import Toolbox
from lockyard.registry.ahead import Ahead, Destination, SentAhead, sending
from lockyard.registry.journal import open_journal
from lockyard.registry.plan import Blob
from lockyard.version import Version


class EarlyUploads:
    """What one command sends before it publishes: `targets` are as `--target-ecr-repo` names them, `wanted` is whether it does.

    Raises:
        ConfigError: a target is malformed or unknown.

    """

    def __init__(
        self, toolbox: Toolbox, workspace: Workspace, targets: Sequence[str], *, region: str | None, wanted: bool
    ) -> None:
        self._toolbox = toolbox
        repositories = resolve(workspace, targets, region=region)
        self._repositories = [item for item in repositories if wanted and not item.uri.startswith(OCI)]
        self._sent: dict[Version, Mapping[str, SentAhead]] = {}

    def sent(self, version: Version) -> Mapping[str, SentAhead]:
        """Return what repositories got of a release: nothing where its build or its tests failed."""
        return self._sent.get(version, {})

    @contextlib.contextmanager
    def during(self, workspace: Workspace, version: Version) -> Iterator[Finished]:
        """Give what is told of each finished layer in a `with` block; its end waits for the uploads, a failure stops them."""
        with contextlib.ExitStack() as stack:
            ahead = None
            if self._repositories:
                try:
                    ahead = stack.enter_context(_sending(self._toolbox, workspace, version, self._repositories))
                except LockyardError as error:
                    self._toolbox.log.detail(f"no layer is sent before the push: {error}")

            def finished(layer: Descriptor, path: Path) -> None:
                if ahead is not None:
                    ahead.offer(Blob(layer, path))

            yield finished
        if ahead is not None:
            self._sent[version] = ahead.sent


@contextlib.contextmanager
def _sending(
    toolbox: Toolbox, workspace: Workspace, version: Version, repositories: Sequence[Repository]
) -> Iterator[Ahead]:
    """Send layers in a `with` block. Of the repositories of one registry the first gets them: the others will mount them."""
    with (
        push_lock(workspace, version),
        open_journal(journal_of(workspace, version)) as journal,
        open_places(toolbox, workspace, repositories) as places,
    ):
        offers = donors(workspace, version)
        first = {place.port.registry: place for place in reversed(places)}
        destinations = [
            Destination(place.name, place.port, offers.get(registry or "", {})) for registry, place in first.items()
        ]
        names = ", ".join(item.repository for item in destinations)
        toolbox.log.info(f"finished layers go to {names} while the rest is built and tested")
        with sending(destinations, memory=journal, log=toolbox.log) as ahead:
            yield ahead
