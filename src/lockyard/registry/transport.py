"""Requests to one registry, effects: scheme, authentication, redirects, temporary failures (Docker token authentication).

Credentials are sent to the registry's own origin and to the token server that it names, nowhere else.
"""

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

from lockyard import http
from lockyard.errors import RegistryError
from lockyard.registry import wire
from lockyard.registry.pacer import Pacer
from lockyard.registry.places import GENERIC, Profile, operation
from lockyard.registry.wire import Challenge, Credential

if TYPE_CHECKING:
    import httpx

_BLOCK = 1 << 18
_CAP = 8 << 20  # bytes of a manifest or a listing
_ERROR_CAP = 1 << 16
_SHORTEST_SECRET = 4  # hiding shorter ones would black out every message
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGAIN = "run the same command again: what is there is not sent again"


class CredentialSource(Protocol):
    """Gives credentials when a registry asks for them, the same ones until they end or are refused; thread-safe."""

    def for_host(self, host: str, *, refused: Credential | None = None) -> Credential | None:
        """Return the credential of a registry, `None` for anonymous access; another one than `refused` if there is."""

    def endpoint(self, host: str) -> str:
        """Return the base address of a registry, empty when its host says it all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `allowed` are the statuses that are answers, `scopes` what its token must hold.

    `body` gives the bytes anew for each try, `length` is their number. `sink` takes the status and the bytes of an
    allowed answer as they come; the reply's own `body` is empty then.
    """

    method: str
    url: str
    allowed: tuple[int, ...]
    scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterator[bytes]] | None = None
    length: int = 0
    sink: Callable[[int, Iterator[bytes]], None] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `url` is where it came from in the end, `headers` are looked up in any case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class RefusedError(RegistryError):
    """An answer that another try would not change."""

    def __init__(self, message: str, *, hint: str | None, status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Transport:
    """Requests to the registry `host`; thread-safe.

    `call` tries again while failures are temporary, `attempt` does not. Plain http goes to this machine only, unless
    `insecure`. No operation is asked for more often than `profile` allows.
    """

    def __init__(
        self,
        host: str,
        credentials: CredentialSource,
        *,
        insecure: bool,
        retries: http.Retries,
        profile: Profile = GENERIC,
    ) -> None:
        self.host = host
        self.retries = retries
        self.insecure = insecure
        self._profile = profile
        self._pacer = Pacer(profile.rates, sleep=retries.sleep)
        self._credentials = credentials
        self._client: httpx.Client | None = None
        self._base = ""
        self._base_lock = threading.Lock()
        self._challenges: tuple[Challenge, ...] = ()
        self._token_guard = threading.Lock()
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._token_locks: dict[tuple[str, ...], threading.Lock] = {}
        self._secrets: set[str] = set()

    def close(self) -> None:
        """Close connections; the transport cannot be used after that."""
        if self._client is not None:
            self._client.close()

    def base(self) -> str:
        """Return `https://HOST` or, where it is allowed and answers, `http://HOST`."""
        with self._base_lock:
            if not self._base:
                known = self._credentials.endpoint(self.host)
                # As other tools do: this machine is never reached through a proxy.
                outside = not wire.is_loopback(urlsplit(known).netloc or self.host)
                self._client = self._client or http.make_client(follow_redirects=False, trust_env=outside)
                try:
                    self._base = self.retries.call(lambda: self._discover(known))
                except http.TransferError as error:
                    raise self.failure(error) from error
            return self._base

    def call(self, request: Request) -> Reply:
        """Do a request, again while failures are temporary.

        Raises:
            RegistryError: it failed for good; a `RefusedError` has the status.

        """
        try:
            return self.retries.call(lambda: self.attempt(request))
        except http.TransferError as error:
            raise self.failure(error) from error

    def failure(self, error: http.TransferError) -> RegistryError:
        """Return the error for people that a failed transfer becomes."""
        return RegistryError(self._scrub(str(error)), hint=_AGAIN if error.temporary else None)

    def attempt(self, request: Request) -> Reply:
        """Do a request once: with authentication, following redirects.

        Raises:
            TransferError: it failed, perhaps for a while only.
            RefusedError: the registry answered no.

        """
        reply = self._authorized(request)
        for _ in range(5):
            if reply.status not in _REDIRECTS or reply.status in request.allowed:
                break
            target = wire.follow(reply.url, reply.headers.get("location"), allow_plain=self.insecure)
            reply = self._authorized(replace(request, url=target))
        if reply.status in request.allowed:
            return reply
        raise self._refusal(request.method, reply)

    def _bases(self, known: str) -> tuple[str, ...]:
        """Return the addresses to try, in this order."""
        if known:
            return (wire.follow(f"https://{self.host}", known, allow_plain=self.insecure),)
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        # On this machine registries mostly speak plain http; elsewhere it is tried only when https does not answer.
        loopback = wire.is_loopback(host)
        schemes = ("http", "https") if loopback else ("https", "http") if self.insecure else ("https",)
        return tuple(f"{scheme}://{host}" for scheme in schemes)

    def _discover(self, known: str) -> str:
        problems: list[http.TransferError] = []
        for base in self._bases(known):
            try:
                reply = self._once(Request(method="GET", url=f"{base}/v2/", allowed=(200,)), None)
            except http.TransferError as error:
                problems.append(error)
                continue
            if reply.status in {200, 401, 403}:
                self._challenges = wire.parse_challenges(reply.headers.get("www-authenticate", ""))
                return base
            problem = self._refusal("GET", reply)
            is_temporary = isinstance(problem, http.TransferError)
            problems.append(problem if is_temporary else http.TransferError(f"{problem}; this is no registry"))  # type: ignore[arg-type]
        raise next((problem for problem in problems if problem.temporary), problems[0])

    def _authorized(self, request: Request) -> Reply:
        if wire.origin(request.url) != wire.origin(self._base):
            return self._once(request, None)  # a storage server: it gets the data, never the credentials
        used = self._authorization(request.scopes, stale=None)
        reply = self._once(request, used)
        if not _wants_login(reply):
            return reply
        self._challenges = wire.parse_challenges(reply.headers.get("www-authenticate", "")) or self._challenges
        fresh = self._authorization(request.scopes, stale=used)
        return reply if fresh is None or fresh == used else self._once(request, fresh)

    def _authorization(self, scopes: tuple[str, ...], *, stale: str | None) -> str | None:
        """Return the `Authorization` header, `None` for an anonymous request; `stale` was refused just now."""
        for challenge in self._challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                return f"Bearer {self._token(challenge, scopes, stale)}"
            if challenge.scheme == "basic" and (credential := self._credential()) is not None:
                if wire.basic(credential) != stale:
                    return wire.basic(credential)
                fresh = self._credential(credential)
                return wire.basic(fresh) if fresh is not None else None
        return None

    def _credential(self, refused: Credential | None = None) -> Credential | None:
        found = self._credentials.for_host(self.host, refused=refused)
        if found is not None:
            self._keep_secret(found.password, found.identity_token, wire.basic(found).partition(" ")[2])
        return found

    def _token(self, challenge: Challenge, scopes: tuple[str, ...], stale: str | None) -> str:
        with self._token_guard:
            lock = self._token_locks.setdefault(scopes, threading.Lock())
        with lock:  # one request per scope, however many threads want it
            token, until = self._tokens.get(scopes, ("", 0.0))
            if token and time.monotonic() < until and f"Bearer {token}" != stale:
                return token
            value = self._fetch_token(challenge, scopes)
            token = str(value.get("token") or value.get("access_token") or "")
            if not token:
                raise RegistryError(f"the token server of {self.host} gave no token")
            seconds = value.get("expires_in")
            lifetime = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else 60.0
            self._tokens[scopes] = (token, time.monotonic() + 0.8 * lifetime)
            self._keep_secret(token)
            return token

    def _fetch_token(self, challenge: Challenge, scopes: tuple[str, ...]) -> dict[str, Any]:
        credential = self._credential()
        reply = self._ask_token(challenge, scopes, credential)
        if reply.status == 401 and credential is not None and (fresh := self._credential(credential)) != credential:
            reply = self._ask_token(challenge, scopes, fresh)
        if reply.status != 200:
            raise self._refusal("GET", reply)
        try:
            value = json.loads(reply.body)
        except ValueError:
            value = None
        return value if isinstance(value, dict) else {}

    def _ask_token(self, challenge: Challenge, scopes: tuple[str, ...], credential: Credential | None) -> Reply:
        realm = wire.follow(self._base, challenge.parameters["realm"], allow_plain=self.insecure)
        service = challenge.parameters.get("service", "")
        if credential is not None and credential.identity_token:
            return self._once(_refresh(realm, credential.identity_token, service, scopes), None)
        fields = [("service", service)] * bool(service) + [("scope", scope) for scope in scopes]
        url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(fields)}"
        authorization = wire.basic(credential) if credential is not None else None
        return self._once(Request(method="GET", url=url, allowed=(200,)), authorization)

    def _once(self, request: Request, authorization: str | None) -> Reply:
        """Send one request and read its answer, up to a cap."""
        client = self._client
        if client is None:
            raise RegistryError(f"no connection to {self.host}")
        headers = {"Accept-Encoding": "identity", **request.headers}
        if authorization is not None:
            headers["Authorization"] = authorization
        if request.method in {"POST", "PUT", "PATCH"}:
            headers["Content-Length"] = str(request.length)
        self._pacer.take(operation(request.method, request.url))
        with http.transfer_errors(request.method, wire.shown(request.url)):
            content = request.body() if request.body is not None else None
            built = client.build_request(request.method, request.url, headers=headers, content=content)
            response = client.send(built, stream=True)
            try:
                body = _body(request, response)
            finally:
                response.close()
        if len(body) > _CAP:
            raise RegistryError(f"{wire.shown(request.url)}: the answer is larger than {_CAP} bytes")
        return Reply(request.url, response.status_code, response.headers, body)

    def _refusal(self, method: str, reply: Reply) -> http.TransferError | RefusedError:
        text = self._scrub(f"{method} {wire.shown(reply.url)}: {wire.error_text(reply.status, reply.body)}")
        if reply.status in {408, 425, 429} or reply.status >= 500:
            wait = wire.retry_after(reply.headers.get("retry-after", ""), dt.datetime.now(dt.UTC))
            return http.TransferError(text, status=reply.status, temporary=True, wait=wait)
        hint = None
        if reply.status in {401, 403}:
            hint = self._profile.login or f"log in by docker login {self.host} with an account that may push there"
        return RefusedError(text, hint=hint, status=reply.status)

    def _keep_secret(self, *secrets: str) -> None:
        self._secrets = self._secrets | {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}

    def _scrub(self, text: str) -> str:
        """Return `text` without our secrets, which a server may have quoted."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class TransportPool:
    """Transports that several repositories of a registry share: one connection pool, one login; thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._leases: dict[tuple[str, bool], tuple[Transport, int]] = {}

    def lease(self, host: str, *, insecure: bool, make: Callable[[], Transport]) -> Transport:
        """Return the transport to `host`, made at the first lease."""
        with self._guard:
            transport, count = self._leases.get((host, insecure)) or (make(), 0)
            self._leases[host, insecure] = (transport, count + 1)
            return transport

    def release(self, transport: Transport) -> None:
        """Give a lease back; the last one closes the connections."""
        key = (transport.host, transport.insecure)
        with self._guard:
            _, count = self._leases[key]
            if count > 1:
                self._leases[key] = (transport, count - 1)
                return
            del self._leases[key]
        transport.close()


def _wants_login(reply: Reply) -> bool:
    """Tell whether a newer login may help; ECR calls an expired token forbidden, and to HEAD it gives no reason."""
    return reply.status == 401 or (reply.status == 403 and (not reply.body or b"has expired" in reply.body))


def _refresh(realm: str, token: str, service: str, scopes: tuple[str, ...]) -> Request:
    """Return the request that turns an identity token into an access token (OAuth 2, as token servers speak it)."""
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "lockyard", "service": service}
    data = urlencode({**form, "scope": " ".join(scopes)}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request(
        method="POST", url=realm, allowed=(200,), headers=headers, body=lambda: iter((data,)), length=len(data)
    )


def _body(request: Request, response: "httpx.Response") -> bytes:
    allowed = response.status_code in request.allowed
    if request.sink is not None and allowed:
        # Blocks as they come: a wanted size would lose what it collects when the line breaks.
        request.sink(response.status_code, response.iter_raw())
        return b""
    return _read(response, _CAP if allowed else _ERROR_CAP)


def _read(response: "httpx.Response", cap: int) -> bytes:
    body = bytearray()
    for block in response.iter_raw(_BLOCK):
        body += block
        if len(body) > cap:
            break
    return bytes(body)
