"""Ports of what runs and builds: the sandbox, container engines, BuildKit, the daemon that images are loaded into."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Protocol, TypeVar

from lockyard.oci.values import Digest

if TYPE_CHECKING:  # commands that build nothing load these ports too
    from lockyard.oci.image import Image


Exported = TypeVar("Exported")


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


class BaseSandbox(Protocol):
    """Opens a sandbox in an image that is in no layout."""

    def __call__(self, image: "Image", blobs: Mapping[Digest, Path]) -> AbstractContextManager[Runner]:
        """Give a runner inside `image`.

        Raises:
            BuildError: the machine cannot do it.

        """


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
    `expected` is the id of an image that is known here whole: when the result is this one, nothing of it need be sent back.
    After `timeout` seconds a build is ended.
    """

    what: str
    name: str
    dockerfile: str = "Dockerfile"
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None
    network: str | None = None
    no_cache: bool = False
    expected: str | None = None
    timeout: float | None = None


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


class BuilderFactory(Protocol):
    """Opens BuildKit."""

    def __call__(self, builder: str | None, secrets: Sequence[BuildSecret]) -> Builder:
        """Open `builder`, the user's current one when it is `None`.

        Raises:
            BuildError: there is none.
            ConfigError: a secret is not there.

        """
