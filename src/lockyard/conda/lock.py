"""Exact packages: the value that a solve gives, that `lock.json` holds and that an image is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPackage:
    """One exact conda package; the fields are those of a repodata record (conda CEP 36) plus `url` and `channel`.

    `url` is absolute, or `file:PATH` relative to the distribution's root for a `file:` channel, so that no host path
    reaches a committed file. `sha256` and `md5` are lower-case hex; `size` is in bytes, `timestamp` in milliseconds
    since the epoch. What an adopted release does not say is `None`.
    """

    name: str
    version: str
    build: str
    url: str
    subdir: str
    build_number: int = 0
    channel: str = ""
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
    timestamp: int | None = None
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    license: str | None = None
    license_family: str | None = None
    noarch: str | None = None
    arch: str | None = None
    platform: str | None = None
    features: str | None = None
    track_features: tuple[str, ...] = ()
    python_site_packages_path: str | None = None

    @property
    def file_name(self) -> str:
        """The archive's file name, such as `numpy-2.2.1-py311h0_0.conda`."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def dist(self) -> str:
        """`NAME-VERSION-BUILD`."""
        return f"{self.name}-{self.version}-{self.build}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a package of the lock differs from the base release's lock.

    `kind` is one of `asked`, `bound`, `required by X`, `fresh` and `not available any more`, or for a package that left
    the lock because nothing needs it `not required any more`; `old` and `new` are `VERSION BUILD`, `None` where the
    package is not in that lock.
    """

    name: str
    old: str | None
    new: str | None
    kind: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The exact packages of one image type, per platform (conda subdir), each sorted in install order.

    `input_hash` is `sha256:HEX` over everything that the solve read from the release directory and the variant;
    it is empty for an adopted release, which nothing calls stale.
    """

    image_type: str
    platforms: Mapping[str, tuple[LockedPackage, ...]]
    channels: tuple[str, ...] = ()
    virtual_packages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    specs: tuple[str, ...] = ()
    exclude_newer: str | None = None
    input_hash: str = ""
    base: str | None = None
    reasons: Mapping[str, tuple[Reason, ...]] = field(default_factory=dict)

    @property
    def first_platform(self) -> str:
        """The type's first platform."""
        return next(iter(self.platforms))

    def packages(self, platform: str | None = None) -> tuple[LockedPackage, ...]:
        """Return the packages of `platform`, by default the first."""
        return self.platforms[platform or self.first_platform]
