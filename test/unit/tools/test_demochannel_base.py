"""Debian packages: versions, places and what the base keeps of them."""

import io
import tarfile
from pathlib import Path

import pytest

from demochannel import tree
from demochannel.base import configuration, is_complete, is_wanted, merged_path, with_parents
from demochannel.debian import parse_policy, upstream_version
from demochannel.elf import run_path
from demochannel.errors import DemoError
from demochannel.interpreter import relocated
from demochannel.libraries import shared_libraries


@pytest.mark.parametrize(
    ("debian", "upstream"),
    [
        ("1:1.2.13.dfsg-1", "1.2.13"),
        ("3.0.17-1~deb12u2", "3.0.17"),
        ("3.40.1-2+deb12u1", "3.40.1"),
        ("6.4-4", "6.4"),
        ("8.2-1.3", "8.2"),
        ("1.0.8-5+b1", "1.0.8"),
        ("1:4.4.33-2", "4.4.33"),
    ],
)
def test_upstream_version(debian: str, upstream: str) -> None:
    assert upstream_version(debian) == upstream


def test_upstream_version_needs_a_number() -> None:
    with pytest.raises(DemoError, match="no release number"):
        upstream_version("dfsg-1")


def test_policy_is_read() -> None:
    text = (
        "libc6:\n  Installed: 2.36-9\n  Candidate: 2.36-9+deb12u10\n  Version table:\n     2.36-9 500\n"
        "libssl3t64:\n  Installed: (none)\n  Candidate: (none)\nzlib1g:amd64:\n  Candidate: 1:1.2-1\n"
    )
    assert parse_policy(text) == {"libc6": "2.36-9+deb12u10", "zlib1g": "1:1.2-1"}


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("bin", "usr/bin"),
        ("bin/sh", "usr/bin/sh"),
        ("lib64/ld.so", "usr/lib64/ld.so"),
        ("binary/x", "binary/x"),
        ("usr/bin/a", "usr/bin/a"),
    ],
)
def test_merged_path(path: str, place: str) -> None:
    assert merged_path(path) == place


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("usr/share/doc/bash/copyright", True),
        ("usr/share/doc/bash/NEWS.gz", False),
        ("usr/share/doc", False),
        ("usr/share/man/man1/a.1", False),
        ("usr/share/manual", True),
        ("usr/bin/bash", True),
    ],
)
def test_is_wanted(path: str, wanted: bool) -> None:
    assert is_wanted(path) is wanted


def test_configuration_bundles_the_certificates() -> None:
    nodes = {
        "usr/share/ca-certificates/mozilla/B.crt": tree.file(b"B"),
        "usr/share/ca-certificates/mozilla/A.crt": tree.file(b"A\n\n"),
        "usr/share/base-passwd/group.master": tree.file(b"root:*:0:\n"),
        "usr/share/base-passwd/passwd.master": tree.file(b"root:*:0:0::/root:/bin/bash\n"),
        "usr/share/libc-bin/nsswitch.conf": tree.file(b"hosts: files dns\n"),
    }
    made = configuration(nodes)
    assert made["etc/ssl/certs/ca-certificates.crt"].data == b"A\nB\n"
    assert made["etc/passwd"].data.startswith(b"root:")
    del nodes["usr/share/libc-bin/nsswitch.conf"]
    with pytest.raises(DemoError, match="nsswitch"):
        configuration(nodes)


def test_with_parents_keeps_what_is_there() -> None:
    nodes = with_parents({"a/b/c": tree.file(b""), "a": tree.directory(0o700)})
    assert {path: node.mode for path, node in nodes.items() if node.kind == "directory"} == {"a": 0o700, "a/b": 0o755}


def test_tar_is_sorted_by_component() -> None:
    nodes = {"a-b": tree.file(b""), "a/b": tree.file(b""), "a": tree.directory(0o1777), "l": tree.link("a")}
    with tarfile.open(fileobj=io.BytesIO(tree.tar_bytes(nodes, mtime=5))) as archive:
        assert archive.getnames() == ["a", "a/b", "a-b", "l"]
        assert archive.getmember("a").mode == 0o1777
        assert archive.getmember("l").linkname == "a"


def test_nothing_is_not_complete(tmp_path: Path) -> None:
    assert not is_complete(tmp_path / "base.tar.zst", tmp_path / "sources.json")


@pytest.mark.parametrize(
    ("path", "search"),
    [("lib/a.so", "$ORIGIN"), ("bin/python", "$ORIGIN/../lib"), ("lib/python3.11/lib-dynload/a.so", "$ORIGIN/../..")],
)
def test_run_path(path: str, search: str) -> None:
    assert run_path(path) == search


def test_shared_libraries_are_picked_from_their_folders() -> None:
    content = {
        "lib/x86_64-linux-gnu": tree.directory(),
        "lib/x86_64-linux-gnu/libz.so.1": tree.link("libz.so.1.2"),
        "usr/lib/x86_64-linux-gnu/engines/x.so": tree.file(b""),
        "usr/share/doc/copyright": tree.file(b""),
    }
    assert list(shared_libraries(content)) == ["lib/libz.so.1"]


def test_an_unknown_interpreter_is_refused() -> None:
    with pytest.raises(DemoError, match="not what Debian 12 ships"):
        relocated({"usr/bin/python3.11": tree.file(b"\x7fELF")})
