"""Use cases around base images: open one for a build, pin the references of `variants.toml` to digests."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs
from lockyard.app.workspace import Workspace, decode
from lockyard.distribution import Line, parse_line
from lockyard.engines.request import Base
from lockyard.errors import BuildError, DriftError
from lockyard.oci.basefile import BuiltBase, parse_bases
from lockyard.oci.bases import BaseOpener
from lockyard.oci.cache import BlobCache
from lockyard.oci.image import canonical_json, oci_platform
from lockyard.oci.pulled import PulledBases, resolve
from lockyard.oci.values import Digest, Reference
from lockyard.ports import Toolbox
from lockyard.ports.registry import RegistryPort
from lockyard.strict import line_of
from lockyard.tree import File, Tree
from lockyard.version import Version

DOCKERFILE = "Dockerfile.base"
BASES = "bases.json"
_LINE_RE = re.compile(r"v\d+")


def open_base(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    image_type: str,
    platform: str,
    *,
    created: str,
    executor: Executor,
) -> Base:
    """Open the base of an image: what `build-base` made where the line has a `bases.json`, else what `variants.toml` names.

    Raises:
        BuildError: it is missing, malformed or not for the platform.
        RegistryError: its registry does not give it.

    """
    built = _built_base(toolbox, workspace, version, image_type, platform)
    if built is None:
        return configured_base(
            toolbox, workspace, version, image_type, platform, created=created, executor=executor
        )  # fmt: skip
    where, base = built
    layout = base_layout(workspace, version, image_type, platform)
    local = f"oci:{layout.relative_to(workspace.root)}"
    opener = _opener(toolbox, workspace, version, image_type, created, executor)
    if layout.is_dir():
        found = opener.open(local, oci_platform(platform))
        if found.digest == base.digest:
            return replace(found, reference=base.reference or local)
    if base.reference is None:
        raise BuildError(
            f"{where}: the base {base.digest} of {image_type} {platform} is not on this machine and in no registry",
            hint="lockyard build-base with --target-ecr-repo keeps it where every machine finds it",
        )
    return opener.open(base.reference, oci_platform(platform))


def configured_base(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    image_type: str,
    platform: str,
    *,
    created: str,
    executor: Executor,
) -> Base:
    """Open the base that `variants.toml` names; one in a registry is pulled, and a tag without a digest gives a warning.

    Raises:
        BuildError: it is missing, malformed or not for the platform.
        RegistryError: its registry does not give it.

    """
    reference = workspace.line(version).variant(image_type).base_for(platform)
    path = workspace.line_path(version)
    source = str(path.relative_to(workspace.root))
    if in_registry(reference) and Reference.parse(reference).digest is None:
        text = decode(path.read_bytes(), source)
        where = f"{source}:{line_of(text, _key_path(workspace.line(version), image_type, platform))}"
        toolbox.log.warning(
            f"{where}: base {reference!r} has no digest: the same lock may give another image tomorrow; "
            "lockyard pin-bases writes it"
        )
    return _opener(toolbox, workspace, version, image_type, created, executor).open(reference, oci_platform(platform))


def _opener(
    toolbox: Toolbox, workspace: Workspace, version: Version, image_type: str, created: str, executor: Executor
) -> BaseOpener:
    return BaseOpener(
        root=workspace.root, source=str(workspace.line_path(version).relative_to(workspace.root)), created=created,
        cache=BlobCache(toolbox.cache_dir), pulled=PulledBases(toolbox.cache_dir, toolbox.log),
        registry=lambda repository: toolbox.registry(repository, pull_only=True),
        compression=workspace.line(version).variant(image_type).compression, executor=executor, log=toolbox.log,
    )  # fmt: skip


def base_directory(workspace: Workspace, version: Version) -> Path | None:
    """Return the template directory of the line that holds `Dockerfile.base`: the minor line's, else the major's."""
    major = workspace.root / "template" / f"v{version.major}"
    for directory in (major / f"v{version.major}.{version.minor}", major):
        if (directory / DOCKERFILE).is_file():
            return directory
    return None


def base_layout(workspace: Workspace, version: Version, image_type: str, platform: str) -> Path:
    """Return where `build-base` keeps an image on this machine."""
    return workspace.root / "out" / "bases" / f"{version.major}.{version.minor}" / image_type / platform


def base_inputs(context: Tree, reference: str) -> str:
    """Return the digest of what a base is made from: `Dockerfile.base`, and what it begins from."""
    return str(Digest.of(canonical_json([str(Digest.of(context[DOCKERFILE].data)), reference])))


def read_bases(workspace: Workspace, directory: Path) -> dict[str, dict[str, BuiltBase]]:
    """Return what `bases.json` of a line holds, nothing without the file.

    Raises:
        ConfigError: it is malformed.

    """
    data = fs.read_file(directory / BASES)
    return {} if data is None else parse_bases(data, str((directory / BASES).relative_to(workspace.root)))


def _built_base(
    toolbox: Toolbox, workspace: Workspace, version: Version, image_type: str, platform: str
) -> tuple[str, BuiltBase] | None:
    """Return the line of `bases.json` for an image and the file's path; one made from other inputs gives a warning."""
    directory = base_directory(workspace, version)
    if directory is None:
        return None
    where = str((directory / BASES).relative_to(workspace.root))
    line = f"{version.major}.{version.minor}"
    found = read_bases(workspace, directory).get(image_type, {}).get(platform)
    if found is None:
        raise BuildError(f"{where} has no base for {image_type} {platform}", hint=f"lockyard build-base {line}")
    tree = Tree({DOCKERFILE: File((directory / DOCKERFILE).read_bytes())})
    if base_inputs(tree, workspace.line(version).variant(image_type).base_for(platform)) != found.inputs:
        toolbox.log.warning(
            f"{where}: the base of {image_type} {platform} was made from another {DOCKERFILE} or another base: lockyard build-base {line}"
        )
    return where, found


