"""Use cases around locks: lock a release, check that its lock is current, read its locks, compare two releases."""

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from lockyard import fs
from lockyard.app.layers import release_plan
from lockyard.app.locking import Solving, TypeInputs, TypeResult, Wishes, make_lock
from lockyard.app.workspace import Workspace, decode
from lockyard.conda.formats import (
    LockInputs,
    conda_lock_name,
    env_out_name,
    lock_from_tree,
    lock_json_name,
    write_conda_lock,
    write_env_out,
    write_lock_json,
)
from lockyard.conda.lock import Lock
from lockyard.conda.reasons import Disagreement
from lockyard.conda.spec import EnvIn, parse_env_in
from lockyard.distribution import EnvironmentArg, Line, Variant
from lockyard.errors import ConfigError, LockyardError, StaleLockError
from lockyard.oci.layering import FILE_NAME
from lockyard.ports import Toolbox
from lockyard.suggest import nearest
from lockyard.tree import Change, File, Tree, diff
from lockyard.version import Version, release_dir

SOURCE_VERSION = "source-version.txt"


@dataclass(frozen=True, kw_only=True)
class LockResult:
    """What `lock` did; `written` are paths relative to the root, empty when nothing changed or on a dry run.

    `lowered` is type → indirect packages that had to go down, `stuck` type → what `--update` could not move.
    """

    version: Version
    locks: Mapping[str, Lock]
    changes: tuple[Change, ...] = ()
    written: tuple[str, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    lowered: Mapping[str, tuple[str, ...]]
    stuck: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class LockStatus:
    """How a lock stands to its inputs; an adopted release has no inputs' hash, and nothing calls it stale."""

    image_type: str
    state: str
    """`current`, `stale`, `missing` or `adopted`."""
    why: str = ""


def lock_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    image_types: tuple[str, ...] = (),
    fresh: bool = False,
    update: Collection[str] = (),
    exclude_newer: dt.datetime | None = None,
    offline: bool = False,
    dry_run: bool = False,
) -> LockResult:
    """Solve the release's image types and write their locks, exports and the layer plan as one step.

    Nothing is written when nothing changes. `exclude_newer` is aware; `update` names packages that shall move;
    `offline` takes the channels' indexes from the cache.

    Raises:
        UnsatisfiableError: no set of packages meets the specs.
        ConfigError: an input is missing or malformed, or `update` names a package that is in no lock.

    """
    wishes = Wishes(
        update=frozenset(name.lower() for name in update), fresh=fresh, exclude_newer=exclude_newer, offline=offline
    )
    with workspace.lock():
        tree = _release(workspace, version)
        base_version, base_tree = _base(workspace, tree, version)
        types = [
            read_inputs(toolbox, workspace, version, tree, name, variant, base_tree)
            for name, variant in workspace.variants(version, image_types).items()
        ]
        _check_update(types, wishes)
        rest = [name for name in workspace.line(version).types if image_types and name not in image_types]
        others = {name: lock for name in rest if (lock := _own_lock(tree, version, name)) is not None}
        toolbox.log.step(f"solving {', '.join(item.image_type for item in types)} of {version}")
        solving = Solving(solver=toolbox.solver(), log=toolbox.log, root=workspace.root, wishes=wishes, others=others)
        results, differ = solving.solve_types(types)
        locks = {item.image_type: make_lock(item, results[item.image_type], wishes, base_version) for item in types}
        after = _outputs(tree, types, locks)
        everything = _ordered({**others, **locks}, workspace.line(version).types)
        after = after.merge({FILE_NAME: File.text(release_plan(workspace, version, tree, everything).to_json())})
        changes = diff(tree, after)
        if changes and not dry_run:
            fs.write_tree(after, workspace.release_path(version), keep=workspace.nested_releases(version))
    place = release_dir(version)
    return LockResult(
        version=version,
        locks=locks,
        changes=changes,
        written=() if dry_run else tuple(str(place / change.path) for change in changes if change.new is not None),
        disagreements=differ,
        lowered=_flat(results, lambda result: result.lowered),
        stuck=_flat(results, lambda result: result.stuck),
    )


