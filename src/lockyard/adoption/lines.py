"""A major line of an existing tree: what its newest release and its Dockerfile say, and the `variants.toml` that says the same. Pure.

Nothing is invented: each value comes with the file that says it, and what nothing says is told to the user instead.
"""

import collections
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lockyard.adoption.dockerfiles import OWN_ARGUMENTS, DockerfileFacts
from lockyard.adoption.generator import Generated
from lockyard.conda.channels import ALIAS, parse_package_url
from lockyard.conda.formats import env_out_platform
from lockyard.conda.lock import LockedPackage
from lockyard.conda.spec import VARIABLE_RE
from lockyard.errors import ConfigError
from lockyard.oci.values import Reference
from lockyard.reports.text import clean
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

TYPE_RE = re.compile(r"([a-z0-9]+(?:[-_][a-z0-9]+)*)\.(?:env\.in|env\.out|lock\.json)")
_PLATFORM_RE = re.compile(r"\.([a-z]+-[a-z0-9_]+)\.env\.out")
_FUZZY_RE = re.compile(r"^(?:[^\s:]+::)?([a-z0-9_.-]+)={1,2}\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?\s*$", re.MULTILINE)
_GLIBC = {
    "focal": "2.31", "jammy": "2.35", "noble": "2.39", "bionic": "2.27", "buster": "2.28", "bullseye": "2.31",
    "bookworm": "2.36", "trixie": "2.41", "ubuntu18.04": "2.27", "ubuntu20.04": "2.31", "ubuntu22.04": "2.35",
    "ubuntu24.04": "2.39", "ubuntu:18.04": "2.27", "ubuntu:20.04": "2.31", "ubuntu:22.04": "2.35", "ubuntu:24.04": "2.39",
    "debian:10": "2.28", "debian:11": "2.31", "debian:12": "2.36", "debian:13": "2.41", "ubi8": "2.28", "ubi9": "2.34",
    "rockylinux8": "2.28", "rockylinux9": "2.34", "amazonlinux:2023": "2.34", "amazonlinux:2": "2.26",
}  # fmt: skip
"""What a base's name says of its C library (each system's own package list)."""
ASSUMED_GLIBC = "2.28"
"""What most packages of public channels ask for at most; taken where no base is known."""
KERNEL = "5.10"
_CUDA_PACKAGES = ("cuda-version", "cudatoolkit")


@dataclass(frozen=True, slots=True)
class Value:
    """A value and what says so (a file, or a line of it)."""

    text: str
    where: str


@dataclass(frozen=True, kw_only=True)
class TypeFacts:
    """One image type of a line; `open` are build arguments without a value, `overruled` says which files a lock contradicts."""

    name: str
    platforms: tuple[str, ...]
    args: Mapping[str, Value] = field(default_factory=dict)
    open: tuple[str, ...] = ()
    overruled: tuple[str, ...] = ()
    base: Value | None = None
    glibc: Value
    cuda: Value | None = None
    pytest_flags: tuple[str, ...] = ()
    tag: str | None = None


@dataclass(frozen=True, kw_only=True)
class LineFacts:
    """One major line: `release` is its newest release with its `files`, `dockerfile` the one that tells; `notes` are for the user."""

    major: int
    release: Version
    releases: int
    types: tuple[TypeFacts, ...]
    channels: tuple[str, ...]
    files: tuple[str, ...]
    dockerfile: DockerfileFacts | None
    notes: tuple[str, ...]

    @property
    def path(self) -> str:
        """The file that declares the line."""
        return f"template/v{self.major}/variants.toml"


@dataclass(frozen=True, kw_only=True)
class LineSources:
    """What is known of a line: its releases with their types, the newest one's files and locks, files of values.

    `problems` are what is wrong with locks that are not in `locks`.
    """

    major: int
    releases: Mapping[Version, tuple[str, ...]]
    tree: Tree
    locks: Mapping[str, tuple[LockedPackage, ...]]
    problems: tuple[str, ...] = ()
    dockerfile: DockerfileFacts | None
    generated: Sequence[Generated]


def types_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the image types that the names of a release's files tell, sorted."""
    return tuple(sorted({match[1] for name in names if (match := TYPE_RE.fullmatch(name))}))


def newest_of(releases: Iterable[Version]) -> Version:
    """Return the newest final release, the newest pre-release where there is no other."""
    return max(releases, key=lambda version: (not version.is_pre_release, version))


def read_line(sources: LineSources) -> LineFacts:
    """Work out a line from its newest release."""
    newest = newest_of(sources.releases)
    types = tuple(_type(sources, newest, name) for name in sources.releases[newest])
    channels, notes = _channels(sources)
    return LineFacts(
        major=sources.major,
        release=newest,
        releases=len(sources.releases),
        types=types,
        channels=channels,
        files=tuple(sources.tree),
        dockerfile=sources.dockerfile,
        notes=(*sources.problems, *notes, *_notes(sources, newest, types)),
    )


