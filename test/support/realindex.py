"""The shared real channel index, 28,198 records, as the cached index of `conda-forge`."""

from pathlib import Path

import zstandard

from lockyard.conda.channels import parse_channel
from lockyard.conda.indexes import index_path
from support.require import SHARED, need


def seed_index(cache_dir: Path, channel: str = "conda-forge") -> None:
    """Put the shared index into a cache, so that `--offline` solves against it; skips where it is not to be had."""
    need("realdata")
    for subdir in ("linux-64", "linux-aarch64", "noarch"):
        target = index_path(cache_dir, parse_channel(channel, source="test"), subdir)
        target.parent.mkdir(parents=True, exist_ok=True)
        with (SHARED / "conda-index" / subdir / "repodata.json.zst").open("rb") as stream, target.open("wb") as out:
            zstandard.ZstdDecompressor().copy_stream(stream, out)
