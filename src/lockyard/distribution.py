"""The configuration of a distribution: `[tool.lockyard]` (or `lockyard.toml`) and `template/vX/variants.toml`.

Parsing only: `lockyard.fs` reads the bytes. `lockyard.strict` says what is wrong with them.
"""

import datetime as dt
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

import pydantic

from lockyard.errors import ConfigError
from lockyard.oci.values import Compression, Reference
from lockyard.strict import Model, parse_toml, validate
from lockyard.suggest import nearest
from lockyard.tree import check_relative

SCHEMA = 1
Platform = str
"""A conda subdir, such as `linux-64`."""

_NAME_RE = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")
_TYPE_RE = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_PLATFORM_RE = re.compile(r"[a-z]+-[a-z0-9_]+")
_OWNER_RE = re.compile(r"\d{1,9}:\d{1,9}")
Policy = Literal["semver", "pythonesque", "calver", "pinned", "latest"]
LayerBudget = Annotated[int, pydantic.Field(ge=8, le=120)]
"""Layers that the packages of an image may have."""
Activation = Literal["env", "none"]
PostLink = Literal["run", "skip", "refuse"]


def _check_post_link(value: object) -> object:
    for name, answer in (value if isinstance(value, dict) else {"": value}).items():
        if answer is not None and answer not in get_args(PostLink):
            where = f"{name!r}: " if name else ""
            raise ValueError(f"{where}{answer!r} is neither run, skip nor refuse")
    return value


PostLinkRules = Annotated[PostLink | dict[str, PostLink], pydantic.BeforeValidator(_check_post_link)]
"""One answer for all packages, or package name or glob → answer (an exact name first, then in file order)."""


class EnvironmentArg(Model):
    """A build argument read from the environment of the build, recorded with it."""

    env: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    default: str = ""


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """How the environment of one image is made: the line's settings, a variant's own, a platform's own."""

    owner: tuple[int, int]
    activation: Activation
    compile_pyc: bool
    post_link: tuple[tuple[str, PostLink], ...]

    def post_link_of(self, package: str) -> PostLink:
        """Return what happens to a package's post-link script: the first rule that fits."""
        fitting = (answer for pattern, answer in self.post_link if fnmatch.fnmatchcase(package, pattern))
        return next(fitting, "run")


def _check_owner(value: str) -> str:
    if not _OWNER_RE.fullmatch(value):
        raise ValueError(f"{value!r} is not UID:GID, such as 0:0")
    return value


Owner = Annotated[str, pydantic.AfterValidator(_check_owner)]


class OwnSettings(Model):
    """The settings of an environment that a variant, or one of its platforms, may have of its own."""

    activation: Activation | None = None
    compile_pyc: bool | None = pydantic.Field(default=None, alias="compile-pyc")
    post_link: PostLinkRules | None = pydantic.Field(default=None, alias="post-link")


class PlatformOverride(OwnSettings):
    """What a platform of a variant has of its own."""

    base: str | None = None
    virtual_packages: dict[str, str] = pydantic.Field(default_factory=dict, alias="virtual-packages")


class Variant(OwnSettings):
    """One image type of a major line."""

    owner: Owner | None = None

    base: str = "scratch"
    platforms: Annotated[tuple[Platform, ...], pydantic.Field(min_length=1)] = ("linux-64",)
    virtual_packages: dict[str, str] = pydantic.Field(default_factory=dict, alias="virtual-packages")
    args: dict[str, str | EnvironmentArg] = pydantic.Field(default_factory=dict)
    pytest_flags: tuple[str, ...] = pydantic.Field(default=(), alias="pytest-flags")
    tag: str | None = None
    compression: Compression = "gzip"
    platform: dict[Platform, PlatformOverride] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("base")
    @classmethod
    def _base(cls, value: str) -> str:
        if value == "scratch":
            return value
        kind, colon, rest = value.partition(":")
        if kind in {"oci", "rootfs"} and colon:
            if not rest or rest.startswith("-"):
                raise ValueError(f"{value!r} names no path")
            return value
        try:
            Reference.parse(value)
        except ConfigError as error:
            raise ValueError(error.message) from error
        return value

    @pydantic.field_validator("platforms")
    @classmethod
    def _platforms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for platform in value:
            if not _PLATFORM_RE.fullmatch(platform):
                raise ValueError(f"{platform!r} is not a conda subdir such as linux-64")
        return value

    @pydantic.field_validator("tag")
    @classmethod
    def _tag(cls, value: str | None) -> str | None:
        if value is not None and "{version}" not in value:
            raise ValueError("a tag must hold {version}")
        return value

    def base_for(self, platform: Platform) -> str:
        """Return the base of `platform`."""
        own = self.platform.get(platform)
        return own.base if own is not None and own.base is not None else self.base

    def virtual_packages_for(self, platform: Platform) -> dict[str, str]:
        """Return the stated virtual packages of `platform`, name to version."""
        own = self.platform.get(platform)
        return {**self.virtual_packages, **(own.virtual_packages if own is not None else {})}


