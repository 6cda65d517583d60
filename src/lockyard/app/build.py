"""Use cases around images: build a release."""

import contextlib
import datetime as dt
import json
import os
import platform as machine_platform
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lockyard import fs
from lockyard.app.bases import open_base
from lockyard.app.engines import DEFAULT as DEFAULT_ENGINES
from lockyard.app.engines import (
    Choice,
    EngineOptions,
    build_log,
    choose,
    first_failure,
    locked_by_image,
    open_engine,
    resolved_bases,
    say_choice,
    told_when_full,
    variant_args,
)
from lockyard.app.images import BUILD, BuildResult, ImageResult, chosen_platforms, tag_of
from lockyard.app.layers import built_plan
from lockyard.app.loading import load_images
from lockyard.app.lock import current_locks, lock_release, lock_status, release_locks
from lockyard.app.supplied import supply
from lockyard.app.testing import require_green, run_image_tests
from lockyard.app.texts import write_texts_after
from lockyard.app.workspace import Workspace, decode
from lockyard.checks.plan import host_platform
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.distribution import Line
from lockyard.engines.containers import ContainerEngine
from lockyard.engines.native import NativeEngine
from lockyard.engines.prepare import Preparer
from lockyard.engines.request import Base, BuildRequest, BuiltImage, Finished
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.cache import BlobCache
from lockyard.oci.image import canonical_json, empty_image, oci_platform
from lockyard.oci.layering import LayerPlan
from lockyard.oci.layout import write_layout
from lockyard.oci.tar import EPOCH
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.ports.containers import Builder
from lockyard.ports.solving import FetchedPackage
from lockyard.reports.textfiles import is_text
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir

SCHEMA = 1


@dataclass(frozen=True)
class _Release:
    """What all images of a release share."""

    toolbox: Toolbox
    workspace: Workspace
    version: Version
    line: Line
    tree: Tree
    plan: LayerPlan
    workers: int
    files: Mapping[str, Path]
    """`dist` → package file, for those of `--package-dir`."""
    build_args: Mapping[str, str]
    engines: EngineOptions
    finished: Finished
    """Hears of every layer as soon as it is there."""


def build_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    image_types: tuple[str, ...] = (),
    platforms: tuple[str, ...] = (),
    skip_tests: bool = False,
    force: bool = False,
    build_args: Mapping[str, str] | None = None,
    workers: int | None = None,
    load: bool = True,
    package_dir: Path | None = None,
    engines: EngineOptions = DEFAULT_ENGINES,
    finished: Finished = lambda *_: None,
) -> BuildResult:
    """Build the images of a release, all of them, then test all of them.

    Without a lock it is made, unless a Dockerfile installs the environment itself: then the lock is read out of the image.
    `force` makes it again. `workers` changes no byte. `load` puts this machine's images into a reachable Docker daemon; one
    that refuses them is a warning. `package_dir` holds the files of packages that the lock gives no hash or no reachable address.
    `finished` hears of the layers of all images, those of the bases too, as soon as they are there, perhaps more than once.

    Raises:
        StaleLockError: the lock does not belong to the inputs beside it.
        BuildError: an image cannot be built.
        ImageTestError: image tests failed; what was built stays.

    """
    tree = workspace.existing_release(version)
    choices = {name: choose(tree, version, name, engines) for name in workspace.variants(version, image_types)}
    statuses = lock_status(toolbox, workspace, version, image_types=image_types)
    without = {item.image_type for item in statuses if item.state == "missing"}
    missing = tuple(name for name in choices if name in without and choices[name].needs_lock)
    if force or missing:
        lock_release(toolbox, workspace, version, image_types=image_types if force else missing)
        without = set()
    from_lock = tuple(name for name in choices if name not in without or name in missing)
    locks = current_locks(toolbox, workspace, version, image_types=from_lock) if from_lock else {}
    jobs = _jobs(workspace, version, choices, locks, platforms)
    with workspace.lock(), told_when_full(toolbox, workspace):
        tree = workspace.release_tree(version)
        wanted = {name: [platform for other, platform in jobs if other == name] for name, _ in jobs}
        locks, files = supply(locks, tree, version, platforms=wanted, package_dir=package_dir)
        release = _Release(
            toolbox, workspace, version, workspace.line(version), tree,
            # Of all types, whichever are built: the plan is shared.
            built_plan(workspace, version, tree, {**release_locks(workspace, version), **locks}),
            workers or os.cpu_count() or 1, files, build_args or {}, engines, finished,
        )  # fmt: skip
        images = _build_all(release, [_Job(name, platform, locks.get(name), choices[name]) for name, platform in jobs])
    if load:
        images = load_images(toolbox, workspace, version, images)
    if not skip_tests:
        images = tuple(run_image_tests(toolbox, workspace, version, image) for image in images)
        require_green(images, some=False)
    write_texts_after(toolbox, workspace, version)
    return BuildResult(version=version, images=images, locked=bool(force or missing))


