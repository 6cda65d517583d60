"""Lock files: `{type}.lock.json` (ours), `{type}.env.out` (conda's explicit format), `{type}.conda-lock.yml` (conda-lock v1).

Text in, values out and back; no I/O. Everything read is validated.
"""

import dataclasses
import functools
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lockyard.conda.channels import parse_package_url
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.conda.lockjson import HASH_RES, PLATFORM_RE, read_lock_json, write_lock_json
from lockyard.errors import ConfigError
from lockyard.tree import Tree

__all__ = [
    "LockInputs",
    "conda_lock_name",
    "env_out_name",
    "env_out_platform",
    "lock_from_tree",
    "lock_json_name",
    "read_env_out",
    "read_lock_json",
    "write_conda_lock",
    "write_env_out",
    "write_lock_json",
]

_EXPLICIT = "@EXPLICIT"
_HEADER = """\
# This file may be used to create an environment using:
# $ conda create --name <env> --file <this file>
# platform: {platform}
@EXPLICIT
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LockInputs:
    """What a lock depends on, apart from the channel's content and the base lock; its hash tells a stale lock.

    `files` are name → text of the spec files with their arguments substituted, `virtual_packages` per platform.
    """

    files: Mapping[str, str]
    channels: tuple[str, ...]
    platforms: tuple[str, ...]
    virtual_packages: Mapping[str, Mapping[str, str]]
    platform_packages: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """`sha256:HEX`; comments, blank lines, empty files and surrounding space do not count, the order of lines does."""
        value = {
            "channels": self.channels,
            "files": {name: lines for name, text in self.files.items() if (lines := _significant(text))},
            "platform_packages": {spec: sorted(names) for spec, names in self.platform_packages.items()},
            "platforms": self.platforms,
            "virtual_packages": {name: dict(packages) for name, packages in self.virtual_packages.items()},
        }
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def lock_json_name(image_type: str) -> str:
    """Return the name of our lock file."""
    return f"{image_type}.lock.json"


def env_out_name(image_type: str, platform: str, first_platform: str) -> str:
    """Return the name of the explicit export; platforms after the first have theirs in it."""
    return f"{image_type}.env.out" if platform == first_platform else f"{image_type}.{platform}.env.out"


def conda_lock_name(image_type: str) -> str:
    """Return the name of the conda-lock export."""
    return f"{image_type}.conda-lock.yml"


def write_env_out(packages: Sequence[LockedPackage], platform: str) -> str:
    """Write the explicit format that `conda create --file` reads: `URL#md5` in install order.

    A package of a `file:` channel keeps its address relative to the root. Without an md5 the sha256 stands there, which
    conda reads too.
    """
    lines = [f"{package.url}#{package.md5 or package.sha256 or ''}\n" for package in packages]
    return _HEADER.format(platform=platform) + "".join(lines)


def read_env_out(text: str, source: str) -> tuple[LockedPackage, ...]:
    """Read an explicit list (`source` is the file's name, for messages); what it does not say is `None`.

    Raises:
        ConfigError: there is no `@EXPLICIT`, or an address or a hash is malformed, or a name comes twice.

    """
    packages: dict[str, LockedPackage] = {}
    explicit = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line == _EXPLICIT:
            explicit = True
        if not line or line.startswith(("#", _EXPLICIT)):
            continue
        where = f"{source}:{number}"
        package = _explicit_package(line, where)
        if packages.setdefault(package.name, package) is not package:
            raise ConfigError(f"{where}: {package.name} is listed twice")
    if not explicit:
        raise ConfigError(f"{source}: no {_EXPLICIT} line: this is not an explicit list of packages")
    return tuple(packages.values())


def env_out_platform(text: str) -> str | None:
    """Return the `# platform:` of an explicit list's header."""
    match = re.search(r"^# platform: *([a-z]+-[a-z0-9_]+)\s*$", text, re.MULTILINE)
    return match[1] if match else None


def write_conda_lock(lock: Lock, sources: Iterable[str]) -> str:
    """Write conda-lock's v1 format by conda-lock's own models; `sources` are the names of the spec files.

    Loads `conda_lock` (0.6 s).

    Raises:
        ConfigError: a package has no md5, which the format demands.

    """
    with warnings.catch_warnings():
        # The conda inside of conda-lock deprecates parts of itself when it is imported.
        warnings.simplefilter("ignore")
        import conda_lock.interfaces.vendored_conda
        import yaml  # type: ignore[import-untyped]  # ships no annotations; comes with conda-lock
        from conda_lock.lockfile.v1.models import HashModel, LockMeta
        from conda_lock.lockfile.v2prelim.models import LockedDependency, Lockfile
        from conda_lock.models.channel import Channel
    match_spec = conda_lock.interfaces.vendored_conda.MatchSpec

    entries = []
    for platform, packages in lock.platforms.items():
        for package in packages:
            if package.md5 is None:
                raise ConfigError(f"{package.dist} has no md5 in its channel's index; conda-lock.yml cannot name it")
            entries.append(
                LockedDependency(
                    name=package.name,
                    version=package.version,
                    manager="conda",
                    platform=platform,
                    dependencies=_conda_lock_dependencies(package, match_spec),
                    url=package.url,
                    hash=HashModel(md5=package.md5, sha256=package.sha256),
                    categories={"main"},
                )
            )
    digest = lock.input_hash.removeprefix("sha256:")
    content = Lockfile(
        package=entries,
        metadata=LockMeta(
            content_hash=dict.fromkeys(lock.platforms, digest),
            channels=[Channel.from_string(channel) for channel in lock.channels],
            platforms=list(lock.platforms),
            sources=list(sources),
        ),
    )
    content.alphasort_inplace()
    content.filter_virtual_packages_inplace()
    name = conda_lock_name(lock.image_type)
    header = f"# Exported from {lock_json_name(lock.image_type)} by Lockyard; install with: conda-lock install {name}\n"
    # libyaml's dumper is five times as fast as the one in Python, and writes the same.
    dumper = getattr(yaml, "CDumper", yaml.Dumper)
    return header + str(yaml.dump(content.to_v1().dict_for_output(), Dumper=dumper, sort_keys=False))


def lock_from_tree(tree: Tree, image_type: str, *, source: str) -> Lock | None:
    """Return the lock of a release's files: `lock.json`, else the `env.out` of an adopted release, else `None`.

    `source` is the release directory's name, for messages.

    Raises:
        ConfigError: a lock file is malformed.

    """
    name = lock_json_name(image_type)
    if name in tree:
        lock = read_lock_json(_text(tree, name, source), f"{source}/{name}")
        if lock.image_type != image_type:
            raise ConfigError(f"{source}/{name}: it is the lock of image type {lock.image_type!r}")
        return lock
    platforms: dict[str, tuple[LockedPackage, ...]] = {}
    first = f"{image_type}.env.out"
    if first not in tree:
        return None
    text = _text(tree, first, source)
    platforms[env_out_platform(text) or "linux-64"] = read_env_out(text, f"{source}/{first}")
    for path in tree:
        match = re.fullmatch(rf"{re.escape(image_type)}\.({PLATFORM_RE.pattern})\.env\.out", path)
        if match:
            platforms[match[1]] = read_env_out(_text(tree, path, source), f"{source}/{path}")
    return Lock(image_type=image_type, platforms=platforms)


def _text(tree: Tree, name: str, source: str) -> str:
    try:
        return tree[name].data.decode()
    except UnicodeDecodeError as error:
        line = tree[name].data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}/{name}:{line}: not UTF-8 text") from error


