"""Use cases around bills of materials and provenance: made from the lock, attached to published images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lockyard import __version__, fs
from lockyard.app.bases import planned_base
from lockyard.app.facts import line_order, lock_digest, with_built
from lockyard.app.staging import Attachment, attach_files, attached
from lockyard.app.targets import Place, beside, open_places, resolve
from lockyard.app.workspace import Workspace
from lockyard.errors import ConfigError, LockyardError
from lockyard.ports import Toolbox
from lockyard.registry.referrers import CREATED
from lockyard.reports import sbom
from lockyard.reports.model import ReleaseFacts, read_release
from lockyard.reports.sbom import Bill
from lockyard.tree import File, Tree
from lockyard.version import Version

FORMATS = ("cyclonedx", "spdx", "provenance")
PROVENANCE_TYPE = "application/vnd.in-toto+json"
_ENDINGS = {"cyclonedx": "cdx.json", "spdx": "spdx.json", "provenance": "provenance.json"}
_MEDIA_TYPES = {"cyclonedx": sbom.CYCLONEDX_TYPE, "spdx": sbom.SPDX_TYPE, "provenance": PROVENANCE_TYPE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One document about one image; `digest` is the image's manifest, empty when it is not built."""

    image_type: str
    platform: str
    digest: str
    format: str
    text: str
    created: str

    @property
    def file_name(self) -> str:
        """The file's name."""
        return f"{self.image_type}.{self.platform}.{_ENDINGS[self.format]}"


def statements(
    workspace: Workspace,
    release: ReleaseFacts,
    *,
    formats: Iterable[str] = FORMATS,
    platforms: tuple[str, ...] = (),
    validate: bool = False,
) -> Iterator[Statement]:
    """Yield the documents of every image of a release; provenance only of what is built or published.

    `validate` asks the libraries' own validators, which takes seconds for an image of a thousand packages.

    Raises:
        ConfigError: no image type has such a platform.
        LockyardError: a document is not valid.

    """
    wanted = tuple(formats)
    bills = list(_bills(workspace, release, platforms))
    if not bills:
        raise ConfigError(f"no image type of {release.version} has the platform {', '.join(platforms)}")
    for bill in bills:
        for name in wanted:
            if name == "provenance" and not bill.digest:
                continue
            document = _statement(workspace, release, bill, name)
            if validate and name == "cyclonedx":
                sbom.check_cyclonedx(document.text)
            if validate and name == "spdx":
                sbom.check_spdx(bill)
            yield document


def as_tree(documents: Iterable[Statement]) -> Tree:
    """Return the documents as files."""
    return Tree({item.file_name: File.text(item.text) for item in documents})


def write_documents(workspace: Workspace, documents: Iterable[Statement], directory: str) -> tuple[str, ...]:
    """Write the documents below `directory`, each as one step, and return their paths."""
    place = workspace.root / directory
    tree = as_tree(documents)
    for name, file in tree.items():
        fs.atomic_write(place / name, file.data)
    return tuple(f"{directory}/{name}" for name in tree)


def attach_documents(
    toolbox: Toolbox,
    workspace: Workspace,
    release: ReleaseFacts,
    places: Iterable[Place],
    *,
    formats: Iterable[str] = FORMATS,
    platforms: tuple[str, ...] = (),
) -> int:
    """Attach the documents to the images of a release in repositories, as OCI referrers; return how many were attached.

    What an image has of a format already stays, and is not made again.

    Raises:
        RegistryError: an image is not there, or a registry refuses.

    """
    repositories, wanted = tuple(places), tuple(formats)
    bills = [bill for bill in _bills(workspace, release, platforms) if bill.digest]
    return sum(_attach(toolbox, workspace, release, bill, repositories, wanted) for bill in bills)