@dataclass(frozen=True)
class _Job:
    """One image to build; without a lock its packages are known only afterwards."""

    image_type: str
    platform: str
    lock: Lock | None
    choice: Choice


def _build_all(release: _Release, jobs: Sequence[_Job]) -> tuple[ImageResult, ...]:
    """Build natively one after the other (each keeps all processors busy), by container engines side by side."""
    for job in jobs:
        say_choice(release.toolbox.log, job.image_type, job.choice)
    if all(job.choice.engine == "native" for job in jobs):
        return tuple(_build_natively(release, job) for job in jobs)
    containers = open_engine(release.toolbox, [job.choice for job in jobs], release.engines)
    with contextlib.closing(containers), ThreadPoolExecutor(len(jobs), thread_name_prefix="image") as executor:
        running = [executor.submit(_build, release, job, containers) for job in jobs]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        except BaseException:
            containers.cancel()
            raise
        errors = [failure for item in running if item.done() and (failure := item.exception()) is not None]
        if errors:
            containers.cancel()  # what cannot be published any more need not go on
    if errors:
        raise first_failure(errors)
    results = [item.result() for item in running]
    _keep_locks(release, [kept for _, kept in results if kept is not None])
    return tuple(image for image, _ in results)


def _jobs(
    workspace: Workspace,
    version: Version,
    choices: Mapping[str, Choice],
    locks: Mapping[str, Lock],
    platforms: tuple[str, ...],
) -> list[tuple[str, str]]:
    jobs = []
    for name in choices:
        for platform in chosen_platforms(workspace.line(version).variant(name), name, platforms):
            if name in locks and platform not in locks[name].platforms:
                raise BuildError(f"the lock of {name} has no {platform}", hint=f"lockyard lock {version}")
            jobs.append((name, platform))
    return jobs


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file of the release directory that an image has told."""

    name: str
    file: File


def _build(release: _Release, job: _Job, containers: Builder) -> tuple[ImageResult, _Kept | None]:
    if job.choice.engine == "native":
        return _build_natively(release, job), None
    return _build_in_containers(release, job, containers)


def _build_natively(release: _Release, job: _Job) -> ImageResult:
    toolbox = release.toolbox
    toolbox.log.step(f"building {job.image_type} {job.platform} of {release.version}")
    start = time.monotonic()
    request, seconds = _prepared(release, job)
    built = NativeEngine(BlobCache(toolbox.cache_dir), toolbox.log, release.finished).build(request)
    return _written(release, job, request, built, seconds, start)


def _build_in_containers(release: _Release, job: _Job, containers: Builder) -> tuple[ImageResult, _Kept | None]:
    toolbox, workspace, choice = release.toolbox, release.workspace, job.choice
    name, platform = job.image_type, job.platform
    toolbox.log.step(f"building {name} {platform} of {release.version} in {choice.engine}")
    start = time.monotonic()
    request, seconds = _prepared(release, job) if choice.kind == "finish" else (_bare_request(release, job), {})
    image = _name_in_engine(release, job)
    engine = ContainerEngine(
        containers,
        NativeEngine(BlobCache(toolbox.cache_dir), toolbox.log),
        BlobCache(toolbox.cache_dir),
        scratch=toolbox.cache_dir,
    )
    with build_log(workspace, release.version, name, platform, toolbox.log) as say:
        done = engine.build(
            request, choice.kind or "finish", name=image, locked=job.lock is not None, say=say,
            no_cache=release.engines.no_cache,
        )  # fmt: skip
    for layer in done.built.image.layers:
        release.finished(layer.descriptor, done.built.blobs[layer.descriptor.digest])
    bases = resolved_bases(containers, choice, request.args, toolbox.log)
    kept = None
    if job.lock is None:
        first = release.line.variant(name).platforms[0]
        file, text, packages = locked_by_image(done.records, release.tree, release.version, name, platform, first)
        kept = _Kept(file, text)
        request = replace(request, packages=packages)
    return _written(release, job, request, done.built, seconds, start, bases), kept


def _name_in_engine(release: _Release, job: _Job) -> str:
    """Return `IMAGE:TAG` for this machine's platform or the first; the others, built at the same time, get their own."""
    variant = release.line.variant(job.image_type)
    name = f"{release.workspace.distribution.image}:{tag_of(variant, release.version, job.image_type)}"
    host = host_platform(machine_platform.machine())
    first = host if host in variant.platforms else variant.platforms[0]
    return name if job.platform == first else f"{name}-{job.platform}"


