"""Locks against 28,198 real records: a data-science image for CPU (two platforms) and GPU, at several dates."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lockyard.cli import root as cli
from lockyard.conda.formats import read_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.conda.reasons import is_lower
from lockyard.version import Version, release_dir
from support.realindex import seed_index

pytestmark = [pytest.mark.integration, pytest.mark.realdata]

DIRECT = ("python", "numpy", "pandas", "scikit-learn", "matplotlib", "jupyterlab", "scipy", "pytorch")
SPECS = {"cpu": DIRECT, "gpu": (*DIRECT, "pytorch-gpu")}
VARIANTS = """\
schema = 1
[variants.cpu]
platforms = ["linux-64", "linux-aarch64"]
virtual-packages = { __glibc = "2.39", __linux = "5.10" }
[variants.gpu]
virtual-packages = { __glibc = "2.39", __linux = "5.10", __cuda = "12.9" }
"""
PLACES = (("cpu", "linux-64"), ("cpu", "linux-aarch64"), ("gpu", "linux-64"))
FIVE_MONTHS = (("2025-03-01", "2025-08-01"), ("2025-08-01", "2026-01-01"), ("2026-01-01", "2026-06-01"))


@dataclass
class Image:
    """A distribution in `root` whose channel is the cached index."""

    root: Path
    cache: Path
    dates: dict[str, str] = field(default_factory=dict)

    def place(self, version: str) -> Path:
        return self.root / release_dir(Version.parse(version))

    def write(self, version: str, base: str | None, **specs: Iterable[str]) -> None:
        self.place(version).mkdir(parents=True, exist_ok=True)
        for name, lines in specs.items():
            (self.place(version) / f"{name}.env.in").write_text("".join(f"{line}\n" for line in lines))
        if base:
            (self.place(version) / "source-version.txt").write_text(base)

    def run(self, *args: str) -> None:
        environ = {"LOCKYARD_CACHE_DIR": str(self.cache)}
        assert cli.run(["--root", str(self.root), "-q", *args], environ=environ) == 0

    def lock(self, version: str, date: str) -> None:
        self.run("lock", version, "--offline", "--exclude-newer", date)

    def read(self, version: str, kind: str) -> Lock:
        return read_lock_json((self.place(version) / f"{kind}.lock.json").read_text(), kind)

    def packages(self, version: str, kind: str, platform: str) -> dict[str, LockedPackage]:
        return {item.name: item for item in self.read(version, kind).packages(platform)}

    def moved(
        self, version: str, base: str, kind: str, platform: str
    ) -> dict[str, tuple[LockedPackage, LockedPackage]]:
        """Name → old and new package of all that are in both locks and differ."""
        old, new = self.packages(base, kind, platform), self.packages(version, kind, platform)
        return {name: (old[name], new[name]) for name in old if name in new and old[name] != new[name]}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cache")
    seed_index(place)
    return place


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Image:
    """0.1.0, 0.2.0, … are locked at the first date of each pair."""
    found = Image(tmp_path_factory.mktemp("image"), cache)
    (found.root / "lockyard.toml").write_text('name = "science"\n')
    (found.root / "template/v0").mkdir(parents=True)
    (found.root / "template/v0/variants.toml").write_text(VARIANTS)
    for number, (date, _) in enumerate(FIVE_MONTHS, 1):
        found.write(f"0.{number}.0", None, **SPECS)
        found.lock(f"0.{number}.0", date)
        found.dates[date] = f"0.{number}.0"
    return found


@pytest.mark.parametrize(("date", "later"), FIVE_MONTHS)
def test_five_months_later_nothing_moves(image: Image, date: str, later: str) -> None:
    """The next patch, made by the command, locked when 78 of 153 packages would be newer: 0 changes, 0 reasons."""
    base = image.dates[date]
    patch = f"{base[:-1]}1"
    image.run("create-patch-version-artifacts", "--base-patch-version", base)
    image.lock(patch, later)
    for kind, platform in PLACES:
        assert image.packages(patch, kind, platform) == image.packages(base, kind, platform)
        assert image.read(patch, kind).reasons[platform] == ()
    locks = {name: (image.place(patch) / name).read_bytes() for name in ("cpu.env.out", "gpu.env.out")}
    assert locks == {name: (image.place(base) / name).read_bytes() for name in locks}


@pytest.mark.parametrize(
    ("version", "spec", "moves"),
    [
        ("0.2.2", "numpy[version='>=2.3']", {"numpy": "bound"}),
        (
            "0.2.3",
            "jupyterlab[version='>=4.5']",
            {
                "jupyterlab": "bound",
                "jupyterlab_server": "required by jupyterlab",
                "ipykernel": "required by jupyterlab",
            },
        ),
        ("0.2.4", "polars", {}),
    ],
)
def test_a_changed_bound_moves_only_what_it_must(image: Image, version: str, spec: str, moves: dict[str, str]) -> None:
    """The rest stays build for build, nothing goes down, and each change says why."""
    name = spec.partition("[")[0]
    specs = {kind: [*(line for line in lines if line != name), spec] for kind, lines in SPECS.items()}
    image.write(version, "0.2.0", **specs)
    image.lock(version, "2026-01-01")
    for kind, platform in PLACES:
        moved = image.moved(version, "0.2.0", kind, platform)
        assert moved.keys() == moves.keys(), (kind, platform)
        assert not any(is_lower(old, new) for old, new in moved.values())
        reasons = {item.name: item.kind for item in image.read(version, kind).reasons[platform]}
        assert reasons.items() >= moves.items()
        assert all(kind == "asked" or kind.startswith(("bound", "required by ")) for kind in reasons.values())


@pytest.mark.parametrize("date", [date for date, _ in FIVE_MONTHS])
def test_direct_packages_have_one_version_on_both_platforms(image: Image, date: str) -> None:
    one, two = (image.packages(image.dates[date], "cpu", platform) for platform in ("linux-64", "linux-aarch64"))
    assert {name: one[name].version for name in DIRECT} == {name: two[name].version for name in DIRECT}


@pytest.mark.parametrize(("date", "version"), [("2025-03-01", "0.9.1"), ("2025-08-01", "0.9.2")])
def test_types_agree_where_each_alone_does_not(image: Image, date: str, version: str) -> None:
    """Alone the GPU image has another Python and numpy; together all direct packages are the same."""
    for kind in ("cpu", "gpu"):
        # Another release for each, as a type's lock is an input of the others'.
        image.write(f"{version}-{kind}", None, **{kind: SPECS[kind]})
        image.run("lock", f"{version}-{kind}", "--offline", "--exclude-newer", date, "--image-type", kind)
    differ = _differing(
        image.packages(f"{version}-cpu", "cpu", "linux-64"), image.packages(f"{version}-gpu", "gpu", "linux-64")
    )
    assert differ >= {"python", "numpy"}
    together = _differing(*(image.packages(image.dates[date], kind, "linux-64") for kind in ("cpu", "gpu")))
    assert not together & set(DIRECT)
    assert len(together) < len(differ)


def _differing(one: dict[str, LockedPackage], two: dict[str, LockedPackage]) -> set[str]:
    """Names of which two locks have different versions."""
    return {name for name in one if name in two and one[name].version != two[name].version}