def format_line(facts: LineFacts) -> str:
    """Return `variants.toml`; each value that was found has the file that says it beside it."""
    rows = [
        f"# The image types of major line {facts.major}, as `lockyard adopt` found them in {facts.release}.",
        "# Reference: docs/reference/configuration.md",
        "schema = 1",
        f"channels = {_toml(list(facts.channels))}",
        "",
        "[policies]",
        'python = "pythonesque"',
    ]
    for item in facts.types:
        rows += ["", f"[variants.{item.name}]", *_variant(item)]
    return "\n".join(rows) + "\n"


def format_distribution(name: str) -> str:
    """Return `lockyard.toml`."""
    return (
        "# The distribution: what every command reads first. Reference: docs/reference/configuration.md\n"
        f"name = {_toml(name)}\n\n"
        "[repositories]\n"
        '# production = "registry.example.com/team/image"\n'
    )


def _toml(value: str | list[str]) -> str:
    """Return a TOML string or array of strings: JSON's are the same."""
    return json.dumps(value, ensure_ascii=False)


def _variant(item: TypeFacts) -> Iterator[str]:
    if item.base is not None:
        yield f"base = {_toml(item.base.text)}  # {clean(item.base.where)}"
    else:
        yield 'base = "scratch"  # nothing says what these images begin from: write it here before a native build'
    yield f"platforms = {_toml(list(item.platforms))}"
    virtual = {"__glibc": item.glibc.text, "__linux": KERNEL} | ({"__cuda": item.cuda.text} if item.cuda else {})
    where = "; ".join(clean(value.where) for value in (item.glibc, item.cuda) if value is not None)
    pairs = ", ".join(f"{name} = {_toml(text)}" for name, text in virtual.items())
    yield f"virtual-packages = {{ {pairs} }}  # {where}"
    if item.pytest_flags:
        yield f"pytest-flags = {_toml(list(item.pytest_flags))}"
    if item.tag is not None:
        yield f"tag = {_toml(item.tag)}"
    if item.args or item.open:
        yield f"\n[variants.{item.name}.args]"
    for name, value in sorted(item.args.items()):
        yield f"{name} = {_toml(value.text)}  # {clean(value.where)}"
    for name in item.open:
        yield f'{name} = {{ env = "{name}" }}  # nothing gives it a value: write it here, or set it where you build'


def _type(sources: LineSources, newest: Version, name: str) -> TypeFacts:
    facts, packages = sources.dockerfile, sources.locks.get(name, ())
    said = [item for item in sources.generated if item.image_type == name and item.major in {None, sources.major}]
    args = {
        key: Value(text, item.where)
        for item in reversed(said)
        for key, text in item.args.items()
        if key not in OWN_ARGUMENTS
    }
    wanted = _arguments_of_specs(sources.tree, newest, name, packages)
    locked = {key: value for key, value in wanted.items() if value is not None}
    # What was installed tells more than what somebody wrote down for all releases at once.
    overruled = tuple(
        (key, args[key], value) for key, value in locked.items() if key in args and not _agree(args[key], value)
    )
    args = locked | args | {key: value for key, _, value in overruled}
    needed = (*wanted, *(facts.open if facts is not None else ()))
    base = _base(facts, {key: value.text for key, value in args.items()})
    glibc = _glibc(base)
    return TypeFacts(
        name=name,
        platforms=_platforms(sources.tree, name),
        args=args,
        open=tuple(sorted({key for key in needed if key not in args})),
        overruled=tuple(f"{key}: {said.where} says {said.text}, {value.where}" for key, said, value in overruled),
        base=base,
        glibc=glibc,
        cuda=_cuda(packages, newest, name),
        pytest_flags=next((item.pytest_flags for item in said if item.pytest_flags), ()),
        tag=next((item.tag for item in said if item.tag and item.tag != f"{{version}}-{name}"), None),
    )


def _arguments_of_specs(
    tree: Tree, newest: Version, name: str, packages: Sequence[LockedPackage]
) -> dict[str, Value | None]:
    """Return the arguments of the arg-based file; what the lock holds of `package=$NAME` tells a value."""
    path = f"{name}.arg_based_env.in"
    text = tree[path].data.decode(errors="replace") if path in tree else ""
    found: dict[str, Value | None] = {
        one or two: None
        for line in text.splitlines()
        if not line.startswith("#")
        for one, two in VARIABLE_RE.findall(line)
    }
    installed = {item.name: item.version for item in packages}
    for package, argument in _FUZZY_RE.findall(text):
        if found.get(argument) is None and package in installed:
            version = ".".join(installed[package].split(".")[:2])
            found[argument] = Value(version, f"{release_dir(newest)}/{name}.env.out has {package} {installed[package]}")
    return found


