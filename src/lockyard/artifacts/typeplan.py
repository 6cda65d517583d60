"""The plan of one image type: its next spec file, and the rows and notes that tell the reviewer what it means. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lockyard.artifacts.request import ReleaseRequest
from lockyard.conda.bounds import BoundsPolicy, Installed, NextSpec, next_specs
from lockyard.conda.formats import lock_from_tree, lock_json_name
from lockyard.conda.lock import LockedPackage
from lockyard.conda.spec import VARIABLE_RE, EnvIn, SpecLine, format_env_in, parse_env_in, parse_spec
from lockyard.distribution import EnvironmentArg, Variant
from lockyard.errors import ConfigError
from lockyard.tree import File, Tree
from lockyard.version import release_dir

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
class TypePlan:
    """One image type: its spec file, its rows, what to say; `packages` are the base lock's on the first platform."""

    env_in: File
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    packages: Mapping[str, LockedPackage] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Pins:
    """The pinned and the arg-based file of a type, as they will stand in the release."""

    pinned: EnvIn
    arguments: EnvIn
    unset: tuple[str, ...] = ()
    """Arguments that the arg-based file names and nothing gives a value here."""

    def of(self, name: str) -> tuple[str, ...]:
        """Return the lines that bind a package."""
        return tuple(f"{line.where} {line.spec.constraint}".strip() for line in self.lines if line.spec.name == name)

    @property
    def lines(self) -> tuple[SpecLine, ...]:
        return (*self.pinned.lines, *self.arguments.lines)


def plan_type(request: ReleaseRequest, image_type: str, variant: Variant) -> TypePlan:
    """Plan the spec file of one image type.

    Raises:
        ConfigError: an input is missing or does not parse, or a package is asked and removed; file and line are named.

    """
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
    packages, lock_notes = ({}, ()) if fresh else _base_packages(request, image_type, variant)
    installed = {
        name: Installed(item.version, item.channel if item.channel in request.line.channels else None)
        for name, item in packages.items()
    }
    specs = next_specs(base, additional, installed, request.bump, BoundsPolicy(request.line.policies))
    removed = _removed(request, specs)
    specs = tuple(item for item in specs if item.spec.name not in removed)
    pins = _pins(request, image_type, variant)
    notes = [f"{image_type}: new in {request.version}; nothing bounds its packages"] if fresh else []
    notes += [f"{image_type}: {note}" for note in (*lock_notes, *_notes(specs, base, pins))]
    warnings = (*_repeated(additional), *_pinned_all_the_same(removed, pins, request.line_source))
    return TypePlan(
        env_in=File.text(format_env_in(item.spec for item in specs)),
        rows=tuple(_rows(specs, removed, pins, installed)),
        notes=tuple(notes),
        warnings=(
            *base.warnings,
            *additional.warnings,
            *pins.pinned.warnings,
            *pins.arguments.warnings,
            *warnings,
        ),
        packages=packages,
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


def _base_packages(
    request: ReleaseRequest, image_type: str, variant: Variant
) -> tuple[dict[str, LockedPackage], tuple[str, ...]]:
    """Return the base lock's packages on the type's first platform, and notes.

    Of a package that `platform-packages` keeps off that platform, the first of its own platforms tells the version.
    """
    source, line = str(release_dir(request.base)), request.line
    lock = lock_from_tree(request.base_tree, image_type, source=source)
    if lock is None:
        raise ConfigError(
            f"{source}/{lock_json_name(image_type)} is missing (nor is there a {image_type}.env.out): "
            f"the next release starts from what {request.base} installs",
            hint=f"lockyard lock {request.base}",
        )
    platform = variant.platforms[0]
    notes: tuple[str, ...] = ()
    if platform not in lock.platforms:
        notes = (f"the base lock has no {platform}; its {lock.first_platform} is read instead",)
        platform = lock.first_platform
    packages = {item.name: item for item in lock.packages(platform)}
    for text, platforms in line.platform_packages.items():
        name = parse_spec(text, source=f"{request.line_source}: platform-packages").name
        others = (other for other in platforms if other in lock.platforms)
        elsewhere = (item for other in others for item in lock.packages(other) if item.name == name)
        if platform not in platforms and (found := next(elsewhere, None)) is not None:
            packages[name] = found
    return packages, notes


def _removed(request: ReleaseRequest, specs: tuple[NextSpec, ...]) -> dict[str, NextSpec]:
    removed = {}
    names = {name.lower() for name in request.line.removed_packages}
    for item in specs:
        if item.spec.name in names:
            if item.added is not None:
                raise ConfigError(
                    f"{item.added.where}: {item.spec.name} is asked, and {request.line_source} removes it",
                    hint="take it out of one of the two",
                )
            removed[item.spec.name] = item
    return removed


def _repeated(additional: EnvIn) -> Iterator[str]:
    last = {line.spec.name: line for line in additional.lines}
    for line in additional.lines:
        if last[line.spec.name] is not line:
            yield f"{line.where}: {line.spec.name} comes again in line {last[line.spec.name].number}; that one counts"


def _pinned_all_the_same(removed: Mapping[str, NextSpec], pins: _Pins, source: str) -> Iterator[str]:
    for line in pins.lines:
        if line.spec.name in removed:
            yield f"{line.where}: {line.spec.name} is asked here, so it stays though {source} removes it"


def _pins(request: ReleaseRequest, image_type: str, variant: Variant) -> _Pins:
    """Read the type's pinned and arg-based files as the release will hold them: its own, else the base's."""
    given = {name: _argument(value, request.environ) for name, value in variant.args.items()}
    # What only the build's environment knows must not stop a plan: any version stands in for it.
    variables = {name: value or "0" for name, value in given.items()}
    name = f"{image_type}.arg_based_env.in"
    arguments = _own_or_base(request, name, variables)
    tree = request.target_tree if name in request.target_tree else request.base_tree
    named = VARIABLE_RE.findall(tree[name].data.decode()) if name in tree else []
    used = {first or second for first, second in named}
    return _Pins(
        pinned=_own_or_base(request, f"{image_type}.pinned_env.in"),
        arguments=arguments,
        unset=tuple(name for name, value in given.items() if not value and name in used),
    )


def _own_or_base(request: ReleaseRequest, name: str, variables: Mapping[str, str] | None = None) -> EnvIn:
    if name in request.target_tree:
        return _env_in(request.target_tree, name, str(release_dir(request.version)), variables)
    return _env_in(request.base_tree, name, str(release_dir(request.base)), variables)


def _argument(value: str | EnvironmentArg, environ: Mapping[str, str]) -> str:
    return value if isinstance(value, str) else environ.get(value.env) or value.default


def _notes(specs: tuple[NextSpec, ...], base: EnvIn, pins: _Pins) -> Iterator[str]:
    if pins.unset:
        names = ", ".join(f"${name}" for name in pins.unset)
        yield f"{pins.arguments.source}: nothing gives {names} a value here; 0 is shown in its place"
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
