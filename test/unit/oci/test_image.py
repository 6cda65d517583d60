"""Images as values: changes give new images, and what does not fit together is said."""

import json
from typing import Any

import pytest

from lockyard.errors import BuildError, ConfigError, HashMismatchError
from lockyard.oci.image import (
    Image,
    Index,
    Layer,
    canonical_json,
    empty_image,
    load_image,
    oci_platform,
    verified,
)
from lockyard.oci.values import Descriptor, Digest, MediaType

WHEN = "2026-01-15T00:00:00Z"


def layer(text: bytes, kind: str = MediaType.LAYER_GZIP) -> Layer:
    return Layer(Descriptor.of(kind, text), Digest.of(text + b"plain"), text.decode())


@pytest.fixture
def image() -> Image:
    return empty_image(oci_platform("linux-64"), WHEN).append(layer(b"one"), layer(b"two"), created=WHEN)


def test_a_base_without_a_history(image: Image) -> None:
    """The history is optional; what is built on such a base fits all the same."""
    bare = Image.of({key: value for key, value in image.config.items() if key != "history"}, image.layers)
    changed = bare.with_history("ENV A=b", created=WHEN).append(layer(b"three"), created=WHEN)
    assert bare.validate() == changed.validate() == bare.append(layer(b"three"), created=WHEN).validate() == []
    assert len(changed.config["history"]) == 4


def test_changes_return_new_images(image: Image) -> None:
    changed = image.with_config(Env=["A=b"], User="1")
    assert changed.digest != image.digest
    assert image.runtime == {}
    assert changed.with_config(Env=None).runtime == {"User": "1"}
    assert changed.append(layer(b"three"), created=WHEN).layers[:2] == image.layers
    assert image.validate() == changed.validate() == []


def test_the_same_content_is_the_same_digest(image: Image) -> None:
    assert image.with_config(B="1", A="2").digest == image.with_config(A="2").with_config(B="1").digest
    assert Image.parse(image.manifest_bytes, image.config_bytes) == image


def test_the_history_tells_every_layer_and_step(image: Image) -> None:
    history = image.with_history("ENV A=b", created=WHEN).config["history"]
    assert [item["created_by"] for item in history] == ["one", "two", "ENV A=b"]
    assert [item.get("empty_layer", False) for item in history] == [False, False, True]


def test_the_descriptor_has_the_platform(image: Image) -> None:
    assert image.descriptor.platform == {"architecture": "amd64", "os": "linux"}
    assert oci_platform("linux-aarch64")["architecture"] == "arm64"
    with pytest.raises(ConfigError, match="win-64"):
        oci_platform("win-64")


def broken(image: Image, **manifest: Any) -> Image:
    value = {**json.loads(image.manifest_bytes), **manifest}
    return Image(canonical_json(value), image.config_bytes, image.layers)


def test_every_broken_invariant_is_told(image: Image) -> None:
    other = Descriptor.of(MediaType.CONFIG, b"{}").to_json()
    problems = broken(image, schemaVersion=1, config=other, layers=[]).validate()
    assert len(problems) == 3
    config = {**image.config, "architecture": "", "history": [{}]}
    config["rootfs"] = {"type": "layers", "diff_ids": [str(image.layers[0].diff_id)]}
    problems = Image.of(config, image.layers).validate()
    assert [line for line in problems if "diff IDs" in line or "architecture" in line or "history" in line] == problems
    assert len(problems) == 3


def test_more_layers_than_engines_take_are_told() -> None:
    many = empty_image(oci_platform("linux-64"), WHEN).append(*[layer(b"%d" % n) for n in range(121)], created=WHEN)
    assert many.validate() == ["121 layers are more than 120"]


@pytest.mark.parametrize(
    ("manifest", "config"),
    [
        (b"[]", b"{}"),
        (b"{", b"{}"),
        (b"{}", b"{}"),
        (b'{"layers": []}', b"{}"),
        (b'{"layers": [{}]}', b'{"rootfs": {"diff_ids": []}}'),
        (b'{"layers": []}', b'{"rootfs": {"diff_ids": ["sha256:0"]}}'),
        (b"\xff", b"{}"),
    ],
)
def test_malformed_images_are_refused(manifest: bytes, config: bytes) -> None:
    with pytest.raises(BuildError):
        Image.parse(manifest, config)


def test_docker_media_types_become_ours(image: Image) -> None:
    docker = empty_image(oci_platform("linux-64"), WHEN).append(layer(b"x", MediaType.DOCKER_LAYER_GZIP), created=WHEN)
    assert docker.normalized().layers[0].descriptor.media_type == MediaType.LAYER_GZIP
    foreign = empty_image(oci_platform("linux-64"), WHEN).append(layer(b"x", "application/x-foreign"), created=WHEN)
    with pytest.raises(BuildError, match="media type"):
        foreign.normalized()
    assert image.normalized() == image


def test_a_layout_gives_the_image_of_the_platform(image: Image) -> None:
    arm = empty_image(oci_platform("linux-aarch64"), WHEN)
    blobs = {item.digest: data for each in (image, arm) for item, data in (
        (each.descriptor, each.manifest_bytes), (each.config_descriptor, each.config_bytes),
    )}  # fmt: skip
    index = Index((image.descriptor, arm.descriptor))
    nested = Index((Descriptor.of(MediaType.INDEX, index.to_bytes()),))
    blobs[nested.manifests[0].digest] = index.to_bytes()
    for top in (index, nested):
        found = load_image(top.to_bytes(), lambda item: blobs[item.digest], oci_platform("linux-aarch64"))
        assert found.digest == arm.digest
    with pytest.raises(BuildError, match="2 manifests"):
        load_image(index.to_bytes(), lambda item: blobs[item.digest])
    with pytest.raises(BuildError, match="amd64/linux, not for s390x/linux"):
        load_image(Index((image.descriptor,)).to_bytes(), lambda item: blobs[item.digest], oci_platform("linux-s390x"))


def test_bytes_are_checked_against_their_descriptor() -> None:
    descriptor = Descriptor.of(MediaType.CONFIG, b"{}")
    assert verified(b"{}", descriptor, "x") == b"{}"
    with pytest.raises(HashMismatchError, match="x is sha256"):
        verified(b"{]", descriptor, "x")
    with pytest.raises(BuildError, match="x is missing"):
        verified(None, descriptor, "x")
