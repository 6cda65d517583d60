"""An Amazon ECR on 127.0.0.1: moto keeps its repositories, another registry keeps the data, a gate between gives it ECR's ways.

- tokens from GetAuthorizationToken, Basic only, that end; `proxyEndpoint` is the gate;
- a repository that was not created: 404 NAME_UNKNOWN; tag mutability with exclusion filters; PATCH answers 201;
- parts of a layer below 5 MiB only at its end; blobs are mounted where the account allows it and a manifest of the source names them;
- a manifest that is pushed shows in DescribeImages.
"""

import base64
import contextlib
import datetime as dt
import fnmatch
import hashlib
import http.client
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.ecr.exceptions import ImageAlreadyExistsException
from moto.ecr.models import ecr_backends

ACCOUNT, REGION = "123456789012", "eu-west-1"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
LEAST_PART = 5 << 20
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "authorization", "host", "content-length"}
_PATH = re.compile(r"/v2/(.+?)/(blobs|manifests|tags)/(.*)")
_BLOCK = 1 << 18

Now = Callable[[], dt.datetime]


class FakeEcr:
    """The state of the gate; use `running_ecr`."""

    def __init__(self, upstream: str, authorization: str, now: Now) -> None:
        self.upstream, self.authorization, self.now = upstream, authorization, now
        self.lock = threading.RLock()
        self.tokens: dict[str, dt.datetime] = {}
        self.lifetime = dt.timedelta(hours=12)
        self.blob_mounting = False
        self.expired_status = 403
        self.referenced: dict[str, set[str]] = {}
        self.small_parts: set[str] = set()
        self.log: list[tuple[str, str, int]] = []
        self.calls: list[str] = []
        self.public = {"alias/image"}
        self.port = 0
        self.client: Any = None

    @property
    def environ(self) -> dict[str, str]:
        """What leads boto3 here."""
        return {"AWS_ENDPOINT_URL_ECR": self.url, "AWS_ENDPOINT_URL_ECR_PUBLIC": self.url}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def create(self, name: str, **options: Any) -> str:
        """Create a repository and return its URI."""
        self.client.create_repository(repositoryName=name, **options)
        return f"{HOST}/{name}"

    def end_tokens(self) -> None:
        """Let all tokens that were given end now."""
        with self.lock:
            self.tokens = dict.fromkeys(self.tokens, self.now() - dt.timedelta(seconds=1))

    def count(self, method: str, part: str) -> int:
        """Count the requests with such a path that were answered well."""
        return sum(1 for item in self.log if item[0] == method and part in item[1] and item[2] < 300)

    def repository(self, name: str) -> Any:
        return ecr_backends[ACCOUNT][REGION].repositories.get(name)

    def images(self, name: str) -> dict[str, str]:
        """Tag → digest as DescribeImages says."""
        found = self.client.describe_images(repositoryName=name)["imageDetails"]
        return {tag: item["imageDigest"] for item in found for tag in item.get("imageTags", ())}

    # The control plane

    def call(self, target: str, body: dict[str, Any]) -> dict[str, Any]:
        service, _, name = target.partition(".")
        public = service.startswith("Spencer")
        self.calls.append(name)
        own = {
            "GetAuthorizationToken": lambda: self._token(public),
            "GetAccountSetting": lambda: {
                "name": body["name"],
                "value": "ENABLED" if self.blob_mounting else "DISABLED",
            },
        }
        if name in own:
            return own[name]()
        if public:
            known = {item.partition("/")[2] for item in self.public}
            if set(body["repositoryNames"]) <= known:
                return {"repositories": [{"repositoryName": item} for item in body["repositoryNames"]]}
            raise ClientError({"Error": {"Code": "RepositoryNotFoundException", "Message": "no such repository"}}, name)
        answer = getattr(self.client, xform_name(name))(**body)
        answer.pop("ResponseMetadata", None)
        return dict(answer)

    def _token(self, public: bool) -> dict[str, Any]:
        token = base64.b64encode(f"AWS:{secrets.token_urlsafe(24)}".encode()).decode()
        until = self.now() + self.lifetime
        with self.lock:
            self.tokens[token] = until
        data = {"authorizationToken": token, "expiresAt": until.timestamp(), "proxyEndpoint": self.url}
        return {"authorizationData": data if public else [data]}

    # The data plane

    def refusal(self, method: str, path: str, authorization: str) -> tuple[int, str, str] | None:
        with self.lock:
            until = self.tokens.get(authorization.removeprefix("Basic "))
        if until is None:
            return 401, "UNAUTHORIZED", "Not Authorized"
        if until <= self.now():
            return self.expired_status, "DENIED", "Your authorization token has expired. Reauthenticate and try again."
        match = _PATH.fullmatch(path)
        if match and self.repository(match[1]) is None and match[1] not in self.public:
            text = f"The repository with name '{match[1]}' does not exist in the registry with id '{ACCOUNT}'"
            return 404, "NAME_UNKNOWN", text
        return None

    def tag_refusal(self, name: str, tag: str, digest: str) -> str:
        """Why a tag may not be put, empty when it may."""
        repository = self.repository(name)
        if repository is None or tag.startswith("sha256:"):
            return ""
        there = [image for image in repository.images if tag in image.image_tags and image.image_digest != digest]
        excluded = any(
            fnmatch.fnmatchcase(tag, item["filter"]) for item in repository.image_tag_mutability_exclusion_filters or ()
        )
        if there and repository.is_tag_immutable() != excluded:
            return f"The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the tag is immutable."
        return ""

    def put(self, name: str, reference: str, body: bytes, media_type: str) -> None:
        """Note a manifest that the data plane has taken."""
        value = json.loads(body)
        parts = [*value.get("layers", ()), *([value["config"]] if "config" in value else ())]
        with self.lock:
            self.referenced.setdefault(name, set()).update(item["digest"] for item in parts)
            if self.repository(name) is None:
                return
            tag = None if reference.startswith("sha256:") else reference
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            with contextlib.suppress(ImageAlreadyExistsException):  # the tag is there, with the same digest
                ecr_backends[ACCOUNT][REGION].put_image(name, body.decode(), tag, media_type, digest)

    def mountable(self, query: dict[str, str]) -> bool:
        return self.blob_mounting and query["mount"] in self.referenced.get(query.get("from", ""), set())


