"""The client, for programs: `Client("http://host:8080").add("temperature", 21.5, "C")`."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict

from labservice.store import Measurement


class LabError(Exception):
    """The server refused or is not there; the message is fit for people."""


class Client:
    """Talks to one server; `timeout` is in seconds."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise LabError(f"{url!r} is not an http address")
        self._url = url.rstrip("/")
        self._timeout = timeout

    def add(self, name: str, value: float, unit: str = "", at: float | None = None) -> Measurement:
        """Send a measurement, of now unless `at` is given."""
        measurement = Measurement(name, value, unit, time.time() if at is None else at)
        return Measurement.parse(self._call("/api/measurements", asdict(measurement)))

    def find(self, name: str | None = None) -> list[Measurement]:
        """Return all measurements, or those of one name."""
        query = f"?{urllib.parse.urlencode({'name': name})}" if name else ""
        return [Measurement.parse(item) for item in self._call(f"/api/measurements{query}")]

    def _call(self, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})  # noqa: S310 - http only, checked above
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310 - http only
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise LabError(f"{self._url}: {error.code} {error.read().decode(errors='replace')}") from error
        except (urllib.error.URLError, TimeoutError) as error:
            raise LabError(f"{self._url}: {error}") from error
