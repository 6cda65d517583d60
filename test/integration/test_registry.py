"""Publishing to the real docker-registry and reading what was published with skopeo."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockyard.cli.root import run
from lockyard.errors import RegistryError
from lockyard.http import Retries
from lockyard.ports.registry import UploadSession
from lockyard.registry.client import RegistryClient
from lockyard.registry.credentials import DockerCredentials
from support.built import add_release, make_distribution
from support.docker_registry import PASSWORD, USER, DockerRegistry, docker_registry
from support.effects import RecordingLog
from support.images import push_image
from support.require import need

pytestmark = pytest.mark.integration
CHUNK = 1 << 20


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    need("registry")
    with docker_registry(tmp_path_factory.mktemp("registry") / "it") as registry:
        yield registry


def skopeo(*args: str) -> Any:
    done = subprocess.run(["skopeo", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def push(root: Path, version: str, registry: DockerRegistry, *targets: str) -> None:
    environ = {"LOCKYARD_CACHE_DIR": str(root / "cache"), "DOCKER_CONFIG": str(registry.docker_config)}
    args = [part for target in targets for part in ("--target-ecr-repo", target)]
    assert run(["--root", str(root), "push", version, *args], environ=environ) == 0


def test_publish_to_two_repositories_and_a_directory(registry: DockerRegistry, tmp_path: Path) -> None:
    """One upload, mounts, tags; again nothing is sent; skopeo reads all of it and agrees on every digest."""
    need("skopeo")
    root = make_distribution(tmp_path / "small").root
    first = add_release(root, "1.4.2", seed="same")
    targets = (f"{registry.host}/team/first", f"{registry.host}/team/second", "oci:registry/first")
    push(root, "1.4.2", registry, *targets)
    uploads = registry.requests("PUT")
    push(root, "1.4.2", registry, *targets)
    assert registry.requests("PUT") == uploads
    add_release(root, "1.5.0", seed="other")
    push(root, "1.5.0", registry, *targets)
    for kind in ("cpu", "gpu"):
        image = first[f"{kind} linux-64"]
        for source in (
            f"oci:{root}/registry/first:1.4.2-{kind}",
            f"docker://{targets[0]}:1.4.2-{kind}",
            f"docker://{targets[1]}:1.4-{kind}",
        ):
            options = [] if source.startswith("oci:") else ["--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
            found = skopeo("inspect", "--no-tags", *options, source)
            assert found["Digest"] == str(image.digest)
            assert found["Layers"] == [str(layer.descriptor.digest) for layer in image.layers]
            assert found["Architecture"] == "amd64"
    tags = skopeo("list-tags", "--tls-verify=false", f"--creds={USER}:{PASSWORD}", f"docker://{targets[0]}")["Tags"]
    assert sorted(tag for tag in tags if tag.endswith("-cpu")) == [
        "1-cpu",
        "1.4-cpu",
        "1.4.2-cpu",
        "1.5-cpu",
        "1.5.0-cpu",
        "latest-cpu",
    ]


def test_an_index_of_two_platforms(registry: DockerRegistry, tmp_path: Path) -> None:
    need("skopeo")
    root = make_distribution(tmp_path / "two", platforms=("linux-64", "linux-aarch64")).root
    images = add_release(root, "1.0.0")
    repository = f"{registry.host}/team/index"
    push(root, "1.0.0", registry, repository, "oci:registry/index")
    for platform, name in (("linux-64", "amd64"), ("linux-aarch64", "arm64")):
        options = ["--tls-verify=false", f"--creds={USER}:{PASSWORD}", f"--override-arch={name}"]
        found = skopeo("inspect", "--no-tags", *options, f"docker://{repository}:latest-cpu")
        assert found["Layers"] == [str(layer.descriptor.digest) for layer in images[f"cpu {platform}"].layers]
        assert (
            skopeo("inspect", f"--override-arch={name}", f"oci:{root}/registry/index:latest-cpu")["Layers"]
            == found["Layers"]
        )


def client(registry: DockerRegistry, repository: str) -> RegistryClient:
    credentials = DockerCredentials({"DOCKER_CONFIG": str(registry.docker_config)})
    return RegistryClient(
        f"{registry.host}/{repository}",
        credentials,
        log=RecordingLog(),
        chunk=CHUNK,
        retries=Retries(attempts=2, sleep=lambda _: None),
    )


def test_an_upload_goes_on_in_another_process(registry: DockerRegistry, tmp_path: Path) -> None:
    """Interrupted between two chunks, the registry still has the first ones: only the rest is sent."""
    image = push_image(tmp_path / "blobs", "resume", (5 * CHUNK,))
    blob = max(image.blobs, key=lambda item: item.size)
    sessions: list[UploadSession] = []

    class StoppedError(Exception):
        pass

    def stop(session: UploadSession) -> None:
        sessions.append(session)
        if session.offset == 3 * CHUNK:
            raise StoppedError

    with contextlib.closing(client(registry, "team/resume")) as one, pytest.raises(StoppedError):
        one.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None, on_session=stop)
    with contextlib.closing(client(registry, "team/resume")) as two:
        begun = UploadSession(sessions[-1].location)
        assert two.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None, session=begun) == 2 * CHUNK
        assert two.present_blobs({blob.digest: blob.size}) == {blob.digest}


def test_an_upload_broken_inside_a_chunk_begins_again(registry: DockerRegistry, tmp_path: Path) -> None:
    image = push_image(tmp_path / "blobs", "broken", (3 * CHUNK,))
    blob = max(image.blobs, key=lambda item: item.size)
    sessions: list[UploadSession] = []
    told = 0

    class BrokenError(Exception):
        pass

    def progress(amount: int) -> None:
        nonlocal told
        told += amount
        if told > CHUNK + CHUNK // 2:
            raise BrokenError

    with contextlib.closing(client(registry, "team/broken")) as one, pytest.raises(BrokenError):
        one.upload_blob(blob.source, blob.digest, blob.size, progress=progress, on_session=sessions.append)
    with contextlib.closing(client(registry, "team/broken")) as two:
        begun = UploadSession(sessions[-1].location)
        two.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None, session=begun)
        assert two.present_blobs({blob.digest: blob.size}) == {blob.digest}


def test_the_registry_refuses_a_manifest_whose_blobs_are_missing(registry: DockerRegistry, tmp_path: Path) -> None:
    image = push_image(tmp_path / "blobs", "missing", (10,))
    with (
        contextlib.closing(client(registry, "team/missing")) as port,
        pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"),
    ):
        port.put_manifest("1.0", image.top.body, image.top.descriptor.media_type)
