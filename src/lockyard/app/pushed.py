"""Use cases around images in repositories: pulled by digest and tested on this machine, their records attached to them."""

import contextlib
import platform as machine_platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs, process
from lockyard.app.imagebench import ImageBench, session_of
from lockyard.app.images import ImageResult, suite_place, tag_of
from lockyard.app.staging import attach, read_record
from lockyard.app.targets import OCI, Place, address_of, open_places, resolve
from lockyard.app.testing import DEFAULT, TestOptions, known_record, planned_suite, run_in, summary
from lockyard.app.workspace import Workspace, find_root, open_workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import Record, Skipped, format_record, host_platform
from lockyard.checks.suite import read_suite
from lockyard.distribution import Repository
from lockyard.errors import BuildError, ConfigError, RegistryError
from lockyard.oci.image import Image, Index, conda_platform, oci_platform
from lockyard.oci.layout import read_layout, write_layout
from lockyard.oci.promotion import VERSION_LABEL
from lockyard.oci.pulled import PulledBases
from lockyard.oci.values import Descriptor, Digest, MediaType, check_tag
from lockyard.ports import Toolbox
from lockyard.ports.registry import RegistryPort
from lockyard.version import Version

TESTED = Path("out/tested")
"""Where records and reports of images that were tested in repositories are kept: VERSION/TYPE/PLATFORM below it."""
TYPE_LABEL = "lockyard.image-type"
_INDEXES = {MediaType.INDEX, MediaType.DOCKER_MANIFEST_LIST}


@dataclass(frozen=True, kw_only=True)
class PushedRequest:
    """Which images of which repositories to test.

    `references` are `REPOSITORY@sha256:…` or `REPOSITORY:TAG`, a repository as the configuration names it or `HOST/NAME` or
    `oci:DIR`. `version` and `image_type` are for images whose labels do not say them. Without `platforms` the image of this
    machine's platform is tested.
    """

    references: tuple[str, ...]
    version: Version | None = None
    image_type: str | None = None
    platforms: tuple[str, ...] = ()
    region: str | None = None
    insecure: bool = False
    attach: bool = True
    options: TestOptions = DEFAULT


@dataclass(frozen=True, kw_only=True)
class PushedImage:
    """A tested image: its repository, its release, how its tests ended, and the digest of the record attached to it now.

    `image.layout` is where this machine keeps record, report and log; `known` says that the record is of an earlier run of
    the same tests.
    """

    repository: Repository
    version: Version
    image: ImageResult
    known: bool = False
    attached: str | None = None

    @property
    def reference(self) -> str:
        """`REPOSITORY@DIGEST`."""
        return f"{self.repository.uri}@{self.image.digest}"


