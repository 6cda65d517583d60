"""The real solver on small indexes made here, and on the shared real index."""

import datetime as dt
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockyard import http
from lockyard.cli.output import ConsoleLog
from lockyard.conda.formats import read_env_out
from lockyard.conda.lock import LockedPackage
from lockyard.conda.solve import RattlerSolver
from lockyard.errors import BuildError, ConfigError, UnsatisfiableError
from lockyard.ports.solving import SolveRequest
from support.index import JANUARY, index, record, write_index
from support.require import ROOT, SHARED, need

pytestmark = pytest.mark.integration


@dataclass
class Bench:
    root: Path
    options: dict[str, Any] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    """Seconds between tries of a request."""

    def channel(self, *records: dict[str, Any], name: str = "channel", packed: bool = False) -> None:
        write_index(self.root / name, records, packed=packed)

    def solver(self) -> RattlerSolver:
        return RattlerSolver(cache_dir=self.root / "cache", log=ConsoleLog(verbosity=-1), **self.options)

    def request(self, *specs: str, **fields: Any) -> SolveRequest:
        values = {"channels": ("file:channel",), "platform": "linux-64", "root": self.root, **fields}
        return SolveRequest(specs=specs, **values)

    def solve(self, *specs: str, **fields: Any) -> dict[str, LockedPackage]:
        return {item.name: item for item in self.solver().solve(self.request(*specs, **fields))}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_records_carry_everything_and_no_host_path(bench: Bench) -> None:
    """A local channel's address is relative to the root, whatever the root is; the order is that of installing."""
    bench.channel(
        record("app", "1.0", depends=["lib >=1", "__unix"], license="MIT", noarch="python", track_features="x y"),
        record("lib", "1.5", 3, subdir="linux-64", constrains=["other >=2"]),
    )
    packages = bench.solver().solve(bench.request("channel::app[version='>=1']"))
    assert [item.name for item in packages] == ["lib", "app"]
    lib, app = packages
    assert lib.url == "file:channel/linux-64/lib-1.5-h_3.conda"
    assert (lib.channel, lib.subdir, lib.build_number, lib.constrains) == ("channel", "linux-64", 3, ("other >=2",))
    assert (app.license, app.noarch, app.depends, app.size) == ("MIT", "python", ("lib >=1", "__unix"), 1000)
    assert app.track_features == ("x", "y")
    assert app.timestamp == int(JANUARY.timestamp() * 1000)
    assert len(app.sha256 or "") == 64
    assert str(bench.root) not in repr(packages)


def test_channel_priority_is_strict(bench: Bench) -> None:
    """A package of the first channel is never taken from the second, though that one has a newer version."""
    bench.channel(record("a", "1.0"), name="first")
    bench.channel(record("a", "2.0"), record("b", "1.0", depends=["a"]), name="second")
    channels = ("file:first", "file:second")
    found = bench.solve("b", channels=channels)
    assert (found["a"].version, found["a"].channel) == ("1.0", "first")
    with pytest.raises(UnsatisfiableError):
        bench.solve("b", "a >=2", channels=channels)


def test_a_spec_that_names_a_channel_goes_before_priority(bench: Bench) -> None:
    bench.channel(record("a", "1.0"), name="first")
    bench.channel(record("a", "2.0"), record("a", "2.1"), name="second")
    channels = ("file:first", "file:second")
    assert bench.solve("second::a", channels=channels)["a"].version == "2.1"
    old = tuple(bench.solve("second::a ==2.0", channels=channels).values())
    assert bench.solve("second::a", channels=channels, preferred=old)["a"].version == "2.0"
    # Without the channel in the spec the old lock does not bring the second channel's package back.
    assert bench.solver().available(bench.request("a", channels=channels, preferred=old)) == ()
    assert bench.solve("a", channels=channels, preferred=old)["a"].version == "1.0"


