"""Wheels become conda packages: dependencies, places, entry points, RECORD."""

import csv
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from demochannel import tree
from demochannel.packages import PLACEHOLDER, Package
from demochannel.pins import Pin
from demochannel.wheels import (
    conda_name,
    conda_spec,
    console_scripts,
    dependencies,
    gpu_package,
    oldest_glibc,
    open_wheel,
    runtime_libraries,
    wheel_package,
    with_prefix_shebang,
)

WHEN = datetime(2026, 1, 15, tzinfo=UTC)
METADATA = """\
Metadata-Version: 2.1
Name: Sample.Name
Version: 1.0
Summary: A sample
Requires-Python: >=3.9
Requires-Dist: numpy>=1.23.2; python_version == "3.11"
Requires-Dist: numpy>=1.26.0; python_version >= "3.12"
Requires-Dist: colorama; sys_platform == "win32"
Requires-Dist: tzdata>=2022.7
Requires-Dist: PySocks!=1.5.7,>=1.5.6; extra == "socks"
"""


def make_wheel(folder: Path, *, pure: bool) -> Path:
    tag = "py3-none-any" if pure else "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    path = folder / f"sample_name-1.0-{tag}.whl"
    info = "sample_name-1.0.dist-info"
    files = {
        "sample_name/__init__.py": b"",
        "sample_name/fast.so": b"\x7fELF libstdc++.so.6\0",
        "sample_name-1.0.data/data/share/sample.txt": b"data",
        "sample_name-1.0.data/scripts/run-sample": b"#!python\nprint(1)\n",
        f"{info}/METADATA": METADATA.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {str(pure).lower()}\n".encode(),
        f"{info}/entry_points.txt": b"[console_scripts]\nSample = sample_name.cli:App.run [extra]\n\n[other]\na = b\n",
        f"{info}/licenses/LICENSE": b"MIT",
        f"{info}/RECORD": b"stale",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_package(folder: Path, *, pure: bool) -> Package:
    path = make_wheel(folder, pure=pure)
    pin = Pin("2026-01", "sample.name", "1.0", path.name, "abcdef0123456789", "MIT", 1)
    return wheel_package(open_wheel(path), pin, WHEN)


def test_dependencies_follow_the_markers_of_the_target() -> None:
    lines = [line.removeprefix("Requires-Dist: ") for line in METADATA.splitlines() if line.startswith("Requires-Dist")]
    assert dependencies(lines) == ("numpy >=1.23.2", "python-tzdata >=2022.7")


@pytest.mark.parametrize(
    ("ranges", "spec"),
    [("", "a"), (">=1,<3,!=2.0.*", "a !=2.0.*,<3,>=1"), ("~=1.4", "a ~=1.4"), ("===1.0", "a ==1.0")],
)
def test_conda_spec(ranges: str, spec: str) -> None:
    assert conda_spec("a", SpecifierSet(ranges)) == spec


def test_conda_name() -> None:
    assert (conda_name("Charset_Normalizer"), conda_name("tzdata")) == ("charset-normalizer", "python-tzdata")


def test_console_scripts_keep_case_and_drop_extras() -> None:
    assert console_scripts("[gui_scripts]\nB=b:c\n[console_scripts]\nA = a.b:C.d [x]\n") == ("A = a.b:C.d", "B = b:c")


def test_oldest_glibc() -> None:
    assert oldest_glibc(["manylinux_2_28_x86_64", "manylinux_2_5_x86_64"]) == "2.5"
    assert oldest_glibc(["manylinux2014_x86_64"]) == "2.17"


def test_runtime_libraries_look_at_elf_files_only() -> None:
    text = tree.file(b"libgcc_s.so.1")
    binary = tree.file(b"\x7fELF libstdc++.so.6\0")
    assert runtime_libraries([text, binary]) == ("libstdcxx",)


def test_shebang_of_scripts() -> None:
    assert with_prefix_shebang(b"#!pythonw\nx") == f"#!{PLACEHOLDER}/bin/python\nx".encode()
    assert with_prefix_shebang(b"#!/bin/sh\n#!python") == b"#!/bin/sh\n#!python"


def test_pure_wheel(tmp_path: Path) -> None:
    package = make_package(tmp_path, pure=True)
    assert package.filename == "sample-name-1.0-pyhd8ed1ab_1.conda"
    assert package.subdir == "noarch"
    assert package.depends == ("python >=3.9", "numpy >=1.23.2", "python-tzdata >=2022.7")
    assert package.entry_points == ("Sample = sample_name.cli:App.run",)
    assert package.files["share/sample.txt"].data == b"data"
    assert package.files["python-scripts/run-sample"].mode == 0o755
    assert "bin/Sample" not in package.files
    assert package.info == {"licenses/LICENSE": b"MIT"}


def test_compiled_wheel(tmp_path: Path) -> None:
    package = make_package(tmp_path, pure=False)
    assert package.filename == "sample-name-1.0-py311habcdef0_1.conda"
    assert package.depends == (
        "__glibc >=2.27,<3.0.a0",
        "python >=3.11,<3.12.0a0",
        "python_abi 3.11.* *_cp311",
        "libstdcxx",
        "numpy >=1.23.2",
        "python-tzdata >=2022.7",
    )
    script = package.files["bin/Sample"].data.decode()
    assert script.startswith(f"#!{PLACEHOLDER}/bin/python3.11\n")
    assert "from sample_name.cli import App\n" in script
    assert "sys.exit(App.run())" in script


def test_record_lists_what_is_installed(tmp_path: Path) -> None:
    package = make_package(tmp_path, pure=True)
    info = "sample_name-1.0.dist-info"
    rows = list(csv.reader(package.files[f"site-packages/{info}/RECORD"].data.decode().splitlines()))
    assert [f"{info}/RECORD", "", ""] in rows
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert f"{info}/INSTALLER" in [row[0] for row in rows]
    assert {row[1].partition("=")[0] for row in rows} == {"sha256", ""}


def test_gpu_package_has_the_libraries_alone(tmp_path: Path) -> None:
    path = tmp_path / "nvidia_x-12.0-py3-none-manylinux2014_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nvidia/x/lib/libx.so.12", b"\x7fELF")
        archive.writestr("nvidia/x/lib/__init__.py", b"")
        archive.writestr("nvidia/x/include/x.h", b"")
        archive.writestr("nvidia_x-12.0.dist-info/WHEEL", "Root-Is-Purelib: true\n")
        archive.writestr("nvidia_x-12.0.dist-info/METADATA", "Name: x\nVersion: 12.0\n")
    pin = Pin("2026-01", "nvidia-x", "12.0", path.name, "abcdef0123", "LicenseRef-X")
    package = gpu_package(open_wheel(path), pin, "cuda-x", WHEN)
    assert list(package.files) == ["lib/libx.so.12"]
    assert package.depends == ("__glibc >=2.17,<3.0.a0", "__cuda >=12")
