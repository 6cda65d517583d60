"""What other clients read of what was published: docker pull, skopeo copy, and every byte hashed again."""

import datetime as dt
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockyard.cli.root import run
from lockyard.oci.image import Image
from support.built import add_release, make_distribution, write_real
from support.docker_registry import PASSWORD, USER, DockerRegistry, docker_registry
from support.fake_ecr import FakeEcr, running_ecr
from support.images import real_layer
from support.require import need

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=[False, True], ids=["basic", "tokens"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    need("registry")
    with docker_registry(tmp_path_factory.mktemp("registry") / "it", tokens=request.param) as registry:
        yield registry


def real_release(place: Path, *, repositories: dict[str, str] | None = None) -> tuple[Path, Image]:
    """A distribution with a release whose cpu image engines can unpack."""
    root = make_distribution(place / "small", repositories=repositories).root
    add_release(root, "1.4.2")
    parts = [real_layer(place / "blobs", f"layer{number}", 300_000) for number in range(3)]
    return root, write_real(root, "1.4.2", parts)


def push(root: Path, docker_config: Path, *args: str, version: str = "1.4.2") -> None:
    environ = {"LOCKYARD_CACHE_DIR": str(root / "cache"), "DOCKER_CONFIG": str(docker_config)}
    assert run(["--root", str(root), "push", version, "--image-type", "cpu", *args], environ=environ) == 0


def to(*names: str) -> list[str]:
    return [part for name in names for part in ("--target-ecr-repo", name)]


def call(*args: str) -> str:
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_copy(layout: Path, image: Image) -> None:
    """Every blob of a layout is what its name says, and the image is the one that was tested."""
    for path in (layout / "blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["digest"] == str(image.digest)
    names = {path.name for path in (layout / "blobs/sha256").iterdir()}
    assert names == {
        image.digest.hex, image.config_descriptor.digest.hex, *(layer.descriptor.digest.hex for layer in image.layers),
    }  # fmt: skip


def test_skopeo_copies_what_was_tested(registry: DockerRegistry, tmp_path: Path) -> None:
    """Basic and token authentication; the second repository is mounted, with both scopes in one token."""
    need("skopeo")
    root, image = real_release(tmp_path)
    first, second = f"{registry.host}/readers/first", f"{registry.host}/readers/second"
    puts = registry.requests("PUT")
    push(root, registry.docker_config, *to(first, second))
    assert registry.requests("PUT") - puts == 4 + 2 + 2 * 4, "four blobs once; two manifests; four tags each"
    for number, name in enumerate((f"{first}:latest-cpu", f"{second}@{image.digest}")):
        layout = tmp_path / f"copy{number}"
        login = ["--src-tls-verify=false", f"--src-creds={USER}:{PASSWORD}"]
        call("skopeo", "copy", "-q", *login, f"docker://{name}", f"oci:{layout}:it")
        check_copy(layout, image)


def test_docker_pulls_it(registry: DockerRegistry, tmp_path: Path) -> None:
    need("docker")
    root, image = real_release(tmp_path)
    repository = f"{registry.host}/readers/docker"
    push(root, registry.docker_config, *to(repository))
    name = f"{repository}:1.4-cpu"
    docker = ["docker", "--config", str(registry.docker_config)]
    try:
        assert f"Digest: {image.digest}" in call(*docker, "pull", name)
        found = json.loads(call(*docker, "image", "inspect", name))[0]
        assert found["RootFS"]["Layers"] == [str(layer.diff_id) for layer in image.layers]
        assert found["Id"] == str(image.config_descriptor.digest)
    finally:
        subprocess.run([*docker, "rmi", "-f", name], capture_output=True, check=False)


def test_staging_on_a_registry_without_referrers(registry: DockerRegistry, tmp_path: Path) -> None:
    """docker-registry 2.8 has no referrers API: the records are listed under a tag. Nothing is sent in the last step."""
    need("skopeo")
    stage = f'{{uri = "{registry.host}/readers/stage", stage = true}}'
    root, image = real_release(tmp_path, repositories={"stage": stage})
    push(root, registry.docker_config, *to("stage"))
    for path in root.glob("out/1.4.2/*/*/blobs/sha256/*"):
        path.unlink()
    patches = registry.requests("PATCH")
    production = f"{registry.host}/readers/production"
    push(root, registry.docker_config, "--from", "stage", *to(production, "oci:registry/production"))
    assert registry.requests("PATCH") == patches
    login = ["--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
    assert json.loads(call("skopeo", "inspect", "--no-tags", *login, f"docker://{production}:latest-cpu"))[
        "Digest"
    ] == str(image.digest)
    tags = json.loads(call("skopeo", "list-tags", *login, f"docker://{registry.host}/readers/stage"))["Tags"]
    assert f"sha256-{image.digest.hex}" in tags
    assert "latest-cpu" not in tags


def test_a_registry_that_is_restarted(tmp_path: Path) -> None:
    """Between the runs it loses what it had in memory; what it had finished is not sent again."""
    need("registry", "skopeo")
    root, image = real_release(tmp_path)
    with docker_registry(tmp_path / "it") as before:
        repository = f"{before.host}/readers/image"
        push(root, before.docker_config, *to(repository))
        port = int(before.host.rpartition(":")[2])
    add_release(root, "1.4.3")
    parts = [real_layer(tmp_path / "blobs", f"layer{number}", 300_000) for number in range(4)]
    newer = write_real(root, "1.4.3", parts)
    with docker_registry(tmp_path / "it", port=port) as after:
        assert after.host == before.host
        patches = after.requests("POST")
        push(root, after.docker_config, *to(repository), version="1.4.3")
        assert after.requests("POST") - patches == 2, "one new layer and one new configuration"
        login = ["--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
        for tag, digest in (("1.4.2-cpu", image.digest), ("latest-cpu", newer.digest)):
            found = json.loads(call("skopeo", "inspect", "--no-tags", *login, f"docker://{repository}:{tag}"))
            assert found["Digest"] == str(digest)


@pytest.fixture
def ecr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEcr]:
    """An ECR whose data plane is docker-registry."""
    need("registry", "skopeo")
    with docker_registry(tmp_path / "data plane") as registry:
        auth = json.loads((registry.docker_config / "config.json").read_text())["auths"][registry.host]["auth"]
        now = lambda: dt.datetime.now(dt.UTC)  # noqa: E731 - the clock of the test
        with running_ecr(registry.host, authorization=f"Basic {auth}", now=now) as fake:
            for name, value in fake.environ.items():
                monkeypatch.setenv(name, value)
            yield fake


def test_ecr_on_a_real_registry(ecr: FakeEcr, tmp_path: Path) -> None:
    """Mounts where the account allows them, and skopeo reads with a token of its own what was tested."""
    ecr.blob_mounting = True
    first, second = ecr.create("team/first"), ecr.create("team/second")
    root, image = real_release(tmp_path)
    push(root, tmp_path, *to(first, second))
    assert ecr.count("PATCH", "/team/second/") == 0
    assert ecr.images("team/second")["latest-cpu"] == str(image.digest)
    given = ecr.call("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", {})["authorizationData"][0]
    config = tmp_path / "auth.json"
    config.write_text(json.dumps({"auths": {f"127.0.0.1:{ecr.port}": {"auth": given["authorizationToken"]}}}))
    for name in ("team/first", "team/second"):
        layout = tmp_path / f"copy-{name.replace('/', '-')}"
        source = f"docker://127.0.0.1:{ecr.port}/{name}:1.4.2-cpu"
        call(
            "skopeo", "copy", "-q", "--src-tls-verify=false", "--src-authfile", str(config), source, f"oci:{layout}:it"
        )
        check_copy(layout, image)
    assert ecr.calls.count("GetAuthorizationToken") == 2, "one of Lockyard, one of skopeo"
