"""Debian packages: fetched with apt into a private cache, opened with dpkg-deb, never installed."""

import hashlib
import os
import posixpath
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from demochannel import tree
from demochannel.commands import need_tool, run
from demochannel.errors import DemoError
from demochannel.stamp import read_json, write_json
from demochannel.tree import Node

ARCHITECTURE = "amd64"
LISTS_ARE_FRESH = 24 * 3600


@dataclass(frozen=True, slots=True)
class Deb:
    """A fetched Debian package."""

    name: str
    version: str
    sha256: str
    path: Path

    @property
    def source(self) -> dict[str, str]:
        """What `sources.json` says about it."""
        return {"kind": "deb", "name": self.name, "sha256": self.sha256, "version": self.version}


class Apt:
    """Fetches packages from the sources the machine is configured with, but with its own state: no root needed."""

    def __init__(self, work: Path, progress: Callable[[str], None]) -> None:
        self._debs = work / "debs"
        self._state = work / "apt"
        self._progress = progress

    def fetch(self, names: Iterable[str]) -> dict[str, Deb]:
        """Return the packages by name; those that are in the cache already are not asked for again."""
        names = sorted(set(names))
        known = self._known()
        missing = [name for name in names if name not in known]
        if missing:
            self._check_machine()
            self._progress(f"debian: fetching {len(missing)} packages")
            self._download(missing)
            known = self._known()
        return {name: known[name] for name in names}

    def _known(self) -> dict[str, Deb]:
        found = {}
        for name, entry in read_json(self._debs / "index.json").items():
            path = self._debs / entry["filename"]
            if path.is_file() and _sha256(path) == entry["sha256"]:
                found[name] = Deb(name, entry["version"], entry["sha256"], path)
        return found

    def _check_machine(self) -> None:
        architecture = run([need_tool("dpkg"), "--print-architecture"]).strip()
        if architecture != ARCHITECTURE:
            raise DemoError(f"the demo channel is made for {ARCHITECTURE}; this machine is {architecture}")

    def _download(self, names: list[str]) -> None:
        self._update()
        chosen = self._candidates(names)
        self._debs.mkdir(parents=True, exist_ok=True)
        stage = self._debs / ".incoming"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        specs = [f"{real}={version}" for real, version in chosen.values()]
        run([need_tool("apt-get"), "-q", *self._options(), "download", *specs], cwd=stage)
        by_real = {path.name.split("_")[0]: path for path in stage.glob("*.deb")}
        index = read_json(self._debs / "index.json")
        for name, (real, version) in chosen.items():
            path = by_real[real]
            index[name] = {"filename": path.name, "sha256": _sha256(path), "version": version}
            path.replace(self._debs / path.name)
        write_json(self._debs / "index.json", index)
        stage.rmdir()

    def _update(self) -> None:
        read = self._state / "lists-read"
        if read.exists() and time.time() - read.stat().st_mtime < LISTS_ARE_FRESH:
            return
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        self._progress("debian: reading the package lists")
        run([need_tool("apt-get"), "-q", *self._options(), "update"])
        read.touch()

    def _options(self) -> list[str]:
        options = {
            "APT::Architecture": ARCHITECTURE,
            "Dir::Cache": str(self._state.absolute() / "cache"),
            "Dir::State": str(self._state.absolute() / "state"),
            "Dir::State::status": "/var/lib/dpkg/status",
        }
        if os.geteuid() == 0:
            options["APT::Sandbox::User"] = "root"
        return [argument for key, value in options.items() for argument in ("-o", f"{key}={value}")]

    def _candidates(self, names: list[str]) -> dict[str, tuple[str, str]]:
        """Choose name and version of each package. Newer releases call some libraries `...t64`."""
        asked = [variant for name in names for variant in (name, f"{name}t64")]
        offered = parse_policy(run([need_tool("apt-cache"), *self._options(), "policy", *asked]))
        chosen = {}
        for name in names:
            real = next((variant for variant in (name, f"{name}t64") if variant in offered), None)
            if real is None:
                raise DemoError(f"apt offers no package {name}: Debian 12 is supported, other releases may lack some")
            chosen[name] = (real, offered[real])
        return chosen


def parse_policy(text: str) -> dict[str, str]:
    """Read the candidate versions from the output of `apt-cache policy`."""
    found = {}
    name = ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            name = line.rstrip(":").partition(":")[0]
        elif line.strip().startswith("Candidate: "):
            candidate = line.split(": ", 1)[1].strip()
            if candidate != "(none)":
                found[name] = candidate
    return found


def upstream_version(version: str) -> str:
    """Return the upstream release of a Debian version: `1:1.2.13.dfsg-1` -> `1.2.13`."""
    release = version.split(":", 1)[-1]
    digits = []
    for part in release.split("."):
        number = "".join(iter_leading_digits(part))
        if number:
            digits.append(number)
        if number != part:
            break
    if not digits:
        raise DemoError(f"no release number in the Debian version {version!r}")
    return ".".join(digits)


def iter_leading_digits(text: str) -> Iterator[str]:
    """Yield the digits that a text starts with."""
    for character in text:
        if not character.isdigit():
            return
        yield character


def control_fields(deb: Deb) -> str:
    """Return the control paragraph of a package."""
    return run([need_tool("dpkg-deb"), "-f", deb.path])


def read_files(deb: Deb) -> dict[str, Node]:
    """Return the files of a package; paths have no leading slash."""
    nodes: dict[str, Node] = {}
    with subprocess.Popen(
        [need_tool("dpkg-deb"), "--fsys-tarfile", str(deb.path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                path = posixpath.normpath(member.name)
                if path != ".":
                    nodes[path] = _node(archive, member, nodes)
        if process.stdout:
            process.stdout.read()
    if process.returncode:
        raise DemoError(f"dpkg-deb cannot open {deb.path.name}")
    return nodes


def _node(archive: tarfile.TarFile, member: tarfile.TarInfo, earlier: Mapping[str, Node]) -> Node:
    if member.isdir():
        return tree.directory(member.mode & 0o7777)
    if member.issym():
        return tree.link(member.linkname)
    if member.islnk():
        return earlier[posixpath.normpath(member.linkname)]
    content = archive.extractfile(member)
    if content is None:
        raise DemoError(f"{member.name} is neither a file, a link nor a directory")
    return tree.file(content.read(), member.mode & 0o7777)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
