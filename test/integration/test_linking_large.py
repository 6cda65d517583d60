"""A package with a sparse file of 3 GiB: streamed from the archive to the layer, in bounded memory."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import pytest
import zstandard

from support.packages import Package
from support.require import ROOT

pytestmark = pytest.mark.integration

SIZE = 3 << 30
DIGEST = "305b66a59d15b252092fbda9d09711230c429f351897cbd430e7b55a35fd3b97"
MEMORY = 300 << 20

STREAMED = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from lockyard.conda.archive import unpack
from lockyard.extracted import DirectoryReader
from lockyard.oci.contents import read_manifest
from lockyard.oci.linking import Linker
from lockyard.oci.tar import write_layer
from support.packages import Package

archive, place = map(Path, sys.argv[1:])
unpack(archive, place / "big-1.0-0")
package = Package("big").locked()
reader = DirectoryReader(place / "big-1.0-0")
manifest = read_manifest(package, reader, None)
written = []
with ThreadPoolExecutor(2) as executor:
    blob = write_layer(
        Linker("/opt/conda").entries(manifest, {}, reader), lambda data: written.append(len(data)),
        compression="zstd", executor=executor,
    )
# Of this program alone: ru_maxrss knows what the process was before it began this one, too.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"uncompressed": blob.uncompressed, "size": sum(written), "peak": peak}))
"""


_ZEROS = bytes(1 << 14)


class Zeros(io.RawIOBase):
    """SIZE zero bytes."""

    def __init__(self) -> None:
        self.left = SIZE

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return _ZEROS if size == len(_ZEROS) else bytes(size)


def write_archive(path: Path) -> None:
    package = Package("big")
    paths = [{"_path": "share/big.bin", "path_type": "hardlink", "sha256": DIGEST, "size_in_bytes": SIZE}]
    info = {"info/index.json": package.index(), "info/paths.json": {"paths": paths, "paths_version": 1}}
    with zipfile.ZipFile(path, "w") as outer:
        compressor = zstandard.ZstdCompressor(1)
        with (
            outer.open("pkg-big-1.0-0.tar.zst", "w") as raw,
            compressor.stream_writer(raw) as stream,
            tarfile.open(fileobj=cast("IO[bytes]", stream), mode="w|", bufsize=1 << 20) as tar,
        ):
            member = tarfile.TarInfo("share/big.bin")
            member.size = SIZE
            tar.addfile(member, cast("Any", Zeros()))
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, value in info.items():
                data = json.dumps(value).encode()
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        outer.writestr("info-big-1.0-0.tar.zst", zstandard.ZstdCompressor().compress(out.getvalue()))


def test_a_sparse_file_of_3_gib_is_streamed(tmp_path: Path) -> None:
    archive = tmp_path / "big-1.0-0.conda"
    write_archive(archive)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("src", "test", "tools"))}
    done = subprocess.run(
        [sys.executable, "-c", STREAMED, str(archive), str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    file = (tmp_path / "big-1.0-0/share/big.bin").stat()
    assert file.st_size == SIZE
    assert file.st_blocks * 512 < 1 << 20, "the zeros are holes"
    assert result["uncompressed"] > SIZE
    assert result["size"] < 1 << 20
    assert result["peak"] < MEMORY
