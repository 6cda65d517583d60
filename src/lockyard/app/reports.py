"""Use cases that answer questions about releases: what changed, what is inside, why."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lockyard.app.facts import all_facts, read_facts
from lockyard.app.images import tag_of
from lockyard.app.workspace import Workspace
from lockyard.artifacts.catalog import Catalog
from lockyard.conda.bounds import BoundsPolicy
from lockyard.errors import ConfigError, RegistryError
from lockyard.gitobjects import GitObjects
from lockyard.ports import Toolbox
from lockyard.ports.solving import SolveRequest
from lockyard.reports.changes import Comparison, compare
from lockyard.reports.dependencies import Brought, Why, brought, why
from lockyard.reports.model import ReleaseFacts, TypeFacts, by_hash, completed, read_json
from lockyard.reports.ref import ReleaseRef
from lockyard.reports.sizes import TypeSizes, type_sizes
from lockyard.reports.staleness import Staleness, staleness
from lockyard.reports.support import LineSupport, made_on, support_lines
from lockyard.suggest import nearest
from lockyard.version import Version, release_dir


def diff_releases(
    toolbox: Toolbox,
    workspace: Workspace,
    base: ReleaseRef,
    target: ReleaseRef,
    *,
    image_types: tuple[str, ...] = (),
    platform: str | None = None,
) -> Comparison:
    """Compare two releases, or one with a git revision of itself, on each type's first platform or on `platform`.

    A type that one of them does not have at all, neither specs nor a lock, is compared with nothing.

    Raises:
        ConfigError: a release, a revision, an image type or a platform does not exist.
        StaleLockError: a release has specs of a type but no lock of it; the missing file is named.

    """
    old, new = (read_facts(toolbox, workspace, ref, image_types) for ref in (base, target))
    found = compare(old, new, platform)
    if platform is not None and not found.types:
        known = dict.fromkeys(
            name for item in (new, old) for facts in item.types.values() for name in facts.lock.platforms
        )
        raise ConfigError(f"no lock has the platform {platform!r}; there are {', '.join(known)}")
    return found


def read_release_facts(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version | None,
    image_types: tuple[str, ...] = (),
    *,
    index: bool = False,
    offline: bool = False,
) -> ReleaseFacts:
    """Read one release, the newest final one when none is named.

    Raises:
        ConfigError: there is none.
        StaleLockError: a type has no lock.

    """
    catalog = Catalog(dict.fromkeys(workspace.versions(), ()))
    chosen = version or catalog.latest() or catalog.latest(pre_releases=True)
    if chosen is None:
        raise ConfigError("there is no release yet", hint="lockyard create-patch-version-artifacts --help")
    release = read_facts(toolbox, workspace, ReleaseRef(chosen), image_types)
    return with_index(toolbox, workspace, (release,), offline=offline)[0] if index else release


@dataclass(frozen=True, slots=True)
class Pair:
    """A release and the one that it is compared with."""

    base: ReleaseFacts
    target: ReleaseFacts


def read_pair(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    base: Version | None,
    *,
    image_types: tuple[str, ...] = (),
    index: bool = False,
    offline: bool = False,
) -> Pair:
    """Read a release and its base: the one that is named, else the one of `source-version.txt`, else the one before.

    `index` looks up in the channel's index what locks of adopted releases do not say.

    Raises:
        ConfigError: there is no base.
        StaleLockError: a type has no lock.

    """
    target = read_facts(toolbox, workspace, ReleaseRef(version), image_types)
    chosen = base or target.source or Catalog(dict.fromkeys(workspace.versions(), ())).previous(version)
    if chosen is None:
        raise ConfigError(
            f"{version} is the first release: there is no base to compare with", hint="name one: --base V"
        )
    other = read_facts(toolbox, workspace, ReleaseRef(chosen), image_types)
    if index:
        other, target = with_index(toolbox, workspace, (other, target), offline=offline)
    return Pair(other, target)


def size_report(
    toolbox: Toolbox, workspace: Workspace, pair: Pair, *, repository: str | None = None, insecure: bool = False
) -> dict[str, TypeSizes]:
    """Weigh a release against its base; image sizes come from the registry when one is named, else from records.

    Raises:
        RegistryError: the repository cannot be read.

    """
    images = {}
    for name in pair.target.types:
        found = [
            _registry_size(toolbox, workspace, release.version, name, repository, insecure)
            if repository
            else _image_size(release, name)
            for release in (pair.base, pair.target)
        ]
        images[name] = (found[0], found[1])
    return type_sizes(compare(pair.base, pair.target), images)


def dependency_report(pair: Pair) -> dict[str, tuple[Brought, ...]]:
    """Return for each type what its new direct packages bring.

    Raises:
        ConfigError: the lock does not say what packages require.

    """
    found = {}
    for name, item in pair.target.types.items():
        base = pair.base.types.get(name)
        new = [word for word in item.direct if base is None or word not in base.direct]
        if new and item.is_adopted and not any(package.depends for package in item.packages()):
            raise ConfigError(
                f"the lock of {name} {pair.target.version} does not say what packages require: it is older than Lockyard",
                hint="look it up in the channel's index: --index",
            )
        found[name] = brought(base.packages() if base else (), item.packages(), new)
    return found


def explain_package(release: ReleaseFacts, name: str) -> dict[str, Why | None]:
    """Return for each type why a package is there.

    Raises:
        ConfigError: no type has it; the nearest name is suggested.

    """
    word = name.lower()
    found = {kind: why(item.packages(), word, item.direct) for kind, item in release.types.items()}
    if not any(found.values()):
        known = sorted({package.name for item in release.types.values() for package in item.packages()})
        raise ConfigError(f"{release.version} has no package {name!r}", hint=nearest(word, known))
    return found


def staleness_report(
    toolbox: Toolbox,
    workspace: Workspace,
    release: ReleaseFacts,
    *,
    everything: bool = False,
    offline: bool = False,
    downloads: Mapping[str, int] | None = None,
) -> dict[str, tuple[Staleness, ...]]:
    """Compare the direct packages (`everything`: all) with the channel's index.

    Raises:
        BuildError: a channel cannot be reached.
        ConfigError: a channel is malformed or its index is not there.

    """
    line = workspace.line(release.version)
    found = {}
    for name, item in release.types.items():
        direct = frozenset(item.direct)
        packages = [package for package in item.packages() if everything or package.name in direct]
        request = index_request(workspace, release, item, offline=offline)
        records = toolbox.index().records(request, [package.name for package in packages])
        found[name] = staleness(
            packages, records, release.version, BoundsPolicy(line.policies),
            direct=item.direct, now=toolbox.clock.now(), downloads=downloads,
        )  # fmt: skip
    return found


def support_report(toolbox: Toolbox, workspace: Workspace) -> tuple[LineSupport, ...]:
    """Return which lines are supported until when.

    Raises:
        ConfigError: there is no release yet, or a file is malformed.

    """
    releases = all_facts(workspace)
    if not releases:
        raise ConfigError("there is no locked release yet")
    dates = release_dates(toolbox, workspace, releases)
    versions = [release.version for release in releases]
    return support_lines(versions, dates, workspace.distribution.support, toolbox.clock.now().date())


def release_dates(toolbox: Toolbox, workspace: Workspace, releases: Sequence[ReleaseFacts]) -> dict[Version, dt.date]:
    """Return when releases came out: the day of the newest package in the lock, else of the commit that added it."""
    found = {release.version: day for release in releases if (day := made_on(release)) is not None}
    if len(found) < len(releases):
        added = GitObjects(workspace.root, toolbox.environ).added_on("build_artifacts")
        for release in releases:
            prefix = f"{release_dir(release.version)}/"
            days = [day for path, day in added.items() if path.startswith(prefix) and "/" not in path[len(prefix) :]]
            if release.version not in found and days:
                found[release.version] = min(days)
    return found


def with_index(
    toolbox: Toolbox, workspace: Workspace, releases: Sequence[ReleaseFacts], *, offline: bool = False
) -> tuple[ReleaseFacts, ...]:
    """Return releases with sizes, times, licences and dependencies from the channel's index, matched by hash.

    Each channel is asked once for all that any release lacks.

    Raises:
        BuildError: a channel cannot be reached.
        ConfigError: a channel is malformed, or its index is not there.

    """
    asked: dict[tuple[object, ...], tuple[SolveRequest, set[str]]] = {}
    keys: dict[tuple[Version, str], tuple[object, ...]] = {}
    for release in releases:
        for name, item in release.types.items():
            lacking = {package.name for package in item.packages() if package.size is None}
            if lacking:
                request = index_request(workspace, release, item, offline=offline)
                key = keys[release.version, name] = (request.channels, request.platform)
                asked.setdefault(key, (request, set()))[1].update(lacking)
    index = toolbox.index() if asked else None
    found = {
        key: by_hash(record for records in index.records(request, names).values() for record in records)
        for key, (request, names) in asked.items()
        if index is not None
    }
    return tuple(
        replace(
            release,
            types={
                name: replace(item, lock=completed(item.lock, found[keys[release.version, name]]))
                if (release.version, name) in keys
                else item
                for name, item in release.types.items()
            },
        )
        for release in releases
    )


def index_request(workspace: Workspace, release: ReleaseFacts, item: TypeFacts, *, offline: bool) -> SolveRequest:
    """Return the question for the channels of a type: those of its lock, else those of its line."""
    return SolveRequest(
        specs=(),
        channels=item.lock.channels or workspace.line(release.version).channels,
        platform=item.lock.first_platform,
        root=workspace.root,
        offline=offline,
    )


def _image_size(release: ReleaseFacts, image_type: str) -> int | None:
    item = release.types.get(image_type)
    image = item.images.get(item.lock.first_platform) if item else None
    return image.size if image else None


def _registry_size(
    toolbox: Toolbox, workspace: Workspace, version: Version, image_type: str, repository: str, insecure: bool
) -> int | None:
    """Return the bytes of an image in a registry, of its first manifest when the tag is an index."""
    uri = workspace.distribution.repository(repository).uri
    variants = workspace.variants(version)
    if image_type not in variants:
        return None
    port = toolbox.registry(uri, insecure=insecure)
    try:
        body = port.get_manifest(tag_of(variants[image_type], version, image_type))
        manifest = read_json(body, f"{uri}: the manifest") if body else {}
        if manifest.get("manifests"):
            body = port.get_manifest(str(manifest["manifests"][0]["digest"]))
            manifest = read_json(body, f"{uri}: the manifest") if body else {}
        return sum(int(part["size"]) for part in (manifest["config"], *manifest["layers"])) if manifest else None
    except (KeyError, TypeError, ValueError) as error:
        raise RegistryError(f"{uri}: the manifest of {version} is malformed: {error!r}") from error
    finally:
        port.close()
