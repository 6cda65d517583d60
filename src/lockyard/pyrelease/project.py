"""A Python project and its `[tool.lockyard.package]` table, read from `pyproject.toml`; PEP 621 or poetry. No I/O here.

Sources: PEP 621 (`[project]`), PEP 735 (`[dependency-groups]`), https://python-poetry.org/docs/pyproject/, and for dynamic versions the
documentation of hatchling, setuptools and flit.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from lockyard.errors import ConfigError
from lockyard.strict import Model, line_of, parse_toml, table_at, validate
from lockyard.suggest import nearest
from lockyard.tree import check_relative

PYPROJECT = "pyproject.toml"
Read = Callable[[str], str | None]
"""Gives the text of a file by its path relative to the project's root, `None` when it is not there."""

_MODULE_RE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_SET_RE = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_DUNDER = r"""^__version__\s*(?::[^=\n]+)?=\s*["'](?P<version>[^"'\n]*)["']"""


def _relative(value: str) -> str:
    try:
        return check_relative(value)
    except ConfigError as error:
        raise ValueError(error.message) from error


def _with_version(value: str) -> str:
    if value.count("{version}") != 1:
        raise ValueError(f"{value!r} must hold {{version}} exactly once")
    return value


RelativePath = Annotated[str, pydantic.AfterValidator(_relative)]
WithVersion = Annotated[str, pydantic.AfterValidator(_with_version)]


class VersionFile(Model):
    """A file that repeats the version: `pattern` is literal text around `{version}`, found exactly once in the file."""

    path: RelativePath
    pattern: WithVersion | None = None

    @property
    def regex(self) -> re.Pattern[str]:
        """What finds the version, as the group `version`; without a pattern it is Python's `__version__ = "…"`."""
        if self.pattern is None:
            return re.compile(_DUNDER, re.MULTILINE)
        before, _, after = self.pattern.partition("{version}")
        # What stands around it begins and ends where words do: `labservice==` is not found in `otherlabservice==`.
        start = r"(?<![0-9A-Za-z])" if before[:1].isalnum() else ""
        end = r"(?![0-9A-Za-z])" if after[-1:].isalnum() else ""
        return re.compile(
            rf"{start}{re.escape(before)}(?P<version>\d(?:[0-9A-Za-z.!+_-]*[0-9A-Za-z])?){re.escape(after)}{end}"
        )


class RequirementSet(Model):
    """Dependencies that are locked together: the project's own, those of extras and of dependency groups.

    `file` is where they are kept, `requirements_SET.txt` in the directory of requirements without it; `copy-to` gets the same.
    """

    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    file: RelativePath | None = None
    copy_to: RelativePath | None = pydantic.Field(default=None, alias="copy-to")


class PackageIndex(Model):
    """A package index: where to upload, where its simple API is (default: `simple/` below), whether it is for tests."""

    upload: str
    simple: str | None = None
    test: bool = False


Command = Annotated[tuple[Annotated[str, pydantic.Field(min_length=1)], ...], pydantic.Field(min_length=1)]


class PackageTable(Model):
    """`[tool.lockyard.package]`."""

    modules: tuple[str, ...] = ()
    version_files: tuple[VersionFile, ...] = pydantic.Field(default=(), alias="version-files")
    requirements: RelativePath = "requirements"
    python: Annotated[str, pydantic.StringConstraints(pattern=r"^3\.\d+$")] | None = None
    sets: dict[str, RequirementSet] = pydantic.Field(default_factory=dict)
    changelog: RelativePath = "CHANGELOG.md"
    runtimes: RelativePath = "runtimes.yaml"
    checks: tuple[Command, ...] = ()
    tag: WithVersion = "v{version}"
    branch: WithVersion = "release/{version}"
    next: Literal["major", "minor", "patch", "none"] = "minor"
    remote: str = "origin"
    index: str = "pypi"
    indexes: dict[str, PackageIndex] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("modules")
    @classmethod
    def _modules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _MODULE_RE.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a module")
        return value

    @pydantic.field_validator("sets")
    @classmethod
    def _sets(cls, value: dict[str, RequirementSet]) -> dict[str, RequirementSet]:
        for name in value:
            if not _SET_RE.fullmatch(name):
                raise ValueError(f"set {name!r}: use lower-case letters, digits, '-' and '_'")
        return value

    @pydantic.field_validator("tag", "branch")
    @classmethod
    def _ref(cls, value: str) -> str:
        # git-check-ref-format(1), the part that a pattern can break; git itself has the last word.
        if re.search(r"[\x00-\x20~^:?*\[\\]|\.\.|//|@\{|^[/.-]|[/.]$|\.lock$", value.replace("{version}", "1.0")):
            raise ValueError(f"{value!r} is no name that git takes")
        return value


