"""Bills of materials of one image: CycloneDX 1.6 and SPDX 2.3, by their own libraries, the same bytes for the same lock.

Identity comes from the content: the serial number and the namespace are UUIDs over what is listed, the time is that of
the newest package. Both libraries load late: they take the better part of a second.
"""

import datetime as dt
import functools
import hashlib
import io
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lockyard.conda.lock import LockedPackage
from lockyard.errors import LockyardError
from lockyard.reports.graph import Graph

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from license_expression import LicenseExpression, Licensing
    from packageurl import PackageURL
    from spdx_tools.spdx.model import Document
    from spdx_tools.spdx.model import Package as SpdxPackage

CYCLONEDX_TYPE = "application/vnd.cyclonedx+json"
SPDX_TYPE = "application/spdx+json"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_REF_RE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://spdx.org/spdxdocs/lockyard")


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What is in one image of one platform.

    `digest` is that of its manifest, empty when it is not built; `base` and `base_digest` are those of the base image.
    `tool` is the version of Lockyard that writes the bill.
    """

    name: str
    version: str
    image_type: str
    platform: str
    packages: tuple[LockedPackage, ...]
    tool: str
    digest: str = ""
    base: str = ""
    base_digest: str = ""
    graph: Graph = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph", Graph.of(self.packages))

    @property
    def created(self) -> dt.datetime:
        """The time of the newest package, UTC; the epoch where the lock does not say."""
        newest = max((package.timestamp or 0 for package in self.packages), default=0)
        return dt.datetime.fromtimestamp(newest // 1000, dt.UTC)

    @property
    def identity(self) -> uuid.UUID:
        """A UUID over everything that the bill lists."""
        listed = [
            [package.url, package.sha256, package.md5, package.size, package.license, package.depends]
            for package in sorted(self.packages, key=lambda item: item.name)
        ]
        head = [self.name, self.version, self.image_type, self.platform, self.digest, self.base, self.base_digest]
        text = json.dumps([head, self.tool, listed], sort_keys=True)
        return uuid.uuid5(_NAMESPACE, hashlib.sha256(text.encode()).hexdigest())

    @property
    def title(self) -> str:
        """The image's name with its type."""
        return f"{self.name}-{self.image_type}"


def package_purl(package: LockedPackage) -> "PackageURL":
    """Return the package URL of a conda package (purl specification, type `conda`)."""
    from packageurl import PackageURL

    archive = "tar.bz2" if package.url.endswith(".tar.bz2") else "conda"
    values = {"build": package.build, "channel": package.channel, "subdir": package.subdir, "type": archive}
    return PackageURL(
        "conda", None, package.name, package.version, {key: value for key, value in values.items() if value}
    )


def cyclonedx(bill: Bill) -> str:
    """Return the bill as CycloneDX 1.6 JSON."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.dependency import Dependency
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(
        name=bill.title, version=bill.version, type=ComponentType.CONTAINER, bom_ref="image", purl=image_purl(bill),
        properties=[Property(name="lockyard:platform", value=bill.platform)],
    )  # fmt: skip
    bom = Bom(serial_number=bill.identity)
    bom.metadata.timestamp = bill.created
    bom.metadata.component = root
    bom.metadata.tools.components.add(
        Component(name="lockyard", version=bill.tool, type=ComponentType.APPLICATION, bom_ref="lockyard")
    )
    parts: dict[str, Component] = {package.name: _component(package) for package in bill.packages}
    below = list(parts.values())
    if bill.base and bill.base != "scratch":
        below.append(_base_component(bill))
    for component in below:
        bom.components.add(component)
    # `register_dependency` looks through all that are there each time.
    refs = {name: component.bom_ref for name, component in parts.items()}
    bom.dependencies = [
        Dependency(root.bom_ref, [Dependency(component.bom_ref) for component in below]),
        *(
            Dependency(refs[name], [Dependency(refs[word]) for word in words])
            for name, words in bill.graph.requires.items()
        ),
        *(Dependency(component.bom_ref) for component in below[len(parts) :]),
    ]
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def check_cyclonedx(text: str) -> None:
    """Validate a bill by the library's own strict validator.

    Raises:
        LockyardError: it is not valid.

    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise LockyardError(f"the CycloneDX bill is not valid: {problem}"[:500])


def spdx(bill: Bill) -> str:
    """Return the bill as SPDX 2.3 JSON."""
    from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

    stream = io.StringIO()
    write_document_to_stream(_document(bill), stream, validate=False)
    return stream.getvalue().rstrip() + "\n"


