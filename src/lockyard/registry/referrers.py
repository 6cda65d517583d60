"""Referrers: manifests that say something about another one (OCI Distribution Specification 1.1, "Listing Referrers"). Pure.

A registry without the referrers API lists them in an index under a tag made of the subject's digest ("Referrers Tag Schema").
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lockyard.errors import LockyardError, RegistryError
from lockyard.oci.image import canonical_json
from lockyard.oci.values import Descriptor, Digest, MediaType

TEST_RECORD: Final = "application/vnd.lockyard.tests.v1+json"
"""The artifact type of a record of image tests."""
CREATED: Final = "org.opencontainers.image.created"
EMPTY: Final = b"{}"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True)
class Referrer:
    """An entry of a list of referrers; `created` is its RFC 3339 time, empty when it says none."""

    digest: str
    artifact_type: str
    created: str = ""


def referrer_manifest(
    subject: Descriptor, payload: Descriptor, *, artifact_type: str, annotations: Mapping[str, str]
) -> bytes:
    """Return the manifest of an artifact that is about `subject` and holds `payload`."""
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.MANIFEST,
            "artifactType": artifact_type,
            "config": Descriptor.of(EMPTY_TYPE, EMPTY).to_json(),
            "layers": [payload.to_json()],
            "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
            "annotations": dict(annotations),
        }
    )


def payload_of(manifest: bytes, subject: str) -> tuple[str, int]:
    """Return digest and size of what such a manifest holds.

    Raises:
        RegistryError: it is about something else, or malformed.

    """
    try:
        value = json.loads(manifest)
        about = str(value["subject"]["digest"])
        (layer,) = value["layers"]
        found = Descriptor.from_json(layer)
    except (ValueError, KeyError, TypeError, LockyardError) as error:
        raise RegistryError(f"{Digest.of(manifest)} is no record about {subject}: {error}") from error
    if about != subject:
        raise RegistryError(f"{Digest.of(manifest)} is about {about[:80]}, not {subject}")
    return str(found.digest), found.size


def fallback_tag(digest: str) -> str:
    """Return the tag under which a registry without the API lists the referrers of `digest`.

    >>> fallback_tag("sha256:0a")
    'sha256-0a'
    """
    return digest.replace(":", "-")


def parse_referrers(index: bytes | None, *, source: str) -> tuple[Referrer, ...]:
    """Read a list of referrers; `None` is an empty one.

    Raises:
        RegistryError: it is malformed.

    """
    return tuple(
        Referrer(
            str(item["digest"]),
            str(item.get("artifactType") or ""),
            str((item.get("annotations") or {}).get(CREATED) or ""),
        )
        for item in _entries(index, source)
    )


def with_referrer(index: bytes | None, manifest: bytes, *, source: str) -> bytes:
    """Return the list with one more entry; one that is there stays as it is.

    Raises:
        RegistryError: it is malformed.

    """
    value = json.loads(manifest)
    descriptor = Descriptor.of(MediaType.MANIFEST, manifest).to_json()
    entry = {**descriptor, "artifactType": value["artifactType"], "annotations": value["annotations"]}
    others = [item for item in _entries(index, source) if item["digest"] != entry["digest"]]
    return canonical_json({"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": [*others, entry]})


def newest_first(referrers: Iterable[Referrer], artifact_type: str) -> tuple[Referrer, ...]:
    """Return those of one type, the newest first."""
    mine = [item for item in referrers if item.artifact_type == artifact_type]
    return tuple(sorted(mine, key=lambda item: (item.created, item.digest), reverse=True))


def _entries(index: bytes | None, source: str) -> list[dict[str, Any]]:
    if index is None:
        return []
    try:
        entries = json.loads(index)["manifests"]
        for item in entries:
            Descriptor.from_json(item)
        return list(entries)
    except (ValueError, KeyError, TypeError, LockyardError) as error:
        raise RegistryError(f"{source}: the list of referrers is malformed") from error
