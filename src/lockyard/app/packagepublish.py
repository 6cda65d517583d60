"""The use case of publishing a Python package to a package index: from its tag, once, and what is there stays."""

from dataclasses import dataclass

from packaging.version import Version

from lockyard import fs
from lockyard.app.package import refuse_dirty
from lockyard.app.packagebuild import BuildOptions, build_package, write_distributions
from lockyard.errors import ConfigError, VersionExistsError
from lockyard.gitwork import GitWork
from lockyard.ports import Toolbox
from lockyard.pyrelease.backend import twine_upload
from lockyard.pyrelease.dist import DistFile
from lockyard.pyrelease.files import state_dir
from lockyard.pyrelease.index import read_listing, read_pypirc
from lockyard.pyrelease.indexes import Target, check_publishable, files_of, find_target, missing_files
from lockyard.pyrelease.project import Project


@dataclass(frozen=True, slots=True)
class Published:
    """Where a version went: all its files, and those that this run uploaded (would upload, with `dry_run`)."""

    target: Target
    files: tuple[DistFile, ...]
    uploaded: tuple[DistFile, ...]


def publish_package(
    toolbox: Toolbox,
    project: Project,
    options: BuildOptions,
    *,
    index: str | None = None,
    dry_run: bool = False,
    built: tuple[DistFile, ...] = (),
) -> Published:
    """Build the tagged version from its commit, and upload what the index lacks of it: nothing when it has the same bytes.

    `built` are its distributions where they have just been built.

    Raises:
        ConfigError: the work tree has changes, no tag names the version here, or the version does not belong on this index.
        VersionExistsError: the index has it with other bytes.
        BuildError: the distributions are not as they should be.
        RegistryError: the index refuses or cannot be asked.

    """
    target = open_target(toolbox, project, index)
    git = GitWork(project.root, toolbox.environ)
    refuse_dirty(git, "what is published is a commit")
    commit = check_tagged(git, project)
    listed = read_listing(target, project.name, toolbox.environ)
    files = built or build_package(toolbox, project, options, revision=commit).files
    lacking = missing_files(files, listed, project.version, target)
    if lacking and not dry_run:
        _upload(toolbox, project, target, lacking)
    return Published(target, files, lacking)


def refuse_published(published: Published, version: Version) -> None:
    """Refuse a version of which the index lacked nothing.

    Raises:
        VersionExistsError: it did.

    """
    if not published.uploaded:
        raise VersionExistsError(
            f"{version} is on {published.target.name} already, with the same bytes",
            details=[file.name for file in published.files], hint="there is nothing to do",
        )  # fmt: skip


def refuse_existing(toolbox: Toolbox, project: Project, index: str, version: Version) -> None:
    """Refuse a version that an index has, before anything is built for it.

    Raises:
        VersionExistsError: it has.
        RegistryError: it cannot be asked.

    """
    target = find_target(project, index, read_pypirc(toolbox.environ))
    listed = files_of(read_listing(target, project.name, toolbox.environ), version)
    if listed:
        raise VersionExistsError(
            f"{version} is on {target.name} already", details=sorted(listed), hint="--bump gives another version"
        )


def open_target(toolbox: Toolbox, project: Project, index: str | None) -> Target:
    """Return the index that is meant, after checking that the version belongs there.

    Raises:
        ConfigError: there is no such index, or the version does not belong there.

    """
    target = find_target(project, index, read_pypirc(toolbox.environ))
    check_publishable(project.version, target)
    return target


def check_tagged(git: GitWork, project: Project) -> str:
    """Return the current commit, which the version's tag must name.

    Raises:
        ConfigError: it does not.

    """
    tag, head = project.tag(project.version), git.head()
    named = git.tag_commit(tag)
    if named == head:
        return head
    if named is None:
        raise ConfigError(
            f"no tag names {project.version}: there is no {tag}", hint="lockyard package release makes commit and tag"
        )
    raise ConfigError(f"the tag {tag} names {named[:12]}, and this is {head[:12]}", hint=f"git switch --detach {tag}")


def _upload(toolbox: Toolbox, project: Project, target: Target, files: tuple[DistFile, ...]) -> None:
    toolbox.log.step(f"Uploading {', '.join(file.name for file in files)} to {target.upload}")
    with fs.temporary_directory(state_dir(project.root), "upload") as work:
        twine_upload(write_distributions(files, work), target, toolbox.environ)
    listed = read_listing(target, project.name, toolbox.environ)
    late = [file.name for file in files if listed.get(file.name, "") not in {file.sha256, None}]
    if late:
        toolbox.log.warning(f"{target.name} took it, and does not list {', '.join(late)} yet")
