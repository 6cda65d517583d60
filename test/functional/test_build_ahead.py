"""Layers that are sent while a release is still built and tested: what the registry sees and when, and that a failure publishes nothing."""

import functools
import json
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lockyard import fs
from lockyard.app.publish import PUSH_RECORD
from lockyard.cli.root import make_toolbox, run
from lockyard.ports import Log, Toolbox
from lockyard.ports.containers import RunRequest, RunResult
from lockyard.ports.registry import RegistryPort
from lockyard.registry.ahead import Ahead
from lockyard.registry.client import RegistryClient
from lockyard.registry.directory import OciDirectory
from lockyard.registry.journal import open_journal
from support.effects import WAITLESS, GivenCredentials
from support.packages import Node, Package
from support.registry_server import Fault, RegistryServer
from support.site import PACKAGES, RELEASE, VERSION, Sandbox, Site, make_site

CHUNK = 1 << 20
PATIENCE = 60.0
"""Seconds after which what should come is not awaited any more."""
FAILED = '<failure message="no">no</failure>'
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture
def call(site: Site, server: RegistryServer, capsys: pytest.CaptureFixture[str]) -> Call:
    def command(*args: str) -> tuple[int, str, str]:
        def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
            client = functools.partial(_client, log=log)
            return replace(
                make_toolbox(log, environ), packages=lambda: site.source, sandbox=site.sandbox, daemon=lambda: None,
                registry=client,
            )  # fmt: skip

        code = run(["--root", str(site.root), *args], environ={"LOCKYARD_CACHE_DIR": str(site.cache)}, make=make)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def _client(target: str, *, insecure: bool = False, pull_only: bool = False, log: Log) -> RegistryPort:
    if target.startswith("oci:"):
        return OciDirectory(Path(target.removeprefix("oci:")))
    return RegistryClient(
        target, GivenCredentials(), insecure=insecure, pull_only=pull_only, log=log, retries=WAITLESS, chunk=CHUNK
    )


class Waiting(Sandbox):
    """Image tests that end when the registry has so many blobs, and note what it has seen by then."""

    def __init__(self, server: RegistryServer, blobs: int, inner: str = "") -> None:
        super().__init__(inner)
        self.server, self.blobs = server, blobs
        self.seen: list[str] = []

    def run(self, request: RunRequest) -> RunResult:
        done = threading.Event()
        server = self.server

        def look() -> None:
            if server.finished.total() >= self.blobs:
                done.set()

        with server.lock:
            server.on_finished = look
            look()
        assert done.wait(PATIENCE), f"{server.finished.total()} of {self.blobs} blobs came"
        self.seen = [f"{item.method} {item.path}" for item in server.writes()]
        return super().run(request)


def layers(site: Site) -> list[dict[str, Any]]:
    records = site.root.glob("out/1.0.0/*/linux-64/build.json")
    return [layer for path in records for layer in json.loads(path.read_text())["layers"]]


def once(server: RegistryServer) -> bool:
    """Whether no blob was uploaded twice to its end."""
    return set(server.finished.values()) == {1}


def test_layers_travel_before_the_tests_have_ended_and_manifests_after(
    site: Site, server: RegistryServer, call: Call
) -> None:
    assert call("build", "1.0.0")[0] == 0  # says how many layers there are; forgotten then
    wanted = {layer["digest"] for layer in layers(site)}
    site.sandbox = Waiting(server, len(wanted))
    for path in site.root.glob("out/1.0.0/*/linux-64/tests.json"):
        path.unlink()
    code, out, err = call("build", "1.0.0", "--target-ecr-repo", server.repository("team/image"))
    assert code == 0, err
    assert site.sandbox.seen
    assert not any("/manifests/" in line for line in site.sandbox.seen)
    assert once(server)
    assert set(server.tag_digests("team/image")) >= {"1.0.0-cpu", "1.0.0-gpu", "latest-cpu"}
    assert server.state_checks == []
    assert len(out.splitlines()) == 2 + 8
    sent = sum(len(server.blobs["team/image"][digest]) for digest in wanted)
    record = json.loads((site.root / "out/1.0.0" / PUSH_RECORD).read_text())
    assert (record["ahead_bytes"], record["present_bytes"], record["resumed_blobs"]) == (sent, 0, 0)
    assert sent < record["sent_bytes"] <= server.received()
    assert " before the push), mounted 0 B; 0 B were there already" in err
    assert not (site.root / f".lockyard/push/{VERSION}.jsonl").exists()


def test_red_tests_publish_nothing_and_what_was_sent_is_not_sent_again(
    site: Site, server: RegistryServer, call: Call
) -> None:
    site.sandbox = Waiting(server, 1, FAILED)
    args = ("build", "1.0.0", "--target-ecr-repo", server.repository("team/image"))
    code, _, err = call(*args)
    assert code == 7
    assert "; no manifest refers to them, nothing is published" in err
    assert sum(server.finished.values()) >= 1
    assert server.manifests == {}
    assert server.tags == {}
    assert not (site.root / RELEASE / "images.json").exists()
    site.sandbox = Sandbox()
    code, _, err = call(*args)
    assert code == 0, err
    assert once(server)
    assert server.state_checks == []