@contextlib.contextmanager
def running_ecr(
    upstream: str, *, authorization: str = "", now: Now = lambda: dt.datetime.now(dt.UTC)
) -> Iterator[FakeEcr]:
    """Serve an ECR in front of the registry `HOST:PORT`, which wants `authorization`."""
    ecr = FakeEcr(upstream, authorization, now)
    with mock_aws():
        config = Config(ignore_configured_endpoint_urls=True)
        ecr.client = boto3.client("ecr", region_name=REGION, config=config)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Gate", (_Gate,), {"ecr": ecr}))
        server.daemon_threads = True
        ecr.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield ecr
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Gate(BaseHTTPRequestHandler):
    ecr: FakeEcr
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of http.server
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            if self.headers.get("X-Amz-Target"):
                self._control()
            else:
                self._data()
            return
        self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names of http.server

    def _control(self) -> None:
        body = json.loads(b"".join(self._body()) or b"{}")
        try:
            answer, status = self.ecr.call(self.headers["X-Amz-Target"], body), 200
        except ClientError as error:
            found = error.response["Error"]
            answer, status = {"__type": found["Code"], "message": found["Message"]}, 400
        data = json.dumps(answer, default=lambda value: value.timestamp()).encode()
        self._answer(status, {"Content-Type": "application/x-amz-json-1.1"}, data)

    def _data(self) -> None:
        ecr, url = self.ecr, urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        refused = ecr.refusal(self.command, url.path, self.headers.get("Authorization", ""))
        if refused is not None:
            self._refuse(*refused)
            return
        match = _PATH.fullmatch(url.path)
        path, body = self.path, None
        if match and self.command == "POST" and "mount" in query and not ecr.mountable(query):
            path = url.path  # an upload begins instead
        if match and self.command == "PATCH":
            if match[3] in ecr.small_parts:
                self._refuse(400, "LAYER_PART_TOO_SMALL", "parts are at least 5 MiB")
                return
            if int(self.headers["Content-Length"]) < LEAST_PART:
                ecr.small_parts.add(match[3])
        if match and match[2] == "manifests" and self.command == "PUT":
            body = b"".join(self._body())
            reason = ecr.tag_refusal(match[1], match[3], f"sha256:{hashlib.sha256(body).hexdigest()}")
            if reason:
                self._refuse(400, "TAG_INVALID", reason, drained=True)
                return
        status = self._forward(path, body)
        if match and body is not None and status == 201:
            ecr.put(match[1], match[3], body, self.headers.get("Content-Type", ""))

    def _forward(self, path: str, body: bytes | None) -> int:
        connection = http.client.HTTPConnection(self.ecr.upstream, blocksize=_BLOCK)
        headers = {name: ", ".join(self.headers.get_all(name, [])) for name in self.headers if name.lower() not in _HOP}
        headers["Host"] = self.ecr.upstream
        if self.ecr.authorization:
            headers["Authorization"] = self.ecr.authorization
        if self.command in {"POST", "PUT", "PATCH"}:
            headers["Content-Length"] = self.headers.get("Content-Length", "0")
        try:
            connection.request(
                self.command, path, body=self._body() if body is None else iter((body,)), headers=headers
            )
            answer = connection.getresponse()
            if answer.status == 404 and path.partition("?")[0].endswith("/tags/list"):
                self._answer(200, {}, b'{"tags": []}')  # created, and nothing is in it
                return 200
            status = 201 if self.command == "PATCH" and answer.status == 202 else answer.status
            length = answer.getheader("Content-Length")
            self._answer(
                status,
                {
                    name: value.replace(f"http://{self.ecr.upstream}/", f"{self.ecr.url}/")
                    for name, value in answer.getheaders()
                    if name.lower() not in _HOP
                },
                b"" if self.command == "HEAD" else answer.read(),
                length=length,
            )
            return status
        finally:
            connection.close()

    def _refuse(self, status: int, code: str, message: str, *, drained: bool = False) -> None:
        if not drained:
            for _ in self._body():
                pass
        headers = {"Content-Type": "application/json"}
        if status == 401:
            headers["WWW-Authenticate"] = f'Basic realm="{self.ecr.url}/",service="ecr.amazonaws.com"'
        self._answer(status, headers, json.dumps({"errors": [{"code": code, "message": message}]}).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, length: str | None = None) -> None:
        with self.ecr.lock:
            self.ecr.log.append((self.command, self.path, status))
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", (length if self.command == "HEAD" and length else str(len(body))))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def _body(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self.rfile.read1(min(left, _BLOCK))
            if not block:
                raise ConnectionResetError
            left -= len(block)
            yield block
