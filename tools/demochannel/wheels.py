"""Conda packages made from wheels."""

import base64
import configparser
import csv
import email.message
import email.parser
import hashlib
import io
import posixpath
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

from demochannel import tree
from demochannel.errors import DemoError
from demochannel.interpreter import PYTHON
from demochannel.packages import PLACEHOLDER, Package
from demochannel.pins import Pin
from demochannel.tree import Node

# PyPI name -> conda name, where they differ.
CONDA_NAMES = {"tzdata": "python-tzdata"}
# What the markers of a dependency are evaluated for: never the machine that this runs on.
TARGET = {
    "implementation_name": "cpython",
    "implementation_version": f"{PYTHON}.0",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": f"{PYTHON}.0",
    "python_version": PYTHON,
    "sys_platform": "linux",
    "extra": "",
}
# A library that an extension module asks for -> the conda package that has it.
RUNTIME_LIBRARIES = {b"libgcc_s.so.1": "libgcc", b"libstdc++.so.6": "libstdcxx"}
SITE_PACKAGES = f"lib/python{PYTHON}/site-packages"
DATA_PATH = re.compile(r"[^/]+\.data/(?P<scheme>\w+)/(?P<rest>.+)")
ENTRY_POINT = """\
#!{prefix}/bin/python{python}
# -*- coding: utf-8 -*-
import re
import sys

from {module} import {first}

if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit({function}())
"""


@dataclass(frozen=True, slots=True)
class Wheel:
    """An opened wheel."""

    name: str
    dist_info: str
    metadata: email.message.Message
    pure: bool
    glibc: str
    files: Mapping[str, Node]

    @property
    def entry_points(self) -> tuple[str, ...]:
        """The commands that the wheel brings, as `name = module:function`."""
        node = self.files.get(f"{self.dist_info}/entry_points.txt")
        return console_scripts(node.data.decode()) if node else ()


def open_wheel(path: Path) -> Wheel:
    """Read a wheel into memory."""
    files = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                mode = 0o755 if (member.external_attr >> 16) & 0o111 else 0o644
                files[member.filename] = tree.file(archive.read(member), mode)
    dist_info = next((name.split("/")[0] for name in files if name.split("/")[0].endswith(".dist-info")), "")
    if not dist_info:
        raise DemoError(f"{path.name} has no .dist-info folder")
    described = _headers(files[f"{dist_info}/WHEEL"])
    tags = [tag.platform for tag in parse_wheel_filename(path.name)[3]]
    return Wheel(
        name=path.name,
        dist_info=dist_info,
        metadata=_headers(files[f"{dist_info}/METADATA"]),
        pure=str(described["Root-Is-Purelib"]).lower() == "true",
        glibc=oldest_glibc(tags),
        files=files,
    )


def wheel_package(wheel: Wheel, pin: Pin, timestamp: datetime) -> Package:
    """Make a Python package: noarch from a pure wheel, for one interpreter from any other."""
    name = conda_name(pin.name)
    site = "site-packages" if wheel.pure else SITE_PACKAGES
    files = placed_files(wheel, name)
    depends = dependencies(wheel.metadata.get_all("Requires-Dist") or [])
    if wheel.pure:
        depends = (conda_spec("python", SpecifierSet(str(wheel.metadata["Requires-Python"] or ""))), *depends)
    else:
        next_minor = ".".join((PYTHON.split(".")[0], str(int(PYTHON.split(".")[1]) + 1)))
        depends = (
            f"__glibc >={wheel.glibc},<3.0.a0",
            f"python >={PYTHON},<{next_minor}.0a0",
            f"python_abi {PYTHON}.* *_cp{PYTHON.replace('.', '')}",
            *runtime_libraries(files.values()),
            *depends,
        )
        files |= {f"bin/{script.split(' = ')[0]}": entry_point_script(script) for script in wheel.entry_points}
    files[f"{site}/{wheel.dist_info}/INSTALLER"] = tree.file(b"conda\n")
    files[f"{site}/{wheel.dist_info}/RECORD"] = tree.file(record(files, site, wheel.dist_info))
    return Package(
        name=name,
        version=pin.version,
        build_prefix="pyhd8ed1ab" if wheel.pure else f"py{PYTHON.replace('.', '')}h{pin.sha256[:7]}",
        build_number=pin.build_number,
        timestamp=timestamp,
        license=pin.license,
        summary=str(wheel.metadata["Summary"] or ""),
        home=str(wheel.metadata["Home-page"] or ""),
        depends=depends,
        noarch="python" if wheel.pure else None,
        entry_points=wheel.entry_points if wheel.pure else (),
        files=files,
        info=license_files(wheel),
    )


