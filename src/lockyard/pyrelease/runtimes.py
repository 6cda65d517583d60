"""`runtimes.yaml`: what each image of a Python package is made of. Parsed and checked here; no I/O.

Every message begins with the line of the file that it is about. A key at the top of the file is the default of all
runtimes; a runtime's own value replaces it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from lockyard.errors import ConfigError
from lockyard.oci.values import Reference
from lockyard.strict import Model
from lockyard.suggest import nearest
from lockyard.tree import check_relative

if TYPE_CHECKING:
    from ruamel.yaml.error import MarkedYAMLError

FILE_NAME = "runtimes.yaml"
SCHEMA = 1
DOCKERFILE = "Dockerfile.{name}"
CUDA_REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64"
"""NVIDIA's packages for Debian 12; another system's repository is written into the file."""
_NAME = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$"
_NAME_RE = re.compile(_NAME)
_DEBIAN_RE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:=[A-Za-z0-9.+~:-]+)?")
_PATH_RE = re.compile(r"(?:/[A-Za-z0-9._-]+)+")
_URL_RE = re.compile(r"https?://[A-Za-z0-9._~:/%+-]+")
_UNPLAIN = frozenset('"\\$`')
_QUOTED = frozenset({"pkg_version", "version", "cuda", "cudnn"})


def _plain(value: str) -> str:
    if any(char in _UNPLAIN or ord(char) < 32 for char in value):
        raise ValueError(f"{value!r} holds a quotation mark, a backslash, a dollar sign or a control character")
    return value


def _relative(value: str) -> str:
    try:
        check_relative(value)
    except ConfigError as error:
        raise ValueError(error.message) from error
    if re.search(r"[^A-Za-z0-9._/-]", value):
        raise ValueError(f"{value!r}: use letters, digits, '.', '_', '-' and '/'")
    return value


def _debian(value: str) -> str:
    if not _DEBIAN_RE.fullmatch(value):
        raise ValueError(f"{value!r} is not a Debian package, NAME or NAME=VERSION")
    return value


def _absolute(value: str) -> str:
    if not _PATH_RE.fullmatch(value) or any(part in {".", ".."} for part in value.split("/")):
        raise ValueError(f"{value!r} is not an absolute path of letters, digits, '.', '_' and '-'")
    return value


def _reference(value: str) -> str:
    kind, colon, rest = value.partition(":")
    if kind in {"oci", "rootfs"} and colon:
        _relative(rest)
        return value
    try:
        Reference.parse(value)
    except ConfigError as error:
        raise ValueError(f"{error.message}{f'; {error.hint}' if error.hint else ''}") from error
    return value


def _version(value: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(value))
    except InvalidVersion as error:
        raise ValueError(f"{value!r} is not a version (PEP 440)") from error


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Plain = Annotated[str, pydantic.AfterValidator(_plain)]
RelativePath = Annotated[str, pydantic.AfterValidator(_relative)]
AbsolutePath = Annotated[str, pydantic.AfterValidator(_absolute)]
DebianPackage = Annotated[str, pydantic.AfterValidator(_debian)]
ImageReference = Annotated[str, pydantic.AfterValidator(_reference)]
PackageVersion = Annotated[str, pydantic.AfterValidator(_version)]
Name = Annotated[str, pydantic.StringConstraints(pattern=_NAME)]
Extra = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")]
Id = Annotated[int, pydantic.Field(ge=1, le=2_147_483_647, strict=True)]


class User(Model):
    """Who runs the command: never root."""

    uid: Id = 1089
    gid: Id = 1090
    name: Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "app"


class Gpu(Model):
    """What a GPU image has of NVIDIA's.

    With a `key`, the file of the repository's signing key, CUDA's libraries are installed from `repository`; without one
    the base image has them.
    """

    cuda: Annotated[str, pydantic.StringConstraints(pattern=r"^\d+\.\d+(\.\d+)?$")]
    cudnn: Annotated[str, pydantic.StringConstraints(pattern=r"^\d+(\.\d+){0,3}$")] | None = None
    key: RelativePath | None = None
    repository: str = CUDA_REPOSITORY

    @pydantic.field_validator("repository")
    @classmethod
    def _repository(cls, value: str) -> str:
        if not _URL_RE.fullmatch(value):
            raise ValueError(f"{value!r} is not the address of a repository")
        return value.rstrip("/")

    @pydantic.field_validator("key")
    @classmethod
    def _key(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith((".asc", ".gpg")):
            raise ValueError(f"{value!r}: apt reads .asc (armoured) and .gpg (binary) keys")
        return value

    @property
    def minor(self) -> str:
        """`X.Y` of CUDA."""
        return ".".join(self.cuda.split(".")[:2])


class Settings(Model):
    """The keys that may stand at the top, as defaults, and in a runtime."""

    image: ImageReference | None = None
    maintainer: Plain | None = None
    user: User | None = None
    build_packages: tuple[DebianPackage, ...] | None = None
    final_packages: tuple[DebianPackage, ...] | None = None
    base_template: Name | None = None
    requirements: RelativePath | None = None
    wheels: RelativePath | None = None
    volumes: tuple[AbsolutePath, ...] | None = None
    command: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] | None = None
    check: tuple[str, ...] | None = None
    registry: str | None = None

    @pydantic.field_validator("registry")
    @classmethod
    def _registry(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            found = Reference.parse(f"{value}/image")
        except ConfigError as error:
            raise ValueError(error.message) from error
        if found.tag or found.digest or not value.partition("/")[0].strip("."):
            raise ValueError(f"{value!r} is not HOST or HOST/PATH")
        return value.rstrip("/")


class RuntimeEntry(Settings):
    """One runtime as it is written."""

    extra: Annotated[tuple[Extra, ...], pydantic.BeforeValidator(_listed)] = ()
    gpu: Gpu | None = None
    version: PackageVersion | None = None


class RuntimesFile(Settings):
    """`runtimes.yaml` as it is written."""

    schema_version: Literal[1] = pydantic.Field(alias="schema")
    pkg_version: PackageVersion
    templates: RelativePath | None = None
    runtimes: Annotated[dict[str, RuntimeEntry], pydantic.Field(min_length=1)]

    @pydantic.field_validator("runtimes")
    @classmethod
    def _names(cls, value: dict[str, RuntimeEntry]) -> dict[str, RuntimeEntry]:
        for name in value:
            if not _NAME_RE.fullmatch(name):
                raise ValueError(f"{name!r}: use lower-case letters, digits, and '.', '_', '-' between them")
        return value


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One image spec, defaults filled in; `lines` says where in the file each of its keys is."""

    name: str
    image: str
    requirements: str
    pkg_version: str
    maintainer: str = ""
    user: User = field(default_factory=User)
    build_packages: tuple[str, ...] = ()
    final_packages: tuple[str, ...] = ()
    base_template: str = "default"
    wheels: str | None = None
    volumes: tuple[str, ...] = ("/data",)
    command: tuple[str, ...] = ()
    check: tuple[str, ...] = ("--help",)
    registry: str | None = None
    extra: tuple[str, ...] = ()
    gpu: Gpu | None = None
    version: str | None = None
    source: str = FILE_NAME
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def dockerfile(self) -> str:
        """The name of its Dockerfile."""
        return DOCKERFILE.format(name=self.name)

    @property
    def suffix(self) -> str:
        """What its tags have behind the version: nothing for `all`, `-client`, `-client-cuda12.9` for `client-gpu`."""
        if self.name == "all":
            return ""
        if self.gpu is None:
            return f"-{self.name}"
        stem = self.name.removesuffix("gpu").rstrip("-")
        return f"{f'-{stem}' if stem else ''}-cuda{self.gpu.minor}"

    def where(self, key: str = "") -> str:
        """Return file:line of one of its keys, of the runtime itself where the key is not written."""
        return f"{self.source}:{self.lines.get(key) or self.lines.get('', 1)}"

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {
            "name": self.name,
            "image": self.image,
            "maintainer": self.maintainer,
            "user": self.user.model_dump(),
            "build_packages": list(self.build_packages),
            "final_packages": list(self.final_packages),
            "base_template": self.base_template,
            "requirements": self.requirements,
            "wheels": self.wheels,
            "volumes": list(self.volumes),
            "command": list(self.command),
            "check": list(self.check),
            "registry": self.registry,
            "extra": list(self.extra),
            "gpu": self.gpu.model_dump() if self.gpu else None,
            "version": self.version,
            "dockerfile": self.dockerfile,
            "tag": f"{{version}}{self.suffix}",
        }


