"""A package index over HTTP, effects: what it has of a project; and the index names in `~/.pypirc`."""

import configparser
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from lockyard import fs
from lockyard.errors import ConfigError, RegistryError
from lockyard.http import Retries, TransferError, check_status, make_client, transfer_errors
from lockyard.pyrelease.indexes import ACCEPT, Target, parse_listing


def read_listing(
    target: Target, project: str, environ: Mapping[str, str], *, retries: Retries | None = None
) -> dict[str, str | None]:
    """Return file name → sha256 of all that an index has of a project; nothing when it does not know it.

    An index that asks for a login gets TWINE_USERNAME and TWINE_PASSWORD, when it is the host that is uploaded to.

    Raises:
        RegistryError: it cannot be asked.

    """
    url = target.project_url(project)

    def ask() -> dict[str, str | None]:
        headers = {"Accept": ACCEPT, "Cache-Control": "no-cache"}
        with make_client(auth=_login(target, environ)) as client, transfer_errors("GET", url):
            response = client.get(url, headers=headers)
            if response.status_code == 404:
                return {}
            check_status(response, 200)
            return parse_listing(response.content, response.headers.get("Content-Type", ""), url)

    try:
        return (retries or Retries()).call(ask)
    except TransferError as error:
        hint = "TWINE_USERNAME and TWINE_PASSWORD log in" if error.status in {401, 403} else None
        raise RegistryError(f"{target.name} does not say what it has: {error}", hint=hint) from error


def read_pypirc(environ: Mapping[str, str]) -> dict[str, str]:
    """Return section → upload address of `~/.pypirc` (empty for pypi and testpypi without one); nothing without the file.

    Raises:
        ConfigError: it does not parse.

    """
    data = fs.read_file(Path(environ.get("HOME") or "/nonexistent") / ".pypirc")
    if data is None:
        return {}
    parsed = configparser.RawConfigParser()
    try:
        parsed.read_string(data.decode())
    except (configparser.Error, UnicodeDecodeError) as error:
        # The error's own text would show a line of the file, a password maybe.
        raise ConfigError("~/.pypirc does not parse", hint="see twine's documentation of .pypirc") from error
    return {name: parsed[name].get("repository", "") for name in parsed.sections() if name != "distutils"}


def _login(target: Target, environ: Mapping[str, str]) -> tuple[str, str] | None:
    name, password = environ.get("TWINE_USERNAME"), environ.get("TWINE_PASSWORD")
    same = urllib.parse.urlsplit(target.upload).netloc == urllib.parse.urlsplit(target.simple).netloc
    return (name, password) if name and password and same else None