def test_virtual_packages_are_stated_never_detected(bench: Bench) -> None:
    bench.channel(record("gpu", "1.0", depends=["__cuda >=12", "__glibc >=2.36"]))
    with pytest.raises(UnsatisfiableError, match="linux-64") as caught:
        bench.solve("gpu", virtual_packages={"__glibc": "2.36"})
    assert any("__cuda" in line for line in caught.value.details)
    assert bench.solve("gpu", virtual_packages={"__glibc": "2.36", "__cuda": "12.6"})["gpu"].version == "1.0"
    with pytest.raises(ConfigError, match="virtual package __cuda"):
        bench.solve("gpu", virtual_packages={"__cuda": "12..6 !"})


def test_a_virtual_package_may_have_a_build(bench: Bench) -> None:
    bench.channel(record("fast", "1.0", depends=["__archspec 1 x86_64_v3"]))
    assert bench.solve("fast", virtual_packages={"__archspec": "1=x86_64_v3"})
    with pytest.raises(UnsatisfiableError):
        bench.solve("fast", virtual_packages={"__archspec": "1=x86_64"})


def test_preferred_packages_stay_and_the_index_says_what_they_are(bench: Bench) -> None:
    bench.channel(record("a", "1.0"), record("a", "1.1", depends=["b"]), record("b", "1.0"))
    old = replace(bench.solve("a ==1.0")["a"], depends=("stale",), timestamp=1)
    found = bench.solve("a", preferred=(old,))
    assert found["a"].version == "1.0"
    assert found["a"].depends == ()
    assert bench.solve("a")["a"].version == "1.1"
    assert bench.solver().available(bench.request("a", preferred=(old,))) == (bench.solve("a ==1.0")["a"],)


def test_a_preferred_package_that_is_gone_or_replaced_is_not_taken(bench: Bench) -> None:
    bench.channel(record("a", "1.0"), record("b", "1.0"))
    old = tuple(bench.solve("a", "b").values())
    bench.channel(record("a", "1.1"), record("b", "1.0", size=2000), record("b", "1.0", 1))
    assert bench.solver().available(bench.request("a", preferred=old)) == ()
    found = bench.solve("a", "b", preferred=old)
    assert (found["a"].version, found["b"].build) == ("1.1", "h_1")


def test_constraints_bind_only_what_is_chosen(bench: Bench) -> None:
    bench.channel(record("a", "1.0"), record("b", "1.0"), record("b", "2.0"))
    assert set(bench.solve("a", constraints=("b >=2", "absent >=1"))) == {"a"}
    assert bench.solve("b", constraints=("b <2",))["b"].version == "1.0"


def test_exclude_newer_is_a_moment_whatever_its_zone(bench: Bench) -> None:
    """13:30 at +02:00 is before noon UTC."""
    bench.channel(record("a", "1.0", day=-30), record("a", "2.0"))
    early = dt.datetime(2026, 1, 15, 13, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert bench.solve("a", exclude_newer=early)["a"].version == "1.0"
    assert bench.solve("a", exclude_newer=early + dt.timedelta(hours=1))["a"].version == "2.0"
    new = tuple(bench.solve("a").values())
    assert bench.solve("a", exclude_newer=early, preferred=new)["a"].version == "1.0"


def test_unsatisfiable_specs_end_in_the_solvers_words(bench: Bench) -> None:
    bench.channel(
        record("a", "1.0", depends=["c <2"]), record("b", "1.0", depends=["c >=2"]), record("c", "1"), record("c", "2")
    )
    with pytest.raises(UnsatisfiableError) as caught:
        bench.solve("a", "b")
    assert caught.value.exit_code == 4
    text = "\n".join(caught.value.details)
    assert "c >=2" in text
    assert "c <2" in text


def test_two_runs_give_one_result(bench: Bench) -> None:
    names = [f"p{number}" for number in range(30)]
    bench.channel(
        *(record(name, str(v), depends=[names[i - 1]] if i else []) for i, name in enumerate(names) for v in (1, 2))
    )
    first = bench.solver().solve(bench.request("p29"))
    assert first == bench.solver().solve(bench.request("p29"))
    assert [item.name for item in first] == names


def test_a_compressed_index_is_read(bench: Bench) -> None:
    bench.channel(record("a", "1.0"), packed=True)
    assert bench.solve("a")["a"].version == "1.0"
    bench.channel(record("a", "1.1"), packed=True)
    assert bench.solve("a")["a"].version == "1.1"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "there is no directory"),
        ({"channel/other/x": b""}, "has no index"),
        ({"channel/noarch/repodata.json": b"{"}, "does not parse"),
        ({"channel/noarch/repodata.json.zst": b"x"}, "is damaged"),
    ],
)
def test_a_channel_that_is_none_is_named(bench: Bench, files: dict[str, bytes], words: str) -> None:
    for name, data in files.items():
        path = bench.root / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as caught:
        bench.solve("a")
    assert "file:channel" in caught.value.message


