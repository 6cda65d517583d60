"""Use case: begin a new distribution in an empty directory."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lockyard import __version__, fs
from lockyard.app.ci import ASSETS as WORKFLOWS
from lockyard.app.runtimes import read_runtimes, templates
from lockyard.app.workspace import find_root
from lockyard.ci.generate import render_target
from lockyard.ci.settings import settings_of
from lockyard.distribution import parse_distribution
from lockyard.errors import ConfigError, VersionExistsError
from lockyard.pyrelease.dockerfiles import render_dockerfile
from lockyard.pyrelease.project import PYPROJECT, parse_project
from lockyard.starter.conda import CONFIG, CondaStart, start_files
from lockyard.starter.package import package_files
from lockyard.tree import File, Tree

ASSETS = Path(__file__).parents[1] / "starter" / "assets"
_ALLOWED = frozenset({".git"})
"""What an empty directory may hold: a repository that was made or cloned for the purpose."""


@dataclass(frozen=True, kw_only=True)
class InitRequest:
    """What the user says; `name` is the directory's name when it is `None`.

    `channel` and `base` are what `variants.toml` takes, or a directory and a file of this machine. A package has none of
    the last four.
    """

    directory: Path
    name: str | None = None
    kind: Literal["conda", "package"] = "conda"
    types: Sequence[str] = ("cpu", "gpu")
    channel: str = "conda-forge"
    base: str | None = None
    virtual: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InitResult:
    """The new distribution: where it is, its files, links of this machine (path → what it leads to)."""

    directory: Path
    name: str
    files: Tree
    links: Mapping[str, str]
    written: bool


def init_distribution(request: InitRequest, *, dry_run: bool = False) -> InitResult:
    """Write a small complete distribution.

    Raises:
        VersionExistsError: the directory is not empty.
        ConfigError: a name, an image type, a channel or a base is none, or the place is inside of a distribution.

    """
    directory = request.directory.resolve()
    check_empty(directory)
    name = request.name or re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-") or "images"
    title = name.replace("-", " ").replace("_", " ").capitalize()
    links: dict[str, str] = {}
    files = _conda(request, name, title, links) if request.kind == "conda" else _package(directory, name, title)
    if not dry_run:
        write_new(directory, Tree({**files, **{path: File.link(target) for path, target in links.items()}}))
    return InitResult(directory, name, files, links, written=not dry_run)


def _conda(request: InitRequest, name: str, title: str, links: dict[str, str]) -> Tree:
    """Return the files of a distribution of conda packages; what is on this machine becomes a link."""
    channel, base = request.channel, request.base
    place = Path(channel.removeprefix("file:")).expanduser()
    if place.is_dir() and ("/" in channel or channel.startswith("file:")):
        links["channel"], channel = str(place.resolve()), "file:channel"
    if base is not None and (file := Path(base.removeprefix("rootfs:")).expanduser()).is_file():
        links[f"base/{file.name}"], base = str(file.resolve()), f"rootfs:base/{file.name}"
    start = CondaStart(
        name=name, title=title, types=request.types, channel=channel, base=base, virtual=request.virtual, links=links
    )
    files = start_files(start, fs.read_tree(ASSETS / "conda"))
    distribution = parse_distribution(files[CONFIG].data.decode(), source=CONFIG)
    settings = settings_of(distribution, config=CONFIG, version=__version__)
    return files.merge(render_target("github", settings, fs.read_tree(WORKFLOWS)))


def _package(directory: Path, name: str, title: str) -> Tree:
    """Return the files of a Python package with its images."""
    files = package_files(name, title, fs.read_tree(ASSETS / "package"))

    def read(path: str) -> str | None:
        return files[path].data.decode() if path in files else None

    project = parse_project(read(PYPROJECT) or "", root=directory, read=read)
    library = templates()
    made = {
        runtime.dockerfile: File.text(render_dockerfile(runtime, project.normalized_name, library))
        for runtime in read_runtimes(project, read).chosen()
    }
    return files.merge(made)


def check_empty(directory: Path) -> None:
    """Refuse a place where something is, or that a distribution has around it.

    Raises:
        VersionExistsError: it is there and not empty.
        ConfigError: it is no directory, or below a distribution.

    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is not a directory")
    there = [name for name in fs.names(directory) if name not in _ALLOWED]
    if there:
        shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise VersionExistsError(
            f"{directory} is not empty: {shown}",
            hint="give a new directory; a tree of releases that exists is adopted: lockyard adopt",
        )
    parent = next((path for path in directory.parents if path.is_dir()), None)
    if parent is not None and (outer := _around(parent)) is not None:
        raise ConfigError(f"{directory} is inside of the distribution {outer}", hint="give a directory outside of it")


def write_new(directory: Path, tree: Tree) -> None:
    """Write a tree into a directory that is empty or not there yet; after a failure nothing of it is left.

    A new directory is made as one step. One that is there is filled, because somebody may stand in it. Raises `OSError`.
    """
    if not directory.exists():
        fs.write_tree(tree, directory)
        return
    before = set(fs.names(directory))
    with fs.temporary_directory(directory, "init") as stage:
        fs.write_tree(tree, stage / "tree")
        try:
            for name in fs.names(stage / "tree"):
                (stage / "tree" / name).rename(directory / name)
        except BaseException:
            for name in {path.split("/", 1)[0] for path in tree} - before:
                if (directory / name).exists():
                    fs.remove(directory / name)
            raise


def _around(directory: Path) -> Path | None:
    try:
        return find_root(directory)
    except ConfigError:
        return None