def test_an_upload_that_a_failure_stops_goes_on_in_the_next_run(
    site: Site, server: RegistryServer, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image tests fail while a large layer is on its way; its other chunks go when the release is published."""
    noise = Package("noise", files={"share/noise.bin": Node(_noise(8 * CHUNK))})
    noise.extract(tmp_path / "site-packages")
    site.lock({"cpu": (*PACKAGES[:3], noise), "gpu": PACKAGES})
    halfway, stopped = threading.Event(), threading.Event()
    real = Ahead.stop

    def hold(taken: int) -> None:
        if taken > 3 * CHUNK and not stopped.is_set():
            halfway.set()
            assert stopped.wait(PATIENCE)

    def stop(self: Ahead) -> None:
        self._stop.set()
        stopped.set()
        real(self)

    class Failing(Sandbox):
        def run(self, request: RunRequest) -> RunResult:
            assert halfway.wait(PATIENCE)
            return super().run(request)

    monkeypatch.setattr(Ahead, "stop", stop)
    server.on_bytes = hold
    site.sandbox = Failing(FAILED)
    args = ("build", "1.0.0", "--image-type", "cpu", "--target-ecr-repo", server.repository("team/image"))
    assert call(*args)[0] == 7
    assert server.tags == {}
    large = next(layer for layer in layers(site) if layer["size"] > 7 * CHUNK)
    assert large["digest"] not in server.blobs.get("team/image", {})
    with open_journal(site.root / f".lockyard/push/{VERSION}.jsonl") as journal:
        assert journal.session(server.repository("team/image"), large["digest"]) is not None
    site.sandbox = Sandbox()
    code, _, err = call(*args)
    assert code == 0, err
    assert once(server)
    whole = sum(map(len, server.blobs["team/image"].values()))
    assert server.received() <= whole + 2 * CHUNK


def test_the_first_repository_of_a_registry_gets_them_and_the_others_mount(
    site: Site, server: RegistryServer, call: Call
) -> None:
    names = [server.repository("team/one"), server.repository("team/two"), "oci:published"]
    code, _, err = call("build", "1.0.0", *(part for name in names for part in ("--target-ecr-repo", name)))
    assert code == 0, err
    assert once(server)
    mine = {layer["digest"] for layer in layers(site)}
    assert {name for name, digest in server.finished if digest in mine} == {"team/one"}
    assert server.tag_digests("team/one") == server.tag_digests("team/two") != {}
    assert (site.root / "published/index.json").is_file()


def test_a_registry_that_takes_nothing_yet_is_a_warning_and_the_push_sends_all(
    site: Site, server: RegistryServer, call: Call
) -> None:
    server.faults.append(Fault("POST", "/blobs/uploads/", 403, body=b'{"errors":[{"code":"DENIED"}]}'))
    code, _, err = call("build", "1.0.0", "--target-ecr-repo", server.repository("team/image"))
    assert code == 0, err
    assert "takes no layers yet, so the push sends them" in err
    assert once(server)
    assert server.state_checks == []


def test_a_registry_that_refuses_for_good_fails_the_push_only(site: Site, server: RegistryServer, call: Call) -> None:
    server.faults.append(Fault("POST", "/blobs/uploads/", 403, times=1000, body=b'{"errors":[{"code":"DENIED"}]}'))
    code, out, err = call("build", "1.0.0", "--target-ecr-repo", server.repository("team/image"))
    assert code == 6
    assert err.count("takes no layers yet") == 1
    assert len(out.splitlines()) == 2  # both images are built
    assert all((site.root / "out/1.0.0" / name / "linux-64/tests.json").is_file() for name in ("cpu", "gpu"))
    assert server.tags == {}


def test_without_it_the_registry_hears_nothing_before_the_push(site: Site, server: RegistryServer, call: Call) -> None:
    site.sandbox = Waiting(server, 0)
    args = ("--no-upload-early", "--target-ecr-repo", server.repository("team/image"))
    code, _, err = call("build", "1.0.0", *args)
    assert code == 0, err
    assert site.sandbox.seen == []
    assert json.loads((site.root / "out/1.0.0" / PUSH_RECORD).read_text())["ahead_bytes"] == 0
    assert once(server)


def test_another_push_of_the_version_is_left_alone(site: Site, server: RegistryServer, call: Call) -> None:
    with fs.lock(site.root / f".lockyard/push/{VERSION}.lock"):
        code, _, err = call("-v", "build", "1.0.0", "--target-ecr-repo", server.repository("team/image"))
    assert code == 1
    assert "no layer is sent before the push: another lockyard command is writing here" in err
    assert server.log == []


def _noise(size: int) -> bytes:
    return random.Random(4).randbytes(size)
