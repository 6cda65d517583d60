"""Use cases around images: build a release, explain its layers."""

import datetime as dt
import json
import os
import platform as machine_platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lockyard.app.bases import open_base
from lockyard.app.images import BuildResult, ImageResult, chosen_platforms, tag_of
from lockyard.app.loading import load_images
from lockyard.app.lock import current_locks, lock_release, lock_status
from lockyard.app.supplied import supply
from lockyard.app.testing import run_image_tests
from lockyard.app.texts import write_texts_after
from lockyard.app.workspace import Workspace, decode
from lockyard.checks.plan import host_platform
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.distribution import EnvironmentArg, Line, Variant
from lockyard.engines.native import NativeEngine
from lockyard.engines.prepare import Preparer
from lockyard.engines.request import BuildRequest, BuiltImage
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.cache import BlobCache
from lockyard.oci.image import canonical_json
from lockyard.oci.layering import FILE_NAME as LAYERS
from lockyard.oci.layering import LayerPlan, plan_layers
from lockyard.oci.layout import write_layout
from lockyard.oci.tar import EPOCH
from lockyard.oci.values import Digest
from lockyard.ports import FetchedPackage, Toolbox
from lockyard.reports.notes import is_text
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

BUILD = "build.json"
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
    build_args: Mapping[str, str] = field(default_factory=dict)


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
) -> BuildResult:
    """Build the images of a release, all of them, then test all of them.

    Without a lock it is made; `force` makes it again. `workers` changes no byte. `load` puts this machine's images into
    a reachable Docker daemon; one that refuses them is a warning. `package_dir` holds the files of packages that the lock
    gives no hash or no reachable address.

    Raises:
        StaleLockError: the lock does not belong to the inputs beside it.
        BuildError: an image cannot be built.
        ImageTestError: image tests failed; what was built stays.

    """
    workspace.existing_release(version)
    statuses = lock_status(toolbox, workspace, version, image_types=image_types)
    missing = tuple(item.image_type for item in statuses if item.state == "missing")
    if force or missing:
        lock_release(toolbox, workspace, version, image_types=image_types if force else missing)
    locks = current_locks(toolbox, workspace, version, image_types=image_types)
    jobs = _jobs(workspace, version, locks, platforms)
    with workspace.lock():
        tree = workspace.release_tree(version)
        wanted = {name: [platform for other, platform in jobs if other == name] for name, _ in jobs}
        locks, files = supply(locks, tree, version, platforms=wanted, package_dir=package_dir)
        release = _Release(
            toolbox, workspace, version, workspace.line(version), tree, _layer_plan(tree, version, locks),
            workers or os.cpu_count() or 1, files, build_args or {},
        )  # fmt: skip
        images = tuple(_build(release, name, platform, locks[name]) for name, platform in jobs)
    if load:
        images = load_images(toolbox, workspace, version, images)
    if not skip_tests:
        images = tuple(run_image_tests(toolbox, workspace, version, image) for image in images)
    write_texts_after(toolbox, workspace, version)
    return BuildResult(version=version, images=images, locked=bool(force or missing))


def explain_layers(
    toolbox: Toolbox, workspace: Workspace, version: Version, *, image_types: tuple[str, ...] = ()
) -> tuple[tuple[str, tuple[tuple[LockedPackage, str], ...]], ...]:
    """Return layer → its packages, each with the reason why it is there, in the order of the layers.

    Raises:
        StaleLockError: there is no current lock.

    """
    tree = workspace.existing_release(version)
    locks = current_locks(toolbox, workspace, version, image_types=image_types)
    plan = _layer_plan(tree, version, locks)
    base = (tree["source-version.txt"].data.decode().strip() if "source-version.txt" in tree else "") or None
    base_tree = workspace.release_tree(Version.parse(base)) if base else Tree()
    previous = _read_plan(base_tree, str(base)) if LAYERS in base_tree else None
    fresh = plan_layers(_all_packages(locks), previous=previous)
    packages = {package.name: package for items in _all_packages(locks).values() for package in items}
    layers: dict[str, list[tuple[LockedPackage, str]]] = {}
    for name, package in sorted(packages.items()):
        layer = plan.layers[name]
        reason = fresh.reasons[name] if fresh.layers.get(name) == layer else f"written so in {LAYERS}"
        layers.setdefault(layer, []).append((package, reason))
    return tuple((layer, tuple(items)) for layer, items in sorted(layers.items()))


