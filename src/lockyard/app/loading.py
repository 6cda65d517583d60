"""The use case of loading built images into a container engine of this machine."""

import contextlib
import platform as machine_platform
from dataclasses import replace

from lockyard.app.images import ImageResult
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import host_platform
from lockyard.errors import BuildError
from lockyard.oci.layout import layout_blobs, read_layout
from lockyard.ports import Toolbox
from lockyard.ports.containers import Daemon
from lockyard.version import Version


def load_images(
    toolbox: Toolbox, workspace: Workspace, version: Version, images: tuple[ImageResult, ...]
) -> tuple[ImageResult, ...]:
    """Load each type's image of this machine's platform, or its only one, as `IMAGE:TAG`.

    With no daemon nothing happens; one that refuses an image is a warning.
    """
    daemon = toolbox.daemon()
    if daemon is None:
        return images
    host = host_platform(machine_platform.machine())
    line = workspace.line(version)
    with contextlib.closing(daemon):
        return tuple(
            _loaded(toolbox, daemon, f"{workspace.distribution.image}:{image.tag}", image)
            if image.platform == host or len(line.variant(image.image_type).platforms) == 1
            else image
            for image in images
        )


def _loaded(toolbox: Toolbox, daemon: Daemon, name: str, image: ImageResult) -> ImageResult:
    layout = read_layout(image.layout)
    try:
        done = daemon.load(layout.image, layout_blobs(layout), name)
    except BuildError as error:
        toolbox.log.warning(f"{name} is not in Docker: {error.message}")
        return image
    toolbox.log.detail(f"loaded {name}: {done.sent:,} bytes, {done.shared} layers were there")
    return replace(image, loaded=name)
