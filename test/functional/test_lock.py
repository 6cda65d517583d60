"""What `lock` asks of a solver and what it does with the answer; the solver is a fake."""

import datetime as dt
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lockyard.app.lock import lock_release, lock_status
from lockyard.app.reports import diff_releases
from lockyard.app.workspace import open_workspace
from lockyard.conda.formats import read_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.errors import ConfigError, StaleLockError, UnsatisfiableError
from lockyard.ports import Toolbox
from lockyard.ports.solving import SolveRequest
from lockyard.reports.changes import to_json
from lockyard.reports.ref import ReleaseRef
from lockyard.version import Version

RELEASE = "build_artifacts/v0/v0.1/v0.1.0"
BASE_TOML = 'schema = 1\nchannels = ["file:channel"]\n'
CPU = '[variants.cpu]\nvirtual-packages = { __glibc = "2.36" }\n'
GPU = '[variants.gpu]\nvirtual-packages = { __cuda = "12.6" }\nargs = { CUDA = "12.6", X = { env = "X", default = "1" } }\n'


def package(name: str, version: str = "1.0", number: int = 0, subdir: str = "linux-64") -> LockedPackage:
    return LockedPackage(
        name=name, version=version, build=f"h_{number}", build_number=number, subdir=subdir, channel="channel",
        url=f"file:channel/{subdir}/{name}-{version}-h_{number}.conda", md5="0" * 32, sha256="1" * 64, size=10,
    )  # fmt: skip


