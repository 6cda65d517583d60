"""Layouts and the blob cache: verified when read, whole when written."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lockyard.errors import BuildError, HashMismatchError
from lockyard.oci.cache import BlobCache, CachedLayer
from lockyard.oci.image import oci_platform
from lockyard.oci.layout import read_layout, write_layout
from lockyard.oci.tar import Entry, LayerBlob, Sink, write_layer
from support.images import make_image, write_image


def listing(root: Path) -> set[str]:
    """Every file but the lists of those who use a cache."""
    files = (path for path in root.rglob("*") if not path.is_dir())
    return {str(path.relative_to(root)) for path in files if path.name != ".lock" and path.parent.name != ".users"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    image = write_image(tmp_path / "layout", "a")
    found = read_layout(tmp_path / "layout", platform=oci_platform("linux-64"), verify_layers=True)
    assert found.image.digest == image.digest
    assert len(listing(tmp_path / "layout")) == 2 + 2 + 2


def test_another_image_takes_the_place_of_the_first(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_image(layout, "a")
    (layout / ".index.json.new-killed").write_text("half")
    (layout / "blobs" / "sha256" / ".tmp.new-killed").mkdir()
    image = write_image(layout, "b", [500])
    assert read_layout(layout, verify_layers=True).image.digest == image.digest
    assert len(listing(layout)) == 2 + 2 + 1
    assert not list((layout / "blobs" / "sha256").glob(".*"))


def test_writing_the_same_again_touches_nothing(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_image(layout, "a")
    before = {path: path.stat().st_ino for path in layout.rglob("*")}
    write_image(layout, "a")
    assert {path: path.stat().st_ino for path in layout.rglob("*")} == before


def test_a_changed_blob_is_named(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    image = write_image(layout, "a")
    blob = layout / "blobs" / "sha256" / image.layers[0].descriptor.digest.hex
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    read_layout(layout)
    with pytest.raises(HashMismatchError, match=blob.name):
        read_layout(layout, verify_layers=True)
    blob.write_bytes(b"short")
    with pytest.raises(HashMismatchError, match="5 bytes"):
        read_layout(layout)
    blob.unlink()
    with pytest.raises(BuildError, match="is missing"):
        read_layout(layout)


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    image = write_image(layout, "a")
    path = layout / "blobs" / "sha256" / image.digest.hex
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(HashMismatchError):
        read_layout(layout)


def test_no_layout_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is not an OCI layout"):
        read_layout(tmp_path)


def test_a_missing_source_leaves_the_old_layout(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    image = write_image(layout, "a")
    other, blobs = make_image(tmp_path / "other", "b")
    next(iter(blobs.values())).unlink()
    with pytest.raises(BuildError, match="is missing"):
        write_layout(layout, other, blobs)
    assert read_layout(layout, verify_layers=True).image.digest == image.digest


class Maker:
    """Makes a layer of one file and counts how often."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.calls = 0

    def __call__(self, sink: Sink) -> LayerBlob:
        self.calls += 1
        entry = Entry(b"f", "file", 0o644, size=len(self.data), chunks=lambda: (self.data,))
        with ThreadPoolExecutor(1) as executor:
            return write_layer([entry], sink, executor=executor)


def get(cache: BlobCache, make: Maker, key: str = "k") -> CachedLayer:
    return cache.layer({"key": key}, "comment", make)


def test_a_cached_layer_is_made_once(tmp_path: Path) -> None:
    make = Maker(b"x" * 1000)
    first, second = get(BlobCache(tmp_path), make), get(BlobCache(tmp_path), make)
    assert (first.rebuilt, second.rebuilt, make.calls) == (True, False, 1)
    assert (first.layer, first.path, first.uncompressed) == (second.layer, second.path, second.uncompressed)
    assert get(BlobCache(tmp_path), make, "other").rebuilt


@pytest.mark.parametrize("damage", ["blob changed", "blob gone", "key changed", "key of another"])
def test_a_damaged_cache_is_made_again(damage: str, tmp_path: Path) -> None:
    make = Maker(b"x" * 1000)
    first = get(BlobCache(tmp_path), make)
    (key,) = (tmp_path / "blobs" / "v1" / "keys").iterdir()
    first.path.chmod(0o644)
    if damage == "blob changed":
        first.path.write_bytes(first.path.read_bytes()[:-1] + b"x")
    elif damage == "blob gone":
        first.path.unlink()
    else:
        key.write_text("{" if damage == "key changed" else '{"digest": "../../x"}')
    again = get(BlobCache(tmp_path), make)
    assert again.rebuilt
    assert again.layer == first.layer
    assert not get(BlobCache(tmp_path), make).rebuilt


def test_a_failed_layer_leaves_nothing(tmp_path: Path) -> None:
    def fail(sink: Sink) -> LayerBlob:
        sink(b"half")
        raise BuildError("no")

    with pytest.raises(BuildError, match="no"):
        BlobCache(tmp_path).layer({"key": 1}, "", fail)
    assert listing(tmp_path) == set()
