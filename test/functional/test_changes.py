"""What commands changed: read, applied, joined."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockyard.engines.changes import Changes, apply_changes, entries, joined, read_changes
from lockyard.errors import BuildError
from lockyard.oci.tar import EPOCH

Tree = Mapping[str, bytes | None]
"""Path → bytes; `None` is a directory. Every directory is named."""

NAMES = st.sampled_from(["a", "b", "c"])


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes | None]:
    tree: dict[str, bytes | None] = {}
    for parts in draw(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=6)):
        parents = ["/".join(parts[:length]) for length in range(1, len(parts))]
        path = "/".join(parts)
        below = any(other.startswith(f"{path}/") for other in tree)
        if all(tree.get(parent) is None for parent in parents) and not below:
            tree |= dict.fromkeys(parents)
            tree[path] = draw(st.sampled_from([None, b"one", b"two"]))
    return tree


def write(tree: Tree, root: Path) -> Path:
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir(mode=0o755)
        else:
            (root / path).write_bytes(data)
            (root / path).chmod(0o644)
    return root


def read(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def archive(old: Tree, new: Tree, path: Path) -> Path:
    """The tar that a sandbox leaves when a command turns `old` into `new`."""
    with tarfile.open(path, "w") as out:
        for name in sorted({*old, *new}):
            if name not in new:
                parent, _, last = name.rpartition("/")
                if not parent or (parent in new and new[parent] is None):
                    out.addfile(tarfile.TarInfo(f"{parent}/.wh.{last}".lstrip("/")))
                continue
            data = new[name]
            member = tarfile.TarInfo(name)
            if data is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                out.addfile(member)
                if old.get(name, None) is not None:
                    out.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))
            elif old.get(name, b"") != data:
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
    return path


@settings(max_examples=60, deadline=None)
@given(first=trees(), second=trees(), third=trees())
def test_steps_joined_are_the_steps_one_by_one(
    first: Tree, second: Tree, third: Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("changes")
    work = write(first, place / "work")
    steps = []
    for number, (old, new) in enumerate([(first, second), (second, third)]):
        steps.append(read_changes(archive(old, new, place / f"{number}.tar"), work))
        apply_changes(steps[-1], work)
        assert read(work) == new
    together = joined(steps, first)
    again = write(first, place / "again")
    apply_changes(together, again)
    assert read(again) == third
    assert all(path in first for path, change in together.paths.items() if change.kind == "removed")


def changes(tmp_path: Path, *members: tarfile.TarInfo, tree: Tree) -> Changes:
    with tarfile.open(tmp_path / "x.tar", "w") as out:
        for member in members:
            out.addfile(member, io.BytesIO(bytes(member.size)))
    return read_changes(tmp_path / "x.tar", write(tree, tmp_path / "tree"))


def test_an_opaque_directory_hides_what_was_in_it(tmp_path: Path) -> None:
    found = changes(
        tmp_path,
        tarfile.TarInfo("d/.wh..wh..opq"),
        tarfile.TarInfo("d/new"),
        tree={"d": None, "d/a": b"x", "d/new": b""},
    )
    assert {path: change.kind for path, change in found.paths.items()} == {"d/a": "removed"}


def test_pipes_are_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("pipe")
    member.type = tarfile.FIFOTYPE
    with pytest.raises(BuildError, match="pipe is a pipe or a device"):
        changes(tmp_path, member, tree={})


def test_entries_are_those_of_a_layer(tmp_path: Path) -> None:
    link = tarfile.TarInfo("bin/link")
    link.type, link.linkname = tarfile.SYMTYPE, "../x"
    gone = tarfile.TarInfo("share/.wh.gone")
    found = changes(tmp_path, link, gone, tree={"bin": None, "share": None, "share/gone": b""})
    made = list(entries(found, "/opt/conda", (7, 8)))
    assert [(entry.path, entry.kind, entry.uid, entry.gid, entry.mtime) for entry in made] == [
        (b"opt/conda/bin/link", "symlink", 7, 8, EPOCH),
        (b"opt/conda/share/.wh.gone", "file", 7, 8, EPOCH),
    ]
    assert made[0].target == b"../x"
