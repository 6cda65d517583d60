"""The Debian package docker-registry, started for a test on 127.0.0.1 with a user and a password."""

import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from support.token_server import ISSUER, SERVICE, token_server

USER, PASSWORD = "user", "correct-horse"
_PATIENCE = 20.0  # seconds


@dataclass(frozen=True)
class DockerRegistry:
    """A running registry: `HOST:PORT`, where its access log is, and a Docker configuration directory that knows it."""

    host: str
    log: Path
    docker_config: Path
    pid: int = 0

    def requests(self, method: str) -> int:
        """Count the requests of a method so far."""
        return sum(f'"{method} /v2/' in line for line in self.log.read_text(errors="replace").splitlines())


@contextlib.contextmanager
def docker_registry(place: Path, *, tokens: bool = False, port: int | None = None) -> Iterator[DockerRegistry]:
    """Run a registry that keeps its data below `place`; with `tokens` it wants those of a token server, else Basic.

    With `port` and the same `place` it is one that has been restarted.
    """
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        auth: dict[str, object] = {"htpasswd": {"realm": "test", "path": str(place / "htpasswd")}}
        if tokens:
            server = stack.enter_context(token_server(USER, PASSWORD, place / "bundle.pem"))
            bundle = str(place / "bundle.pem")
            auth = {"token": {"realm": server.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}}
        yield from _run(place, auth, port)


def _run(place: Path, authentication: dict[str, object], fixed: int | None) -> Iterator[DockerRegistry]:
    word = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (place / "htpasswd").write_text(f"{USER}:{word}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = fixed or probe.getsockname()[1]
    config = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": str(place / "data")},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": authentication,
    }
    (place / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    # It reads every variable whose name begins with REGISTRY.
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY")}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(place / "config.yml")],
            stdout=log,
            stderr=log,
            env=env | {"OTEL_TRACES_EXPORTER": "none"},
        )
        try:
            _wait(process, port, place / "log")
            host = f"127.0.0.1:{port}"
            auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            (place / "docker").mkdir(exist_ok=True)
            (place / "docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
            yield DockerRegistry(host, place / "log", place / "docker", process.pid)
        finally:
            process.terminate()
            process.wait(10)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status in {200, 401}:
                return
        except OSError:
            time.sleep(0.02)  # it tells nobody when it listens: ask until it answers
        finally:
            connection.close()
    raise AssertionError(f"docker-registry did not start: {log.read_text(errors='replace')[-2000:]}")
