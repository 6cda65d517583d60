"""The image tests of a distribution: what is in the suite, what `tests.toml` says of it, what runs where. Pure.

A suite holds plain scripts (`NAME.test.py`, `NAME.test.sh`), Dockerfile tests (`NAME.test.Dockerfile`, built `FROM` the image
under test, then run; exit code 0 passes), and files of pytest (`test_*.py`), which the image's own pytest runs inside it. `tests.toml`
says more about each of the first three, and turns the ready-made tests on.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic

from lockyard.checks.plan import Runs, Skipped
from lockyard.errors import ConfigError
from lockyard.strict import Model, validate_toml
from lockyard.suggest import nearest
from lockyard.tree import Tree, check_relative

CONFIG = "tests.toml"
SCHEMA = 1
DEFAULT_TIMEOUT = 600.0
"""Seconds for one test."""

Kind = Literal["python", "shell", "dockerfile"]
_SUFFIXES: Mapping[str, Kind] = {".test.py": "python", ".test.sh": "shell", ".test.Dockerfile": "dockerfile"}
_NAME_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PYTEST_RE = re.compile(r"(?:test_[^/]*|[^/]*_test)\.py")
READY_MADE = ("imports", "entry-points", "pip-check", "cuda-loads", "ownership", "equals-lock", "size")
"""The ready-made tests: scripts of ours that join the suite in `READY_PLACE`."""
READY_PLACE = "lockyard-ready-made"


class WaitFor(Model):
    """A service: the test passes when `line` (a regular expression) is in its log within `within` seconds."""

    line: Annotated[str, pydantic.Field(min_length=1)]
    within: Annotated[float, pydantic.Field(gt=0, le=86400)] = 60.0

    @pydantic.field_validator("line")
    @classmethod
    def _line(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from error
        return value


class TestSettings(Model):
    """`[tests.NAME]`: what a test needs. Times are in seconds."""

    __test__ = False  # the name is the field's own; pytest must not collect it

    packages: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    timeout: Annotated[float, pydantic.Field(gt=0, le=86400)] = DEFAULT_TIMEOUT
    gpu: bool = False
    network: bool = False
    wait_for: WaitFor | None = pydantic.Field(default=None, alias="wait-for")
    image_argument: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = pydantic.Field(
        default="IMAGE", alias="image-argument"
    )
    shm_size: pydantic.ByteSize | None = pydantic.Field(default=None, alias="shm-size")
    context: str = "."

    @pydantic.field_validator("context")
    @classmethod
    def _context(cls, value: str) -> str:
        if value != ".":
            try:
                check_relative(value)
            except ConfigError as error:
                raise ValueError(error.message) from error
        return value


class ReadyMade(Model):
    """`[ready-made]`: tests that every image can be asked; `names` are those that run, `max-size` a budget such as `4.5 GB`."""

    names: tuple[str, ...] = pydantic.Field(default=(), alias="run")
    max_size: pydantic.ByteSize | None = pydantic.Field(default=None, alias="max-size")
    skip_imports: tuple[str, ...] = pydantic.Field(default=(), alias="skip-imports")

    @pydantic.field_validator("names")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "all" and name not in READY_MADE:
                hint = nearest(name, READY_MADE) or f"there are {', '.join(READY_MADE)}, or all"
                raise ValueError(f"no ready-made test {name!r}; {hint}")
        return READY_MADE if "all" in value else value


class SuiteConfig(Model):
    """`tests.toml`."""

    schema_version: Literal[1] = pydantic.Field(default=1, alias="schema")
    tests: dict[str, TestSettings] = pydantic.Field(default_factory=dict)
    ready_made: ReadyMade = pydantic.Field(default=ReadyMade(), alias="ready-made")


_MODELS: Mapping[str, type[Model]] = {"tests": TestSettings, "wait-for": WaitFor, "ready-made": ReadyMade}


@dataclass(frozen=True, slots=True)
class ImageTest:
    """One script or Dockerfile test: its name, its file in the suite, what it needs."""

    name: str
    kind: Kind
    path: str
    settings: TestSettings


_PYTHON = TestSettings(packages=("python",), timeout=1800)
_READY_SETTINGS: Mapping[str, TestSettings] = {"pip-check": TestSettings(packages=("pip", "python"))}


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite read: scripts and Dockerfile tests sorted by name, whether there are files of pytest, ready-made tests."""

    tests: tuple[ImageTest, ...]
    pytest: bool
    ready_made: ReadyMade

    def __bool__(self) -> bool:
        return bool(self.tests or self.pytest or self.ready_made.names)


