"""A directory of package files, effects: for packages that no channel has any more, or whose lock has no hash."""

import dataclasses
import hashlib
from pathlib import Path
from urllib.parse import unquote

from lockyard.conda.lock import LockedPackage
from lockyard.errors import HashMismatchError

_CHUNK = 1 << 20


def is_reachable(package: LockedPackage) -> bool:
    """Tell whether the file of an absolute `file:` address is there; every other address is left to the fetch."""
    return not package.url.startswith("file:///") or Path(unquote(package.url.removeprefix("file://"))).is_file()


def take(package: LockedPackage, directory: Path, *, where: str) -> tuple[LockedPackage, Path] | None:
    """Return the package with the hash and the size of its file in `directory`, and the file; `None` when it is not there.

    The file goes by the name in the package's address. `where` is the lock's `file:line`, for the message.

    Raises:
        HashMismatchError: the lock has a hash, and it is another.

    """
    path = directory / unquote(package.file_name)
    if not path.is_file():
        return None
    states = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            for state in states.values():
                state.update(chunk)
    found = {kind: state.hexdigest() for kind, state in states.items()}
    for kind, expected in (("sha256", package.sha256), ("md5", package.md5)):
        if expected is not None and expected != found[kind]:
            raise HashMismatchError(
                f"{where}: {path} is another package than the one of the lock",
                details=(f"{kind} in the lock: {expected}", f"{kind} of the file: {found[kind]}"),
            )
    return dataclasses.replace(package, sha256=found["sha256"], md5=found["md5"], size=path.stat().st_size), path