def test_a_spec_that_does_not_parse_is_named(bench: Bench) -> None:
    bench.channel(record("a", "1.0"))
    with pytest.raises(ConfigError, match="'a ==' is not a package spec"):
        bench.solve("a ==")


@dataclass
class Remote:
    """A channel in memory, with entity tags."""

    records: list[dict[str, Any]]
    names: tuple[str, ...] = ("repodata.json.zst",)
    down: bool = False
    failures: list[Callable[[bytes], httpx.Response]] = field(default_factory=list)
    """Answers instead of the first ones; each gets the bytes that there would be."""
    log: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("no route to host")
        response = self._answer(request)
        self.log.append((request.url.path, response.status_code))
        return response

    def _answer(self, request: httpx.Request) -> httpx.Response:
        subdir, name = request.url.path.split("/")[-2:]
        if name not in self.names:
            return httpx.Response(404)
        data = index(self.records, subdir)
        data = zstandard.ZstdCompressor().compress(data) if name.endswith(".zst") else data
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if self.failures:
            return self.failures.pop(0)(data)
        if request.headers.get("If-None-Match") == tag:
            return httpx.Response(304)
        return httpx.Response(200, content=iter([data]), headers={"etag": tag})


def remote(bench: Bench, server: Remote) -> dict[str, Any]:
    bench.waits = []
    bench.options = {
        "make_client": lambda: http.make_client(transport=httpx.MockTransport(server)),
        "retries": http.Retries(sleep=bench.waits.append),
    }
    return {"channels": ("https://h.example/team",)}


def test_a_remote_index_is_fetched_once_and_then_asked_for_changes(bench: Bench) -> None:
    server = Remote([record("a", "1.0")])
    where = remote(bench, server)
    found = bench.solve("a", **where)["a"]
    assert found.url == "https://h.example/team/noarch/a-1.0-h_0.conda"
    assert found.channel == "https://h.example/team"
    assert [status for _, status in server.log] == [200, 200]
    server.log.clear()
    assert bench.solve("a", **where)["a"].version == "1.0"
    assert [status for _, status in server.log] == [304, 304]
    server.records.append(record("a", "2.0"))
    assert bench.solve("https://h.example/team::a", **where)["a"].version == "2.0"


def test_a_channel_without_compressed_index_works(bench: Bench) -> None:
    server = Remote([record("a", "1.0")], names=("repodata.json",))
    assert bench.solve("a", **remote(bench, server))["a"].version == "1.0"
    server.log.clear()
    assert bench.solve("a", **remote(bench, server))
    assert [status for path, status in server.log if path.endswith(".json")] == [304, 304]


def test_offline_uses_what_is_there_and_says_what_is_not(bench: Bench) -> None:
    server = Remote([record("a", "1.0")])
    where = remote(bench, server)
    with pytest.raises(ConfigError, match="not in the cache, and this is offline"):
        bench.solve("a", offline=True, **where)
    bench.solve("a", **where)
    server.down = True
    assert bench.solve("a", offline=True, **where)["a"].version == "1.0"
    with pytest.raises(BuildError, match="channel https://h.example/team cannot be reached: GET .*: no route to host"):
        bench.solve("a", **where)


