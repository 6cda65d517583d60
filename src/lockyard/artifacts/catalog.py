"""The releases of a distribution and what follows what. Pure: `lockyard.app` reads the directories."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lockyard.version import Version


@dataclass(frozen=True)
class Catalog:
    """Release → its image types."""

    releases: Mapping[Version, Iterable[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "releases", {key: tuple(self.releases[key]) for key in sorted(self.releases)})

    def known(self, image_type: str | None = None) -> tuple[Version, ...]:
        """Return the releases that have `image_type` (all by default), in SemVer order."""
        return tuple(
            version for version, types in self.releases.items() if image_type is None or image_type in tuple(types)
        )

    def previous(self, version: Version, image_type: str | None = None) -> Version | None:
        """Return the release before `version`, which need not exist; a final version passes over pre-releases.

        >>> v = Version.parse
        >>> str(Catalog({v("1.4.1"): (), v("1.4.2-beta.1"): ()}).previous(v("1.4.2")))
        '1.4.1'
        """
        older = [known for known in self.known(image_type) if known < version]
        return next((known for known in reversed(older) if version.is_pre_release or not known.is_pre_release), None)

    def latest(
        self,
        image_type: str | None = None,
        *,
        major: int | None = None,
        minor: int | None = None,
        pre_releases: bool = False,
    ) -> Version | None:
        """Return the newest release, of the line `major` or `major.minor` when these are given."""
        for version in reversed(self.known(image_type)):
            on_line = major in {None, version.major} and minor in {None, version.minor}
            if on_line and (pre_releases or not version.is_pre_release):
                return version
        return None
