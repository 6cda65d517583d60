"""Images as immutable views (OCI Image Specification 1.1, `manifest.md`, `config.md`, `image-index.md`). No I/O.

An image is its manifest bytes, its configuration bytes and its layers; functions that change one return another.
JSON that Lockyard writes is canonical (sorted keys, no spaces, UTF-8); what was read keeps its bytes and so its digest.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from lockyard.errors import BuildError, ConfigError, HashMismatchError
from lockyard.oci.values import Descriptor, Digest, MediaType

_PLATFORMS = {
    "linux-64": {"architecture": "amd64", "os": "linux"},
    "linux-32": {"architecture": "386", "os": "linux"},
    "linux-aarch64": {"architecture": "arm64", "os": "linux"},
    "linux-armv7l": {"architecture": "arm", "os": "linux", "variant": "v7"},
    "linux-ppc64le": {"architecture": "ppc64le", "os": "linux"},
    "linux-riscv64": {"architecture": "riscv64", "os": "linux"},
    "linux-s390x": {"architecture": "s390x", "os": "linux"},
}
_LAYER_TYPES = {
    MediaType.LAYER: MediaType.LAYER,
    MediaType.LAYER_GZIP: MediaType.LAYER_GZIP,
    MediaType.LAYER_ZSTD: MediaType.LAYER_ZSTD,
    MediaType.DOCKER_LAYER_GZIP: MediaType.LAYER_GZIP,
}
_MANIFEST_TYPES = {MediaType.MANIFEST, MediaType.DOCKER_MANIFEST}
_INDEX_TYPES = {MediaType.INDEX, MediaType.DOCKER_MANIFEST_LIST}
MAX_LAYERS = 120
"""Overlay file systems of common engines stop at 127 layers; a container needs some of its own."""


def oci_platform(subdir: str) -> Mapping[str, str]:
    """Return the OCI platform of a conda subdir.

    Raises:
        ConfigError: no image can be built for it.

    """
    if subdir not in _PLATFORMS:
        raise ConfigError(f"no image can be built for {subdir!r}", hint=f"platforms: {', '.join(_PLATFORMS)}")
    return _PLATFORMS[subdir]


def conda_platform(platform: Mapping[str, str]) -> str | None:
    """Return the conda subdir of an OCI platform, `None` when there is none."""
    return next((subdir for subdir, known in _PLATFORMS.items() if _fits(platform, known)), None)


def canonical_json(value: object) -> bytes:
    """Return the one byte form of a JSON value that Lockyard writes into images."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """Parse a JSON object (`source` says what it is, for the message).

    Raises:
        BuildError: it is none.

    """
    try:
        value = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BuildError(f"{source} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BuildError(f"{source} is not a JSON object")
    return value


def verified(data: bytes | None, descriptor: Descriptor, source: str) -> bytes:
    """Return a blob's bytes when they are what the descriptor says (`source` is where they are, for messages).

    Raises:
        BuildError: there are none.
        HashMismatchError: they are not.

    """
    if data is None:
        raise BuildError(f"{source} is missing")
    if len(data) != descriptor.size or Digest.of(data) != descriptor.digest:
        raise HashMismatchError(f"{source} is {Digest.of(data)}, {len(data)} bytes, not what its name says")
    return data


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its blob, the digest of its uncompressed tar (`diff_id`), and what made it, for the history."""

    descriptor: Descriptor
    diff_id: Digest
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image manifest with its configuration; `layers` lie bottom first."""

    manifest_bytes: bytes
    config_bytes: bytes
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any], layers: Iterable[Layer] = ()) -> Self:
        """Make an image from a whole configuration object and the layers that it describes."""
        layers = tuple(layers)
        config_bytes = canonical_json(config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MediaType.MANIFEST,
            "config": Descriptor.of(MediaType.CONFIG, config_bytes).to_json(),
            "layers": [layer.descriptor.to_json() for layer in layers],
        }
        return cls(canonical_json(manifest), config_bytes, layers)

    @classmethod
    def parse(cls, manifest_bytes: bytes, config_bytes: bytes) -> Self:
        """Read an image, OCI or Docker schema 2; `validate` says what is wrong in what parses.

        Raises:
            BuildError: the manifest or the configuration is malformed.

        """
        manifest = parse_json(manifest_bytes, "the image manifest")
        config = parse_json(config_bytes, "the image configuration")
        try:
            descriptors = [Descriptor.from_json(item) for item in manifest["layers"]]
            diff_ids = [Digest(item) for item in config["rootfs"]["diff_ids"]]
        except (KeyError, TypeError, ConfigError) as error:
            raise BuildError(f"malformed image: {error}") from error
        if len(descriptors) != len(diff_ids):
            raise BuildError(f"malformed image: {len(descriptors)} layers but {len(diff_ids)} diff IDs")
        texts = _comments(config, len(diff_ids))
        layers = tuple(map(Layer, descriptors, diff_ids, texts))
        return cls(manifest_bytes, config_bytes, layers)

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration object, a fresh copy."""
        return parse_json(self.config_bytes, "the image configuration")

    @property
    def runtime(self) -> dict[str, Any]:
        """The `config` member of the configuration: environment, command, user; a fresh copy."""
        return dict(self.config.get("config") or {})

    @property
    def media_type(self) -> str:
        """The media type of the manifest."""
        return str(parse_json(self.manifest_bytes, "the image manifest").get("mediaType") or MediaType.MANIFEST)

    @property
    def digest(self) -> Digest:
        """The digest of the manifest: the name of the image."""
        return Digest.of(self.manifest_bytes)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest with its platform."""
        config = self.config
        platform = {key: str(config[key]) for key in ("architecture", "os", "variant") if config.get(key)}
        return replace(Descriptor.of(self.media_type, self.manifest_bytes), platform=platform)

    @property
    def config_descriptor(self) -> Descriptor:
        """The descriptor of the configuration as the manifest states it."""
        return Descriptor.from_json(parse_json(self.manifest_bytes, "the image manifest")["config"])

    @property
    def size(self) -> int:
        """Bytes of all blobs: manifest, configuration, layers."""
        layers = sum(layer.descriptor.size for layer in self.layers)
        return len(self.manifest_bytes) + len(self.config_bytes) + layers

    def append(self, *layers: Layer, created: str) -> "Image":
        """Return the image with layers on top; `created` is the RFC 3339 time of their history entries."""
        config = self.config
        config["rootfs"]["diff_ids"] += [str(layer.diff_id) for layer in layers]
        entries = [{"created": created, "created_by": layer.comment} for layer in layers]
        config["history"] = [*self._history(), *entries]
        return Image.of(config, (*self.layers, *layers))

    def with_config(self, **members: Any) -> "Image":
        """Return the image with members of `config` (`Env`, `Cmd`, …) replaced; `None` removes one."""
        config = self.config
        runtime = {**(config.get("config") or {}), **members}
        config["config"] = {key: value for key, value in runtime.items() if value is not None}
        return Image.of(config, self.layers)

    def with_author(self, author: str) -> "Image":
        """Return the image with another author."""
        return Image.of({**self.config, "author": author}, self.layers)

    def with_created(self, created: str) -> "Image":
        """Return the image with another time of making (RFC 3339)."""
        return Image.of({**self.config, "created": created}, self.layers)

    def _history(self) -> list[dict[str, Any]]:
        """Return the history; where there is none (it is optional) the layers that are there get an entry, so that it fits."""
        return self.config.get("history") or [{"created_by": layer.comment} for layer in self.layers]

    def with_history(self, created_by: str, *, created: str) -> "Image":
        """Return the image with a history entry for a step that made no layer."""
        config = self.config
        entry = {"created": created, "created_by": created_by, "empty_layer": True}
        config["history"] = [*self._history(), entry]
        return Image.of(config, self.layers)

    def normalized(self) -> "Image":
        """Return the image as an OCI one with canonical JSON: a base of Docker's media types becomes ours.

        Raises:
            BuildError: a layer has a media type that cannot be re-used.

        """
        layers = []
        for layer in self.layers:
            kind = next((new for old, new in _LAYER_TYPES.items() if old == layer.descriptor.media_type), None)
            if kind is None:
                raise BuildError(f"layer {layer.descriptor.digest} has media type {layer.descriptor.media_type!r}")
            layers.append(replace(layer, descriptor=Descriptor(kind, layer.descriptor.digest, layer.descriptor.size)))
        return Image.of(self.config, layers)

    def validate(self) -> list[str]:
        """Return every broken invariant, each with both sides of the mismatch; empty when all hold."""
        manifest = parse_json(self.manifest_bytes, "the image manifest")
        config = self.config
        problems = []
        if manifest.get("schemaVersion") != 2:
            problems.append(f"schemaVersion is {manifest.get('schemaVersion')!r}, not 2")
        stated, actual = self.config_descriptor, Digest.of(self.config_bytes)
        if stated.digest != actual or stated.size != len(self.config_bytes):
            problems.append(f"the manifest names config {stated.digest}, its bytes are {actual}")
        named = [Descriptor.from_json(item) for item in manifest["layers"]]
        if named != [layer.descriptor for layer in self.layers]:
            problems.append("the manifest's layers are not the layers of the view")
        listed = config.get("rootfs", {}).get("diff_ids", [])
        if listed != [str(layer.diff_id) for layer in self.layers]:
            problems.append(f"{len(listed)} diff IDs in the configuration, {len(self.layers)} layers, or their order")
        problems += [f"{key!r} is missing" for key in ("architecture", "os") if not config.get(key)]
        history = config.get("history")
        if history:
            made = sum(1 for item in history if not item.get("empty_layer"))
            if made != len(self.layers):
                problems.append(f"the history has {made} layers, the image {len(self.layers)}")
        if len(self.layers) > MAX_LAYERS:
            problems.append(f"{len(self.layers)} layers are more than {MAX_LAYERS}")
        return problems


def empty_image(platform: Mapping[str, str], created: str) -> Image:
    """Return the image `FROM scratch`."""
    return Image.of({**platform, "created": created, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})


@dataclass(frozen=True, slots=True)
class Index:
    """An image index: the manifests of a layout or of several platforms."""

    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an index.

        Raises:
            BuildError: it is malformed.

        """
        value = parse_json(data, "the image index")
        try:
            return cls(tuple(Descriptor.from_json(item) for item in value["manifests"]))
        except (KeyError, TypeError, ConfigError) as error:
            raise BuildError(f"malformed image index: {error}") from error

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        manifests = [item.to_json() for item in self.manifests]
        return canonical_json({"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": manifests})

    def select(self, platform: Mapping[str, str] | None) -> Descriptor:
        """Return the only manifest, or the one of `platform`.

        Raises:
            BuildError: there is none, or several and no platform chooses.

        """
        if len(self.manifests) == 1:
            return self.manifests[0]
        fitting = [item for item in self.manifests if platform is not None and _fits(item.platform, platform)]
        if len(fitting) != 1:
            there = ", ".join("/".join(item.platform.values()) or str(item.digest) for item in self.manifests)
            raise BuildError(f"the image index has {len(self.manifests)} manifests ({there}), {len(fitting)} fit")
        return fitting[0]


