"""The ports: what the CLI builds once and tests replace. Pure types only; EDGE modules satisfy the protocols.

A port that needs a heavy library is a factory in the `Toolbox`, so that commands which do not use it never load it.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Protocol, TypeVar

from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.values import Digest

if TYPE_CHECKING:  # every command loads the ports, few of them images and registries
    from lockyard.oci.image import Image
    from lockyard.registry.places import EcrPlace
    from lockyard.registry.settings import RepositorySettings

Exported = TypeVar("Exported")


class Log(Protocol):
    """The story, told by meaning; the CLI decides how it looks. Nothing here reaches stdout."""

    def step(self, message: str) -> None:
        """Say that a stage begins."""

    def info(self, message: str) -> None:
        """Say a fact of interest."""

    def detail(self, message: str) -> None:
        """Say what only `-v` shows."""

    def warning(self, message: str) -> None:
        """Say what the user should look at."""

    def progress(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Open a progress display; the yielded function advances it (thread-safe). `unit` is `B` or a noun."""


class Clock(Protocol):
    """The time."""

    def now(self) -> dt.datetime:
        """Return the time now, UTC, aware."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveRequest:
    """What a solve depends on, for one platform.

    `specs` are conda match specs; `channels` are in strict priority order, names, URLs or `file:` paths relative to
    `root`; `preferred` are the records that stay unless something asks otherwise; `constraints` are specs that
    bind only packages which are chosen anyway; `exclude_newer` is aware, UTC.
    """

    specs: tuple[str, ...]
    channels: tuple[str, ...]
    platform: str
    root: Path
    virtual_packages: Mapping[str, str] = field(default_factory=dict)
    preferred: tuple[LockedPackage, ...] = ()
    constraints: tuple[str, ...] = ()
    exclude_newer: dt.datetime | None = None
    offline: bool = False


class Solver(Protocol):
    """Finds the exact packages."""

    def solve(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        """Return the packages in install order.

        Raises:
            UnsatisfiableError: with the solver's words as details.

        """

    def available(self, request: SolveRequest) -> tuple[LockedPackage, ...]:
        """Return those of `request.preferred` whose exact package a channel has, with all that it says of them."""

    def absent(self, request: SolveRequest) -> frozenset[str]:
        """Return the names in `request.specs` of which no channel has any package for the platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRecord:
    """One build of a package in a channel's index: size in bytes, timestamp in milliseconds; `None` where it does not say."""

    name: str
    version: str
    build: str
    build_number: int = 0
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
    timestamp: int | None = None
    license: str | None = None
    depends: tuple[str, ...] = ()


class ChannelIndex(Protocol):
    """Says what channels have."""

    def records(self, request: SolveRequest, names: Collection[str]) -> Mapping[str, tuple[IndexRecord, ...]]:
        """Return name → every build of it in the first channel that has any; names that no channel has are left out.

        Of the request only channels, platform, root and `offline` count.

        Raises:
            ConfigError: a channel is malformed, or its index is not in the cache and this is offline.
            BuildError: a channel cannot be reached.

        """


class ScanSource(Protocol):
    """Says what a registry's own scanner found."""

    def scan_findings(self, repository: str, tag: str, *, region: str | None = None) -> bytes | None:
        """Return the JSON of `describe-image-scan-findings`, all pages in one; `None` when there is no finished scan.

        Raises:
            RegistryError: the registry refuses or has no such image.

        """


def no_scans() -> ScanSource:
    """Stand for a scanner in a toolbox that has none."""
    raise NotImplementedError("this toolbox has no source of scan findings")


def no_index() -> ChannelIndex:
    """Stand for an index in a toolbox that has none."""
    raise NotImplementedError("this toolbox has no channel index")


@dataclass(frozen=True, slots=True)
class FetchedPackage:
    """A package in the cache: its archive, its extracted directory, and whether this run fetched it."""

    package: LockedPackage
    archive: Path
    directory: Path
    fetched: bool


class PackageSource(Protocol):
    """Brings packages into the package cache."""

    def fetch(
        self, packages: Sequence[LockedPackage], *, root: Path, files: Mapping[str, Path] | None = None
    ) -> Mapping[str, FetchedPackage]:
        """Return `dist` → package for all, verified by hash, in parallel, resumable.

        `files` is `dist` → the package file to take instead of what the address leads to.

        Raises:
            HashMismatchError: bytes differ from the lock; nothing of that package is kept.
            BuildError: a package cannot be reached.

        """