def _explicit_package(line: str, where: str) -> LockedPackage:
    try:
        return _known_package(line)
    except ConfigError:
        return _parse_package(line, where)  # raises again, with the place


@functools.lru_cache(maxsize=1 << 16)
def _known_package(line: str) -> LockedPackage:
    """Parse a line once: the releases of a catalog share most of theirs."""
    return _parse_package(line, "")


def _parse_package(line: str, where: str) -> LockedPackage:
    url, _, digest = line.partition("#")
    digest = digest.removeprefix("sha256:").removeprefix("md5:").lower()
    kind = {32: "md5", 64: "sha256", 0: ""}.get(len(digest))
    if kind is None or (kind and not HASH_RES[kind].fullmatch(digest)):
        raise ConfigError(f"{where}: {digest[:80]!r} is neither an md5 nor a sha256")
    address = parse_package_url(url, source=where)
    return LockedPackage(
        name=address.name,
        version=address.version,
        build=address.build,
        url=url,
        subdir=address.subdir,
        build_number=_build_number(address.build),
        channel=address.channel,
        md5=digest if kind == "md5" else None,
        sha256=digest if kind == "sha256" else None,
    )


def _build_number(build: str) -> int:
    """Return the build number that a build string ends with by convention (`py311h64a7726_0`), else 0."""
    match = re.search(r"(?:^|_)(\d{1,9})$", build)
    return int(match[1]) if match else 0


def _conda_lock_dependencies(package: LockedPackage, match_spec: Any) -> dict[str, str]:
    """Return name → version part as conda-lock writes them: by its own MatchSpec class, the build part dropped."""
    by_name: dict[str, list[Any]] = {}
    for text in package.depends:
        spec = match_spec(text)
        by_name.setdefault(str(spec.name), []).append(spec)
    merged = {name: specs[0] if len(specs) == 1 else match_spec.merge(specs)[0] for name, specs in by_name.items()}
    return {name: spec.version.spec_str if spec.version is not None else "" for name, spec in merged.items()}


def _significant(text: str) -> list[str]:
    return [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")]
