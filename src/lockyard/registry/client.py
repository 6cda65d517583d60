"""One repository of a registry over HTTP, effects (OCI Distribution Specification 1.1, "Pull", "Push", "Content discovery").

Blobs stream from their file in chunks; an interrupted upload goes on where the registry says, or begins again where it
cannot.
"""

import concurrent.futures
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from lockyard import http
from lockyard.errors import ConfigError, HashMismatchError, RegistryError
from lockyard.oci.values import Digest, MediaType, Reference
from lockyard.ports import Log
from lockyard.ports.registry import BlobContent, UploadSession
from lockyard.registry import wire
from lockyard.registry.blobfile import BlobFile
from lockyard.registry.download import Download
from lockyard.registry.places import profile_of
from lockyard.registry.transport import CredentialSource, RefusedError, Reply, Request, Transport, TransportPool
from lockyard.registry.upload import CHUNK, Upload, session_of

_HEADS = 8
_ACCEPT = f"{MediaType.MANIFEST}, {MediaType.INDEX}, {MediaType.DOCKER_MANIFEST}, {MediaType.DOCKER_MANIFEST_LIST}"


class RegistryClient:
    """The `RegistryPort` of `HOST/NAME`.

    Args:
        repository: `HOST/NAME`, without tag and digest.
        credentials: asked once, when the registry wants them.
        log: gets details.
        insecure: plain http is allowed to hosts that are not this machine.
        retries: how often temporary failures are tried again.
        chunk: bytes of one upload request.
        pull_only: tokens are asked for pulling only, which anonymous users of public registries get.
        pool: shares connections and logins with other repositories.

    Raises:
        ConfigError: the repository is malformed.

    """

    def __init__(
        self,
        repository: str,
        credentials: CredentialSource,
        *,
        log: Log,
        insecure: bool = False,
        retries: http.Retries | None = None,
        chunk: int = CHUNK,
        pull_only: bool = False,
        pool: TransportPool | None = None,
    ) -> None:
        reference = Reference.parse(repository)
        if reference.tag or reference.digest:
            raise ConfigError(f"{repository!r} names an image, not a repository", hint=f"write {reference.repository}")
        self._log = log
        self._chunk = chunk
        self._name = _path_name(reference)
        self._repository = reference.repository
        self._profile = profile_of(reference.repository)
        self._pool = pool or TransportPool()
        self._wire = self._pool.lease(
            reference.host,
            insecure=insecure,
            make=lambda: Transport(
                reference.host,
                credentials,
                insecure=insecure,
                retries=retries or http.Retries(),
                profile=self._profile,
            ),
        )
        self._scopes = (f"repository:{self._name}:{'pull' if pull_only else 'pull,push'}",)

    @property
    def registry(self) -> str:
        """The host."""
        return self._wire.host

    @property
    def max_blob(self) -> int | None:
        """Bytes of the largest blob that the registry takes."""
        return self._profile.max_blob

    def close(self) -> None:
        """Close connections, unless other repositories use them."""
        self._pool.release(self._wire)

    def manifest_digest(self, reference: str) -> str | None:
        """Return the digest behind a tag or digest."""
        reply = self._call("HEAD", f"manifests/{reference}", (200, 404), headers={"Accept": _ACCEPT})
        if reply.status == 404:
            return None
        stated = reply.headers.get("docker-content-digest")
        if stated:
            return _checked_digest(stated, reply)
        body = self.get_manifest(reference)
        return None if body is None else str(Digest.of(body))

    def get_manifest(self, reference: str) -> bytes | None:
        """Return the manifest's bytes; those of a digest are checked."""
        reply = self._call("GET", f"manifests/{reference}", (200, 404), headers={"Accept": _ACCEPT})
        if reply.status == 404:
            return None
        if ":" in reference and str(Digest.of(reply.body)) != reference:
            raise RegistryError(f"{wire.shown(reply.url)}: the answer is not the manifest of that digest")
        return reply.body

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> bool:
        """Put a manifest under a tag or digest; see the port."""
        request = Request(
            method="PUT", url=self._url(f"manifests/{reference}"), allowed=(200, 201, 202), scopes=self._scopes,
            headers={"Content-Type": media_type}, body=lambda: iter((body,)), length=len(body),
        )  # fmt: skip
        try:
            reply = self._wire.call(request)
        except RefusedError as error:
            if self._profile.create and "immutable" in error.message:
                error.hint = f"lockyard repositories check {self._repository} says how to let floating tags move"
            raise
        stated = reply.headers.get("docker-content-digest")
        if stated and stated != str(Digest.of(body)):
            raise RegistryError(f"{wire.shown(reply.url)}: stored as {wire.plain(stated)}, not as {Digest.of(body)}")
        return "oci-subject" in reply.headers

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted; a repository that no push makes must be there."""
        url: str | None = self._url("tags/list?n=1000")
        seen: set[str] = set()
        found: set[str] = set()
        while url is not None and url not in seen:
            seen.add(url)
            reply = self._wire.call(Request(method="GET", url=url, allowed=(200, 404), scopes=self._scopes))
            if reply.status == 404 and self._profile.create and b"NAME_UNKNOWN" in reply.body:
                raise RegistryError(f"{self._repository} does not exist", hint=self._profile.create)
            if reply.status == 404:
                break
            found.update(_tag_names(reply))
            url = wire.next_page(reply.headers.get("link"), reply.url)
        return tuple(sorted(found))

    def present_blobs(self, blobs: Mapping[str, int]) -> frozenset[str]:
        """Return which of the blobs are there; the requests run beside each other."""

        def there(digest: str) -> bool:
            return self._call("HEAD", f"blobs/{digest}", (200, 404)).status == 200

        with concurrent.futures.ThreadPoolExecutor(_HEADS) as pool:
            return frozenset(digest for digest, found in zip(blobs, pool.map(there, blobs), strict=True) if found)

    def get_blob(self, digest: str) -> bytes | None:
        """Return the checked bytes of a small blob."""
        reply = self._call("GET", f"blobs/{digest}", (200, 404))
        if reply.status == 404:
            return None
        if str(Digest.of(reply.body)) != digest:
            raise HashMismatchError(f"{wire.shown(reply.url)}: the answer is not the blob of that digest")
        return reply.body

    def read_blob(self, digest: str, start: int, length: int) -> bytes:
        """Return a part of a blob, unchecked."""
        part = bytearray()

        def take(status: int, blocks: Iterator[bytes]) -> None:
            part.clear()
            skip = 0 if status == 206 else start
            for block in blocks:
                part.extend(block[skip:])
                skip = max(0, skip - len(block))
                if len(part) >= length:
                    break

        def attempt() -> None:
            headers = {"Range": f"bytes={start}-{start + length - 1}"}
            url = self._url(f"blobs/{digest}")
            request = Request(
                method="GET", url=url, allowed=(200, 206), scopes=self._scopes, headers=headers, sink=take
            )
            reply = self._wire.attempt(request)
            if len(part) < length:
                text = f"GET {wire.shown(reply.url)}: {len(part)} of {length} bytes came"
                raise http.TransferError(text, temporary=True)

        try:
            self._wire.retries.call(attempt)
        except http.TransferError as error:
            raise self._wire.failure(error) from error
        return bytes(part[:length])

    def referrers(self, digest: str) -> bytes | None:
        """Return the index of the referrers of a manifest, `None` when the registry cannot be asked."""
        reply = self._call("GET", f"referrers/{digest}", (200, 404, 405), headers={"Accept": MediaType.INDEX})
        is_index = reply.headers.get("content-type", "").partition(";")[0] == MediaType.INDEX
        return reply.body if reply.status == 200 and is_index else None

    def download_blob(self, digest: str, size: int, part: Path, *, progress: Callable[[int], None]) -> None:
        """Bring a blob into the file `part`; see the port."""
        Download(self._wire, self._url(f"blobs/{digest}"), self._scopes, digest, size).run(part, progress)

    def mount_blob(self, digest: str, source: str) -> UploadSession | None:
        """Mount a blob from another repository of this registry; every kind of refusal gives a session."""
        name = _path_name(Reference.parse(source))
        path = f"blobs/uploads/?mount={quote(digest, safe='')}&from={quote(name, safe='')}"
        # One token must hold both scopes.
        scopes = (*self._scopes, f"repository:{name}:pull")
        request = Request(method="POST", url=self._url(path), allowed=(201, 202), scopes=scopes)
        try:
            reply = self._wire.call(request)
        except RefusedError as error:
            self._log.detail(f"no mount from {source}: {error.message}")
            reply = self._call("POST", "blobs/uploads/", (202,))
        return None if reply.status == 201 else self._session(reply, 0)

    def upload_blob(
        self,
        source: Path | BlobContent,
        digest: str,
        size: int,
        *,
        progress: Callable[[int], None],
        session: UploadSession | None = None,
        on_session: Callable[[UploadSession], None] | None = None,
    ) -> int:
        """Send a blob and return the bytes sent; see the port."""
        with BlobFile(source, digest, size, progress) as blob:
            upload = Upload(self._wire, self._url(""), self._scopes, blob, chunk=self._chunk)
            upload.session, upload.on_session = session, on_session
            while True:
                best = upload.best
                try:
                    self._wire.retries.call(upload.attempt)
                except http.TransferError as error:
                    # A long upload over a bad line: tries are counted anew as long as they bring something.
                    if error.temporary and upload.best > best:
                        continue
                    raise self._wire.failure(error) from error
                return blob.sent

    def _session(self, reply: Reply, offset: int) -> UploadSession:
        return session_of(reply, offset, insecure=self._wire.insecure)

    def _url(self, path: str) -> str:
        return f"{self._wire.base()}/v2/{self._name}/{path}"

    def _call(
        self, method: str, path: str, allowed: tuple[int, ...], *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        url = self._url(path)
        return self._wire.call(
            Request(method=method, url=url, allowed=allowed, scopes=self._scopes, headers=headers or {})
        )


def _path_name(reference: Reference) -> str:
    """Return the name as it stands in addresses; Docker Hub's own images live below `library/`."""
    return (
        f"library/{reference.name}" if reference.host == "docker.io" and "/" not in reference.name else reference.name
    )


def _checked_digest(text: str, reply: Reply) -> str:
    try:
        return str(Digest(text))
    except ConfigError as error:
        raise RegistryError(f"{wire.shown(reply.url)}: {wire.plain(error.message)}") from error


def _tag_names(reply: Reply) -> list[str]:
    try:
        names = json.loads(reply.body)["tags"] or []
        return [str(name) for name in names]
    except (ValueError, TypeError, KeyError) as error:
        raise RegistryError(f"{wire.shown(reply.url)}: the answer is no list of tags") from error