@dataclass(frozen=True, slots=True)
class Overlay:
    """A directory that a command may change without changing it: its changes go to the tar `changes`, in OCI form.

    `source` appears at `target` inside. Times and owners of the tar are those of the run; a removed path is a whiteout.
    """

    source: Path
    target: str
    changes: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A command inside a built image. `binds` are (host path, place inside, writable)."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    """`None`: the image's own."""
    binds: tuple[tuple[Path, str, bool], ...] = ()
    overlay: Overlay | None = None
    timeout: float | None = None
    """Seconds."""
    interactive: bool = False
    """Standard input and outputs are the caller's; the result's `output` is empty."""
    network: bool = False
    """The machine's network is there; else only a loopback."""
    until: str | None = None
    """A regular expression: the command has done its work, and is ended, when a line of its output holds it."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended; `output` is stdout and stderr together, `found` whether the line asked for was in it."""

    exit_code: int
    output: str
    found: bool = False


class Runner(Protocol):
    """Runs commands inside one image; a context manager removes what it made."""

    def run(self, request: RunRequest) -> RunResult:
        """Run one command to its end."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image in a daemon: its name there, bytes of layers that were sent, and how many layers were there before."""

    name: str
    sent: int
    shared: int


@dataclass(frozen=True, kw_only=True)
class EngineBuild:
    """A build by a container engine: `what` names it in messages, `name` is `REPOSITORY:TAG` of the result.

    `dockerfile` is a path in the context, `platform` an OCI one such as `linux/amd64`, `network` the engine's own word.
    """

    what: str
    name: str
    dockerfile: str = "Dockerfile"
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None
    network: str | None = None
    no_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class ContainerRun:
    """A container run to its end, to a line of its log (`until`, a regular expression), or for `timeout` seconds."""

    image: str
    label: str
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    until: str | None = None
    network: str = "none"
    shm_size: int | None = None
    """Bytes."""
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class BuildSecret:
    """A secret that steps of a Dockerfile can mount as `name`: the value of a variable, or the content of a file."""

    name: str
    env: str | None = None
    source: PurePath | None = None


class LayoutWriter(Protocol):
    """Writes OCI layouts."""

    def __call__(self, path: Path, image: "Image", blobs: Mapping[Digest, Path], *, name: str = "") -> object:
        """Make the layout at `path` hold exactly `image`, under the reference name `name`."""


class Builder(Protocol):
    """What builds images from Dockerfiles. Every failure is a `BuildError`."""

    def build(self, build: EngineBuild, context: Callable[[], Iterator[bytes]], say: Callable[[str], None]) -> str:
        """Build an image and return its id; `context` gives the bytes of a tar, `say` gets every line of the log."""

    def cancel(self) -> None:
        """End all builds that run."""

    def export(self, image: str, take: Callable[[IO[bytes]], Exported]) -> tuple[bytes, tuple[Exported, ...]]:
        """Give `take` the tar of each layer; return the configuration and what it returned, bottom first."""

    def identify(self, reference: str) -> str | None:
        """Return `NAME@sha256:…` of an image that `FROM` named, its id when it was made here, `None` when nothing was built from it."""

    def remove_image(self, name: str) -> None:
        """Remove a name, and the image when it was its last one."""

    def load(self, image: "Image", blobs: Mapping[Digest, Path], name: str) -> Loaded:
        """Load an image as `NAME:TAG`; `blobs` says where its layers are."""

    def close(self) -> None:
        """Close connections."""


class Containers(Builder, Protocol):
    """A container engine that builds and runs."""

    def run(self, run: ContainerRun) -> RunResult:
        """Run a container; it is removed then."""

    def has_gpu(self) -> bool:
        """Tell whether containers can be given a GPU."""


class Daemon(Protocol):
    """A container engine of this machine that images are loaded into."""

    def load(self, image: "Image", blobs: Mapping[Digest, Path], name: str) -> Loaded:
        """Load an image as `NAME:TAG`; `blobs` says where its layers are.

        Raises:
            BuildError: the daemon refuses it.

        """

    def close(self) -> None:
        """Close connections."""


def no_containers() -> Containers:
    """Refuse what needs a container engine."""
    raise BuildError("there is no container engine")


class BuilderFactory(Protocol):
    """Opens BuildKit."""

    def __call__(self, builder: str | None, secrets: Sequence[BuildSecret]) -> Builder:
        """Open `builder`, the user's current one when it is `None`.

        Raises:
            BuildError: there is none.
            ConfigError: a secret is not there.

        """


def no_buildkit(builder: str | None, secrets: Sequence[BuildSecret]) -> Builder:
    """Refuse what needs BuildKit."""
    raise BuildError(f"there is no BuildKit for {builder or 'builds'}", details=[item.name for item in secrets])


def no_daemon() -> Daemon | None:
    """Find no daemon."""
    return None


class EcrSettings(Protocol):
    """How repositories of Amazon ECR are set up."""

    def settings(self, place: "EcrPlace") -> "RepositorySettings":
        """Return the settings of one repository.

        Raises:
            RegistryError: AWS does not say.

        """