@dataclass
class FakeSolver:
    """Answers by a function and remembers what it was asked."""

    answer: Callable[[SolveRequest], tuple[LockedPackage, ...]]
    asked: list[SolveRequest] = field(default_factory=list)

    def solve(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        self.asked.append(request)
        return self.answer(request)

    def available(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        return request.preferred

    def absent(self, request: SolveRequest) -> frozenset[str]:
        return frozenset()


@dataclass
class Quiet:
    """A `Log` that remembers warnings."""

    warnings: list[str] = field(default_factory=list)

    def step(self, message: str) -> None: ...

    def info(self, message: str) -> None: ...

    def detail(self, message: str) -> None: ...

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def progress(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda _: None)


class Never:
    """A `Clock` that is not asked: a lock holds no time of its own."""

    def now(self) -> dt.datetime:
        raise AssertionError("lock does not ask for the time")


@dataclass
class Bench:
    root: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    log: Quiet = field(default_factory=Quiet)

    def write(self, name: str, text: str, *, version: str = "0.1.0") -> None:
        major, minor, _ = version.split("-", maxsplit=1)[0].split(".")
        path = self.root / f"build_artifacts/v{major}/v{major}.{minor}/v{version}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def variants(self, text: str) -> None:
        path = self.root / "template/v0/variants.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BASE_TOML + text)

    def toolbox(self, solver: FakeSolver) -> Toolbox:
        def no(*_: object, **__: object) -> Any:
            raise AssertionError("lock uses no other port")

        return Toolbox(
            log=self.log, clock=Never(), environ=self.environ, cache_dir=self.root / "cache", solver=lambda: solver,
            packages=no, sandbox=no, base_sandbox=no, registry=no,
        )  # fmt: skip

    def lock(self, solver: FakeSolver, version: str = "0.1.0", **options: Any) -> Mapping[str, Lock]:
        found = lock_release(self.toolbox(solver), open_workspace(self.root), Version.parse(version), **options)
        return found.locks

    def states(self, solver: FakeSolver) -> list[str]:
        found = lock_status(self.toolbox(solver), open_workspace(self.root), Version.parse("0.1.0"))
        return [item.state for item in found]

    def listing(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted((self.root / "build_artifacts").rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    found = Bench(tmp_path)
    (tmp_path / "lockyard.toml").write_text('name = "small"\n')
    found.variants(CPU)
    found.write("cpu.env.in", "numpy[version='>=1']\n")
    return found


def always(*packages: LockedPackage) -> FakeSolver:
    return FakeSolver(lambda _: packages)


def test_a_request_holds_what_the_variant_states(bench: Bench) -> None:
    bench.variants(GPU)
    bench.environ = {"X": "7"}
    bench.write("gpu.env.in", "# hello\nchannel::numpy[version='>=1']\n")
    bench.write("gpu.pinned_env.in", "six\n")
    bench.write("gpu.arg_based_env.in", "cuda-version=$CUDA\nx=${X}\n")
    solver = always(package("numpy"))
    when = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
    locks = bench.lock(solver, exclude_newer=when)
    request = solver.asked[0]
    assert request.specs == (
        "channel::numpy[version='>=1']",
        "six",
        "cuda-version[version='12.6.*']",
        "x[version='7.*']",
    )
    assert (request.channels, request.platform, request.root) == (("file:channel",), "linux-64", bench.root)
    assert request.virtual_packages == {"__cuda": "12.6"}
    assert (request.preferred, request.constraints, request.exclude_newer) == ((), (), when)
    assert locks["gpu"].exclude_newer == "2026-01-31T00:00:00Z"


def test_the_files_of_a_lock(bench: Bench) -> None:
    bench.variants(CPU.replace("[variants.cpu]", '[variants.cpu]\nplatforms = ["linux-64", "linux-aarch64"]'))
    bench.lock(FakeSolver(lambda request: (package("numpy", subdir=request.platform),)))
    place = bench.root / RELEASE
    assert sorted(path.name for path in place.iterdir()) == [
        "cpu.conda-lock.yml",
        "cpu.env.in",
        "cpu.env.out",
        "cpu.linux-aarch64.env.out",
        "cpu.lock.json",
        "layers.json",
    ]
    text = (place / "cpu.linux-aarch64.env.out").read_text()
    assert text.splitlines()[2:] == [
        "# platform: linux-aarch64",
        "@EXPLICIT",
        f"file:channel/linux-aarch64/numpy-1.0-h_0.conda#{'0' * 32}",
    ]
    assert str(bench.root).encode() not in b"".join(bench.listing().values())
    bench.variants(CPU)
    bench.lock(always(package("numpy")))
    assert not (place / "cpu.linux-aarch64.env.out").exists()


def test_a_lock_that_does_not_change_writes_nothing(bench: Bench) -> None:
    bench.lock(always(package("numpy")))
    before = {path: path.stat().st_ino for path in (bench.root / RELEASE).iterdir()}
    toolbox = bench.toolbox(always(package("numpy")))
    result = lock_release(toolbox, open_workspace(bench.root), Version.parse("0.1.0"))
    assert (result.changes, result.written) == ((), ())
    assert {path: path.stat().st_ino for path in (bench.root / RELEASE).iterdir()} == before


def test_a_failed_solve_and_a_dry_run_write_nothing(bench: Bench) -> None:
    bench.lock(always(package("numpy")))
    before = bench.listing()

    def fail(request: SolveRequest) -> tuple[LockedPackage, ...]:
        raise UnsatisfiableError("no", details=["numpy >=1 and what not"])

    with pytest.raises(UnsatisfiableError, match="cpu: no") as caught:
        bench.lock(FakeSolver(fail))
    assert f"  {RELEASE}/cpu.env.in:1: numpy[version='>=1']" in caught.value.details
    bench.lock(always(package("numpy", "9.0")), dry_run=True)
    assert bench.listing() == before


def test_only_the_second_type_failing_writes_nothing_of_the_first(bench: Bench) -> None:
    bench.variants(CPU + GPU)
    bench.write("gpu.env.in", "numpy\n")
    before = bench.listing()

    def answer(request: SolveRequest) -> tuple[LockedPackage, ...]:
        if "__cuda" in request.virtual_packages:
            raise UnsatisfiableError("no")
        return (package("numpy"),)

    with pytest.raises(UnsatisfiableError, match="gpu: no"):
        bench.lock(FakeSolver(answer))
    assert bench.listing() == before


def test_hand_written_files_and_nested_pre_releases_live_on(bench: Bench) -> None:
    bench.write("patch_x.sh", "echo")
    (bench.root / RELEASE / "patch_x.sh").chmod(0o755)
    bench.write("v0.1.0-beta.1/cpu.env.in", "numpy\n")
    bench.write("v0.1.0-beta.1/source-version.txt", "0.0.9\n")
    bench.lock(always(package("numpy")))
    place = bench.root / RELEASE
    assert (place / "patch_x.sh").stat().st_mode & 0o777 == 0o755
    assert (place / "v0.1.0-beta.1/cpu.env.in").read_text() == "numpy\n"
    assert not list(place.parent.glob(".*"))


def test_preferences_and_lower_bounds_come_from_the_base_then_from_the_types_before(bench: Bench) -> None:
    bench.variants(CPU + GPU)
    bench.write("gpu.env.in", "numpy\n")
    bench.lock(always(package("numpy"), package("lib", "2.0")))
    bench.write("cpu.env.in", "numpy[version='>=1']\n", version="0.1.1")
    bench.write("gpu.env.in", "numpy\n", version="0.1.1")
    bench.write("source-version.txt", "0.1.0", version="0.1.1")
    extra = package("extra", "5.0")
    solver = always(package("numpy"), package("lib", "2.0"), extra)
    locks = bench.lock(solver, "0.1.1")
    cpu, gpu = solver.asked
    assert cpu.preferred == (package("numpy"), package("lib", "2.0"))
    assert gpu.preferred == (package("numpy"), package("lib", "2.0"), extra)
    assert cpu.constraints == gpu.constraints == ("lib[version='>=2.0']", "numpy[version='>=1.0']")
    assert locks["cpu"].base == "0.1.0"
    again = always(*cpu.preferred, extra)
    bench.lock(again, "0.1.1", update=["lib"])
    assert set(again.asked[1].preferred) == {package("numpy"), extra}
    assert again.asked[1].constraints == (
        "extra[version='>=5.0']",
        "lib[version='>=2.0']",
        "numpy[version='>=1.0']",
        "numpy[version='==1.0',build='h_0']",
        "extra[version='==5.0',build='h_0']",
    )
    anew = always(*cpu.preferred, extra)
    bench.lock(anew, "0.1.1", fresh=True)
    assert [len(request.preferred) for request in anew.asked] == [0, 3]
    assert anew.asked[0].constraints == ("lib[version='>=2.0']", "numpy[version='>=1.0']")


def test_the_order_of_types_with_fewer_disagreements_is_kept(bench: Bench) -> None:
    """In file order gpu cannot follow cpu; in reverse cpu follows gpu."""
    bench.variants(CPU + GPU)
    bench.write("gpu.env.in", "numpy\n")

    def answer(request: SolveRequest) -> tuple[LockedPackage, ...]:
        gpu = "__cuda" in request.virtual_packages
        return (package("numpy", "1.0"),) if gpu or request.preferred else (package("numpy", "2.0"),)

    found = lock_release(bench.toolbox(FakeSolver(answer)), open_workspace(bench.root), Version.parse("0.1.0"))
    assert {name: lock.packages()[0].version for name, lock in found.locks.items()} == {"cpu": "1.0", "gpu": "1.0"}
    assert list(found.locks) == ["cpu", "gpu"]
    assert found.disagreements == ()


def test_file_order_wins_when_both_are_equal_and_the_difference_is_listed(bench: Bench) -> None:
    bench.variants(CPU + GPU)
    bench.write("gpu.env.in", "numpy\n")
    answer = FakeSolver(lambda request: (package("numpy", "1.0" if "__cuda" in request.virtual_packages else "2.0"),))
    found = lock_release(bench.toolbox(answer), open_workspace(bench.root), Version.parse("0.1.0"))
    assert [(item.name, item.versions) for item in found.disagreements] == [
        ("numpy", {"cpu": "2.0 h_0", "gpu": "1.0 h_0"})
    ]


def test_another_type_alone_follows_the_lock_of_the_first(bench: Bench) -> None:
    bench.variants(CPU + GPU)
    bench.write("gpu.env.in", "numpy\n")
    bench.lock(always(package("numpy", "3.0")), image_types=("cpu",))
    solver = always(package("numpy", "3.0"))
    bench.lock(solver, image_types=("gpu",))
    assert solver.asked[0].preferred == (package("numpy", "3.0"),)
    layers = (bench.root / RELEASE / "layers.json").read_text()
    assert '"numpy"' in layers


def test_staleness_needs_no_solver(bench: Bench) -> None:
    solver = FakeSolver(lambda _: pytest.fail("--check solves nothing"))
    assert bench.states(solver) == ["missing"]
    bench.lock(always(package("numpy")))
    assert bench.states(solver) == ["current"]
    bench.write("cpu.env.in", "# a comment\n\nnumpy[version='>=1']")
    assert bench.states(solver) == ["current"]
    bench.write("cpu.pinned_env.in", "# nothing yet\n")
    assert bench.states(solver) == ["current"]
    bench.write("cpu.pinned_env.in", "six\n")
    assert bench.states(solver) == ["stale"]
    (bench.root / RELEASE / "cpu.pinned_env.in").unlink()
    bench.write("cpu.env.in", "numpy[version='>=2']\n")
    assert bench.states(solver) == ["stale"]
    bench.write("cpu.env.in", "numpy[version='>=1']\n")
    assert bench.states(solver) == ["current"]
    bench.variants(CPU.replace("2.36", "2.37"))
    assert bench.states(solver) == ["stale"]


def test_an_adopted_release_is_never_stale(bench: Bench) -> None:
    bench.write("cpu.env.out", "@EXPLICIT\nhttps://h.example/c/noarch/numpy-1-0.conda#\n")
    assert bench.states(always()) == ["adopted"]


def test_the_lock_says_what_it_was_made_from(bench: Bench) -> None:
    bench.lock(always(package("numpy")))
    lock = read_lock_json((bench.root / RELEASE / "cpu.lock.json").read_text(), "x")
    assert lock.specs == ("numpy[version='>=1']",)
    assert lock.virtual_packages == {"linux-64": {"__glibc": "2.36"}}
    assert lock.channels == ("file:channel",)
    assert (lock.base, lock.reasons) == (None, {})


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"cpu.env.in": "numpy[version='>=']\n"}, rf"{RELEASE}/cpu.env.in:1: "),
        ({"cpu.arg_based_env.in": "a=$CUDAA\n"}, r"cpu.arg_based_env.in:1: \$CUDAA is not an argument"),
        ({"source-version.txt": "0.0.9\n"}, r"source-version.txt: there is no release 0.0.9"),
        ({"source-version.txt": "0.0\n"}, "is not a version"),
        ({"cpu.lock.json": "{}\n"}, r"cpu.lock.json:1: no schema number"),
        ({"layers.json": "[]\n"}, "layers.json"),
    ],
)
def test_a_wrong_input_is_named_and_nothing_is_written(bench: Bench, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        bench.write(name, text)
    before = bench.listing()
    with pytest.raises(ConfigError, match=words):
        bench.lock(always(package("numpy")))
    assert bench.listing() == before


def test_a_type_without_spec_file_is_named(bench: Bench) -> None:
    bench.variants(CPU + GPU)
    with pytest.raises(ConfigError, match=rf"{RELEASE}/gpu.env.in is missing"):
        bench.lock(always(package("numpy")))


def diff(bench: Bench, old: str, new: str, **options: Any) -> dict[str, Any]:
    found = diff_releases(
        bench.toolbox(always()), open_workspace(bench.root), ReleaseRef.parse(old), ReleaseRef.parse(new), **options
    )
    types: dict[str, Any] = to_json(found)["types"]
    return types


@pytest.mark.parametrize(("old", "new"), [("0.1.0", "0.1.1"), ("0.1.1", "0.1.0")])
def test_a_diff_with_a_release_that_is_not_locked_names_the_missing_lock(bench: Bench, old: str, new: str) -> None:
    """It is not "everything was removed"."""
    bench.lock(always(package("numpy")))
    bench.write("cpu.env.in", "numpy\n", version="0.1.1")
    bench.write("source-version.txt", "0.1.0", version="0.1.1")
    with pytest.raises(
        StaleLockError, match=r"0\.1\.1 has no lock of cpu .*v0\.1\.1/cpu\.lock\.json is missing"
    ) as caught:
        diff(bench, old, new)
    assert caught.value.hint == "lockyard lock 0.1.1"


def test_a_type_that_the_base_did_not_have_is_all_new(bench: Bench) -> None:
    bench.lock(always(package("numpy")))
    bench.variants(CPU + GPU)
    for name in ("cpu", "gpu"):
        bench.write(f"{name}.env.in", "numpy\n", version="0.1.1")
    bench.write("source-version.txt", "0.1.0", version="0.1.1")
    bench.lock(always(package("numpy")), "0.1.1")
    types = diff(bench, "0.1.0", "0.1.1")
    assert types["gpu"]["direct"]["added"] == {"numpy": "1.0"}
    assert not any(types["cpu"]["direct"].values())
