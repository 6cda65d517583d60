"""The server: JSON at `/api/measurements`, a page for people at `/`, `ok` at `/health`."""

import argparse
import html
import http.server
import json
import urllib.parse
from dataclasses import asdict
from pathlib import Path

from markdown_it import MarkdownIt

from labservice import __version__
from labservice.store import Measurement, Store

_LONGEST = 1 << 16  # bytes of a request


def page(store: Store, notes: str) -> str:
    """Return the page: the notes, then the measurements."""
    rows = "".join(
        f"<tr><td>{html.escape(item.name)}</td><td>{item.value:g} {html.escape(item.unit)}</td></tr>"
        for item in store.find()
    )
    text = MarkdownIt("commonmark", {"html": False}).render(notes)
    return f"<!doctype html><meta charset=utf-8><title>labservice {__version__}</title>{text}<table>{rows}</table>"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    store: Store
    notes: Path

    def do_GET(self) -> None:
        """Answer reads."""
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/health":
            self._answer(200, "text/plain", "ok")
        elif url.path == "/api/measurements":
            name = urllib.parse.parse_qs(url.query).get("name", [None])[0]
            self._json(200, [asdict(item) for item in self.store.find(name)])
        elif url.path == "/":
            notes = self.notes.read_text(encoding="utf-8") if self.notes.exists() else "# Measurements"
            self._answer(200, "text/html; charset=utf-8", page(self.store, notes))
        else:
            self._json(404, {"error": "no such page"})

    def do_POST(self) -> None:
        """Take a measurement."""
        size = int(self.headers.get("Content-Length") or 0)
        if self.path != "/api/measurements" or size > _LONGEST:
            self._json(413 if size > _LONGEST else 404, {"error": "POST a small JSON object to /api/measurements"})
            return
        try:
            measurement = Measurement.parse(json.loads(self.rfile.read(size)))
        except ValueError as error:
            self._json(400, {"error": str(error)})
            return
        self.store.add(measurement)
        self._json(201, asdict(measurement))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Stay silent: a proxy logs requests."""

    def _json(self, status: int, value: object) -> None:
        self._answer(status, "application/json", json.dumps(value))

    def _answer(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def make_server(directory: Path, host: str, port: int) -> http.server.ThreadingHTTPServer:
    """Make a server for the measurements in `directory`; port 0 takes a free one."""
    own = type("OwnHandler", (Handler,), {"store": Store(directory), "notes": directory / "notes.md"})
    return http.server.ThreadingHTTPServer((host, port), own)


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="labservice-server", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the measurements are kept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    with make_server(options.data, options.host, options.port) as server:
        print(f"labservice {__version__} at http://{options.host}:{server.server_address[1]}", flush=True)  # noqa: T201 - a command says where it serves
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0