def gpu_package(wheel: Wheel, pin: Pin, name: str, timestamp: datetime) -> Package:
    """Make a package of the shared libraries of an NVIDIA wheel, in `lib` as conda has them."""
    libraries = {f"lib/{posixpath.basename(path)}": node for path, node in wheel.files.items() if "/lib/lib" in path}
    return Package(
        name=name,
        version=pin.version,
        build_prefix=f"h{pin.sha256[:7]}",
        build_number=pin.build_number,
        timestamp=timestamp,
        license=pin.license,
        summary=str(wheel.metadata["Summary"] or ""),
        home=str(wheel.metadata["Home-page"] or ""),
        depends=(f"__glibc >={wheel.glibc},<3.0.a0", "__cuda >=12", *runtime_libraries(libraries.values())),
        files=libraries,
        info=license_files(wheel),
    )


def placed_files(wheel: Wheel, name: str) -> dict[str, Node]:
    """Return the wheel's files at the places that they have in a conda package."""
    site = "site-packages" if wheel.pure else SITE_PACKAGES
    places = {
        "data": "",
        "headers": f"include/python{PYTHON}/{name}/",
        "platlib": f"{site}/",
        "purelib": f"{site}/",
        "scripts": "python-scripts/" if wheel.pure else "bin/",
    }
    placed = {}
    for path, node in wheel.files.items():
        match = DATA_PATH.fullmatch(path)
        if match is None:
            placed[f"{site}/{path}"] = node
        elif match["scheme"] == "scripts":
            placed[places["scripts"] + match["rest"]] = tree.file(with_prefix_shebang(node.data), 0o755)
        else:
            placed[places[match["scheme"]] + match["rest"]] = node
    return placed


def conda_name(name: str) -> str:
    """Return the conda name of a PyPI project."""
    canonical = canonicalize_name(name)
    return CONDA_NAMES.get(canonical, canonical)


def conda_spec(name: str, specifiers: SpecifierSet) -> str:
    """Return a conda dependency: `numpy <3,>=1.23`."""
    ranges = ",".join(sorted(str(each).replace("===", "==") for each in specifiers))
    return f"{name} {ranges}".strip()


def dependencies(requirements: Iterable[str]) -> tuple[str, ...]:
    """Translate a wheel's requirements; those of extras and of other platforms are left out."""
    found = []
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(TARGET):
            found.append(conda_spec(conda_name(wanted.name), wanted.specifier))
    return tuple(sorted(found))


def console_scripts(text: str) -> tuple[str, ...]:
    """Read the commands out of an `entry_points.txt`."""
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read_string(text)
    return tuple(
        f"{name} = {goal.split('[')[0].strip()}"
        for section in ("console_scripts", "gui_scripts")
        if parser.has_section(section)
        for name, goal in parser.items(section)
    )


def entry_point_script(entry_point: str) -> Node:
    """Return the script of one command, as conda writes it."""
    module, function = entry_point.split(" = ")[1].split(":")
    text = ENTRY_POINT.format(
        prefix=PLACEHOLDER, python=PYTHON, module=module, first=function.split(".")[0], function=function
    )
    return tree.file(text.encode(), 0o755)


def with_prefix_shebang(data: bytes) -> bytes:
    """Replace the `#!python` line that wheels use for scripts."""
    return re.sub(rb"\A#!pythonw?", f"#!{PLACEHOLDER}/bin/python".encode(), data)


def runtime_libraries(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Return the packages of compiler libraries that some of the files need."""
    nodes = list(nodes)
    return tuple(
        package
        for library, package in RUNTIME_LIBRARIES.items()
        if any(node.data.startswith(b"\x7fELF") and library in node.data for node in nodes)
    )


def oldest_glibc(platforms: Iterable[str]) -> str:
    """Return the lowest glibc that a wheel says it runs on."""
    modern = [match for platform in platforms if (match := re.match(r"manylinux_(\d+)_(\d+)_", platform))]
    versions = [(int(match[1]), int(match[2])) for match in modern]
    return "{}.{}".format(*min(versions, default=(2, 17)))


def license_files(wheel: Wheel) -> dict[str, bytes]:
    """Return the licence texts for the package's `info` folder."""
    pattern = re.compile(
        rf"{re.escape(wheel.dist_info)}/(licenses/)?(?P<name>(LICEN[CS]E|COPYING|NOTICE|License)[^/]*)"
    )
    found = ((pattern.fullmatch(path), node) for path, node in sorted(wheel.files.items()))
    return {f"licenses/{match['name']}": node.data for match, node in found if match}


def record(files: Mapping[str, Node], site: str, dist_info: str) -> bytes:
    """Return the `RECORD` of an installed wheel: what pip and importlib.metadata read."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    own = f"{dist_info}/RECORD"
    inside = {posixpath.relpath(path, site): node for path, node in files.items() if path.startswith(f"{site}/")}
    for path in sorted({*inside, own}):
        if path == own:
            writer.writerow((path, "", ""))
        else:
            data = inside[path].data
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            writer.writerow((path, f"sha256={digest}", len(data)))
    return text.getvalue().encode()


def _headers(node: Node) -> email.message.Message:
    return email.parser.Parser().parsestr(node.data.decode())
