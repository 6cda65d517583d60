"""A base pulled from Debian's docker-registry, with credentials of Docker's store; `pin-bases` from the command line."""

import contextlib
import json
import os
from pathlib import Path

import pytest

from lockyard.cli.root import make_toolbox, run
from lockyard.oci.layout import blob_path
from support.bases import open_base
from support.docker_registry import docker_registry
from support.effects import RecordingLog
from support.images import write_image
from support.require import need

pytestmark = pytest.mark.integration

VARIANTS = '# kept\nschema = 1\nchannels = ["file:channel"]\n[variants.cpu]\nbase = "{base}"  # kept, too\n'


def test_a_base_is_pinned_and_pulled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("registry")
    image = write_image(tmp_path / "layout", "base", (50_000, 3_000_000))
    with docker_registry(tmp_path / "registry") as registry:
        environ = {
            **os.environ,
            "DOCKER_CONFIG": str(registry.docker_config),
            "LOCKYARD_CACHE_DIR": str(tmp_path / "c"),
        }
        name = f"{registry.host}/os/base:1"
        toolbox = make_toolbox(RecordingLog(), environ)
        with contextlib.closing(toolbox.registry(f"{registry.host}/os/base")) as port:
            for descriptor in (image.config_descriptor, *(item.descriptor for item in image.layers)):
                path = blob_path(tmp_path / "layout", descriptor.digest)
                port.upload_blob(path, str(descriptor.digest), descriptor.size, progress=lambda _: None)
            port.put_manifest("1", image.manifest_bytes, image.media_type)
        root = tmp_path / "site"
        (root / "template/v1").mkdir(parents=True)
        (root / "lockyard.toml").write_text('name = "site"\n')
        path = root / "template/v1/variants.toml"
        path.write_text(VARIANTS.format(base=name))
        assert run(["--root", str(root), "pin-bases", "--json"], environ=environ) == 0
        (found,) = json.loads(capsys.readouterr().out)["bases"]
        assert found["new"] == f"{name}@{image.digest}"
        assert path.read_text() == VARIANTS.format(base=found["new"])
        assert run(["--root", str(root), "pin-bases", "--check"], environ=environ) == 0
        base = open_base(
            tmp_path, found["new"], registry=lambda repository: toolbox.registry(repository, pull_only=True)
        )  # fmt: skip
        assert base.digest == str(image.digest)
        assert [item.diff_id for item in base.image.layers] == [item.diff_id for item in image.layers]
    # The registry has gone: the cache is enough.
    assert open_base(tmp_path, found["new"]).image == base.image
