"""Use case: publish a release's tested images to one or several repositories."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lockyard import fs
from lockyard.app.published import (
    FILE_NAME,
    Built,
    Published,
    check_records,
    merge_record,
    published_versions,
    read_built,
    read_record,
    to_push,
)
from lockyard.app.workspace import Workspace
from lockyard.distribution import Repository, Variant, nearest
from lockyard.errors import ConfigError
from lockyard.oci.values import Reference
from lockyard.ports import RegistryPort, Toolbox
from lockyard.registry.journal import open_journal
from lockyard.registry.plan import Present, PushImage, PushPlan, Target, plan_push
from lockyard.registry.push import PushReport, run_push
from lockyard.tags import exact_tag, floating_tags, is_ambiguous, version_of_tag
from lockyard.version import Version

_OCI = "oci:"
PUSH_RECORD = "push.json"
"""What the last push of a version did, in its output directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What was published, or on a dry run what would be; `report` is `None` then.

    `resumed` counts the blobs that an interrupted run had finished.
    """

    version: Version
    plan: PushPlan
    published: tuple[Published, ...]
    tested: bool
    report: PushReport | None = None
    resumed: int = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """`REPOSITORY@DIGEST TAG`, one a tag."""
        return tuple(f"{item.repository}@{item.digest} {tag}" for item in self.published for tag in item.tags)


@dataclass(frozen=True, slots=True)
class _Place:
    """A repository of this run: as the configuration names it, and opened."""

    repository: Repository
    port: RegistryPort

    @property
    def name(self) -> str:
        return self.repository.uri


def publish_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    targets: Sequence[str],
    image_types: tuple[str, ...] = (),
    skip_tests: bool = False,
    dry_run: bool = False,
    move_tag: bool = False,
    insecure: bool = False,
    image_refs: Path | None = None,
) -> PublishResult:
    """Push what was built of `version` to all `targets`: aliases of the configuration, `HOST/NAME` or `oci:DIR`.

    Blobs and manifests go first, then the exact tags everywhere, then the floating tags. Only images whose test record
    belongs to exactly these bytes are published; with `skip_tests` exact tags alone, marked untested. A relative `oci:DIR`
    is below the root. What was published is recorded in the release's `images.json`, and line by line in `image_refs`.

    Raises:
        ConfigError: a target is malformed, or the release does not exist.
        BuildError: it is not built.
        ImageTestError: a test record is missing, red, or of something else; nothing was published.
        RegistryError: a registry refuses, or an exact tag is taken; run it again to go on.
        HashMismatchError: a built image was changed; neither its manifest nor a tag was written.

    """
    if move_tag and not version.is_pre_release:
        raise ConfigError(f"{version} is final: its exact tags never move", hint="--move-tag is for pre-releases")
    repositories = _resolve(workspace, targets)
    workspace.existing_release(version)
    variants = workspace.variants(version, image_types)
    built = read_built(workspace, version, variants)
    tested = not skip_tests and not all(repository.stage for repository in repositories)
    if tested:
        check_records(workspace, version, variants, built)
    images = [
        to_push(name, exact_tag(version, template=variant.tag, image_type=name), built)
        for name, variant in variants.items()
    ]
    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(fs.lock(workspace.state_dir / "push" / f"{version}.lock"))
        places = []
        for repository in repositories:
            port = toolbox.registry(_address(workspace, repository), insecure=insecure)
            stack.callback(port.close)
            places.append(_Place(repository, port))
        aims = [_target(workspace, version, variants, place, floating=tested) for place in places]
        present = {place.name: _present(place.port, images, aim) for place, aim in zip(places, aims, strict=True)}
        plan = plan_push(images, aims, present, move_tags=move_tag)
        published = tuple(
            Published(
                image_type=image.image_type,
                repository=aim.repository,
                digest=image.top.digest,
                tags=(image.tag, *aim.floating.get(image.image_type, ())),
            )
            for aim in aims
            for image in images
        )
        result = PublishResult(version=version, plan=plan, published=published, tested=tested)
        if dry_run:
            return result
        if not tested:
            toolbox.log.warning(f"{version} is published untested: exact tags only")
        return _push(toolbox, workspace, result, built, places, image_refs)


def _push(
    toolbox: Toolbox,
    workspace: Workspace,
    plan: PublishResult,
    built: Iterable[Built],
    places: Iterable[_Place],
    image_refs: Path | None,
) -> PublishResult:
    ports = {place.name: place.port for place in places}
    version = plan.version
    with open_journal(workspace.state_dir / "push" / f"{version}.jsonl") as journal:
        resumed = len(journal.finished)
        if resumed:
            toolbox.log.info(f"an interrupted push had finished {resumed} blobs already")
        report = run_push(plan.plan, ports, memory=journal, log=toolbox.log)
        result = PublishResult(
            version=version,
            plan=plan.plan,
            published=plan.published,
            tested=plan.tested,
            report=report,
            resumed=resumed,
        )
        record = merge_record(read_record(workspace, version), version, built, plan.published, tested=plan.tested)
        fs.atomic_write(workspace.release_path(version) / FILE_NAME, record)
        run = {"schema": 1, "present_bytes": plan.plan.present_bytes, "resumed_blobs": resumed, **asdict(report)}
        data = json.dumps({**run, "published": result.lines}, indent=2, sort_keys=True).encode()
        fs.atomic_write(workspace.root / "out" / str(version) / PUSH_RECORD, data + b"\n")
        if image_refs is not None:
            fs.atomic_write(image_refs, "".join(f"{line}\n" for line in result.lines).encode())
        journal.remove()
    return result


def _resolve(workspace: Workspace, targets: Sequence[str]) -> tuple[Repository, ...]:
    """Return the distinct repositories behind aliases and addresses, in the order that was asked."""
    if not targets:
        known = ", ".join(workspace.distribution.repositories) or "none is configured"
        raise ConfigError("publish where to?", hint=f"give --target-ecr-repo REPOSITORY (aliases: {known})")
    found: dict[str, Repository] = {}
    for target in targets:
        repository = workspace.distribution.repository(target)
        if not repository.uri.startswith(_OCI) and "/" not in repository.uri:
            aliases = list(workspace.distribution.repositories)
            raise ConfigError(
                f"{target!r} is neither a repository nor an alias of one",
                hint=nearest(target, aliases) or "write HOST/NAME, oci:DIR, or add it to [tool.lockyard.repositories]",
            )
        _check(repository.uri)
        found.setdefault(repository.uri, repository)
    return tuple(found.values())


def _check(uri: str) -> None:
    if uri.startswith(_OCI):
        path = uri.removeprefix(_OCI)
        if not path or ":" in path:
            raise ConfigError(f"{uri!r} names no directory that other tools can read", hint="write oci:DIR")
        return
    reference = Reference.parse(uri)
    if reference.tag or reference.digest:
        raise ConfigError(f"{uri!r} names an image, not a repository", hint=f"write {reference.repository}")


def _address(workspace: Workspace, repository: Repository) -> str:
    if repository.uri.startswith(_OCI):
        return f"{_OCI}{workspace.root / repository.uri.removeprefix(_OCI)}"
    return repository.uri


def _target(
    workspace: Workspace, version: Version, variants: Mapping[str, Variant], place: _Place, *, floating: bool
) -> Target:
    """Return where to push and which tags float there; a staging repository and an untested image move none."""
    tags: dict[str, tuple[str, ...]] = {}
    if floating and not place.repository.stage:
        listed = place.port.tags()
        stages = {
            item.uri for name in workspace.distribution.repositories
            if (item := workspace.distribution.repository(name)).stage
        }  # fmt: skip
        for image_type, variant in variants.items():
            known = published_versions(workspace, image_type, stages=stages)
            known |= _tagged_versions(place.port, listed, variant.tag, image_type)
            tags[image_type] = floating_tags(version, known, template=variant.tag, image_type=image_type)
    return Target(repository=place.name, registry=place.port.registry, floating=tags, movable=place.repository.stage)


def _tagged_versions(
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


def _present(port: RegistryPort, images: Sequence[PushImage], target: Target) -> Present:
    """Ask a repository what it has of `images`."""
    blobs = {blob.digest: blob.size for image in images for blob in image.blobs}
    manifests = {manifest.digest for image in images for manifest in image.manifests}
    tags = [image.tag for image in images] + [tag for some in target.floating.values() for tag in some]
    found = {tag: port.manifest_digest(tag) for tag in tags}
    return Present(
        blobs=port.present_blobs(blobs),
        manifests=frozenset(digest for digest in manifests if port.manifest_digest(digest) is not None),
        tags={tag: digest for tag, digest in found.items() if digest is not None},
    )
