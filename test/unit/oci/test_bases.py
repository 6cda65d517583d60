"""Bases: a root file system becomes one layer that depends on its bytes only."""

import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard

from lockyard.errors import BuildError, ConfigError
from lockyard.oci.rootfs import rootfs_entries
from lockyard.oci.tar import EPOCH
from support.bases import open_base
from support.images import write_image


def tar(*members: tuple[str, bytes, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.uid, info.mtime = kind, target, 5, 99
            info.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


ROOT = tar(
    ("./", tarfile.DIRTYPE, ""),
    ("./usr/bin/sh", tarfile.REGTYPE, ""),
    ("./bin", tarfile.SYMTYPE, "usr/bin"),
    ("./a-link", tarfile.LNKTYPE, "./usr/bin/sh"),
    ("./dev/null", tarfile.CHRTYPE, ""),
)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_a_root_file_system_is_one_layer(pack: object, tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(pack(ROOT))  # type: ignore[operator]  # a compressor
    first, again = open_base(tmp_path, "rootfs:base.tar"), open_base(tmp_path, "rootfs:base.tar")
    assert first.image.digest == again.image.digest
    (layer,) = first.image.layers
    with tarfile.open(first.blobs[layer.descriptor.digest]) as archive:
        found = [(member.name, member.type, member.linkname, member.uid, member.mtime) for member in archive]
    assert found == [
        ("bin", tarfile.SYMTYPE, "usr/bin", 5, 99),
        ("usr", tarfile.DIRTYPE, "", 0, EPOCH),
        ("usr/bin", tarfile.DIRTYPE, "", 0, EPOCH),
        ("usr/bin/sh", tarfile.REGTYPE, "", 5, 99),
        ("a-link", tarfile.LNKTYPE, "usr/bin/sh", 5, 99),
    ]


def test_the_order_of_the_archive_means_nothing(tmp_path: Path) -> None:
    one = tar(("a/x", tarfile.REGTYPE, ""), ("a-b", tarfile.REGTYPE, ""))
    two = tar(("a-b", tarfile.REGTYPE, ""), ("a/x", tarfile.REGTYPE, ""))
    digests = set()
    for name, data in (("one", one), ("two", two)):
        (tmp_path / name).write_bytes(data)
        digests.add(open_base(tmp_path, f"rootfs:{name}").image.layers[0].diff_id)
    assert len(digests) == 1


def test_scratch_is_empty(tmp_path: Path) -> None:
    found = open_base(tmp_path, "scratch")
    assert (found.digest, found.image.layers, found.blobs) == (None, (), {})


def test_a_layout_is_a_open_base(tmp_path: Path) -> None:
    image = write_image(tmp_path / "bases" / "a", "a")
    found = open_base(tmp_path, "oci:bases/a")
    assert found.digest == str(image.digest)
    assert [layer.descriptor.digest for layer in found.image.layers] == list(found.blobs)
    with pytest.raises(BuildError, match="not for arm64"):
        open_base(tmp_path, "oci:bases/a", "linux-aarch64")
    blob = next(iter(found.blobs.values()))
    blob.write_bytes(b"x")
    with pytest.raises(BuildError, match="missing or damaged"):
        open_base(tmp_path, "oci:bases/a")


@pytest.mark.parametrize("reference", ["rootfs:none.tar", "oci:none"])
def test_a_missing_base_is_named(reference: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=reference):
        open_base(tmp_path, reference)


@pytest.mark.parametrize("reference", ["rootfs:../x.tar", "oci:../x", "oci:a/../../x"])
def test_a_base_outside_of_the_root_is_refused(reference: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"variants\.toml: base"):
        open_base(tmp_path, reference)


@pytest.mark.parametrize("data", [b"", b"nonsense" * 100, zstandard.ZstdCompressor().compress(ROOT)[:-9]])
def test_a_damaged_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(data)
    with pytest.raises(BuildError, match="not a readable tar"):
        open_base(tmp_path, "rootfs:base.tar")
    assert not list((tmp_path / "cache").rglob("keys/*"))


@pytest.mark.parametrize(
    "members",
    [
        (("../x", tarfile.REGTYPE, ""),),
        (("l", tarfile.SYMTYPE, "/etc"), ("l/x", tarfile.REGTYPE, "")),
        (("h", tarfile.LNKTYPE, "nothing"),),
        (("h", tarfile.LNKTYPE, "../x"),),
    ],
)
def test_hostile_archives_are_refused(members: tuple[tuple[str, bytes, str], ...]) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar(*members))) as archive, pytest.raises(BuildError):
        list(rootfs_entries(archive, "base.tar"))
