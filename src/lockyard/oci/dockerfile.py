"""The Dockerfile instructions that need no container, for files that begin `FROM ${ENV_IMAGE}`. No I/O here.

Reference: Dockerfile reference 1.x. The files that `COPY` takes are a `Tree`; what changes is returned as a new image and
the entries of new layers. What cannot be done without a container is an error that names the line and the way out.
"""

import fnmatch
import functools
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lockyard.errors import BuildError
from lockyard.oci.image import Image
from lockyard.oci.shellwords import WordError, expand
from lockyard.oci.tar import EPOCH, Entry
from lockyard.tree import File, Tree

Kind = Literal["finish", "classic", "derived"]
_CONTINUED = {"\\": re.compile(r"\\[ \t]*$"), "`": re.compile(r"`[ \t]*$")}
_FLAG_RE = re.compile(r"--([a-z]+)(?:=(\S*))?\s+")
_NAME_RE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_UNSUPPORTED = {"ONBUILD", "HEALTHCHECK"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, the rest of its logical line, where it begins."""

    name: str
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class CopyLayer:
    """The files of one `COPY`: entries without parent directories, and the text for the history."""

    entries: tuple[Entry, ...]
    comment: str


@dataclass
class Finished:
    """What a Dockerfile makes of an image: steps in order, each a change of the image or a new layer."""

    steps: list[Callable[[Image], Image] | CopyLayer] = field(default_factory=list)


def parse(text: str, source: str) -> tuple[Instruction, ...]:
    """Split a Dockerfile into instructions (`source` is its name, for messages).

    Raises:
        BuildError: a line is no instruction, or a here-document is used.

    """
    lines = text.splitlines()
    continued = _CONTINUED[_escape(lines)]
    instructions = []
    number = 0
    while number < len(lines):
        start = number
        line = lines[number].strip()
        number += 1
        if not line or line.startswith("#"):
            continue
        parts = []
        while continued.search(line):
            parts.append(continued.sub("", line))
            # Comments and empty lines inside of a continued instruction do not end it.
            while number < len(lines) and (not lines[number].strip() or lines[number].lstrip().startswith("#")):
                number += 1
            if number == len(lines):
                line = ""
                break
            line = lines[number].rstrip()
            number += 1
        parts.append(line)
        instructions.append(_instruction("".join(parts), f"{source}:{start + 1}"))
    return tuple(instructions)


def _escape(lines: Iterable[str]) -> str:
    for line in lines:
        match = re.fullmatch(r"\s*#\s*(\w+)\s*=\s*(\S+)\s*", line)
        if match is None:
            break
        if match[1].lower() == "escape" and match[2] in _CONTINUED:
            return match[2]
    return "\\"


def _instruction(text: str, where: str) -> Instruction:
    name, _, value = text.strip().replace("\t", " ").partition(" ")
    if not re.fullmatch(r"[A-Za-z]+", name):
        raise BuildError(f"{where}: {name!r} is no Dockerfile instruction")
    if name.upper() in {"COPY", "ADD", "RUN"} and re.search(r"<<-?[\"']?\w", value):
        raise BuildError(
            f"{where}: here-documents need a container engine", hint="put the text into a file and COPY it"
        )
    return Instruction(name.upper(), value.strip(), where)


def kind_of(instructions: Iterable[Instruction]) -> Kind:
    """Return which of the three kinds of Dockerfile this is."""
    for item in instructions:
        if item.name == "FROM" and re.match(r"\$(ENV_IMAGE\b|\{ENV_IMAGE\})", item.value):
            return "finish"
        if item.name == "ARG" and item.value.split("=")[0].strip() == "ENV_IN_FILENAME":
            return "classic"
    return "derived"


def plan_finish(
    instructions: Iterable[Instruction], context: Tree, args: Mapping[str, str], runtime: Mapping[str, Any]
) -> Finished:
    """Work out what a *finish* Dockerfile does to an image whose runtime configuration is `runtime`.

    `context` are the files beside the Dockerfile, `args` the build arguments.

    Raises:
        BuildError: an instruction needs a container, is unknown or malformed; the message begins with file:line.

    """
    return _Finisher(context, args, runtime).work(instructions)


class _Finisher:
    def __init__(self, context: Tree, args: Mapping[str, str], runtime: Mapping[str, Any]) -> None:
        self.context = context
        self.given = args
        self.args: dict[str, str] = {}
        self.environment = dict(item.split("=", 1) for item in runtime.get("Env") or ())
        self.labels = dict(runtime.get("Labels") or {})
        self.sets = {name: dict(runtime.get(name) or {}) for name in ("ExposedPorts", "Volumes")}
        self.workdir = str(runtime.get("WorkingDir") or "/")
        self.shell = ["/bin/sh", "-c"]
        self.cmd_is_set = False
        self.stages = 0
        self.out = Finished()

    def work(self, instructions: Iterable[Instruction]) -> Finished:
        for item in instructions:
            if self.stages == 0 and item.name not in {"ARG", "FROM"}:
                raise BuildError(f"{item.where}: {item.name} before FROM")
            method = getattr(self, f"do_{item.name.lower()}", None)
            if item.name in _UNSUPPORTED:
                raise BuildError(f"{item.where}: {item.name} has no place in an OCI image", hint="remove the line")
            if method is None:
                raise BuildError(f"{item.where}: unknown instruction {item.name}")
            method(item)
        return self.out

    def do_from(self, item: Instruction) -> None:
        self.stages += 1
        if self.stages > 1:
            raise BuildError(f"{item.where}: a second FROM needs a container engine")
        if not re.fullmatch(r"\$(ENV_IMAGE|\{ENV_IMAGE\})", item.value):
            raise BuildError(f"{item.where}: the native engine builds FROM ${{ENV_IMAGE}} only, not {item.value!r}")
        self.args = {}

    def do_run(self, item: Instruction) -> None:
        raise BuildError(
            f"{item.where}: RUN needs a container, and the native engine has none",
            hint="COPY the result instead, or put operating-system steps into the base image",
        )

    def do_maintainer(self, item: Instruction) -> None:
        self._members(item, Author=None, Labels={**self.labels, "maintainer": item.value})
        self.labels["maintainer"] = item.value

    def do_arg(self, item: Instruction) -> None:
        for word in self._words(item):
            name, equals, default = word.partition("=")
            if not _NAME_RE.fullmatch(name):
                raise BuildError(f"{item.where}: ARG {name!r} is not a name")
            if name in self.given:
                self.args[name] = self.given[name]
            elif equals:
                self.args[name] = default

    def do_env(self, item: Instruction) -> None:
        self.environment.update(self._pairs(item))
        self._members(item, Env=[f"{key}={value}" for key, value in self.environment.items()])

    def do_label(self, item: Instruction) -> None:
        self.labels.update(self._pairs(item))
        self._members(item, Labels=dict(self.labels))

    def do_user(self, item: Instruction) -> None:
        self._members(item, User=self._one(item))

    def do_workdir(self, item: Instruction) -> None:
        self.workdir = posixpath.normpath(posixpath.join(self.workdir, self._one(item)))
        self._members(item, WorkingDir=self.workdir)

    def do_entrypoint(self, item: Instruction) -> None:
        # As Docker: an entry point takes back the command of the image below.
        members: dict[str, Any] = {"Entrypoint": self._command(item)}
        self._members(item, **members, **({} if self.cmd_is_set else {"Cmd": None}))

    def do_cmd(self, item: Instruction) -> None:
        self.cmd_is_set = True
        self._members(item, Cmd=self._command(item))

    def do_shell(self, item: Instruction) -> None:
        words = _json_words(item.value)
        if not words:
            raise BuildError(f'{item.where}: SHELL wants a JSON list such as ["/bin/bash", "-c"]')
        self.shell = words

    def do_stopsignal(self, item: Instruction) -> None:
        self._members(item, StopSignal=self._one(item))

    def do_expose(self, item: Instruction) -> None:
        for word in self._words(item):
            if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", word):
                raise BuildError(f"{item.where}: {word!r} is not a port")
            self.sets["ExposedPorts"][word if "/" in word else f"{word}/tcp"] = {}
        self._members(item, ExposedPorts=dict(self.sets["ExposedPorts"]))

    def do_volume(self, item: Instruction) -> None:
        for word in _json_words(item.value) or self._words(item):
            self.sets["Volumes"][self._substitute(word, item)] = {}
        self._members(item, Volumes=dict(self.sets["Volumes"]))

    def do_copy(self, item: Instruction) -> None:
        self._copy(item)

    def do_add(self, item: Instruction) -> None:
        for word in _json_words(_without_flags(item.value)) or _without_flags(item.value).split():
            if "://" in word or word.startswith("git@") or word.endswith(_ARCHIVES):
                raise BuildError(f"{item.where}: ADD of {word!r} needs a container engine", hint="COPY plain files")
        self._copy(item)

    def _members(self, item: Instruction, **members: Any) -> None:
        text = f"{item.name} {item.value}"
        self.out.steps.append(
            lambda image: image.with_config(**members).with_history(text, created=image.config["created"])
        )

    def _copy(self, item: Instruction) -> None:
        value, owner, mode = item.value, (0, 0), None
        while match := _FLAG_RE.match(value):
            value = value[match.end() :]
            match match[1]:
                case "chown":
                    owner = _owner(self._substitute(match[2] or "", item), item)
                case "chmod":
                    mode = _mode(self._substitute(match[2] or "", item), item)
                case "link":
                    pass  # every COPY is a layer of its own here
                case _:
                    raise BuildError(f"{item.where}: {item.name} --{match[1]} needs a container engine")
        listed = _json_words(value)
        words = self._expand(value, item) if listed is None else [self._substitute(word, item) for word in listed]
        if len(words) < 2:
            raise BuildError(f"{item.where}: {item.name} wants at least one source and a destination")
        *sources, target = words
        files = self._files(sources, target, item)
        entries = tuple(_entries(files, owner, mode, item))
        self.out.steps.append(CopyLayer(entries, f"{item.name} {item.value}"))

    def _files(self, sources: list[str], target: str, item: Instruction) -> dict[str, File]:
        found = [match for source in sources for match in self._match(source, item)]
        place = posixpath.normpath(posixpath.join("/", self.workdir, target)).lstrip("/")
        into = target.endswith("/") or target in {".", ""} or len(found) > 1
        if len(found) > 1 and not target.endswith("/"):
            raise BuildError(f"{item.where}: with several sources the destination must end with /")
        out: dict[str, File] = {}
        for name, files in found:
            for relative, file in files.items():
                inner = relative or (posixpath.basename(name) if into else "")
                path = posixpath.normpath(posixpath.join(place, inner))
                if path in {".", ""}:
                    raise BuildError(f"{item.where}: {name} cannot become the root directory")
                out[path] = file
        return out

    def _match(self, source: str, item: Instruction) -> list[tuple[str, dict[str, File]]]:
        """Return the files and directories that a source names; a file has the relative path ""."""
        pattern = posixpath.normpath("/" + source).lstrip("/")
        if ".." in source.split("/"):
            raise BuildError(f"{item.where}: {source!r} is outside of the release directory")
        if not pattern:
            return [("", dict(self.context))]
        depth = pattern.count("/") + 1
        names = sorted({"/".join(path.split("/")[:depth]) for path in self.context if path.count("/") + 1 >= depth})
        found = []
        for name in names:
            parts = zip(name.split("/"), pattern.split("/"), strict=True)
            if name != pattern and not all(fnmatch.fnmatchcase(part, glob) for part, glob in parts):
                continue
            if name in self.context:
                found.append((name, {"": self.context[name]}))
            else:
                start = f"{name}/"
                below = {
                    path.removeprefix(start): file for path, file in self.context.items() if path.startswith(start)
                }
                found.append((name, below))
        if not found:
            raise BuildError(f"{item.where}: the release directory has no {source!r}")
        return found

    def _substitute(self, text: str, item: Instruction) -> str:
        """Replace variables in one word; the environment hides arguments."""
        return " ".join(self._expand(text, item))

    def _expand(self, text: str, item: Instruction) -> list[str]:
        try:
            return expand(text, {**self.args, **self.environment})
        except WordError as error:
            raise BuildError(f"{item.where}: {item.name}: {error}") from error

    def _words(self, item: Instruction) -> list[str]:
        if not item.value:
            raise BuildError(f"{item.where}: {item.name} wants a value")
        return self._expand(item.value, item)

    def _one(self, item: Instruction) -> str:
        words = self._words(item)
        return " ".join(words)

    def _pairs(self, item: Instruction) -> dict[str, str]:
        first, _, rest = item.value.partition(" ")
        if "=" not in first:  # the old form: ENV NAME the rest of the line
            if not rest:
                raise BuildError(f"{item.where}: {item.name} wants NAME=VALUE")
            return {first: self._substitute(rest.strip(), item)}
        pairs = {}
        # All values of one instruction see the environment from before it.
        for word in self._words(item):
            name, equals, value = word.partition("=")
            if not equals or not name:
                raise BuildError(f"{item.where}: {item.name} {word!r} is not NAME=VALUE")
            pairs[name] = value
        return pairs

    def _command(self, item: Instruction) -> list[str]:
        words = _json_words(item.value)
        if words is not None:
            return words
        if not item.value:
            raise BuildError(f"{item.where}: {item.name} wants a value")
        return [*self.shell, item.value]


def _json_words(value: str) -> list[str] | None:
    """Return the words of the exec form, `None` when it is not one."""
    if not value.startswith("["):
        return None
    try:
        words = json.loads(value)
    except json.JSONDecodeError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _without_flags(value: str) -> str:
    while match := _FLAG_RE.match(value):
        value = value[match.end() :]
    return value


def _owner(text: str, item: Instruction) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?", text)
    if match is None:
        raise BuildError(f"{item.where}: --chown={text}: write numbers, UID or UID:GID")
    return int(match[1]), int(match[2] or match[1])


def _mode(text: str, item: Instruction) -> int:
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise BuildError(f"{item.where}: --chmod={text}: write an octal mode such as 0755")
    return int(text, 8)


def _entries(files: Mapping[str, File], owner: tuple[int, int], mode: int | None, item: Instruction) -> Iterator[Entry]:
    """Give the entries of a COPY, without directories: those that exist in the image below keep what they are."""
    uid, gid = owner
    for path, file in sorted(files.items()):
        if any(part.startswith(".wh.") for part in path.split("/")):
            raise BuildError(f"{item.where}: {path}: names that begin with .wh. mean removed files in a layer")
        name = path.encode(errors="surrogateescape")
        if file.is_link:
            yield Entry(name, "symlink", 0o777, uid, gid, target=file.data)
            continue
        # Only the executable bit of a checkout means something; the rest depends on the umask.
        bits = mode if mode is not None else 0o755 if file.mode & 0o111 else 0o644
        yield Entry(name, "file", bits, uid, gid, EPOCH, len(file.data), chunks=functools.partial(_whole, file.data))


def _whole(data: bytes) -> tuple[bytes, ...]:
    return (data,)
