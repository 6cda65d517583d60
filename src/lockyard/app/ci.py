"""Use cases of `ci`: generate workflows and build specifications, and answer what their jobs ask."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockyard import __version__, fs
from lockyard.app.published import read_record
from lockyard.app.workspace import Workspace, decode
from lockyard.ci.generate import DIRECTORIES, TARGETS, FileChange, Target, is_ours, plan_files, render_target
from lockyard.ci.settings import Settings, check_runners, settings_of
from lockyard.distribution import Runner
from lockyard.errors import ConfigError, DriftError
from lockyard.gitobjects import GitObjects
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.tags import exact_tag
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

ASSETS = Path(__file__).parents[1] / "ci" / "assets"


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """What was done, or on a dry run would be: by target, and the settings that the files were made from."""

    settings: Settings
    changes: tuple[FileChange, ...]
    written: bool
    repository: Path | None = None
    """The top of the git repository, when the distribution is not there: GitHub reads workflows at the top only."""


@dataclass(frozen=True, slots=True)
class TestJob:
    """One image to test: where it is, and the machine that tests it; `gpu` says whether it takes the tests that need one."""

    image_type: str
    platform: str
    image: str
    runner: Runner
    gpu: bool

    def to_json(self) -> dict[str, Any]:
        """Return an entry of a matrix."""
        runner = self.runner if isinstance(self.runner, str) else list(self.runner)
        values = {"type": self.image_type, "platform": self.platform, "image": self.image, "runner": runner}
        return {**values, "gpu": self.gpu}


def generate(
    workspace: Workspace, targets: Sequence[Target], *, force: bool = False, dry_run: bool = False
) -> GenerateResult:
    """Write the files of the targets; one that is right already is not touched.

    Raises:
        ConfigError: the configuration lacks something, or a file of the name was written by hand.

    """
    settings = _settings(workspace)
    wanted = Tree()
    changes: list[FileChange] = []
    for target in targets:
        tree = render_target(target, settings, fs.read_tree(ASSETS))
        wanted = wanted.merge(tree)
        changes += plan_files(target, tree, _there(workspace, target), force=force)
    if dry_run:
        return GenerateResult(settings, tuple(changes), written=False, repository=_repository_above(workspace))
    with workspace.lock():
        for change in changes:
            path = workspace.root / change.path
            if change.action == "write":
                fs.atomic_write(path, wanted[change.path].data)
            elif change.action == "remove":
                fs.remove(path)
    return GenerateResult(settings, tuple(changes), written=True, repository=_repository_above(workspace))


def check_generated(workspace: Workspace, targets: Sequence[Target] = ()) -> tuple[str, ...]:
    """Check that the files are what `generate` would write, those of all targets that have some when none is named.

    Return their paths.

    Raises:
        ConfigError: nothing was generated yet, or the configuration lacks something.
        DriftError: a file differs, is missing or is left over; the details show how.

    """
    there = {target: _there(workspace, target) for target in targets or TARGETS}
    mine = {
        target: Tree({path: file for path, file in files.items() if is_ours(target, path, file)})
        for target, files in there.items()
    }
    if not targets:
        mine = {target: files for target, files in mine.items() if files}
        if not mine:
            raise ConfigError("no workflow was generated yet", hint="lockyard ci generate github")
    settings, assets = _settings(workspace), fs.read_tree(ASSETS)
    details: list[str] = []
    checked: list[str] = []
    for target in mine:
        wanted = render_target(target, settings, assets)
        checked += wanted
        details += _differences(wanted, there[target], mine[target])
    if details:
        commands = " ".join(mine)
        raise DriftError(
            "generated files are not what the configuration says",
            hint=f"lockyard ci generate {commands}",
            details=details,
        )
    return tuple(checked)


def test_jobs(workspace: Workspace, version: Version, refs: str, *, source: str) -> tuple[TestJob, ...]:
    """Return the images of a release to test; `refs` is what `push --image-refs` wrote (`source` is its name).

    Raises:
        ConfigError: it names no image of the release, or a runner is for something that does not exist.

    """
    config = workspace.distribution.ci
    _check_runners(workspace)
    images = dict(_parse_ref(line, f"{source}:{number}") for number, line in enumerate(refs.splitlines(), start=1))
    jobs = []
    for image_type, variant in workspace.variants(version).items():
        tag = exact_tag(version, template=variant.tag, image_type=image_type)
        if tag in images:
            jobs += [
                TestJob(
                    image_type,
                    platform,
                    images[tag],
                    config.runner_for(image_type, platform),
                    gpu="--use-gpu" in variant.pytest_flags,
                )
                for platform in variant.platforms
            ]
    if not jobs:
        raise ConfigError(f"{source} names no image of {version}", hint=f"lockyard push {version} --image-refs FILE")
    return tuple(jobs)


test_jobs.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def pending_releases(workspace: Workspace) -> tuple[Version, ...]:
    """Return the releases that are staged and published nowhere: all images tested, all repositories staging ones.

    Raises:
        ConfigError: a record is malformed or newer than we know.

    """
    distribution = workspace.distribution
    configured = [distribution.repository(name) for name in distribution.repositories]
    stages = {item.uri for item in configured if item.stage}
    return tuple(version for version in workspace.versions() if _is_pending(workspace, version, stages))


def changed_releases(toolbox: Toolbox, workspace: Workspace, revision: str) -> tuple[Version, ...]:
    """Return the releases with a file that differs from where this branch left `revision`, sorted.

    Raises:
        ConfigError: there is no such revision, or git cannot be asked.

    """
    git = GitObjects(workspace.root, toolbox.environ)
    paths = [Path(path) for path in git.changed(revision, "build_artifacts")]
    return tuple(version for version in workspace.versions() if any(_is_of(version, path) for path in paths))


def _is_of(version: Version, path: Path) -> bool:
    """Tell whether a file is of this release, and not of a pre-release in its directory."""
    directory = release_dir(version)
    if not path.is_relative_to(directory) or path == Path(directory):
        return False
    return not path.relative_to(directory).parts[0].startswith(f"v{version}-")


def _is_pending(workspace: Workspace, version: Version, stages: set[str]) -> bool:
    images = read_record(workspace, version).get("images", {})
    if not images or set(images) != set(workspace.variants(version)):
        return False
    places = {place for image in images.values() for place in image.get("repositories") or ()}
    tested = all(part.get("tested") for image in images.values() for part in (image.get("platforms") or {}).values())
    return tested and bool(places) and places <= stages


def _repository_above(workspace: Workspace) -> Path | None:
    if (workspace.root / ".git").exists():
        return None
    return next((path for path in workspace.root.parents if (path / ".git").exists()), None)


def _settings(workspace: Workspace) -> Settings:
    _check_runners(workspace)
    return settings_of(workspace.distribution, config=workspace.config_name, version=__version__)


def _check_runners(workspace: Workspace) -> None:
    runners = workspace.distribution.ci.runners
    if not runners:
        return
    lines: dict[str, set[str]] = {}
    for line in workspace.lines():
        for name, variant in line.variants.items():
            lines.setdefault(name, set()).update(variant.platforms)
    check_runners(runners, lines, config=workspace.config_name)


def _there(workspace: Workspace, target: Target) -> Tree:
    directory = DIRECTORIES[target]
    files = fs.read_tree(workspace.root / directory)
    return Tree({f"{directory}/{path}": file for path, file in files.items() if "/" not in path})


def _parse_ref(line: str, source: str) -> tuple[str, str]:
    """Return tag and `REPOSITORY@DIGEST` of one line."""
    image, space, tag = line.partition(" ")
    repository, at, digest = image.rpartition("@")
    if not (repository and at and space and tag):
        raise ConfigError(f"{source}: {line[:80]!r} is not REPOSITORY@DIGEST TAG")
    Digest(digest)
    return tag, image


def _differences(wanted: Tree, there: Tree, mine: Tree) -> Iterator[str]:
    for path, file in wanted.items():
        old = there.get(path)
        if old is None:
            yield f"{path} is missing"
        elif old.data != file.data:
            yield f"{path} differs"
            before, after = decode(old.data, path).splitlines(), decode(file.data, path).splitlines()
            yield from list(difflib.unified_diff(before, after, "there", "wanted", n=0, lineterm=""))[2:]
    for path in mine:
        if path not in wanted:
            yield f"{path} is not generated any more"
