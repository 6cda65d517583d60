"""Packages read out of layers, and archives of images."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.app.engines import install_order
from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError, LockyardError
from lockyard.oci.archive import ChunkStream, read_archive
from lockyard.oci.condameta import changes_of, check_against_lock, packages_after, read_records


def tar_of(files: Mapping[str, bytes | str], *, kind: str = "gnu") -> bytes:
    """A tar; a text value is the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT
    ) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                archive.addfile(member)
            else:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


META = "opt/conda/conda-meta"


def state(*layers: Mapping[str, bytes | str]) -> dict[str, bytes]:
    return packages_after(changes_of(io.BytesIO(tar_of(layer)), "/opt/conda") for layer in layers)


def test_packages_come_and_go_with_layers() -> None:
    first = {f"{META}/a-1-0.json": b"a", f"{META}/b-1-0.json": b"b", f"{META}/history": b"h", "etc/a-1-0.json": b"x"}
    assert state(first) == {"a-1-0.json": b"a", "b-1-0.json": b"b"}
    assert state(first, {f"{META}/.wh.a-1-0.json": b"", f"./{META}/a-2-0.json": b"A"}) == {
        "a-2-0.json": b"A",
        "b-1-0.json": b"b",
    }
    assert state(first, {f"{META}/.wh..wh..opq": b"", f"{META}/c-1-0.json": b"c"}) == {"c-1-0.json": b"c"}
    assert state(first, {"opt/.wh.conda": b""}) == {}
    assert state(first, {"opt/.wh.other": b"", "srv/.wh..wh..opq": b""}) == state(first)


def test_an_image_must_hold_its_lock() -> None:
    check_against_lock(["a-1-0.json"], ["a-1-0"], what="cpu")
    with pytest.raises(BuildError, match="cpu does not hold the packages of its lock: 2 differences") as caught:
        check_against_lock(["a-2-0.json"], ["a-1-0"], what="cpu")
    assert caught.value.details == ("a-2-0: in the image, not in the lock", "a-1-0: in the lock, not in the image")


def test_records_become_packages_in_install_order() -> None:
    records = {
        f"{name}-1-0.json": json.dumps(
            {
                "name": name, "version": "1", "build": "0", "subdir": "noarch", "depends": depends, "files": ["x"],
                "url": f"https://example.com/noarch/{name}-1-0.conda", "md5": "0" * 32, "track_features": "",
            }
        ).encode()
        for name, depends in {"a": ["b >=1", "c"], "b": ["c"], "c": ["a"], "d": ["__glibc"]}.items()
    }  # fmt: skip
    packages = read_records(records, what="cpu")
    assert [package.name for package in packages] == ["a", "b", "c", "d"]
    # a, b and c need each other in a circle, which is cut at its first name.
    assert [package.name for package in install_order(packages)] == ["a", "d", "c", "b"]
    with pytest.raises(BuildError, match=r"conda-meta/x-1-0.json is not the record"):
        read_records({"x-1-0.json": b"[]"}, what="cpu")


@given(st.permutations(["a", "b", "c", "d", "e"]), st.data())
def test_install_order_puts_needs_first(names: list[str], data: st.DataObject) -> None:
    packages = []
    for number, name in enumerate(names):
        needs = data.draw(st.lists(st.sampled_from(names[:number] or [name]), unique=True))
        packages.append(
            LockedPackage(
                name=name, version="1", build="0", subdir="noarch", url="u", depends=tuple(f"{x} *" for x in needs)
            )
        )
    order = [package.name for package in install_order(packages)]
    assert sorted(order) == sorted(names)
    for package in packages:
        for text in package.depends:
            need = text.split()[0]
            assert need == package.name or order.index(need) < order.index(package.name)
    assert order == [package.name for package in install_order(packages[::-1])]


LAYERS = (tar_of({"one": b"1"}), tar_of({"two": b"2"}, kind="pax"))
CONFIG = b'{"architecture":"amd64"}'


def archive(form: str) -> bytes:
    if form == "ids":
        return tar_of(
            {
                "x/layer.tar": LAYERS[0], "x/json": b"{}", "y/layer.tar": LAYERS[1], "z/layer.tar": "../x/layer.tar",
                "c.json": CONFIG, "repositories": b"{}",
                "manifest.json": json.dumps([{"Config": "c.json", "Layers": ["x/layer.tar", "y/layer.tar", "z/layer.tar"]}]).encode(),
            }
        )  # fmt: skip
    packed = [gzip.compress(layer) if form == "gzip" else layer for layer in LAYERS]
    layers = [f"blobs/sha256/{number}" for number in (0, 1, 0)]
    return tar_of(
        {
            "manifest.json": json.dumps([{"Config": "blobs/sha256/c", "Layers": layers}]).encode(),
            "blobs/sha256/0": packed[0], "blobs/sha256/c": CONFIG, "blobs/sha256/1": packed[1], "oci-layout": b"{}",
        }
    )  # fmt: skip


def read(data: bytes, chunk: int = 700) -> tuple[bytes, tuple[bytes, ...]]:
    stream: IO[bytes] = ChunkStream(data[at : at + chunk] for at in range(0, len(data), chunk))  # type: ignore[assignment]  # reads only
    return read_archive(stream, lambda layer: b"".join(iter(lambda: layer.read(1000), b"")), source="it")


@pytest.mark.parametrize("form", ["ids", "blobs", "gzip"])
@pytest.mark.parametrize("chunk", [1, 700, 1 << 20])
def test_archives_of_every_form_are_read(form: str, chunk: int) -> None:
    assert read(archive(form), chunk) == (CONFIG, (LAYERS[0], LAYERS[1], LAYERS[0]))


@given(st.binary(max_size=3000))
def test_any_bytes_are_refused_in_one_message(data: bytes) -> None:
    with pytest.raises(LockyardError, match="^it is not an archive of an image"):
        read(data)


@given(st.integers(0, 6000))
def test_a_cut_archive_is_refused(length: int) -> None:
    whole = archive("blobs")
    with pytest.raises(LockyardError, match="^it is not an archive"):
        read(whole[: min(length, len(whole) - 12000)])
