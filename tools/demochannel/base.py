"""The base root file system: a shell, the C library and root certificates, with nothing installed or configured."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from demochannel import tree
from demochannel.commands import find_tool, run
from demochannel.debian import Apt, Deb, control_fields, read_files
from demochannel.errors import DemoError
from demochannel.stamp import inputs_hash, locked, read_json, write_json
from demochannel.tree import Node

DEBS = (
    *("base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "debianutils", "findutils"),
    *("grep", "gzip", "hostname", "libacl1", "libattr1", "libc-bin", "libc6", "libcrypt1", "libgcc-s1", "libgmp10"),
    *("libpcre2-8-0", "libselinux1", "libtinfo6", "ncurses-base", "sed", "tar"),
)
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
DROPPED = ("usr/share/doc/", "usr/share/info/", "usr/share/locale/", "usr/share/man/", "usr/share/lintian/")
FOLDERS = {
    **dict.fromkeys(("boot", "dev", "etc", "home", "media", "mnt", "opt", "proc", "run", "srv", "sys"), 0o755),
    **dict.fromkeys(("usr/local/bin", "usr/local/lib", "var", "var/lib", "var/log", "var/cache"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}
CACHE = "etc/ld.so.cache"


def build_base(output: Path, work: Path, progress: Callable[[str], None]) -> Path:
    """Make the compressed tar archive, unless it is there already; return its path."""
    sources = output.with_name(f"{output.name}.sources.json")
    with locked(work):
        if is_complete(output, sources):
            progress(f"base: {output} is complete")
            return output
        if output.is_dir():
            raise DemoError(f"{output} is a directory: the base is one file")
        debs = Apt(work, progress).fetch(DEBS)
        progress(f"base: unpacking {len(debs)} packages")
        nodes = root_file_system(debs)
        nodes |= loader_cache(nodes, progress)
        data = tree.tar_zst_bytes(nodes, mtime=int(WHEN.timestamp()))
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = output.with_name(f".{output.name}.new")
        beside.write_bytes(data)
        beside.replace(output)
        write_json(
            sources,
            {
                "schema": 1,
                "inputs": inputs_hash("base"),
                "loader_cache": CACHE in nodes,
                "sha256": hashlib.sha256(data).hexdigest(),
                "sources": [deb.source for deb in debs.values()],
            },
        )
        progress(f"base: {len(nodes)} files, {len(data) / 1e6:.0f} MB")
    return output


def is_complete(output: Path, sources: Path) -> bool:
    """Say whether a file is the base that this code would make."""
    told = read_json(sources)
    if told.get("schema") != 1 or told.get("inputs") != inputs_hash("base") or not output.is_file():
        return False
    with output.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == told.get("sha256")


def root_file_system(debs: Mapping[str, Deb]) -> dict[str, Node]:
    """Return all files of the base, less the loader's cache."""
    nodes: dict[str, Node] = {}
    for deb in debs.values():
        for path, node in read_files(deb).items():
            place = merged_path(path)
            if place and is_wanted(place) and not (node.kind == "directory" and place in nodes):
                nodes[place] = node
        nodes[f"var/lib/dpkg/status.d/{deb.name}"] = tree.file(control_fields(deb).encode())
    nodes |= {folder: tree.link(f"usr/{folder}") for folder in MERGED if f"usr/{folder}" in nodes}
    nodes |= {folder: tree.directory(mode) for folder, mode in FOLDERS.items()}
    nodes |= configuration(nodes)
    return with_parents(nodes)


def merged_path(path: str) -> str:
    """Return where a file lies when `/bin`, `/lib` and the like are links into `/usr`; nothing for these themselves."""
    top, _, rest = path.partition("/")
    if top not in MERGED:
        return path
    return f"usr/{top}/{rest}" if rest else f"usr/{top}"


def is_wanted(path: str) -> bool:
    """Say whether a file belongs into the base: documents do not, licences do."""
    if path.startswith("usr/share/doc/") and path.endswith("/copyright"):
        return True
    return not f"{path}/".startswith(DROPPED)


def configuration(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Return what the packages' own scripts would make at installation."""
    certificates = [
        node.data.rstrip(b"\n") + b"\n"
        for path, node in sorted(nodes.items())
        if path.startswith("usr/share/ca-certificates/") and path.endswith(".crt")
    ]
    return {
        "etc/group": _copy(nodes, "usr/share/base-passwd/group.master"),
        "etc/hosts": tree.file(b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        "etc/nsswitch.conf": _copy(nodes, "usr/share/libc-bin/nsswitch.conf"),
        "etc/passwd": _copy(nodes, "usr/share/base-passwd/passwd.master"),
        "etc/ssl/certs/ca-certificates.crt": tree.file(b"".join(certificates)),
        "usr/lib/ssl/cert.pem": tree.link("/etc/ssl/certs/ca-certificates.crt"),
        "usr/lib/ssl/certs": tree.link("/etc/ssl/certs"),
        "var/run": tree.link("/run"),
    }


def with_parents(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Return the files with every folder above them."""
    complete = dict(nodes)
    for path in nodes:
        for parent in Path(path).parents:
            if str(parent) != ".":
                complete.setdefault(str(parent), tree.directory())
    return complete


def loader_cache(nodes: Mapping[str, Node], progress: Callable[[str], None]) -> dict[str, Node]:
    """Return the loader's cache file, or nothing where it cannot be made: the default folders work without it."""
    ldconfig = find_tool("ldconfig")
    if ldconfig is None:
        progress("base: no ldconfig here, so the base gets no loader cache")
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        _write_libraries(root, nodes)
        command = [ldconfig, "-X", "-i", "-r", scratch]
        unshare = find_tool("unshare")
        for attempt in (command, *([[unshare, "--user", "--map-root-user", *command]] if unshare else [])):
            try:
                run(attempt)
            except DemoError:
                continue
            return {CACHE: tree.file((root / CACHE).read_bytes())}
    progress("base: this user cannot run ldconfig -r, so the base gets no loader cache")
    return {}


def _write_libraries(root: Path, nodes: Mapping[str, Node]) -> None:
    links = tuple(path for path, node in nodes.items() if node.kind == "link" and path in MERGED)
    for path, node in sorted(nodes.items()):
        if not path.startswith(("etc/ld.so.conf", "usr/lib/", "usr/lib64/")) and path not in links:
            continue
        place = root / path
        if node.kind == "directory":
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if node.kind == "link":
            place.symlink_to(node.target)
        else:
            place.write_bytes(node.data)
            place.chmod(node.mode)


def _copy(nodes: Mapping[str, Node], path: str) -> Node:
    if path not in nodes:
        raise DemoError(f"the Debian packages hold no {path}")
    return tree.file(nodes[path].data)
