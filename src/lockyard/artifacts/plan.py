"""The plan of a new release: base release and configuration in, the files of the next release out. Pure, printable.

`lockyard.app.create` reads the trees, shows the plan and writes it as one step.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from lockyard.artifacts.template import TemplatePlan, TemplateSources, plan_template
from lockyard.conda.bounds import BoundsPolicy, Installed, NextSpec, next_specs
from lockyard.conda.formats import lock_from_tree, lock_json_name
from lockyard.conda.lock import Lock
from lockyard.conda.spec import EnvIn, SpecLine, format_env_in, parse_env_in
from lockyard.distribution import Distribution, EnvironmentArg, Line, Variant
from lockyard.errors import ConfigError, VersionExistsError
from lockyard.tree import File, Tree
from lockyard.version import Bump, Version, release_dir

SOURCE_VERSION = "source-version.txt"

_HAND_WRITTEN_RE = re.compile(r"[^/]*(?:additional_packages_env|pinned_env)\.in|patch_.*|Dockerfile-[^/]*\.patch")
_COPIED_RE = re.compile(r"patch_.*")
_GENERATED_RE = re.compile(
    r"[^/]+\.(?:env\.in|env\.out|lock\.json|conda-lock\.yml|locked_env\.in)|layers\.json|source-version\.txt"
    r"|CHANGELOG-[^/]+\.md|RELEASE\.md|RELEASE-NOTE\.md"
)

Status = Literal["kept", "new", "unbounded", "removed", "pinned", "argument"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One package in the reviewer's table of an image type.

    `old` and `new` are constraints, `installed` the version in the base lock; `where` is the `file:line` that names the
    package; `pins` are the lines of pinned and arg-based files that bind it too. `status`: `kept` from the base, `new`,
    `unbounded` (not in the base lock, no constraint), `removed` by configuration, only `pinned`, or only an `argument`.
    """

    name: str
    status: Status
    where: str
    installed: str | None = None
    old: str | None = None
    new: str | None = None
    policy: str = ""
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What a release will be: its files, what survives of the old directory, and what the reviewer should know.

    `tree` holds the files to write, `kept` the hand-written files and nested pre-releases that live on, `replaced` the
    generated files of the old directory that go. `template` names a template directory to make first, if any.
    """

    base: Version
    version: Version
    bump: Bump
    tree: Tree
    types: Mapping[str, tuple[Row, ...]]
    kept: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    template: TemplatePlan
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """The release directory, relative to the root."""
        return str(release_dir(self.version))


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """All that a plan depends on.

    `base_tree` are the base release's files; `target_tree` is what the target directory holds already, `nested` the names of
    pre-release directories in it, `exists` whether it is a release; `assets` are file name → file; `environ` gives
    arguments their values; `line_source` is the path of `variants.toml`.
    """

    base: Version
    version: Version
    bump: Bump
    distribution: Distribution
    line: Line
    line_source: str
    base_tree: Tree
    target_tree: Tree = field(default_factory=Tree)
    nested: tuple[str, ...] = ()
    exists: bool = False
    templates: TemplateSources
    assets: Tree = field(default_factory=Tree)
    environ: Mapping[str, str] = field(default_factory=dict)


def plan_release(request: ReleaseRequest, *, force: bool = False) -> ReleasePlan:
    """Plan the release; nothing is read or written.

    Raises:
        VersionExistsError: the target holds generated files and `force` is off.
        ConfigError: an input is missing or does not parse; file and line are named.

    """
    types = {name: _plan_type(request, name, variant) for name, variant in request.line.variants.items()}
    template = plan_template(request.version, request.templates, request.base_tree, _template_values(request))
    tree = _release_tree(request, template, types)
    kept = tuple(path for path in request.target_tree if _survives(path, tree))
    replaced = tuple(path for path in request.target_tree if path not in kept)
    if (request.exists or replaced) and not force:
        raise _exists(request, replaced)
    notes = [note for item in types.values() for note in item.notes]
    notes += template.notes
    notes += [
        f"{request.version} keeps its own {path}; the base's is different"
        for path in kept
        if path in tree and tree[path] != request.target_tree[path]
    ]
    return ReleasePlan(
        base=request.base,
        version=request.version,
        bump=request.bump,
        tree=Tree({path: file for path, file in tree.items() if path not in kept}),
        types={name: item.rows for name, item in types.items()},
        kept=tuple(sorted({*kept, *request.nested})),
        replaced=tuple(path for path in replaced if path not in tree),
        template=template,
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(dict.fromkeys(warning for item in types.values() for warning in item.warnings)),
    )


def is_hand_written(path: str) -> bool:
    """Tell whether a file of a release directory is one that people write and no command replaces."""
    return _HAND_WRITTEN_RE.fullmatch(path) is not None


@dataclass(frozen=True)
class _Type:
    """One image type: its spec file, its rows, and what to say."""

    env_in: File
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Pins:
    """The pinned and the arg-based file of a type, as they will stand in the release."""

    pinned: EnvIn
    arguments: EnvIn

    def of(self, name: str) -> tuple[str, ...]:
        """Return the lines that bind a package."""
        return tuple(f"{line.where} {line.spec.constraint}".strip() for line in self.lines if line.spec.name == name)

    @property
    def lines(self) -> tuple[SpecLine, ...]:
        return (*self.pinned.lines, *self.arguments.lines)


def _plan_type(request: ReleaseRequest, image_type: str, variant: Variant) -> _Type:
    source, target = str(release_dir(request.base)), str(release_dir(request.version))
    additional = _env_in(request.target_tree, f"{image_type}.additional_packages_env.in", target)
    base_name = f"{image_type}.env.in"
    fresh = base_name not in request.base_tree
    if fresh and not additional.lines:
        raise ConfigError(
            f"{source}/{base_name} is missing: {request.base} has no image type {image_type!r}",
            hint=f"to start it in {request.version}, list its packages in {target}/{additional.source.rpartition('/')[2]}",
        )
    base = _env_in(request.base_tree, base_name, source)
    lock = None if fresh else _base_lock(request, image_type, source)
    installed, lock_note = _installed(lock, variant, request.line)
    specs = next_specs(base, additional, installed, request.bump, BoundsPolicy(request.line.policies))
    removed = _removed(request, specs)
    specs = tuple(item for item in specs if item.spec.name not in removed)
    pins = _pins(request, image_type, variant)
    notes = [f"{image_type}: new in {request.version}; nothing bounds its packages"] if fresh else []
    notes += [f"{image_type}: {note}" for note in (*lock_note, *_notes(specs, base, pins))]
    return _Type(
        env_in=File.text(format_env_in(item.spec for item in specs)),
        rows=tuple(_rows(specs, removed, pins, installed)),
        notes=tuple(notes),
        warnings=(*base.warnings, *additional.warnings, *pins.pinned.warnings, *pins.arguments.warnings),
    )


def _env_in(tree: Tree, name: str, source: str, variables: Mapping[str, str] | None = None) -> EnvIn:
    place = f"{source}/{name}"
    if name not in tree:
        return EnvIn(place)
    data = tree[name].data
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{place}:{line}: not UTF-8 text") from error
    return parse_env_in(text, source=place, variables=variables)


def _base_lock(request: ReleaseRequest, image_type: str, source: str) -> Lock:
    lock = lock_from_tree(request.base_tree, image_type, source=source)
    if lock is None:
        raise ConfigError(
            f"{source}/{lock_json_name(image_type)} is missing (nor is there a {image_type}.env.out): "
            f"the next release starts from what {request.base} installs",
            hint=f"lockyard lock {request.base}",
        )
    return lock


def _installed(lock: Lock | None, variant: Variant, line: Line) -> tuple[dict[str, Installed], tuple[str, ...]]:
    """Return the packages of the type's first platform; a channel's name is one that the line declares."""
    if lock is None:
        return {}, ()
    platform = variant.platforms[0]
    notes: tuple[str, ...] = ()
    if platform not in lock.platforms:
        notes = (f"the base lock has no {platform}; its {lock.first_platform} is read instead",)
        platform = lock.first_platform
    packages = lock.packages(platform)
    return {
        item.name: Installed(item.version, item.channel if item.channel in line.channels else None) for item in packages
    }, notes


def _removed(request: ReleaseRequest, specs: tuple[NextSpec, ...]) -> dict[str, NextSpec]:
    removed = {}
    for item in specs:
        if item.spec.name in request.line.removed_packages:
            if item.added is not None:
                raise ConfigError(
                    f"{item.added.where}: {item.spec.name} is asked, and {request.line_source} removes it",
                    hint="take it out of one of the two",
                )
            removed[item.spec.name] = item
    return removed


def _pins(request: ReleaseRequest, image_type: str, variant: Variant) -> _Pins:
    """Read the type's pinned and arg-based files as the release will hold them: its own, else the base's."""
    arguments = {name: _argument(value, request.environ) for name, value in variant.args.items()}
    found = []
    for name, variables in ((f"{image_type}.pinned_env.in", None), (f"{image_type}.arg_based_env.in", arguments)):
        own = name in request.target_tree and (is_hand_written(name) or name not in request.base_tree)
        tree, version = (request.target_tree, request.version) if own else (request.base_tree, request.base)
        found.append(_env_in(tree, name, str(release_dir(version)), variables))
    return _Pins(*found)


def _argument(value: str | EnvironmentArg, environ: Mapping[str, str]) -> str:
    if isinstance(value, str):
        return value
    # What only the build's environment knows must not stop a plan: any version stands in for it.
    return environ.get(value.env) or value.default or "0"


def _notes(specs: tuple[NextSpec, ...], base: EnvIn, pins: _Pins) -> Iterator[str]:
    if base.is_explicit:
        yield f"{base.source} is a list of addresses: each of its {len(base.by_name)} packages becomes a direct one"
    for item in specs:
        name, old, added = item.spec.name, item.base, item.added
        if (
            old is not None
            and old.spec.url is None
            and old.spec.build
            and item.installed
            and not _has_build(pins, name)
        ):
            yield f"{old.where}: {name}'s build {old.spec.build!r} is not carried over; a pinned file would keep it"
        if added is not None and item.installed and added.spec.is_bounded:
            yield f"{added.where}: {name} is in the base lock ({item.installed}); that bounds it, not {added.spec.constraint}"


def _has_build(pins: _Pins, name: str) -> bool:
    return any(line.spec.build for line in pins.lines if line.spec.name == name)


def _rows(
    specs: tuple[NextSpec, ...], removed: Mapping[str, NextSpec], pins: _Pins, installed: Mapping[str, Installed]
) -> Iterator[Row]:
    for item in specs:
        line = item.base or item.added
        yield Row(
            name=item.spec.name,
            status=_status(item),
            where=line.where if line is not None else "",
            installed=item.installed,
            old=item.base.spec.constraint if item.base is not None else None,
            new=item.spec.constraint,
            policy=item.policy,
            pins=pins.of(item.spec.name),
        )
    for name, item in removed.items():
        if item.base is not None:
            yield Row(
                name=name,
                status="removed",
                where=item.base.where,
                installed=item.installed,
                old=item.base.spec.constraint,
            )
    named = {item.spec.name for item in specs}
    others: tuple[tuple[EnvIn, Status], ...] = ((pins.pinned, "pinned"), (pins.arguments, "argument"))
    for file, status in others:
        for name, line in file.by_name.items():
            if name not in named:
                version = installed[name].version if name in installed else None
                yield Row(name=name, status=status, where=line.where, installed=version, new=line.spec.constraint)


def _status(item: NextSpec) -> Status:
    if item.base is None:
        return "new"
    return "kept" if item.spec.is_bounded else "unbounded"


def _template_values(request: ReleaseRequest) -> dict[str, object]:
    version = request.version
    return {
        "base_version": str(request.base),
        "image": request.distribution.image,
        "image_types": list(request.line.types),
        "major": version.major,
        "minor": version.minor,
        "name": request.distribution.name,
        "patch": version.patch,
        "prefix": request.line.prefix,
        "title": request.distribution.title,
        "version": str(version),
    }


def _release_tree(request: ReleaseRequest, template: TemplatePlan, types: Mapping[str, _Type]) -> Tree:
    generated = {f"{name}.env.in": item.env_in for name, item in types.items()}
    # No newline: as adopted distributions have it, so that a file equals its version.
    generated[SOURCE_VERSION] = File.text(str(request.base))
    for path, source in (
        *((path, f"the template {template.source}") for path in template.files),
        *((path, f"{request.line_source}: assets") for path in request.assets),
    ):
        if path in generated or _GENERATED_RE.fullmatch(path):
            raise ConfigError(f"{source} holds {path}, which is generated in every release")
    copied = {path: file for path, file in request.base_tree.items() if _is_copied(path, request.line)}
    return Tree({**template.files, **request.assets, **copied, **generated})


def _is_copied(path: str, line: Line) -> bool:
    names = {f"{name}.{end}" for name in line.types for end in ("pinned_env.in", "arg_based_env.in")}
    return path in names or _COPIED_RE.fullmatch(path) is not None


def _survives(path: str, tree: Tree) -> bool:
    """Tell whether a file of the old directory lives on: hand-written, or not one that commands make."""
    return is_hand_written(path) or not (path in tree or _GENERATED_RE.fullmatch(path) or _collides(path, tree))


def _collides(path: str, tree: Tree) -> bool:
    """Tell whether a file stands where the new tree needs a directory, or the other way round."""
    parents = {str(parent) for parent in PurePosixPath(path).parents}
    return any(other in parents or other.startswith(f"{path}/") for other in tree)


def _exists(request: ReleaseRequest, replaced: tuple[str, ...]) -> VersionExistsError:
    place = release_dir(request.version)
    shown = ", ".join(replaced[:5]) + (f" and {len(replaced) - 5} more" if len(replaced) > 5 else "")
    what = f"{request.version} exists" if request.exists else f"{place} holds generated files"
    return VersionExistsError(
        f"{what} ({place})" if request.exists else what,
        hint="--force replaces its generated files and keeps the hand-written ones",
        details=[f"generated: {shown}"] if shown else [],
    )