@dataclass(frozen=True)
class Runtimes:
    """All runtimes in file order."""

    pkg_version: str
    by_name: Mapping[str, Runtime]
    source: str = FILE_NAME
    pkg_version_line: int = 1
    templates: str | None = None
    """The directory of the project's own base templates."""

    def chosen(self, names: tuple[str, ...] = ()) -> tuple[Runtime, ...]:
        """Return those of `names`, all when there are none.

        Raises:
            ConfigError: one does not exist; the nearest is named.

        """
        for name in names:
            if name not in self.by_name:
                raise ConfigError(
                    f"{self.source} has no runtime {name!r}; there are {', '.join(self.by_name)}",
                    hint=nearest(name, list(self.by_name)),
                )
        return tuple(self.by_name[name] for name in dict.fromkeys(names or self.by_name))


def parse_runtimes(text: str, *, source: str = FILE_NAME) -> Runtimes:
    """Parse the file (`source` is its path, for messages).

    Raises:
        ConfigError: it is no YAML, newer than we know, or a key or a value is wrong; all problems are listed.

    """
    data = _load(text, source)
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigError(
            f"{source}:{_line(data, ['schema'])}: schema {schema} is newer than this Lockyard knows ({SCHEMA})",
            hint="upgrade Lockyard",
        )
    problems: list[str] = []
    try:
        file = RuntimesFile.model_validate(json.loads(json.dumps(data, default=str)))
    except pydantic.ValidationError as error:
        problems = [_problem(data, item, source) for item in error.errors()]
    else:
        runtimes = {name: _resolved(file, name, data, source, problems) for name in file.runtimes}
        problems += _same_tags(runtimes)
        if not problems:
            return Runtimes(file.pkg_version, runtimes, source, _line(data, ["pkg_version"]), file.templates)
    first, *rest = problems
    raise ConfigError(first, details=rest, hint="docs/reference/runtimes.md has every key")