def _keep_locks(release: _Release, kept: Sequence[_Kept]) -> None:
    """Write what the images hold beside the release's other files."""
    for item in kept:
        if item.name not in release.tree:
            path = release.workspace.release_path(release.version) / item.name
            fs.atomic_write(path, item.file.data)
            release.toolbox.log.info(f"{release_dir(release.version) / item.name} is read out of the image: commit it")


def _prepared(release: _Release, job: _Job) -> tuple[BuildRequest, dict[str, float]]:
    """Fetch the packages of an image, and make what is made before its layers; the times are in seconds."""
    toolbox, lock = release.toolbox, job.lock
    if lock is None:
        raise BuildError(f"{job.image_type} has no lock", hint=f"lockyard lock {release.version}")
    start = time.monotonic()
    fetched = toolbox.packages().fetch(lock.packages(job.platform), root=release.workspace.root, files=release.files)
    seconds = {"fetch": round(time.monotonic() - start, 3)}
    preparer = Preparer(
        toolbox.cache_dir, toolbox.log, toolbox.base_sandbox, host=host_platform(machine_platform.machine())
    )
    settings = release.line.settings(job.image_type, job.platform)
    request = _request(release, job.image_type, job.platform, lock, fetched)
    return preparer.prepare(_of_dockerfile(release, job, request), settings), seconds


def _bare_request(release: _Release, job: _Job) -> BuildRequest:
    """Return the request of an image whose packages its Dockerfile installs."""
    packages = job.lock.packages(job.platform) if job.lock else ()
    created = _created(packages, release.toolbox.environ)
    scratch = Base("scratch", None, empty_image(oci_platform(job.platform), created), {})
    request = _request_on(release, job.image_type, job.platform, packages, {}, scratch, created)
    return _of_dockerfile(release, job, request)


def _of_dockerfile(release: _Release, job: _Job, request: BuildRequest) -> BuildRequest:
    path = job.choice.dockerfile
    if path is None:
        return replace(request, dockerfile=None)
    data = release.tree[path.rsplit("/", 1)[-1]].data
    return replace(request, dockerfile=decode(data, path), dockerfile_name=path)


def _written(
    release: _Release,
    job: _Job,
    request: BuildRequest,
    built: BuiltImage,
    seconds: Mapping[str, float],
    start: float,
    bases: Sequence[Mapping[str, str]] = (),
) -> ImageResult:
    """Write the layout with its record; `start` is when the build began."""
    name, platform = job.image_type, job.platform
    tag = tag_of(release.line.variant(name), release.version, name)
    layout = release.workspace.out_dir(release.version, name, platform)
    record = _record(request, built, job, {**seconds, "total": round(time.monotonic() - start, 3)}, bases)
    descriptor = write_layout(layout, built.image, built.blobs, name=tag, extra={BUILD: record})
    rebuilt = [layer for layer in built.layers if layer.rebuilt]
    return ImageResult(
        image_type=name,
        platform=platform,
        tag=tag,
        digest=str(descriptor.digest),
        layout=layout,
        layers=len(built.image.layers),
        rebuilt=len(rebuilt),
        size=built.image.size,
        rebuilt_size=sum(layer.layer.descriptor.size for layer in rebuilt),
        fetched=sum(1 for item in request.fetched.values() if item.fetched),
        packages=len(request.packages),
        seconds=time.monotonic() - start,
    )