def _attach(
    toolbox: Toolbox,
    workspace: Workspace,
    release: ReleaseFacts,
    bill: Bill,
    places: Sequence[Place],
    formats: Sequence[str],
) -> int:
    """Attach the documents of one image to it in all repositories beside each other."""

    def lacks(place: Place) -> tuple[str, ...]:
        there = {item.artifact_type for item in attached(place, bill.digest)}
        return tuple(name for name in formats if _MEDIA_TYPES[name] not in there)

    lacking = beside(lacks, places)
    files = {}
    for name in formats:
        if any(name in names for names in lacking):
            document = _statement(workspace, release, bill, name)
            annotations = {
                CREATED: document.created,
                "lockyard.image-type": bill.image_type,
                "lockyard.platform": bill.platform,
            }
            files[name] = Attachment(document.text.encode(), _MEDIA_TYPES[name], annotations)

    def put(job: tuple[Place, tuple[str, ...]]) -> int:
        place, names = job
        attach_files(workspace, place, bill.digest, [files[name] for name in names])
        toolbox.log.detail(f"attached {', '.join(names)} to {place.name}@{bill.digest}")
        return len(names)

    return sum(beside(put, [job for job in zip(places, lacking, strict=True) if job[1]]))


def attach_to(
    toolbox: Toolbox,
    workspace: Workspace,
    release: ReleaseFacts,
    repository: str,
    *,
    formats: Iterable[str] = FORMATS,
    platforms: tuple[str, ...] = (),
    insecure: bool = False,
) -> int:
    """Attach the documents to the images in one repository, an alias or a URI.

    Raises:
        ConfigError: nothing of the release is built or published.
        RegistryError: an image is not there, or the registry refuses.

    """
    if not any(item.images for item in release.types.values()):
        raise ConfigError(
            f"nothing of {release.version} is built or published", hint=f"lockyard build {release.version}"
        )
    targets = resolve(workspace, (repository,))
    with open_places(toolbox, workspace, targets, insecure=insecure) as places:
        return attach_documents(toolbox, workspace, release, places, formats=formats, platforms=platforms)


def attach_after(
    toolbox: Toolbox, workspace: Workspace, version: Version, image_types: tuple[str, ...], places: Iterable[Place]
) -> None:
    """Attach all documents at the end of a push, which does not fail because of them.

    There are none of a release that has no lock, and staging repositories get none.
    """
    final = [place for place in places if not place.repository.stage]
    try:
        release = read_release(
            workspace.release_tree(version), version, order=line_order(workspace, version), image_types=image_types,
            partial=True,
        )  # fmt: skip
        count = attach_documents(toolbox, workspace, with_built(workspace, release), final)
    except LockyardError as error:
        toolbox.log.warning(f"bills of materials are not attached: {error.message}")
        toolbox.log.warning(f"attach them later: lockyard generate-sbom {version} --attach REPOSITORY")
        return
    if count:
        toolbox.log.info(f"attached {count} bills of materials and statements of provenance")


def _bills(workspace: Workspace, release: ReleaseFacts, platforms: tuple[str, ...]) -> Iterator[Bill]:
    for name, item in release.types.items():
        for platform, packages in item.lock.platforms.items():
            if platforms and platform not in platforms:
                continue
            image = item.images.get(platform)
            base, base_digest = (
                (image.base, image.base_digest) if image else _planned_base(workspace, release, name, platform)
            )
            yield Bill(
                name=workspace.distribution.name,
                version=str(release.version),
                image_type=name,
                platform=platform,
                packages=packages,
                tool=__version__,
                digest=image.manifest if image else "",
                base=base,
                base_digest=base_digest,
            )


def _planned_base(workspace: Workspace, release: ReleaseFacts, name: str, platform: str) -> tuple[str, str]:
    """Return the base of an image that is not built, and its digest where it is pinned."""
    if name not in line_order(workspace, release.version):
        return "", ""
    return planned_base(workspace, release.version, name, platform)


def _statement(workspace: Workspace, release: ReleaseFacts, bill: Bill, name: str) -> Statement:
    return Statement(
        image_type=bill.image_type,
        platform=bill.platform,
        digest=bill.digest,
        format=name,
        text=_text(workspace, release, bill, name),
        created=bill.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _text(workspace: Workspace, release: ReleaseFacts, bill: Bill, name: str) -> str:
    if name == "cyclonedx":
        return sbom.cyclonedx(bill)
    if name == "spdx":
        return sbom.spdx(bill)
    lock = release.types[bill.image_type].lock
    line = workspace.line(release.version)
    parameters = {"channels": list(lock.channels), "prefix": line.prefix, "owner": line.owner}
    hashes = {"inputHash": lock.input_hash, "digest": lock_digest(lock, bill.platform)}
    return sbom.provenance(bill, lock=hashes, parameters=parameters)