def _load(text: str, source: str) -> Any:
    """Return the document as a map that knows its lines."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        data = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        raise ConfigError(f"{source}:{_mark(error)}: {error.problem or 'not YAML'}") from error
    except YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {error}") from error
    if not isinstance(data, CommentedMap):
        raise ConfigError(f"{source}:1: not a map of keys", hint="it begins with: schema: 1")
    return data


def _mark(error: "MarkedYAMLError") -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark is not None else 1


def _line(data: Any, path: list[str | int]) -> int:
    """Return the line of what `path` leads to, or of the last thing on the way that is there."""
    line = data.lc.line + 1 if data.lc.line is not None else 1
    for part in path:
        try:
            place = data.lc.key(part) if hasattr(data, "keys") else data.lc.item(part)
        except (KeyError, IndexError, TypeError, AttributeError):
            break
        if place is None:  # an empty map in one line
            break
        line = place[0] + 1
        data = data[part]
    return int(line)


def _problem(data: Any, item: Any, source: str) -> str:
    path: list[str | int] = list(item["loc"])
    key = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        known = _known_keys(path)
        hint = nearest(str(path[-1]), known) or f"valid keys: {', '.join(sorted(known))}"
        return f"{source}:{_line(data, path)}: unknown key {key!r}; {hint}"
    where = f"{source}:{_line(data, path)}"
    if item["type"] == "missing":
        return f"{where}: {key!r} is missing"
    if item["type"] == "string_type" and path[-1] in _QUOTED:
        return f'{where}: {key}: {item["input"]!r} is a number in YAML: write it in quotes, "{item["input"]}"'
    return f"{where}: {key}: {str(item['msg']).removeprefix('Value error, ')}"


def _known_keys(path: list[str | int]) -> list[str]:
    """Return the keys that may stand where the last part of `path` does."""
    model: type[Model] = RuntimesFile
    if path[0] == "runtimes" and len(path) > 2:
        model, path = RuntimeEntry, path[2:]
    if len(path) > 1:
        tables: Mapping[str, type[Model]] = {"user": User, "gpu": Gpu}
        model = tables.get(str(path[0]), model)
    return [item.alias or name for name, item in model.model_fields.items()]


def _resolved(file: RuntimesFile, name: str, data: Any, source: str, problems: list[str]) -> Runtime:
    """Fill a runtime's defaults in; what is still missing or does not fit goes to `problems`."""
    entry = file.runtimes[name]
    values: dict[str, Any] = {}
    lines = {"": _line(data, ["runtimes", name])}
    for key in RuntimeEntry.model_fields:
        own = getattr(entry, key)
        given = own if key in entry.model_fields_set and own is not None else getattr(file, key, None)
        if given is not None:
            values[key] = given
        written = data["runtimes"][name] or {}
        lines[key] = _line(data, ["runtimes", name, key] if key in written else [key]) if given is not None else 0
    for key in ("image", "requirements"):
        if key not in values:
            problems.append(f"{source}:{lines['']}: runtimes.{name}: {key!r} is missing here and at the top")
            values[key] = ""
    return Runtime(name=name, pkg_version=file.pkg_version, source=source, lines=lines, **values)


def _same_tags(runtimes: Mapping[str, Runtime]) -> list[str]:
    """Return a problem for every runtime that would take the tags of another one."""
    seen: dict[str, str] = {}
    found = []
    for runtime in runtimes.values():
        other = seen.setdefault(runtime.suffix, runtime.name)
        if other != runtime.name:
            found.append(
                f"{runtime.where()}: runtimes {other} and {runtime.name} would have the same tag VERSION{runtime.suffix}"
            )
    return found
