"""The 164 real releases of a public distribution beside the project, as texts."""

import functools
import tarfile
from collections.abc import Mapping
from pathlib import Path

from support.require import SHARED, need


@functools.cache
def upstream_texts() -> Mapping[str, str]:
    """Path → text of every file of the real releases; skips the test where they are not to be had."""
    need("realdata")
    with tarfile.open(SHARED / "upstream-releases.tar.xz") as archive:
        return {
            member.name.removeprefix("./"): stream.read().decode()
            for member in archive
            if (stream := archive.extractfile(member) if member.isfile() else None) is not None
        }


def upstream_distribution(root: Path, *, channel: bool = False) -> Path:
    """Write the real releases as a distribution; `channel` adds the real channel index as `file:channel`."""
    need("realdata")
    with tarfile.open(SHARED / "upstream-releases.tar.xz") as archive:
        archive.extractall(root, filter="data")
    text = 'name = "upstream"\ntitle = "Upstream distribution"\n[support]\nmajor = 24\nminor = 6\n'
    (root / "lockyard.toml").write_text(text)
    for major in (0, 1, 2):
        place = root / "template" / f"v{major}"
        place.mkdir(parents=True)
        channels = '["file:channel"]' if channel else '["conda-forge"]'
        (place / "variants.toml").write_text(f"schema = 1\nchannels = {channels}\n[variants.cpu]\n[variants.gpu]\n")
    if channel:
        (root / "channel").symlink_to(SHARED / "conda-index")
    return root
