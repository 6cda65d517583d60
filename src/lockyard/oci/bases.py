"""Base images, effects: a reference in a registry, `rootfs:FILE` (a tar), `oci:DIR` (a layout), `scratch`.

What a registry gave is kept in `CACHE/bases/v1/`, a layer made of a root file system in the blob cache under the digest
of the file.
"""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.engines.request import Base, LayerCache
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.image import Image, empty_image, load_image, verified
from lockyard.oci.pulled import PulledBases
from lockyard.oci.rootfs import ROOTFS_VERSION, open_rootfs, rootfs_entries
from lockyard.oci.tar import LayerBlob, Sink, compressor_id, write_layer
from lockyard.oci.values import Compression, Descriptor, Digest, Reference
from lockyard.ports import Log
from lockyard.ports.registry import RegistryPort
from lockyard.tree import check_relative


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOpener:
    """Opens bases of one distribution.

    Paths are relative to `root`; `source` names the configuration, for messages. `registry` opens a repository for
    pulling; `executor` runs compression.
    """

    root: Path
    source: str
    created: str
    cache: LayerCache
    pulled: PulledBases
    registry: Callable[[str], RegistryPort]
    compression: Compression
    executor: Executor
    log: Log

    def open(self, reference: str, platform: Mapping[str, str]) -> Base:
        """Open the base of one platform.

        Raises:
            ConfigError: the path leaves the root.
            BuildError: the base is missing, malformed, or for another platform.
            RegistryError: it is in a registry that does not give it.

        """
        kind, _, path = reference.partition(":")
        if reference == "scratch":
            return Base(reference, None, empty_image(platform, self.created), {})
        if kind == "oci":
            return _open_layout(reference, _inside(self.root, path, self.source), platform)
        if kind == "rootfs":
            return self._rootfs(reference, _inside(self.root, path, self.source), empty_image(platform, self.created))
        found = self.pulled.open(Reference.parse(reference), platform, self.registry)
        return Base(reference, str(found.digest), _checked(reference, found.image), found.blobs)

    def _rootfs(self, reference: str, path: Path, image: Image) -> Base:
        if not path.is_file():
            raise BuildError(f"base {reference!r}: {path} does not exist")
        digest = _digest(path)
        key = {"rootfs": str(digest), "version": ROOTFS_VERSION, "compressor": compressor_id(self.compression)}

        def make(sink: Sink) -> LayerBlob:
            self.log.info(f"base {reference}: making its layer")
            with open_rootfs(path) as archive:
                entries = rootfs_entries(archive, str(path))
                return write_layer(entries, sink, compression=self.compression, executor=self.executor)

        made = self.cache.layer(key, f"base {reference}", make)
        image = image.append(made.layer, created=image.config["created"])
        return Base(reference, str(digest), image, {made.layer.descriptor.digest: made.path})


def _inside(root: Path, path: str, source: str) -> Path:
    if path.startswith("/"):
        return Path(path)
    try:
        return root / check_relative(path)
    except ConfigError as error:
        raise ConfigError(f"{source}: base: {error.message}") from error


def _open_layout(reference: str, path: Path, platform: Mapping[str, str]) -> Base:
    blobs = path / "blobs" / "sha256"

    def read(descriptor: Descriptor) -> bytes:
        place = blobs / descriptor.digest.hex
        return verified(fs.read_file(place), descriptor, str(place))

    index = fs.read_file(path / "index.json")
    if index is None:
        raise BuildError(f"base {reference!r}: {path} is not an OCI layout")
    image = load_image(index, read, platform)
    normalized = _checked(reference, image)
    layers = {}
    for layer in image.layers:
        place = blobs / layer.descriptor.digest.hex
        if not place.is_file() or _digest(place) != layer.descriptor.digest:
            raise BuildError(f"base {reference!r}: blob {layer.descriptor.digest} is missing or damaged")
        layers[layer.descriptor.digest] = place
    return Base(reference, str(image.digest), normalized, layers)


def _checked(reference: str, image: Image) -> Image:
    problems = image.validate()
    if problems:
        raise BuildError(f"base {reference!r} is malformed: {problems[0]}", details=problems[1:])
    return image.normalized()


def _digest(path: Path) -> Digest:
    with path.open("rb") as stream:
        return Digest(f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}")
