"""A distribution on disk: its root, configuration, lines and releases."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.distribution import Distribution, Line, Variant, parse_distribution, parse_line
from lockyard.errors import ConfigError
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

_DIR_RE = re.compile(r"v(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)")
_MAJOR_RE = re.compile(r"v(0|[1-9]\d*)")
_CONFIG_FILES = ("lockyard.toml", "pyproject.toml")
_RELEASE_FILES = (".lock.json", ".env.out", ".env.in")


@dataclass(frozen=True)
class Workspace:
    """A distribution's root directory with its configuration."""

    root: Path
    distribution: Distribution

    @property
    def config_name(self) -> str:
        """The file that holds the configuration, for messages."""
        return next((name for name in _CONFIG_FILES if (self.root / name).is_file()), _CONFIG_FILES[0])

    @property
    def state_dir(self) -> Path:
        """Where locks, journals and logs live; ignored by git."""
        return self.root / ".lockyard"

    def out_dir(self, version: Version, image_type: str, platform: str) -> Path:
        """Return the place of a built image: an OCI layout, `build.json` and `tests.json`."""
        return self.root / "out" / str(version) / image_type / platform

    def lock(
        self, *, patience: float = 0.0, tell: Callable[[str], object] | None = None
    ) -> AbstractContextManager[None]:
        """Hold the distribution's write lock.

        Raises:
            LockyardError: another command does, and still after `patience` seconds; `tell` is told of the waiting.

        """
        return fs.lock(self.state_dir / "lock", patience=patience, tell=tell)

    def line_path(self, version: Version) -> Path:
        """Return the path of the major line's `variants.toml`."""
        return self.root / "template" / f"v{version.major}" / "variants.toml"

    def line(self, version: Version) -> Line:
        """Return the major line of `version`.

        Raises:
            ConfigError: its file is missing or wrong.

        """
        path = self.line_path(version)
        data = fs.read_file(path)
        if data is None:
            raise ConfigError(
                f"{path.relative_to(self.root)} is missing: it declares the image types of line {version.major}",
                hint="write it by docs/reference/configuration.md",
            )
        return parse_line(decode(data, str(path.relative_to(self.root))), source=str(path.relative_to(self.root)))

    def lines(self) -> tuple[Line, ...]:
        """Return all major lines that are declared, sorted.

        Raises:
            ConfigError: a file is wrong.

        """
        found = [
            int(match[1])
            for path in fs.subdirectories(self.root / "template")
            if (match := _MAJOR_RE.fullmatch(path.name))
        ]
        versions = [Version(major, 0, 0) for major in sorted(found)]
        return tuple(self.line(version) for version in versions if self.line_path(version).is_file())

    def variants(self, version: Version, image_types: tuple[str, ...] = ()) -> Mapping[str, Variant]:
        """Return the asked image types of the line in file order, all when none is asked.

        Raises:
            ConfigError: one does not exist; the nearest is named.

        """
        line = self.line(version)
        for name in image_types:
            line.variant(name)
        return {name: variant for name, variant in line.variants.items() if not image_types or name in image_types}

    def release_path(self, version: Version) -> Path:
        """Return the release directory, there or not."""
        return self.root / release_dir(version)

    def versions(self) -> tuple[Version, ...]:
        """Return the releases that exist, sorted: a `source-version.txt` or a lock makes one."""
        return tuple(sorted(self._versions))

    def minor_line(self, version: Version) -> tuple[Version, ...]:
        """Return the releases that exist on the X.Y line of `version`, sorted; the other lines are not looked at."""
        return tuple(sorted(self._in_line(self.release_path(version.final).parent)))

    def has_release(self, version: Version) -> bool:
        """Tell whether a release exists."""
        return _is_release(self.release_path(version))

    @functools.cached_property
    def _versions(self) -> frozenset[Version]:
        majors = fs.subdirectories(self.root / "build_artifacts")
        return frozenset(
            version for major in majors for line in fs.subdirectories(major) for version in self._in_line(line)
        )

    def _in_line(self, directory: Path) -> Iterator[Version]:
        for path in fs.subdirectories(directory):
            for place in (path, *fs.subdirectories(path)):
                version = _version_of(place.name)
                # A directory in the wrong place is no release.
                if version is not None and self.release_path(version) == place and _is_release(place):
                    yield version

    def release_tree(self, version: Version) -> Tree:
        """Return the files of a release, nested pre-releases left out; empty when there is no directory."""
        return fs.read_tree(self.release_path(version), skip=_is_nested)

    def existing_release(self, version: Version) -> Tree:
        """Return the files of a release that must exist.

        Raises:
            ConfigError: it does not; the known ones near it are named.

        """
        path = self.release_path(version)
        if not self.has_release(version):
            known = [str(item) for item in self.versions()]
            last = f"; the last releases are {', '.join(known[-3:])}" if known else "; there is no release yet"
            raise ConfigError(f"there is no release {version} ({path.relative_to(self.root)}){last}")
        return self.release_tree(version)

    def nested_releases(self, version: Version) -> tuple[str, ...]:
        """Return the names of the pre-release directories inside a release directory."""
        found = fs.subdirectories(self.release_path(version))
        return tuple(path.name for path in found if _is_nested(path.name))


def find_root(start: Path) -> Path:
    """Return the nearest parent of `start` that is a distribution.

    Raises:
        ConfigError: there is none.

    """
    for directory in (start, *start.parents):
        if (directory / "lockyard.toml").is_file():
            return directory
        data = fs.read_file(directory / "pyproject.toml")
        if data is not None and b"[tool.lockyard" in data:
            return directory
    raise ConfigError(
        f"no distribution here: neither {start} nor a parent has lockyard.toml or [tool.lockyard] in pyproject.toml",
        hint="change to a distribution's directory or give --root DIR",
    )


def open_workspace(root: Path) -> Workspace:
    """Open the distribution at `root`.

    Raises:
        ConfigError: its configuration is missing or wrong.

    """
    for name in _CONFIG_FILES:
        data = fs.read_file(root / name)
        if data is not None:
            return Workspace(root, parse_distribution(decode(data, name), source=name))
    raise ConfigError(f"{root} has neither lockyard.toml nor pyproject.toml", hint="give the root of a distribution")


def decode(data: bytes, source: str) -> str:
    """Decode UTF-8.

    Raises:
        ConfigError: it is not; the line is named.

    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}:{line}: not UTF-8 text") from error


def _is_release(path: Path) -> bool:
    # A first release has no source-version.txt and, before its first `lock`, only its specs.
    return any(name == "source-version.txt" or name.endswith(_RELEASE_FILES) for name in fs.names(path))


def _is_nested(relative: str) -> bool:
    return "/" not in relative and "-" in relative and _DIR_RE.fullmatch(relative) is not None


def _version_of(name: str) -> Version | None:
    """Return the version that a directory is named after."""
    try:
        return Version.parse(name.removeprefix("v")) if _DIR_RE.fullmatch(name) else None
    except ConfigError:
        return None