def _agree(said: Value, locked: Value) -> bool:
    """Whether two versions are the same as far as both say something."""
    return all(one == two for one, two in zip(said.text.split("."), locked.text.split("."), strict=False))


def _base(facts: DockerfileFacts | None, values: Mapping[str, str]) -> Value | None:
    """Return the image that the last stage begins from, when its arguments are known."""
    line = facts.bases[-1] if facts is not None and facts.bases else None
    text = line.resolve({**(facts.defaults if facts is not None else {}), **values}) if line is not None else None
    if line is None or text is None:
        return None
    first = text.split("/")[0]
    if "/" not in text:
        text = f"docker.io/library/{text}"
    elif "." not in first and ":" not in first and first != "localhost":
        text = f"docker.io/{text}"
    try:
        Reference.parse(text)
    except ConfigError:
        return None
    return Value(text, line.where)


def glibc_of(base: str) -> str:
    """Return the C library's version of a base by its name; `ASSUMED_GLIBC` when the name says nothing.

    >>> glibc_of("docker.io/library/ubuntu:24.04"), glibc_of("docker.io/nvidia/cuda:12.9.1-base-ubuntu22.04")
    ('2.39', '2.35')
    """
    word = _system(base)
    return _GLIBC[word] if word is not None else ASSUMED_GLIBC


def _system(base: str) -> str | None:
    """Return the word in a base's name that says which system it is."""
    found = (word for word in _GLIBC if re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![0-9])", base))
    return next(found, None)


def _glibc(base: Value | None) -> Value:
    word = _system(base.text) if base is not None else None
    if word is None:
        return Value(ASSUMED_GLIBC, f"glibc {ASSUMED_GLIBC} is assumed: say what the base has")
    return Value(_GLIBC[word], f"{word} has glibc {_GLIBC[word]}")


def _cuda(packages: Sequence[LockedPackage], newest: Version, name: str) -> Value | None:
    """Return the CUDA version that the lock's packages were built for; none where they are built for CPUs."""
    if not any("cuda" in item.build or item.name == "cudatoolkit" for item in packages):
        return None
    installed = {item.name: item.version for item in packages}
    package = next((item for item in _CUDA_PACKAGES if item in installed), None)
    if package is None:
        return None
    version = ".".join(installed[package].split(".")[:2])
    return Value(version, f"{release_dir(newest)}/{name}.env.out has {package} {installed[package]}")


def _platforms(tree: Tree, name: str) -> tuple[str, ...]:
    path = f"{name}.env.out"
    first = (env_out_platform(tree[path].data.decode(errors="replace")) if path in tree else None) or "linux-64"
    others = [match[1] for item in tree if item.startswith(f"{name}.") and (match := _PLATFORM_RE.search(item))]
    return tuple(dict.fromkeys((first, *sorted(others))))


def _channels(sources: LineSources) -> tuple[tuple[str, ...], list[str]]:
    """Return the channels by how many packages come from each, and notes on addresses that lead nowhere."""
    counts: collections.Counter[str] = collections.Counter()
    dead: collections.Counter[str] = collections.Counter()
    for name, packages in sources.locks.items():
        for item in packages:
            base = parse_package_url(item.url, source=name).base
            if base.startswith("file:"):
                dead[name] += 1
            else:
                counts[base.removeprefix(f"{ALIAS}/")] += 1
    notes = [
        f"{number} packages of {name}.env.out come from a directory of some machine (file:): "
        "the next lock takes them from the channels"
        for name, number in dead.items()
    ]
    return tuple(name for name, _ in counts.most_common()) or ("conda-forge",), notes


def _notes(sources: LineSources, newest: Version, types: Sequence[TypeFacts]) -> Iterator[str]:
    others: dict[str, list[Version]] = {}
    for version, names in sources.releases.items():
        for name in names:
            if name not in sources.releases[newest]:
                others.setdefault(name, []).append(version)
    for name, versions in others.items():
        span = f"{min(versions)} to {max(versions)}" if len(versions) > 1 else str(versions[0])
        yield f"{name} is an image type of {span}, not of {newest}: it is left out"
    if sources.dockerfile is None:
        yield f"no Dockerfile: neither in {release_dir(newest)} nor in template/v{sources.major}"
    for item in types:
        if item.base is None and sources.dockerfile is not None and sources.dockerfile.kind != "finish":
            yield f"{item.name}: the Dockerfile's base depends on arguments that nothing gives a value"
        for text in item.overruled:
            yield f"{item.name}: {text}"
        for name in item.open:
            yield f"{item.name}: nothing gives the build argument {name} a value"
