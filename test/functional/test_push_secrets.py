"""Credentials never show: not in output, errors, journals, records or command lines, whatever fails and however it quotes them."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.built import add_release, make_distribution
from support.registry_server import Fault, RegistryServer, running_registry

PASSWORD = "correct-horse"
PAIR = base64.b64encode(f"user:{PASSWORD}".encode()).decode()


@pytest.fixture(params=["basic", "bearer"])
def server(request: pytest.FixtureRequest) -> Iterator[RegistryServer]:
    with running_registry() as registry:
        registry.auth = request.param
        yield registry


def command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return "\n".join(lines)


def docker_config(place: Path, host: str, how: str) -> dict[str, str]:
    """A Docker configuration that knows the password itself, or asks a helper for it."""
    place.mkdir()
    config: dict[str, object] = {"auths": {host: {"auth": PAIR}}}
    if how == "helper":
        helper = place / "docker-credential-test"
        helper.write_text(f'#!/bin/sh\nread server\necho \'{{"Username": "user", "Secret": "{PASSWORD}"}}\'\n')
        helper.chmod(0o755)
        config = {"credHelpers": {host: "test"}}
    (place / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(place), "PATH": f"{place}:{os.environ['PATH']}"}


@pytest.mark.parametrize("how", ["inline", "helper"])
def test_nothing_shows(server: RegistryServer, tmp_path: Path, how: str) -> None:
    """A push that fails in the middle with an answer that quotes everything it was sent, then one that succeeds."""
    root = make_distribution(tmp_path / "small").root
    add_release(root, "1.4.2", sizes=((1 << 20) + 9, 900))
    environ = docker_config(tmp_path / "docker", server.host, how) | {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}
    seen: list[str] = []
    server.on_bytes = lambda taken: seen.append(command_lines()) if len(seen) < 3 else None
    quoted = json.dumps({"errors": [{"code": "DENIED", "message": f"no {PASSWORD}, no {PAIR}"}]}).encode()
    server.faults.append(Fault("PUT", "/manifests/1.4.2-gpu", 403, body=quoted))
    args = ["-vv", "--root", str(root), "push", "1.4.2", "--target-ecr-repo", server.repository("a")]
    shown = []
    for code in (6, 0):
        done = subprocess.run(
            [sys.executable, "-m", "lockyard", *args], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        shown += [done.stdout, done.stderr, *(path.read_text() for path in root.rglob(".lockyard/**/*.jsonl"))]
    assert "DENIED" in shown[1], "the failure itself is told"
    shown += seen
    shown += [path.read_text(errors="replace") for path in root.rglob("*") if path.is_file()]
    secrets = [PASSWORD, PAIR, *server.tokens]
    assert len(secrets) > 2 or server.auth == "basic"
    for secret in secrets:
        assert not [text for text in shown if secret in text], secret[:3]
    assert any("push" in text for text in seen), "the command lines were really read"
