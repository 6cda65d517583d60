"""Layers unpacked: whiteouts, links, and nothing outside of the root."""

import gzip
import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard.errors import BuildError, HashMismatchError
from lockyard.oci.image import Layer
from lockyard.oci.values import Descriptor, Digest, MediaType
from lockyard.unpack import unpack_layers

Member = tuple[str, bytes | None, dict[str, object]]


def f(name: str, data: bytes = b"", **fields: object) -> Member:
    return name, data, fields


def d(name: str, mode: int = 0o755) -> Member:
    return name, None, {"type": tarfile.DIRTYPE, "mode": mode}


def ln(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return name, None, {"type": kind, "linkname": target}


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(info, key, value)
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


Unpack = Callable[..., Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    def run(*layers: tuple[Member, ...]) -> Path:
        pairs = []
        for number, members in enumerate(layers):
            plain = tar(*members)
            data = gzip.compress(plain)
            path = tmp_path / f"layer{number}"
            path.write_bytes(data)
            pairs.append((Layer(Descriptor.of(MediaType.LAYER_GZIP, data), Digest.of(plain)), path))
        root = tmp_path / "root"
        root.mkdir()
        unpack_layers(pairs, root, owners=False)
        return root

    return run


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_files_have_content_mode_and_time(unpack: Unpack) -> None:
    root = unpack(
        (d("a"), f("a/x", b"hello", mode=0o4751, mtime=1234567890), ln("a/l", "x"), ln("h", "a/x", tarfile.LNKTYPE))
    )
    found = (root / "a/x").stat()
    assert (root / "a/x").read_bytes() == b"hello"
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o4751, 1234567890)
    assert (root / "a/l").readlink() == Path("x")
    assert (root / "h").samefile(root / "a/x")


def test_whiteouts_remove_what_is_below(unpack: Unpack) -> None:
    root = unpack((f("a/x"), f("a/y"), f("b/z/w")), (f("a/.wh.x"), f(".wh.b"), f(".wh.nothing")))
    assert names(root) == ["a", "a/y"]


def test_an_opaque_directory_keeps_only_its_own_layer(unpack: Unpack) -> None:
    root = unpack((f("a/x"), f("a/s/old"), f("a/t/old")), (f("a/new"), f("a/s/new"), f("a/.wh..wh..opq"), f("a/later")))
    assert names(root) == ["a", "a/later", "a/new", "a/s", "a/s/new"]


def test_a_later_layer_changes_the_kind_of_a_path(unpack: Unpack) -> None:
    root = unpack((f("a/x"), f("b"), ln("c", "a")), (f("a"), d("b"), f("b/y"), d("c"), f("c/z")))
    assert names(root) == ["a", "b", "b/y", "c", "c/z"]
    assert (root / "c").is_dir()
    assert not (root / "c").is_symlink()


def test_a_read_only_directory_is_filled(unpack: Unpack) -> None:
    root = unpack((d("a", 0o555), f("a/x")), (f("a/y"),))
    assert names(root) == ["a", "a/x", "a/y"]
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o555
    (root / "a").chmod(0o755)


def test_links_are_followed_inside_the_root_only(unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    absolute = str(tmp_path / "outside")
    root = unpack(
        (ln("abs", absolute), ln("up", "../../../../outside"), ln("lib", "usr/lib"), ln("top", "/usr")),
        (f("abs/x"), f("up/y"), f("lib/z"), f("top/w")),
    )
    assert list((tmp_path / "outside").iterdir()) == []
    assert (root / absolute.lstrip("/") / "x").is_file()
    assert (root / "outside/y").is_file()
    assert (root / "usr/lib/z").is_file()
    assert (root / "usr/w").is_file()


def test_a_replaced_link_is_not_remembered(unpack: Unpack) -> None:
    root = unpack((d("a"), ln("l", "a"), f("l/one"), d("b"), f(".wh.l"), ln("l", "b"), f("l/two")))
    assert names(root) == ["a", "a/one", "b", "b/two", "l"]


@pytest.mark.parametrize(
    "members",
    [
        (f("../x"),),
        (f("a/../../x"),),
        (ln("h", "../../etc/passwd", tarfile.LNKTYPE),),
        (ln("h", "nothing", tarfile.LNKTYPE),),
        (f("a"), f("a/b")),
        (ln("a", "b"), ln("b", "a"), f("a/x")),
    ],
)
def test_hostile_layers_are_refused(members: tuple[Member, ...], unpack: Unpack, tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        unpack(members)
    assert not (tmp_path / "x").exists()


def test_a_hard_link_does_not_reach_through_a_link_to_the_outside(unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(BuildError):
        unpack((ln("out", str(tmp_path)), ln("h", "out/secret", tarfile.LNKTYPE)))


def test_device_nodes_are_left_out(unpack: Unpack) -> None:
    root = unpack((("null", None, {"type": tarfile.CHRTYPE}), ("pipe", None, {"type": tarfile.FIFOTYPE}), f("x")))
    assert names(root) == ["x"]


def test_a_layer_that_is_not_its_diff_id_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(tar(f("x")))
    (tmp_path / "layer").write_bytes(data)
    layer = Layer(Descriptor.of(MediaType.LAYER_GZIP, data), Digest.of(b"another"))
    (tmp_path / "root").mkdir()
    with pytest.raises(HashMismatchError, match="is not the tar"):
        unpack_layers([(layer, tmp_path / "layer")], tmp_path / "root", owners=False)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", gzip.compress(b"no tar" * 200), gzip.compress(tar(f("x")))[:-20]],
    ids=["empty", "nonsense", "no tar", "cut"],
)
def test_damaged_blobs_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(data)
    layer = Layer(Descriptor.of(MediaType.LAYER_GZIP, data), Digest.of(tar(f("x"))))
    (tmp_path / "root").mkdir()
    with pytest.raises(BuildError):
        unpack_layers([(layer, tmp_path / "layer")], tmp_path / "root", owners=False)
