"""The writer of `.conda` packages: metadata, placeholders, and the same bytes every time."""

import hashlib
import io
import json
import tarfile
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard

from demochannel import tree
from demochannel.packages import (
    PLACEHOLDER,
    PLACEHOLDER_BYTES,
    Package,
    archive,
    paths_json,
    placeholder_mode,
    repodata,
    repodata_record,
)

WHEN = datetime(2026, 1, 15, tzinfo=UTC)


def sample(**changes: Any) -> Package:
    values: dict[str, Any] = {
        "name": "sample",
        "version": "1.2",
        "build_prefix": "h0",
        "timestamp": WHEN,
        "license": "MIT",
        "depends": ("zlib", "bzip2"),
        "files": {
            "bin/tool": tree.file(f"#!{PLACEHOLDER}/bin/sh\n".encode(), 0o755),
            "lib/a.so": tree.file(b"\0" + PLACEHOLDER_BYTES + b"\0", 0o755),
            "lib/b.so": tree.link("a.so"),
            "lib/nowhere": tree.link("missing"),
            "share/empty": tree.file(b"", 0o664),
        },
    }
    return Package(**(values | changes))


def members(data: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        assert bundle.namelist()[0] == "metadata.json"
        for name in bundle.namelist()[1:]:
            plain = zstandard.ZstdDecompressor().decompress(bundle.read(name))
            with tarfile.open(fileobj=io.BytesIO(plain)) as content:
                for member in content:
                    stream = content.extractfile(member) if member.isfile() else None
                    found[member.name] = (member, stream.read() if stream else b"")
    return found


def test_placeholder_is_as_long_as_conda_wants() -> None:
    assert len(PLACEHOLDER) == 255


@pytest.mark.parametrize(
    ("data", "mode"),
    [(b"plain", None), (PLACEHOLDER_BYTES, "text"), (b"\0" + PLACEHOLDER_BYTES, "binary"), (b"\0", None)],
)
def test_placeholder_mode(data: bytes, mode: str | None) -> None:
    assert placeholder_mode(data) == mode


def test_same_package_gives_same_bytes_in_any_order() -> None:
    package = sample()
    turned = sample(files=dict(reversed(package.files.items())), depends=("bzip2", "zlib"))
    assert archive(package) == archive(turned)


def test_archive_members_are_sorted_owned_by_root_and_dated() -> None:
    found = members(archive(sample()))
    assert {(member.uid, member.gid, member.mtime) for member, _ in found.values()} == {(0, 0, int(WHEN.timestamp()))}
    payload = [name for name in found if not name.startswith("info/")]
    assert payload == sorted(payload, key=lambda name: name.split("/"))
    assert found["share/empty"][0].mode == 0o664
    assert found["lib/b.so"][0].linkname == "a.so"


def test_info_agrees_with_the_files() -> None:
    found = {name: data for name, (_, data) in members(archive(sample())).items()}
    index = json.loads(found["info/index.json"])
    assert index["timestamp"] == 1768435200000
    assert (index["build"], index["subdir"], index["depends"]) == ("h0_0", "linux-64", ["bzip2", "zlib"])
    assert found["info/files"].decode().splitlines() == sorted(sample().files)
    assert found["info/has_prefix"].decode().splitlines() == [
        f"{PLACEHOLDER} text bin/tool",
        f"{PLACEHOLDER} binary lib/a.so",
    ]
    assert "info/link.json" not in found


def test_paths_describe_links_by_what_they_lead_to() -> None:
    paths = {entry["_path"]: entry for entry in paths_json(sample())["paths"]}
    assert paths["lib/b.so"]["path_type"] == "softlink"
    assert paths["lib/b.so"]["sha256"] == paths["lib/a.so"]["sha256"]
    assert "file_mode" not in paths["lib/b.so"]
    assert paths["lib/nowhere"]["sha256"] == hashlib.sha256(b"").hexdigest()
    assert paths["lib/a.so"]["file_mode"] == "binary"
    assert paths["bin/tool"]["prefix_placeholder"] == PLACEHOLDER


def test_noarch_python_has_entry_points() -> None:
    package = sample(noarch="python", entry_points=("tool = pkg:main",), files={})
    link = json.loads(members(archive(package))["info/link.json"][1])
    assert link == {
        "noarch": {"entry_points": ["tool = pkg:main"], "type": "python"},
        "package_metadata_version": 1,
    }
    assert package.subdir == "noarch"


def test_build_string() -> None:
    assert sample(build_number=3).build == "h0_3"
    assert sample(build_prefix="", build_number=8, build_suffix="_cp311").build == "8_cp311"


def test_repodata_is_sorted_json_without_nulls() -> None:
    data = archive(sample(noarch="generic"))
    record = repodata_record(sample(noarch="generic"), data)
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["size"] == len(data)
    assert None not in record.values()
    text = repodata("noarch", {"b.conda": record, "a.conda": record})
    loaded = json.loads(text)
    assert list(loaded["packages.conda"]) == ["a.conda", "b.conda"]
    assert loaded["info"] == {"subdir": "noarch"}
    assert json.loads(repodata("noarch", {}))["packages.conda"] == {}
