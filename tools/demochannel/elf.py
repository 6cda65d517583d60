"""ELF files that find their libraries in the environment that they are installed in."""

import posixpath
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from demochannel.commands import need_tool, run
from demochannel.tree import Node

MAGIC = b"\x7fELF"


def run_path(path: str) -> str:
    """Return the search path of a file at `path`, so that it finds `lib` of its own environment."""
    way = posixpath.relpath("lib", posixpath.dirname(path) or ".")
    return "$ORIGIN" if way == "." else f"$ORIGIN/{way}"


def with_run_paths(files: Mapping[str, Node]) -> dict[str, Node]:
    """Return the files, the ELF ones among them with their search path set."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path, node in sorted(files.items()):
        if node.kind == "file" and node.data.startswith(MAGIC):
            groups[run_path(path)].append(path)
    result = dict(files)
    with tempfile.TemporaryDirectory() as scratch:
        for search, paths in groups.items():
            copies = [Path(scratch, str(number)) for number in range(len(paths))]
            for path, copy in zip(paths, copies, strict=True):
                copy.write_bytes(files[path].data)
            run([need_tool("patchelf"), "--force-rpath", "--set-rpath", search, *copies])
            for path, copy in zip(paths, copies, strict=True):
                result[path] = replace(files[path], data=copy.read_bytes())
    return result