def planned_base(workspace: Workspace, version: Version, image_type: str, platform: str) -> tuple[str, str]:
    """Return what an image will begin from, without opening it: its reference, and its digest, empty where it is not pinned.

    Raises:
        ConfigError: `bases.json` is malformed.

    """
    directory = base_directory(workspace, version)
    built = read_bases(workspace, directory).get(image_type, {}).get(platform) if directory is not None else None
    if built is not None:
        layout = base_layout(workspace, version, image_type, platform).relative_to(workspace.root)
        return built.reference or f"oci:{layout}", built.digest
    base = workspace.line(version).variant(image_type).base_for(platform)
    digest = base.partition("@")[2]
    return base, digest if digest.startswith("sha256:") else ""


def in_registry(reference: str) -> bool:
    """Say whether a base is a reference in a registry."""
    return reference != "scratch" and reference.partition(":")[0] not in {"oci", "rootfs"}


@dataclass(frozen=True, slots=True)
class Pin:
    """A base of `variants.toml`: where it stands (`path` to its key, `where` as file:line), what it is and becomes."""

    path: tuple[str, ...]
    where: str
    old: str
    new: str

    @property
    def changed(self) -> bool:
        """Whether the file would change."""
        return self.old != self.new


def pin_bases(
    toolbox: Toolbox,
    workspace: Workspace,
    *,
    version: Version | None = None,
    dry_run: bool = False,
    check: bool = False,
) -> tuple[Pin, ...]:
    """Write the digest that each base's tag has now into `variants.toml`, of all major lines or that of `version`.

    A base by digest alone stays. Everything is resolved before anything is written; comments and order are kept.
    `check` and `dry_run` write nothing.

    Raises:
        DriftError: with `check`, a base has no digest or its tag has moved.
        BuildError: a reference leads to nothing, or has not got a platform of its variant.
        RegistryError: a registry cannot be asked.

    """
    files = [workspace.line_path(version)] if version is not None else _line_files(workspace.root)
    if version is not None:
        workspace.line(version)  # says so when it is missing
    with contextlib.ExitStack() as stack:
        ask = functools.cache(
            lambda repository: stack.enter_context(contextlib.closing(toolbox.registry(repository, pull_only=True)))
        )
        found = {path: _pins_of(workspace, path, ask) for path in files}
    pins = tuple(pin for items in found.values() for pin in items)
    drift = [f"{pin.where}: {pin.old} is {pin.new} now" for pin in pins if pin.changed]
    if check and drift:
        raise DriftError(
            f"{len(drift)} of {len(pins)} bases are not pinned to what their tags lead to", hint="lockyard pin-bases",
            details=drift,
        )  # fmt: skip
    if drift and not dry_run:
        with workspace.lock():
            for path, items in found.items():
                if any(pin.changed for pin in items):
                    fs.atomic_write(path, _edited(path.read_text(), items).encode())
    return pins


def _pins_of(workspace: Workspace, path: Path, ask: Callable[[str], RegistryPort]) -> tuple[Pin, ...]:
    source = str(path.relative_to(workspace.root))
    text = decode(path.read_bytes(), source)
    pins = []
    for key, platforms, reference in _wanted(parse_line(text, source=source)):
        digest = resolve(reference, ask(reference.repository), {name: oci_platform(name) for name in platforms})
        pinned = replace(reference, tag=reference.tag or "latest", digest=digest)
        pins.append(Pin(key, f"{source}:{line_of(text, list(key))}", str(reference), str(pinned)))
    return tuple(pins)


def _line_files(root: Path) -> list[Path]:
    places = [path for path in (root / "template").glob("v*/variants.toml") if _LINE_RE.fullmatch(path.parent.name)]
    return sorted(places, key=lambda path: int(path.parent.name[1:]))


def _wanted(line: Line) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Reference]]:
    """Give (path of the key, platforms that it is for, reference) of the bases that have a tag to follow."""
    for name, variant in line.variants.items():
        own = [item for item in variant.platforms if (entry := variant.platform.get(item)) and entry.base is not None]
        shared = tuple(item for item in variant.platforms if item not in own)
        places = [(("variants", name, "base"), shared, variant.base)] if shared else []
        for path, platforms, text in [
            *places,
            *((("variants", name, "platform", item, "base"), (item,), variant.base_for(item)) for item in own),
        ]:
            if in_registry(text):
                reference = Reference.parse(text)
                if reference.tag is not None or reference.digest is None:
                    yield path, platforms, reference


def _key_path(line: Line, image_type: str, platform: str) -> list[str]:
    own = line.variant(image_type).platform.get(platform)
    if own is not None and own.base is not None:
        return ["variants", image_type, "platform", platform, "base"]
    return ["variants", image_type, "base"]


def _edited(text: str, pins: tuple[Pin, ...]) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    for pin in pins:
        *tables, key = pin.path
        table: Mapping[str, object] = document
        for name in tables:
            table = table[name]  # type: ignore[assignment]  # the path of a parsed line: tables all the way
        table[key] = pin.new  # type: ignore[index]  # a table of tomlkit
    return tomlkit.dumps(document)
