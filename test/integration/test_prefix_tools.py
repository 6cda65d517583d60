"""The prefix in the image is one to other tools: rattler itself, and by the rules that conda and mamba read prefixes with.

Neither conda nor mamba can be installed from a package index here, so their readers are restated below (conda's
`conda/history.py`, `conda/core/prefix_data.py`; libmamba's `history.cpp` reads the same lines).
"""

import ast
import asyncio
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from lockyard.conda.archive import unpack
from lockyard.conda.lock import LockedPackage
from lockyard.engines.materialise import materialise, placed
from lockyard.oci.contents import Python
from lockyard.oci.linking import Linker
from support import awkward

pytestmark = pytest.mark.integration

SPECS = ("text", "zoo >=1,<2", "python[version='>=3.11']")


class Installed:
    """The awkward packages as the image has them, in a directory, and their archives."""

    def __init__(self, place: Path) -> None:
        packages = [package for package in awkward.packages() if not package.name.startswith("clobber")]
        self.archives = [package.write(place / "channel") for package in packages]
        self.prefix = place / "prefix"
        self.locked = [package.locked(path) for package, path in zip(packages, self.archives, strict=True)]
        python = Python.of(self.locked)
        found = []
        for package, archive in zip(self.locked, self.archives, strict=True):
            unpack(archive, place / "packages" / package.dist)
            found.append((package, place / "packages" / package.dist))
        linker = Linker(str(self.prefix), python=python)
        materialise(placed(found, python), linker, place / "root")
        (place / "root" / self.prefix.relative_to("/")).rename(self.prefix)
        history = linker.history(self.locked, SPECS, "2026-01-15 10:00:00")
        (self.prefix / "conda-meta" / "history").write_bytes(b"".join(history.chunks()))

    def files(self) -> dict[str, str]:
        out = {}
        for directory, _, names in os.walk(self.prefix):
            for name in names:
                path = Path(directory, name)
                data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
                out[str(path.relative_to(self.prefix))] = hashlib.sha256(data).hexdigest()
        return out


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def rattler_installs(installed: Installed, names: list[str], cache: Path) -> None:
    """Ask rattler to make the prefix hold exactly these packages."""
    import rattler

    async def run() -> None:
        by_name = {package.name: path for package, path in zip(installed.locked, installed.archives, strict=True)}
        records = []
        for name in names:
            record: Any = await rattler.RepoDataRecord.from_package_archive(by_name[name].resolve())
            records.append(record)
        await rattler.install(
            records, target_prefix=installed.prefix, cache_dir=cache, show_progress=False,
            platform=rattler.Subdir("linux-64"),
        )  # fmt: skip
        await asyncio.sleep(0.05)  # rattler's worker threads still drop Python objects

    asyncio.run(run())


def test_rattler_reads_every_record(installed: Installed) -> None:
    import rattler

    records = [
        rattler.PrefixRecord.from_path(path) for path in sorted((installed.prefix / "conda-meta").glob("*.json"))
    ]
    assert {record.name.normalized for record in records} == {package.name for package in installed.locked}
    for record in records:
        listed = {str(path) for path in record.files}
        assert listed == {str(entry.relative_path) for entry in record.paths_data.paths}
        assert all(os.path.lexists(installed.prefix / path) for path in listed)


def test_rattler_finds_nothing_to_do(installed: Installed, tmp_path: Path) -> None:
    before = installed.files()
    rattler_installs(installed, [package.name for package in installed.locked], tmp_path / "cache")
    after = installed.files()
    ignored = {"CACHEDIR.TAG", "conda-meta/.rattler"}
    assert {path: digest for path, digest in after.items() if path not in ignored} == before


def test_rattler_removes_a_package_by_our_record(installed: Installed, tmp_path: Path) -> None:
    record = json.loads((installed.prefix / "conda-meta" / "zoo-1.0-0.json").read_text())
    rattler_installs(installed, [item.name for item in installed.locked if item.name != "zoo"], tmp_path / "cache")
    left = installed.files()
    assert len(record["files"]) == 7
    assert not set(record["files"]) & set(left)
    assert "conda-meta/zoo-1.0-0.json" not in left
    assert "conda-meta/plain-1.0-0.json" in left


def conda_history(text: str) -> list[tuple[str, set[str], list[str]]]:
    """What `conda.history.History.parse` makes of a history file."""
    out: list[tuple[str, set[str], list[str]]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if match := re.match(r"==>\s*(.+?)\s*<==", line):
            out.append((match[1], set(), []))
        elif line.startswith("#"):
            out[-1][2].append(line)
        else:
            out[-1][1].add(line)
    return out


def test_conda_reads_the_history(installed: Installed) -> None:
    ((when, changes, comments),) = conda_history((installed.prefix / "conda-meta" / "history").read_text())
    assert when == "2026-01-15 10:00:00"
    assert changes == {f"+{package.channel}/{package.subdir}::{package.dist}" for package in installed.locked}
    (match,) = (found for found in (re.match(r"#\s*(\w+)\s*specs:\s*(.+)?", line) for line in comments) if found)
    assert match[1] == "update"
    assert ast.literal_eval(match[2]) == sorted(SPECS)  # conda; mamba takes the quoted texts
    assert re.findall(r'"([^"]*)"', match[2]) == sorted(SPECS)


def test_conda_reads_the_records(installed: Installed) -> None:
    """`PrefixData._load_single_record`: the file is named for its package, and the fields that conda requires are there."""
    by_dist: dict[str, LockedPackage] = {package.dist: package for package in installed.locked}
    for path in (installed.prefix / "conda-meta").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert path.stem == record["fn"].removesuffix(".conda").removesuffix(".tar.bz2")
        assert path.stem == f"{record['name']}-{record['version']}-{record['build']}"
        package = by_dist[path.stem]
        assert (record["url"], record["channel"], record["subdir"]) == (package.url, package.channel, package.subdir)
        assert isinstance(record["build_number"], int)
        assert record["paths_data"]["paths_version"] == 1
        kinds = {"hardlink", "softlink", "directory", "pyc_file", "unix_python_entry_point"}
        assert {entry["path_type"] for entry in record["paths_data"]["paths"]} <= kinds
        assert record["files"] == [entry["_path"] for entry in record["paths_data"]["paths"]]
