"""Archives of images, whatever their layers are packed with."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from typing import IO

import pytest
import zstandard

from lockyard.errors import BuildError
from lockyard.oci.archive import read_archive


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


LAYER = tar_of({"etc/made": b"made\n"})


def read(stream: IO[bytes]) -> bytes:
    parts = []
    while chunk := stream.read(100):
        parts.append(chunk)
    return b"".join(parts)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_layer_is_handed_on_unpacked(pack: Callable[[bytes], bytes]) -> None:
    manifest = [{"Config": "blobs/c", "RepoTags": ["a:1"], "Layers": ["blobs/l"]}]
    archive = tar_of({"blobs/l": pack(LAYER), "blobs/c": b"{}", "manifest.json": json.dumps(manifest).encode()})
    assert read_archive(io.BytesIO(archive), read, source="x") == (b"{}", (LAYER,))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_damaged_layer_is_told(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(LAYER * 20)
    manifest = [{"Config": "blobs/c", "RepoTags": ["a:1"], "Layers": ["blobs/l"]}]
    damaged = packed[:8] + b"\xff" * 20 + packed[28:]
    archive = tar_of({"blobs/l": damaged, "blobs/c": b"{}", "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(BuildError, match="x is not an archive of an image"):
        read_archive(io.BytesIO(archive), read, source="x")


def test_a_failure_of_the_one_who_takes_is_its_own() -> None:
    """A full disk says nothing about the archive."""

    def full(_: IO[bytes]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        read_archive(io.BytesIO(tar_of({"l": LAYER})), full, source="x")
