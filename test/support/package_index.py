"""A real package index (pypiserver) on loopback, and wheels for it made from what is installed here: no network."""

import base64
import contextlib
import csv
import hashlib
import importlib.metadata
import io
import logging
import socketserver
import threading
import wsgiref.simple_server
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER, PASSWORD = "team", "s3cret-of-the-index"


def _record(files: Mapping[str, bytes], info: str) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        rows.writerow([path, f"sha256={digest}", len(data)])
    rows.writerow([f"{info}/RECORD", "", ""])
    return out.getvalue().encode()


def make_wheel(files: Mapping[str, bytes], info: str) -> bytes:
    """A wheel of these files; the RECORD is made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**files, f"{info}/RECORD": _record(files, info)}.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 2, 2, 0, 0, 0)), data)
    return out.getvalue()


def tiny_wheel(name: str, version: str, *requires: str) -> tuple[str, bytes]:
    """A wheel with one empty module."""
    info = f"{name}-{version}.dist-info"
    lines = "".join(f"Requires-Dist: {item}\n" for item in requires)
    return f"{name}-{version}-py3-none-any.whl", make_wheel(
        {
            f"{name}.py": b"",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        },
        info,
    )


def installed_wheel(name: str) -> tuple[str, bytes]:
    """The wheel of a distribution that is installed here: what its RECORD lists, less scripts and what pip added."""
    distribution = importlib.metadata.distribution(name)
    files: dict[str, bytes] = {}
    info = tag = ""
    for path in distribution.files or ():
        text = path.as_posix()
        if text.startswith("../") or "__pycache__" in text:
            continue
        if len(path.parts) == 2 and path.parts[0].endswith(".dist-info"):
            info = path.parts[0]
            if path.name in {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}:
                continue
        files[text] = Path(str(path.locate())).read_bytes()
    for line in files[f"{info}/WHEEL"].decode().splitlines():
        if line.startswith("Tag: "):
            tag = tag or line.removeprefix("Tag: ")
    return f"{info.removesuffix('.dist-info')}-{tag}.whl", make_wheel(files, info)


BUILD = ("hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers", "poetry-core", "setuptools")
LAB = ("click", "markdown-it-py", "mdurl", "pytest", "iniconfig", "pygments")


def fill(directory: Path, *names: str) -> Path:
    """Put the wheels of installed distributions into a directory, and an empty colorama, which Windows would need."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in [*map(installed_wheel, names), tiny_wheel("colorama", "0.4.6")]:
        (directory / name).write_bytes(data)
    return directory


@dataclass
class Index:
    """The index: `upload` is where to publish, `simple` where to install from."""

    directory: Path
    address: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""
    refuse: Callable[[str, str], bool] = lambda method, path: False
    """Method and path of requests that are answered with 503."""

    @property
    def upload(self) -> str:
        return f"{self.address}/"

    @property
    def simple(self) -> str:
        return f"{self.address}/simple/"

    @property
    def uploads(self) -> int:
        return sum(method == "POST" for method, _ in self.requests)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed are what some tests are about."""


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve_index(directory: Path, *, login: bool = True) -> Iterator[Index]:
    """Serve `directory` until the end of the block; with `login` an upload needs USER and PASSWORD."""
    import pypiserver

    directory.mkdir(parents=True, exist_ok=True)
    logging.getLogger("pypiserver").setLevel(logging.CRITICAL)
    app = pypiserver.app(
        roots=[directory], disable_fallback=True, hash_algo="sha256", overwrite=False, backend_arg="simple-dir",
        authenticate=["update"] if login else [], password_file=None if login else ".",
        auther=(lambda user, password: (user, password) == (USER, PASSWORD)) if login else None,
    )  # fmt: skip
    index = Index(directory)

    def counted(environ: dict[str, Any], start: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        index.requests.append((method, path))
        if index.refuse(method, path):
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return app(environ, start)

    with wsgiref.simple_server.make_server("127.0.0.1", 0, counted, _Server, _Quiet) as server:
        index.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
