"""The layers of an environment: files that several packages have, owners, directories, compiled modules, their number."""

import gzip
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from lockyard.engines.request import BuiltImage
from lockyard.errors import BuildError
from lockyard.oci.image import MAX_LAYERS, Layer
from lockyard.oci.layering import LayerPlan
from lockyard.oci.linking import Module
from lockyard.oci.values import Descriptor, Digest, MediaType
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


def directories(built: BuiltImage) -> dict[str, list[tuple[object, ...]]]:
    """Directory → what each layer that has it says of it."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for layer in built.layers:
        with tarfile.open(built.blobs[layer.layer.descriptor.digest]) as archive:
            members = list(archive)
            for member in members:
                if member.isdir():
                    said = member.mode, member.uid, member.gid, member.uname, member.gname, member.mtime
                    found.setdefault(member.name, []).append((*said, *sorted(member.pax_headers.items())))
            names = [member.name for member in members]
            above = {parent for name in names for parent in map(str, Path(name).parents) if parent != "."}
            assert above <= {member.name for member in members if member.isdir()}
            assert len(names) == len(set(names))
    return found


PLACES = st.sampled_from(["bin", "lib/a", "lib/a/b", "lib/a/b/c", "share", "share/é" + "x" * 120])


@limits(max_examples=10, deadline=None)
@given(st.lists(st.frozensets(PLACES, min_size=1), min_size=2, max_size=5), st.booleans(), st.data())
def test_directories_are_the_same_in_every_layer_that_has_them(
    packages: list[frozenset[str]], rooted: bool, data: st.DataObject
) -> None:
    """Else the layer on top would decide what a directory is, and a plan would change the image."""
    modes = st.sampled_from([0o644, 0o755, 0o600, 0o4755])
    with tempfile.TemporaryDirectory() as place:
        workshop = Workshop(Path(place))
        made = [
            Package(
                f"p{number}",
                files={f"{path}/p{number}": Node(b"x", data.draw(modes)) for path in sorted(places)}
                | {
                    f"empty/p{number % 2}": Node(directory=True, mode=data.draw(st.sampled_from([0o755, 0o700, 0o775])))
                },
            )
            for number, places in enumerate(packages)
        ]
        chosen = settings() if rooted else settings(owner=(1000, 100))
        base = open_base(workshop.place, "scratch")
        request = workshop.request(workshop.extracted(*made), base, chosen)
        apart = LayerPlan({package.name: package.name for package in request.packages})
        together = LayerPlan({package.name: "all" for package in request.packages})
        found = directories(workshop.build(replace(request, plan=apart)))
        assert len(found["opt/conda"]) > len(made)
        assert {path for path, said in found.items() if len(set(said)) > 1} == set()
        assert {path: set(said) for path, said in found.items()} == {
            path: set(said) for path, said in directories(workshop.build(replace(request, plan=together))).items()
        }


@pytest.mark.parametrize("more", [0, 1])
def test_layers_of_base_environment_and_dockerfile_count_together(workshop: Workshop, more: int) -> None:
    packages = workshop.extracted(*(Package(f"p{n}", files={f"share/{n}": Node(b"x")}) for n in range(3)))
    request = workshop.request(packages, open_base(workshop.place, "scratch"), settings())
    request = replace(request, dockerfile="ARG ENV_IMAGE\nFROM ${ENV_IMAGE}\nWORKDIR /one\n")
    built = workshop.build(request)
    own = len(built.image.layers)
    assert own == len(built.layers) >= 5
    data = gzip.compress(bytes(1024), mtime=0)
    blob = Layer(Descriptor.of(MediaType.LAYER_GZIP, data), Digest.of(bytes(1024)), "nothing")
    (workshop.place / "blob").write_bytes(data)
    below = [blob] * (MAX_LAYERS - own + more)
    image = request.base.image.append(*below, created=request.created)
    request = replace(
        request, base=replace(request.base, image=image, blobs={blob.descriptor.digest: workshop.place / "blob"})
    )
    if more:
        with pytest.raises(
            BuildError, match=rf"121 layers are more than 120: {len(below)} of the base, .* of the Dock"
        ):
            workshop.build(request)
    else:
        assert len(workshop.build(request).image.layers) == MAX_LAYERS


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
