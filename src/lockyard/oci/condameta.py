"""The packages that an image has: `conda-meta` read out of the layers' tars. No files are opened here."""

import json
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError

_MAX_RECORD = 64 << 20
Change = Mapping[str, bytes | None]
"""File name in `conda-meta` → its bytes, `None` when the layer removes it; the name `""` removes all that is below."""


def changes_of(layer: IO[bytes], prefix: str) -> Change:
    """Read what one layer's uncompressed tar does to `PREFIX/conda-meta` (whiteouts as in the OCI layer specification).

    Raises:
        BuildError: it is no tar.

    """
    place = f"{prefix.strip('/')}/conda-meta"
    above = {"/".join(place.split("/")[: depth + 1]) for depth in range(place.count("/") + 1)}
    found: dict[str, bytes | None] = {}
    try:
        with tarfile.open(fileobj=layer, mode="r|") as archive:
            for member in archive:
                name = posixpath.normpath(member.name).lstrip("/")
                directory, base = posixpath.split(name)
                if (base == ".wh..wh..opq" and (directory in above or not directory)) or (
                    base.startswith(".wh.") and posixpath.join(directory, base[4:]) in above
                ):
                    found = {"": None, **{key: value for key, value in found.items() if value is not None}}
                elif directory == place and base.startswith(".wh."):
                    found[base[4:]] = None
                elif directory == place and base.endswith(".json") and member.isfile() and member.size <= _MAX_RECORD:
                    content = archive.extractfile(member)
                    found[base] = content.read() if content is not None else b""
    except tarfile.TarError as error:
        raise BuildError(f"a layer is not a tar: {error}") from error
    return found


def packages_after(changes: Iterable[Change], start: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Return what is in `conda-meta` after all layers, bottom first: file name → bytes."""
    state = dict(start or {})
    for change in changes:
        if "" in change:
            state.clear()
        for name, data in change.items():
            if data is None:
                state.pop(name, None)
            else:
                state[name] = data
    return state


def check_against_lock(names: Iterable[str], wanted: Iterable[str], *, what: str) -> None:
    """Compare the packages of an image (`conda-meta` file names) with those of the lock (`NAME-VERSION-BUILD`).

    Raises:
        BuildError: they differ; every difference is in the details.

    """
    there, locked = {name.removesuffix(".json") for name in names}, set(wanted)
    details = [f"{name}: in the image, not in the lock" for name in sorted(there - locked)]
    details += [f"{name}: in the lock, not in the image" for name in sorted(locked - there)]
    if details:
        raise BuildError(
            f"{what} does not hold the packages of its lock: {len(details)} differences", details=details[:40],
            hint="the Dockerfile must install exactly what its ENV_IN_FILENAME names",
        )  # fmt: skip


def read_records(records: Mapping[str, bytes], *, what: str) -> tuple[LockedPackage, ...]:
    """Return the packages that `conda-meta` describes, sorted by name.

    Raises:
        BuildError: a record is malformed.

    """
    known = set(LockedPackage.__dataclass_fields__)
    packages = []
    for name, data in sorted(records.items()):
        try:
            value: dict[str, Any] = json.loads(data)
            fields: dict[str, Any] = {
                key: tuple(item) if isinstance(item, list) else item
                for key, item in value.items()
                if key in known and item is not None
            }
            features = value.get("track_features") or ()
            fields["track_features"] = tuple(features.split() if isinstance(features, str) else features)
            packages.append(LockedPackage(**fields))
        except (ValueError, TypeError, AttributeError) as error:
            raise BuildError(f"{what}: conda-meta/{name} is not the record of a package: {error}") from error
    return tuple(packages)
