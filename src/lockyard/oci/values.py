"""OCI values that validate at birth (OCI Image Specification 1.1, `descriptor.md`; Distribution Specification 1.1, "Pull")."""

import enum
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from lockyard.errors import ConfigError

Compression = Literal[
    "gzip", "zstd", "zstd:1", "zstd:2", "zstd:3", "zstd:4", "zstd:5", "zstd:6", "zstd:7", "zstd:8", "zstd:9"
]  # fmt: skip
"""The kind of a layer's compression; zstd may have a level, else `oci.tar.ZSTD_LEVEL` counts. Higher ones want more memory than builds promise."""
_DIGEST_RE = re.compile(r"sha256:[0-9a-f]{64}")
_TAG_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NAME_RE = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_HOST_RE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


class MediaType(enum.StrEnum):
    """The media types that Lockyard reads or writes."""

    INDEX = "application/vnd.oci.image.index.v1+json"
    MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    CONFIG = "application/vnd.oci.image.config.v1+json"
    LAYER = "application/vnd.oci.image.layer.v1.tar"
    LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest `sha256:HEX` (`descriptor.md`, "Digests"); only SHA-256 is used.

    Raises:
        ConfigError: the text is not one.

    """

    value: str

    def __post_init__(self) -> None:
        if not _DIGEST_RE.fullmatch(self.value):
            raise ConfigError(f"{self.value[:80]!r} is not a sha256 digest")

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the digest of `data`."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}")

    @property
    def hex(self) -> str:
        """The 64 hexadecimal digits."""
        return self.value.removeprefix("sha256:")

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is (`descriptor.md`): media type, digest, size in bytes, annotations and platform as in the JSON."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigError(f"descriptor of {self.digest}: size {self.size} is negative")

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Self:
        """Return the descriptor of `data`."""
        return cls(media_type, Digest.of(data), len(data))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read the JSON form.

        Raises:
            ConfigError: a field is missing or malformed.

        """
        try:
            return cls(
                str(value["mediaType"]),
                Digest(str(value["digest"])),
                int(value["size"]),
                dict(value.get("annotations") or {}),
                dict(value.get("platform") or {}),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"malformed OCI descriptor: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; empty maps are left out."""
        out: dict[str, Any] = {"mediaType": str(self.media_type), "digest": str(self.digest), "size": self.size}
        if self.platform:
            out["platform"] = dict(sorted(self.platform.items()))
        if self.annotations:
            out["annotations"] = dict(sorted(self.annotations.items()))
        return out


def check_tag(tag: str) -> str:
    """Return `tag` when the Distribution Specification allows it.

    Raises:
        ConfigError: it does not.

    """
    if not _TAG_RE.fullmatch(tag):
        raise ConfigError(f"{tag[:140]!r} is not a valid image tag")
    return tag


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference `HOST[:PORT]/NAME[:TAG][@DIGEST]`; the host is always explicit.

    >>> str(Reference.parse("registry.example.com/team/image:1.0-cpu"))
    'registry.example.com/team/image:1.0-cpu'
    """

    host: str
    name: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not _HOST_RE.fullmatch(self.host) or not _NAME_RE.fullmatch(self.name) or len(self.name) > 255:
            raise ConfigError(
                f"{f'{self.host}/{self.name}'[:300]!r} is not an image repository",
                hint="write HOST/NAME, such as registry.example.com/team/image",
            )
        if self.tag is not None:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a reference.

        Raises:
            ConfigError: it is malformed or names no host.

        """
        rest, _, digest = text.partition("@")
        host, slash, name = rest.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            raise ConfigError(
                f"{text[:300]!r} names no registry host",
                hint="write HOST/NAME, such as registry.example.com/team/image",
            )
        name, colon, tag = name.partition(":")
        return cls(host, name, tag if colon else None, Digest(digest) if digest else None)

    @property
    def repository(self) -> str:
        """`HOST/NAME` without tag and digest."""
        return f"{self.host}/{self.name}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"
