"""Use case: the next release directory from a base release, planned first, then written as one step."""

import dataclasses
import functools
import operator
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from lockyard import fs
from lockyard.app.workspace import Workspace
from lockyard.artifacts.catalog import Catalog
from lockyard.artifacts.plan import ReleasePlan, plan_release
from lockyard.artifacts.request import ReleaseRequest, TemplateSources
from lockyard.artifacts.template import NOT_COPIED
from lockyard.distribution import Line
from lockyard.errors import ConfigError, VersionExistsError
from lockyard.ports import Toolbox
from lockyard.tree import File, Tree
from lockyard.version import Bump, Version, bump, release_dir

_MINOR_RE = re.compile(r"v\d+\.\d+")
_TYPE_RE = re.compile(r"([a-z0-9]+(?:[-_][a-z0-9]+)*)\.(?:env\.in|env\.out|lock\.json)")
_PATIENCE = 10.0  # seconds: two creates follow each other; a build takes longer than anyone waits


@dataclass(frozen=True)
class CreateResult:
    """The plan, and whether it was written."""

    plan: ReleasePlan
    written: bool


def create_release(
    toolbox: Toolbox,
    workspace: Workspace,
    base: Version,
    part: Bump,
    *,
    identifier: str | None = None,
    force: bool = False,
    keep_lock: bool = False,
    dry_run: bool = False,
) -> CreateResult:
    """Make the release that follows `base`; a refused or a dry run writes nothing at all.

    `keep_lock` leaves the lock of a release that is made again, and the texts written from it.

    Raises:
        ConfigError: the base release, its lock or an input is missing or malformed.
        VersionExistsError: the target exists and `force` is off.

    """
    target = bump(base, part, identifier)
    request = _request(toolbox, workspace, base, part, target)
    plan = _plan(workspace, request, force=force, keep_lock=keep_lock)
    for warning in plan.warnings:
        toolbox.log.warning(warning)
    if dry_run:
        return CreateResult(plan, written=False)
    with workspace.lock(patience=_PATIENCE, tell=toolbox.log.info):
        # What was planned before the lock was held may be overtaken by another command.
        fresh = dataclasses.replace(workspace)
        now = _request(toolbox, fresh, base, part, target)
        if now != request:
            plan = _plan(fresh, now, force=force, keep_lock=keep_lock)
        _write(workspace, plan)
    return CreateResult(plan, written=True)


def read_catalog(workspace: Workspace) -> Catalog:
    """Return the releases with their image types, told by the names of their files."""
    releases = {}
    for version in workspace.versions():
        names = fs.names(workspace.release_path(version))
        releases[version] = sorted({match[1] for name in names if (match := _TYPE_RE.fullmatch(name))})
    return Catalog(releases)


def _request(toolbox: Toolbox, workspace: Workspace, base: Version, part: Bump, target: Version) -> ReleaseRequest:
    """Read all that the plan depends on."""
    base_tree = workspace.existing_release(base)
    line = workspace.line(target)
    source = str(workspace.line_path(target).relative_to(workspace.root))
    path = workspace.release_path(target)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{release_dir(target)} is not a directory")
    return ReleaseRequest(
        base=base,
        version=target,
        bump=part,
        distribution=workspace.distribution,
        line=line,
        line_source=source,
        base_tree=base_tree,
        target_tree=workspace.release_tree(target),
        nested=() if target.is_pre_release else workspace.nested_releases(target),
        exists=workspace.has_release(target),
        templates=_templates(workspace, target),
        assets=_assets(workspace, line, source),
        environ=toolbox.environ,
    )


def _plan(workspace: Workspace, request: ReleaseRequest, *, force: bool, keep_lock: bool) -> ReleasePlan:
    base = request.base
    latest = Catalog(dict.fromkeys(workspace.minor_line(base), ())).latest()
    newer = latest is not None and latest > base and not base.is_pre_release
    try:
        plan = plan_release(request, force=force, keep_lock=keep_lock)
    except VersionExistsError as error:
        hint = f"--base-patch-version {latest} is the newest of its line; {error.hint}" if newer else error.hint
        raise VersionExistsError(error.message, hint=hint, details=error.details) from error
    note = f"{base} is not the newest release of its line: {latest} is"
    return dataclasses.replace(plan, notes=(note, *plan.notes)) if newer and latest != request.version else plan


def _write(workspace: Workspace, plan: ReleasePlan) -> None:
    """Write the new minor line's template, then the release.

    In this order a kill between the two leaves a template that the next run takes as it is, for the same release.
    """
    template = workspace.root / plan.template.directory if plan.template.directory is not None else None
    if template is not None:
        fs.write_tree(plan.template.tree, template)
    try:
        fs.write_tree(plan.tree, workspace.release_path(plan.version), keep=plan.kept)
    except BaseException:
        if template is not None:
            fs.remove(template)
        raise


def _templates(workspace: Workspace, target: Version) -> TemplateSources:
    place = workspace.line_path(target).parent
    minor = place / f"v{target.major}.{target.minor}"
    previous = place / f"v{target.major}.{target.minor - 1}"
    return TemplateSources(
        minor=fs.read_tree(minor),
        previous_minor=fs.read_tree(previous) if target.minor else Tree(),
        major=fs.read_tree(place, skip=lambda path: path in NOT_COPIED or _MINOR_RE.fullmatch(path) is not None),
    )


def _assets(workspace: Workspace, line: Line, source: str) -> Tree:
    files: dict[str, File] = {}
    for text in line.assets:
        path = fs.inside(workspace.root, text, source=f"{source}: assets")
        name = PurePosixPath(text).name
        tree = fs.read_tree(path.parent, skip=functools.partial(operator.ne, name))
        if name not in tree:
            raise ConfigError(f"{source}: the asset {text} is not a file")
        if name in files:
            raise ConfigError(f"{source}: two assets are called {name}")
        files[name] = tree[name]
    return Tree(files)
