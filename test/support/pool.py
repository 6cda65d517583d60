"""The packages of a built image as files of their own: what a classic Dockerfile's stand-in for a package manager installs."""

import io
import json
import tarfile
from pathlib import Path

from lockyard.oci.layout import read_layout
from lockyard.unpack import unpack_layers


def pool_of(layout: Path, work: Path, installer: bytes) -> bytes:
    """Return a tar with `install-env`, and below `/pool` the files of each package of the image at `layout` with its record."""
    found = read_layout(layout)
    root = work / "pool-root"
    root.mkdir()
    unpack_layers([(layer, found.blob(layer.descriptor.digest)) for layer in found.image.layers], root, owners=False)
    prefix = root / "opt/conda"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("usr/bin/install-env")
        member.size, member.mode = len(installer), 0o755
        archive.addfile(member, io.BytesIO(installer))
        for record in sorted((prefix / "conda-meta").glob("*.json")):
            place = f"pool/{record.name.removesuffix('.json')}"
            for name in [f"conda-meta/{record.name}", *json.loads(record.read_bytes())["files"]]:
                archive.add(prefix / name, f"{place}/{name}", recursive=False, filter=_of_root)
    return out.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
