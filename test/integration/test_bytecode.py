"""Compiled Python modules: the same bytes always, used by imports, part of their package."""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lockyard.engines.request import BuildRequest, BuiltImage
from lockyard.engines.sandbox import open_sandbox
from lockyard.errors import BuildError, HashMismatchError
from lockyard.oci.layout import write_layout
from lockyard.ports.containers import RunRequest
from support.demo import PYTHON, demo_packages
from support.packages import Node, Package
from support.prepared import Workshop, settings
from support.require import need

pytestmark = pytest.mark.integration

SITE = "lib/python3.11/site-packages"
NAMES = (*PYTHON, "noarchzoo", "click", "six")
ODD = Package(
    "odd", noarch="python", depends=["python"],
    files={
        "site-packages/odd/__init__.py": Node(b"WORD = 'as installed'\nNAMES = frozenset('abcdefgh')\n"),
        "site-packages/odd/template.py": Node(b"this is {{ no }} module\n"),
        "site-packages/odd/link.py": Node(link="__init__.py"),
        "site-packages/odd/shipped.py": Node(b"x = 1\n"),
        "site-packages/odd/__pycache__/shipped.cpython-311.pyc": Node(b"shipped"),
        "share/odd/data.py": Node(b"x = 1\n"),
    },
)  # fmt: skip
CHOSEN = settings(compile_pyc=True)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    need("sandbox", "debian")
    return Workshop(tmp_path_factory.mktemp("bytecode"))


@pytest.fixture(scope="module")
def request_(workshop: Workshop) -> BuildRequest:
    packages = [*demo_packages(workshop.place / "packages", *NAMES), *workshop.extracted(ODD)]
    return workshop.request(packages, workshop.base(), CHOSEN)


@pytest.fixture(scope="module")
def built(workshop: Workshop, request_: BuildRequest) -> BuiltImage:
    return workshop.build(workshop.prepare(replace(request_, workers=2), CHOSEN))


def packs(workshop: Workshop) -> dict[str, str]:
    places = [
        path for path in (workshop.cache / "pyc/v1").iterdir() if path.is_file() and not path.name.startswith(".")
    ]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in places}


def members(built: BuiltImage) -> dict[str, bytes]:
    out = {}
    for layer in built.layers:
        with tarfile.open(built.blobs[layer.layer.descriptor.digest]) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                out[member.name] = stream.read() if stream else b""
    return out


def test_modules_come_with_their_package(built: BuiltImage) -> None:
    found = members(built)
    cache = f"opt/conda/{SITE}/odd/__pycache__"
    assert sorted(name for name in found if name.startswith(f"{cache}/")) == [
        f"{cache}/__init__.cpython-311.pyc", f"{cache}/shipped.cpython-311.pyc",
    ]  # fmt: skip
    assert found[f"{cache}/shipped.cpython-311.pyc"] == b"shipped"
    assert not [name for name in found if name.startswith("opt/conda/share/odd/__pycache__")]
    record = json.loads(found["opt/conda/conda-meta/odd-1.0-0.json"])
    path = f"{SITE}/odd/__pycache__/__init__.cpython-311.pyc"
    entry = next(item for item in record["paths_data"]["paths"] if item["_path"] == path)
    assert path in record["files"]
    assert entry["path_type"] == "pyc_file"
    assert entry["sha256_in_prefix"] == hashlib.sha256(found[f"opt/conda/{path}"]).hexdigest()


def test_imports_use_them_until_the_source_is_edited(built: BuiltImage, workshop: Workshop) -> None:
    write_layout(workshop.place / "layout", built.image, built.blobs)
    edit = f"sed -i 's/as installed/as edited/' /opt/conda/{SITE}/odd/__init__.py"
    program = "import odd, click, json; print(odd.WORD)"
    with open_sandbox(workshop.place / "layout", cache_dir=workshop.cache, log=workshop.log) as runner:
        done = runner.run(RunRequest(argv=("python", "-v", "-c", program)))
        lines = done.output.splitlines()
        for name in ("odd/__pycache__/__init__", "click/__pycache__/core"):
            assert any(f"{SITE}/{name}.cpython-311.pyc matches" in line for line in lines), name
        assert not [line for line in lines if line.startswith("# wrote") or "is stale" in line]
        assert "as installed" in lines
        edited = runner.run(RunRequest(argv=("sh", "-c", f'{edit}; python -c "{program}"')))
        assert edited.output == "as edited\n"


def test_neither_workers_nor_neighbours_change_a_byte(
    built: BuiltImage, workshop: Workshop, request_: BuildRequest, tmp_path: Path
) -> None:
    """Another directory, another number of workers, fewer packages, another order."""
    other = Workshop(tmp_path)
    few = [
        (package, request_.fetched[package.dist].directory)
        for package in reversed(request_.packages)
        if package.name != "click"
    ]
    other.prepare(replace(other.request(few, other.base(), CHOSEN), workers=5), CHOSEN)
    assert len(packs(other)) == len(request_.packages) - 1
    assert packs(other).items() <= packs(workshop).items()


def test_what_is_compiled_is_kept(built: BuiltImage, workshop: Workshop, request_: BuildRequest) -> None:
    opened = workshop.opened
    again = workshop.build(workshop.prepare(replace(request_, workers=1), CHOSEN))
    assert workshop.opened == opened
    assert again.image.digest == built.image.digest
    assert not [layer for layer in again.layers if layer.rebuilt]
    without = workshop.build(request_)
    assert without.image.digest != again.image.digest


def test_a_damaged_pack_is_found(built: BuiltImage, workshop: Workshop, request_: BuildRequest) -> None:
    prepared = workshop.prepare(request_, CHOSEN)
    pack = prepared.compiled["odd-1.0-0"]
    path = workshop.cache / "pyc" / "v1" / pack.key
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-1] + b"?")
        with pytest.raises(HashMismatchError, match="in the cache is damaged"):
            [list(module.chunks()) for module in pack.modules()]
        path.write_bytes(b"nothing")
        with pytest.raises(HashMismatchError, match="in the cache is damaged"):
            pack.modules()
    finally:
        path.write_bytes(whole)


def test_a_python_that_does_not_run_says_what_to_do(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    python = Package("python", "3.11.4", files={"bin/python3.11": Node(b"#!/bin/sh\necho no; exit 3\n", 0o755)})
    request = workshop.request(workshop.extracted(python, ODD), workshop.base(), CHOSEN)
    with pytest.raises(BuildError, match="could not compile modules") as error:
        workshop.prepare(request, CHOSEN)
    assert error.value.hint == "build without them: compile-pyc = false in variants.toml"
    with pytest.raises(BuildError, match="compiling Python modules: programs of linux-64 do not run"):
        workshop.prepare(request, CHOSEN, host="linux-aarch64")
