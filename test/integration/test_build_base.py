"""`Dockerfile.base`: built once by a real Docker engine, then below every image of the line."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockyard.app.buildbase import build_base
from lockyard.app.engines import EngineOptions
from lockyard.engines.daemon import DockerDaemon, open_containers
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.layout import read_layout
from support.effects import RecordingLog
from support.engine_site import VERSION, Site, make_site
from support.registry_server import running_registry
from support.require import need

pytestmark = pytest.mark.integration

DOCKER = EngineOptions(engine="docker")
BASE = """ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG GREETING
COPY motd /etc/motd
RUN echo "$GREETING" > /etc/below
"""


@pytest.fixture
def engine() -> Iterator[DockerDaemon]:
    need("docker", "debian", "sandbox")
    with contextlib.closing(open_containers(os.environ, RecordingLog())) as daemon:
        yield daemon


@pytest.fixture
def site(engine: DockerDaemon, tmp_path: Path) -> Iterator[Site]:
    made = make_site(tmp_path)
    place = made.root / "template/v1/v1.0"
    place.mkdir()
    (place / "Dockerfile.base").write_text(BASE)
    (place / "motd").write_text("from the base\n")
    yield made
    for name in made.images():
        engine.remove_image(name)


def test_built_once_and_below_every_image(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """Each type's own; no engine is asked by the native builds on top of it; another Dockerfile.base is told."""
    with pytest.raises(BuildError, match=r"v1.0/bases.json has no base for cpu linux-64") as caught:
        site.image()
    assert caught.value.hint == "lockyard build-base 1.0"
    found = build_base(site.toolbox, site.workspace, VERSION, options=DOCKER)
    assert [(item.image_type, item.platform) for item in found] == [("cpu", "linux-64"), ("gpu", "linux-64")]
    written = json.loads((site.root / "template/v1/v1.0/bases.json").read_text())
    assert written["bases"]["gpu"]["linux-64"]["digest"] == found[1].base.digest
    images = site.build().images
    assert site.inside("gpu", "/bin/cat", "/etc/below", "/etc/motd", capfd=capfd) == "gpu\nfrom the base\n"
    for image, item in zip(images, found, strict=True):
        base = read_layout(item.layout, verify_layers=True).image
        layers = [layer.descriptor.digest for layer in read_layout(image.layout).image.layers]
        assert layers[: len(base.layers)] == [layer.descriptor.digest for layer in base.layers]
        record = json.loads((image.layout / "build.json").read_text())
        assert record["base"] == {
            "reference": f"oci:out/bases/1.0/{image.image_type}/linux-64", "digest": item.base.digest,
        }  # fmt: skip
    assert not any("another Dockerfile.base" in line for line in site.log.lines)
    (site.root / "template/v1/v1.0/Dockerfile.base").write_text(BASE + "RUN true\n")
    assert site.image().digest == images[0].digest
    assert any("was made from another Dockerfile.base" in line for line in site.log.lines)
    assert not [name for name in site.images() if name.endswith("-below")]


def test_another_machine_finds_it_in_a_registry(site: Site) -> None:
    with running_registry() as server:
        target = server.repository("team/bases")
        (found,) = build_base(
            site.toolbox, site.workspace, VERSION, options=DOCKER, image_types=("cpu",), target=target
        )
        assert found.base.reference == f"{target}:base-1.0-cpu-linux-64@{found.base.digest}"
        first = site.image()
        shutil.rmtree(site.root / "out")
        assert site.image().digest == first.digest


def test_a_base_of_another_machine(site: Site) -> None:
    build_base(site.toolbox, site.workspace, VERSION, options=DOCKER, image_types=("cpu",))
    shutil.rmtree(site.root / "out")
    with pytest.raises(BuildError, match="is not on this machine and in no registry"):
        site.image()


def test_a_broken_step_changes_nothing(site: Site) -> None:
    place = site.root / "template/v1/v1.0/bases.json"
    build_base(site.toolbox, site.workspace, VERSION, options=DOCKER, image_types=("cpu",))
    before = place.read_bytes()
    (place.parent / "Dockerfile.base").write_text(BASE + "RUN echo no; exit 4\n")
    with pytest.raises(BuildError, match=r"base of [cg]pu linux-64: Step 6/6 : RUN .* failed: .*4") as caught:
        build_base(site.toolbox, site.workspace, VERSION, options=DOCKER)
    assert "no" in caught.value.details
    assert place.read_bytes() == before
    with pytest.raises(ConfigError, match="names no registry host"):
        build_base(site.toolbox, site.workspace, VERSION, options=DOCKER, target="here")
