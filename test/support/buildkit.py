"""A second Docker daemon with a modern BuildKit, and buildx: Debian's next suite, in a directory of its own.

Nothing of the machine changes: packages are downloaded with an apt state of our own (its source derived from the machine's),
unpacked beside, and kept between runs. The daemon has its own network namespace: without one it would take the bridge of the
first. runc comes from the machine, whose C library the next suite's does not suit.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.require import ROOT

SUITE = "trixie"
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd", "tini")
_MIRROR_RE = re.compile(r"(?m)^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s+)?)(https?://\S*debian/?)(?:\s|$)")


@dataclass(frozen=True)
class Second:
    """The daemon: its socket, the environment in which `docker buildx` reaches it, and its builder's name there."""

    socket: Path
    environ: dict[str, str]
    builder: str


def _mirror() -> str:
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in places:
        found = _MIRROR_RE.search(path.read_text()) if path.is_file() else None
        if found:
            return found[1]
    raise RuntimeError("apt has no source of Debian")


@functools.cache
def install() -> Path:
    """Return the directory that the packages are unpacked in; they are fetched at first, verified by apt."""
    cache = Path(os.environ.get("LOCKYARD_TEST_CACHE") or ROOT / ".cache") / "buildkit"
    root = cache / f"root-{SUITE}"
    if root.is_dir():
        return root
    work = cache / f".work-{os.getpid()}"
    for name in ("state/lists/partial", "cache/archives/partial", "sources", "debs", "root"):
        (work / name).mkdir(parents=True)
    try:
        (work / "sources/next.sources").write_text(
            f"Types: deb\nURIs: {_mirror()}\nSuites: {SUITE}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        (work / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{work}/sources";\nDir::State "{work}/state";\n'
            f'Dir::State::status "/dev/null";\nDir::Cache "{work}/cache";\nAPT::Sandbox::User "root";\n'
        )
        env = {**os.environ, "APT_CONFIG": str(work / "apt.conf")}
        for argv in (["apt-get", "update", "-q"], ["apt-get", "download", "-q", *PACKAGES]):
            subprocess.run(argv, env=env, cwd=work / "debs", check=True, capture_output=True, timeout=300)
        for deb in sorted((work / "debs").glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(deb), str(work / "root")], check=True, timeout=300)
        with contextlib.suppress(FileExistsError, OSError):  # another process was faster
            (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return root


@contextlib.contextmanager
def _notified(place: Path) -> Iterator[Callable[["subprocess.Popen[bytes]"], bool]]:
    """Give what waits until a daemon says that it is ready, as daemons tell systemd; false when it ends first or never does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(place))
        told.settimeout(1)

        def ready(daemon: "subprocess.Popen[bytes]") -> bool:
            for _ in range(120):
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in told.recv(4096):
                        return True
                if daemon.poll() is not None:
                    return False
            return False

        yield ready


@contextlib.contextmanager
def remote_buildkit(second: Second, place: Path) -> Iterator[str]:
    """Give the address of the second daemon's BuildKit as a machine elsewhere has it: its gRPC service on a socket."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as daemon:
                daemon.connect(str(second.socket))
                daemon.sendall(b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
                answer = b""
                while not answer.endswith(b"\r\n\r\n"):
                    answer += daemon.recv(1)
                assert b" 101 " in answer, answer
                back = threading.Thread(target=_pipe, args=(daemon, self.request), daemon=True)
                back.start()
                _pipe(self.request, daemon)
                back.join()

    with socketserver.ThreadingUnixStreamServer(str(place / "buildkit.sock"), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{place}/buildkit.sock"
        server.shutdown()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def second_daemon(place: Path) -> Iterator[Second]:
    """Run the daemon with everything it keeps below `place`."""
    root = install()
    path = f"{root}/usr/sbin:{root}/usr/bin:{os.environ['PATH']}"
    (place / "config/cli-plugins").mkdir(parents=True)
    (place / "config/cli-plugins/docker-buildx").symlink_to(root / "usr/libexec/docker/cli-plugins/docker-buildx")
    (place / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
    address = place / "docker.sock"
    environ = {"PATH": path, "HOME": str(place), "DOCKER_CONFIG": str(place / "config")}
    argv = [
        "unshare", "--net", "dockerd", "--config-file", str(place / "daemon.json"), "--host", f"unix://{address}",
        "--data-root", str(place / "data"), "--exec-root", str(place / "exec"), "--pidfile", str(place / "pid"),
    ]  # fmt: skip
    with _notified(place / "notify") as ready, (place / "log").open("wb") as log:
        daemon = subprocess.Popen(
            argv, env={**os.environ, "PATH": path, "NOTIFY_SOCKET": str(place / "notify")}, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        started = ready(daemon)
    try:
        if not started:
            raise RuntimeError((place / "log").read_text()[-4000:])
        subprocess.run(
            ["docker", "context", "create", "second", "--docker", f"host=unix://{address}"],
            env=environ, check=True, capture_output=True,
        )  # fmt: skip
        yield Second(address, environ, "second")
    finally:
        daemon.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
        if (place / "data").is_mount():  # it mounts its data upon itself; one that did not start leaves it so
            subprocess.run(["umount", "--lazy", str(place / "data")], check=True)
        shutil.rmtree(place, ignore_errors=True)