def _request(
    release: _Release, name: str, platform: str, lock: Lock, fetched: Mapping[str, FetchedPackage]
) -> BuildRequest:
    toolbox, workspace = release.toolbox, release.workspace
    packages = lock.packages(platform)
    created = _created(packages, toolbox.environ)
    with ThreadPoolExecutor(release.workers) as executor:
        base = open_base(toolbox, workspace, release.version, name, platform, created=created, executor=executor)
    return replace(_request_on(release, name, platform, packages, fetched, base, created), specs=lock.specs)


def _request_on(
    release: _Release,
    name: str,
    platform: str,
    packages: tuple[LockedPackage, ...],
    fetched: Mapping[str, FetchedPackage],
    base: Base,
    created: str,
) -> BuildRequest:
    line, variant = release.line, release.line.variant(name)
    return BuildRequest(
        version=release.version,
        image_type=name,
        platform=platform,
        packages=packages,
        fetched=fetched,
        plan=release.plan,
        base=base,
        prefix=line.prefix,
        owner=line.settings(name, platform).owner,
        created=created,
        title=release.workspace.distribution.title,
        compression=variant.compression,
        # Texts come after the image and renew themselves: they are none of its inputs.
        context=Tree({path: file for path, file in release.tree.items() if not is_text(path)}),
        args={
            **variant_args(variant, release.toolbox.environ),
            "IMAGE_VERSION": str(release.version),
            **release.build_args,
        },
        workers=release.workers,
    )


def _created(packages: tuple[LockedPackage, ...], environ: Mapping[str, str]) -> str:
    """Return the time of the image: `SOURCE_DATE_EPOCH`, else that of the newest package."""
    text = environ.get("SOURCE_DATE_EPOCH")
    if text:
        if not text.isdecimal() or len(text) > 11:
            raise ConfigError(f"SOURCE_DATE_EPOCH is {text!r}, not seconds since 1970")
        seconds = int(text)
    else:
        seconds = max((package.timestamp // 1000 for package in packages if package.timestamp), default=EPOCH)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _record(
    request: BuildRequest,
    built: BuiltImage,
    job: _Job,
    seconds: Mapping[str, float],
    bases: Sequence[Mapping[str, str]],
) -> bytes:
    """Return `build.json`: what went in, what came out, what was re-used, how long it took."""
    locked = canonical_json([[package.dist, package.sha256 or package.md5] for package in request.packages])
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "engine": job.choice.engine,
        "version": str(request.version),
        "image_type": request.image_type,
        "platform": request.platform,
        "manifest_digest": str(built.image.digest),
        "base": {"reference": request.base.reference, "digest": request.base.digest},
        "lock": {
            "input_hash": job.lock.input_hash if job.lock else None,
            "packages": len(request.packages),
            "digest": str(Digest.of(locked)),
        },
        "args": dict(sorted(request.args.items())),
        "created": request.created,
        "compression": request.compression,
        "size": built.image.size,
        "layers": [
            {
                "name": layer.name,
                "digest": str(layer.layer.descriptor.digest),
                "diff_id": str(layer.layer.diff_id),
                "size": layer.layer.descriptor.size,
                "uncompressed": layer.uncompressed,
                "rebuilt": layer.rebuilt,
                "packages": list(layer.packages),
            }
            for layer in built.layers
        ],
        "fetched": sorted(dist for dist, item in request.fetched.items() if item.fetched),
        "seconds": dict(seconds),
    }
    if bases:
        first, *others = bases
        value["base"] = {"reference": first["reference"], "digest": first["digest"]}
        value["other_bases"] = [dict(item) for item in others]
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
