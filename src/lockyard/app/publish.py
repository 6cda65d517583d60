"""Use case: publish a release's tested images to one or several repositories."""

import contextlib
import json
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lockyard import __version__, fs
from lockyard.app.published import (
    FILE_NAME,
    Built,
    Published,
    check_as_recorded,
    check_records,
    donors,
    inputs_digest,
    merge_record,
    previous_layers,
    read_built,
    read_record,
    to_push,
)
from lockyard.app.pushing import Aim, Planned, journal_of, plan_images, push_lock, pushed_images
from lockyard.app.staging import attach, read_staged
from lockyard.app.staging import read_record as read_attached
from lockyard.app.targets import Place, aim, open_places, resolve
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import Record
from lockyard.distribution import Repository, Variant
from lockyard.errors import ConfigError, ImageTestError, RegistryError
from lockyard.ports import Toolbox
from lockyard.registry.ahead import SentAhead
from lockyard.registry.plan import Manifest, PushPlan, Target
from lockyard.registry.sending import PushReport
from lockyard.tags import exact_tag
from lockyard.version import Version

PUSH_RECORD = "push.json"
"""What the last push of a version did, in its output directory."""
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """What to publish and how.

    `targets` are aliases of the configuration, `HOST/NAME` or `oci:DIR` below the root. `source` is a repository that has
    the images (`--from`), `None` for what is built here. `region` replaces the region of ECR repositories.
    """

    targets: tuple[str, ...]
    image_types: tuple[str, ...] = ()
    source: str | None = None
    skip_tests: bool = False
    dry_run: bool = False
    move_tag: bool = False
    insecure: bool = False
    attach: bool = True
    """Bills of materials and provenance."""
    region: str | None = None
    image_refs: Path | None = None

    def command(self, version: Version) -> str:
        """Return the command line that does the same."""
        parts = ["lockyard", "push", str(version)]
        parts += [part for target in self.targets for part in ("--target-ecr-repo", target)]
        parts += [part for name in self.image_types for part in ("--image-type", name)]
        options = {"--from": self.source, "--region": self.region, "--image-refs": self.image_refs}
        parts += [str(part) for name, value in options.items() if value is not None for part in (name, value)]
        flags = {
            "--skip-tests": self.skip_tests,
            "--move-tag": self.move_tag,
            "--insecure": self.insecure,
            "--no-sbom": not self.attach,
        }
        parts += [name for name, value in flags.items() if value]
        return shlex.join(parts)


