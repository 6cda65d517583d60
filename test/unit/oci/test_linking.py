"""Packages as files: what is refused, what is verified, who wins."""

import json
import marshal
import shutil
import socket
from pathlib import Path

import pytest
from blake3 import blake3

from lockyard import extracted
from lockyard.conda import digests
from lockyard.errors import BuildError, HashMismatchError
from lockyard.extracted import CHUNK, DirectoryReader
from lockyard.oci.contents import Manifest, Outline, Python, read_manifest, resolve
from lockyard.oci.linking import Linker
from lockyard.oci.tar import EPOCH, Entry
from support.packages import PLACEHOLDER, Node, Package

PYTHON = Python("bin/python3.11", "lib/python3.11/site-packages")


def manifest(package: Package, directory: Path, python: Python | None = PYTHON) -> tuple[Manifest, DirectoryReader]:
    reader = DirectoryReader(package.extract(directory))
    return read_manifest(package.locked(), reader, python), reader


def outline(package: Package, directory: Path) -> Outline:
    found, reader = manifest(package, directory)
    return found.outline(reader)


def entries(package: Package, directory: Path) -> dict[str, Entry]:
    found, reader = manifest(package, directory)
    linked = Linker("/opt/conda", 7, 8, PYTHON).entries(found, {}, reader)
    out = {}
    for entry in linked:
        for _ in entry.chunks():
            pass
        out[entry.path.decode()] = entry
    return out


def test_files_are_at_the_prefix_and_owned(tmp_path: Path) -> None:
    found = entries(Package("a", files={"bin/x": Node(PLACEHOLDER.encode(), 0o755, prefix="text")}), tmp_path)
    assert list(found) == ["opt/conda/bin/x", "opt/conda/conda-meta/a-1.0-0.json"]
    assert b"".join(found["opt/conda/bin/x"].chunks()) == b"/opt/conda"
    assert {(entry.uid, entry.gid) for entry in found.values()} == {(7, 8)}
    assert str(tmp_path) not in b"".join(found["opt/conda/conda-meta/a-1.0-0.json"].chunks()).decode()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_record_of_a_package_is_indented_json(count: int, tmp_path: Path) -> None:
    names = ["share/a},\n        {", 'share/"é"\\', "share/c"][:count]
    found = entries(Package("a", files={name: Node(b"x") for name in names}), tmp_path)
    data = b"".join(found["opt/conda/conda-meta/a-1.0-0.json"].chunks())
    record = json.loads(data)
    assert sorted(record["files"]) == sorted(names)
    assert data.decode() == json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_small_files_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extracted, "CHUNK", 4)
    (tmp_path / "four").write_bytes(b"1234")
    (tmp_path / "five").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("four")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    reader = DirectoryReader(tmp_path)
    found = {name: reader.load(name) for name in ("four", "five", "link", "socket", "none", "four/x")}
    assert {name: item and (item[0].kind, item[0].size, item[1]) for name, item in found.items()} == {
        "four": ("file", 4, b"1234"), "five": ("file", 5, None), "link": ("symlink", 4, None), "socket": ("other", 0, None),
        "none": None, "four/x": None,
    }  # fmt: skip
    with pytest.raises(BuildError, match="leaves"):
        reader.load("../four")
    with pytest.raises(BuildError, match="leaves"):
        reader.load("/four")


def record(place: Path, path: str, data: bytes) -> None:
    """Record the digest of a file beside the package."""
    (place / digests.FILE_NAME).write_text(digests.to_json({path: blake3(data).hexdigest()}))


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("old", "new"), [(b"true", b"fals"), (b"true", b"true!"), (b"true", b"")])
def test_a_tampered_file_is_named_with_its_package(
    old: bytes, new: bytes, large: bool, recorded: bool, tmp_path: Path
) -> None:
    more = bytes(CHUNK) if large else b""
    package = Package("a", files={"share/x": Node(old + more)})
    found, reader = manifest(package, tmp_path)
    if recorded:
        record(tmp_path, "share/x", old + more)
    (tmp_path / package.dist / "share/x").write_bytes(new + more)
    with pytest.raises(HashMismatchError, match=r"package a-1\.0-0 in the cache is damaged: share/x"):
        [list(entry.chunks()) for entry in Linker("/opt/conda").entries(found, {}, reader)]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("prefix", [None, "text", "binary"])
