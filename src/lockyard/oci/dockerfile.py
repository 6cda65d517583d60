"""The Dockerfile instructions that need no container, for files that begin `FROM ${ENV_IMAGE}`. No I/O here.

Reference: Dockerfile reference 1.x. The files that `COPY` takes are a `Tree`; what changes is returned as a new image and
the entries of new layers. What cannot be done without a container is an error that names the line and the way out.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lockyard.errors import BuildError
from lockyard.oci.copying import Copier, Copy, Unpack
from lockyard.oci.image import Image
from lockyard.oci.instructions import FLAG_RE, Instruction, json_words, without_flags
from lockyard.oci.rootview import RootView
from lockyard.oci.shellwords import WordError, expand, expand_word
from lockyard.oci.tar import Entry
from lockyard.tree import Tree

_NAME_RE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DURATION_RE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_ARGS_WITHOUT_ARG = frozenset(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
"""Predefined arguments: builds know them without an ARG; they reach commands only, so nothing here depends on them."""


@dataclass(frozen=True, slots=True)
class CopyLayer:
    """The files and new directories of one instruction, and the text for the history."""

    entries: tuple[Entry, ...]
    comment: str


@dataclass
class Finished:
    """What a Dockerfile makes of an image: steps in order, each a change of the image or a new layer."""

    steps: list[Callable[[Image], Image] | CopyLayer] = field(default_factory=list)


def plan_finish(
    instructions: Iterable[Instruction],
    context: Tree,
    args: Mapping[str, str],
    runtime: Mapping[str, Any],
    *,
    view: Callable[[], RootView] = RootView,
    unpack: Unpack = lambda _, __: None,
    platform: Mapping[str, str] | None = None,
) -> Finished:
    """Work out what a *finish* Dockerfile does to an image whose runtime configuration is `runtime`.

    `context` are the files beside the Dockerfile, `args` the build arguments, `platform` the OCI platform. `view` gives
    what is known of the image's files, when an instruction needs it; `unpack` opens archives for `ADD`.

    Raises:
        BuildError: an instruction needs a container, is unknown or malformed; the message begins with file:line.

    """
    return _Finisher(context, args, runtime, view, unpack, platform or {}).work(instructions)


class _Finisher:
    def __init__(
        self,
        context: Tree,
        args: Mapping[str, str],
        runtime: Mapping[str, Any],
        view: Callable[[], RootView],
        unpack: Unpack,
        platform: Mapping[str, str],
    ) -> None:
        self.context = context
        self.given = args
        self.args: dict[str, str] = {}
        self.before = _platform_args(platform)
        """What ARG instructions after FROM find: the platform, and those before FROM."""
        self.environment = dict(item.split("=", 1) for item in runtime.get("Env") or ())
        self.labels = dict(runtime.get("Labels") or {})
        self.sets = {name: dict(runtime.get(name) or {}) for name in ("ExposedPorts", "Volumes")}
        self.workdir = str(runtime.get("WorkingDir") or "/")
        self.user = str(runtime.get("User") or "")
        self.shell = list(runtime.get("Shell") or ["/bin/sh", "-c"])
        self.cmd_is_set = False
        self.stages = 0
        self.out = Finished()
        self._make_view = view
        self._unpack = unpack
        self._view: RootView | None = None
        self._made: Copier | None = None

    @property
    def view(self) -> RootView:
        """What is known of the files below; found out at first use."""
        if self._view is None:
            self._view = self._make_view()
        return self._view

    @property
    def copier(self) -> Copier:
        """Copies into the view."""
        if self._made is None:
            self._made = Copier(self.context, self.view, self._unpack)
        return self._made

    def work(self, instructions: Iterable[Instruction]) -> Finished:
        for item in instructions:
            if self.stages == 0 and item.name not in {"ARG", "FROM"}:
                raise BuildError(f"{item.where}: {item.name} before FROM")
            method = getattr(self, f"do_{item.name.lower()}", None)
            if item.name == "ONBUILD":
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
        self.before, self.args = {**self.before, **self.args}, {}

    def do_run(self, item: Instruction) -> None:
        raise BuildError(
            f"{item.where}: RUN needs a container, and the native engine has none",
            hint="COPY the result instead, put operating-system steps into the base image, or build with --engine docker",
        )

    def do_maintainer(self, item: Instruction) -> None:
        text = f"{item.name} {item.value}"
        self.out.steps.append(
            lambda image: image.with_author(item.value).with_history(text, created=image.config["created"])
        )

    def do_arg(self, item: Instruction) -> None:
        for word in self._words(item):
            name, equals, default = word.partition("=")
            if not _NAME_RE.fullmatch(name):
                raise BuildError(f"{item.where}: ARG {name!r} is not a name")
            if name in self.given and name not in _ARGS_WITHOUT_ARG:
                self.args[name] = self.given[name]
            elif equals:
                self.args[name] = default
            elif self.stages and name in self.before:
                self.args[name] = self.before[name]

    def do_env(self, item: Instruction) -> None:
        self.environment.update(self._pairs(item))
        self._members(item, Env=[f"{key}={value}" for key, value in self.environment.items()])

    def do_label(self, item: Instruction) -> None:
        self.labels.update(self._pairs(item))
        self._members(item, Labels=dict(self.labels))

    def do_user(self, item: Instruction) -> None:
        self.user = self._one(item)
        self._members(item, User=self.user)

    def do_workdir(self, item: Instruction) -> None:
        self.workdir = posixpath.normpath(posixpath.join("/", self.workdir, self._one(item)))
        workdir = self.workdir
        missing = self.copier.directories(workdir, self._owner(self.user, item, "USER") if self.user else (0, 0))
        if not missing:
            self._members(item, WorkingDir=workdir)
            return
        self.out.steps.append(CopyLayer(missing, f"{item.name} {item.value}"))
        self.out.steps.append(lambda image: image.with_config(WorkingDir=workdir))

    def do_entrypoint(self, item: Instruction) -> None:
        # As Docker: an entry point takes back the command of the image below.
        members: dict[str, Any] = {"Entrypoint": self._command(item)}
        self._members(item, **members, **({} if self.cmd_is_set else {"Cmd": None}))

    def do_cmd(self, item: Instruction) -> None:
        self.cmd_is_set = True
        self._members(item, Cmd=self._command(item))

    def do_shell(self, item: Instruction) -> None:
        words = json_words(item.value)
        if not words:
            raise BuildError(f'{item.where}: SHELL wants a JSON list such as ["/bin/bash", "-c"]')
        self.shell = words
        self._members(item, Shell=words)

    def do_healthcheck(self, item: Instruction) -> None:
        self._members(item, Healthcheck=self._health(item))

    def _health(self, item: Instruction) -> dict[str, Any]:
        """Return the member that container engines read (no part of the OCI specification, which allows more members)."""
        value, check = item.value, {}
        names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod", "retries": "Retries"}
        while match := FLAG_RE.match(value):
            value = value[match.end() :]
            text = self._substitute(match[2] or "", item)
            if match[1] not in names:
                raise BuildError(f"{item.where}: HEALTHCHECK --{match[1]} is unknown")
            check[names[match[1]]] = _count(text, item) if match[1] == "retries" else _nanoseconds(text, item)
        kind, _, command = value.partition(" ")
        if kind.upper() == "NONE" and not command.strip() and not check:
            return {"Test": ["NONE"]}
        if kind.upper() != "CMD" or not command.strip():
            raise BuildError(f"{item.where}: HEALTHCHECK wants CMD and a command, or NONE")
        words = json_words(command.strip())
        return {"Test": ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words], **check}

    def do_stopsignal(self, item: Instruction) -> None:
        self._members(item, StopSignal=self._one(item))

    def do_expose(self, item: Instruction) -> None:
        for word in self._words(item):
            if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", word):
                raise BuildError(f"{item.where}: {word!r} is not a port")
            ports, _, protocol = word.partition("/")
            first, _, last = ports.partition("-")
            for port in range(int(first), int(last or first) + 1):
                self.sets["ExposedPorts"][f"{port}/{protocol or 'tcp'}"] = {}
        self._members(item, ExposedPorts=dict(self.sets["ExposedPorts"]))

    def do_volume(self, item: Instruction) -> None:
        for word in json_words(item.value) or self._words(item):
            self.sets["Volumes"][self._substitute(word, item)] = {}
        self._members(item, Volumes=dict(self.sets["Volumes"]))

    def do_copy(self, item: Instruction) -> None:
        self._copy(item)

    def do_add(self, item: Instruction) -> None:
        for word in json_words(without_flags(item.value)) or without_flags(item.value).split():
            if "://" in word or word.startswith("git@"):
                raise BuildError(
                    f"{item.where}: ADD of the address {word!r} needs a container engine",
                    hint="COPY a file that you keep",
                )
        self._copy(item)

    def _members(self, item: Instruction, **members: Any) -> None:
        text = f"{item.name} {item.value}"
        self.out.steps.append(
            lambda image: image.with_config(**members).with_history(text, created=image.config["created"])
        )

    def _copy(self, item: Instruction) -> None:
        value, owner, mode = item.value, None, None
        while match := FLAG_RE.match(value):
            value = value[match.end() :]
            match match[1]:
                case "chown":
                    owner = self._owner(self._substitute(match[2] or "", item), item, "--chown")
                case "chmod":
                    mode = _mode(self._substitute(match[2] or "", item), item)
                case "link":
                    pass  # every COPY is a layer of its own here
                case _:
                    raise BuildError(f"{item.where}: {item.name} --{match[1]} needs a container engine")
        listed = json_words(value)
        words = self._expand(value, item) if listed is None else [self._substitute(word, item) for word in listed]
        if len(words) < 2:
            raise BuildError(f"{item.where}: {item.name} wants at least one source and a destination")
        *sources, target = words
        # A final slash says that it is a directory.
        place = posixpath.join("/", self.workdir, "" if target == "." else target)
        copy = Copy(item.where, tuple(sources), place, owner, mode, unpack=item.name == "ADD")
        self.out.steps.append(CopyLayer(self.copier.copy(copy), f"{item.name} {item.value}"))

    def _owner(self, text: str, item: Instruction, what: str) -> tuple[int, int]:
        """Return uid and gid of `USER[:GROUP]`; names are those of the image's own `/etc/passwd` and `/etc/group`."""
        user, _, group = text.partition(":")
        if not user or (group and not re.fullmatch(r"[\w.$-]+", group)) or (":" in text and not group):
            raise BuildError(f"{item.where}: {what} {text}: write USER or USER:GROUP, names or numbers")
        ids = (int(user), int(user)) if user.isdecimal() else self.view.user(user)
        gid = int(group) if group.isdecimal() else self.view.group(group) if group else None
        if ids is None or (group and gid is None):
            table = "/etc/passwd" if ids is None else "/etc/group"
            name = user if ids is None else group
            raise BuildError(
                f"{item.where}: {what} {text}: {name!r} is not in the image's {table}", hint="write numbers"
            )
        return ids[0], ids[1] if gid is None else gid

    def _substitute(self, text: str, item: Instruction) -> str:
        """Replace variables in one word, whose blanks stay; the environment hides arguments."""
        try:
            return expand_word(text, {**self.args, **self.environment}, escape=item.escape)
        except WordError as error:
            raise BuildError(f"{item.where}: {item.name}: {error}") from error

    def _expand(self, text: str, item: Instruction) -> list[str]:
        try:
            return expand(text, {**self.args, **self.environment}, escape=item.escape)
        except WordError as error:
            raise BuildError(f"{item.where}: {item.name}: {error}") from error

    def _words(self, item: Instruction) -> list[str]:
        if not item.value:
            raise BuildError(f"{item.where}: {item.name} wants a value")
        return self._expand(item.value, item)

    def _one(self, item: Instruction) -> str:
        if not item.value:
            raise BuildError(f"{item.where}: {item.name} wants a value")
        return self._substitute(item.value, item)

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
        words = json_words(item.value)
        if words is not None:
            return words
        if not item.value:
            raise BuildError(f"{item.where}: {item.name} wants a value")
        return [*self.shell, item.value]


def _platform_args(platform: Mapping[str, str]) -> dict[str, str]:
    """Return the predefined arguments of the target platform (Dockerfile reference, "global scope")."""
    if not platform:
        return {}
    variant = platform.get("variant", "")
    parts = [platform["os"], platform["architecture"], *([variant] if variant else [])]
    return {
        "TARGETPLATFORM": "/".join(parts), "TARGETOS": parts[0], "TARGETARCH": parts[1], "TARGETVARIANT": variant
    }  # fmt: skip


def _nanoseconds(text: str, item: Instruction) -> int:
    if not text or _DURATION_RE.sub("", text):
        raise BuildError(f"{item.where}: {text!r} is not a duration such as 30s or 1m30s")
    return round(sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_RE.findall(text)) * 1e9)


def _count(text: str, item: Instruction) -> int:
    if not text.isdecimal():
        raise BuildError(f"{item.where}: {text!r} is not a number")
    return int(text)


def _mode(text: str, item: Instruction) -> int:
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise BuildError(f"{item.where}: --chmod={text}: write an octal mode such as 0755")
    return int(text, 8)