def _jobs(
    workspace: Workspace, version: Version, locks: Mapping[str, Lock], platforms: tuple[str, ...]
) -> list[tuple[str, str]]:
    jobs = []
    for name in locks:
        for platform in chosen_platforms(workspace.line(version).variant(name), name, platforms):
            if platform not in locks[name].platforms:
                raise BuildError(f"the lock of {name} has no {platform}", hint=f"lockyard lock {version}")
            jobs.append((name, platform))
    return jobs


def _all_packages(locks: Mapping[str, Lock]) -> dict[str, list[LockedPackage]]:
    return {
        name: list({package.dist: package for items in lock.platforms.values() for package in items}.values())
        for name, lock in locks.items()
    }


def _layer_plan(tree: Tree, version: Version, locks: Mapping[str, Lock]) -> LayerPlan:
    """Return the release's own plan; one made before there were any is planned now."""
    return _read_plan(tree, str(version)) if LAYERS in tree else plan_layers(_all_packages(locks))


def _read_plan(tree: Tree, version: str) -> LayerPlan:
    source = str(release_dir(Version.parse(version)) / LAYERS)
    return LayerPlan.from_json(decode(tree[LAYERS].data, source), source=source)


def _build(release: _Release, name: str, platform: str, lock: Lock) -> ImageResult:
    toolbox, workspace = release.toolbox, release.workspace
    variant = release.line.variant(name)
    tag = tag_of(variant, release.version, name)
    toolbox.log.step(f"building {name} {platform} of {release.version}")
    start = time.monotonic()
    packages = lock.packages(platform)
    fetched = toolbox.packages().fetch(packages, root=workspace.root, files=release.files)
    after_fetch = time.monotonic()
    settings = release.line.settings(name, platform)
    preparer = Preparer(
        toolbox.cache_dir, toolbox.log, toolbox.base_sandbox, host=host_platform(machine_platform.machine())
    )
    request = preparer.prepare(_request(release, name, platform, lock, fetched), settings)
    built = NativeEngine(BlobCache(toolbox.cache_dir), toolbox.log).build(request)
    layout = workspace.out_dir(release.version, name, platform)
    seconds = {"fetch": round(after_fetch - start, 3), "total": round(time.monotonic() - start, 3)}
    record = _record(request, built, lock, seconds)
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
        fetched=sum(1 for item in fetched.values() if item.fetched),
        packages=len(packages),
        seconds=time.monotonic() - start,
    )


def _request(
    release: _Release, name: str, platform: str, lock: Lock, fetched: Mapping[str, FetchedPackage]
) -> BuildRequest:
    toolbox, workspace, line = release.toolbox, release.workspace, release.line
    variant = line.variant(name)
    packages = lock.packages(platform)
    created = _created(packages, toolbox.environ)
    with ThreadPoolExecutor(release.workers) as executor:
        base = open_base(toolbox, workspace, release.version, name, platform, created=created, executor=executor)
    place = release_dir(release.version)
    dockerfile = release.tree.get("Dockerfile")
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
        title=workspace.distribution.title,
        specs=lock.specs,
        compression=variant.compression,
        dockerfile=decode(dockerfile.data, str(place / "Dockerfile")) if dockerfile else None,
        dockerfile_name=str(place / "Dockerfile"),
        # Texts come after the image and renew themselves: they are none of its inputs.
        context=Tree({path: file for path, file in release.tree.items() if not is_text(path)}),
        args={**_variant_args(variant, toolbox.environ), "IMAGE_VERSION": str(release.version), **release.build_args},
        workers=release.workers,
    )


def _variant_args(variant: Variant, environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: environ.get(value.env, value.default) if isinstance(value, EnvironmentArg) else value
        for name, value in variant.args.items()
    }


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


def _record(request: BuildRequest, built: BuiltImage, lock: Lock, seconds: Mapping[str, float]) -> bytes:
    """Return `build.json`: what went in, what came out, what was re-used, how long it took."""
    locked = canonical_json([[package.dist, package.sha256 or package.md5] for package in request.packages])
    value = {
        "schema": SCHEMA,
        "engine": "native",
        "version": str(request.version),
        "image_type": request.image_type,
        "platform": request.platform,
        "manifest_digest": str(built.image.digest),
        "base": {"reference": request.base.reference, "digest": request.base.digest},
        "lock": {"input_hash": lock.input_hash, "packages": len(request.packages), "digest": str(Digest.of(locked))},
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
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
