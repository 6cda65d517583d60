"""Conda packages of shared libraries, made from Debian packages."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from demochannel.debian import Deb, read_files, upstream_version
from demochannel.elf import with_run_paths
from demochannel.packages import Package
from demochannel.tree import Node

GLIBC = "__glibc >=2.36,<3.0.a0"
LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/gcc/x86_64-linux-gnu/12")


@dataclass(frozen=True, slots=True)
class Library:
    """A conda package and the Debian packages that its files come from; the first one gives the version."""

    name: str
    debs: tuple[str, ...]
    license: str
    summary: str
    depends: tuple[str, ...] = ()


LIBRARIES = (
    Library("bzip2", ("libbz2-1.0",), "bzip2-1.0.6", "High-quality data compressor"),
    Library("libexpat", ("libexpat1",), "MIT", "Stream-oriented XML parser"),
    Library("libffi", ("libffi8",), "MIT", "Foreign function interface"),
    Library("libgcc", ("libgcc-s1",), "GPL-3.0-only WITH GCC-exception-3.1", "The GCC support library"),
    Library("liblzma", ("liblzma5",), "0BSD", "XZ-format compression"),
    Library("libsqlite", ("libsqlite3-0",), "blessing", "SQL database engine", ("libzlib",)),
    Library("libstdcxx", ("libstdc++6",), "GPL-3.0-only WITH GCC-exception-3.1", "The C++ library", ("libgcc",)),
    Library("libuuid", ("libuuid1",), "BSD-3-Clause", "Universally unique identifiers"),
    Library("libxcrypt", ("libcrypt1",), "LGPL-2.1-or-later", "One-way password hashing"),
    Library("libzlib", ("zlib1g",), "Zlib", "Massively spiffy yet delicately unobtrusive compression"),
    Library("ncurses", ("libtinfo6", "libncursesw6"), "X11 AND BSD-3-Clause", "Terminal handling"),
    Library("openssl", ("libssl3",), "Apache-2.0", "TLS and cryptography", ("ca-certificates",)),
    Library("readline", ("libreadline8",), "GPL-3.0-only", "Line editing", ("ncurses",)),
)


def library_package(library: Library, debs: Mapping[str, Deb], timestamp: datetime) -> Package:
    """Make one package: the shared libraries go to `lib`, and find each other there."""
    files: dict[str, Node] = {}
    info: dict[str, bytes] = {}
    for name in library.debs:
        content = read_files(debs[name])
        files |= shared_libraries(content)
        copyright_file = content.get(f"usr/share/doc/{name}/copyright")
        if copyright_file and copyright_file.kind == "file":
            info[f"licenses/{name}.txt"] = copyright_file.data
    first = debs[library.debs[0]]
    return Package(
        name=library.name,
        version=upstream_version(first.version),
        build_prefix=f"h{first.sha256[:7]}",
        timestamp=timestamp,
        license=library.license,
        summary=library.summary,
        depends=(GLIBC, *library.depends),
        files=with_run_paths(files),
        info=info,
    )


def shared_libraries(content: Mapping[str, Node]) -> dict[str, Node]:
    """Pick the libraries of a Debian package: what lies directly in one of its library folders."""
    return {
        f"lib/{posixpath.basename(path)}": node
        for path, node in content.items()
        if node.kind != "directory" and posixpath.dirname(path) in LIBRARY_FOLDERS
    }
