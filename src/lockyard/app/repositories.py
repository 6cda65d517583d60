"""Use case: whether the repositories are set up for publishing, and what to do where they are not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lockyard.app.targets import OCI, open_places, resolve
from lockyard.app.workspace import Workspace
from lockyard.distribution import Repository
from lockyard.errors import LockyardError
from lockyard.ports import Toolbox
from lockyard.registry.places import parse_ecr
from lockyard.registry.settings import Finding, findings
from lockyard.tags import floating_filters


@dataclass(frozen=True, slots=True)
class CheckedRepository:
    """A repository and what was found; `kind` is `ecr`, `ecr-public`, `oci` or `directory`."""

    name: str
    repository: str
    kind: str
    stage: bool
    findings: tuple[Finding, ...]


def check_repositories(
    toolbox: Toolbox,
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    region: str | None = None,
    insecure: bool = False,
) -> tuple[CheckedRepository, ...]:
    """Look at repositories (aliases or addresses; all that are configured when none is named).

    Nothing is changed. A repository that cannot be asked has a finding that says so; the others are looked at all the same.

    Raises:
        ConfigError: a name is malformed, or nothing is configured.

    """
    wanted = tuple(names) or tuple(workspace.distribution.repositories)
    repositories = [(name, resolve(workspace, (name,), region=region)[0]) for name in wanted]
    if not repositories:
        resolve(workspace, ())
    hosts = Counter(item.uri.partition("/")[0] for item in _configured(workspace))
    hosts.update(item.uri.partition("/")[0] for name, item in repositories if name == item.uri)
    return tuple(
        _check(toolbox, workspace, name, item, shared=hosts[item.uri.partition("/")[0]] > 1, insecure=insecure)
        for name, item in repositories
    )


def _check(
    toolbox: Toolbox, workspace: Workspace, name: str, repository: Repository, *, shared: bool, insecure: bool
) -> CheckedRepository:
    place = None if repository.uri.startswith(OCI) else parse_ecr(repository.uri)
    try:
        if place is None:
            with open_places(toolbox, workspace, (repository,), insecure=insecure) as (opened,):
                opened.port.tags()
            found: tuple[Finding, ...] = ()
        else:
            settings = toolbox.ecr(place).settings(place)
            filters = _filters(workspace)
            found = findings(settings, stage=repository.stage, shared=shared, filters=filters)
    except LockyardError as error:
        found = (Finding(repository.uri, "error", error.message, error.hint or ""),)
    kind = "directory" if repository.uri.startswith(OCI) else "oci"
    if place is not None:
        kind = "ecr-public" if place.is_public else "ecr"
    return CheckedRepository(name, repository.uri, kind, repository.stage, found)


def _filters(workspace: Workspace) -> tuple[str, ...]:
    """Return wildcards for the floating tags of the newest lines."""
    versions = workspace.versions()
    if not versions:
        return ()
    templates = {variant.tag for variant in workspace.line(versions[-1]).variants.values()}
    return floating_filters(versions[-1], sorted(templates, key=str))


def _configured(workspace: Workspace) -> list[Repository]:
    return [workspace.distribution.repository(name) for name in workspace.distribution.repositories]
