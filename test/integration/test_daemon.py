"""Images in a real Docker daemon: thin and full loads, history, refusals."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lockyard.engines.daemon import DockerDaemon, open_daemon
from lockyard.errors import BuildError
from lockyard.oci.image import Image, Layer, empty_image, oci_platform
from lockyard.oci.tar import Entry, write_layer
from lockyard.oci.values import Compression, Descriptor, Digest
from support.effects import RecordingLog
from support.require import need

pytestmark = pytest.mark.integration

WHEN = "2026-01-15T00:00:00Z"
REPOSITORY = f"localhost/lockyard-daemon-{os.getpid()}"


def layer(place: Path, name: str, size: int, compression: Compression = "gzip") -> tuple[Layer, Path]:
    data = name.encode() * (size // len(name))
    path = place / name
    entry = Entry(f"srv/{name}".encode(), "file", 0o644, size=len(data), chunks=lambda: (data,))
    with ThreadPoolExecutor(1) as executor, path.open("wb") as stream:
        blob = write_layer([Entry(b"srv", "directory", 0o755), entry], stream.write, compression=compression,
                           executor=executor)  # fmt: skip
    return Layer(Descriptor(blob.media_type, blob.digest, blob.size), blob.diff_id, f"packages: {name} 1.0"), path


def image_of(place: Path, *names: str, compression: Compression = "gzip") -> tuple[Image, dict[Digest, Path]]:
    made = [layer(place, name, 100_000, compression) for name in names]
    image = empty_image(oci_platform("linux-64"), WHEN).append(*(item for item, _ in made), created=WHEN)
    image = image.with_config(Cmd=["/srv/x"], Labels={"names": " ".join(names)})
    return image.with_history("CMD [/srv/x]", created=WHEN), {item.descriptor.digest: path for item, path in made}


def docker(*args: str) -> str:
    program = shutil.which("docker", path="/usr/bin:/usr/local/bin") or "docker"
    done = subprocess.run([program, *args], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def log() -> RecordingLog:
    return RecordingLog()


@pytest.fixture
def daemon(log: RecordingLog) -> Iterator[DockerDaemon]:
    need("docker")
    found = open_daemon(os.environ, log)
    assert found is not None
    with contextlib.closing(found):
        yield found
    names = docker("images", "-q", REPOSITORY).split()
    if names:
        docker("rmi", "-f", *names)


def test_only_missing_layers_are_sent(daemon: DockerDaemon, tmp_path: Path) -> None:
    first, blobs = image_of(tmp_path, "alpha", "beta")
    done = daemon.load(first, blobs, f"{REPOSITORY}:1")
    assert (done.shared, done.sent) == (0, sum(item.descriptor.size for item in first.layers))
    again = daemon.load(first, blobs, f"{REPOSITORY}:1")
    assert (again.shared, again.sent) == (2, 0)
    assert daemon.load(first, blobs, f"{REPOSITORY}:same").sent == 0
    second, blobs = image_of(tmp_path, "alpha", "gamma")
    done = daemon.load(second, blobs, f"{REPOSITORY}:2")
    assert (done.shared, done.sent) == (1, second.layers[1].descriptor.size)
    assert docker("inspect", "--format", "{{.Id}}", f"{REPOSITORY}:2").strip() == str(second.config_descriptor.digest)
    assert docker("inspect", "--format", "{{.Id}}", f"{REPOSITORY}:same").strip() == str(first.config_descriptor.digest)


def test_the_history_names_the_packages(daemon: DockerDaemon, tmp_path: Path) -> None:
    image, blobs = image_of(tmp_path, "alpha", "beta")
    daemon.load(image, blobs, f"{REPOSITORY}:1")
    text = docker("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", f"{REPOSITORY}:1")
    assert text.splitlines() == ["CMD [/srv/x] 0B", "packages: beta 1.0 100kB", "packages: alpha 1.0 100kB"]


def test_zstd_layers_go_to_a_daemon_that_knows_none(daemon: DockerDaemon, tmp_path: Path) -> None:
    image, blobs = image_of(tmp_path, "alpha", "beta", compression="zstd")
    daemon.load(image, blobs, f"{REPOSITORY}:z")
    layers = docker("inspect", "--format", '{{join .RootFS.Layers " "}}', f"{REPOSITORY}:z").split()
    assert layers == [str(item.diff_id) for item in image.layers]


def test_a_daemon_that_wants_all_layers_gets_them(
    daemon: DockerDaemon, log: RecordingLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, blobs = image_of(tmp_path, "alpha", "beta")
    monkeypatch.setattr(daemon, "_shared", lambda *_: 1)  # it has not: the short archive is refused
    done = daemon.load(image, blobs, f"{REPOSITORY}:full")
    assert done.shared == 0
    assert any("did not take the short archive" in line for line in log.lines)


def test_a_damaged_image_is_refused(daemon: DockerDaemon, tmp_path: Path) -> None:
    image, blobs = image_of(tmp_path, "alpha")
    blobs[image.layers[0].descriptor.digest].write_bytes(b"no layer at all")
    with pytest.raises(BuildError, match="Docker does not load"):
        daemon.load(image, blobs, f"{REPOSITORY}:bad")


def test_no_daemon_is_none(log: RecordingLog, tmp_path: Path) -> None:
    assert open_daemon({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}, log) is None
    assert open_daemon({"DOCKER_HOST": "tcp://127.0.0.1:1"}, log) is None
    assert any("no Docker daemon answers at tcp://127.0.0.1:1" in line for line in log.lines)
