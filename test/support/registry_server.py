"""A small OCI registry in memory, on a real socket, with injected faults and a log of all requests.

It speaks what the Distribution Specification asks of a push: blobs by POST + PATCH + PUT or POST + PUT, mounts, upload status,
manifests, tags with pages, Basic and Bearer authentication. It refuses a manifest whose parts are missing, as real ones do.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import re
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_PATH = re.compile(r"/v2/(?P<name>[a-z0-9/._-]+?)/(?P<kind>blobs/uploads|blobs|manifests|tags|referrers)/(?P<rest>.*)")


@dataclass(frozen=True)
class Entry:
    """One request: what was asked, what was answered, how many body bytes came."""

    method: str
    path: str
    status: int
    received: int
    authorization: str
    host: str


@dataclass
class Fault:
    """Answer `status` to the next `times` requests that match, before anything is done."""

    method: str
    path: str
    status: int
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: bool = False
    """Do it first, then answer with the fault: the answer is lost, the effect is not."""


@dataclass
class Upload:
    """A begun upload."""

    name: str
    data: bytearray = field(default_factory=bytearray)


class RegistryServer:
    """The state of the registry, its faults and its log; use `running_registry`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.uploads: dict[str, Upload] = {}
        self.log: list[Entry] = []
        self.finished: Counter[tuple[str, str]] = Counter()
        """How often each (repository, blob) was uploaded to its end."""
        self.on_bytes: Callable[[int], None] = lambda _: None
        """Told how many bytes of bodies have come, after each piece."""
        self.bytes_taken = 0
        self.on_finished: Callable[[], None] = lambda: None
        """Told of each blob that was uploaded to its end."""
        self.faults: list[Fault] = []
        self.auth: str | None = None
        self.users = {"user": "correct-horse"}
        self.token_lifetime = 300
        self.tokens: dict[str, list[str]] = {}
        self.token_requests: list[dict[str, list[str]]] = []
        self.refuse_mounts = False
        self.cut_after: int | None = None
        self.keep_partial = True
        self.down = self._down_next = False
        self.absolute_locations = False
        self.referrers_api = False
        self.one_piece = False
        """Forget an upload that comes in several parts."""
        self.upload_host: str | None = None
        """`HOST:PORT` of a storage server that uploads are sent to."""
        self.cut_answer_after: int | None = None
        """Break the connection once after so many bytes of the next blob that is sent."""
        self.page_size = 1000
        self.state_checks: list[str] = []
        """What was ever wrong with the state: a tag that led to an incomplete image."""
        self.port = 0
        self.connections = 0
        self.gone = threading.Condition()
        """Told of each connection that is closed."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def repository(self, name: str) -> str:
        return f"{self.host}/{name}"

    def writes(self) -> list[Entry]:
        """The requests that changed something, in order."""
        return [item for item in self.log if item.method in {"POST", "PATCH", "PUT", "DELETE"} and item.status < 300]

    def received(self) -> int:
        """All body bytes of uploads of blobs."""
        return sum(item.received for item in self.log if "/blobs/uploads/" in item.path)

    def wait_until_left(self) -> None:
        """Wait until all that ended clients had sent is read and noted, and their connections are closed."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as last:
            last.request("GET", "/v2/")  # accepted after all of theirs
            last.getresponse().read()
        with self.gone:
            assert self.gone.wait_for(lambda: not self.connections, 60)

    def cut(self, after: int, *, keep_partial: bool = True, for_good: bool = False) -> None:
        """Break the connection after so many more bytes of bodies, once; keep what came before or lose the session.

        `for_good` takes the registry down with it, until `down` is false again.
        """
        self.cut_after, self.keep_partial, self._down_next = after, keep_partial, for_good

    def was_cut(self) -> None:
        """Note that the injected break has happened."""
        self.cut_after, self.down = None, self._down_next

    def restart(self) -> None:
        """Lose what a registry keeps in memory: begun uploads and tokens."""
        with self.lock:
            self.uploads.clear()
            self.tokens.clear()

    def forget_log(self) -> None:
        with self.lock:
            self.log.clear()

    def tag_digests(self, name: str) -> dict[str, str]:
        return dict(self.tags.get(name, {}))

    def missing_parts(self, name: str, body: bytes) -> list[str]:
        value = json.loads(body)
        blobs = [*value.get("layers", []), *([value["config"]] if "config" in value else [])]
        missing = [item["digest"] for item in blobs if item["digest"] not in self.blobs.get(name, {})]
        parts = [item["digest"] for item in value.get("manifests", [])]
        return missing + [digest for digest in parts if digest not in self.manifests.get(name, {})]

    def check_state(self) -> None:
        """Note every tag that leads to something incomplete."""
        for name, tags in self.tags.items():
            for tag, digest in tags.items():
                manifest = self.manifests.get(name, {}).get(digest)
                if manifest is None or self.missing_parts(name, manifest[0]):
                    self.state_checks.append(f"{name}:{tag} leads to an incomplete {digest}")


