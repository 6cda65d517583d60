"""The 164 real releases of a public distribution beside the project, as texts."""

import functools
import tarfile
from collections.abc import Mapping

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