def check_spdx(bill: Bill) -> None:
    """Validate the SPDX document by the library's own validator.

    Raises:
        LockyardError: it is not valid.

    """
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    problems = validate_full_spdx_document(_document(bill))
    if problems:
        raise LockyardError(
            f"the SPDX bill is not valid: {problems[0].validation_message}",
            details=[item.validation_message for item in problems[1:10]],
        )


def image_purl(bill: Bill) -> "PackageURL | None":
    """Return the package URL of the image (purl type `oci`); there is none before it has a digest."""
    from packageurl import PackageURL

    if not bill.digest:
        return None
    name = bill.name.rsplit("/", 1)[-1].lower()
    return PackageURL("oci", None, name, bill.digest, {"tag": f"{bill.version}-{bill.image_type}"})


def _component(package: LockedPackage) -> "Component":
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
    from cyclonedx.model.component import Component, ComponentType

    hashes = [
        HashType(alg=algorithm, content=value)
        for algorithm, value in ((HashAlgorithm.SHA_256, package.sha256), (HashAlgorithm.MD5, package.md5))
        if value
    ]
    properties = [("lockyard:size", package.size), ("lockyard:subdir", package.subdir)]
    name, purl = package.name, package_purl(package)
    return Component(
        name=name, version=package.version, type=ComponentType.LIBRARY, bom_ref=f"pkg:{name}", purl=purl,
        hashes=hashes, licenses=_cyclonedx_licenses(package.license),
        properties=[Property(name=key, value=str(value)) for key, value in properties if value is not None],
        external_references=[
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(package.url), hashes=hashes)
        ] if "://" in package.url else [],
    )  # fmt: skip


def _base_component(bill: Bill) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    digest = bill.base_digest.removeprefix("sha256:")
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if len(digest) == 64 else []
    return Component(
        name=bill.base, version=bill.base_digest or None, type=ComponentType.CONTAINER, bom_ref="base", hashes=hashes
    )


def _cyclonedx_licenses(text: str | None) -> list[Any]:
    from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression

    if not text:
        return []
    known = _expression(text)
    declared = LicenseAcknowledgement.DECLARED
    if known is None:
        return [DisjunctiveLicense(name=text, acknowledgement=declared)]
    return [LicenseExpression(str(known), acknowledgement=declared)]


@functools.cache
def _expression(text: str) -> "LicenseExpression | None":
    """Return the SPDX expression that a recipe states, `None` when it is not one; `LicenseRef-…` may stand in it."""
    from boolean import ParseError
    from license_expression import ExpressionError

    try:
        found = _licensing().parse(text)
    except (ExpressionError, ParseError):
        return None
    unknown = [key for key in _licensing().unknown_license_keys(found) if not _REF_RE.fullmatch(key)]
    return None if unknown or found is None else found


@functools.cache
def _licensing() -> "Licensing":
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _document(bill: Bill) -> "Document":
    from spdx_tools.spdx.model import (
        Actor,
        ActorType,
        CreationInfo,
        Document,
        ExtractedLicensingInfo,
        Relationship,
        RelationshipType,
    )

    created = bill.created.replace(tzinfo=None)
    info = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=f"{bill.title}-{bill.version}-{bill.platform}",
        data_license="CC0-1.0",
        document_namespace=f"https://spdx.org/spdxdocs/{_spdx_name(bill.title)}-{bill.version}-{bill.identity}",
        creators=[Actor(ActorType.TOOL, f"lockyard-{bill.tool}")],
        created=created,
    )
    ids = {package.name: f"SPDXRef-Package-{_spdx_name(package.name)}" for package in bill.packages}
    packages = [_spdx_image(bill), *(_spdx_package(package, ids[package.name]) for package in bill.packages)]
    links = [Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, "SPDXRef-Image")]
    if bill.base and bill.base != "scratch":
        packages.append(_spdx_base(bill))
        links.append(Relationship("SPDXRef-Image", RelationshipType.DESCENDANT_OF, "SPDXRef-Base"))
    links += [Relationship("SPDXRef-Image", RelationshipType.CONTAINS, ids[package.name]) for package in bill.packages]
    links += [
        Relationship(ids[name], RelationshipType.DEPENDS_ON, ids[word])
        for name, words in bill.graph.requires.items()
        for word in words
    ]
    names = {name for package in bill.packages if package.license for name in _REF_RE.findall(package.license)}
    texts = [
        ExtractedLicensingInfo(name, extracted_text=f"{name}, as the recipe of a package names it")
        for name in sorted(names)
    ]
    return Document(info, packages=packages, relationships=links, extracted_licensing_info=texts)


