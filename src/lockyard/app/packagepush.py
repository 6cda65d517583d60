"""The use case of publishing a Python package's tested images, through the same plan, journal and effects as any publication."""

import contextlib
import json
import platform as machine_platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from lockyard import fs
from lockyard.app.images import BUILD
from lockyard.app.package import reader
from lockyard.app.packageimages import green_record
from lockyard.app.published import FILE_NAME, Built, Published, merge_record, to_push
from lockyard.app.pushing import plan_images, pushed_images
from lockyard.app.runtimebuild import OUT, out_dir
from lockyard.app.runtimes import read_runtimes
from lockyard.app.targets import Place, open_places, resolve
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import host_platform
from lockyard.distribution import Repository, validate_distribution
from lockyard.errors import BuildError, ConfigError, ImageTestError, RegistryError
from lockyard.oci.layout import read_layout
from lockyard.ports import Toolbox
from lockyard.pyrelease.files import state_dir
from lockyard.pyrelease.imagetags import exact_tag, floating_tags, version_of_tag
from lockyard.pyrelease.imagetests import ImageChecks
from lockyard.pyrelease.project import PYPROJECT, Project
from lockyard.pyrelease.runtimes import Runtime
from lockyard.registry.plan import PushPlan, Target
from lockyard.registry.sending import PushReport
from lockyard.strict import tool_table


@dataclass(frozen=True, kw_only=True)
class PackagePush:
    """Where to publish and how; without `targets` each image goes to the `registry` of its runtime.

    `targets` are aliases of `[tool.lockyard.repositories]`, `HOST/NAME` or `oci:DIR` below the root.
    """

    targets: tuple[str, ...] = ()
    skip_tests: bool = False
    dry_run: bool = False
    move_tag: bool = False
    insecure: bool = False
    region: str | None = None
    image_refs: Path | None = None

    def command(self, names: Sequence[str]) -> str:
        """Return the command line that does the same."""
        parts = ["lockyard", "package", "images", *names]
        parts += [part for target in self.targets for part in ("--target-ecr-repo", target)] or ["--push"]
        options = {"--region": self.region, "--image-refs": self.image_refs}
        parts += [str(part) for name, value in options.items() if value is not None for part in (name, value)]
        flags = {"--skip-tests": self.skip_tests, "--move-tag": self.move_tag, "--insecure": self.insecure}
        return shlex.join([*parts, *(name for name, value in flags.items() if value)])


@dataclass(frozen=True, kw_only=True)
class PackagePushResult:
    """What was published, or on a dry run what would be; `report` is `None` then."""

    version: str
    plans: tuple[PushPlan, ...]
    published: tuple[Published, ...]
    tested: bool
    report: PushReport | None = None
    resumed: int = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """`REPOSITORY@DIGEST TAG`, one a tag."""
        return tuple(f"{item.repository}@{item.digest} {tag}" for item in self.published for tag in item.tags)


@dataclass(frozen=True)
class _Group:
    """Images that go to the same repositories."""

    repositories: tuple[Repository, ...]
    runtimes: tuple[Runtime, ...]

    @property
    def tested(self) -> bool:
        """Whether one of the repositories is more than a stage."""
        return not all(repository.stage for repository in self.repositories)


def workspace_of(project: Project) -> Workspace:
    """Return the project as a place with repositories: those of `[tool.lockyard.repositories]`, by their aliases.

    Raises:
        ConfigError: the table is wrong.

    """
    text = reader(project.root)(PYPROJECT) or ""
    data = {"name": project.normalized_name, **tool_table(text, PYPROJECT, "lockyard")}
    return Workspace(project.root, validate_distribution(data, text, PYPROJECT))


def repositories_of(project: Project, names: tuple[str, ...], request: PackagePush) -> dict[str, list[str]]:
    """Return runtime → the repositories that its image goes to; nothing is asked of them.

    Raises:
        ConfigError: a target is malformed, unknown or missing, or a pre-release's option is given to a final one.

    """
    _check(project, request)
    runtimes = read_runtimes(project).chosen(names)
    groups = _groups(workspace_of(project), runtimes, request, project.normalized_name)
    return {
        runtime.name: [repository.uri for repository in group.repositories]
        for group in groups
        for runtime in group.runtimes
    }


