"""The layers of an environment: files that several packages have, owners, compiled modules."""

import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lockyard.engines.request import BuiltImage
from lockyard.oci.linking import Module
from support.bases import open_base
from support.packages import Node, Package
from support.prepared import Workshop, settings


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def files(built: BuiltImage) -> dict[str, tuple[bytes, int, int]]:
    out = {}
    for layer in built.layers:
        with tarfile.open(built.blobs[layer.layer.descriptor.digest]) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is not None:
                    out[member.name] = (stream.read(), member.uid, member.gid)
    return out


def test_the_winner_of_a_path_is_named_with_the_loser(workshop: Workshop) -> None:
    shared = {f"share/{number:02}": number for number in range(12)}
    first = Package("first", files={path: Node(b"first") for path in shared})
    second = Package("second", files={path: Node(b"second") for path in shared}, depends=["first"])
    request = workshop.request(workshop.extracted(first, second), open_base(workshop.place, "scratch"), settings())
    found = files(workshop.build(request))
    assert found["opt/conda/share/00"][0] == b"second"
    assert found["opt/conda/__clobbers__/first/share/00"][0] == b"first"
    warnings = [line for line in workshop.log.lines if line.startswith("warning: ")]
    assert warnings[0] == "warning: share/00 is in first and second; second's file is used"
    assert warnings[-1] == "warning: and 2 more files that several packages have"
    assert len(warnings) == 11


def test_every_file_belongs_to_the_owner(workshop: Workshop) -> None:
    package = Package("a", files={"share/x": Node(b"x"), "bin/y": Node(b"y", 0o755)})
    chosen = settings(owner=(1000, 100))
    request = workshop.request(workshop.extracted(package), open_base(workshop.place, "scratch"), chosen)
    found = files(workshop.build(request))
    assert len(found) == 4
    assert {owner for _, *owner in map(list, found.values()) if owner != [1000, 100]} == set()


@dataclass(frozen=True)
class Compiled:
    """One compiled module of each of two sources."""

    key: str = "k1"

    def modules(self) -> tuple[Module, ...]:
        return tuple(
            Module(f"lib/__pycache__/{name}.pyc", f"lib/{name}.py", 3, "0" * 64, lambda: (b"pyc",)) for name in "ab"
        )


def test_a_compiled_module_goes_with_its_source(workshop: Workshop) -> None:
    """What another package has replaced is not what was compiled."""
    one = Package("one", files={"lib/a.py": Node(b"one"), "lib/b.py": Node(b"one")})
    two = Package("two", files={"lib/b.py": Node(b"two")})
    base = open_base(workshop.place, "scratch")
    request = replace(workshop.request(workshop.extracted(one, two), base, settings()), compiled={one.dist: Compiled()})
    first = workshop.build(request)
    assert sorted(path for path in files(first) if path.endswith(".pyc")) == ["opt/conda/lib/__pycache__/a.pyc"]
    again = workshop.build(replace(request, compiled={one.dist: Compiled("k2")}))
    assert [layer.name for layer in again.layers if layer.rebuilt] == [
        layer.name for layer in first.layers if "one-1.0-0" in layer.packages
    ]
