"""The steps of a package's release. Each may be run again: what it finds done it leaves, and the end is the same.

Texts come from the commit that the release began from, never from what an interrupted step left behind.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from lockyard import fs, process
from lockyard.app.package import check_copies, open_project, plan_version, project_lock, refuse_dirty
from lockyard.app.packagebuild import DIST, BuildOptions, build_package
from lockyard.app.packagelock import LockOptions, plan_locks, write_locks
from lockyard.app.packagepublish import publish_package, refuse_existing
from lockyard.app.workspace import decode
from lockyard.errors import BuildError, ConfigError, LockyardError
from lockyard.gitwork import GitWork
from lockyard.ports import Toolbox
from lockyard.pyrelease import changelog
from lockyard.pyrelease.dist import DistFile
from lockyard.pyrelease.files import write_files
from lockyard.pyrelease.plan import Done, Journal, ReleasePlan
from lockyard.pyrelease.project import PYPROJECT, Project, Read, parse_project


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How the steps work: where dependencies come from, how distributions are built."""

    build: BuildOptions = field(default_factory=BuildOptions)
    lock: LockOptions = field(default_factory=LockOptions)


@dataclass(frozen=True)
class Release:
    """A release under way."""

    toolbox: Toolbox
    root: Path
    git: GitWork
    journal: Journal
    options: StepOptions

    @property
    def plan(self) -> ReleasePlan:
        """What it does."""
        return self.journal.plan

    @property
    def project(self) -> Project:
        """The project as the work tree has it now."""
        return open_project(self.root)

    @property
    def moment(self) -> dt.datetime:
        """The time of the release, UTC."""
        return dt.datetime.fromtimestamp(self.plan.moment, dt.UTC)

    @property
    def commit(self) -> str:
        """The release commit."""
        return self.journal.done["commit"].commit

    def reader(self, revision: str) -> Read:
        """Return what reads the project's texts in a commit."""

        def read(path: str) -> str | None:
            data = self.git.read(revision, path)
            return None if data is None else decode(data, path)

        return read


def run_step(release: Release, step: str) -> Done:
    """Run one step.

    Raises:
        LockyardError: it failed; running it again goes on.

    """
    return _STEPS[step](release)


def _checks(release: Release) -> Done:
    git, plan = release.git, release.plan
    refuse_dirty(git, "a release is made from a commit")
    if git.branch() != plan.start or git.head() != plan.base:
        raise ConfigError(f"this is no longer {plan.start} at {plan.base[:12]}", hint="run it again")
    if git.tag_commit(plan.tag) is not None:
        raise ConfigError(f"the tag {plan.tag} is there already")
    if plan.branch is not None and git.branch_commit(plan.branch) is not None:
        raise ConfigError(f"the branch {plan.branch} is there already")
    upstream = git.upstream()
    if upstream is not None and not git.contains("HEAD", upstream):
        raise ConfigError(f"{plan.start} lacks commits of {upstream}", hint="git pull")
    copies = check_copies(release.project)
    if plan.publish and plan.index is not None:
        refuse_existing(release.toolbox, release.project, plan.index, Version(plan.new))
    for argv in release.project.table.checks:
        _run_check(release, argv)
    refuse_dirty(git, "a check of [tool.lockyard.package] left them")
    own = len(release.project.table.checks)
    return Done(
        f"{len(copies)} copies of the version agree{f'; the checks of the project passed ({own})' if own else ''}"
    )


def _run_check(release: Release, argv: tuple[str, ...]) -> None:
    release.toolbox.log.info(f"$ {' '.join(argv)}")
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        release.toolbox.log.detail(line)

    env = {"PATH": process.PATH, **release.toolbox.environ}
    code = process.follow(argv, say, env=env, cwd=release.root)
    if code != 0:
        raise BuildError(f"the check `{' '.join(argv)}` failed with {code}", details=lines[-25:])


def _bump(release: Release) -> Done:
    read = release.reader(release.plan.base)
    project = parse_project(read(PYPROJECT) or "", root=release.root, read=read)
    plan = plan_version(project, Version(release.plan.new), read)
    _write(release, plan.edits.files)
    return Done(f"{len(plan.edits.lines)} lines in {len(plan.edits.files)} files", tuple(plan.edits.files))


