"""What an ECR repository should be set up like for publishing, and the AWS command for each thing that is missing. Pure."""

import fnmatch
import shlex
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from lockyard.registry.places import EcrPlace

Level = Literal["error", "advice"]
_MAX_FILTERS = 5
"""ECR takes so many exclusion filters a repository, with at most two wildcards each."""


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """How a repository is set up; `None` and empty texts are what AWS did not say or does not have."""

    place: EcrPlace
    _: KW_ONLY
    exists: bool
    scan_on_push: bool | None = None
    mutability: str = ""
    exclusions: tuple[str, ...] = ()
    blob_mounting: bool | None = None
    encryption: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is missing, why it matters, and the command that mends it (argument list joined for a shell)."""

    repository: str
    level: Level
    what: str
    command: str = ""


def findings(settings: RepositorySettings, *, stage: bool, shared: bool, filters: Iterable[str]) -> tuple[Finding, ...]:
    """Return what is missing, most important first.

    `stage`: exact tags move there. `shared`: another repository of the distribution is in the same registry, so that mounting
    pays. `filters` are wildcards that match the floating tags and no exact ones, none where nothing is released yet.
    """
    place = settings.place
    repository = f"{place.host}/{place.name}"
    if not settings.exists:
        return (Finding(repository, "error", "it does not exist", place.create_command),)
    found = []
    if not place.is_public:
        found = [*_tags(settings, stage=stage, filters=tuple(filters)), *_scan(settings)]
        if shared and settings.blob_mounting is False:
            command = f"{place.command} put-account-setting --name BLOB_MOUNTING --value ENABLED"
            what = "blob mounting is off in this account and region: every repository gets all layers uploaded"
            found.append(("advice", what, command))
        if shared and settings.blob_mounting is None:
            found.append(("advice", "whether blobs can be mounted is not to be seen (ecr:GetAccountSetting)", ""))
    return tuple(Finding(repository, level, what, command) for level, what, command in found)


def _tags(settings: RepositorySettings, *, stage: bool, filters: tuple[str, ...]) -> list[tuple[Level, str, str]]:
    place = settings.place
    start = f"{place.command} put-image-tag-mutability --registry-id {place.account} --repository-name {place.name}"
    if stage:
        if settings.mutability in {"MUTABLE", ""}:
            return []
        what = f"tags are {settings.mutability}: in a staging repository exact tags must be able to move"
        return [("error", what, f"{start} --image-tag-mutability MUTABLE")]
    excluded = all(any(fnmatch.fnmatchcase(item, rule) for rule in settings.exclusions) for item in filters)
    if not filters or (settings.mutability == "IMMUTABLE_WITH_EXCLUSION" and excluded):
        return []
    kept = tuple(dict.fromkeys((*filters, *settings.exclusions)))[:_MAX_FILTERS]
    rules = " ".join(shlex.quote(f"filterType=WILDCARD,filter={item}") for item in kept)
    command = (
        f"{start} --image-tag-mutability IMMUTABLE_WITH_EXCLUSION --image-tag-mutability-exclusion-filters {rules}"
    )
    if settings.mutability in {"IMMUTABLE", "IMMUTABLE_WITH_EXCLUSION"}:
        return [("error", f"tags are {settings.mutability}: floating tags cannot move", command)]
    return [("advice", "tags are mutable: the registry itself does not keep exact tags where they are", command)]


def _scan(settings: RepositorySettings) -> list[tuple[Level, str, str]]:
    place = settings.place
    if settings.scan_on_push is not False:
        return []
    command = (
        f"{place.command} put-image-scanning-configuration --registry-id {place.account} "
        f"--repository-name {place.name} --image-scanning-configuration scanOnPush=true"
    )
    return [("advice", "images are not scanned on push", command)]
