"""OCI layouts on disk (OCI Image Specification 1.1, `image-layout.md`), effects: read and verified, or written whole.

A layout changes in three steps: blobs come in (each whole, under its digest), then `index.json` is replaced, then what
nothing names any more goes. Killed in between, it is the old layout or the new one, and the next write tidies up.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs
from lockyard.errors import BuildError, HashMismatchError
from lockyard.oci.image import Image, Index, canonical_json, load_image, verified
from lockyard.oci.values import Descriptor, Digest

_MARK = canonical_json({"imageLayoutVersion": "1.0.0"})
_MAX_JSON = 16 << 20  # a manifest or configuration larger than this is not one


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout that was read: its place and its image."""

    path: Path
    image: Image

    def blob(self, digest: Digest) -> Path:
        """Return the path of a blob."""
        return blob_path(self.path, digest)


def blob_path(layout: Path, digest: Digest) -> Path:
    """Return the path of a blob in a layout."""
    return layout / "blobs" / "sha256" / digest.hex


def read_layout(path: Path, *, platform: Mapping[str, str] | None = None, verify_layers: bool = False) -> Layout:
    """Read the only image of a layout, or the one of `platform`; `verify_layers` hashes all layers too.

    Raises:
        BuildError: there is no layout, it is malformed, or a layer is missing.
        HashMismatchError: a blob is not what its descriptor says.

    """
    index = fs.read_file(path / "index.json")
    if index is None or not (path / "oci-layout").is_file():
        raise BuildError(f"{path} is not an OCI layout", hint="it has a file oci-layout and a file index.json")
    image = load_image(index, lambda descriptor: read_blob(path, descriptor), platform)
    problems = image.validate()
    if problems:
        raise BuildError(f"{path}: the image is malformed: {problems[0]}", details=problems[1:])
    for layer in image.layers:
        check_blob(blob_path(path, layer.descriptor.digest), layer.descriptor, hashed=verify_layers)
    return Layout(path, image)


def read_blob(layout: Path, descriptor: Descriptor) -> bytes:
    """Return the verified bytes of a small blob.

    Raises:
        BuildError: it is missing or too large to be JSON.
        HashMismatchError: it is not what the descriptor says.

    """
    path = blob_path(layout, descriptor.digest)
    if descriptor.size > _MAX_JSON:
        raise BuildError(f"{path}: {descriptor.size} bytes are too many for a manifest or a configuration")
    return verified(fs.read_file(path), descriptor, str(path))


def check_blob(path: Path, descriptor: Descriptor, *, hashed: bool = True) -> None:
    """Check that a blob is there with its size and, `hashed`, its digest.

    Raises:
        BuildError: it is missing.
        HashMismatchError: it is not what the descriptor says.

    """
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise BuildError(f"{path} is missing") from error
    if size != descriptor.size:
        raise HashMismatchError(f"{path} has {size} bytes, not {descriptor.size}")
    if hashed and digest_of(path) != descriptor.digest:
        raise HashMismatchError(f"{path} is not what its name says")


def digest_of(path: Path) -> Digest:
    """Return the digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return Digest(f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}")


def write_layout(
    path: Path, image: Image, blobs: Mapping[Digest, Path], *, name: str = "", extra: Mapping[str, bytes] | None = None
) -> Descriptor:
    """Make the layout at `path` hold exactly `image`; return its descriptor.

    `blobs` says where the layers are; they are hard-linked where that is possible. `name` becomes the reference name.
    `extra` are further files of the directory, written before the index, so that they never belong to another image.

    Raises:
        BuildError: the image is not valid, or a layer's blob is missing or has another size.

    """
    problems = image.validate()
    if problems:
        raise BuildError(f"the image is malformed: {problems[0]}", details=problems[1:])
    directory = path / "blobs" / "sha256"
    directory.mkdir(parents=True, exist_ok=True)
    for layer in image.layers:
        _bring(blobs[layer.descriptor.digest], directory / layer.descriptor.digest.hex, layer.descriptor)
    small = {image.config_descriptor.digest: image.config_bytes, image.digest: image.manifest_bytes}
    for digest, data in small.items():
        _write(directory / digest.hex, data, durable=False)  # no more than the layers are; all are checked when read
    _write(path / "oci-layout", _MARK)
    for file_name, data in sorted((extra or {}).items()):
        _write(path / file_name, data)
    annotations = {"org.opencontainers.image.ref.name": name} if name else {}
    descriptor = replace(image.descriptor, annotations=annotations)
    _write(path / "index.json", Index((descriptor,)).to_bytes())
    _tidy(path, {digest.hex for digest in (*small, *(layer.descriptor.digest for layer in image.layers))})
    return descriptor


def _write(path: Path, data: bytes, *, durable: bool = True) -> None:
    if fs.read_file(path) != data:
        fs.atomic_write(path, data, durable=durable)


def _bring(source: Path, target: Path, descriptor: Descriptor) -> None:
    """Put a verified blob into the layout; one that is there with the right bytes stays."""
    check_blob(source, descriptor, hashed=False)
    with contextlib.suppress(BuildError):
        check_blob(target, descriptor, hashed=not _same_file(source, target))
        return
    with fs.temporary_directory(target.parent) as stage:
        part = stage / "blob"
        try:
            part.hardlink_to(source)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK}:
                raise
            shutil.copyfile(source, part)
        part.replace(target)


def _same_file(one: Path, two: Path) -> bool:
    try:
        return one.samefile(two)
    except FileNotFoundError:
        return False


def _tidy(path: Path, wanted: set[str]) -> None:
    for entry in _entries(path / "blobs" / "sha256"):
        if entry.name not in wanted:
            _remove(entry)
    for place in (path, path / "blobs"):
        for entry in _entries(place):
            if entry.name.startswith(".") and ".new-" in entry.name:
                _remove(entry)


def _entries(path: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(path) as entries:
        yield from sorted(entries, key=lambda item: item.name)


def _remove(entry: "os.DirEntry[str]") -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        Path(entry.path).unlink()


def layout_blobs(layout: Layout) -> dict[Digest, Path]:
    """Return where the layers of a layout are."""
    digests: Iterable[Digest] = (layer.descriptor.digest for layer in layout.image.layers)
    return {digest: layout.blob(digest) for digest in digests}
