"""The channel: every package in `pool`, and one complete channel directory per edition."""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demochannel.debian import Apt
from demochannel.editions import EDITIONS, NEEDED_DEBS, Recipe, recipes
from demochannel.errors import DemoError
from demochannel.packages import archive, repodata, repodata_record
from demochannel.pins import fetch_wheels, load_pins
from demochannel.stamp import inputs_hash, locked, read_json, write_json

SUBDIRS = ("linux-64", "noarch")
STAMP = "stamp.json"
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Written:
    """A package file in the pool."""

    edition: str
    subdir: str
    filename: str
    record: Mapping[str, Any]


def build_channel(output: Path, work: Path, progress: Callable[[str], None]) -> Path:
    """Make the channel, unless it is there already; return its directory."""
    with locked(work):
        if is_complete(output):
            progress(f"channel: {output} is complete")
            return output
        if output.is_file() or (output.is_dir() and not (output / STAMP).is_file() and any(output.iterdir())):
            raise DemoError(f"{output} holds something that is no demo channel: choose another place, or remove it")
        stage = output.absolute().with_name(f".{output.name}.new")
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        try:
            _fill(stage, work, progress)
            _swap(stage, output.absolute())
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return output


def is_complete(output: Path) -> bool:
    """Say whether a directory holds the channel that this code would make."""
    stamp = read_json(output / STAMP)
    if stamp.get("schema") != 1 or stamp.get("inputs") != inputs_hash("channel"):
        return False
    paths = {output / name: size for name, size in stamp.get("files", {}).items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _fill(stage: Path, work: Path, progress: Callable[[str], None]) -> None:
    pins = load_pins()
    wheels = fetch_wheels(pins, work, progress)
    debs = Apt(work, progress).fetch(NEEDED_DEBS)
    for subdir in SUBDIRS:
        (stage / "pool" / subdir).mkdir(parents=True)

    def make(job: tuple[str, Recipe]) -> list[Written]:
        edition, recipe = job
        done = []
        for package in recipe():
            data = archive(package)
            (stage / "pool" / package.subdir / package.filename).write_bytes(data)
            done.append(Written(edition, package.subdir, package.filename, repodata_record(package, data)))
        return done

    jobs = list(recipes(pins, wheels, debs))
    progress(f"channel: making packages from {len(jobs)} sources")
    with ThreadPoolExecutor(WORKERS) as pool:
        written = [each for group in pool.map(make, jobs) for each in group]
    for edition in EDITIONS:
        _write_edition(stage, edition, written)
    sources = [deb.source for deb in debs.values()] + [pin.source for pin in {pin.sha256: pin for pin in pins}.values()]
    sources.sort(key=lambda source: (source["kind"], source["name"], source["version"]))
    write_json(stage / "sources.json", {"schema": 1, "sources": sources})
    files = {str(path.relative_to(stage)): path.stat().st_size for path in stage.rglob("*") if path.is_file()}
    write_json(stage / STAMP, {"schema": 1, "inputs": inputs_hash("channel"), "files": files})
    size = sum(size for name, size in files.items() if name.startswith("pool/"))
    progress(f"channel: {len(written)} packages, {size / 1e6:.0f} MB")


def _write_edition(stage: Path, edition: str, written: list[Written]) -> None:
    records: defaultdict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for subdir in SUBDIRS:
        (stage / edition / subdir).mkdir(parents=True)
    for each in written:
        if each.edition <= edition:
            records[each.subdir][each.filename] = each.record
            _link(stage / "pool" / each.subdir / each.filename, stage / edition / each.subdir / each.filename)
    for subdir in SUBDIRS:
        (stage / edition / subdir / "repodata.json").write_bytes(repodata(subdir, records[subdir]))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _swap(stage: Path, output: Path) -> None:
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    stage.rename(output)
    shutil.rmtree(old, ignore_errors=True)
