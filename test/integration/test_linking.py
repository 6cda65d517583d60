"""The files of an image are those that rattler installs at the same prefix."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demochannel.editions import EDITIONS
from lockyard.conda.archive import unpack
from lockyard.conda.lock import LockedPackage
from lockyard.extracted import DirectoryReader
from lockyard.oci.contents import Python, read_manifest, resolve
from lockyard.oci.linking import Linker
from support import awkward, prefixes
from support.demo import demo_channel
from support.prefixes import Item

pytestmark = pytest.mark.integration

Installed = tuple[dict[str, Item], list[LockedPackage], Path]


def install(archives: Iterable[Path], prefix: str, work: Path) -> Installed:
    """Install with rattler; return the prefix, the packages in install order, and where Lockyard extracted them."""
    import rattler

    async def run() -> tuple[list[Any], list[Any]]:
        records = [await rattler.RepoDataRecord.from_package_archive(path.resolve()) for path in archives]
        await rattler.install(
            records, target_prefix=work / "prefix", cache_dir=work / "cache", show_progress=False,
            alternative_target_prefix=prefix, platform=rattler.Subdir("linux-64"),
        )  # fmt: skip
        order = rattler.PackageRecord.sort_topologically(list(records))
        await asyncio.sleep(0.05)  # rattler's worker threads still drop Python objects
        return records, order

    records, order = asyncio.run(run())
    by_name = {record.name.normalized: record for record in records}
    packages = [locked(json.loads(by_name[item.name.normalized].to_json())) for item in order]
    extracted = work / "extracted"
    for path in archives:
        unpack(path, extracted / path.name.removesuffix(".conda").removesuffix(".tar.bz2"))
    return prefixes.of_directory(work / "prefix"), packages, extracted


def locked(record: dict[str, Any]) -> LockedPackage:
    """The lock's form of a rattler record."""
    known = set(LockedPackage.__dataclass_fields__)
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in record.items() if key in known
    }
    features = record.get("track_features", ())
    fields["track_features"] = tuple(features.split() if isinstance(features, str) else features)
    return LockedPackage(**fields)


def image(packages: list[LockedPackage], cache: Path, prefix: str) -> tuple[dict[str, Item], list[str]]:
    """What Lockyard puts into the image, and the clobbers that it names."""
    python = Python.of(packages)
    readers = [DirectoryReader(cache / package.dist) for package in packages]
    manifests = [read_manifest(*pair, python) for pair in zip(packages, readers, strict=True)]
    moved, clobbers = resolve([manifest.outline(reader) for manifest, reader in zip(manifests, readers, strict=True)])
    linker = Linker(prefix, python=python)
    items: dict[str, Item] = {}
    for manifest, own, reader in zip(manifests, moved, readers, strict=True):
        items |= prefixes.of_entries(linker.entries(manifest, own, reader), prefix)
    return items, [str(clobber) for clobber in clobbers]


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    channel = tmp_path_factory.mktemp("channel")
    return [package.write(channel) for package in awkward.packages()]


@pytest.mark.parametrize(
    "prefix",
    ["/opt/conda", "/opt/another-embedded/prefix", "/opt/a b/conda", "/" + "l" * 130 + "/conda"],
    ids=["usual", "longer", "space", "too-long-for-a-shebang"],
)
def test_awkward_packages_link_as_rattler_does(prefix: str, archives: list[Path], tmp_path: Path) -> None:
    expected, packages, cache = install(archives, prefix, tmp_path)
    actual, clobbers = image(packages, cache, prefix)
    assert prefixes.differences(expected, actual) == []
    assert len(expected) > 40
    assert [line.split(" is in ")[0] for line in clobbers] == ["share/c/both.txt", "share/c/exec"]


def newest(edition: Path) -> list[Path]:
    """The newest package of each name, which is what an edition has added."""
    found: dict[str, tuple[tuple[int, str, int], Path]] = {}
    for subdir in ("linux-64", "noarch"):
        records = json.loads((edition / subdir / "repodata.json").read_text())["packages.conda"]
        for file_name, record in records.items():
            rank = (record["timestamp"], record["version"], record["build_number"])
            if record["name"] not in found or rank > found[record["name"]][0]:
                found[record["name"]] = (rank, edition / subdir / file_name)
    return sorted(path for _, path in found.values())


def test_the_editions_cover_the_demo_channel() -> None:
    names = {path.name for edition in EDITIONS for path in newest(demo_channel() / edition)}
    assert names == {path.name for path in (demo_channel() / "pool").rglob("*.conda")}


@pytest.mark.parametrize("edition", list(EDITIONS))
def test_demo_channel_links_as_rattler_does(edition: str, tmp_path: Path) -> None:
    expected, packages, cache = install(newest(demo_channel() / edition), "/opt/conda", tmp_path)
    actual, _ = image(packages, cache, "/opt/conda")
    assert prefixes.differences(expected, actual) == []
    assert len(packages) > 38
    assert len(expected) > 3000


@pytest.mark.parametrize("fault", ["content", "mode", "target", "missing", "record"])
def test_the_comparison_sees_every_kind_of_fault(fault: str, archives: list[Path], tmp_path: Path) -> None:
    expected, packages, cache = install(archives, "/opt/conda", tmp_path)
    actual, _ = image(packages, cache, "/opt/conda")
    path = {
        "content": "share/data.txt", "mode": "bin/zoo", "target": "share/link.txt",
        "missing": "share/empty", "record": "conda-meta/plain-1.0-0.json",
    }[fault]  # fmt: skip
    assert prefixes.differences(expected, actual) == []
    if fault == "missing":
        del actual[path]
    elif fault == "mode":
        actual[path] = replace(actual[path], mode=actual[path].mode ^ 0o001)
    elif fault == "record":
        record = json.loads(actual[path].content)
        record["paths_data"]["paths"][0]["size_in_bytes"] += 1
        actual[path] = replace(actual[path], content=json.dumps(record, sort_keys=True))
    else:
        actual[path] = replace(actual[path], content=actual[path].content[:-1] + "~")
    found = prefixes.differences(expected, actual)
    assert len(found) == 1
    assert found[0].startswith(f"{path}: ")
