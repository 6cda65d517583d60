"""A distribution with built and tested releases, as `build` leaves them, without building anything."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lockyard import fs
from lockyard.app.images import BUILD, suite_of
from lockyard.app.workspace import Workspace, open_workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.checks.plan import Record, TestOutcome, format_record, suite_digest
from lockyard.oci.image import Image, Layer, oci_platform
from lockyard.oci.layout import write_layout
from lockyard.version import Version
from support.images import write_image

LINE = """schema = 1
channels = ["channel"]

[variants.cpu]
platforms = {platforms}

[variants.gpu]
pytest-flags = ["--use-gpu"]
"""


def make_distribution(
    root: Path, *, repositories: Mapping[str, str] | None = None, platforms: tuple[str, ...] = ("linux-64",)
) -> Workspace:
    """Write a distribution of the types cpu (for `platforms`) and gpu; `repositories` maps aliases to TOML values."""
    table = "".join(f"{name} = {value}\n" for name, value in (repositories or {}).items())
    (root / "template/v1").mkdir(parents=True)
    (root / "lockyard.toml").write_text(f'name = "small"\n[repositories]\n{table}')
    (root / "template/v1/variants.toml").write_text(LINE.format(platforms=json.dumps(list(platforms))))
    (root / "test/image").mkdir(parents=True)
    (root / "test/image/test_it.py").write_text("def test_it():\n    pass\n")
    return open_workspace(root)


def add_release(
    root: Path,
    version: str,
    *,
    seed: str = "",
    tested: bool = True,
    labelled: bool = False,
    sizes: tuple[int, ...] = (3000, 2000),
) -> dict[str, Image]:
    """Add a release with built images of all types and platforms; return `TYPE PLATFORM` → image.

    `labelled` images say their version and type.
    """
    workspace = open_workspace(root)
    parsed = Version.parse(version)
    fs.atomic_write(workspace.release_path(parsed) / "source-version.txt", b"1.0.0\n")
    images = {}
    for image_type, variant in workspace.line(parsed).variants.items():
        for platform in variant.platforms:
            images[f"{image_type} {platform}"] = write_built(
                workspace, parsed, image_type, platform, seed or version, labelled=labelled, sizes=sizes
            )
            if tested:
                write_tests(root, version, image_type, platform)
    return images


def write_built(
    workspace: Workspace,
    version: Version,
    image_type: str,
    platform: str,
    seed: str,
    *,
    labelled: bool = False,
    sizes: tuple[int, ...] = (3000, 2000),
) -> Image:
    place = workspace.out_dir(version, image_type, platform)
    image = write_image(
        place, f"{seed} {image_type} {platform}", sizes, platform=platform, version=str(version) if labelled else "",
        image_type=image_type,
    )  # fmt: skip
    record = {
        "schema": 1,
        "version": str(version),
        "image_type": image_type,
        "platform": platform,
        "manifest_digest": str(image.digest),
        "base": {"reference": "rootfs:base.tar.zst", "digest": "sha256:" + "b" * 64},
    }
    fs.atomic_write(place / BUILD, json.dumps(record).encode())
    return image


def write_tests(
    root: Path,
    version: str,
    image_type: str = "cpu",
    platform: str = "linux-64",
    *,
    outcomes: tuple[str, ...] = ("passed",),
) -> Path:
    """Write the record of image tests that ended so on what is built now."""
    workspace = open_workspace(root)
    parsed = Version.parse(version)
    place = workspace.out_dir(parsed, image_type, platform)
    build = json.loads((place / BUILD).read_bytes())
    flags = workspace.line(parsed).variant(image_type).pytest_flags
    record = Record(
        manifest=build["manifest_digest"],
        suite=suite_digest(suite_of(workspace, parsed), flags),
        image_type=image_type,
        platform=platform,
        tests=tuple(TestOutcome(f"test_{number}", outcome) for number, outcome in enumerate(outcomes)),  # type: ignore[arg-type]  # literals of the callers
    )
    fs.atomic_write(place / TESTS, format_record(record).encode())
    return place / TESTS


def write_real(root: Path, version: str, parts: Sequence[tuple[Layer, Path]], image_type: str = "cpu") -> Image:
    """Put an image of layers that engines can unpack in the place of a built one, tested."""
    out = open_workspace(root).out_dir(Version.parse(version), image_type, "linux-64")
    config = {
        **oci_platform("linux-64"),
        "created": "2026-01-01T00:00:00Z",
        "config": {"Labels": {"version": version}},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer, _ in parts]},
    }
    image = Image.of(config, [layer for layer, _ in parts])
    write_layout(out, image, {layer.descriptor.digest: path for layer, path in parts}, name=f"{version}-{image_type}")
    build = json.loads((out / BUILD).read_bytes())
    fs.atomic_write(out / BUILD, json.dumps({**build, "manifest_digest": str(image.digest)}).encode())
    write_tests(root, version, image_type)
    return image