def no_ecr(place: "EcrPlace") -> EcrSettings:
    """Stand for a toolbox that reaches no Amazon ECR."""
    raise ConfigError(f"no Amazon ECR is at hand for {place.host}")


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """The effects, as factories where they load something heavy."""

    log: Log
    clock: Clock
    environ: Mapping[str, str]
    cache_dir: Path
    solver: Callable[[], Solver]
    packages: Callable[[], PackageSource]
    index: Callable[[], ChannelIndex] = no_index
    scans: Callable[[], ScanSource] = no_scans
    sandbox: Callable[[Path], AbstractContextManager[Runner]]
    """Takes an OCI layout (its only image) and gives a runner inside it."""
    base_sandbox: "BaseSandbox"
    """Takes an image and the places of its layers, and gives a runner inside it."""
    registry: "RegistryFactory"
    """Takes a repository (`HOST/NAME` or `oci:DIR`) and gives its registry."""
    daemon: Callable[[], Daemon | None] = no_daemon
    """Gives the reachable container engine; `None` when there is none."""
    ecr: Callable[["EcrPlace"], EcrSettings] = no_ecr
    """Takes a repository in Amazon ECR and gives what knows its settings."""
    containers: Callable[[], Containers] = no_containers
    """Gives the container engine; raises `BuildError`, which names what was tried, when there is none."""
    buildkit: BuilderFactory = no_buildkit
    """Takes the name of a builder and build secrets, and gives BuildKit."""


class BaseSandbox(Protocol):
    """Opens a sandbox in an image that is in no layout."""

    def __call__(self, image: "Image", blobs: Mapping[Digest, Path]) -> AbstractContextManager[Runner]:
        """Give a runner inside `image`.

        Raises:
            BuildError: the machine cannot do it.

        """


class RegistryFactory(Protocol):
    """Opens repositories."""

    def __call__(self, target: str, *, insecure: bool = False, pull_only: bool = False) -> "RegistryPort":
        """Open `HOST/NAME` or `oci:DIR`; `insecure` allows plain http to hosts that are not this machine.

        `pull_only` asks for no right to push.

        Raises:
            ConfigError: the target is malformed.

        """


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload that has begun: where it goes on and how many bytes are there, `None` when only the registry knows."""

    location: str
    offset: int | None = None


class BlobContent(Protocol):
    """The bytes of a blob that lies somewhere else; parts of it may be read several times."""

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes from `start` on, exactly `length` of them.

        Raises:
            RegistryError: they cannot be had.

        """


class RegistryPort(Protocol):
    """One repository of a registry, or an OCI layout that stands for one. Thread-safe; every failure is a `RegistryError`.

    A *reference* is a tag or a digest `sha256:…`.
    """

    @property
    def registry(self) -> str | None:
        """What repositories must share to mount each other's blobs; `None` when there is no mounting."""

    @property
    def max_blob(self) -> int | None:
        """Bytes of the largest blob that it takes, `None` without a limit."""

    def manifest_digest(self, reference: str) -> str | None:
        """Return the digest behind a reference, `None` when there is none."""

    def get_manifest(self, reference: str) -> bytes | None:
        """Return the manifest's bytes, `None` when there is none."""

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> bool:
        """Put a manifest under a reference; what it refers to must be there.

        Returns whether the registry itself lists it as a referrer of its `subject`.
        """

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted; none when the repository does not exist yet."""

    def present_blobs(self, blobs: Mapping[str, int]) -> frozenset[str]:
        """Return which of the blobs (digest → size in bytes) the repository has."""

    def get_blob(self, digest: str) -> bytes | None:
        """Return the checked bytes of a small blob (a configuration), `None` when there is none.

        Raises:
            HashMismatchError: the answer is something else.

        """

    def download_blob(self, digest: str, size: int, part: Path, *, progress: Callable[[int], None]) -> None:
        """Bring a blob into the file `part`, going on where an earlier call or process stopped, and check it.

        `progress` gets bytes as they are there, negative when they must come again.

        Raises:
            HashMismatchError: what came is something else; the file is removed.

        """

    def mount_blob(self, digest: str, source: str) -> UploadSession | None:
        """Mount a blob from the repository `source` of the same registry.

        Returns `None` when it is mounted, else the session to upload it with.
        """

    def read_blob(self, digest: str, start: int, length: int) -> bytes:
        """Return a part of a blob, exactly `length` bytes, which are not checked."""

    def referrers(self, digest: str) -> bytes | None:
        """Return the index of the manifests whose subject is `digest`, `None` where that cannot be asked.

        Then they are listed under a tag; see `registry.referrers`.
        """

    def upload_blob(
        self,
        source: Path | BlobContent,
        digest: str,
        size: int,
        *,
        progress: Callable[[int], None],
        session: UploadSession | None = None,
        on_session: Callable[[UploadSession], None] | None = None,
    ) -> int:
        """Send one blob in bounded memory, and return the bytes sent.

        `progress` gets bytes as they become part of the blob (negative when they were lost), `on_session` where a large
        upload can go on after this process has died.

        Raises:
            HashMismatchError: `source` is not what `digest` names; the registry has not got it then.

        """

    def close(self) -> None:
        """Close connections."""