class _Tool(Model):
    package: PackageTable = PackageTable()


_MODELS: Mapping[str, type[Model]] = {
    "package": PackageTable,
    "sets": RequirementSet,
    "indexes": PackageIndex,
    "version-files": VersionFile,
}


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """Where the version stands: a key of a TOML file, or (`key` is empty) what `regex` finds in another file."""

    path: str
    key: tuple[str, ...] = ()
    regex: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A Python project. `requires_python` is its text, `extras` and `groups` are names as written."""

    root: Path
    name: str
    version: Version
    version_text: str
    place: VersionPlace
    style: Literal["pep621", "poetry"]
    requires_python: str | None
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    scripts: Mapping[str, str]
    table: PackageTable

    @property
    def normalized_name(self) -> str:
        """The name as package indexes know it (PEP 503)."""
        return canonicalize_name(self.name)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that must import where it is installed."""
        return self.table.modules or (re.sub(r"[-.]+", "_", self.name),)

    @property
    def sets(self) -> Mapping[str, RequirementSet]:
        """The sets of requirements: those of the table, else `all` (every extra) and `dev` (that group, if there is one)."""
        if self.table.sets:
            return self.table.sets
        found = {"all": RequirementSet(extras=self.extras)}
        if "dev" in self.groups:
            found["dev"] = RequirementSet(extras=self.extras, groups=("dev",))
        return found

    def requirements_path(self, name: str) -> str:
        """Return where a set's requirements are kept, relative to the root."""
        return self.sets[name].file or f"{self.table.requirements}/requirements_{name}.txt"

    def tag(self, version: Version) -> str:
        """Return the tag of a release."""
        return self.table.tag.replace("{version}", str(version))

    def branch(self, version: Version) -> str:
        """Return the branch of a final release."""
        return self.table.branch.replace("{version}", str(version))


def parse_project(text: str, *, root: Path, read: Read) -> Project:
    """Parse the text of `pyproject.toml`; `read` is asked for the file that holds a dynamic version.

    Raises:
        ConfigError: it is no TOML, no Python project, has no version that can be changed, or a value is wrong.

    """
    return _Reader(parse_toml(text, PYPROJECT), text, root, read).project()