def lock_status(
    toolbox: Toolbox, workspace: Workspace, version: Version, *, image_types: tuple[str, ...] = ()
) -> tuple[LockStatus, ...]:
    """Compare each type's lock with its inputs; reads nothing else, solves nothing.

    Raises:
        ConfigError: an input or a lock is malformed.

    """
    tree = _release(workspace, version)
    found = []
    for name, variant in workspace.variants(version, image_types).items():
        lock = lock_from_tree(tree, name, source=str(release_dir(version)))
        if lock is None:
            found.append(LockStatus(image_type=name, state="missing", why="there is no lock"))
        elif not lock.input_hash:
            found.append(LockStatus(image_type=name, state="adopted", why="made before Lockyard: nothing to compare"))
        else:
            inputs = read_inputs(toolbox, workspace, version, tree, name, variant, None)
            same = inputs.inputs.digest == lock.input_hash
            found.append(
                LockStatus(
                    image_type=name, state="current" if same else "stale", why="" if same else _staleness(lock, inputs)
                )
            )
    return tuple(found)


def current_locks(
    toolbox: Toolbox, workspace: Workspace, version: Version, *, image_types: tuple[str, ...] = ()
) -> Mapping[str, Lock]:
    """Return type → lock when every one of them is current (or adopted).

    Raises:
        StaleLockError: a lock is missing or does not belong to the inputs beside it.

    """
    check_current(version, lock_status(toolbox, workspace, version, image_types=image_types))
    return release_locks(workspace, version, image_types=image_types)


def check_current(version: Version, statuses: Sequence[LockStatus]) -> None:
    """Raise `StaleLockError` when a lock is missing or stale."""
    bad = [item for item in statuses if is_bad(item)]
    if bad:
        raise StaleLockError(
            f"the lock of {version} is not current: {', '.join(f'{item.image_type} is {item.state}' for item in bad)}",
            hint=f"lockyard lock {version}",
            details=[f"{item.image_type}: {item.why}" for item in bad],
        )


def is_bad(status: LockStatus) -> bool:
    """Whether a lock cannot be built from."""
    return status.state in {"stale", "missing"}


def release_locks(workspace: Workspace, version: Version, *, image_types: tuple[str, ...] = ()) -> Mapping[str, Lock]:
    """Return type → lock of a release as it stands, in file order; types without one are left out.

    Raises:
        ConfigError: the release does not exist or a lock is malformed.

    """
    tree = workspace.existing_release(version)
    source = str(release_dir(version))
    locks = {name: lock_from_tree(tree, name, source=source) for name in workspace.variants(version, image_types)}
    return {name: lock for name, lock in locks.items() if lock is not None}


def read_inputs(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    tree: Tree,
    image_type: str,
    variant: Variant,
    base_tree: Tree | None,
) -> TypeInputs:
    """Read everything that the lock of a type depends on from the release's files and the configuration.

    Raises:
        ConfigError: `env.in` is missing, or a line of a spec file does not parse.

    """
    place = release_dir(version)
    line: Line = workspace.line(version)
    env_in = f"{image_type}.env.in"
    if env_in not in tree:
        raise ConfigError(
            f"{place / env_in} is missing: it lists the packages of image type {image_type!r}",
            hint=f"make the release with create-*, or write {env_in}",
        )
    variables = {name: _argument(value, toolbox.environ) for name, value in variant.args.items()}
    files: dict[str, EnvIn] = {}
    for name, arguments in (
        (env_in, None),
        (f"{image_type}.pinned_env.in", None),
        (f"{image_type}.arg_based_env.in", variables),
    ):
        if name in tree:
            source = str(place / name)
            files[name] = parse_env_in(decode(tree[name].data, source), source=source, variables=arguments)
            for warning in files[name].warnings:
                toolbox.log.warning(warning)
    base_version, source = _source_version(tree), str(release_dir(_source_version(tree) or version))
    return TypeInputs(
        image_type=image_type,
        files=files,
        inputs=LockInputs(
            files={name: "\n".join(item.text for item in file.lines) for name, file in files.items()},
            channels=line.channels,
            platforms=variant.platforms,
            virtual_packages={name: variant.virtual_packages_for(name) for name in variant.platforms},
            platform_packages=line.platform_packages,
        ),
        own=_own_lock(tree, version, image_type),
        base=lock_from_tree(base_tree, image_type, source=source) if base_tree is not None else None,
        base_direct=_direct(base_tree, image_type, base_version)
        if base_tree is not None and base_version
        else frozenset(),
    )