def publish_images(
    toolbox: Toolbox, project: Project, names: tuple[str, ...], request: PackagePush
) -> PackagePushResult:
    """Publish the images of runtimes, of all without `names`, as they were built for the project's version.

    Only images whose record belongs to exactly these bytes are published; with `skip_tests` exact tags alone. Exact tags never
    move, those of pre-releases only with `move_tag`; `latest` is moved by final releases that are the highest there.

    Raises:
        ConfigError: a target is malformed or missing, or a pre-release's option is given to a final one.
        BuildError: an image is not built, or not from a commit.
        ImageTestError: a record is missing, red, or of something else; nothing was published.
        RegistryError: a registry refuses, or an exact tag is taken.

    """
    version = project.version
    _check(project, request)
    workspace = workspace_of(project)
    runtimes = read_runtimes(project).chosen(names)
    groups = _groups(workspace, runtimes, request, project.normalized_name)
    state = state_dir(project.root) / "push"
    done: list[PackagePushResult] = []
    with contextlib.ExitStack() as stack:
        if not request.dry_run:
            stack.enter_context(fs.lock(state / f"{OUT}-{version}.lock"))
        # Everything is checked before the first byte goes out.
        ready = [(group, _read(project, group, request)) for group in groups]
        for number, (group, built) in enumerate(ready):
            journal = state / f"{OUT}-{version}-{number}.jsonl"
            done.append(_publish(toolbox, workspace, project, group, built, request, journal))
    reports = [item.report for item in done if item.report is not None]
    result = PackagePushResult(
        version=str(version), plans=tuple(plan for item in done for plan in item.plans),
        published=tuple(found for item in done for found in item.published), tested=all(item.tested for item in done),
        report=sum(reports, PushReport()) if reports else None, resumed=sum(item.resumed for item in done),
    )  # fmt: skip
    if request.image_refs is not None and not request.dry_run:
        fs.atomic_write(request.image_refs, "".join(f"{line}\n" for line in result.lines).encode())
    return result


def _check(project: Project, request: PackagePush) -> None:
    if request.move_tag and not project.version.is_prerelease:
        raise ConfigError(
            f"{project.version} is final: its exact tags never move", hint="--move-tag is for pre-releases"
        )


def _groups(workspace: Workspace, runtimes: Sequence[Runtime], request: PackagePush, name: str) -> tuple[_Group, ...]:
    if request.targets:
        return (_Group(resolve(workspace, request.targets, region=request.region), tuple(runtimes)),)
    found: dict[str, list[Runtime]] = {}
    for runtime in runtimes:
        if runtime.registry is None:
            raise ConfigError(
                f"{runtime.where('registry')}: {runtime.name} has no registry",
                hint="write registry: HOST/PATH, or give --target-ecr-repo",
            )
        found.setdefault(f"{runtime.registry}/{name}", []).append(runtime)
    return tuple(
        _Group(resolve(workspace, (target,), region=request.region), tuple(mine)) for target, mine in found.items()
    )


def _read(project: Project, group: _Group, request: PackagePush) -> tuple[Built, ...]:
    """Read the images of a group, each with a green record where one is wanted."""
    tested = group.tested and not request.skip_tests
    built = tuple(_built(project, runtime, final=group.tested) for runtime in group.runtimes)
    missing = [item for item, runtime in zip(built, group.runtimes, strict=True) if not _green(project, item, runtime)]
    if tested and missing:
        raise ImageTestError(
            f"{missing[0].image_type} {missing[0].platform} has no green record: {missing[0].record_source}",
            details=[f"{item.image_type} {item.platform}: {item.record_source}" for item in missing[1:]],
            hint="nothing was published; lockyard package images builds and tests them",
        )
    return built