def _spdx_image(bill: Bill) -> "SpdxPackage":
    from spdx_tools.spdx.model import ExternalPackageRef, ExternalPackageRefCategory, PackagePurpose, SpdxNoAssertion
    from spdx_tools.spdx.model import Package as SpdxPackage

    purl = image_purl(bill)
    category = ExternalPackageRefCategory.PACKAGE_MANAGER
    return SpdxPackage(
        "SPDXRef-Image", bill.title, SpdxNoAssertion(), version=bill.version, files_analyzed=False,
        primary_package_purpose=PackagePurpose.CONTAINER,
        external_references=[ExternalPackageRef(category, "purl", purl.to_string())] if purl else [],
    )  # fmt: skip


def _spdx_base(bill: Bill) -> "SpdxPackage":
    from spdx_tools.spdx.model import Checksum, ChecksumAlgorithm, PackagePurpose, SpdxNoAssertion
    from spdx_tools.spdx.model import Package as SpdxPackage

    digest = bill.base_digest.removeprefix("sha256:")
    checksums = [Checksum(ChecksumAlgorithm.SHA256, digest)] if len(digest) == 64 else []
    return SpdxPackage(
        "SPDXRef-Base", bill.base, SpdxNoAssertion(), version=bill.base_digest or None, files_analyzed=False,
        checksums=checksums, primary_package_purpose=PackagePurpose.CONTAINER,
    )  # fmt: skip


def _spdx_package(package: LockedPackage, spdx_id: str) -> "SpdxPackage":
    from spdx_tools.spdx.model import (
        Checksum,
        ChecksumAlgorithm,
        ExternalPackageRef,
        ExternalPackageRefCategory,
        SpdxNoAssertion,
    )
    from spdx_tools.spdx.model import Package as SpdxPackage

    expression = _expression(package.license) if package.license else None
    notes = [f"licence as stated by the recipe: {package.license}"] if package.license and expression is None else []
    notes += [f"size of the archive in bytes: {package.size}"] if package.size is not None else []
    purl = package_purl(package).to_string()
    return SpdxPackage(
        spdx_id, package.name, package.url if "://" in package.url else SpdxNoAssertion(), version=package.version,
        file_name=package.file_name, files_analyzed=False,
        checksums=[
            Checksum(algorithm, value)
            for algorithm, value in ((ChecksumAlgorithm.SHA256, package.sha256), (ChecksumAlgorithm.MD5, package.md5))
            if value
        ],
        license_declared=expression if expression is not None else SpdxNoAssertion(),
        comment="; ".join(notes) or None,
        external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)],
    )  # fmt: skip


def _spdx_name(text: str) -> str:
    """Return what an SPDX identifier may hold: letters, digits, dots and hyphens; `_` becomes `.95.`, unlike any other."""
    return "".join(char if char.isascii() and (char.isalnum() or char in ".-") else f".{ord(char)}." for char in text)


def provenance(bill: Bill, *, lock: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Return an in-toto statement (v1) with SLSA provenance v1 of a built image.

    `lock` is what `build.json` says of it (`input_hash`, `digest`), `parameters` what else went in.

    Raises:
        LockyardError: the image has no digest, so there is no subject.

    """
    if not bill.digest:
        raise LockyardError(f"{bill.image_type} {bill.platform} of {bill.version} is not built: it has no digest")
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": bill.title, "digest": {"sha256": bill.digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:lockyard:image:v1",
                "externalParameters": {
                    "version": bill.version,
                    "imageType": bill.image_type,
                    "platform": bill.platform,
                    **parameters,
                },
                "internalParameters": {"lock": dict(lock)},
                "resolvedDependencies": list(_resolved(bill)),
            },
            "runDetails": {
                "builder": {"id": "urn:lockyard:builder", "version": {"lockyard": bill.tool}},
                "metadata": {"invocationId": f"urn:uuid:{bill.identity}"},
            },
        },
    }
    return json.dumps(statement, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _resolved(bill: Bill) -> Iterator[dict[str, Any]]:
    """Yield the base and every package, as SLSA's resource descriptors."""
    if bill.base and bill.base != "scratch":
        digest = {"digest": {"sha256": bill.base_digest.removeprefix("sha256:")}} if bill.base_digest else {}
        yield {"name": "base", "uri": bill.base, **digest}
    packages: Sequence[LockedPackage] = sorted(bill.packages, key=lambda item: item.name)
    for package in packages:
        hashes = {name: value for name, value in (("sha256", package.sha256), ("md5", package.md5)) if value}
        yield {"name": package.name, "uri": package_purl(package).to_string(), "digest": hashes}
