"""Small random images made in code, as values and as the layouts that a build leaves."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

from lockyard.oci.image import Image, Layer, oci_platform
from lockyard.oci.layout import write_layout
from lockyard.oci.values import Descriptor, Digest, MediaType
from lockyard.registry.plan import Blob, Manifest, PushImage


def random_bytes(seed: object, size: int) -> bytes:
    """Bytes that do not compress and repeat from run to run."""
    return random.Random(str(seed)).randbytes(size)


def make_image(
    place: Path,
    seed: object,
    sizes: Sequence[int] = (3000, 2000),
    platform: str = "linux-64",
    version: str = "",
    image_type: str = "",
) -> tuple[Image, dict[Digest, Path]]:
    """An image with layers of these sizes, and where its layers' blobs are. The layers hold noise, not tar.

    With a `version` it says so in its label and in IMAGE_VERSION, and its type in a label, as built ones do.
    """
    layers, blobs = [], {}
    place.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        data = random_bytes(f"{seed} {number}", size)
        descriptor = Descriptor.of(MediaType.LAYER_GZIP, data)
        path = place / descriptor.digest.hex
        path.write_bytes(data)
        blobs[descriptor.digest] = path
        layers.append(Layer(descriptor, Digest(f"sha256:{hashlib.sha256(data + b'diff').hexdigest()}")))
    config = {
        **oci_platform(platform),
        "config": {"Labels": {"seed": str(seed)}} if not version else _labelled(str(seed), version, image_type),
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
    }
    return Image.of(config, layers), blobs


def real_layer(place: Path, seed: str, size: int) -> tuple[Layer, Path]:
    """A layer that engines can unpack, of about `size` bytes: a gzipped tar with one file, two thirds of it noise."""
    part = max(1, size // 85)
    data = b"".join(random_bytes(f"{seed} {number}", part) + bytes(part // 2) for number in range(85))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo(f"opt/{seed}.bin")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    packed = gzip.compress(tar.getvalue(), 1, mtime=0)
    descriptor = Descriptor.of(MediaType.LAYER_GZIP, packed)
    place.mkdir(parents=True, exist_ok=True)
    path = place / descriptor.digest.hex
    path.write_bytes(packed)
    return Layer(descriptor, Digest.of(tar.getvalue())), path


def _labelled(seed: str, version: str, image_type: str) -> dict[str, object]:
    labels = {"org.opencontainers.image.version": version, "seed": seed}
    labels |= {"lockyard.image-type": image_type} if image_type else {}
    return {"Env": ["PATH=/usr/bin", f"IMAGE_VERSION={version}"], "Labels": labels}


def write_image(
    layout: Path,
    seed: object,
    sizes: Sequence[int] = (3000, 2000),
    platform: str = "linux-64",
    version: str = "",
    image_type: str = "",
) -> Image:
    """Write such an image as an OCI layout."""
    image, blobs = make_image(layout.parent / f".blobs-{layout.name}", seed, sizes, platform, version, image_type)
    write_layout(layout, image, blobs)
    return image


def push_image(
    place: Path, seed: object, sizes: Sequence[int] = (3000, 2000), *, image_type: str = "cpu", tag: str = "1.0.0-cpu"
) -> PushImage:
    """Such an image, ready to push."""
    image, blobs = make_image(place, seed, sizes)
    config = image.config_descriptor
    (place / config.digest.hex).write_bytes(image.config_bytes)
    files = [Blob(config, place / config.digest.hex)]
    files += [Blob(layer.descriptor, blobs[layer.descriptor.digest]) for layer in image.layers]
    manifest = Manifest(image.descriptor, image.manifest_bytes)
    return PushImage(image_type=image_type, tag=tag, manifests=(manifest,), blobs=tuple(files))


def parts(body: bytes) -> list[str]:
    """The digests of the blobs that a manifest refers to."""
    value = json.loads(body)
    return [value["config"]["digest"], *(item["digest"] for item in value["layers"])]
