"""The demo channel and the demo base for tests; made once, kept between runs."""

import functools
import os
from pathlib import Path

from demochannel.base import build_base
from demochannel.channel import build_channel
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
