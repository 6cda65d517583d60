"""Which tags an image gets: the exact tag, and the floating tags that it may move. Pure rules, no I/O.

A floating tag belongs to a *line*: the versions that share X.Y, X or nothing, all final, or all pre-releases with the
same first identifier. It points to the highest published version of its line, so the order of publishing does not matter.
"""

from collections.abc import Collection, Iterator

from lockyard.errors import ConfigError
from lockyard.oci.values import check_tag
from lockyard.version import Version

DEFAULT_TEMPLATE = "{version}-{type}"


def exact_tag(version: Version, *, template: str | None = None, image_type: str) -> str:
    """Return the tag that never moves.

    Raises:
        ConfigError: the template gives no valid tag.

    >>> exact_tag(Version.parse("1.4.2"), image_type="cpu")
    '1.4.2-cpu'

    """
    return _fill(template, str(version), image_type)


def floating_tags(
    version: Version, known: Collection[Version], *, template: str | None = None, image_type: str
) -> tuple[str, ...]:
    """Return the floating tags that publishing `version` moves, narrowest line first.

    `known` are all published versions of this image type, `version` among them or not. A tag that is the exact tag of a
    known version never floats: the exact tag of 1.4.2-beta reads like the floating tag of its 1.4.2-beta.1.

    >>> floating_tags(Version.parse("1.4.2"), [Version.parse("1.5.0")], image_type="cpu")
    ('1.4-cpu',)
    """
    exact = {_fill(template, str(item), image_type) for item in {*known, version}}
    tags = []
    for name, line in _lines(version):
        tag = _fill(template, name, image_type)
        rivals = [item for item in known if _channel(item) == _channel(version) and line in _prefixes(item)]
        if tag not in exact and all(item <= version for item in rivals):
            tags.append(tag)
    return tuple(tags)


def version_of_tag(tag: str, *, template: str | None = None, image_type: str) -> Version | None:
    """Return the version whose exact tag `tag` is, `None` when it is none of this image type.

    `1.4.2-beta` is also what 1.4.2-beta.1 floats: a caller that reads a registry's tags must tell the two apart.

    >>> str(version_of_tag("1.4.2-cpu", image_type="cpu")), version_of_tag("1.4-cpu", image_type="cpu")
    ('1.4.2', None)
    """
    prefix, _, suffix = (template or DEFAULT_TEMPLATE).replace("{type}", image_type).partition("{version}")
    text = tag.removeprefix(prefix).removesuffix(suffix)
    if len(text) + len(prefix) + len(suffix) != len(tag):
        return None
    try:
        version = Version.parse(text)
    except ConfigError:
        return None
    return version if exact_tag(version, template=template, image_type=image_type) == tag else None


def is_ambiguous(version: Version) -> bool:
    """Tell whether the exact tag of `version` may as well be a floating tag (one pre-release identifier)."""
    return len(version.pre) == 1


def floating_filters(newest: Version, templates: Collection[str | None]) -> tuple[str, ...]:
    """Return wildcards that match the floating tags of the newest lines and no exact tag, for a registry that keeps tags.

    >>> floating_filters(Version.parse("1.4.2"), [None])
    ('latest-*', '1-*', '1.4-*')
    """
    found = {}
    for name in ("latest", f"{newest.major}", f"{newest.major}.{newest.minor}"):
        for template in templates:
            found[(template or DEFAULT_TEMPLATE).replace("{type}", "*").replace("{version}", name)] = True
    return tuple(found)


def _fill(template: str | None, version: str, image_type: str) -> str:
    return check_tag((template or DEFAULT_TEMPLATE).replace("{type}", image_type).replace("{version}", version))


def _channel(version: Version) -> str:
    return version.pre[0] if version.pre else ""


def _prefixes(version: Version) -> tuple[tuple[int, ...], ...]:
    return (), (version.major,), (version.major, version.minor), (version.major, version.minor, version.patch)


def _lines(version: Version) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield what stands for `{version}` and the numbers that the versions of the line share."""
    suffix = f"-{_channel(version)}" if version.pre else ""
    everything, major, minor, patch = _prefixes(version)
    if version.pre:
        yield f"{version.final}{suffix}", patch
    yield f"{version.major}.{version.minor}{suffix}", minor
    yield f"{version.major}{suffix}", major
    yield f"latest{suffix}", everything
