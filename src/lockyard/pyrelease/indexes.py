"""Package indexes: which one is meant, and what the answer of its simple API says. Pure.

Sources: the simple repository API (https://packaging.python.org/specifications/simple-repository-api/) in JSON and HTML, and the
upload addresses in the documentation of twine.
"""

import html.parser
import json
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import Version

from lockyard.errors import ConfigError, RegistryError, VersionExistsError
from lockyard.pyrelease.dist import DistFile, file_version
from lockyard.pyrelease.project import PackageIndex, Project
from lockyard.suggest import nearest

KNOWN: Mapping[str, PackageIndex] = {
    "pypi": PackageIndex(upload="https://upload.pypi.org/legacy/", simple="https://pypi.org/simple/"),
    "testpypi": PackageIndex(upload="https://test.pypi.org/legacy/", simple="https://test.pypi.org/simple/", test=True),
}
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON_TYPE}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_LOOPBACK = {"localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Target:
    """An index to publish to: `section` is its name in `~/.pypirc` (or pypi, testpypi), empty when it has none."""

    name: str
    upload: str
    simple: str
    is_test: bool
    section: str

    def project_url(self, project: str) -> str:
        """Return the address of a project's files."""
        return f"{self.simple.rstrip('/')}/{canonicalize_name(project)}/"


def find_target(project: Project, asked: str | None, pypirc: Mapping[str, str]) -> Target:
    """Return the index that a name or an address means; `pypirc` is section → upload address of `~/.pypirc`.

    Names are those of `[tool.lockyard.package.indexes]`, then pypi and testpypi, then those of `~/.pypirc`.

    Raises:
        ConfigError: there is no such index, or its address is not safe.

    """
    name = asked or project.table.index
    known = {**{key: PackageIndex(upload=url) for key, url in pypirc.items() if url}, **KNOWN, **project.table.indexes}
    if "://" in name:
        index = next((item for item in known.values() if _same(item.upload, name)), PackageIndex(upload=name))
    elif name in known:
        index = known[name]
    else:
        raise ConfigError(
            f"unknown package index {name!r}; there are {', '.join(known)}",
            hint=nearest(name, dict(known)) or "an address begins with https://",
        )
    sections = {**{key: item.upload for key, item in KNOWN.items()}, **pypirc}
    own = [key for key, url in sections.items() if _same(url, index.upload)]
    section = name if name in own else next(iter(own), "")
    simple = index.simple or _simple_of(index.upload)
    for address in (index.upload, simple):
        _check_address(name, address)
    return Target(name, index.upload, simple, index.test, section)


def check_publishable(version: Version, target: Target) -> None:
    """Refuse a version that does not belong on this index.

    Raises:
        ConfigError: a final version on a test index, or a local version on any.

    """
    if version.local is not None:
        raise ConfigError(f"{version} is a local version (PEP 440): no index takes it")
    if target.is_test and not version.is_prerelease:
        raise ConfigError(
            f"{version} is a final version, and {target.name} is a test index",
            hint="rehearse with a pre-release; publish the final version to the real index",
        )


def parse_listing(body: bytes, content_type: str, url: str) -> dict[str, str | None]:
    """Return file name → sha256 (`None` where the index does not say) of a project's page.

    Raises:
        RegistryError: it is no page of an index.

    """
    if content_type.partition(";")[0].strip().lower() == JSON_TYPE:
        try:
            files = json.loads(body)["files"]
            return {item["filename"]: item.get("hashes", {}).get("sha256") for item in files}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(f"{url} is no listing of a package index") from error
    page = _Anchors()
    page.feed(body.decode(errors="replace"))
    return dict(_named(page.addresses))


def missing_files(
    files: Iterable[DistFile], listed: Mapping[str, str | None], version: Version, target: Target
) -> tuple[DistFile, ...]:
    """Return the files that the index lacks, none when it has all of them; an upload that was cut goes on.

    Raises:
        VersionExistsError: the index has the version with other bytes.

    """
    ours = {file.name: file for file in files}
    there = files_of(listed, version)
    other = [name for name, digest in there.items() if name not in ours or digest not in {ours[name].sha256, None}]
    if other:
        raise VersionExistsError(
            f"{version} is on {target.name} already, with other bytes", details=sorted(other),
            hint="a version is published once: lockyard package bump",
        )  # fmt: skip
    return tuple(file for name, file in ours.items() if name not in there)


def files_of(listed: Mapping[str, str | None], version: Version) -> dict[str, str | None]:
    """Return those of the listed files that belong to a version."""
    return {name: digest for name, digest in listed.items() if _is_version(name, version)}


def _is_version(name: str, version: Version) -> bool:
    said = file_version(name)
    return said is not None and said[1] == version


def _named(addresses: Iterable[str]) -> Iterable[tuple[str, str | None]]:
    for address in addresses:
        parts = urllib.parse.urlsplit(address)
        name = urllib.parse.unquote(parts.path.rsplit("/", 1)[-1])
        kind, _, digest = parts.fragment.partition("=")
        if name:
            yield name, digest.lower() if kind == "sha256" and digest else None


class _Anchors(html.parser.HTMLParser):
    """Collects the addresses of links."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.addresses += [value for key, value in attrs if key == "href" and value]


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _simple_of(upload: str) -> str:
    base = upload.rstrip("/")
    for end in ("/legacy", "/upload"):
        base = base.removesuffix(end)
    return f"{base}/simple/"


def _check_address(name: str, address: str) -> None:
    parts = urllib.parse.urlsplit(address)
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"the address of {host} holds credentials", hint="they belong into ~/.pypirc or a keyring")
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{name}: {address!r} is not an address of an index")
    if parts.scheme == "http" and host not in _LOOPBACK and not host.startswith("127."):
        raise ConfigError(f"{address} would send credentials in the clear", hint="use https")
