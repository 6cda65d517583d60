"""CPython from Debian packages, put back into the layout that Python has everywhere else."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from fnmatch import fnmatch

from demochannel import tree
from demochannel.debian import Deb, read_files, upstream_version
from demochannel.elf import with_run_paths
from demochannel.errors import DemoError
from demochannel.libraries import GLIBC
from demochannel.packages import PLACEHOLDER, Package
from demochannel.tree import Node

PYTHON = "3.11"
STDLIB = f"lib/python{PYTHON}"
DEBS = (f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib")
NEEDED_LIBRARIES = (
    "bzip2",
    "libexpat",
    "libffi",
    "libgcc",
    "liblzma",
    "libsqlite",
    "libuuid",
    "libxcrypt",
    "libzlib",
    "ncurses",
    "openssl",
    "readline",
)
DROPPED = ("EXTERNALLY-MANAGED", "sitecustomize.py", "lib-dynload/_dbm*", "lib-dynload/nis*")


def python_package(debs: Mapping[str, Deb], timestamp: datetime) -> Package:
    """Make the interpreter's package."""
    content: dict[str, Node] = {}
    for name in DEBS:
        content |= read_files(debs[name])
    main = debs[DEBS[0]]
    return Package(
        name="python",
        version=upstream_version(main.version),
        build_prefix=f"h{main.sha256[:7]}",
        build_suffix="_cpython",
        timestamp=timestamp,
        license="Python-2.0",
        summary="General purpose programming language",
        home="https://www.python.org/",
        depends=(GLIBC, *NEEDED_LIBRARIES, "tzdata"),
        constrains=(f"python_abi {PYTHON}.* *_cp{PYTHON.replace('.', '')}",),
        extra_index={"python_site_packages_path": f"{STDLIB}/site-packages"},
        files=with_run_paths(relocated(content)),
        info={"licenses/copyright.txt": content[f"usr/share/doc/{DEBS[1]}/copyright"].data},
    )


def python_abi_package(timestamp: datetime) -> Package:
    """Make the empty package that says which interpreters compiled packages work with."""
    return Package(
        name="python_abi",
        version=PYTHON,
        build_prefix="",
        build_number=8,
        build_suffix=f"_cp{PYTHON.replace('.', '')}",
        timestamp=timestamp,
        license="BSD-3-Clause",
        summary="Metapackage to select the Python ABI",
        constrains=(f"python {PYTHON}.* *_cpython",),
        noarch="generic",
    )


def relocated(content: Mapping[str, Node]) -> dict[str, Node]:
    """Return the interpreter's files at their places in an environment, with Debian's own layout undone."""
    root = f"usr/{STDLIB}/"
    files = {
        f"{STDLIB}/{path.removeprefix(root)}": node
        for path, node in content.items()
        if path.startswith(root)
        and node.kind != "directory"
        and not any(fnmatch(path.removeprefix(root), pattern) for pattern in DROPPED)
    }
    files[f"bin/python{PYTHON}"] = _edited(content, f"usr/bin/python{PYTHON}", _with_site_packages)
    files["bin/python"] = files["bin/python3"] = tree.link(f"python{PYTHON}")
    files[f"{STDLIB}/site-packages/README.txt"] = tree.file(
        b"This directory exists so that 3rd party packages can be installed here.\n"
    )
    files[f"{STDLIB}/site.py"] = _edited(files, f"{STDLIB}/site.py", _plain_site)
    files[f"{STDLIB}/sysconfig.py"] = _edited(files, f"{STDLIB}/sysconfig.py", _plain_sysconfig)
    for path in [path for path in files if fnmatch(path, f"{STDLIB}/_sysconfigdata__x86_64*.py")]:
        files[path] = _edited(files, path, _relocatable_sysconfigdata)
    return files


def _edited(files: Mapping[str, Node], path: str, edit: Callable[[bytes], bytes]) -> Node:
    before = files[path]
    after = edit(before.data)
    if after == before.data:
        raise DemoError(f"{path} is not what Debian 12 ships: its Debian-only parts were not found")
    return replace(before, data=after)


def _with_site_packages(data: bytes) -> bytes:
    # The `site` module is frozen into the interpreter: the new folder name has the same length.
    return data.replace(b"dist-packages", b"site-packages")


def _plain_site(data: bytes) -> bytes:
    text = data.decode()
    start = text.find("            if is_virtual_environment:\n")
    last = text.find("            # this one is deprecated for Debian", start)
    end = text.find("\n", last) + 1
    if min(start, last) < 0:
        return data
    return (text[:start] + text[end:]).replace('"dist-packages")', '"site-packages")').encode()


def _plain_sysconfig(data: bytes) -> bytes:
    return re.sub(rb"prefix_scheme = '(posix_local|deb_system)'", b"prefix_scheme = 'posix_prefix'", data)


def _relocatable_sysconfigdata(data: bytes) -> bytes:
    text = data.decode()
    for before, after in (
        ("'/usr/", f"'{PLACEHOLDER}/"),
        ("'/usr'", f"'{PLACEHOLDER}'"),
        ("=/usr/", f"={PLACEHOLDER}/"),
    ):
        text = text.replace(before, after)
    return text.encode()
