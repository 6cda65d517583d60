"""Layers: what other tools read is what was written, and the bytes depend on nothing else."""

import gzip
import hashlib
import io
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import BuildError
from lockyard.oci.tar import BLOCK, Entry, LayerBlob, compressor_id, header, write_layer, write_tar
from lockyard.oci.values import Compression, MediaType

PARTS = st.binary(min_size=1, max_size=120).filter(lambda part: part not in {b".", b".."} and not set(part) & {0, 47})
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(b"/".join)


def file(path: bytes, data: bytes, **fields: Any) -> Entry:
    return Entry(path, "file", fields.pop("mode", 0o644), size=len(data), chunks=lambda: (data,), **fields)


def tar_bytes(*entries: Entry) -> bytes:
    out = io.BytesIO()
    write_tar(entries, out.write)
    return out.getvalue()


def read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


@given(PATHS, st.integers(0, 0o7777), st.integers(0, 2**31), st.integers(0, 2**33), st.binary(max_size=1500))
def test_a_file_is_read_back_as_written(path: bytes, mode: int, uid: int, mtime: int, data: bytes) -> None:
    written = tar_bytes(file(path, data, mode=mode, uid=uid, gid=uid + 1, mtime=mtime))
    with tarfile.open(fileobj=io.BytesIO(written)) as archive:
        (member,) = archive.getmembers()
        stream = archive.extractfile(member)
        assert stream is not None
        assert stream.read() == data
    assert member.name.encode("utf-8", "surrogateescape") == path
    assert (member.mode, member.uid, member.gid, member.mtime) == (mode, uid, uid + 1, mtime)
    assert len(written) % 512 == 0


@given(PATHS, st.binary(min_size=1, max_size=300).filter(lambda text: 0 not in text))
def test_links_are_read_back_as_written(path: bytes, target: bytes) -> None:
    link, directory = read(tar_bytes(Entry(path, "symlink", 0o777, target=target), Entry(path, "directory", 0o755)))
    assert link.issym()
    assert link.linkname.encode("utf-8", "surrogateescape") == target
    assert directory.isdir()


def test_hard_links_carry_no_data() -> None:
    first, second = read(tar_bytes(file(b"a", b"x" * 600), Entry(b"b", "hardlink", 0o644, size=600, target=b"a")))
    assert second.islnk()
    assert (second.linkname, second.size, first.size) == ("a", 0, 600)


def test_a_size_over_eight_gibibytes_has_its_record() -> None:
    data = header(Entry(b"big", "file", 0o644, size=9 * 2**30))
    assert tarfile.TarInfo.frombuf(data[:512], "utf-8", "strict").type == tarfile.XHDTYPE
    assert b"19 size=9663676416\n" in data


@pytest.mark.parametrize("path", [b"", b"/etc/passwd", b"../x", b"a/../b", b"a//b", b"./a", b"a\0b"])
def test_unsafe_paths_are_refused(path: bytes) -> None:
    with pytest.raises(BuildError, match="unsafe path"):
        header(Entry(path, "file", 0o644))


@pytest.mark.parametrize("size", [2, 4])
def test_a_file_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(BuildError, match="is 3 bytes"):
        tar_bytes(file(b"a", b"abc")._replace(size=size))


def layer(compression: Compression, threads: int) -> tuple[bytes, LayerBlob]:
    source = random.Random(1)
    data = source.randbytes(BLOCK) + b"text " * BLOCK + source.randbytes(77)
    entries = [file(b"a", data), file(b"b", b""), Entry(b"c", "symlink", 0o777, target=b"a")]
    out = io.BytesIO()
    with ThreadPoolExecutor(threads) as executor:
        blob = write_layer(entries, out.write, compression=compression, executor=executor, threads=threads)
    return out.getvalue(), blob


@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:1", "zstd:9"])
def test_bytes_do_not_depend_on_threads(compression: Compression) -> None:
    results = [layer(compression, threads) for threads in (1, 2, 8)]
    assert results[0] == results[1] == results[2]


def test_a_level_is_part_of_the_key_and_the_default_one_may_be_written() -> None:
    names: list[Compression] = ["zstd:1", "zstd", "zstd:9"]
    assert len({compressor_id(name) for name in names}) == 3
    assert len({layer(name, 2)[0] for name in names}) == 3
    assert compressor_id("zstd:3") == compressor_id("zstd")
    assert layer("zstd:3", 2) == layer("zstd", 2)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:1"])
def test_a_layer_is_what_its_description_says(compression: Compression) -> None:
    data, blob = layer(compression, 2)
    plain = (
        gzip.decompress(data)
        if compression == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(data)
    )
    assert blob.digest.hex == hashlib.sha256(data).hexdigest()
    assert blob.diff_id.hex == hashlib.sha256(plain).hexdigest()
    assert (blob.size, blob.uncompressed) == (len(data), len(plain))
    assert blob.media_type == (MediaType.LAYER_GZIP if compression == "gzip" else MediaType.LAYER_ZSTD)
    assert [member.name for member in read(plain)] == ["a", "b", "c"]


def test_a_failure_of_the_sink_reaches_the_caller() -> None:
    def full(_: bytes | bytearray) -> None:
        raise OSError(28, "No space left on device")

    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match="No space left"):
        write_layer([file(b"a", bytes(20 * BLOCK))], full, executor=executor)


def test_the_compressor_is_named_with_version_and_level() -> None:
    assert compressor_id("gzip").startswith("zlib-ng 2.")
    assert "level 3" in compressor_id("zstd")
