"""Repositories as users name them (aliases, `HOST/NAME`, `oci:DIR`), resolved, opened and asked what they have."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lockyard.app.published import published_versions
from lockyard.app.workspace import Workspace
from lockyard.distribution import Repository, Variant
from lockyard.errors import ConfigError
from lockyard.oci.values import Reference
from lockyard.ports import Toolbox
from lockyard.ports.registry import RegistryPort
from lockyard.registry.places import in_region
from lockyard.registry.plan import Present, PushImage, Target
from lockyard.suggest import nearest
from lockyard.tags import floating_tags, is_ambiguous, version_of_tag
from lockyard.version import Version

OCI = "oci:"
Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of this run: as the configuration names it, and opened."""

    repository: Repository
    port: RegistryPort

    @property
    def name(self) -> str:
        """`HOST/NAME` or `oci:DIR`."""
        return self.repository.uri


def resolve(workspace: Workspace, targets: Sequence[str], *, region: str | None = None) -> tuple[Repository, ...]:
    """Return the distinct repositories behind aliases and addresses, in the order that was asked.

    `region` replaces the region of private ECR repositories.

    Raises:
        ConfigError: a target is malformed or unknown.

    """
    if not targets:
        known = ", ".join(workspace.distribution.repositories) or "none is configured"
        raise ConfigError("publish where to?", hint=f"give --target-ecr-repo REPOSITORY (aliases: {known})")
    found: dict[str, Repository] = {}
    for target in targets:
        repository = workspace.distribution.repository(target)
        if not repository.uri.startswith(OCI) and "/" not in repository.uri:
            aliases = list(workspace.distribution.repositories)
            raise ConfigError(
                f"{target!r} is neither a repository nor an alias of one",
                hint=nearest(target, aliases) or "write HOST/NAME, oci:DIR, or add it to [tool.lockyard.repositories]",
            )
        _check(repository.uri)
        if region is not None:
            repository = Repository(uri=in_region(repository.uri, region), stage=repository.stage)
        found.setdefault(repository.uri, repository)
    return tuple(found.values())


@contextlib.contextmanager
def open_places(
    toolbox: Toolbox, workspace: Workspace, repositories: Iterable[Repository], *, insecure: bool = False
) -> Iterator[tuple[Place, ...]]:
    """Open repositories for the time of a `with` block; a relative `oci:DIR` is below the root."""
    with contextlib.ExitStack() as stack:
        places = []
        for repository in repositories:
            port = toolbox.registry(address_of(workspace, repository.uri), insecure=insecure)
            stack.callback(port.close)
            places.append(Place(repository, port))
        yield tuple(places)


def address_of(workspace: Workspace, uri: str) -> str:
    """Return what a `RegistryFactory` takes for a repository's address; a relative `oci:DIR` is below the root."""
    return f"{OCI}{workspace.root / uri.removeprefix(OCI)}" if uri.startswith(OCI) else uri


def aim(
    workspace: Workspace,
    version: Version,
    variants: Mapping[str, Variant],
    place: Place,
    *,
    floating: bool,
) -> Target:
    """Return where to push and which tags float there; a staging repository and an untested image move none.

    Raises:
        RegistryError: the repository cannot be read, or must be made first.

    """
    tags: dict[str, tuple[str, ...]] = {}
    listed = place.port.tags()
    if floating and not place.repository.stage:
        stages = {item.uri for item in _configured(workspace) if item.stage}
        for image_type, variant in variants.items():
            known = published_versions(workspace, image_type, stages=stages)
            known |= tagged_versions(place.port, listed, variant.tag, image_type)
            tags[image_type] = floating_tags(version, known, template=variant.tag, image_type=image_type)
    return Target(
        repository=place.name,
        registry=place.port.registry,
        floating=tags,
        movable=place.repository.stage,
        max_blob=place.port.max_blob,
    )


def tagged_versions(
    port: RegistryPort, listed: Iterable[str], template: str | None, image_type: str
) -> frozenset[Version]:
    """Return the versions whose exact tags are in a repository.

    `1.4.2-beta` may be the exact tag of a release or what 1.4.2-beta.1 floats: it floats when it leads to one of those.
    """
    found = {}
    for tag in listed:
        version = version_of_tag(tag, template=template, image_type=image_type)
        if version is not None:
            found[version] = tag
    unclear = [version for version in found if is_ambiguous(version)]
    for version in unclear:
        longer = [
            tag for other, tag in found.items()
            if other.final == version.final and other.pre[:1] == version.pre and len(other.pre) > 1
        ]  # fmt: skip
        digest = port.manifest_digest(found[version]) if longer else None
        if digest is not None and digest in {port.manifest_digest(tag) for tag in longer}:
            del found[version]
    return frozenset(found)


def present(port: RegistryPort, images: Sequence[PushImage], target: Target) -> Present:
    """Ask a repository what it has of `images`, with as few questions as can be.

    A repository that has a manifest has all that it refers to: registries take no other.
    """
    tags = {image.tag: image for image in images}
    tags |= {tag: image for image in images for tag in target.floating.get(image.image_type, ())}
    digests = beside(port.manifest_digest, tags)
    found = {tag: digest for tag, digest in zip(tags, digests, strict=True) if digest is not None}
    tops = {image.top.digest for image in images if image.top.digest in found.values()}
    manifests: set[str] = set()
    blobs: set[str] = set()
    asked: dict[str, int] = {}
    for image in images:
        unsure = [] if image.top.digest in tops else [manifest.digest for manifest in image.manifests]
        manifests |= {manifest.digest for manifest in image.manifests} - set(unsure)
        manifests |= {digest for digest in beside(port.manifest_digest, unsure) if digest is not None}
        whole = all(manifest.digest in manifests for manifest in image.manifests)
        if whole:
            blobs |= {blob.digest for blob in image.blobs}
        else:
            asked |= {blob.digest: blob.size for blob in image.blobs}
    missing = {digest: size for digest, size in asked.items() if digest not in blobs}
    return Present(blobs=frozenset(blobs) | port.present_blobs(missing), manifests=frozenset(manifests), tags=found)


def beside(function: Callable[[Ask], Answer], items: Iterable[Ask]) -> list[Answer]:
    """Call `function` with several items beside each other and return its answers in their order."""
    import concurrent.futures

    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(min(8, len(items))) as pool:
        return list(pool.map(function, items))


def _configured(workspace: Workspace) -> list[Repository]:
    return [workspace.distribution.repository(name) for name in workspace.distribution.repositories]


def _check(uri: str) -> None:
    if uri.startswith(OCI):
        path = uri.removeprefix(OCI)
        if not path or ":" in path:
            raise ConfigError(f"{uri!r} names no directory that other tools can read", hint="write oci:DIR")
        return
    reference = Reference.parse(uri)
    if reference.tag or reference.digest:
        raise ConfigError(f"{uri!r} names an image, not a repository", hint=f"write {reference.repository}")