def truncated(data: bytes) -> httpx.Response:
    return httpx.Response(200, content=iter([data[: len(data) // 2]]), headers={"etag": '"half"'})


@pytest.mark.parametrize("names", [("repodata.json.zst",), ("repodata.json",)])
def test_a_truncated_index_is_asked_for_again_and_never_kept(bench: Bench, names: tuple[str, ...]) -> None:
    server = Remote([record("a", "1.0")], names=names, failures=[truncated, truncated])
    where = remote(bench, server)
    assert bench.solve("a", **where)["a"].version == "1.0"
    assert len(bench.waits) == 2
    server.failures = [truncated] * 99
    server.records.append(record("a", "2.0"))
    with pytest.raises(
        BuildError, match=r"channel https://h.example/team .*repodata.json(\.zst)? is truncated or damaged"
    ):
        bench.solve("a", **where)
    # The index that was good before is still there, for --offline.
    assert bench.solve("a", offline=True, **where)["a"].version == "1.0"
    server.failures.clear()
    assert bench.solve("a", **where)["a"].version == "2.0"


def test_a_busy_or_broken_channel_is_waited_for_longer_each_time(bench: Bench) -> None:
    def broken(_: bytes) -> httpx.Response:
        raise httpx.ReadError("connection reset")

    busy = [lambda _: httpx.Response(503), lambda _: httpx.Response(429, headers={"Retry-After": "7"}), broken]
    where = remote(bench, Remote([record("a", "1.0")], failures=[*busy]))
    assert bench.solve("a", **where)["a"].version == "1.0"
    assert len(bench.waits) == 3
    assert 7.0 in bench.waits


def test_an_error_that_is_not_the_networks_is_not_tried_again(bench: Bench) -> None:
    where = remote(bench, Remote([record("a", "1.0")], failures=[lambda _: httpx.Response(403)] * 9))
    with pytest.raises(BuildError, match="HTTP 403"):
        bench.solve("a", **where)
    assert bench.waits == []


def test_an_unreachable_channel_tells_what_the_cache_has(bench: Bench) -> None:
    server = Remote([record("a", "1.0")])
    where = remote(bench, server)
    bench.solve("a", **where)
    server.down = True
    with pytest.raises(BuildError) as caught:
        bench.solve("a", **where)
    assert "--offline uses the index of 20" in (caught.value.hint or "")
    assert len(bench.waits) <= 2 * 4, "each of both indexes is tried five times, not five times five"


def test_a_subdir_that_the_channel_does_not_have_is_remembered(bench: Bench) -> None:
    """Offline, a channel of noarch packages only is enough."""

    def server(request: httpx.Request) -> httpx.Response:
        if "/linux-64/" in request.url.path:
            return httpx.Response(404)
        return Remote([record("a", "1.0")])(request)

    bench.options = {"make_client": lambda: http.make_client(transport=httpx.MockTransport(server))}
    where = {"channels": ("https://h.example/team",)}
    assert bench.solve("a", **where)["a"].version == "1.0"
    assert bench.solve("a", offline=True, **where)["a"].version == "1.0"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode), st.sampled_from(["", ".zst"]))
def test_no_bytes_of_an_index_end_in_a_traceback(bench: Bench, data: bytes, suffix: str) -> None:
    """Whatever a channel directory or a server gives, the error names the channel."""
    place = bench.root / "fuzzed" / "noarch"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("repodata.json", "repodata.json.zst"):
        (place / name).unlink(missing_ok=True)
    (place / f"repodata.json{suffix}").write_bytes(data)
    with pytest.raises((ConfigError, UnsatisfiableError)) as local:
        bench.solve("a", channels=("file:fuzzed",))
    assert local.type is UnsatisfiableError or "channel file:fuzzed" in local.value.message
    where = remote(bench, Remote([], failures=[lambda _: httpx.Response(200, content=iter([data]))] * 99))
    with pytest.raises((BuildError, UnsatisfiableError)) as away:
        bench.solve("a", **where)
    assert away.type is UnsatisfiableError or "channel https://h.example/team" in away.value.message


@pytest.mark.parametrize(
    "broken",
    [
        {"depends": 7}, {"version": None}, {"version": "!"}, {"build_number": "x"}, {"name": 5}, {"sha256": "zz"},
        {"timestamp": "now"}, {"subdir": 1}, {"constrains": "x"}, {"size": -1},
    ],
)  # fmt: skip
def test_a_record_that_is_malformed_names_the_channel(bench: Bench, broken: dict[str, Any]) -> None:
    value = {**record("a", "1.0"), **broken}
    data = {"info": {"subdir": "noarch"}, "packages": {}, "packages.conda": {"a-1.0-h_0.conda": value}}
    (bench.root / "channel/noarch").mkdir(parents=True)
    (bench.root / "channel/noarch/repodata.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="channel file:channel: a record of its index is malformed: noarch: "):
        bench.solve("a")
    old = read_env_out("@EXPLICIT\nfile:channel/noarch/a-1.0-h_0.conda", "x")
    with pytest.raises(ConfigError, match="channel file:channel"):
        bench.solver().available(bench.request("a", preferred=old))


def test_a_missing_remote_channel_is_named(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="https://h.example/team has no index"):
        bench.solve("a", **remote(bench, Remote([], names=())))


def test_the_interpreter_ends_well_after_a_solve(bench: Bench) -> None:
    """Twenty short processes, none of which crashes at exit (without the helper 4 to 10 % do)."""
    bench.channel(record("a", "1.0"))
    code = (
        "import sys; from pathlib import Path\n"
        "from lockyard.cli.output import ConsoleLog\n"
        "from lockyard.conda.solve import RattlerSolver\n"
        "from lockyard.ports.solving import SolveRequest\n"
        "root = Path(sys.argv[1])\n"
        "request = SolveRequest(specs=('a',), channels=('file:channel',), platform='linux-64', root=root)\n"
        "assert RattlerSolver(cache_dir=root, log=ConsoleLog()).solve(request)\n"
    )
    for _ in range(20):
        argv = [sys.executable, "-c", code, str(bench.root)]
        done = subprocess.run(argv, env={"PYTHONPATH": str(ROOT / "src")}, check=False)
        assert done.returncode == 0


@pytest.mark.realdata
def test_a_real_environment_stays_when_it_is_preferred(tmp_path: Path) -> None:
    """22,000 real records: what five months would move stays when the old lock is preferred."""
    need("realdata")
    for subdir in ("linux-64", "noarch"):
        place = tmp_path / "channels" / "conda-forge" / subdir
        place.mkdir(parents=True)
        (place / "repodata.json.zst").symlink_to(SHARED / "conda-index" / subdir / "repodata.json.zst")
    solver = RattlerSolver(cache_dir=tmp_path / "cache", log=ConsoleLog(verbosity=-1))
    request = SolveRequest(
        specs=(
            "conda-forge::python[version='>=3.11,<3.12']",
            "numpy",
            "pandas",
            "jupyterlab",
            "scikit-learn",
            "matplotlib",
        ),
        channels=("file:channels/conda-forge",),
        platform="linux-64",
        root=tmp_path,
        virtual_packages={"__glibc": "2.39", "__linux": "5.10"},
    )
    old = solver.solve(replace(request, exclude_newer=dt.datetime(2025, 1, 1, tzinfo=dt.UTC)))
    free = solver.solve(request)
    kept = solver.solve(replace(request, preferred=old))
    assert len(old) > 100
    assert sum(item not in old for item in free) > 20
    assert set(kept) == set(old)
    assert all(item.url.startswith("file:channels/conda-forge/") for item in kept)
