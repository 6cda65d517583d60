"""What registries say and how to read it (OCI Distribution Specification 1.1; RFC 9110, "WWW-Authenticate"). No I/O.

Nothing that a registry sends reaches a message unbounded or with control characters, and no address with its query.
"""

import base64
import binascii
import datetime as dt
import email.utils
import http
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin, urlsplit

from lockyard.errors import RegistryError

_CHALLENGE_RE = re.compile(
    r'[\s,]*(?:([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z0-9_-]+))', re.ASCII
)
_RANGE_RE = re.compile(r"(?:bytes=)?0-(\d{1,18})", re.ASCII)
_LINK_RE = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?', re.ASCII)
_MAX_TEXT = 300


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A user name and a password, or an identity token of a token server; never shown."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return "Credential(***)"


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a registry wants to be asked: `basic` or `bearer` with the parameters of the header."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Read a `WWW-Authenticate` header; schemes and parameter names come out in lower case.

    >>> parse_challenges('Bearer realm="https://auth.example.com/token",service="reg"')[0].parameters["service"]
    'reg'
    """
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    position = 0
    while match := _CHALLENGE_RE.match(header, position):
        position = match.end()
        name, quoted, bare, scheme = match.groups()
        if scheme:
            parameters = {}
            found.append(Challenge(scheme.lower(), parameters))
        else:
            parameters[name.lower()] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return tuple(found)


def basic(credential: Credential) -> str:
    """Return the header of Basic authentication (RFC 7617)."""
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def decode_basic(text: str) -> str:
    """Return `NAME:PASSWORD` from its base64 form.

    Raises:
        ValueError: it is none; the message does not quote it.

    """
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("damaged base64") from None


def retry_after(text: str, now: dt.datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for: a number or a date (RFC 9110, 10.2.3).

    >>> retry_after("7", dt.datetime.now(dt.UTC)), retry_after("soon", dt.datetime.now(dt.UTC))
    (7.0, None)
    """
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
    return max(0.0, (date - now).total_seconds())


def error_text(status: int, body: bytes) -> str:
    """Return what a failed request answered, in one bounded line of printable characters."""
    return plain(f"HTTP {status}{_phrase(status)}" + "".join(f"; {item}" for item in _errors(body)))


def plain(text: str) -> str:
    """Return `text` as one bounded line of printable characters."""
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def received(header: str | None) -> int | None:
    """Return how many bytes an upload has, from its `Range` header; `None` when it does not say.

    `0-0` is what registries answer for an upload that has nothing yet.

    >>> received("0-1023"), received("0-0"), received(None)
    (1024, 0, None)
    """
    match = _RANGE_RE.fullmatch(header or "")
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0


def next_page(link: str | None, url: str) -> str | None:
    """Return the address of the next page of a listing, from its `Link` header."""
    match = _LINK_RE.search(link or "")
    return urljoin(url, match[1]) if match else None


def origin(url: str) -> tuple[str, str]:
    """Return scheme and authority: credentials go only where both are the registry's."""
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower()


def shown(url: str) -> str:
    """Return an address for a message: without user information and query."""
    parts = urlsplit(url)
    return plain(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def is_loopback(host: str) -> bool:
    """Tell whether `HOST[:PORT]` is this machine.

    >>> is_loopback("127.0.0.2:5000"), is_loopback("localhost"), is_loopback("127.0.0.1.example.com")
    (True, True, False)
    """
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def follow(url: str, location: str | None, *, allow_plain: bool) -> str:
    """Return the absolute address that the `Location` header of an answer from `url` leads to.

    Raises:
        RegistryError: there is none, or it leads to plain http where that is not allowed.

    """
    if not location:
        raise RegistryError(f"{shown(url)}: the answer names no location")
    target = urljoin(url, location)
    parts = urlsplit(target)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise RegistryError(f"{shown(url)} leads to {shown(target)}, which is no web address")
    if parts.scheme == "http" and not (allow_plain or is_loopback(parts.netloc.rpartition("@")[2])):
        raise RegistryError(
            f"{shown(url)} leads to {shown(target)}: data would go over plain http",
            hint="let the registry answer with https addresses, or give --insecure",
        )
    return target


def with_digest(location: str, digest: str) -> str:
    """Return the address that closes an upload."""
    return f"{location}{'&' if urlsplit(location).query else '?'}digest={quote(digest, safe='')}"


def _phrase(status: int) -> str:
    try:
        return f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _errors(body: bytes) -> list[str]:
    try:
        value = json.loads(body)
    except ValueError:
        return []
    items = value.get("errors") if isinstance(value, dict) else None
    if isinstance(value, dict) and not items and value.get("details"):
        return [f"{value['details']}"]  # some token servers
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            parts = [str(item[key]) for key in ("code", "message") if item.get(key)]
            found.append(": ".join(parts))
    return found