@dataclass(frozen=True, slots=True)
class PushedName:
    """What the user calls an image: a repository and a tag, a digest, or both."""

    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The last part of the repository."""
        return self.repository.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def check_pushed(toolbox: Toolbox, workspace: Workspace, request: PushedRequest) -> tuple[PushedImage, ...]:
    """Run the image tests of this distribution in images of repositories, and attach the records to them.

    Only what is not in the cache is pulled, and nothing for an image whose newest record is green and of the same tests.
    `require_green` of the images says whether they passed; red records are attached too. A run of chosen tests (`-k`)
    leaves none.

    Raises:
        ConfigError: a reference is malformed; version or type are not known, or another than the image says.
        BuildError: an image is not there, or has no part for a platform.
        HashMismatchError: the registry gave other bytes than the digest names.
        RegistryError: the registry cannot be reached, or does not take the record.
        ImageTestError: tests could not be run.

    """
    checker = _Checker(toolbox, workspace, request)
    found = {item.reference: item for text in request.references for item in checker.find(text)}
    return tuple(checker.check(item) for item in found.values())


def parse_pushed(workspace: Workspace, text: str, *, region: str | None = None) -> tuple[Repository, PushedName]:
    """Read `REPOSITORY@sha256:…` or `REPOSITORY:TAG`.

    Raises:
        ConfigError: it is malformed, or names no image.

    """
    rest, at, digest = text.partition("@")
    prefix = OCI if rest.startswith(OCI) else ""
    rest = rest.removeprefix(prefix)
    place, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        place, tag = rest, ""
    if not tag and not digest:
        raise ConfigError(f"{text!r} names no image", hint="add @sha256:…, as lockyard push prints it, or :TAG")
    (repository,) = resolve(workspace, (f"{prefix}{place}",), region=region)
    name = PushedName(repository.uri, check_tag(tag) if tag else None, Digest(digest) if at else None)
    return repository, name


@contextlib.contextmanager
def pulled_layout(
    toolbox: Toolbox, workspace: Workspace, name: PushedName, platform: str | None = None, *, insecure: bool = False
) -> Iterator[Path]:
    """Give an image of a repository as an OCI layout for the time of a `with` block; its blobs stay in the cache.

    Without `platform` it is that of this machine, or the only one.

    Raises:
        BuildError: there is no such image, it is malformed or not for the platform.
        HashMismatchError: the registry gave other bytes than the digest names.
        RegistryError: the registry refuses or cannot be reached.

    """
    cache, registry = _pulled(toolbox), _opener(toolbox, workspace, insecure=insecure)
    wanted = oci_platform(platform or host_platform(machine_platform.machine()))
    pulled = cache.open(name, wanted, registry)
    with process.own_directory(toolbox.cache_dir / "pulled") as place:
        write_layout(place, pulled.image, pulled.blobs)
        yield place


def bench_of_image(toolbox: Toolbox, image: str, start: Path, *, use_gpu: bool) -> ImageBench:
    """Open an image to run the suite of the distribution around `start` by hand.

    `image` is the layout of a built one, `oci:DIR`, or what `check_pushed` takes; version and type come from its labels.

    Raises:
        ConfigError: `image` is neither.
        BuildError: it is not there.
        RegistryError: its registry does not give it.

    """
    workspace = open_workspace(find_root(start))
    with contextlib.ExitStack() as stack:
        layout = Path(image.removeprefix(OCI)).absolute()
        if not image.startswith(OCI) or not (layout / "index.json").is_file():
            _, name = parse_pushed(workspace, image)
            layout = stack.enter_context(pulled_layout(toolbox, workspace, name))
        found = read_layout(layout).image
        labels: Mapping[str, str] = found.runtime.get("Labels") or {}
        version = Version.parse(_agreed(image, "version", labels.get(VERSION_LABEL)))
        image_type = _agreed(image, "image type", labels.get(TYPE_LABEL))
        place = workspace.root / suite_place(workspace, version)
        suite = read_suite(fs.read_tree(place), source=str(place.relative_to(workspace.root)))
        workspace.state_dir.mkdir(exist_ok=True)
        session = session_of(
            toolbox, workspace, version, image_type, conda_platform(found.descriptor.platform) or "", layout, place,
            workspace.state_dir, use_gpu=use_gpu,
        )  # fmt: skip
        bench = ImageBench(toolbox, session, suite, flags=workspace.line(version).variant(image_type).pytest_flags)
        bench.take(stack.pop_all())
        return bench


class _Checker:
    """One run of `check_pushed`."""

    def __init__(self, toolbox: Toolbox, workspace: Workspace, request: PushedRequest) -> None:
        self._toolbox = toolbox
        self._workspace = workspace
        self._request = request
        self._cache = _pulled(toolbox)
        self._registry = _opener(toolbox, workspace, insecure=request.insecure)

    def find(self, text: str) -> Iterator[PushedImage]:
        """Look at what a reference leads to, with no layer pulled; nothing of it is tested yet."""
        repository, name = parse_pushed(self._workspace, text, region=self._request.region)
        top, body = self._cache.top(name, self._registry)
        if name.digest is None:
            self._toolbox.log.info(f"{name} is {top.digest}")
        name = replace(name, digest=top.digest)
        parts = Index.parse(body).manifests if top.media_type in _INDEXES else None
        for platform in self._platforms(parts, name):
            image = self._cache.look(name, oci_platform(platform) if platform else None, self._registry)
            yield self._described(repository, name, image)

    def check(self, item: PushedImage) -> PushedImage:
        """Test one image, unless that was done, and attach the record."""
        image, options = item.image, self._request.options
        suite = planned_suite(self._workspace, item.version, image.image_type, image.platform)
        if isinstance(suite, Skipped):
            self._toolbox.log.warning(f"image tests of {item.reference} are skipped: {suite.reason}")
            return replace(item, image=replace(image, skipped=suite.reason))
        known = None if options.wants_a_run else self._known(item, suite)
        if known is not None:
            return known
        name = PushedName(item.repository.uri, digest=Digest(image.digest))
        insecure = self._request.insecure
        with pulled_layout(self._toolbox, self._workspace, name, image.platform, insecure=insecure) as layout:
            pulled = replace(image, layout=layout)
            done = run_in(self._toolbox, self._workspace, item.version, pulled, options, results=image.layout)
        item = replace(item, image=replace(done, layout=image.layout))
        return item if options.select or done.tests is None else self._attached(item, done.tests)

    def _platforms(self, parts: tuple[Descriptor, ...] | None, name: PushedName) -> tuple[str | None, ...]:
        """Return which platforms to test: of an index this machine's unless others are asked for, else the only one."""
        asked = self._request.platforms
        if parts is None:
            return asked or (None,)
        there = [found for item in parts if (found := conda_platform(item.platform)) is not None]
        chosen = asked or (host_platform(machine_platform.machine()),)
        for platform in chosen:
            if platform not in there:
                raise BuildError(
                    f"{name} has no image for {platform}; it has {', '.join(there) or 'none'}",
                    hint="choose one by --platform P, on a machine that runs it",
                )
        return chosen

    def _described(self, repository: Repository, name: PushedName, image: Image) -> PushedImage:
        platform = conda_platform(image.descriptor.platform)
        if platform is None:
            raise BuildError(f"{name} is for {'/'.join(image.descriptor.platform.values())}: no platform of conda")
        version, image_type = self._identity(image, name)
        variant = self._workspace.line(version).variant(image_type)
        results = self._workspace.root / TESTED / str(version) / image_type / platform
        result = ImageResult(
            image_type=image_type, platform=platform, tag=tag_of(variant, version, image_type), digest=str(image.digest),
            layout=results, layers=len(image.layers), rebuilt=0, size=image.size, rebuilt_size=0, fetched=0, packages=0,
            seconds=0.0,
        )  # fmt: skip
        return PushedImage(repository=repository, version=version, image=result)

    def _identity(self, image: Image, name: PushedName) -> tuple[Version, str]:
        """Return version and type of an image: what its labels say, else what the user says; they must agree."""
        labels: Mapping[str, str] = image.runtime.get("Labels") or {}
        given = self._request.version
        version = _agreed(name, "version", labels.get(VERSION_LABEL), str(given) if given else None, "VERSION")
        image_type = _agreed(name, "image type", labels.get(TYPE_LABEL), self._request.image_type, "--image-type T")
        return Version.parse(version), image_type

    def _known(self, item: PushedImage, suite: Digest) -> PushedImage | None:
        """Return the result of an earlier run of the same tests: what is attached to the image, or what is kept here."""
        image, kept = item.image, item.image.layout / TESTS
        with contextlib.closing(self._registry(item.repository.uri)) as port:
            theirs = known_record(read_record(Place(item.repository, port), image.digest), image, suite)
        record = theirs or known_record(fs.read_file(kept), image, suite)
        if record is None:
            return None
        self._toolbox.log.info(
            f"image tests of {item.reference}: nothing has changed since {summary(record)} (--rerun runs them)"
        )
        item = replace(item, image=replace(image, tests=record), known=True)
        if theirs is None:
            return self._attached(item, record)
        fs.atomic_write(kept, format_record(record).encode())
        return item

    def _attached(self, item: PushedImage, record: Record) -> PushedImage:
        if not self._request.attach:
            return item
        places = open_places(
            self._toolbox, self._workspace, (item.repository,), insecure=self._request.insecure
        )  # fmt: skip
        try:
            with places as (place,):
                digest = attach(self._toolbox, self._workspace, place, item.image.digest, format_record(record))
        except RegistryError as error:
            raise RegistryError(
                f"{error.message}: the record of {item.reference} is not attached", details=error.details,
                hint=f"its tests have run ({summary(record)}) and are not run again: repeat the command, or give --no-attach",
            ) from error  # fmt: skip
        self._toolbox.log.info(f"{item.reference}: its record {digest} is attached")
        return replace(item, attached=digest)


def _agreed(name: object, what: str, label: str | None, given: str | None = None, option: str = "") -> str:
    if label and given and label != given:
        raise ConfigError(f"{name}: its label says {what} {label}, not {given}", hint=f"leave {option} to the label")
    value = label or given
    if not value:
        raise ConfigError(f"{name} has no label that says its {what}", hint=f"give {option}" if option else None)
    return value


def _pulled(toolbox: Toolbox) -> PulledBases:
    return PulledBases(toolbox.cache_dir, toolbox.log, what="image")


def _opener(toolbox: Toolbox, workspace: Workspace, *, insecure: bool) -> Callable[[str], RegistryPort]:
    return lambda uri: toolbox.registry(address_of(workspace, uri), insecure=insecure, pull_only=True)
