"""A channel over real HTTP on loopback, with ranges, that cuts connections and says when bytes go out."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

CHUNK = 16 << 10


@dataclass
class PackageServer:
    """What it serves and what it saw; `cut` gives the bytes after which the request with that number breaks."""

    files: Mapping[str, bytes]
    cut: Callable[[int], int | None] = lambda _: None
    on_bytes: Callable[[int], None] = lambda _: None
    """Called with the count of all body bytes so far, before each piece."""
    delay: Callable[[], object] = lambda: None
    """Called before each answer."""
    requests: list[tuple[str, int]] = field(default_factory=list)
    """Path and offset of each request."""
    sent: int = 0
    address: str = ""
    guard: threading.Lock = field(default_factory=threading.Lock)
    idle: threading.Condition = field(default_factory=threading.Condition)
    connections: int = 0

    def note(self, path: str, offset: int) -> int:
        with self.guard:
            self.requests.append((path, offset))
            return len(self.requests) - 1

    def count(self, amount: int) -> None:
        with self.guard:
            self.sent += amount
            total = self.sent
        self.on_bytes(total)

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        with self.idle:
            self.connections += 1
        try:
            yield
        finally:
            with self.idle:
                self.connections -= 1
                self.idle.notify_all()

    def forget(self) -> None:
        """Count from zero, once all connections have ended: that of a killed client may still have a piece to count."""
        with self.idle:
            assert self.idle.wait_for(lambda: not self.connections, timeout=60)
            self.sent = 0


def _handler(server: PackageServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with server.connection():
                super().handle()

        def do_GET(self) -> None:
            data = server.files.get(self.path)
            asked = self.headers.get("Range", "")
            offset = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            number = server.note(self.path, offset)
            server.delay()
            if data is None or offset >= len(data):
                self.send_response(404 if data is None else 416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(data) - offset))
            if asked:
                self.send_header("Content-Range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            with contextlib.suppress(OSError):
                self._body(data[offset:], server.cut(number))

        def _body(self, data: bytes, cut: int | None) -> None:
            for start in range(0, len(data), CHUNK):
                if cut is not None and start >= cut:
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                piece = data[start : start + CHUNK]
                server.count(len(piece))
                self.wfile.write(piece)

    return Handler


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed are what the tests are about."""


@contextlib.contextmanager
def serve(server: PackageServer) -> Iterator[PackageServer]:
    """Serve until the end of the block; `address` is set."""
    with _Quiet(("127.0.0.1", 0), _handler(server)) as listener:
        server.address = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