class Line(Model):
    """A major line: `template/vX/variants.toml`."""

    schema_version: Literal[1] = pydantic.Field(alias="schema")
    channels: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] = ("conda-forge",)
    prefix: str = "/opt/conda"
    owner: Owner = "0:0"
    activation: Activation = "env"
    compile_pyc: bool = pydantic.Field(default=True, alias="compile-pyc")
    post_link: PostLinkRules = pydantic.Field(default="run", alias="post-link")
    removed_packages: tuple[str, ...] = ()
    platform_packages: dict[str, tuple[Platform, ...]] = pydantic.Field(default_factory=dict, alias="platform-packages")
    assets: tuple[str, ...] = ()
    policies: dict[str, Policy] = pydantic.Field(default={"python": "pythonesque"})
    layer_budget: LayerBudget | None = pydantic.Field(default=None, alias="layer-budget")
    variants: Annotated[dict[str, Variant], pydantic.Field(min_length=1)]

    @pydantic.field_validator("prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError("must be an absolute path")
        try:
            check_relative(value[1:])
        except ConfigError as error:
            raise ValueError(error.message) from error
        return value

    @pydantic.field_validator("assets")
    @classmethod
    def _assets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            try:
                check_relative(path)
            except ConfigError as error:
                raise ValueError(error.message) from error
        return value

    @pydantic.field_validator("variants")
    @classmethod
    def _variants(cls, value: dict[str, Variant]) -> dict[str, Variant]:
        for name in value:
            if not _TYPE_RE.fullmatch(name):
                raise ValueError(f"image type {name!r}: use lower-case letters, digits and hyphens")
        return value

    @property
    def types(self) -> tuple[str, ...]:
        """The image types in file order."""
        return tuple(self.variants)

    def settings(self, image_type: str, platform: Platform) -> EnvironmentSettings:
        """Return how the environment of an image is made: what the platform says, else the variant, else the line."""
        variant = self.variant(image_type)
        own = variant.platform.get(platform, PlatformOverride())
        compile_pyc = next(
            (item for item in (own.compile_pyc, variant.compile_pyc) if item is not None), self.compile_pyc
        )
        rules: list[tuple[str, PostLink]] = []
        for answer in (own.post_link, variant.post_link, self.post_link):
            found = {"*": answer} if isinstance(answer, str) else answer or {}
            rules += sorted(found.items(), key=lambda rule: any(sign in rule[0] for sign in "*?["))
        uid, _, gid = (variant.owner or self.owner).partition(":")
        return EnvironmentSettings(
            owner=(int(uid), int(gid)),
            activation=own.activation or variant.activation or self.activation,
            compile_pyc=compile_pyc,
            post_link=tuple(rules),
        )

    def variant(self, image_type: str) -> Variant:
        """Return one image type.

        Raises:
            ConfigError: it does not exist; the hint names the nearest.

        """
        if image_type not in self.variants:
            raise ConfigError(
                f"unknown image type {image_type!r}; there are {', '.join(self.types)}",
                hint=nearest(image_type, self.types),
            )
        return self.variants[image_type]


class Repository(Model):
    """A repository to publish to; a staging one takes untested images and gets no floating tag."""

    uri: str
    stage: bool = False


class SupportPolicy(Model):
    """Months of support of a line, and the day when a line came out where its releases do not tell."""

    major: Annotated[int, pydantic.Field(ge=0)] | None = None
    minor: Annotated[int, pydantic.Field(ge=0)] | None = None
    released: dict[Annotated[str, pydantic.StringConstraints(pattern=r"^\d+(\.\d+)?$")], dt.date] = pydantic.Field(
        default_factory=dict
    )


DEFAULT_RUNNER = "ubuntu-24.04"
ARM_RUNNER = "ubuntu-24.04-arm"
"""GitHub's own machines."""
_LINE = pydantic.StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$")
Runner = Annotated[str, _LINE] | Annotated[tuple[Annotated[str, _LINE], ...], pydantic.Field(min_length=1)]
"""The label of a CI machine, or several that it must have."""


class Automation(Model):
    """The `ci` table: what the workflows of `ci generate` cannot know by themselves."""

    branch: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$")] = "main"
    install: tuple[Annotated[str, _LINE], ...] = ()
    python: Annotated[str, pydantic.StringConstraints(pattern=r"^3\.\d+$")] = "3.12"
    stage: str = ""
    publish: tuple[str, ...] = ()
    sign: bool = False
    runner: Runner = DEFAULT_RUNNER
    runners: dict[str, Runner] = pydantic.Field(default_factory=dict)

    def runner_for(self, image_type: str, platform: str) -> Runner:
        """Return where the tests of an image run: what `runners` says of `TYPE/PLATFORM`, TYPE or PLATFORM, in this order."""
        for key in (f"{image_type}/{platform}", image_type, platform):
            if key in self.runners:
                return self.runners[key]
        return ARM_RUNNER if platform == "linux-aarch64" and self.runner == DEFAULT_RUNNER else self.runner


class Distribution(Model):
    """The `[tool.lockyard]` table."""

    name: str
    image: str = ""
    title: str = ""
    repositories: dict[str, str | Repository] = pydantic.Field(default_factory=dict)
    support: SupportPolicy = SupportPolicy()
    layer_budget: LayerBudget = pydantic.Field(default=100, alias="layer-budget")
    package: dict[str, Any] | None = None
    """What `lockyard package` does with the Python package beside it: `lockyard.pyrelease.project` reads it."""
    ci: Automation = Automation()

    @pydantic.field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _NAME_RE.fullmatch(value):
            raise ValueError(f"{value!r}: use lower-case letters, digits, '.', '_' and '-'")
        return value

    @pydantic.field_validator("image")
    @classmethod
    def _image(cls, value: str) -> str:
        try:
            if value:
                Reference.parse(value)
        except ConfigError as error:
            raise ValueError(error.message) from error
        return value

    @pydantic.model_validator(mode="after")
    def _defaults(self) -> Self:
        object.__setattr__(self, "image", self.image or f"localhost/{self.name}")
        object.__setattr__(self, "title", self.title or self.name)
        return self

    def repository(self, name: str) -> Repository:
        """Return the repository behind an alias, or the URI itself."""
        value = self.repositories.get(name, name)
        return Repository(uri=value) if isinstance(value, str) else value


def parse_distribution(text: str, *, source: str) -> Distribution:
    """Parse `pyproject.toml` or `lockyard.toml` (`source` is its name, for messages).

    Raises:
        ConfigError: it is no TOML, has no table for Lockyard, or a value is wrong.

    """
    data = parse_toml(text, source)
    in_tool = data.get("tool")
    if source.endswith("pyproject.toml"):
        if not isinstance(in_tool, dict) or "lockyard" not in in_tool:
            raise ConfigError(f"{source} has no [tool.lockyard] table", hint='add one with name = "…"')
        data = in_tool["lockyard"]
    elif set(data) == {"tool"} and isinstance(in_tool, dict):
        data = in_tool.get("lockyard", {})
    return validate_distribution(data, text, source)


def validate_distribution(data: object, text: str, source: str) -> Distribution:
    """Check the table of a distribution, which was read from `text`.

    Raises:
        ConfigError: a value is wrong.

    """
    return validate(Distribution, data, text, source, _MODELS)


def parse_line(text: str, *, source: str) -> Line:
    """Parse `variants.toml` (`source` is its path, for messages).

    Raises:
        ConfigError: it is no TOML, its schema is newer than ours, or a value is wrong.

    """
    data = parse_toml(text, source)
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigError(
            f"{source}: schema {schema} is newer than this Lockyard knows ({SCHEMA})", hint="upgrade Lockyard"
        )
    return validate(Line, data, text, source, _MODELS)


_MODELS: Mapping[str, type[Model]] = {
    "variants": Variant,
    "platform": PlatformOverride,
    "args": EnvironmentArg,
    "support": SupportPolicy,
    "repositories": Repository,
    "ci": Automation,
}
"""The model of a table, by its key."""
