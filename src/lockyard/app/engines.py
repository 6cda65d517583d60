"""Which engine builds an image, and builds by container engines: their logs, their layouts, locks read out of them."""

import contextlib
import graphlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.app.workspace import Workspace, decode
from lockyard.conda.formats import env_out_name, write_env_out
from lockyard.conda.lock import LockedPackage
from lockyard.distribution import EnvironmentArg, Variant
from lockyard.errors import BuildError, ConfigError, LockyardError
from lockyard.oci.classic import EngineName, bases_of, choose_engine, dockerfile_of, movable_steps
from lockyard.oci.condameta import read_records
from lockyard.oci.instructions import Instruction, Kind, kind_of, parse
from lockyard.ports import Log, Toolbox
from lockyard.ports.containers import Builder, BuildSecret
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir

AUTO = "auto"
_STEP_RE = re.compile(r"Step \d+/\d+ : |#\d+ \[")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What the user says of engines: `engine` is `auto` or one of them; `no_cache` makes every step of a Dockerfile run again.

    `builder` is a name of `docker buildx ls`. `secrets` are for steps that mount them; both are BuildKit's alone.

    Raises:
        ConfigError: they are given to another engine.

    """

    engine: str = AUTO
    builder: str | None = None
    secrets: tuple[BuildSecret, ...] = ()
    no_cache: bool = False

    def __post_init__(self) -> None:
        if self.engine != "buildkit" and (self.builder is not None or self.secrets):
            option = "--builder" if self.builder is not None else "--secret"
            raise ConfigError(
                f"{option} is for BuildKit, and the engine is {self.engine}", hint="add --engine buildkit"
            )


DEFAULT = EngineOptions()


@dataclass(frozen=True)
class Choice:
    """The engine of an image type, and why; `dockerfile` is its path in the distribution, `kind` `None` without one."""

    engine: EngineName
    why: str
    kind: Kind | None
    dockerfile: str | None
    instructions: tuple[Instruction, ...]

    @property
    def needs_lock(self) -> bool:
        """Whether the image is made of the lock; else a lock can be read out of it."""
        return self.kind in {None, "finish"}


def choose(tree: Tree, version: Version, image_type: str, options: EngineOptions) -> Choice:
    """Look at the Dockerfile of an image type and choose its engine.

    Raises:
        BuildError: the Dockerfile is malformed, or not for the engine that was asked for.

    """
    name = dockerfile_of(tree, image_type)
    if name is None:
        engine, why = choose_engine(options.engine, None, ())
        return Choice(engine, why, None, None, ())
    path = str(release_dir(version) / name)
    instructions = parse(decode(tree[name].data, path), path)
    kind = kind_of(instructions)
    engine, why = choose_engine(options.engine, kind, instructions)
    return Choice(engine, why, kind, path, instructions)


def say_choice(log: Log, image_type: str, choice: Choice) -> None:
    """Tell which engine builds, and which steps of the Dockerfile could be made once instead of at every release."""
    if choice.kind is not None:
        log.info(f"{image_type}: engine {choice.engine}: {choice.why}")
    if choice.engine != "native":
        for where in movable_steps(choice.instructions) if choice.kind == "finish" else ():
            log.info(f"{where}: this step changes the operating system only; in Dockerfile.base it runs once a line")


def open_engine(toolbox: Toolbox, choices: Iterable[Choice], options: EngineOptions) -> Builder:
    """Open the engine that builds what is not native.

    Raises:
        BuildError: it is not to be had; the message says why it is needed.
        ConfigError: a build secret is not there.

    """
    try:
        if options.engine == "buildkit":
            return toolbox.buildkit(options.builder, options.secrets)
        return toolbox.containers()
    except BuildError as error:
        why = next(choice.why for choice in choices if choice.engine != "native")
        raise type(error)(f"{why}, and {error.message}", hint=error.hint) from error


def resolved_bases(containers: Builder, choice: Choice, args: Mapping[str, str], log: Log) -> list[dict[str, str]]:
    """Return what a Dockerfile begins from, each reference with the digest that the engine has under it."""
    if choice.kind == "finish":
        return []
    found = []
    for reference, where in bases_of(choice.instructions, args):
        digest = containers.identify(reference)
        if digest is None:
            continue  # a stage that the builder left out
        if "@" not in reference:
            log.detail(f"{where}: {reference} is {digest}")
        found.append({"reference": reference, "digest": digest, "where": where})
    return found


@contextlib.contextmanager
def build_log(
    workspace: Workspace, version: Version, image_type: str, platform: str, log: Log
) -> Iterator[Callable[[str], None]]:
    """Give what takes the lines of an engine's log: kept in `.lockyard/logs/`, and shown with `-v`, named by image type.

    Raises:
        BuildError: what the build raised, with the place of the whole log in its hint.

    """
    place = log_path(workspace, version, image_type, platform)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", encoding="utf-8", buffering=1) as stream:

        def say(line: str) -> None:
            stream.write(line + "\n")
            (log.info if _STEP_RE.match(line) else log.detail)(f"{image_type} | {line}")

        try:
            yield say
        except BuildError as error:
            where = place.relative_to(workspace.root)
            hint = error.hint or f"the whole log is in {where}"
            raise type(error)(error.message, hint=hint, details=error.details) from error


def locked_by_image(
    records: Mapping[str, bytes], tree: Tree, version: Version, image_type: str, platform: str, first: str
) -> tuple[str, File, tuple[LockedPackage, ...]]:
    """Return name, text and packages of the `env.out` that describes what is in an image.

    Raises:
        BuildError: the release has one already, and it says something else.

    """
    packages = install_order(read_records(records, what=f"{image_type} {platform}"))
    name = env_out_name(image_type, platform, first)
    data = write_env_out(packages, platform).encode()
    if name in tree:
        old = {line for line in tree[name].data.decode().splitlines() if "://" in line or line.startswith("file:")}
        new = {line for line in data.decode().splitlines() if "://" in line or line.startswith("file:")}
        if old != new:
            details = [f"{line}: only in the file" for line in sorted(old - new)]
            details += [f"{line}: only in the image" for line in sorted(new - old)]
            raise BuildError(
                f"{release_dir(version) / name} is not what the image holds: {len(old ^ new)} differences",
                details=details[:40],
                hint="remove the file to take what the image holds, or mend the Dockerfile",
            )
    return name, File(data), packages


def install_order(packages: Sequence[LockedPackage]) -> tuple[LockedPackage, ...]:
    """Return packages so that each comes after what it depends on, else by name; circles are cut by name."""
    by_name = {package.name: package for package in sorted(packages, key=lambda item: item.name)}
    graph: dict[str, set[str]] = {name: set() for name in by_name}
    for package in by_name.values():
        for text in package.depends:
            needed = text.split(" ", 1)[0]
            if needed in by_name and needed != package.name:
                graph[package.name].add(needed)
    done: list[str] = []
    while graph:
        sorter = graphlib.TopologicalSorter(graph)
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            circle = sorted(set(error.args[1]))
            graph[circle[0]] -= set(circle)
            continue
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            done += ready
            sorter.done(*ready)
        break
    return tuple(by_name[name] for name in done)


@contextlib.contextmanager
def told_when_full(toolbox: Toolbox, workspace: Workspace) -> Iterator[None]:
    """Say which places have how much room when a disk is full.

    Raises:
        BuildError: it is.

    """
    try:
        yield
    except OSError as error:
        if not fs.is_full(error):
            raise
        places = {"the cache": toolbox.cache_dir, "the distribution": workspace.root}
        details = [f"{fs.free_bytes(path):,} bytes are free for {what}: {path}" for what, path in places.items()]
        raise BuildError(
            "the disk is full", details=details,
            hint="lockyard cache prune makes room; what is finished stays in the cache, so build again",
        ) from error  # fmt: skip


def log_path(workspace: Workspace, version: Version, image_type: str, platform: str) -> Path:
    """Return where the log of a container engine's build is."""
    return workspace.state_dir / "logs" / f"{version}-{image_type}-{platform}.log"


def first_failure(errors: Sequence[BaseException]) -> BaseException:
    """Return the failure to show of several images': the first, with the others named."""
    first, *rest = errors
    if not rest or not isinstance(first, LockyardError):
        return first
    details = [*first.details, *(f"and {error}" for error in rest)]
    return type(first)(first.message, hint=first.hint, details=details)


def variant_args(variant: Variant, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the build arguments of a variant, those from the environment read."""
    return {
        name: environ.get(value.env, value.default) if isinstance(value, EnvironmentArg) else value
        for name, value in variant.args.items()
    }
