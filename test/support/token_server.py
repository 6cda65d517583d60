"""A token server for docker-registry: JSON web tokens signed with a key whose certificate the registry knows.

It does what the Docker token specification asks: `GET ?service=&scope=` with Basic authentication, several scopes in one token.
"""

import base64
import contextlib
import datetime as dt
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISSUER, SERVICE = "test issuer", "test registry"


class TokenServer:
    """Issues tokens to one user; `asked` are the scopes of each request."""

    def __init__(self, user: str, password: str) -> None:
        self.pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _certificate(self.key)
        self.asked: list[list[str]] = []
        self.lifetime = 300
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def token(self, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": ISSUER, "aud": SERVICE, "sub": "user", "exp": now + self.lifetime, "nbf": now - 10, "iat": now,
            "jti": secrets.token_hex(8), "access": access,
        }  # fmt: skip
        text = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_encode(r.to_bytes(32) + s.to_bytes(32))}"


@contextlib.contextmanager
def token_server(user: str, password: str, bundle: Path) -> Iterator[TokenServer]:
    """Serve tokens on 127.0.0.1 and write the certificate that the registry needs to `bundle`."""
    tokens = TokenServer(user, password)
    bundle.write_bytes(tokens.certificate.public_bytes(serialization.Encoding.PEM))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"tokens": tokens}))
    server.daemon_threads = True
    tokens.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    tokens: TokenServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of http.server
        pass

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        good = self.headers.get("Authorization") == f"Basic {self.tokens.pair}"
        self.tokens.asked.append(query.get("scope", []))
        value = {"token": self.tokens.token(query.get("scope", [])), "expires_in": self.tokens.lifetime}
        body = json.dumps(value if good else {"details": "incorrect username or password"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test token server")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int(hashlib.sha256(b"test").hexdigest()[:8], 16))
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
