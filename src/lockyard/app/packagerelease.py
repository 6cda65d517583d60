"""The use case of releasing a Python package: plan, run step by step, go on after a failure. The steps: `releasesteps`."""

from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from lockyard import fs
from lockyard.app.package import BumpPlan, open_project, plan_version, reader, refuse_dirty
from lockyard.app.packagepublish import open_target
from lockyard.app.releasesteps import Release, StepOptions, released_changelog, run_step, undo
from lockyard.errors import ConfigError
from lockyard.gitwork import GitWork
from lockyard.ports import Toolbox
from lockyard.pyrelease.bump import Identifier, Part, next_development
from lockyard.pyrelease.files import STATE, state_dir
from lockyard.pyrelease.plan import (
    PUBLISHING,
    Journal,
    Kind,
    ReleasePlan,
    format_journal,
    parse_journal,
    release_version,
)
from lockyard.pyrelease.project import Project

NOWHERE = "none"
_JOURNAL = "release.json"


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """What is asked for: `index` is a package index or `none`; `image_targets` are repositories instead of those of the file."""

    kind: Kind
    part: Part | None = None
    identifier: Identifier | None = None
    publish: bool = False
    index: str | None = None
    image_targets: tuple[str, ...] = ()
    images: bool = True

    @property
    def asked(self) -> str:
        """Which version is asked for, empty where that is not said."""
        return " ".join(word for word in (self.part, self.identifier) if word)


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of a release that has not begun, and the edits of its version."""

    plan: ReleasePlan
    bump: BumpPlan


def plan_release(toolbox: Toolbox, project: Project, request: ReleaseRequest) -> Planned:
    """Plan a release; nothing is changed and nothing is asked over the network.

    Raises:
        ConfigError: the work tree has changes, no branch is checked out, the version, the index or the tag is impossible.

    """
    git = GitWork(project.root, toolbox.environ)
    refuse_dirty(git, "a release is made from a commit")
    start = git.branch()
    if start is None:
        raise ConfigError("no branch is checked out", hint="git switch BRANCH")
    if git.is_shallow():
        raise ConfigError(
            "this is a shallow clone: which versions have tags cannot be known",
            hint="git fetch --unshallow --tags; in a workflow fetch-depth: 0",
        )
    new = release_version(
        project.version, request.kind, part=request.part, identifier=request.identifier,
        is_tagged=git.tag_commit(project.tag(project.version)) is not None,
    )  # fmt: skip
    table, read = project.table, reader(project.root)
    final = request.kind == "final"
    index = request.index or table.index
    if index != NOWHERE:
        open_target(toolbox, replace(project, version=new), index)
    has_runtimes = read(table.runtimes) is not None
    bump = plan_version(project, new, read)
    plan = ReleasePlan(
        kind=request.kind, name=project.name, old=str(project.version), new=str(new), tag=project.tag(new), start=start,
        base=git.head(), moment=int(toolbox.clock.now().timestamp()), asked=request.asked,
        branch=project.branch(new) if final else None,
        next=_next_version(project, new, start) if final else None,
        changelog=table.changelog if read(table.changelog) is not None else None,
        runtimes=has_runtimes, images=has_runtimes and request.images, publish=request.publish, index=None if index == NOWHERE else index,
        remote=table.remote if git.has_remote(table.remote) else None, image_targets=request.image_targets,
    )  # fmt: skip
    _check_free(git, plan)
    if plan.changelog is not None:  # hours before it is written
        released_changelog(plan, read)
    return Planned(plan, bump)


def _next_version(project: Project, new: Version, start: str) -> str | None:
    """Return what the branch goes on with; a branch of an earlier final release stays as it is."""
    before, _, after = project.table.branch.partition("{version}")
    from_release = start.startswith(before) and start.endswith(after) and start[len(before) :][:1].isdigit()
    part = project.table.next
    return None if part == "none" or from_release else str(next_development(new, part))


def _check_free(git: GitWork, plan: ReleasePlan) -> None:
    if git.tag_commit(plan.tag) is not None:
        raise ConfigError(f"the tag {plan.tag} is there already", hint="--bump gives another version")
    if plan.branch is not None and plan.branch != plan.start and git.branch_commit(plan.branch) is not None:
        raise ConfigError(
            f"the branch {plan.branch} is there already", hint="git branch --delete it, if it is a left-over"
        )


def journal_path(root: Path) -> Path:
    """Return where the journal of the current release is."""
    return root / STATE / _JOURNAL


def read_journal(root: Path) -> Journal | None:
    """Return the journal of the last release that was begun here, `None` without one.

    Raises:
        ConfigError: it is damaged.

    """
    data = fs.read_file(journal_path(root))
    return None if data is None else parse_journal(data, source=str(journal_path(root).relative_to(root)))


def open_release(root: Path, request: ReleaseRequest, *, resume: bool) -> Journal | None:
    """Return the release to go on with, `None` when a new one begins.

    One that was interrupted goes on when the same is asked for again; `resume` also goes on with a finished one that is
    now to be published.

    Raises:
        ConfigError: there is nothing to go on with, or another release was interrupted.

    """
    journal = read_journal(root)
    # Where not even the checks were passed nothing has happened.
    if journal is None or not journal.done or (not journal.left and not resume):
        if resume:
            raise ConfigError("there is no release to go on with", hint="without --resume one begins")
        return None
    plan = journal.plan
    if plan.kind != request.kind or request.asked not in {"", plan.asked}:
        what = f"the {'final release' if plan.kind == 'final' else 'pre-release'} of {plan.new}"
        raise ConfigError(
            f"{what} was interrupted before {journal.left[0]}" if journal.left else f"the last release here is {what}",
            hint=f"lockyard package release {plan.kind} --resume goes on, lockyard package release {plan.kind} --abandon begins again",
        )  # fmt: skip
    index = request.index or plan.index
    changed = replace(
        plan, publish=plan.publish or request.publish, index=None if index == NOWHERE else index,
        image_targets=request.image_targets or plan.image_targets,
    )  # fmt: skip
    return replace(journal, plan=changed)


def run_release(toolbox: Toolbox, root: Path, journal: Journal, options: StepOptions) -> Journal:
    """Run the steps that are left, each noted in the journal when it is done; return the journal.

    Raises:
        LockyardError: a step failed; the same call goes on with it.

    """
    git = GitWork(root, toolbox.environ)
    if journal.plan.publish:
        _check_targets(toolbox, root, journal.plan)
    with fs.lock(state_dir(root) / "release.lock"):
        save_journal(root, journal)
        for number, step in enumerate(journal.plan.steps(), start=1):
            if step in journal.done:
                continue
            toolbox.log.step(f"{number}/{len(journal.plan.steps())} {step}: {journal.plan.describe(step)}")
            done = run_step(Release(toolbox, root, git, journal, options), step)
            journal = journal.record(step, done)
            save_journal(root, journal)
            for line in done.said.splitlines():
                toolbox.log.info(line)
    return journal


def _check_targets(toolbox: Toolbox, root: Path, plan: ReleasePlan) -> None:
    """Refuse targets that cannot be: much is done before they are used."""
    project = open_project(root)
    if plan.index is not None:
        open_target(toolbox, replace(project, version=Version(plan.new)), plan.index)
    if plan.images:
        from lockyard.app.packagepush import PackagePush, repositories_of

        repositories_of(project, (), PackagePush(targets=plan.image_targets))


def save_journal(root: Path, journal: Journal) -> None:
    """Write the journal."""
    state_dir(root)
    fs.atomic_write(journal_path(root), format_journal(journal))


def abandon_release(toolbox: Toolbox, root: Path) -> tuple[str, ...]:
    """Forget the release that was begun; where nothing is committed its files get their old content, and are returned.

    One that is committed and tagged, and of which only the rest is left (images, publication), is as it is.

    Raises:
        ConfigError: there is none.
        LockyardError: it is committed; the commands that take it back are named.

    """
    journal = read_journal(root)
    if journal is None:
        raise ConfigError("there is no release to abandon")
    git = GitWork(root, toolbox.environ)
    with fs.lock(state_dir(root) / "release.lock"):
        whole = set(journal.left) <= {"distributions", "images", *PUBLISHING}
        files = () if whole else undo(Release(toolbox, root, git, journal, StepOptions()))
        journal_path(root).unlink()
    return files
