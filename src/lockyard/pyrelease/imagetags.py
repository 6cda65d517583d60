"""Tags of a Python package's images: the exact one, and the floating one of final releases. Pure rules, no I/O.

Versions are those of PEP 440. An exact tag is `VERSION` and what the runtime has behind it (`-client`); `latest` with the same
ending leads to the highest published final release, in whatever order releases are published.
"""

from collections.abc import Collection

from packaging.version import InvalidVersion, Version

from lockyard.errors import ConfigError
from lockyard.oci.values import check_tag

LATEST = "latest"


def exact_tag(version: str, suffix: str) -> str:
    """Return the tag that never moves.

    Raises:
        ConfigError: the version has signs that no tag has: a local version or an epoch.

    >>> exact_tag("1.4.0rc1", "-client")
    '1.4.0rc1-client'

    """
    try:
        return check_tag(f"{version}{suffix}")
    except ConfigError as error:
        raise ConfigError(
            f"version {version} cannot be in a tag: {error.message}", hint="release a version without '+' and '!'"
        ) from error


def floating_tags(version: Version, known: Collection[Version], suffix: str) -> tuple[str, ...]:
    """Return the floating tags that publishing `version` moves; `known` are the published versions of this runtime.

    >>> floating_tags(Version("1.4.1"), [Version("1.4.0"), Version("2.0.0rc1")], "-client")
    ('latest-client',)
    >>> floating_tags(Version("1.4.1"), [Version("1.5.0")], ""), floating_tags(Version("2.0.0rc1"), [], "")
    ((), ())
    """
    if version.is_prerelease or any(other > version for other in known if not other.is_prerelease):
        return ()
    return (f"{LATEST}{suffix}",)


def version_of_tag(tag: str, suffix: str) -> Version | None:
    """Return the version whose exact tag of this runtime a tag is, `None` when it is none.

    >>> str(version_of_tag("1.4.0-client", "-client")), version_of_tag("1.4.0-client", ""), version_of_tag("latest", "")
    ('1.4.0', None, None)
    """
    text = tag.removesuffix(suffix)
    if len(text) + len(suffix) != len(tag):
        return None
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    return version if str(version) == text else None
