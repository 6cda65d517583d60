"""Use cases around layer plans: plan a release's layers from what was committed before it; explain them."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lockyard import fs
from lockyard.app.workspace import Workspace, decode
from lockyard.conda.formats import env_out_platform, lock_from_tree
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.oci.history import ChangeHistory, Sizes, Snapshot, image_key, lessons, read_names, read_sizes, snapshot_of
from lockyard.oci.layering import FILE_NAME, BaseLayers, Images, LayerPlan, plan_layers
from lockyard.oci.layerstory import PlanStory, explain_plan
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

SOURCE_VERSION = "source-version.txt"


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a plan is made from, apart from the release's own packages."""

    images: Images
    base: BaseLayers | None
    history: ChangeHistory
    sizes: Sizes
    budget: int


def release_plan(workspace: Workspace, version: Version, tree: Tree, locks: Mapping[str, Lock]) -> LayerPlan:
    """Return the plan of a release with these locks; `tree` is the release as it was before.

    Its own plan stays as long as its packages do. Otherwise the base release's plan is the start, and a first release's own.

    Raises:
        ConfigError: a plan or a lock is malformed.

    """
    own = read_plan(tree, version)
    before = _locks(tree, version, locks)
    if own is not None and snapshot_of(before) == snapshot_of(locks) and _names(locks) == own.layers.keys():
        return own
    inputs = _inputs(workspace, version, tree, locks)
    base = inputs.base
    if base is None and own is not None and before:
        base = BaseLayers(own, snapshot_of(before))
    return plan_layers(
        inputs.images, base=base, history=inputs.history, sizes=inputs.sizes, budget=inputs.budget
    )  # fmt: skip


def built_plan(workspace: Workspace, version: Version, tree: Tree, locks: Mapping[str, Lock]) -> LayerPlan:
    """Return the committed plan; a release that has a lock but no plan is planned now."""
    own = read_plan(tree, version)
    return own if own is not None else release_plan(workspace, version, tree, locks)


def explain_layers(workspace: Workspace, version: Version, locks: Mapping[str, Lock]) -> PlanStory:
    """Explain the layers of a release as the images of these locks have them.

    Raises:
        ConfigError: a plan or a lock is malformed, or the plan lacks a package.

    """
    tree = workspace.existing_release(version)
    # Of all types, whichever are shown: the plan is shared.
    everything = {**_locks(tree, version, workspace.variants(version)), **locks}
    plan = built_plan(workspace, version, tree, everything)
    inputs = _inputs(workspace, version, tree, locks)
    for packages in inputs.images.values():
        plan.group(packages)
    return explain_plan(plan, inputs.images, base=inputs.base, history=inputs.history, sizes=inputs.sizes)


def read_plan(tree: Tree, version: Version) -> LayerPlan | None:
    """Return the plan of a release, `None` when there is none.

    Raises:
        ConfigError: it is malformed.

    """
    if FILE_NAME not in tree:
        return None
    source = str(release_dir(version) / FILE_NAME)
    return LayerPlan.from_json(decode(tree[FILE_NAME].data, source), source=source)


def _inputs(workspace: Workspace, version: Version, tree: Tree, locks: Mapping[str, Lock]) -> _Inputs:
    images = {
        image_key(name, platform): packages
        for name, lock in locks.items()
        for platform, packages in lock.platforms.items()
    }
    base = _base(workspace, tree, version)
    base_tree = workspace.release_tree(base) if base else Tree()
    base_locks = _locks(base_tree, base, locks) if base else {}
    plan = read_plan(base_tree, base) if base else None
    return _Inputs(
        images=images,
        base=BaseLayers(plan, snapshot_of(base_locks)) if plan is not None else None,
        history=_history(workspace, version, tuple(locks)),
        sizes=_sizes(workspace, version, [*_packages(locks), *_packages(base_locks)]),
        budget=workspace.line(version).layer_budget or workspace.distribution.layer_budget,
    )


def _sizes(workspace: Workspace, version: Version, packages: Sequence[LockedPackage]) -> Sizes:
    """Read what other locks say of sizes, where these packages lack one: only releases made elsewhere do."""
    if all(package.size is not None for package in packages):
        return Sizes(packages)
    found: list[tuple[str, str, int]] = []
    for other in workspace.versions():
        for path in sorted(workspace.release_path(other).glob("*.lock.json")) if other != version else ():
            found += read_sizes((fs.read_file(path) or b"").decode(errors="replace"))
    return Sizes(packages, found)


def _base(workspace: Workspace, tree: Tree, version: Version) -> Version | None:
    """Return the release that one was made from, if it is there."""
    if SOURCE_VERSION not in tree:
        return None
    base = Version.parse(decode(tree[SOURCE_VERSION].data, str(release_dir(version) / SOURCE_VERSION)).strip())
    return base if base != version and workspace.release_path(base).is_dir() else None


def _history(workspace: Workspace, version: Version, image_types: tuple[str, ...]) -> ChangeHistory:
    """Read what the older releases changed."""
    read = functools.cache(lambda item: _snapshot(workspace, item, image_types))
    known: list[tuple[Version, Version]] = []
    for older in workspace.versions():
        text = fs.read_file(workspace.release_path(older) / SOURCE_VERSION) if older < version else None
        base = Version.parse(decode(text, str(release_dir(older) / SOURCE_VERSION)).strip()) if text else None
        if base is not None and workspace.release_path(base).is_dir():
            known.append((older, base))
    return ChangeHistory.of([(read(older), read(base)) for older, base in lessons(known, version)])


def _snapshot(workspace: Workspace, version: Version, image_types: Iterable[str]) -> Snapshot:
    """Read what a release held, from its exports: those of adopted releases, too, and quick to read."""
    found = {}
    place = workspace.release_path(version)
    for name in image_types:
        for path in sorted([place / f"{name}.env.out", *place.glob(f"{name}.*.env.out")]):
            data = fs.read_file(path)
            if data is not None:
                text = data.decode(errors="replace")
                found[image_key(name, env_out_platform(text) or "linux-64")] = read_names(text)
    return found


def _locks(tree: Tree, version: Version, image_types: Iterable[str]) -> dict[str, Lock]:
    place = str(release_dir(version))
    found = {name: lock_from_tree(tree, name, source=place) for name in image_types}
    return {name: lock for name, lock in found.items() if lock is not None}


def _packages(locks: Mapping[str, Lock]) -> list[LockedPackage]:
    return [package for lock in locks.values() for packages in lock.platforms.values() for package in packages]


def _names(locks: Mapping[str, Lock]) -> set[str]:
    return {package.name for package in _packages(locks)}
