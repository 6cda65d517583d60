"""Use cases that answer questions about releases: what changed, what is inside, why."""

from lockyard.app.facts import read_facts
from lockyard.app.workspace import Workspace
from lockyard.ports import Toolbox
from lockyard.reports.changes import Comparison, compare
from lockyard.reports.ref import ReleaseRef


def diff_releases(
    toolbox: Toolbox, workspace: Workspace, base: ReleaseRef, target: ReleaseRef, *, image_types: tuple[str, ...] = ()
) -> Comparison:
    """Compare two releases, or one with a git revision of itself, on each type's first platform.

    A type that one of them does not have at all, neither specs nor a lock, is compared with nothing.

    Raises:
        ConfigError: a release, a revision or an image type does not exist.
        StaleLockError: a release has specs of a type but no lock of it; the missing file is named.

    """
    return compare(
        read_facts(toolbox, workspace, base, image_types), read_facts(toolbox, workspace, target, image_types)
    )
