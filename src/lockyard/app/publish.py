"""Use case: publish a release's tested images to one or several repositories."""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lockyard import fs
from lockyard.app.published import (
    FILE_NAME,
    Built,
    Published,
    check_records,
    merge_record,
    read_built,
    read_record,
    to_push,
)
from lockyard.app.targets import Place, aim, open_places, present, resolve
from lockyard.app.texts import write_texts_after
from lockyard.app.workspace import Workspace
from lockyard.errors import ConfigError
from lockyard.ports import Toolbox
from lockyard.registry.journal import open_journal
from lockyard.registry.plan import PushPlan, plan_push
from lockyard.registry.push import PushReport, run_push
from lockyard.tags import exact_tag
from lockyard.version import Version

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
    region: str | None = None,
    image_refs: Path | None = None,
) -> PublishResult:
    """Push what was built of `version` to all `targets`: aliases of the configuration, `HOST/NAME` or `oci:DIR`.

    Blobs and manifests go first, then the exact tags everywhere, then the floating tags. Only images whose test record
    belongs to exactly these bytes are published; with `skip_tests` exact tags alone, marked untested. A relative `oci:DIR`
    is below the root; `region` replaces the region of ECR repositories. What was published is recorded in the release's `images.json`, and line by line in `image_refs`.

    Raises:
        ConfigError: a target is malformed, or the release does not exist.
        BuildError: it is not built.
        ImageTestError: a test record is missing, red, or of something else; nothing was published.
        RegistryError: a registry refuses, or an exact tag is taken; run it again to go on.
        HashMismatchError: a built image was changed; neither its manifest nor a tag was written.

    """
    if move_tag and not version.is_pre_release:
        raise ConfigError(f"{version} is final: its exact tags never move", hint="--move-tag is for pre-releases")
    repositories = resolve(workspace, targets, region=region)
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
        places = stack.enter_context(open_places(toolbox, workspace, repositories, insecure=insecure))
        aims = [aim(workspace, version, variants, place, floating=tested) for place in places]
        there = {place.name: present(place.port, images, item) for place, item in zip(places, aims, strict=True)}
        plan = plan_push(images, aims, there, move_tags=move_tag)
        published = tuple(
            Published(
                image_type=image.image_type,
                repository=item.repository,
                digest=image.top.digest,
                tags=(image.tag, *item.floating.get(image.image_type, ())),
            )
            for item in aims
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
    places: Iterable[Place],
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
    write_texts_after(toolbox, workspace, version, only_again=True)
    return result