def test_a_tampered_file_with_a_placeholder_is_named(prefix: str | None, recorded: bool, tmp_path: Path) -> None:
    package = Package("a", files={"share/x": Node(PLACEHOLDER.encode(), prefix=prefix)})
    found, reader = manifest(package, tmp_path)
    if recorded:
        record(tmp_path, "share/x", PLACEHOLDER.encode())
    (tmp_path / package.dist / "share/x").write_bytes(PLACEHOLDER[:-1].encode() + b"#")
    with pytest.raises(HashMismatchError, match="share/x"):
        [list(entry.chunks()) for entry in Linker("/opt/conda").entries(found, {}, reader)]


@pytest.mark.parametrize("data", [b"x", bytes(CHUNK + 1)])
def test_what_is_recorded_is_what_is_checked_and_changes_no_byte(data: bytes, tmp_path: Path) -> None:
    package = Package("a", files={"share/x": Node(data)})
    linker = Linker("/opt/conda")

    def written() -> list[bytes]:
        found, reader = manifest(package, tmp_path)
        return [b"".join(entry.chunks()) for entry in linker.entries(found, {}, reader)]

    plain = written()
    record(tmp_path, "share/x", data)
    shutil.rmtree(tmp_path / package.dist)
    assert written() == plain
    record(tmp_path, "share/x", b"another")
    shutil.rmtree(tmp_path / package.dist)
    with pytest.raises(HashMismatchError, match="share/x has blake3"):
        written()


def test_a_missing_file_and_a_link_in_its_place_are_damage(tmp_path: Path) -> None:
    package = Package("a", files={"share/x": Node(b"x")})
    for replacement in (None, "/etc/passwd"):
        found, reader = manifest(package, tmp_path / str(replacement).replace("/", ""))
        path = tmp_path / str(replacement).replace("/", "") / package.dist / "share/x"
        path.unlink()
        if replacement:
            path.symlink_to(replacement)
        with pytest.raises(HashMismatchError, match="share/x is (missing|symlink), not a file"):
            list(Linker("/opt/conda").entries(found, {}, reader))


def test_another_package_in_its_place_is_refused(tmp_path: Path) -> None:
    Package("a", version="2.0").extract(tmp_path).rename(tmp_path / "a-1.0-0")
    with pytest.raises(HashMismatchError, match=r"a-2\.0-0 in the place of a-1\.0-0"):
        read_manifest(Package("a").locked(), DirectoryReader(tmp_path / "a-1.0-0"), None)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a//b", ".", "conda-meta/x.json", "__clobbers__/x"]
)
def test_paths_that_leave_the_prefix_are_refused(path: str, tmp_path: Path) -> None:
    package = Package("a")
    root = package.extract(tmp_path)
    paths = {"paths_version": 1, "paths": [{"_path": path, "path_type": "hardlink"}]}
    (root / "info/paths.json").write_text(json.dumps(paths))
    with pytest.raises(BuildError, match="leaves the prefix|belongs to the environment"):
        read_manifest(package.locked(), DirectoryReader(root), None)


@pytest.mark.parametrize("old", [True, False])
def test_names_that_are_not_utf_8_are_refused_as_rattler_does(old: bool, tmp_path: Path) -> None:
    package = Package("a", files={"share/n\udce9.txt": Node(b"x")}, old=old)
    with pytest.raises(BuildError, match=r"a-1\.0-0: path 'share/n\\udce9.txt' is not UTF-8"):
        manifest(package, tmp_path)


