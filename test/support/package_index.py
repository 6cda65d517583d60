"""A real package index (pypiserver) on loopback, and wheels for it made from what is installed here: no network."""

import base64
import contextlib
import csv
import hashlib
import importlib.metadata
import io
import socketserver
import subprocess
import sys
import threading
import wsgiref.simple_server
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    """The index: `upload` is where to publish, `simple` where to install from; `state` is where its process and we meet."""

    directory: Path
    state: Path
    address: str = ""

    @property
    def upload(self) -> str:
        return f"{self.address}/"

    @property
    def simple(self) -> str:
        return f"{self.address}/simple/"

    @property
    def uploads(self) -> int:
        """Uploads that were tried since `forget`."""
        return len((self.state / "uploads").read_text())

    def forget(self) -> None:
        (self.state / "uploads").write_text("")
        (self.state / "limit").unlink(missing_ok=True)

    def refuse_after(self, count: int) -> None:
        """Answer uploads with 503 after that many since `forget`."""
        (self.state / "limit").write_text(str(count))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@contextlib.contextmanager
def serve_index(directory: Path) -> Iterator[Index]:
    """Serve `directory` until the end of the block; an upload needs USER and PASSWORD.

    It is a process of its own: pypiserver changes how its process imports.
    """
    state = directory.with_name(f"{directory.name}.state")
    state.mkdir(exist_ok=True)
    index = Index(directory, state)
    index.forget()
    argv = [sys.executable, "-W", "ignore", str(Path(__file__)), str(directory), str(state)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            index.address = process.stdout.readline().strip()
            assert index.address, "pypiserver did not start"
            yield index
        finally:
            process.kill()


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed are what some tests are about."""


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def main(directory: Path, state: Path) -> None:
    """Serve until killed, or until standard input ends: no test leaves a server behind."""
    import pypiserver

    app = pypiserver.app(
        roots=[directory], disable_fallback=True, hash_algo="sha256", overwrite=False, backend_arg="simple-dir",
        authenticate=["update"], auther=lambda user, password: (user, password) == (USER, PASSWORD),
    )  # fmt: skip

    def counted(environ: dict[str, Any], start: Any) -> Any:
        if environ["REQUEST_METHOD"] == "POST":
            with (state / "uploads").open("a+") as uploads:
                uploads.write("x")
                uploads.seek(0)
                number = len(uploads.read())
            limit = state / "limit"
            if limit.exists() and number > int(limit.read_text()):
                start("503 Service Unavailable", [("Content-Length", "0")])
                return [b""]
        return app(environ, start)

    with wsgiref.simple_server.make_server("127.0.0.1", 0, counted, _Server, _Quiet) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
