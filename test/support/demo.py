"""The demo channel and the demo base for tests; made once, kept between runs."""

import functools
import json
import os
from pathlib import Path

from demochannel.base import build_base
from demochannel.channel import build_channel
from lockyard.conda.archive import unpack
from lockyard.conda.lock import LockedPackage
from support.require import ROOT, need


def demo_cache() -> Path:
    """Where downloads and results are kept between runs."""
    need("debian")
    return Path(os.environ.get("LOCKYARD_TEST_CACHE") or ROOT / ".cache") / "demochannel"


@functools.cache
def demo_channel() -> Path:
    """The directory of the editions."""
    cache = demo_cache()
    return build_channel(cache / "channel", cache / "work", print)


@functools.cache
def demo_base() -> Path:
    """The base root file system, a `.tar.zst`."""
    cache = demo_cache()
    return build_base(cache / "base.tar.zst", cache / "work", print)


PYTHON = (
    "libgcc", "libstdcxx", "libzlib", "bzip2", "libexpat", "libffi", "liblzma", "libuuid", "libxcrypt", "ncurses",
    "openssl", "readline", "libsqlite", "tzdata", "ca-certificates", "python",
)  # fmt: skip
"""Python and all that it needs, in install order."""


def demo_packages(place: Path, *names: str) -> list[tuple[LockedPackage, Path]]:
    """Return packages of the first edition in install order, with the directories that they are extracted to."""
    found = []
    channel = demo_channel() / "2026-01"
    for subdir in ("linux-64", "noarch"):
        records = json.loads((channel / subdir / "repodata.json").read_text())["packages.conda"]
        for file_name, record in records.items():
            if record["name"] in names:
                fields = {key: value for key, value in record.items() if key in LockedPackage.__dataclass_fields__}
                lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
                url = f"file:channel/{subdir}/{file_name}"
                package = LockedPackage(**{**fields, **lists, "url": url, "channel": "channel"})
                if not (place / package.dist).exists():
                    unpack(channel / subdir / file_name, place / package.dist)
                found.append((package, place / package.dist))
    return sorted(found, key=lambda item: names.index(item[0].name))
