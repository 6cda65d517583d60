"""An OCI layout directory as a repository, effects (OCI Image Specification 1.1, `image-layout.md`).

Blobs are written beside their place and renamed; `index.json` is replaced as one step under a lock, so that a tag always
leads to a complete image, whoever is killed when. Tags are the `org.opencontainers.image.ref.name` of its entries.
"""

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import tenacity

from lockyard import fs
from lockyard.errors import ConfigError, HashMismatchError, LockyardError, RegistryError
from lockyard.oci.values import Digest, MediaType, check_tag
from lockyard.ports.registry import BlobContent, UploadSession
from lockyard.registry.blobfile import BlobFile

REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_PATIENCE = 30.0  # seconds that a write waits for another process


class OciDirectory:
    """The `RegistryPort` of `oci:DIR`; several tags live in one layout.

    Raises:
        ConfigError: `DIR` cannot be named in other tools' `oci:DIR:TAG`.

    """

    def __init__(self, directory: Path) -> None:
        if not directory.name or ":" in str(directory):
            raise ConfigError(f"oci:{directory} names no directory that other tools can read", hint="write oci:DIR")
        self._root = directory
        self._guard = threading.Lock()

    @property
    def registry(self) -> None:
        """A directory mounts nothing."""
        return

    @property
    def max_blob(self) -> None:
        """A directory takes every size."""
        return

    def close(self) -> None:
        """Nothing is open."""

    def manifest_digest(self, reference: str) -> str | None:
        """Return the digest behind a tag or digest."""
        if ":" in reference:
            return reference if self._blob(reference).is_file() else None
        for entry in self._index()["manifests"]:
            if _tag_of(entry) == reference:
                return str(entry["digest"])
        return None

    def get_manifest(self, reference: str) -> bytes | None:
        """Return the manifest's bytes, checked."""
        digest = self.manifest_digest(reference)
        data = fs.read_file(self._blob(digest)) if digest is not None else None
        if data is not None and str(Digest.of(data)) != digest:
            raise RegistryError(f"{self._blob(str(digest))} is damaged: its bytes are {Digest.of(data)}")
        return data

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> bool:
        """Put a manifest under a digest, or under a tag: then it is listed in `index.json`."""
        digest = Digest.of(body)
        self._prepare()
        if fs.read_file(self._blob(str(digest))) != body:
            self._check_parts(body)
            with self._writing():
                fs.atomic_write(self._blob(str(digest)), body)
        if ":" in reference:
            return False
        entry = {
            "mediaType": media_type,
            "digest": str(digest),
            "size": len(body),
            "annotations": {REF_NAME: check_tag(reference)},
        }
        with self._writing():
            index = self._index()
            others = [item for item in index["manifests"] if _tag_of(item) != reference]
            index["manifests"] = sorted([*others, entry], key=lambda item: (_tag_of(item) or "", item["digest"]))
            fs.atomic_write(self._root / "index.json", json.dumps(index, indent=1, sort_keys=True).encode() + b"\n")
        return False

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted."""
        return tuple(sorted(tag for entry in self._index()["manifests"] if (tag := _tag_of(entry)) is not None))

    def present_blobs(self, blobs: Mapping[str, int]) -> frozenset[str]:
        """Return which of the blobs are there, with their sizes."""
        return frozenset(digest for digest, size in blobs.items() if _size_of(self._blob(digest)) == size)

    def get_blob(self, digest: str) -> bytes | None:
        """Return the checked bytes of a small blob."""
        data = fs.read_file(self._blob(digest))
        if data is not None and str(Digest.of(data)) != digest:
            raise HashMismatchError(f"{self._blob(digest)} is damaged: its bytes are {Digest.of(data)}")
        return data

    def read_blob(self, digest: str, start: int, length: int) -> bytes:
        """Return a part of a blob, unchecked."""
        try:
            with self._blob(digest).open("rb") as stream:
                stream.seek(start)
                data = stream.read(length)
        except OSError as error:
            raise RegistryError(f"{self._blob(digest)} cannot be read: {error.strerror}") from error
        if len(data) != length:
            raise RegistryError(f"{self._blob(digest)} ends before byte {start + length}")
        return data

    @staticmethod
    def referrers(_: str) -> None:
        """Return nothing: a layout lists referrers under a tag."""
        return

    def download_blob(self, digest: str, size: int, part: Path, *, progress: Callable[[int], None]) -> None:
        """Copy a blob into the file `part`, checked."""
        part.parent.mkdir(parents=True, exist_ok=True)
        with BlobFile(self._blob(digest), digest, size, progress) as blob, part.open("wb") as stream:
            for block in blob.blocks(0, size):
                stream.write(block)
            blob.verify()

    def mount_blob(self, digest: str, source: str) -> UploadSession | None:
        """Never mount: the blob must be copied."""
        return UploadSession(f"{source}#{digest}", 0)

    def upload_blob(
        self,
        source: Path | BlobContent,
        digest: str,
        size: int,
        *,
        progress: Callable[[int], None],
        session: UploadSession | None = None,  # noqa: ARG002 - a copy is not worth going on with
        on_session: Callable[[UploadSession], None] | None = None,  # noqa: ARG002 - see above
    ) -> int:
        """Copy a blob, hashed on the way, and return the bytes written."""
        self._prepare()
        target = self._blob(digest)
        with BlobFile(source, digest, size, progress) as blob:
            try:
                with _own_part(target) as (part, stream):
                    for block in blob.blocks(0, size):
                        stream.write(block)
                    blob.verify()
                    stream.flush()
                    os.fchmod(stream.fileno(), 0o644)
                    os.fsync(stream.fileno())
                    part.replace(target)
            except OSError as error:
                raise RegistryError(f"{target} cannot be written: {error.strerror}") from error
            return blob.sent

    def _blob(self, digest: str) -> Path:
        return self._root / "blobs" / "sha256" / Digest(digest).hex

    def _prepare(self) -> None:
        """Make the layout's frame; a directory with other things in it is left alone."""
        marker = self._root / "oci-layout"
        if marker.is_file():
            (self._root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            return
        names = {item.name for item in self._root.glob("*") if not item.name.startswith(".")}
        foreign = sorted(names - {"oci-layout", "index.json", "blobs"})
        if foreign:
            raise RegistryError(
                f"{self._root} is no OCI layout and holds other files ({foreign[0]}, …)",
                hint="give an empty or a new directory",
            )
        with self._writing():
            (self._root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            if not (self._root / "index.json").exists():
                fs.atomic_write(self._root / "index.json", json.dumps(_empty_index(), sort_keys=True).encode() + b"\n")
            fs.atomic_write(marker, _LAYOUT)

    def _index(self) -> dict[str, Any]:
        path = self._root / "index.json"
        data = fs.read_file(path)
        if data is None:
            return _empty_index()
        try:
            index = json.loads(data)
            for entry in index["manifests"]:
                Digest(entry["digest"])
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            raise RegistryError(f"{path} is no index of an OCI layout: {error}") from error
        return dict(index)

    def _check_parts(self, body: bytes) -> None:
        value = json.loads(body)
        parts = [
            *value.get("layers", ()),
            *value.get("manifests", ()),
            *([value["config"]] if "config" in value else ()),
        ]
        missing = [item["digest"] for item in parts if _size_of(self._blob(item["digest"])) != item["size"]]
        if missing:
            raise RegistryError(f"oci:{self._root} has not got {missing[0]}, which {Digest.of(body)} refers to")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the layout's lock; wait for another process for a while."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryError(f"{self._root} cannot be made: {error.strerror}") from error
        waiting = tenacity.Retrying(
            stop=tenacity.stop_after_delay(_PATIENCE),
            wait=tenacity.wait_fixed(0.05),
            retry=tenacity.retry_if_exception_type(LockyardError),
            reraise=True,
        )
        with self._guard, contextlib.ExitStack() as stack:
            waiting(lambda: stack.enter_context(fs.lock(self._root / ".lock")))
            # Only the holder of the lock writes such files here: what lies about is a dead writer's.
            for place in (self._root, self._root / "blobs" / "sha256"):
                fs.sweep(place)
            yield


@contextlib.contextmanager
def _own_part(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give the file that becomes `target`, empty, to this process alone; a dead writer's is taken over."""
    part = target.with_name(f".{target.name}.part")
    while True:
        with part.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                mine = part.stat().st_ino == os.fstat(stream.fileno()).st_ino
            except FileNotFoundError:
                mine = False
            if not mine:
                continue  # another process has finished it in the meantime
            stream.truncate(0)
            try:
                yield part, stream
            except BaseException:
                part.unlink(missing_ok=True)  # still ours: it was not renamed
                raise
            return


def _empty_index() -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": []}


def _tag_of(entry: Mapping[str, Any]) -> str | None:
    tag = (entry.get("annotations") or {}).get(REF_NAME)
    return str(tag) if tag is not None else None


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
