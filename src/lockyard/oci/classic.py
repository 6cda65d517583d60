"""Dockerfiles that a container engine builds: their kind, their arguments, their context, what of them could be native. No I/O here.

A *classic* Dockerfile installs the environment itself. With a lock it gets `{type}.locked_env.in`: every locked package as a
spec of one version and build, so that Dockerfiles which grep in it or append to it still work. A *derived* one begins from
an earlier image.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError
from lockyard.oci.instructions import Instruction, Kind
from lockyard.oci.shellwords import WordError, expand
from lockyard.oci.tar import Entry, write_tar
from lockyard.tree import File, Tree

EngineName = Literal["native", "docker", "buildkit"]
ENGINES: tuple[EngineName, ...] = ("native", "docker", "buildkit")
_SECRET_RE = re.compile(
    r"(?i)(?:^|_)(?:password|passwd|secret|token|credentials?|api_?key|access_?key|private_?key)(?:_|$)"
)
_SYSTEM_RE = re.compile(
    r"\b(?:apt-get|apt|dnf|yum|microdnf|apk|zypper|useradd|adduser|groupadd|addgroup|locale-gen|ldconfig)\b"
)


def dockerfile_of(tree: Mapping[str, File], image_type: str) -> str | None:
    """Return the name of the Dockerfile of an image type: its own patch, else the release's; `None` when there is none."""
    for name in (f"Dockerfile-{image_type}.patch", "Dockerfile"):
        if name in tree:
            return name
    return None


def choose_engine(asked: str, kind: Kind | None, instructions: Sequence[Instruction]) -> tuple[EngineName, str]:
    """Return the engine and why; `asked` is one of `ENGINES` or `auto`.

    Raises:
        BuildError: the native engine is asked for what it cannot build; the message names the line.

    """
    runs = next((item for item in instructions if item.name == "RUN"), None)
    where = instructions[0].where.rpartition(":")[0] if instructions else ""
    if kind is None:
        return "native", "there is no Dockerfile"
    if asked == "auto":
        if kind == "finish" and runs is None:
            return "native", "nothing here needs a container"
        if kind == "finish" and runs is not None:
            return "docker", f"{runs.where} has RUN"
        return "docker", f"{where} is a {kind} Dockerfile"
    if asked == "native" and kind == "finish" and runs is not None:
        raise BuildError(
            f"{runs.where}: RUN needs a container, and the native engine has none",
            hint="--engine docker, or COPY the result, or move the step into Dockerfile.base",
        )
    if asked == "native" and kind in {"classic", "derived"}:
        raise BuildError(
            f"{where} is a {kind} Dockerfile, which needs a container engine",
            hint="--engine docker, or begin it with: ARG ENV_IMAGE, then FROM ${ENV_IMAGE}",
        )
    return next(name for name in ENGINES if name == asked), f"--engine {asked}"


def locked_env_in(packages: Iterable[LockedPackage]) -> bytes:
    """Return `{type}.locked_env.in`: each package as `channel::name[version='==V',build='B']`, in install order."""
    lines = [f"{item.channel}::{item.name}[version='=={item.version}',build='{item.build}']\n" for item in packages]
    return "".join(lines).encode()


def classic_context(
    tree: Mapping[str, File], image_type: str, packages: Sequence[LockedPackage] | None
) -> tuple[Tree, Mapping[str, str]]:
    """Return the files and the build arguments of a classic build; `packages` is the lock's, `None` without a lock.

    The arg-based file is passed only without a lock: with one it is in the lock already.
    """
    files = dict(tree)
    names = {
        "PINNED_ENV_IN_FILENAME": f"{image_type}.pinned_env.in",
        "ARG_BASED_ENV_IN_FILENAME": f"{image_type}.arg_based_env.in",
    }
    args = {key: name for key, name in names.items() if name in tree}
    if packages is None:
        args["ENV_IN_FILENAME"] = f"{image_type}.env.in"
    else:
        name = f"{image_type}.locked_env.in"
        files[name] = File(locked_env_in(packages))
        args["ENV_IN_FILENAME"] = name
        args.pop("ARG_BASED_ENV_IN_FILENAME", None)
    return Tree(files), args


def check_arguments(args: Iterable[str]) -> None:
    """Refuse build arguments whose names are those of secrets: arguments are kept in the image's history.

    Raises:
        BuildError: one is.

    """
    for name in args:
        if _SECRET_RE.search(name):
            raise BuildError(
                f"the build argument {name} looks like a secret: arguments stay in the image's history",
                hint="give it as a build secret: --engine buildkit --secret id=NAME,env=NAME",
            )


def bases_of(instructions: Iterable[Instruction], args: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return `(reference, file:line)` of every image that a Dockerfile begins a stage from, arguments substituted.

    Raises:
        BuildError: a variable in `FROM` cannot be expanded.

    """
    known: dict[str, str] = {}
    stages: set[str] = set()
    found: list[tuple[str, str]] = []
    for item in instructions:
        if item.name == "ARG" and not stages and not found:
            name, equals, default = item.value.partition("=")
            known[name.strip()] = args.get(name.strip(), default.strip("\"'") if equals else "")
        if item.name != "FROM":
            continue
        words = [word for word in item.value.split() if not word.startswith("--")]
        try:
            reference = " ".join(expand(words[0], known)) if words else ""
        except WordError as error:
            raise BuildError(f"{item.where}: FROM: {error}") from error
        if not reference:
            raise BuildError(f"{item.where}: FROM {item.value!r} names no image", hint="give its build argument")
        if reference not in stages and reference != "scratch":
            found.append((reference, item.where))
        if len(words) == 3 and words[1].upper() == "AS":
            stages.add(words[2])
    return tuple(dict(found).items())


def movable_steps(instructions: Iterable[Instruction]) -> tuple[str, ...]:
    """Return `file:line` of the RUN steps that only change the operating system and could move into `Dockerfile.base`."""
    return tuple(item.where for item in instructions if item.name == "RUN" and _SYSTEM_RE.search(item.value))


def context_entries(tree: Mapping[str, File]) -> Iterator[Entry]:
    """Give a build context as the entries of a tar: sorted, with parents, owners and times fixed."""
    seen: set[str] = set()
    for path, file in sorted(tree.items()):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in seen:
                seen.add(parent)
                yield Entry(parent.encode(errors="surrogateescape"), "directory", 0o755)
        name = path.encode(errors="surrogateescape")
        if file.is_link:
            yield Entry(name, "symlink", 0o777, target=file.data)
        else:
            mode = 0o755 if file.mode & 0o111 else 0o644
            yield Entry(name, "file", mode, size=len(file.data), chunks=functools.partial(_whole, file.data))


def context_blocks(tree: Mapping[str, File]) -> Iterator[bytes]:
    """Give the tar of a build context in blocks."""
    blocks: list[bytes] = []
    write_tar(context_entries(tree), lambda block: blocks.append(bytes(block)))
    yield from blocks


def _whole(data: bytes) -> tuple[bytes, ...]:
    return (data,)
