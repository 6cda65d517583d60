"""A tested pre-release becomes the final version: the same layers, a configuration that differs in three fields. Pure.

The fields: the version label, the environment variable `IMAGE_VERSION`, and the time `created`.
"""

from collections.abc import Iterator
from typing import Any

from lockyard.errors import BuildError
from lockyard.oci.image import Image, canonical_json, parse_json
from lockyard.oci.values import Digest
from lockyard.version import Version

VERSION_LABEL = "org.opencontainers.image.version"
VARIABLE = "IMAGE_VERSION"
FIELDS = (f"config.Labels.{VERSION_LABEL}", f"config.Env.{VARIABLE}", "created")
"""What a promotion changes, as `differences` names it."""


def promoted(image: Image, version: Version, created: str | None = None) -> Image:
    """Return `image` as `version`: label and variable where it has them, `created` (RFC 3339) when it is given."""
    runtime = image.runtime
    labels = dict(runtime.get("Labels") or {})
    if VERSION_LABEL in labels:
        labels[VERSION_LABEL] = str(version)
    start = f"{VARIABLE}="
    env = [f"{start}{version}" if item.startswith(start) else item for item in runtime.get("Env") or ()]
    members = {"Labels": labels, "Env": env}
    config = image.config
    config["config"] = {**runtime, **{key: value for key, value in members.items() if key in runtime}}
    if created is not None:
        config["created"] = created
    return Image.of(config, image.layers)


def content_digest(image: Image) -> Digest:
    """Return the digest of an image less the three fields: its layers' descriptors and the rest of its configuration."""
    fields = {key: value for key, value in _flat(image.config) if key not in FIELDS}
    layers = [layer.descriptor.to_json() for layer in image.layers]
    return Digest.of(canonical_json({"config": fields, "layers": layers}))


def differences(one: Image, two: Image) -> tuple[tuple[str, object, object], ...]:
    """Return every field in which two configurations differ, with both values."""
    first, second = dict(_flat(one.config)), dict(_flat(two.config))
    return tuple(
        (key, first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    )


def prove(one: Image, two: Image) -> tuple[str, ...]:
    """Return the proof, line by line, that `two` is `one` but for the three fields.

    Raises:
        BuildError: it is not.

    """
    layers = [layer.descriptor for layer in one.layers]
    manifests = [parse_json(image.manifest_bytes, "the image manifest") for image in (one, two)]
    for manifest in manifests:
        manifest["config"] = None
    found = differences(one, two)
    others = [key for key, _, _ in found if key not in FIELDS]
    if layers != [layer.descriptor for layer in two.layers] or manifests[0] != manifests[1] or others:
        raise BuildError(
            f"{two.digest} is not {one.digest} under another version", details=others or ["their layers differ"]
        )
    lines = [f"{len(layers)} layers, the same descriptors: {Digest.of(canonical_json([d.to_json() for d in layers]))}"]
    lines += [f"{key}: {old} -> {new}" for key, old, new in found]
    return (*lines, "nothing else differs")


def _flat(config: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a configuration by their dotted names; labels and IMAGE_VERSION apart."""
    for key, value in config.items():
        name = f"{path}{key}"
        if name == "config.Env":
            for place, item in enumerate(value or ()):
                is_version = str(item).startswith(f"{VARIABLE}=")
                yield f"{name}[{place}]", VARIABLE if is_version else item
                if is_version:
                    yield f"{name}.{VARIABLE}", item.removeprefix(f"{VARIABLE}=")
        elif isinstance(value, dict) and name in {"config", "config.Labels"}:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
