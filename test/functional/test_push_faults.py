"""A push over a bad line to a bad registry: whatever happens, running it again ends with the same digests and tags."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockyard.cli.root import run
from lockyard.errors import HashMismatchError, RegistryError
from lockyard.http import Retries
from lockyard.registry.client import RegistryClient
from lockyard.registry.journal import open_journal
from lockyard.registry.plan import Present, PushImage, Target, plan_push
from lockyard.registry.push import run_push
from lockyard.registry.wire import Credential
from support.built import add_release, make_distribution
from support.effects import GivenCredentials, RecordingLog
from support.images import push_image
from support.registry_server import Fault, RegistryServer, running_registry

CHUNK = 4096
NAMES = ("team/first", "team/second")
FLOATING = ("1.0-cpu", "latest-cpu")
ONCE = Retries(attempts=2, sleep=lambda _: None)


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong, at a byte or at the Nth request of a kind."""

    kind: str
    at: int

    def begin(self, server: RegistryServer) -> None:
        match self.kind:
            case "cut":
                server.cut(self.at + 1)
            case "cut and lose the session":
                server.cut(self.at + 1, keep_partial=False)
            case "cut and go down":
                server.cut(self.at + 1, for_good=True)
            case "restart":
                server.restart()
            case "no mounts":
                server.refuse_mounts = True
            case _:
                status, _, where = self.kind.partition(" ")
                method, _, path = where.partition(" ")
                after = path.endswith(" lost")
                path = path.removesuffix(" lost")
                headers = {"Retry-After": "0"} if status == "429" else {}
                times = 1 + self.at % 3
                server.faults.append(Fault(method, path, int(status), times=times, headers=headers, after=after))


kinds = st.sampled_from(
    [
        "cut", "cut and lose the session", "cut and go down", "restart", "no mounts",
        "429 POST /uploads/", "500 PATCH /uploads/", "503 PUT /uploads/", "502 PUT /uploads/ lost", "500 PUT /manifests/",
        "504 PUT /manifests/ lost", "401 PATCH /uploads/", "401 PUT /manifests/", "500 HEAD /blobs/", "429 GET /manifests/",
        "404 PATCH /uploads/", "500 POST mount=",
    ]
)  # fmt: skip
troubles = st.lists(st.builds(Trouble, kinds, st.integers(0, 30_000)), min_size=1, max_size=4)


def push(server: RegistryServer, image: PushImage, journal: Path) -> None:
    """What the use case does, with ports that hardly wait and small parts."""
    with contextlib.ExitStack() as stack:
        ports, aims, there = {}, [], {}
        for name in (server.repository(item) for item in NAMES):
            given = GivenCredentials({server.host: Credential("user", "correct-horse")})
            port = RegistryClient(name, given, log=RecordingLog(), retries=ONCE, chunk=CHUNK)
            stack.callback(port.close)
            ports[name] = port
            aims.append(Target(repository=name, registry=port.registry, floating={"cpu": FLOATING}))
            tags = {tag: port.manifest_digest(tag) for tag in (image.tag, *FLOATING)}
            there[name] = Present(
                blobs=port.present_blobs({blob.digest: blob.size for blob in image.blobs}),
                manifests=frozenset([image.top.digest]) if port.manifest_digest(image.top.digest) else frozenset(),
                tags={tag: digest for tag, digest in tags.items() if digest},
            )
        memory = stack.enter_context(open_journal(journal))
        run_push(plan_push([image], aims, there), ports, memory=memory, log=RecordingLog())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(troubles=troubles, auth=st.sampled_from([None, "basic", "bearer"]))
def test_whatever_goes_wrong(
    tmp_path_factory: pytest.TempPathFactory, troubles: list[Trouble], auth: str | None
) -> None:
    """No tag ever leads to something incomplete, no finished blob is sent twice, and at last all is as it must be."""
    place = tmp_path_factory.mktemp("push")
    image = push_image(place / "blobs", "cpu", (9000, 3 * CHUNK + 5, 17))
    with running_registry() as server:
        server.auth = auth
        for trouble in troubles:
            server.down = False
            trouble.begin(server)
            with contextlib.suppress(RegistryError):
                push(server, image, place / "journal")
        server.faults.clear()
        server.down, server.cut_after = False, None
        push(server, image, place / "journal")
        wanted = dict.fromkeys((image.tag, *FLOATING), image.top.digest)
        assert [server.tag_digests(name) for name in NAMES] == [wanted] * 2
        assert server.state_checks == []
        assert set(server.finished.values()) <= {1}


