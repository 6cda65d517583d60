"""Credentials of registries, effects: read-only from Docker's store (`config.json`, credential helpers)."""

import base64
import binascii
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockyard import fs, process
from lockyard.errors import ConfigError, LockyardError
from lockyard.registry.wire import Credential

_HUB = "https://index.docker.io/v1/"
_HELPER_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


class DockerCredentials:
    """Looks credentials up; nothing is read before the first registry asks for one.

    Args:
        environ: `DOCKER_CONFIG` names the directory of `config.json`, else it is `.docker` below `HOME`.

    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        place = environ.get("DOCKER_CONFIG")
        self._path = (
            Path(place) if place else Path(environ.get("HOME") or "~").expanduser() / ".docker"
        ) / "config.json"
        self._guard = threading.Lock()
        self._found: dict[str, Credential | None] = {}

    def for_host(self, host: str, *, refused: Credential | None = None) -> Credential | None:
        """Return the credential of `HOST[:PORT]`, `None` when the store has none; a `refused` one is looked up anew.

        Raises:
            ConfigError: the store is malformed, or its helper fails.

        """
        with self._guard:
            if host not in self._found or (refused is not None and self._found[host] == refused):
                self._found[host] = self._look_up(host)
            return self._found[host]

    @staticmethod
    def endpoint(_: str) -> str:
        """Docker's store names hosts only."""
        return ""

    def _look_up(self, host: str) -> Credential | None:
        config = self._read()
        keys = [host, f"https://{host}", f"https://{host}/", f"https://{host}/v1/", f"https://{host}/v2/"]
        keys = [_HUB, *keys] if host == "docker.io" else keys
        helpers = _table(config, "credHelpers")
        for key in keys:
            if key in helpers:
                return self._ask(str(helpers[key]), key)
        auths = _table(config, "auths")
        for key in keys:
            found = self._inline(auths.get(key), key)
            if found is not None:
                return found
        store = config.get("credsStore")
        return self._ask(str(store), keys[0]) if store else None

    def _read(self) -> dict[str, Any]:
        data = fs.read_file(self._path)
        if data is None:
            return {}
        try:
            value = json.loads(data)
        except ValueError as error:
            raise ConfigError(f"{self._path} is not JSON: {error}", hint="write it again by docker login") from error
        return value if isinstance(value, dict) else {}

    def _inline(self, entry: object, key: str) -> Credential | None:
        if not isinstance(entry, dict):
            return None
        name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            try:
                text = base64.b64decode(str(entry["auth"]), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise ConfigError(f"{self._path}: the entry of {key} is damaged", hint=f"docker login {key}") from error
            name, _, password = text.rstrip("\0").partition(":")
        token = str(entry.get("identitytoken") or "")
        return Credential(name, password, token) if name or token else None

    def _ask(self, helper: str, key: str) -> Credential | None:
        if not _HELPER_RE.fullmatch(helper):
            raise ConfigError(f"{self._path}: {helper!r} is not the name of a credential helper")
        program = f"docker-credential-{helper}"
        try:
            done = process.ask([program, "get"], key.encode(), env=self._environ)
            answer = json.loads(done.stdout) if done.exit_code == 0 else None
        except (LockyardError, OSError, ValueError) as error:
            # Its output may hold the secret: the message does not quote it.
            raise ConfigError(
                f"{program}, which {self._path} names, gave no answer for {key}",
                hint=f"try: echo {key} | {program} get",
            ) from error
        if answer is None and b"not found" not in done.stdout:
            raise ConfigError(f"{program} failed for {key} (exit code {done.exit_code})", hint=f"docker login {key}")
        if not isinstance(answer, dict) or not answer.get("Secret"):
            return None
        if answer.get("Username") == "<token>":
            return Credential(identity_token=str(answer["Secret"]))
        return Credential(str(answer.get("Username") or ""), str(answer["Secret"]))


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}