@dataclass(frozen=True)
class _Reader:
    """One `pyproject.toml`, parsed."""

    data: dict[str, Any]
    text: str
    root: Path
    read: Read

    def project(self) -> Project:
        lockyard = self._table("tool", "lockyard")
        given = {"package": lockyard.get("package", {})}
        table = validate(_Tool, given, self.text, PYPROJECT, _MODELS).package
        core, poetry = self._table("project"), self._table("tool", "poetry")
        if not core and not poetry:
            raise ConfigError(
                f"{self.root} has no Python package: {PYPROJECT} has neither [project] nor [tool.poetry]",
                hint="lockyard package works on a Python project; the other commands on a distribution of images",
            )
        name = core.get("name") or poetry.get("name")
        if not isinstance(name, str):
            raise ConfigError(f"{PYPROJECT}:{line_of(self.text, ['project'])}: the project has no name")
        place = self._place(core, poetry)
        version_text = self._version(place)
        where = f"{place.path}:{self._line(place)}"
        try:
            version = Version(version_text)
        except InvalidVersion as error:
            raise ConfigError(f"{where}: {version_text!r} is not a version by PEP 440") from error
        found = Project(
            root=self.root, name=name, version=version, version_text=version_text, place=place,
            # Poetry 2 reads [project] too; only it knows its own groups and dependencies.
            style="poetry" if "name" not in core or {"group", "dependencies"} & set(poetry) else "pep621",
            requires_python=core.get("requires-python") or self._table("tool", "poetry", "dependencies").get("python"),
            extras=tuple({**self._table("tool", "poetry", "extras"), **self._table("project", "optional-dependencies")}),
            groups=tuple({**self._table("tool", "poetry", "group"), **self._table("dependency-groups")}),
            scripts=self._scripts(),
            table=table,
        )  # fmt: skip
        self._check_sets(found)
        return found

    def _table(self, *path: str) -> dict[str, Any]:
        return table_at(self.data, *path)

    def _scripts(self) -> dict[str, str]:
        """Return command → `module:function`; poetry's other kinds of scripts are none."""
        found = {**self._table("tool", "poetry", "scripts"), **self._table("project", "scripts")}
        return {name: target for name, target in found.items() if isinstance(target, str)}

    def _place(self, core: Mapping[str, Any], poetry: Mapping[str, Any]) -> VersionPlace:
        """Find where the version stands."""
        if isinstance(core.get("version"), str):
            return VersionPlace(PYPROJECT, ("project", "version"))
        if isinstance(poetry.get("version"), str):
            return VersionPlace(PYPROJECT, ("tool", "poetry", "version"))
        path, regex = self._dynamic()
        if not path:
            raise ConfigError(
                f"{PYPROJECT}:{line_of(self.text, ['project'])}: the version stands in no file that can be edited",
                hint='write version = "…" into [project]; a version that comes from git tags cannot be bumped',
            )
        return VersionPlace(path, regex=regex)

    def _dynamic(self) -> tuple[str, str]:
        """Return the file and the regular expression that the build backend reads the version by."""
        hatch = self._table("tool", "hatch", "version")
        if hatch.get("path") and hatch.get("source", "regex") == "regex":
            pattern = hatch.get("pattern", True)
            # hatchling's own default: __version__ or VERSION
            default = r"""(?im)^(?:__version__|VERSION)(?:\s*:[^=\n]+)?\s*=\s*["']v?(?P<version>[^"'\n]+)["']"""
            return str(hatch["path"]), pattern if isinstance(pattern, str) else default
        setuptools = self._table("tool", "setuptools", "dynamic").get("version", {})
        if isinstance(setuptools, dict) and isinstance(setuptools.get("file"), str):
            return setuptools["file"], r"\A\s*(?P<version>\S+)\s*\Z"
        if isinstance(setuptools, dict) and isinstance(setuptools.get("attr"), str):
            module, _, attribute = setuptools["attr"].rpartition(".")
            regex = rf"""(?m)^{re.escape(attribute)}\s*(?::[^=\n]+)?=\s*["'](?P<version>[^"'\n]*)["']"""
            return self._module_file(module), regex
        if "flit" in str(self._table("build-system").get("build-backend", "")):
            name = self._table("tool", "flit", "module").get("name") or self._table("project").get("name", "")
            return self._module_file(str(name).replace("-", "_")), f"(?m){_DUNDER}"
        return "", ""

    def _module_file(self, module: str) -> str:
        path = module.replace(".", "/")
        places = [f"{base}{path}{end}" for base in ("src/", "") for end in ("/__init__.py", ".py")]
        return next((place for place in places if self.read(place) is not None), "")

    def _version(self, place: VersionPlace) -> str:
        if place.key:
            return str(self._table(*place.key[:-1])[place.key[-1]])
        text = self.read(place.path)
        found = list(re.finditer(place.regex, text)) if text is not None else []
        if len(found) != 1:
            count = "is missing" if text is None else f"holds the version {len(found)} times"
            raise ConfigError(f"{place.path}: {count}; {PYPROJECT} says that the version stands there once")
        return found[0]["version"]

    def _line(self, place: VersionPlace) -> int:
        if place.key:
            return key_line(self.text, place.key)
        text = self.read(place.path) or ""
        found = re.search(place.regex, text)
        return text.count("\n", 0, found.start("version")) + 1 if found else 1

    def _check_sets(self, project: Project) -> None:
        """Refuse extras and groups that the project has not."""
        for name, chosen in project.table.sets.items():
            for kind, asked, known in (
                ("extra", chosen.extras, project.extras), ("group", chosen.groups, project.groups),
            ):  # fmt: skip
                canonical = {canonicalize_name(item) for item in known}
                for item in asked:
                    if canonicalize_name(item) not in canonical:
                        where = f"{PYPROJECT}:{line_of(self.text, ['package', 'sets', name])}"
                        there = f"there are {', '.join(known)}" if known else f"the project has no {kind}s"
                        raise ConfigError(
                            f"{where}: set {name!r}: unknown {kind} {item!r}; {there}", hint=nearest(item, known)
                        )


def key_line(text: str, key: tuple[str, ...]) -> int:
    """Return the line of a key of a TOML text: the one below its table's header, else the first of that name."""
    lines = text.splitlines()
    header = re.compile(rf"\s*\[{re.escape('.'.join(key[:-1]))}\]")
    start = next((number for number, line in enumerate(lines) if header.match(line)), 0)
    wanted = re.compile(rf"\s*{re.escape(key[-1])}\s*=")
    return next((number for number in range(start, len(lines)) if wanted.match(lines[number])), start) + 1