def read_config(tree: Tree, *, source: str) -> SuiteConfig:
    """Read `tests.toml` of a suite; one without it has the defaults.

    Raises:
        ConfigError: it is wrong.

    """
    text = tree[CONFIG].data.decode(errors="replace") if CONFIG in tree else ""
    return validate_toml(SuiteConfig, text, source=f"{source}/{CONFIG}", models=_MODELS)


def with_ready_made(tree: Tree, shipped: Tree, *, source: str) -> Tree:
    """Return a suite with the ready-made tests that it asks for; `shipped` are all of ours.

    Raises:
        ConfigError: `tests.toml` is wrong.

    """
    names = read_config(tree, source=source).ready_made.names
    chosen = {path: file for path, file in shipped.items() if path.split(".test.")[0] in names}
    return tree.merge({f"{READY_PLACE}/{path}": file for path, file in chosen.items()})


def read_suite(tree: Tree, *, source: str) -> Suite:
    """Read a suite from its files; `source` is its directory, for messages.

    Raises:
        ConfigError: `tests.toml` is wrong, names a test that is not there, or two files have one name.

    """
    config = read_config(tree, source=source)
    found: dict[str, ImageTest] = {}
    for name, kind, path in _scripts(tree):
        if path.startswith(f"{READY_PLACE}/"):
            found[f"ready-made/{name}"] = ImageTest(
                f"ready-made/{name}", kind, path, _READY_SETTINGS.get(name, _PYTHON)
            )
            continue
        if not _NAME_RE.fullmatch(name):
            raise ConfigError(f"{source}/{path}: a test's name has letters, digits, '.', '_' and '-'")
        if name in found:
            raise ConfigError(f"{source}: {found[name].path} and {path} are both the test {name!r}")
        found[name] = ImageTest(name, kind, path, config.tests.get(name, TestSettings()))
    for name in config.tests:
        if name not in found:
            hint = nearest(name, list(found)) or f"a test is a file NAME{', NAME'.join(_SUFFIXES)}"
            raise ConfigError(f"{source}/{CONFIG}: there is no test {name!r}; {hint}")
    ordered = tuple(found[name] for name in sorted(found))
    return Suite(ordered, any(is_pytest_file(path) for path in tree), config.ready_made)


def is_pytest_file(path: str) -> bool:
    """Tell whether the image's own pytest runs a file."""
    return _PYTEST_RE.fullmatch(path.rsplit("/", 1)[-1]) is not None


def _scripts(tree: Tree) -> Iterator[tuple[str, Kind, str]]:
    for path in sorted(tree):
        for suffix, kind in _SUFFIXES.items():
            if path.endswith(suffix):
                yield path.rsplit("/", 1)[-1].removesuffix(suffix), kind, path


def plan_test(
    test: ImageTest, *, image_type: str, packages: Collection[str], gpu: str | None, containers: str | None
) -> Runs | Skipped:
    """Decide whether a test runs in an image of `image_type` whose lock has `packages`.

    `gpu` and `containers` say why there is no GPU, and no engine that builds Dockerfile tests; `None` when there is.
    """
    settings = test.settings
    if settings.types and image_type not in settings.types:
        return Skipped(f"for {', '.join(settings.types)} images")
    missing = sorted(name for name in settings.packages if name not in packages)
    if missing:
        return Skipped(f"the lock has no {', '.join(missing)}")
    if settings.gpu and gpu is not None:
        return Skipped(gpu)
    if test.kind == "dockerfile" and containers is not None:
        return Skipped(containers)
    return Runs()
