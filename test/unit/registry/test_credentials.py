"""Docker's credential store, read-only."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lockyard.errors import ConfigError
from lockyard.registry.credentials import DockerCredentials

HOST = "registry.example.com"


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def store(place: Path, config: Any, **environ: str) -> DockerCredentials:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return DockerCredentials({"DOCKER_CONFIG": str(place), **environ})


def helper(place: Path, name: str, script: str) -> str:
    program = place / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{place}:/usr/bin:/bin"


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"https://{HOST}/v2/"])
def test_an_inline_entry(tmp_path: Path, key: str) -> None:
    found = store(tmp_path, {"auths": {key: {"auth": auth("me:pass:word")}}}).for_host(HOST)
    assert found is not None
    assert (found.username, found.password) == ("me", "pass:word")


def test_the_hub_has_its_own_key(tmp_path: Path) -> None:
    found = store(tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": auth("me:word")}}}).for_host("docker.io")
    assert found is not None
    assert found.password == "word"


def test_an_identity_token(tmp_path: Path) -> None:
    found = store(tmp_path, {"auths": {HOST: {"auth": auth("me:"), "identitytoken": "long"}}}).for_host(HOST)
    assert found is not None
    assert found.identity_token == "long"


def test_the_file_below_home(tmp_path: Path) -> None:
    store(tmp_path / ".docker", {"auths": {HOST: {"username": "me", "password": "word"}}})
    found = DockerCredentials({"HOME": str(tmp_path)}).for_host(HOST)
    assert found is not None
    assert found.password == "word"


@pytest.mark.parametrize(
    "config", [{}, {"auths": {HOST: {}}}, {"auths": {"other.example": {"auth": "!"}}}, {"auths": None}]
)
def test_no_entry_is_anonymous(tmp_path: Path, config: Any) -> None:
    assert store(tmp_path, config).for_host(HOST) is None
    assert DockerCredentials({"DOCKER_CONFIG": str(tmp_path / "absent")}).for_host(HOST) is None


@pytest.mark.parametrize("config", ["{", {"auths": {HOST: {"auth": "*not base64*"}}}])
def test_a_damaged_store_is_named(tmp_path: Path, config: Any) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        store(tmp_path, config).for_host(HOST)


def test_a_helper_of_the_host_answers_before_the_file(tmp_path: Path) -> None:
    path = helper(tmp_path, "box", f'read host; [ "$host" = {HOST} ] && echo \'{{"Username":"me","Secret":"word"}}\'')
    config = {"credHelpers": {HOST: "box"}, "auths": {HOST: {"auth": auth("x:y")}}}
    found = store(tmp_path, config, PATH=path).for_host(HOST)
    assert found is not None
    assert (found.username, found.password) == ("me", "word")


def test_a_helper_may_give_an_identity_token(tmp_path: Path) -> None:
    path = helper(tmp_path, "box", """echo '{"Username":"<token>","Secret":"long"}'""")
    found = store(tmp_path, {"credsStore": "box"}, PATH=path).for_host(HOST)
    assert found is not None
    assert (found.identity_token, found.password) == ("long", "")


def test_a_store_without_the_host_is_anonymous(tmp_path: Path) -> None:
    path = helper(tmp_path, "box", "echo credentials not found in native keychain; exit 1")
    assert store(tmp_path, {"credsStore": "box"}, PATH=path).for_host(HOST) is None


@pytest.mark.parametrize("script", ["echo it said word; exit 1", "echo 'word, no JSON'"])
def test_a_failing_helper_is_named_and_not_quoted(tmp_path: Path, script: str) -> None:
    path = helper(tmp_path, "box", script)
    with pytest.raises(ConfigError, match="docker-credential-box") as caught:
        store(tmp_path, {"credsStore": "box"}, PATH=path).for_host(HOST)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../bin/sh", "-x", "a b", ""])
def test_a_helper_is_a_plain_name(tmp_path: Path, name: str) -> None:
    config = {"credHelpers": {HOST: name}}
    with pytest.raises(ConfigError, match="not the name of a credential helper"):
        store(tmp_path, config).for_host(HOST)


def test_a_helper_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gave no answer"):
        store(tmp_path, {"credsStore": "absent"}, PATH="/nowhere").for_host(HOST)


def test_the_store_is_read_once_and_again_when_it_was_refused(tmp_path: Path) -> None:
    """A helper may have a newer token by then."""
    credentials = store(tmp_path, {"auths": {HOST: {"username": "me", "password": "old"}}})
    old = credentials.for_host(HOST)
    (tmp_path / "config.json").write_text(json.dumps({"auths": {HOST: {"username": "me", "password": "new"}}}))
    assert credentials.for_host(HOST) == old
    new = credentials.for_host(HOST, refused=old)
    assert new is not None
    assert new.password == "new"
    assert credentials.for_host(HOST) == new == credentials.for_host(HOST, refused=old)