@contextlib.contextmanager
def running_registry() -> Iterator[RegistryServer]:
    """Serve a fresh registry on 127.0.0.1."""
    registry = RegistryServer()
    with _serving(registry) as port:
        registry.port = port
        yield registry


@contextlib.contextmanager
def storage_server(registry: RegistryServer) -> Iterator[str]:
    """Serve the uploads of `registry` on another origin, which wants no credentials; give its `HOST:PORT`."""
    with _serving(registry) as port:
        registry.upload_host = f"127.0.0.1:{port}"
        yield registry.upload_host


@contextlib.contextmanager
def _serving(registry: RegistryServer) -> Iterator[int]:
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = _Server(registry, handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: RegistryServer, handler: type["_Handler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.registry = registry

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.registry.gone:
            self.registry.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.registry.gone:
            self.registry.connections -= 1
            self.registry.gone.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that went away is no failure
            super().handle_error(request, client_address)


class _CutError(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    registry: RegistryServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of http.server
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names of http.server

    def _serve(self) -> None:
        self.taken, self.noted = 0, False
        with contextlib.suppress(ConnectionError, _CutError):
            if self.registry.down:
                raise _CutError
            fault = self._fault()
            if fault is not None and not fault.after:
                self._drain()
                self._answer(fault.status, fault.headers, fault.body)
                return
            answer = self._route()
            with self.registry.lock:
                self.registry.check_state()
            if fault is not None:
                self._answer(fault.status, fault.headers, fault.body)
            else:
                self._answer(*answer)
            return
        if not self.noted:  # what was done counts once, though its answer was lost
            self._note(0)
        self.close_connection = True

    def _fault(self) -> Fault | None:
        with self.registry.lock:
            for fault in self.registry.faults:
                if fault.times and fault.method == self.command and re.search(fault.path, self.path):
                    fault.times -= 1
                    return fault
        return None

    def _route(self) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path == "/token":
            return self._token(query)
        match = _PATH.fullmatch(url.path)
        wanted = [] if match is None else [(match["name"], "pull" if self.command in {"GET", "HEAD"} else "push")]
        if "from" in query:
            wanted.append((query["from"][0], "pull"))
        refused = self._refused(wanted)
        if refused is not None:
            self._drain()
            return refused
        if url.path == "/v2/":
            return 200, {}, b"{}"
        if match is None:
            self._drain()
            return 404, {}, _error("NAME_UNKNOWN", "no such place")
        uploads = self._begin if self.command == "POST" else self._upload
        action = {
            "blobs/uploads": uploads,
            "blobs": self._blob,
            "manifests": self._manifest,
            "tags": self._list,
            "referrers": self._referrers,
        }
        return action[match["kind"]](match["name"], unquote(match["rest"]), query)

    # Authentication

    def _refused(self, wanted: list[tuple[str, str]]) -> tuple[int, dict[str, str], bytes] | None:
        registry, header = self.registry, self.headers.get("Authorization", "")
        if registry.auth is None or self.headers.get("Host") == registry.upload_host:
            return None
        if registry.auth == "basic":
            if self._user(header):
                return None
            return 401, {"WWW-Authenticate": 'Basic realm="test"'}, _error("UNAUTHORIZED", "authentication required")
        scopes = registry.tokens.get(header.removeprefix("Bearer "))
        if scopes is not None and all(any(_allows(scope, *item) for scope in scopes) for item in wanted):
            return None
        challenge = f'Bearer realm="http://{registry.host}/token",service="test registry"'
        return 401, {"WWW-Authenticate": challenge}, _error("UNAUTHORIZED", "authentication required")

    def _user(self, header: str) -> bool:
        pairs = {base64.b64encode(f"{name}:{word}".encode()).decode() for name, word in self.registry.users.items()}
        return header.startswith("Basic ") and header[6:] in pairs

    def _token(self, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        body = self._drain()
        registry = self.registry
        form = parse_qs(body.decode())
        refresh = form.get("refresh_token", [""])[0]
        if self.command == "POST":
            query = {**form, "scope": form.get("scope", [""])[0].split()}
        if not (self._user(self.headers.get("Authorization", "")) or refresh in registry.users.values()):
            return 401, {}, json.dumps({"details": f"wrong credentials {self.headers.get('Authorization')}"}).encode()
        token = secrets.token_hex(16)
        with registry.lock:
            registry.tokens[token] = query.get("scope", [])
            registry.token_requests.append(query)
        return 200, {}, json.dumps({"token": token, "expires_in": registry.token_lifetime}).encode()

    # Blobs

    def _blob(self, name: str, digest: str, _: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        data = self.registry.blobs.get(name, {}).get(digest)
        if data is None:
            return 404, {}, _error("BLOB_UNKNOWN", "blob unknown to registry")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 200, {"Docker-Content-Digest": digest}, data
        start, end = int(asked[1]), int(asked[2] or len(data) - 1)
        return 206, {"Content-Range": f"bytes {start}-{end}/{len(data)}"}, data[start : end + 1]

    def _upload(self, name: str, key: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        registry = self.registry
        upload = registry.uploads.get(key)
        stated = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if upload is not None and self.command == "PATCH" and registry.one_piece and upload.data:
            registry.uploads.pop(key)
            upload = None
        if upload is None:
            self._drain()
            return 404, {}, _error("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if stated and int(stated[1]) != len(upload.data):
            self._drain()
            return 416, self._place(name, key), _error("BLOB_UPLOAD_INVALID", "out of order")
        if self.command == "DELETE":
            registry.uploads.pop(key)
            return 204, {}, b""
        if self.command == "GET":
            return 204, self._place(name, key), b""
        self._take(key, upload)
        if self.command == "PATCH":
            return 202, self._place(name, key), b""
        return self._finish(name, key, upload, query.get("digest", [""])[0])

    def _begin(self, name: str, _: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        self._drain()
        registry = self.registry
        source = registry.blobs.get(query.get("from", [""])[0], {})
        digest = query.get("mount", [""])[0]
        if digest in source and not registry.refuse_mounts:
            with registry.lock:
                registry.blobs.setdefault(name, {})[digest] = source[digest]
            return 201, {"Location": f"/v2/{name}/blobs/{digest}"}, b""
        key = secrets.token_hex(8)
        with registry.lock:
            registry.uploads[key] = Upload(name)
        return 202, self._place(name, key), b""

    def _finish(self, name: str, key: str, upload: Upload, digest: str) -> tuple[int, dict[str, str], bytes]:
        with self.registry.lock:
            self.registry.uploads.pop(key, None)
            if digest != f"sha256:{hashlib.sha256(upload.data).hexdigest()}":
                return 400, {}, _error("DIGEST_INVALID", "provided digest did not match uploaded content")
            self.registry.blobs.setdefault(upload.name, {})[digest] = bytes(upload.data)
            self.registry.finished[upload.name, digest] += 1
            self.registry.on_finished()
        return 201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}, b""

    def _place(self, name: str, key: str) -> dict[str, str]:
        upload = self.registry.uploads[key]
        host = self.registry.upload_host or self.registry.host
        start = f"http://{host}" if self.registry.absolute_locations or self.registry.upload_host else ""
        location = f"{start}/v2/{name}/blobs/uploads/{key}?state={secrets.token_hex(4)}"
        return {"Location": location, "Range": f"0-{max(0, len(upload.data) - 1)}"}

    def _take(self, key: str, upload: Upload) -> None:
        for block in self._body():
            with self.registry.lock:
                upload.data += block
        if self.cut:
            with self.registry.lock:
                if not self.registry.keep_partial:
                    self.registry.uploads.pop(key, None)
            raise _CutError

    def _body(self) -> Iterator[bytes]:
        """Yield the body; stop early and set `cut` where the injected break is."""
        self.cut = False
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self.rfile.read1(min(left, 1 << 14))
            if not block:
                self.cut = True
                return
            left -= len(block)
            with self.registry.lock:
                budget = self.registry.cut_after
                if budget is not None and len(block) >= budget:
                    self.registry.was_cut()
                    self.cut = True
                    block = block[:budget]
                elif budget is not None:
                    self.registry.cut_after = budget - len(block)
            self.taken += len(block)
            with self.registry.lock:
                self.registry.bytes_taken += len(block)
                taken = self.registry.bytes_taken
            self.registry.on_bytes(taken)
            yield block
            if self.cut:
                return

    # Manifests and tags

    def _manifest(self, name: str, reference: str, _: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        registry = self.registry
        if self.command == "PUT":
            body = self._drain()
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            with registry.lock:
                missing = registry.missing_parts(name, body)
                if missing:
                    return 400, {}, _error("MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {missing[0]}")
                registry.manifests.setdefault(name, {})[digest] = (body, self.headers.get("Content-Type", ""))
                if ":" not in reference:
                    registry.tags.setdefault(name, {})[reference] = digest
            subject = json.loads(body).get("subject", {}).get("digest")
            noted = {"OCI-Subject": subject} if subject and registry.referrers_api else {}
            return 201, {"Docker-Content-Digest": digest, **noted}, b""
        digest = reference if ":" in reference else registry.tags.get(name, {}).get(reference, "")
        found = registry.manifests.get(name, {}).get(digest)
        if found is None:
            return 404, {}, _error("MANIFEST_UNKNOWN", "manifest unknown")
        return 200, {"Docker-Content-Digest": digest, "Content-Type": found[1]}, found[0]

    def _referrers(self, name: str, digest: str, _: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        registry = self.registry
        if not registry.referrers_api:
            return 404, {}, b"404 page not found"
        entries = []
        for own, (body, media_type) in registry.manifests.get(name, {}).items():
            value = json.loads(body)
            if value.get("subject", {}).get("digest") == digest:
                known = {key: value[key] for key in ("artifactType", "annotations") if key in value}
                entries.append({"mediaType": media_type, "digest": own, "size": len(body), **known})
        kind = "application/vnd.oci.image.index.v1+json"
        return 200, {"Content-Type": kind}, json.dumps({"schemaVersion": 2, "manifests": entries}).encode()

    def _list(self, name: str, _: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        registry = self.registry
        if name not in registry.tags:
            return 404, {}, _error("NAME_UNKNOWN", "repository name not known to registry")
        last = query.get("last", [""])[0]
        names = [tag for tag in sorted(registry.tags[name]) if tag > last]
        page = names[: registry.page_size]
        link = {"Link": f'</v2/{name}/tags/list?last={page[-1]}>; rel="next"'} if len(page) < len(names) else {}
        return 200, link, json.dumps({"name": name, "tags": page}).encode()

    # The wire

    def _drain(self) -> bytes:
        body = b"".join(self._body())
        if self.cut:
            raise _CutError
        return body

    def _note(self, status: int) -> None:
        self.noted = True
        with self.registry.lock:
            entry = Entry(
                self.command,
                self.path,
                status,
                self.taken,
                self.headers.get("Authorization", ""),
                self.headers.get("Host", ""),
            )
            self.registry.log.append(entry)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._note(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            cut = self.registry.cut_answer_after if "/blobs/" in self.path and status in {200, 206} else None
            if cut is not None and cut < len(body):
                self.registry.cut_answer_after = None
                self.wfile.write(body[:cut])
                self.close_connection = True
                return
            self.wfile.write(body)


def _allows(scope: str, name: str, action: str) -> bool:
    kind, _, rest = scope.partition(":")
    repository, _, actions = rest.rpartition(":")
    return kind == "repository" and repository == name and action in actions.split(",")


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
