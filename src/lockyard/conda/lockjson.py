"""`{type}.lock.json`, the lock file that Lockyard reads: one package a line, every field validated on reading.

A lock comes from a repository that others edit, and its names, versions and file names become paths.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lockyard.conda.channels import PackageAddress, parse_channels, parse_package_url
from lockyard.conda.lock import Lock, LockedPackage, Reason
from lockyard.errors import ConfigError

SCHEMA = 1
HASH_RES = {"md5": re.compile(r"[0-9a-f]{32}"), "sha256": re.compile(r"[0-9a-f]{64}")}
PLATFORM_RE = re.compile(r"[a-z]+-[a-z0-9_]+")
_INPUT_HASH_RE = re.compile(r"sha256:[0-9a-f]{64}|")
_CONTROL_RE = re.compile(r"[\x00-\x1f\x7f]")


def write_lock_json(lock: Lock) -> str:
    """Write `lock`: sorted keys, one package and one reason a line, a final newline."""
    values: dict[str, str] = {
        "base": _dump(lock.base),
        "channels": _dump(lock.channels),
        "exclude_newer": _dump(lock.exclude_newer),
        "image_type": _dump(lock.image_type),
        "input_hash": _dump(lock.input_hash),
        "packages": _per_platform({name: map(_package_json, items) for name, items in lock.platforms.items()}),
        "platforms": _dump(tuple(lock.platforms)),
        "reasons": _per_platform({name: map(dataclasses.asdict, items) for name, items in lock.reasons.items()}),
        "schema": _dump(SCHEMA),
        "specs": _lines(lock.specs, 1),
        "virtual_packages": _dump({name: dict(items) for name, items in lock.virtual_packages.items()}),
    }
    body = ",\n".join(f" {_dump(key)}: {values[key]}" for key in sorted(values))
    return f"{{\n{body}\n}}\n"


@functools.lru_cache(maxsize=8)
def read_lock_json(text: str, source: str) -> Lock:
    """Read what `write_lock_json` wrote (`source` is the file's name, for messages).

    A command looks at the same few locks again and again, and nothing changes a `Lock`: the last ones are kept.

    Raises:
        ConfigError: it is no JSON, its schema is newer than ours, or a field is missing, unknown or malformed.

    """
    reader = _Reader(text, source)
    data = reader.load()
    platforms = reader.strings(data, "platforms")
    channels = reader.strings(data, "channels")
    packages = reader.mapping(data, "packages")
    if not platforms or sorted(platforms) != sorted(packages) or not all(map(PLATFORM_RE.fullmatch, platforms)):
        raise reader.error('"platforms"', "the platforms and those of the packages are not the same conda subdirs")
    local = tuple(f"{item.base}/" for item in parse_channels(channels, source=source) if item.is_local)
    reasons = reader.mapping(data, "reasons")
    return Lock(
        image_type=reader.string(data, "image_type"),
        platforms={name: reader.packages(packages[name], name, local) for name in platforms},
        channels=channels,
        virtual_packages={
            name: reader.string_map(value, name) for name, value in reader.mapping(data, "virtual_packages").items()
        },
        specs=reader.strings(data, "specs"),
        exclude_newer=reader.optional_string(data, "exclude_newer"),
        input_hash=reader.input_hash(data),
        base=reader.optional_string(data, "base"),
        reasons={name: reader.reasons(value) for name, value in reasons.items()},
    )


_FIELDS = tuple(sorted(dataclasses.fields(LockedPackage), key=lambda item: item.name))
_DEFAULTS = {item.name: None if item.default is dataclasses.MISSING else item.default for item in _FIELDS}


def _package_json(package: LockedPackage) -> dict[str, Any]:
    """Return what is not the default; what is unknown is left out."""
    values = {item.name: getattr(package, item.name) for item in _FIELDS}
    return {name: value for name, value in values.items() if value != _DEFAULTS[name]}


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _lines(values: Iterable[object], indent: int) -> str:
    space = " " * indent
    lines = ",\n".join(f"{space} {_dump(value)}" for value in values)
    return f"[\n{lines}\n{space}]" if lines else "[]"


def _per_platform(values: Mapping[str, Iterable[object]]) -> str:
    lines = ",\n".join(f"  {_dump(name)}: {_lines(values[name], 2)}" for name in sorted(values))
    return f"{{\n{lines}\n }}" if lines else "{}"


class _Reader:
    """Takes JSON apart and names the file and the line of what is wrong."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source

    def error(self, needle: str, message: str) -> ConfigError:
        """Make the error for the first line that holds `needle`."""
        offset = self.text.find(needle)
        line = self.text.count("\n", 0, offset) + 1 if offset >= 0 else 1
        return ConfigError(f"{self.source}:{line}: {message}", hint="the file is written by `lockyard lock`")

    def load(self) -> dict[str, Any]:
        try:
            data = json.loads(self.text)
        except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError; so is a number of 5,000 digits
            line = getattr(error, "lineno", 1)
            raise ConfigError(f"{self.source}:{line}: not JSON: {error}") from error
        if not isinstance(data, dict):
            raise self.error("", "not a JSON object")
        schema = data.get("schema")
        if type(schema) is not int or schema < 1:
            raise self.error('"schema"', "no schema number")
        if schema > SCHEMA:
            raise ConfigError(
                f"{self.source}: schema {schema} is newer than this Lockyard knows ({SCHEMA})", hint="upgrade Lockyard"
            )
        known = {field.name for field in dataclasses.fields(Lock)} | {"schema", "packages"}
        self._keys(data, known, known)
        return data

    def string(self, data: Mapping[str, Any], key: str) -> str:
        value = data[key]
        if not isinstance(value, str) or _CONTROL_RE.search(value):
            raise self.error(f'"{key}"', f"{key}: {value!r:.80} is not a line of text")
        return value

    def optional_string(self, data: Mapping[str, Any], key: str) -> str | None:
        return None if data[key] is None else self.string(data, key)

    def strings(self, data: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = data[key]
        if not isinstance(value, list):
            raise self.error(f'"{key}"', f"{key}: not a list")
        return tuple(self.string({key: item}, key) for item in value)

    def mapping(self, data: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = data[key]
        if not isinstance(value, dict):
            raise self.error(f'"{key}"', f"{key}: not an object")
        return value

    def string_map(self, value: object, key: str) -> dict[str, str]:
        items = self.mapping({key: value}, key)
        return {name: self.string(items, name) for name in items}

    def input_hash(self, data: Mapping[str, Any]) -> str:
        value = self.string(data, "input_hash")
        if not _INPUT_HASH_RE.fullmatch(value):
            raise self.error('"input_hash"', f"input_hash: {value!r:.80} is not sha256:HEX")
        return value

    def reasons(self, value: object) -> tuple[Reason, ...]:
        found = []
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict) or set(item) != {"name", "old", "new", "kind"}:
                raise self.error('"reasons"', "a reason is not {name, old, new, kind}")
            old, new = self.optional_string(item, "old"), self.optional_string(item, "new")
            found.append(Reason(self.string(item, "name"), old, new, self.string(item, "kind")))
        return tuple(found)

    def packages(self, value: object, platform: str, local: tuple[str, ...]) -> tuple[LockedPackage, ...]:
        """Read one platform's packages; `local` are the prefixes that a `file:` address may have."""
        if not isinstance(value, list):
            raise self.error('"packages"', f"packages of {platform}: not a list")
        found: dict[str, LockedPackage] = {}
        for item in value:
            package = self._package(item, platform, local)
            if found.setdefault(package.name, package) is not package:
                raise self.error(_dump(package.url), f"{package.name} is there twice for {platform}")
        return tuple(found.values())

    def _package(self, item: object, platform: str, local: tuple[str, ...]) -> LockedPackage:
        if not isinstance(item, dict):
            raise self.error('"packages"', f"packages of {platform}: not an object")
        url = item.get("url")
        needle = _dump(url) if isinstance(url, str) else '"packages"'
        try:
            self._keys(item, set(_DEFAULTS), {"name", "version", "build", "url", "subdir"})
            values = {key: _FIELD_READERS[key](value, key) for key, value in item.items()}
            package = LockedPackage(**values)
            address = parse_package_url(package.url, source="url")
            _check_address(package, address, platform, local)
        except (ConfigError, TypeError, ValueError) as error:
            raise self.error(needle, f"{item.get('name')!r:.80}: {error}") from error
        return package

    def _keys(self, data: Mapping[str, Any], known: set[str], needed: set[str]) -> None:
        for key in sorted(set(data) - known):
            raise self.error(f'"{key}"', f"unknown key {key!r:.80}")
        for key in sorted(needed - set(data)):
            raise self.error("", f"{key!r} is missing")


def _check_address(package: LockedPackage, address: PackageAddress, platform: str, local: tuple[str, ...]) -> None:
    """Check that the record and its address are about one package, of this platform, from a channel of the lock."""
    same = (address.name.lower(), address.version, address.build) == (
        package.name.lower(),
        package.version,
        package.build,
    )
    if not same or address.subdir != package.subdir:
        raise ConfigError(f"its address is that of {address.subdir}/{address.name}-{address.version}-{address.build}")
    if package.subdir not in {platform, "noarch"}:
        raise ConfigError(f"{package.subdir} is not for {platform}")
    if package.url.startswith("file:") and not package.url.startswith(local):
        raise ConfigError(f"{package.url!r} is below no file: channel of this lock")
    if package.sha256 is None and package.md5 is None:
        raise ConfigError("no sha256 and no md5")


def _line(value: object, key: str) -> str:
    if not isinstance(value, str) or _CONTROL_RE.search(value):
        raise ValueError(f"{key}: {value!r:.80} is not a line of text")
    return value


def _number(value: object, key: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{key}: {value!r:.80} is not a count")
    return value


def _texts(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{key}: not a list")
    return tuple(_line(item, key) for item in value)


def _hash(value: object, key: str) -> str:
    if not isinstance(value, str) or not HASH_RES[key].fullmatch(value):
        raise ValueError(f"{key}: {value!r:.80} is not a lower-case {key}")
    return value


_FIELD_READERS: dict[str, Callable[[object, str], Any]] = {
    **dict.fromkeys(_DEFAULTS, _line),
    **dict.fromkeys(("build_number", "size", "timestamp"), _number),
    **dict.fromkeys(("depends", "constrains", "track_features"), _texts),
    **dict.fromkeys(("md5", "sha256"), _hash),
}
