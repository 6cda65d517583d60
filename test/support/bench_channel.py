"""The channel of the build benchmark: the demo channel and about 1.2 GB of further real packages; made once, kept.

Two editions: in the second one package, of median size, is built again.
"""

import fcntl
import os
import statistics
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demochannel.packages import Package, archive, repodata, repodata_record
from demochannel.pins import Pin, fetch_wheels, load_pins
from demochannel.stamp import inputs_hash, read_json, write_json
from demochannel.wheels import open_wheel, wheel_package
from support.demo import demo_cache, demo_channel
from support.require import ROOT

PINS = ROOT / "test" / "benchmark" / "wheels.toml"
FIRST, SECOND = "first", "second"
_DEMO = "2026-03"
_WHEN = {FIRST: datetime(2026, 4, 15, tzinfo=UTC), SECOND: datetime(2026, 5, 15, tzinfo=UTC)}


def bench_channel() -> Path:
    """Return the directory of the two editions."""
    demo = demo_channel() / _DEMO
    place = demo_cache() / "bench"
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        inputs = f"{inputs_hash('bench')} {PINS.read_text()} {Path(__file__).read_text()}"
        if read_json(place / "stamp.json").get("inputs") != inputs:
            _fill(place, demo, demo_cache() / "work")
            write_json(place / "stamp.json", {"inputs": inputs})
    return place


def names() -> tuple[str, ...]:
    """Return the names of the packages that the benchmark adds."""
    return tuple(pin.name for pin in load_pins(PINS))


def median_package() -> str:
    """Return the name of the added package of median size, the one that is built again."""
    sizes = read_json(bench_channel() / "sizes.json")
    return _median(sizes)


def _median(sizes: Mapping[str, int]) -> str:
    middle = statistics.median_low(sizes.values())
    return min(name for name, size in sizes.items() if size == middle)


def _fill(place: Path, demo: Path, work: Path) -> None:
    pins = load_pins(PINS)
    wheels = fetch_wheels(pins, work, print)
    old = {subdir: read_json(demo / subdir / "repodata.json")["packages.conda"] for subdir in ("linux-64", "noarch")}
    known = {record["name"] for records in old.values() for record in records.values()} | {pin.name for pin in pins}
    records: dict[str, dict[str, Mapping[str, Any]]] = {subdir: dict(items) for subdir, items in old.items()}
    pool = place / "pool"
    for subdir, items in old.items():
        (pool / subdir).mkdir(parents=True, exist_ok=True)
        for name in items:
            _link(demo / subdir / name, pool / subdir / name)

    def make(pin: Pin) -> tuple[Package, dict[str, Any]]:
        package = _package(pin, wheels, known, FIRST)
        return package, _write(pool, package)

    with ThreadPoolExecutor(2) as executor:
        made = list(executor.map(make, pins))
    for package, record in made:
        records[package.subdir][package.filename] = record
    sizes = {package.name: int(record["size"]) for package, record in made}
    _edition(place, FIRST, records)
    again = next(pin for pin in pins if pin.name == _median(sizes))
    package = _package(replace(again, build_number=1), wheels, known, SECOND)
    records[package.subdir][package.filename] = _write(pool, package)
    _edition(place, SECOND, records)
    write_json(place / "sizes.json", sizes)


def _package(pin: Pin, wheels: Path, known: set[str], edition: str) -> Package:
    """Make a package; of what it depends on only the names that the channel has are kept: nothing is imported."""
    package = wheel_package(open_wheel(wheels / pin.filename), pin, _WHEN[edition])
    package.name = pin.name
    package.depends = tuple(_known(package.depends, known))
    return package


def _known(depends: tuple[str, ...], known: set[str]) -> Iterator[str]:
    for spec in depends:
        name = spec.split(" ")[0]
        if name.startswith(("python", "__")):
            yield "python" if name == "python" else spec
        elif name in known:
            yield name


def _write(pool: Path, package: Package) -> dict[str, Any]:
    data = archive(package)
    (pool / package.subdir / package.filename).write_bytes(data)
    return repodata_record(package, data)


def _edition(place: Path, edition: str, records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    for subdir, items in records.items():
        directory = place / edition / subdir
        directory.mkdir(parents=True, exist_ok=True)
        for name in items:
            _link(place / "pool" / subdir / name, directory / name)
        (directory / "repodata.json").write_bytes(repodata(subdir, items))


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    os.link(source, target)
