"""What an engine is asked and what it gives: values and ports, no effects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lockyard.conda.lock import LockedPackage
from lockyard.oci.image import Image, Layer
from lockyard.oci.layering import LayerPlan
from lockyard.oci.linking import Module
from lockyard.oci.tar import Entry, LayerBlob, Sink
from lockyard.oci.values import Compression, Descriptor, Digest
from lockyard.ports.solving import FetchedPackage
from lockyard.tree import Tree
from lockyard.version import Version

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


Finished = Callable[[Descriptor, Path], None]
"""Hears of a finished layer: what it is, where its blob lies."""


@dataclass(frozen=True, slots=True)
class Base:
    """An opened base: its reference, the digest of what it was read from, the image, and where its layers are."""

    reference: str
    digest: str | None
    image: Image
    blobs: Mapping[Digest, Path]


class CachedLayer(Protocol):
    """A finished layer in the cache."""

    @property
    def layer(self) -> Layer:
        """The layer."""

    @property
    def path(self) -> Path:
        """Where its blob is."""

    @property
    def uncompressed(self) -> int:
        """Bytes of its tar."""

    @property
    def rebuilt(self) -> bool:
        """Whether this run made it."""


class CompiledModules(Protocol):
    """The compiled Python modules of one package."""

    @property
    def key(self) -> str:
        """What they depend on."""

    def modules(self) -> tuple[Module, ...]:
        """Read them."""


@dataclass(frozen=True, slots=True)
class ScriptedChanges:
    """What post-link scripts changed: the digest of it all, the packages (`NAME VERSION`), the entries of a layer."""

    digest: str
    packages: tuple[str, ...]
    entries: tuple[Entry, ...]


class LayerCache(Protocol):
    """Finished layers by content key."""

    def layer(self, key: Mapping[str, Any], comment: str, make: Callable[[Sink], LayerBlob]) -> CachedLayer:
        """Return the layer of `key`, made by `make` unless it is there and sound."""

    def remember(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the JSON object of `key`, made by `make` unless it is there."""

    def recall(self, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the JSON object of `key`, `None` when there is none."""

    def note(self, key: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        """Keep a JSON object as that of `key`."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """Everything that an image depends on, and how many workers may be busy (which changes no byte).

    `packages` are in install order and all in `fetched` (by `dist`). `prefix` is absolute, `owner` is (uid, gid).
    `created` is an RFC 3339 time. `dockerfile` is the text of the release's Dockerfile, `None` for the environment
    image alone, `dockerfile_name` its path for messages, `context` the files beside it, `args` its build arguments.
    `compiled` (by `dist`), `scripted` and `activation` (variables of the image) are what a `Preparer` made.
    The image of a Python package has no environment: no packages, and a `version` that is text.
    """

    version: Version | str
    image_type: str
    platform: str
    packages: tuple[LockedPackage, ...]
    fetched: Mapping[str, FetchedPackage]
    plan: LayerPlan
    base: Base
    prefix: str
    owner: tuple[int, int]
    created: str
    title: str
    specs: tuple[str, ...] = ()
    compression: Compression = "gzip"
    dockerfile: str | None = None
    dockerfile_name: str = "Dockerfile"
    context: Tree = field(default_factory=Tree)
    args: Mapping[str, str] = field(default_factory=dict)
    workers: int = 2
    compiled: Mapping[str, CompiledModules] = field(default_factory=dict)
    scripted: ScriptedChanges | None = None
    activation: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The image's PATH: the environment's programs, then the base's."""
        base = dict(item.split("=", 1) for item in self.base.image.runtime.get("Env") or ())
        return f"{self.prefix}/bin:{base.get('PATH') or DEFAULT_PATH}"


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer of a built image, for the record: `packages` are `NAME-VERSION-BUILD`."""

    name: str
    layer: Layer
    uncompressed: int
    rebuilt: bool
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltImage:
    """A built image, where its layers' blobs are, and the layers above the base."""

    image: Image
    blobs: Mapping[Digest, Path]
    layers: tuple[BuiltLayer, ...]


class Engine(Protocol):
    """Builds images."""

    def build(self, request: BuildRequest) -> BuiltImage:
        """Build one image.

        Raises:
            BuildError: a package, a layer or a line of the Dockerfile cannot be built.

        """
