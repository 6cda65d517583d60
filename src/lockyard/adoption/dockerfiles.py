"""What a Dockerfile of an existing distribution tells: its kind, arguments, bases, what stops the native engine. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lockyard.conda.spec import VARIABLE_RE
from lockyard.errors import BuildError
from lockyard.oci.classic import movable_steps
from lockyard.oci.instructions import Instruction, Kind, kind_of, parse
from lockyard.oci.shellwords import WordError, expand

OWN_ARGUMENTS = frozenset(
    {"ENV_IN_FILENAME", "PINNED_ENV_IN_FILENAME", "ARG_BASED_ENV_IN_FILENAME", "IMAGE_VERSION", "ENV_IMAGE"}
)
"""The build arguments that a build gives by itself."""
_INSTALL_RE = re.compile(
    r"\b(?:micromamba|mamba|conda)\s+(?:-\S+\s+)*(?:install|create|update|env\s+(?:create|update))\b"
)
_FINISH_RE = re.compile(r"^\s*FROM\s+\$\{?ENV_IMAGE\b", re.MULTILINE | re.IGNORECASE)
_CLASSIC_RE = re.compile(r"^\s*ARG\s+ENV_IN_FILENAME\b", re.MULTILINE | re.IGNORECASE)
_ARG_RE = re.compile(r"(?:^|\s)([A-Za-z_]\w*)(?:(=)(\"[^\"]*\"|'[^']*'|\S*))?", re.ASCII)
_COPY_FLAGS_RE = re.compile(r"--(?!chown=|chmod=|link\b)([a-z-]+)")


@dataclass(frozen=True, slots=True)
class Argument:
    """A build argument; `default` is `None` where the Dockerfile gives none."""

    name: str
    default: str | None
    where: str


@dataclass(frozen=True, slots=True)
class BaseLine:
    """A `FROM` of an image that is no stage: its text, and the arguments in it."""

    text: str
    arguments: tuple[str, ...]
    where: str

    def resolve(self, values: Mapping[str, str]) -> str | None:
        """Return the reference with `values` in it, `None` when one is not known."""
        if any(not values.get(name) for name in self.arguments):
            return None
        try:
            return " ".join(expand(self.text, values)) or None
        except WordError:
            return None


@dataclass(frozen=True, slots=True)
class Blocker:
    """A line that the native engine cannot do, and the way out."""

    where: str
    what: str
    way: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerfileFacts:
    """What one Dockerfile tells; `path` is relative to the root."""

    path: str
    kind: Kind
    arguments: tuple[Argument, ...] = ()
    bases: tuple[BaseLine, ...] = ()
    blockers: tuple[Blocker, ...] = ()

    @property
    def defaults(self) -> dict[str, str]:
        """The values that the Dockerfile itself gives its arguments."""
        return {item.name: item.default for item in self.arguments if item.default}

    @property
    def open(self) -> tuple[str, ...]:
        """The arguments that a build must be given: no default, and none of those that every build gives."""
        given = {item.name for item in self.arguments if item.default is not None} | OWN_ARGUMENTS
        return tuple(dict.fromkeys(item.name for item in self.arguments if item.name not in given))


def read_dockerfile(text: str, path: str) -> DockerfileFacts:
    """Read a Dockerfile (`path` is relative to the root); one that does not parse is a fact, too."""
    try:
        instructions = parse(text, path)
    except BuildError as error:
        kind: Kind = "finish" if _FINISH_RE.search(text) else "classic" if _CLASSIC_RE.search(text) else "derived"
        where, _, what = error.message.partition(": ")
        return DockerfileFacts(path=path, kind=kind, blockers=(Blocker(where, what, error.hint or "mend the line"),))
    kind = kind_of(instructions)
    return DockerfileFacts(
        path=path,
        kind=kind,
        arguments=tuple(_arguments(instructions)),
        bases=tuple(_bases(instructions)),
        blockers=tuple(_blockers(instructions, kind)),
    )


def _arguments(instructions: Iterable[Instruction]) -> Iterator[Argument]:
    seen: set[str] = set()
    for item in instructions:
        for name, equals, default in _ARG_RE.findall(item.value) if item.name == "ARG" else ():
            if name not in seen:
                seen.add(name)
                yield Argument(name, _unquoted(default) if equals else None, item.where)


def _bases(instructions: Iterable[Instruction]) -> Iterator[BaseLine]:
    stages: set[str] = set()
    for item in instructions:
        words = [word for word in item.value.split() if not word.startswith("--")]
        if item.name != "FROM" or not words:
            continue
        names = tuple(dict.fromkeys(first or second for first, second in VARIABLE_RE.findall(words[0])))
        if words[0] not in stages and words[0] != "scratch" and names != ("ENV_IMAGE",):
            yield BaseLine(words[0], names, item.where)
        if len(words) == 3 and words[1].upper() == "AS":
            stages.add(words[2])


def _blockers(instructions: Sequence[Instruction], kind: Kind) -> Iterator[Blocker]:
    movable = set(movable_steps(instructions))
    stages = 0
    for item in instructions:
        if item.name == "FROM":
            stages += 1
            if stages > 1:
                yield Blocker(item.where, "a second stage", "COPY its result, or keep --engine docker")
            elif kind != "finish":
                way = "begin with ARG ENV_IMAGE, then FROM ${ENV_IMAGE}; the base goes into variants.toml"
                yield Blocker(item.where, f"a {kind} Dockerfile has its own base", way)
        elif item.name == "RUN":
            yield _run(item, movable)
        elif item.name == "ONBUILD":
            yield Blocker(item.where, "ONBUILD has no place in an OCI image", "remove the line")
        elif item.name in {"COPY", "ADD"}:
            yield from _copy(item)


def _run(item: Instruction, movable: set[str]) -> Blocker:
    installs, system = _INSTALL_RE.search(item.value) is not None, item.where in movable
    if installs and not system:
        return Blocker(item.where, "RUN installs packages", "the environment image has them: the step goes")
    if system and not installs:
        return Blocker(item.where, "RUN changes the operating system", "once a line, in Dockerfile.base")
    if installs:
        way = "the packages come with the environment image; the rest goes into Dockerfile.base"
        return Blocker(item.where, "RUN installs packages and changes the operating system", way)
    return Blocker(item.where, "RUN", "COPY the result, move it into Dockerfile.base, or keep --engine docker")


def _copy(item: Instruction) -> Iterator[Blocker]:
    flags = " ".join(word for word in item.value.split() if word.startswith("--"))
    if match := _COPY_FLAGS_RE.search(flags):
        yield Blocker(item.where, f"{item.name} --{match[1]}", "COPY a file that you keep, or keep --engine docker")
    elif item.name == "ADD" and any("://" in word or word.startswith("git@") for word in item.value.split()):
        yield Blocker(item.where, "ADD of an address", "COPY a file that you keep")


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