def _release(workspace: Workspace, version: Version) -> Tree:
    """Return the files of a release; spec files are enough, as a hand-written first release has nothing else yet."""
    tree = workspace.release_tree(version)
    return tree if any(name.endswith(".env.in") for name in tree) else workspace.existing_release(version)


def _source_version(tree: Tree) -> Version | None:
    if SOURCE_VERSION not in tree:
        return None
    return Version.parse(decode(tree[SOURCE_VERSION].data, SOURCE_VERSION).strip())


def _base(workspace: Workspace, tree: Tree, version: Version) -> tuple[str | None, Tree | None]:
    base = _source_version(tree)
    if base is None:
        return None, None
    try:
        return str(base), workspace.existing_release(base)
    except ConfigError as error:
        raise ConfigError(f"{release_dir(version) / SOURCE_VERSION}: {error.message}", hint=error.hint) from error


def _own_lock(tree: Tree, version: Version, image_type: str) -> Lock | None:
    return lock_from_tree(tree, image_type, source=str(release_dir(version)))


def _argument(value: str | EnvironmentArg, environ: Mapping[str, str]) -> str:
    return environ.get(value.env, value.default) if isinstance(value, EnvironmentArg) else value


def _check_update(types: Sequence[TypeInputs], wishes: Wishes) -> None:
    known = {package.name for item in types for platform in item.inputs.platforms for package in item.old(platform)}
    for name in sorted(wishes.update - known):
        raise ConfigError(f"--update {name}: no lock has this package", hint=nearest(name, sorted(known)))


def _outputs(tree: Tree, types: Sequence[TypeInputs], locks: Mapping[str, Lock]) -> Tree:
    """Return the release's files with the locks and exports of `types` renewed and those of lost platforms removed."""
    files = dict(tree)
    for item in types:
        lock = locks[item.image_type]
        for name in tree:
            if name.startswith(f"{item.image_type}.") and name.endswith(".env.out"):
                del files[name]
        for platform, packages in lock.platforms.items():
            name = env_out_name(item.image_type, platform, lock.first_platform)
            files[name] = File.text(write_env_out(packages, platform))
        name = lock_json_name(item.image_type)
        text = File.text(write_lock_json(lock))
        if tree.get(name) != text or conda_lock_name(item.image_type) not in tree:
            # conda_lock takes 0.6 s to load: not for a lock that did not change.
            files[conda_lock_name(item.image_type)] = File.text(write_conda_lock(lock, item.files))
        files[name] = text
    return Tree(files)


def _ordered(locks: Mapping[str, Lock], order: Sequence[str]) -> dict[str, Lock]:
    return {name: locks[name] for name in order if name in locks}


def _flat(
    results: Mapping[str, TypeResult], get: Callable[[TypeResult], Mapping[str, tuple[str, ...]]]
) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(sorted({item for items in get(result).values() for item in items}))
        for name, result in results.items()
    }


def _staleness(lock: Lock, inputs: TypeInputs) -> str:
    """Say which input differs, as far as the lock file tells."""
    now = tuple(dict.fromkeys(str(line.spec) for line in inputs.lines))
    added, gone = [text for text in now if text not in lock.specs], [text for text in lock.specs if text not in now]
    parts = [f"+ {text}" for text in added[:3]] + [f"- {text}" for text in gone[:3]]
    if len(added) + len(gone) > len(parts):
        parts.append(f"and {len(added) + len(gone) - len(parts)} more specs")
    if lock.channels != inputs.inputs.channels:
        parts.append("the channels changed")
    if tuple(lock.platforms) != inputs.inputs.platforms:
        parts.append("the platforms changed")
    if {key: dict(value) for key, value in lock.virtual_packages.items()} != inputs.inputs.virtual_packages:
        parts.append("the virtual packages changed")
    return "; ".join(parts) or "its inputs changed"


def _direct(tree: Tree, image_type: str, version: Version) -> frozenset[str]:
    name = f"{image_type}.env.in"
    if name not in tree:
        return frozenset()
    source = str(release_dir(version) / name)
    return frozenset(parse_env_in(decode(tree[name].data, source), source=source).by_name)


def _known_types(workspace: Workspace, version: Version, image_types: tuple[str, ...]) -> Collection[str]:
    try:
        return workspace.variants(version, image_types)
    except LockyardError:
        return ()
