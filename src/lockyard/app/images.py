"""Built images in their places: opened, run."""

import platform as machine_platform
from dataclasses import dataclass
from pathlib import Path

from lockyard import checks, fs
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import SUITE, Record, host_platform, plain_suite
from lockyard.checks.suite import with_ready_made
from lockyard.distribution import Variant
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.image import oci_platform
from lockyard.oci.layout import Layout, read_layout
from lockyard.oci.values import check_tag
from lockyard.ports import Toolbox
from lockyard.ports.containers import RunRequest, RunResult
from lockyard.tree import Tree
from lockyard.version import Version

BUILD = "build.json"
"""The record of a build, beside the image."""


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """One built image: its layout, its digest, what was made anew, and its tests (`skipped` says why there are none)."""

    image_type: str
    platform: str
    tag: str
    digest: str
    layout: Path
    layers: int
    rebuilt: int
    size: int
    """Bytes of all blobs."""
    rebuilt_size: int
    fetched: int
    packages: int
    seconds: float
    tests: Record | None = None
    skipped: str = ""
    loaded: str = ""
    """The image's name in the Docker daemon, when it is there."""


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """A built release; `locked` says whether its lock was made on the way."""

    version: Version
    images: tuple[ImageResult, ...]
    locked: bool = False


def run_in_image(
    toolbox: Toolbox, workspace: Workspace, version: Version, image_type: str, argv: tuple[str, ...]
) -> RunResult:
    """Run a command in a built image of this machine's platform, on the caller's terminal.

    Without one the image's own command runs. Nothing that it writes is kept.

    Raises:
        BuildError: the image is not built, or the machine cannot run it.

    """
    host = host_platform(machine_platform.machine())
    workspace.line(version).variant(image_type)
    layout = open_built(workspace, version, image_type, host)
    runtime = layout.image.runtime
    command = (*(runtime.get("Entrypoint") or ()), *(argv or runtime.get("Cmd") or ()))
    if not command:
        raise ConfigError("the image has no command of its own", hint="give one after --")
    with toolbox.sandbox(layout.path) as runner:
        return runner.run(RunRequest(argv=command, interactive=True))


def open_built(workspace: Workspace, version: Version, image_type: str, platform: str) -> Layout:
    """Open a built image.

    Raises:
        BuildError: it is not there or damaged.

    """
    path = workspace.out_dir(version, image_type, platform)
    if not (path / "index.json").is_file():
        raise BuildError(f"{image_type} {platform} of {version} is not built", hint=f"lockyard build {version}")
    return read_layout(path, platform=oci_platform(platform))


def suite_place(workspace: Workspace, version: Version) -> str:
    """Return where the image tests of a release are: those of its major line, else those of the whole distribution."""
    own = f"test/test_artifacts/v{version.major}"
    return own if (workspace.root / own).is_dir() else SUITE


def suite_of(workspace: Workspace, version: Version) -> Tree:
    """Return the image tests of a release as they are now, the ready-made ones that they ask for among them."""
    place = suite_place(workspace, version)
    shipped = plain_suite(fs.read_tree(Path(checks.__file__).parent / "ready"))
    return with_ready_made(plain_suite(fs.read_tree(workspace.root / place)), shipped, source=place)


def tag_of(variant: Variant, version: Version, image_type: str) -> str:
    """Return the exact tag of an image.

    Raises:
        ConfigError: the variant's pattern does not give a tag.

    """
    pattern = variant.tag or "{version}-{type}"
    return check_tag(pattern.replace("{version}", str(version)).replace("{type}", image_type))


def chosen_platforms(variant: Variant, name: str, platforms: tuple[str, ...]) -> tuple[str, ...]:
    """Return the platforms of a variant, or those of them that were asked for.

    Raises:
        ConfigError: it has no such platform.

    """
    unknown = [item for item in platforms if item not in variant.platforms]
    if unknown:
        raise ConfigError(f"{name} has no platform {unknown[0]}; it has {', '.join(variant.platforms)}")
    return platforms or variant.platforms