def _built(project: Project, runtime: Runtime, *, final: bool) -> Built:
    version, platform = str(project.version), host_platform(machine_platform.machine())
    path = out_dir(project, version, runtime.name, platform)
    place = path.relative_to(project.root)
    again = f"lockyard package images {runtime.name}"
    if not (path / "index.json").is_file():
        raise BuildError(f"{runtime.name} {version} is not built: {place} has no image", hint=again)
    layout = read_layout(path)
    try:
        build: Any = json.loads(fs.read_file(path / BUILD) or b"{}")
    except ValueError:
        build = {}
    expected = {"version": version, "image_type": runtime.name, "manifest_digest": str(layout.image.digest)}
    if not isinstance(build, dict) or any(build.get(key) != value for key, value in expected.items()):
        raise BuildError(f"{place} does not hold what its {BUILD} says", hint=f"{again} --rebuild")
    if final and build.get("revision") is None:
        raise BuildError(
            f"{runtime.name} {version} is built from the work tree, and only images of a commit are published",
            hint=f"commit, then {again}",
        )
    return Built(
        image_type=runtime.name, platform=platform, image=layout.image, build=build,
        source=lambda descriptor: layout.blob(descriptor.digest), record=fs.read_file(path / TESTS),
        record_source=str(place / TESTS), test=again,
    )  # fmt: skip


def _green(project: Project, built: Built, runtime: Runtime) -> bool:
    version = str(project.version)
    checks = ImageChecks(
        runtime=runtime, package=project.normalized_name, package_version=version, image_version=version
    )
    layout = out_dir(project, version, runtime.name, built.platform)
    return green_record(layout, checks, built.platform, built.image.digest) is not None


def _publish(
    toolbox: Toolbox,
    workspace: Workspace,
    project: Project,
    group: _Group,
    built: tuple[Built, ...],
    request: PackagePush,
    journal: Path,
) -> PackagePushResult:
    version = str(project.version)
    tested = group.tested and not request.skip_tests
    images = [
        to_push(item.image_type, exact_tag(version, runtime.suffix), (item,))
        for item, runtime in zip(built, group.runtimes, strict=True)
    ]

    def aim(place: Place) -> Target:
        return _aim(place, project.version, group.runtimes if tested else ())

    with open_places(toolbox, workspace, group.repositories, insecure=request.insecure) as places:
        planned = plan_images(images, places, aim, move_tags=request.move_tag)
        if request.dry_run:
            return PackagePushResult(version=version, plans=(planned.plan,), published=planned.published, tested=tested)
        if request.skip_tests:
            toolbox.log.warning(f"{version} is published untested: exact tags only")
        elif not tested:
            toolbox.log.info(f"{version} is staged: exact tags only")
        try:
            with pushed_images(toolbox, journal, planned, places, aim) as pushed:
                path = project.root / "out" / OUT / version / FILE_NAME
                green = {
                    str(item.image.digest)
                    for item, runtime in zip(built, group.runtimes, strict=True)
                    if _green(project, item, runtime)
                }
                old = _old_record(path)
                fs.atomic_write(path, merge_record(old, version, built, pushed.published, tested=tested, green=green))
        except RegistryError as error:
            error.details = (*error.details, f"to finish: {request.command([item.name for item in group.runtimes])}")
            raise
    return PackagePushResult(
        version=version, plans=(planned.plan,), published=pushed.published, tested=tested,
        report=pushed.outcome.total, resumed=pushed.resumed,
    )  # fmt: skip


def _aim(place: Place, version: Version, runtimes: Sequence[Runtime]) -> Target:
    """Return where to push and which tags float there now; a staging repository moves none."""
    floating = {}
    if runtimes and not place.repository.stage:
        listed = place.port.tags()
        for runtime in runtimes:
            known = {found for tag in listed if (found := version_of_tag(tag, runtime.suffix)) is not None}
            floating[runtime.name] = floating_tags(version, known, runtime.suffix)
    return Target(
        repository=place.name, registry=place.port.registry, floating=floating, movable=place.repository.stage,
        max_blob=place.port.max_blob,
    )  # fmt: skip


def _old_record(path: Path) -> Mapping[str, Any]:
    """Return the record of earlier runs; one that is damaged begins anew: it may be removed at any time."""
    try:
        value = json.loads(fs.read_file(path) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