@dataclass(frozen=True, slots=True)
class ClientPull:
    """What a client of the previous release has to pull: new layers and their bytes, of all layers and theirs.

    `previous` is `None` where no earlier release is known: the client pulls everything.
    """

    image_type: str
    platform: str
    previous: Version | None
    layers: int
    size: int
    all_layers: int
    whole: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What was published, or on a dry run what would be; `report` is `None` then.

    `reports` are by repository, `report` is their sum. `resumed` counts the blobs that an interrupted run had finished.
    `ahead` (by repository) is what was sent before the plan was made: the plan finds it there, the reports count it.
    """

    version: Version
    plan: PushPlan
    published: tuple[Published, ...]
    tested: bool
    pulls: tuple[ClientPull, ...] = ()
    report: PushReport | None = None
    reports: Mapping[str, PushReport] = field(default_factory=dict)
    resumed: int = 0
    ahead: Mapping[str, SentAhead] = field(default_factory=dict)

    @property
    def present_bytes(self) -> Mapping[str, int]:
        """Repository → bytes of blobs that were there before this run."""
        return {
            item.repository: item.present_bytes - sum(self.ahead.get(item.repository, SentAhead()).blobs.values())
            for item in self.plan.repositories
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """`REPOSITORY@DIGEST TAG`, one a tag."""
        return tuple(f"{item.repository}@{item.digest} {tag}" for item in self.published for tag in item.tags)


@dataclass(frozen=True, slots=True)
class _Job:
    """A push that was planned, and what its records need."""

    result: PublishResult
    request: PublishRequest
    built: tuple[Built, ...]
    records: tuple[Record, ...]
    places: tuple[Place, ...]
    planned: Planned
    aim: Aim


def publish_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    request: PublishRequest,
    *,
    built: tuple[Built, ...] | None = None,
    ahead: Mapping[str, SentAhead] | None = None,
) -> PublishResult:
    """Push the images of `version`, built here or staged, to all targets; `built` are images that are at hand.

    `ahead` says which blobs this run has sent to which repository before.

    Blobs and manifests go first, then the exact tags everywhere, then the floating tags. Only images whose test record
    belongs to exactly these bytes are published; with `skip_tests` exact tags alone, marked untested. What was published is
    recorded in the release's `images.json` and in `push.json` of its output directory, and line by line in `image_refs`.

    Raises:
        ConfigError: a target is malformed, or the release does not exist.
        BuildError: it is not built, or not staged.
        ImageTestError: a test record is missing, red, or of something else; nothing was published.
        RegistryError: a registry refuses, or an exact tag is taken; the details say what is where and how to finish.
        HashMismatchError: a built image was changed; neither its manifest nor a tag was written.

    """
    if request.move_tag and not version.is_pre_release:
        raise ConfigError(f"{version} is final: its exact tags never move", hint="--move-tag is for pre-releases")
    repositories = resolve(workspace, request.targets, region=request.region)
    workspace.existing_release(version)
    with contextlib.ExitStack() as stack:
        if not request.dry_run:
            stack.enter_context(push_lock(workspace, version))
        job = stack.enter_context(_planned(toolbox, workspace, version, request, repositories, built, ahead or {}))
        if request.dry_run:
            return job.result
        if request.skip_tests:
            toolbox.log.warning(f"{version} is published untested: exact tags only")
        elif not job.result.tested:
            toolbox.log.info(f"{version} is staged: exact tags only")
        try:
            return _push(toolbox, workspace, job)
        except RegistryError as error:
            error.details = (*error.details, f"to finish: {request.command(version)}")
            raise


@contextlib.contextmanager
def _planned(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    request: PublishRequest,
    repositories: Sequence[Repository],
    given: tuple[Built, ...] | None,
    ahead: Mapping[str, SentAhead],
) -> Iterator[_Job]:
    """Check what is to be published, open the repositories and plan."""
    variants = workspace.variants(version, request.image_types)
    tested = not request.skip_tests and not all(repository.stage for repository in repositories)
    with contextlib.ExitStack() as stack:
        tops: Mapping[str, Manifest] = {}
        offers: dict[str, dict[str, str]] = donors(workspace, version)
        if request.source is None:
            built = given if given is not None else read_built(workspace, version, variants)
        else:
            (stage,) = resolve(workspace, (request.source,), region=request.region)
            (origin,) = stack.enter_context(open_places(toolbox, workspace, (stage,), insecure=request.insecure))
            if given is None:
                staged = read_staged(version, variants, origin)
                built, tops = staged.built, staged.tops
                if tested:
                    check_as_recorded(workspace, version, origin.name, tops)
            else:
                built = given
            if origin.port.registry is not None:
                mine = offers.setdefault(origin.port.registry, {})
                mine |= {layer: origin.name for item in built for layer in _digests(item)}
        records = tuple(
            check_records(workspace, version, variants, built)
            if tested
            else _green(workspace, version, variants, built)
        )
        images = [
            to_push(name, exact_tag(version, template=variant.tag, image_type=name), built, top=tops.get(name))
            for name, variant in variants.items()
        ]
        places = stack.enter_context(open_places(toolbox, workspace, repositories, insecure=request.insecure))

        def aim_at(place: Place) -> Target:
            return aim(workspace, version, variants, place, floating=tested)

        planned = plan_images(images, places, aim_at, move_tags=request.move_tag, donors=offers)
        pulls = tuple(_pull(workspace, version, item) for item in built)
        result = PublishResult(
            version=version, plan=planned.plan, published=planned.published, tested=tested, pulls=pulls, ahead=ahead
        )
        yield _Job(result, request, built, records, places, planned, aim_at)


def _push(toolbox: Toolbox, workspace: Workspace, job: _Job) -> PublishResult:
    planned, version = job.result, job.result.version
    start, begun = time.monotonic(), toolbox.clock.now()
    sent = planned.ahead
    with pushed_images(
        toolbox, journal_of(workspace, version), job.planned, job.places, job.aim,
        ahead=sum(len(item.blobs) for item in sent.values()),
    ) as pushed:  # fmt: skip
        _attach_records(toolbox, workspace, job)
        reports = dict(pushed.outcome.reports)
        for repository, item in sent.items():
            reports[repository] = reports.get(repository, PushReport()) + item.report
        result = replace(
            planned, published=pushed.published, report=sum(reports.values(), PushReport()), reports=reports,
            resumed=pushed.resumed,
        )  # fmt: skip
        record = merge_record(
            read_record(workspace, version),
            version,
            job.built,
            result.published,
            tested=result.tested,
            inputs=inputs_digest(workspace.release_tree(version)),
            green={str(item.image.digest) for item in _tested(job)},
        )
        fs.atomic_write(workspace.release_path(version) / FILE_NAME, record)
        times = {"started": begun.isoformat(timespec="seconds"), "seconds": round(time.monotonic() - start, 3)}
        fs.atomic_write(workspace.root / "out" / str(version) / PUSH_RECORD, _run_record(job, result, times))
        if job.request.image_refs is not None:
            fs.atomic_write(job.request.image_refs, "".join(f"{line}\n" for line in result.lines).encode())
    # These read locks, which a push itself does not need: half of its start-up time.
    from lockyard.app.sbom import attach_after
    from lockyard.app.texts import write_texts_after

    if job.request.attach:
        attach_after(toolbox, workspace, version, job.request.image_types, job.places)
    write_texts_after(toolbox, workspace, version, only_again=True)
    return result


def _green(
    workspace: Workspace, version: Version, variants: Mapping[str, Variant], built: Iterable[Built]
) -> Iterator[Record]:
    """Yield the records that are there and green, where none is asked for."""
    for item in built:
        with contextlib.suppress(ImageTestError):
            yield from check_records(workspace, version, variants, (item,))


def _tested(job: _Job) -> Iterator[Built]:
    """Yield the images that have a green record."""
    there = {(record.image_type, record.platform) for record in job.records}
    return (item for item in job.built if (item.image_type, item.platform) in there)


def _attach_records(toolbox: Toolbox, workspace: Workspace, job: _Job) -> None:
    """Attach the records that are here to what was staged, so that the tests of this machine need not run elsewhere."""
    own = {str(record.manifest) for record in job.records}
    for place in job.places if job.request.source is None else ():
        for item in _tested(job) if place.repository.stage else ():
            digest = str(item.image.digest)
            if digest in own and item.record is not None and read_attached(place, digest) != item.record:
                attach(toolbox, workspace, place, digest, item.record.decode())


def _run_record(job: _Job, result: PublishResult, times: Mapping[str, object]) -> bytes:
    """Return `push.json`: what this run did, for whoever asks later."""
    repositories = {
        name: {
            "present_bytes": result.present_bytes[name],
            "ahead_bytes": result.ahead.get(name, SentAhead()).report.sent_bytes,
            **asdict(result.reports.get(name, PushReport())),
            "images": {
                one.image_type: {"digest": one.digest, "tags": list(one.tags)}
                for one in result.published
                if one.repository == name
            },
        }
        for name in result.present_bytes
    }
    tests = [
        {
            "image_type": record.image_type,
            "platform": record.platform,
            "manifest": str(record.manifest),
            "suite": str(record.suite),
            "passed": record.count("passed"),
            "skipped": record.count("skipped"),
        }
        for record in job.records
    ]
    value = {
        "schema": SCHEMA,
        "lockyard": __version__,
        "version": str(result.version),
        "from": job.request.source,
        **times,
        "tested": result.tested,
        "tests": tests,
        "resumed_blobs": result.resumed,
        "present_bytes": sum(result.present_bytes.values()),
        "ahead_bytes": sum(item.report.sent_bytes for item in result.ahead.values()),
        **asdict(result.report or PushReport()),
        "repositories": repositories,
        "client_pulls": [pull_json(pull) for pull in result.pulls],
        "published": result.lines,
    }
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def pull_json(pull: ClientPull) -> dict[str, object]:
    """Return what a client pulls as JSON values."""
    return {**asdict(pull), "previous": str(pull.previous) if pull.previous is not None else None}


def _pull(workspace: Workspace, version: Version, built: Built) -> ClientPull:
    layers = {str(layer.descriptor.digest): layer.descriptor.size for layer in built.image.layers}
    previous, had = previous_layers(workspace, version, built.image_type, built.platform)
    new = {digest: size for digest, size in layers.items() if digest not in had}
    return ClientPull(
        built.image_type, built.platform, previous, len(new), sum(new.values()), len(layers), sum(layers.values())
    )


def _digests(built: Built) -> Iterable[str]:
    yield str(built.image.config_descriptor.digest)
    yield from (str(layer.descriptor.digest) for layer in built.image.layers)