def _write(release: Release, files: Mapping[str, str]) -> None:
    with project_lock(release.root):
        write_files(release.root, {path: text.encode() for path, text in files.items()})


def _lock(release: Release) -> Done:
    project = release.project
    locks = plan_locks(release.toolbox, project, release.options.lock)
    changed = write_locks(project, locks)
    files = tuple(path for lock in locks for path in lock.files())
    return Done(f"{len(locks)} sets, {len(changed)} files changed" if changed else f"{len(locks)} sets, current", files)


def _build(release: Release) -> Done:
    done = build_package(
        release.toolbox, release.project, release.options.build, epoch=release.plan.moment, expect_changes=True
    )
    return Done(f"{', '.join(file.name for file in done.files)} can be built")


def _dockerfiles(release: Release) -> Done:
    from lockyard.app.runtimes import generate

    files = generate(release.project)
    return Done(f"{len(files)} Dockerfiles", tuple(item.path for item in files))


def _changelog(release: Release) -> Done:
    path = release.plan.changelog or ""
    made = released_changelog(release.plan, release.reader(release.plan.base))
    _write(release, {path: made.text})
    return Done(f"{len(made.section.splitlines())} lines", (path,))


def released_changelog(plan: ReleasePlan, read: Read) -> changelog.Released:
    """Return the changelog with the section of the release.

    Raises:
        ConfigError: it has no unreleased section, or says nothing of a final release.

    """
    path = plan.changelog or ""
    day = dt.datetime.fromtimestamp(plan.moment, dt.UTC).date()
    return changelog.release(read(path) or "", Version(plan.new), day, plan.tag, source=path)


def _branch(release: Release) -> Done:
    name = release.plan.branch or ""
    if release.git.branch() != name:
        release.git.create_branch(name)
    return Done(f"on {name}")


def _commit(release: Release) -> Done:
    git, plan = release.git, release.plan
    head = git.head()
    if head == plan.base:
        changed = git.changed()
        strays = sorted(set(changed) - set(release.journal.files))
        if strays:
            raise ConfigError("files changed that no step of the release wrote", details=strays, hint="git status")
        if changed:
            head = git.commit(sorted(changed), plan.subject, release.moment)
    elif git.parent(head) != plan.base or git.subject(head) != plan.subject:
        raise ConfigError(f"{head[:12]} is not what this release committed", hint="git log; --abandon begins again")
    refuse_dirty(git, "a hook of the repository left them")
    return Done(f"{head[:12]} on {plan.home}", commit=head)


def _tag(release: Release) -> Done:
    git, plan = release.git, release.plan
    named = git.tag_commit(plan.tag)
    if named is None:
        section = released_changelog(plan, release.reader(plan.base)).section if plan.changelog else ""
        git.tag(plan.tag, f"{plan.name} {plan.new}\n\n{section}".rstrip() + "\n", release.commit, release.moment)
    elif named != release.commit:
        raise ConfigError(f"the tag {plan.tag} names {named[:12]}, which is not this release")
    return Done(f"{plan.tag} names {release.commit[:12]}")


def _next(release: Release) -> Done:
    """Commit the next development version on the branch that the release began on, and come back."""
    git, plan = release.git, release.plan
    there = git.branch_commit(plan.start)
    made = there is not None and git.parent(there) == release.commit and git.subject(there) == plan.next_subject
    if not made:
        if git.branch() != plan.start:
            git.switch(plan.start)
        git.fast_forward(release.commit)
        read = release.reader(release.commit)
        project = parse_project(read(PYPROJECT) or "", root=release.root, read=read)
        edits = plan_version(project, Version(plan.next or ""), read).edits
        _write(release, edits.files)
        files = {*edits.files, *(_dockerfiles(release).files if plan.runtimes else ())}
        there = git.commit(sorted(files & set(git.changed())), plan.next_subject, release.moment)
    if git.branch() != plan.home:
        git.switch(plan.home)
    return Done(f"{plan.start} is at {plan.next}", commit=there or "")