def test_a_listed_directory_is_made(tmp_path: Path) -> None:
    package = Package("a", files={"share/x": Node(b"x"), "var/empty": Node(directory=True)})
    root = package.extract(tmp_path)
    paths = [*package.paths(), {"_path": "var/empty", "path_type": "directory"}]
    (root / "info/paths.json").write_text(json.dumps({"paths_version": 1, "paths": paths}))
    found = read_manifest(package.locked(), DirectoryReader(root), None)
    made = {entry.path: entry for entry in Linker("/opt/conda", 7, 8).entries(found, {}, DirectoryReader(root))}
    assert (made[b"opt/conda/var/empty"].kind, made[b"opt/conda/var/empty"].uid) == ("directory", 7)


def test_a_package_is_not_read_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    root = Package("a", files={"share/x": Node(b"x")}).extract(tmp_path)
    (root / "dir").symlink_to(tmp_path / "outside")
    reader = DirectoryReader(root)
    with pytest.raises(BuildError, match="a link that other paths lead through"):
        reader.read("dir/secret")
    with pytest.raises(BuildError, match="leaves"):
        reader.read("../outside/secret")
    with pytest.raises(OSError, match="symbolic links"):
        reader.read("dir")


def test_noarch_python_needs_python(tmp_path: Path) -> None:
    package = Package("a", noarch="python", files={"site-packages/a.py": Node(b"")}, entry_points=["a = a:main"])
    with pytest.raises(BuildError, match="has no python"):
        manifest(package, tmp_path, None)
    found = entries(package, tmp_path / "again")
    assert "opt/conda/lib/python3.11/site-packages/a.py" in found
    assert found["opt/conda/bin/a"].mode == 0o775
    assert b"".join(found["opt/conda/bin/a"].chunks()).startswith(b"#!/opt/conda/bin/python3.11\n")


@pytest.mark.parametrize("text", ["nonsense", "a = b", "x=../y:z", "a = b:c; import os"])
def test_malformed_entry_points_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="entry point"):
        manifest(Package("a", noarch="python", entry_points=[text]), tmp_path)


def test_the_last_in_install_order_wins_a_path(tmp_path: Path) -> None:
    packages = [Package(name, files={"share/x": Node(name.encode())}) for name in ("b", "c", "a")]
    moved, clobbers = resolve([outline(package, tmp_path) for package in packages])
    assert moved == ({"share/x": "__clobbers__/b/share/x"}, {"share/x": "__clobbers__/c/share/x"}, {})
    assert str(clobbers[0]) == "share/x is in b and c and a; a's file is used"


@pytest.mark.parametrize("node", [Node(b"file"), Node(link="/etc")])
def test_a_path_below_a_file_or_a_link_is_refused(node: Node, tmp_path: Path) -> None:
    packages = [Package("a", files={"share/x": node}), Package("b", files={"share/x/y": Node(b"")})]
    with pytest.raises(BuildError, match=r"share/x/y of b-1\.0-0 lies below share/x, a file or link of a-1\.0-0"):
        resolve([outline(package, tmp_path) for package in packages])


def test_sources_have_the_time_that_their_compiled_files_expect(tmp_path: Path) -> None:
    def compiled(flags: int, time: int) -> Node:
        head = b"\xa7\r\r\n" + flags.to_bytes(4, "little") + time.to_bytes(4, "little") + bytes(4)
        return Node(head + marshal.dumps(None))

    files = {
        "lib/m.py": Node(b""), "lib/__pycache__/m.cpython-311.pyc": compiled(0, 1234567890),
        "lib/h.py": Node(b""), "lib/__pycache__/h.cpython-311.pyc": compiled(1, 99),
        "lib/n.py": Node(b""),
    }  # fmt: skip
    found = entries(Package("a", files=files), tmp_path)
    times = {path: entry.mtime for path, entry in found.items() if path.endswith(".py")}
    assert times == {"opt/conda/lib/m.py": 1234567890, "opt/conda/lib/h.py": EPOCH, "opt/conda/lib/n.py": EPOCH}


def test_directories_above_the_prefix_belong_to_root() -> None:
    found = list(Linker("/opt/conda", 7, 8).parents(b"opt/conda/bin/x"))
    assert [(entry.path, entry.uid) for entry in found] == [(b"opt", 0), (b"opt/conda", 7), (b"opt/conda/bin", 7)]