@pytest.mark.parametrize("reference", ["1.0.0-cpu", "sha256:"])
def test_a_registry_that_says_another_digest(reference: str, tmp_path: Path) -> None:
    """What was stored is not what was sent: no floating tag moves."""
    image = push_image(tmp_path / "blobs", "cpu", (100,))
    with running_registry() as server:
        wrong = {"Docker-Content-Digest": "sha256:" + "0" * 64}
        server.faults.append(Fault("PUT", f"/manifests/{reference}", 201, headers=wrong, after=True))
        with pytest.raises(RegistryError, match="stored as"):
            push(server, image, tmp_path / "journal")
        assert not any(set(server.tag_digests(name)) & set(FLOATING) for name in NAMES)
        push(server, image, tmp_path / "journal")
        assert server.tag_digests(NAMES[1])["latest-cpu"] == image.top.digest


def test_a_layer_that_changes_while_it_is_sent(tmp_path: Path) -> None:
    image = push_image(tmp_path / "blobs", "cpu", ((1 << 20) + 16 * CHUNK,))
    path = image.blobs[1].source
    assert isinstance(path, Path)

    def change(taken: int) -> None:
        if taken >= CHUNK:
            with path.open("r+b") as stream:
                stream.seek(1 << 20)
                stream.write(b"changed")

    with running_registry() as server:
        server.on_bytes = change
        with pytest.raises((HashMismatchError, RegistryError)):
            push(server, image, tmp_path / "journal")
        assert server.manifests == {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_distribution(tmp_path / "small").root


def to(*names: str) -> list[str]:
    return [part for name in names for part in ("--target-ecr-repo", name)]


def test_a_partial_failure_says_what_is_where_and_how_to_finish(
    server: RegistryServer, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path)}
    add_release(root, "1.4.2")
    a, b = server.repository("a"), server.repository("b")
    server.faults.append(Fault("PUT", "/v2/b/manifests/1.4.2-gpu", 403, body=b'{"errors":[{"code":"DENIED"}]}'))
    assert run(["--root", str(root), "push", "1.4.2", *to(a, b)], environ=environ) == 6
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line.strip() for line in err.splitlines()]
    assert any(line.startswith(f"{a}: ") and "exact tags 2 of 2, floating tags 0 of 6" in line for line in lines)
    assert any(line.startswith(f"{b}: ") and "exact tags 1 of 2, floating tags 0 of 6" in line for line in lines)
    assert not (root / "build_artifacts/v1/v1.4/v1.4.2/images.json").exists()
    (finish,) = [line for line in lines if line.startswith("to finish: ")]
    program, *command = shlex.split(finish.removeprefix("to finish: "))
    assert program == "lockyard"
    assert run(["--root", str(root), *command], environ=environ) == 0
    assert server.tag_digests("b")["latest-gpu"] == server.tag_digests("b")["1.4.2-gpu"]
    assert set(server.finished.values()) == {1}


@pytest.mark.parametrize("at", [1, 4000, 9000, 300_000, 2_500_000, 4_000_000])
def test_kill_minus_nine_in_the_middle(
    server: RegistryServer, root: Path, tmp_path: Path, at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real process, killed when so many bytes are there; the next one sends no finished blob again."""
    add_release(root, "1.4.2", sizes=(2 << 20, 900))
    environ = {
        "LOCKYARD_CACHE_DIR": str(tmp_path / "cache"),
        "DOCKER_CONFIG": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    args = ["--root", str(root), "push", "1.4.2", *to(server.repository("a"), server.repository("b"))]
    begun: list[subprocess.Popen[bytes]] = []

    def kill(taken: int) -> None:
        if taken >= at and begun:
            begun[0].send_signal(signal.SIGKILL)

    with server.lock:  # the first byte waits until we know whom to kill
        process = subprocess.Popen([sys.executable, "-m", "lockyard", *args], env=environ, stderr=subprocess.DEVNULL)
        begun.append(process)
        server.on_bytes = kill
    assert process.wait(60) == -signal.SIGKILL
    server.wait_until_left()  # what was under way when the process died is still read
    server.on_bytes = lambda _: None
    assert not any("latest" in tag for tags in server.tags.values() for tag in tags)
    assert run(args, environ=environ) == 0, capsys.readouterr().err
    assert set(server.finished.values()) == {1}
    assert server.tag_digests("a") == server.tag_digests("b")
    assert server.tag_digests("a")["latest-cpu"] == server.tag_digests("a")["1.4.2-cpu"]
    assert server.state_checks == []
    sizes = [len(data) for data in server.blobs["a"].values()]
    small = sum(size for size in sizes if size < 2 << 20)  # sent in one piece: begun anew; the layers are continued
    assert server.received() <= sum(sizes) + small