def manifest_descriptor(data: bytes) -> Descriptor:
    """Return the descriptor of the bytes of a manifest or an index, whose media type they may leave out.

    Raises:
        BuildError: they are neither.

    """
    value = parse_json(data, "the image manifest")
    kind = value.get("mediaType")
    if kind is None and "manifests" in value:
        kind = MediaType.INDEX
    elif kind is None and "config" in value:
        kind = MediaType.MANIFEST
    if kind not in _MANIFEST_TYPES | _INDEX_TYPES:
        raise BuildError(f"{Digest.of(data)} is neither an image manifest nor an index but {kind!r}")
    return Descriptor.of(str(kind), data)


def load_image(
    index_bytes: bytes, read_blob: Callable[[Descriptor], bytes], platform: Mapping[str, str] | None = None
) -> Image:
    """Read the image of a layout; `read_blob` gives verified bytes of a manifest, an index or a configuration.

    Raises:
        BuildError: the layout is malformed, has another platform, or `read_blob` says so.

    """
    descriptor = Index.parse(index_bytes).select(platform)
    for _ in range(4):  # an index may name an index; no deeper than anyone needs
        if descriptor.media_type not in _INDEX_TYPES:
            break
        descriptor = Index.parse(read_blob(descriptor)).select(platform)
    if descriptor.media_type not in _MANIFEST_TYPES:
        raise BuildError(f"{descriptor.digest} is no image manifest but {descriptor.media_type!r}")
    manifest = read_blob(descriptor)
    stated = parse_json(manifest, "the image manifest").get("config")
    if not isinstance(stated, dict):
        raise BuildError("malformed image manifest: no config")
    image = Image.parse(manifest, read_blob(Descriptor.from_json(stated)))
    if platform is not None and not _fits(image.descriptor.platform, platform):
        there, wanted = ("/".join(item.values()) for item in (image.descriptor.platform, platform))
        raise BuildError(f"the image is for {there}, not for {wanted}")
    return image


def _fits(there: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(there.get(key) == wanted.get(key) for key in ("os", "architecture")) and (
        "variant" not in wanted or there.get("variant") in {None, wanted["variant"]}
    )


def _comments(config: Mapping[str, Any], count: int) -> list[str]:
    history = config.get("history") or []
    texts = [str(item.get("created_by", "")) for item in history if not item.get("empty_layer")]
    return texts if len(texts) == count else [""] * count
