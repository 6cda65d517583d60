"""Channels and package addresses: what a channel is called, where its packages are, and what a safe address is.

A channel of the configuration is a name (`conda-forge`), a URL, or `file:PATH` relative to the distribution's root. The
file name of a package is `NAME-VERSION-BUILD.conda` or `.tar.bz2` (conda CEP 26 names its parts).
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lockyard.errors import ConfigError
from lockyard.tree import check_relative

ALIAS = "https://conda.anaconda.org"
"""Where a channel that is only a name lives, as in conda's default `channel_alias`."""

_CHANNEL_NAME_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_NAME_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_VERSION_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!~*]*")
_BUILD_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!~]*")
_SUBDIR_RE = re.compile(r"noarch|[a-z]+-[a-z0-9_]+")
_NO_HOST_RE = re.compile(r"[<>\"{}|^`]")
_FORBIDDEN_RE = re.compile(r"[\x00-\x20\x7f\\?#]")
_EXTENSIONS = (".conda", ".tar.bz2")
_FILE = "file:"


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel: its text in the configuration, the name before `::` in a spec, and the prefix of its addresses.

    `base` has no final slash: `https://conda.anaconda.org/conda-forge`, `file:channel`, `file:///srv/channel`.
    """

    text: str
    name: str
    base: str

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine."""
        return self.base.startswith(_FILE)


@dataclass(frozen=True, slots=True)
class PackageAddress:
    """The parts of a package's address; name, version and build are those of the file name."""

    base: str
    subdir: str
    file_name: str
    name: str
    version: str
    build: str

    @property
    def channel(self) -> str:
        """The channel's name, as before `::` in a spec."""
        return _name_of(self.base)


def parse_channel(text: str, *, source: str) -> Channel:
    """Parse a channel of the configuration (`source` begins the message).

    Raises:
        ConfigError: it is no name, URL or `file:` path, holds credentials, or leaves the root.

    """
    if "://" not in text and not text.startswith(_FILE):
        if not _CHANNEL_NAME_RE.fullmatch(text):
            raise ConfigError(f"{source}: {text!r} is not a channel name, URL or file: path")
        return Channel(text, text, f"{ALIAS}/{text}")
    base = _check_url(text.rstrip("/"), source)
    return Channel(text, _name_of(base), base)


def parse_channels(texts: Iterable[str], *, source: str) -> tuple[Channel, ...]:
    """Parse the channels in their order.

    Raises:
        ConfigError: one is wrong, or two have one name, so that `NAME::package` would be ambiguous.

    """
    channels: dict[str, Channel] = {}
    for text in texts:
        channel = parse_channel(text, source=source)
        other = channels.setdefault(channel.name, channel)
        if other is not channel:
            raise ConfigError(f"{source}: channels {other.text!r} and {text!r} are both called {channel.name!r}")
    return tuple(channels.values())


def parse_package_url(url: str, *, source: str) -> PackageAddress:
    """Take a package's address apart (`source` begins the message).

    Raises:
        ConfigError: it is not `BASE/SUBDIR/NAME-VERSION-BUILD.EXT` with a safe base.

    """
    base, _, file_name = url.rpartition("/")
    # A lock has a thousand addresses below a few places; what may stand in the file name is told by its parts.
    _check_url(base if file_name and base else url, source)
    base, _, subdir = base.rpartition("/")
    file_name = unquote(file_name)
    stem = next((file_name.removesuffix(end) for end in _EXTENSIONS if file_name.endswith(end)), None)
    parts = stem.rsplit("-", 2) if stem is not None else []
    if not base or base.endswith("/") or not _SUBDIR_RE.fullmatch(subdir) or len(parts) != 3:
        raise ConfigError(f"{source}: {url!r} is not CHANNEL/SUBDIR/NAME-VERSION-BUILD.conda (or .tar.bz2)")
    name, version, build = parts
    check_parts(name, version, build, source=source)
    return PackageAddress(base, subdir, file_name, name, version, build)


def check_parts(name: str, version: str, build: str, *, source: str) -> None:
    """Check a package's name, version and build: no separators, no leading dots, so they are safe in paths.

    Raises:
        ConfigError: one is malformed.

    """
    for kind, value, pattern in (
        ("name", name, _NAME_RE),
        ("version", version, _VERSION_RE),
        ("build", build, _BUILD_RE),
    ):
        if not pattern.fullmatch(value):
            raise ConfigError(f"{source}: {value!r} is not a package {kind}")


def _check_url(url: str, source: str) -> str:
    problem = _problem(url)
    if problem is not None:
        message, hint = problem
        raise ConfigError(f"{source}: {message}", hint=hint)
    return url


@functools.lru_cache(maxsize=1024)
def _problem(url: str) -> tuple[str, str | None] | None:
    """Return what is wrong with an address, and the hint."""
    if _FORBIDDEN_RE.search(url):
        return f"{redact(url)!r} holds a character that an address cannot have", None
    return _file_problem(url) if url.startswith(_FILE) else _http_problem(url)


def _file_problem(url: str) -> tuple[str, str | None] | None:
    path = url.removeprefix(_FILE)
    path = path.removeprefix("//").removeprefix("/") if path.startswith("///") else path
    try:
        check_relative(unquote(path) if path else "")
    except ConfigError:
        hint = "a file: path is relative to the root; write file:///… for a place outside of it"
        return f"{url!r} leaves the distribution's root", hint
    return None


def _http_problem(url: str) -> tuple[str, str | None] | None:
    try:
        parts = urlsplit(url)
    except ValueError:  # such as an unclosed bracket
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or _NO_HOST_RE.search(parts.netloc):
        return f"{redact(url)!r} is not an http, https or file address", None
    if "@" in parts.netloc or "/t/" in parts.path:
        return (
            f"{redact(url)!r} holds credentials, which must not reach a committed file",
            "put them into ~/.netrc",
        )
    segments = [unquote(segment) for segment in parts.path.split("/")[1:]]
    if any(segment in {"", ".", ".."} or "/" in segment or "\\" in segment for segment in segments):
        return f"{redact(url)!r} is not a plain address", None
    return None


def redact(url: str) -> str:
    """Return `url` for a message, without user, password and conda token.

    >>> redact("https://me:secret@host.example/t/abc/chan")
    'https://***@host.example/t/***/chan'
    """
    url = re.sub(r"(?<=://)[^/@\s]*@", "***@", url)
    return re.sub(r"/t/[^/\s]+", "/t/***", url)


def _name_of(base: str) -> str:
    if base.startswith(_FILE):
        return base.rstrip("/").rpartition("/")[2].removeprefix(_FILE)
    return base.removeprefix(f"{ALIAS}/")