def _distributions(release: Release) -> Done:
    _at_tag(release)
    done = build_package(
        release.toolbox, release.project, release.options.build, revision=release.commit, out=release.root / DIST
    )
    return Done("\n".join(f"{file.name} {file.sha256}" for file in done.files))


def _at_tag(release: Release) -> None:
    """Refuse to go on anywhere but at the release commit."""
    plan = release.plan
    refuse_dirty(release.git, "what is released is a commit")
    if release.git.head() != release.commit:
        raise ConfigError(f"{plan.tag} is not checked out", hint=f"git switch {plan.home}, then go on with --resume")


def _images(release: Release) -> Done:
    from lockyard.app.bundles import BundleOptions
    from lockyard.app.packageimages import build_images, release_options

    _at_tag(release)
    bundles = release_options(release.project, BundleOptions(build=release.options.build))
    images = build_images(release.toolbox, release.project, bundles=bundles)
    return Done("\n".join(f"{image.tag} {image.digest}" for image in images))


def _publish_git(release: Release) -> Done:
    plan = release.plan
    *branches, tag = plan.pushed()
    refs = [f"refs/heads/{name}:refs/heads/{name}" for name in branches] + [f"refs/tags/{tag}:refs/tags/{tag}"]
    release.git.push(plan.remote or "", refs)
    return Done(f"{', '.join(plan.pushed())} pushed to {plan.remote}")


def _publish_index(release: Release) -> Done:
    _at_tag(release)
    done = publish_package(
        release.toolbox, release.project, release.options.build, index=release.plan.index, built=_kept(release)
    )
    names = ", ".join(file.name for file in done.uploaded)
    return Done(f"{names} uploaded to {done.target.name}" if names else f"{done.target.name} has it")


def _kept(release: Release) -> tuple[DistFile, ...]:
    """Return the distributions in dist/ when they are, byte for byte, those that this release built and tried."""
    said = dict(line.split() for line in release.journal.done["distributions"].said.splitlines())
    held = {name: fs.read_file(release.root / DIST / name) for name in said}
    files = [DistFile(name, data) for name, data in held.items() if data is not None]
    return tuple(files) if all(said[file.name] == file.sha256 for file in files) and len(files) == len(said) else ()


def _publish_images(release: Release) -> Done:
    from lockyard.app.packagepush import PackagePush, publish_images

    _at_tag(release)
    request = PackagePush(targets=release.plan.image_targets)
    return Done("\n".join(publish_images(release.toolbox, release.project, (), request).lines))


_STEPS: Mapping[str, Callable[[Release], Done]] = {
    "checks": _checks,
    "bump": _bump,
    "lock": _lock,
    "build": _build,
    "dockerfiles": _dockerfiles,
    "changelog": _changelog,
    "branch": _branch,
    "commit": _commit,
    "tag": _tag,
    "next": _next,
    "distributions": _distributions,
    "images": _images,
    "publish-git": _publish_git,
    "publish-index": _publish_index,
    "publish-images": _publish_images,
}


def undo(release: Release) -> tuple[str, ...]:
    """Give the files that the steps wrote their old content, as long as nothing is committed; return them.

    Raises:
        LockyardError: there is a commit; the commands that take it back are the details.

    """
    git, plan = release.git, release.plan
    if git.head() != plan.base:
        lines = [f"git switch {plan.start}", f"git reset --keep {plan.base[:12]}"]
        lines += [f"git branch --delete --force {plan.branch}"] if plan.branch else []
        lines += [f"git tag --delete {plan.tag}"] if git.tag_commit(plan.tag) else []
        raise LockyardError(
            f"{plan.subject} is committed; Lockyard takes no commit back", details=lines,
            hint="run what is wanted of these, then lockyard package release --abandon again",
        )  # fmt: skip
    # The tree was clean when the release began: what these files hold now is its own work.
    old = {path: git.read(plan.base, path) for path in release.journal.files}
    with project_lock(release.root):
        write_files(release.root, {path: data for path, data in old.items() if data is not None})
        for path in (path for path, data in old.items() if data is None):
            (release.root / path).unlink(missing_ok=True)
    if git.branch() == plan.branch and plan.branch is not None:
        git.switch(plan.start)
    return tuple(old)
