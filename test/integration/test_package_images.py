"""Images of the example by real engines: what is inside, who runs it, published to two repositories of a real registry."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockyard.app.bundles import BundleOptions
from lockyard.app.engines import EngineOptions
from lockyard.app.packagebuild import BuildOptions, build_package
from lockyard.app.packageimages import build_images, release_options
from lockyard.app.runtimebuild import ImageOptions, PackageImage
from lockyard.errors import BuildError
from lockyard.registry.client import RegistryClient
from lockyard.registry.credentials import DockerCredentials
from support.docker_registry import DockerRegistry, docker_registry
from support.effects import RecordingLog
from support.labimages import Lab, docker, inside, make_lab, python_base
from support.package_index import BUILD, LAB, fill
from support.pages import check_page, environment
from support.require import ROOT, need

pytestmark = pytest.mark.integration
KINDS = {"all": "", "client": "-client", "client-gpu": "-client-cuda12.9"}
BUNDLES = BundleOptions(build=BuildOptions(isolated=False, verify=False, try_out=False))


def ready(place: Path, template: str | None) -> Lab:
    need("debian", "sandbox", "root")
    lab = make_lab(place, template=template, base=python_base())
    build_package(lab.toolbox, lab.project, BUNDLES.build, out=lab.root / "dist")
    return lab


@pytest.fixture(scope="module")
def docker_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need("docker")
    lab = ready(tmp_path_factory.mktemp("docker"), None)
    yield lab
    for suffix in KINDS.values():
        lab.remove_image(f"localhost/labservice:0.1.0{suffix}")


@pytest.fixture(scope="module")
def docker_images(docker_lab: Lab) -> dict[str, PackageImage]:
    options = release_options(docker_lab.project, BUNDLES)
    built = build_images(docker_lab.toolbox, docker_lab.project, bundles=options)
    return {image.runtime: image for image in built}


@pytest.fixture(scope="module")
def native_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return ready(tmp_path_factory.mktemp("native"), "native")


@pytest.fixture(scope="module")
def native_images(native_lab: Lab) -> dict[str, PackageImage]:
    options = release_options(native_lab.project, BUNDLES)
    built = build_images(native_lab.toolbox, native_lab.project, bundles=options, load=False)
    return {image.runtime: image for image in built}


def check_inside(lab: Lab, images: dict[str, PackageImage]) -> None:
    """What a user finds in the images, whichever engine has built them."""
    assert list(images) == list(KINDS)
    for name, image in images.items():
        assert image.tag == f"0.1.0{KINDS[name]}"
        assert image.tests is not None
        assert [(test.name, test.outcome) for test in image.tests.tests] == [
            (check, "passed") for check in ("command", "label", "user", "version")
        ]
        assert inside(lab, image.layout, "/bin/sh", "-c", "id -u; id -g; pwd").split() == ["1089", "1090", "/data"]
        assert inside(lab, image.layout, "labservice", "--version") == "labservice, version 0.1.0"
        assert inside(lab, image.layout, "labservice", "devices") == "0"
        assert inside(lab, image.layout, "/bin/sh", "-c", "touch /data/mine && ls -l /data | grep -c mine") == "1"
    assert inside(lab, images["all"].layout, "labservice-server", "--version") == "0.1.0"
    # A client has no server in it.
    code = "import importlib.util as u; print(u.find_spec('markdown_it') is not None, u.find_spec('click') is not None)"
    assert inside(lab, images["all"].layout, "python3", "-c", code) == "True True"
    assert inside(lab, images["client"].layout, "python3", "-c", code) == "False True"
    gpu = inside(lab, images["client-gpu"].layout, "/bin/sh", "-c", "echo $NVIDIA_REQUIRE_CUDA $NVIDIA_VISIBLE_DEVICES")
    assert gpu == "cuda>=12.9 all"
    assert inside(lab, images["client"].layout, "/bin/sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES") == "void"


def config_of(image: PackageImage) -> dict[str, object]:
    blobs = image.layout / "blobs/sha256"
    manifest = json.loads((blobs / image.digest.removeprefix("sha256:")).read_text())
    config = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
    found = config["config"]
    assert isinstance(found, dict)
    return found


def test_images_by_docker(docker_lab: Lab, docker_images: dict[str, PackageImage]) -> None:
    check_inside(docker_lab, docker_images)
    assert {image.engine for image in docker_images.values()} == {"docker"}
    for name, image in docker_images.items():
        found = config_of(image)
        assert found["User"] == "1089:1090"
        assert found["Volumes"] == {"/data": {}}
        labels = found["Labels"]
        assert isinstance(labels, dict)
        assert labels["org.opencontainers.image.version"] == "0.1.0"
        assert labels["lockyard.runtime"] == name
        assert image.loaded == f"localhost/labservice:0.1.0{KINDS[name]}"
    # No pip, no wheels, nothing of the build stage but what it has installed.
    listing = inside(
        docker_lab, docker_images["all"].layout, "/bin/sh", "-c", "ls /build 2>&1; ls /opt; ls /opt/app/bin"
    )
    assert "No such file or directory" in listing
    assert "pip" not in listing
    assert inside(docker_lab, docker_images["all"].layout, "id", "-un") == "app"


def test_the_engine_runs_what_it_was_given(docker_lab: Lab, docker_images: dict[str, PackageImage]) -> None:
    """The image that was loaded is the layout that was tested."""
    name = docker_images["client"].loaded
    said = docker(docker_lab, "run", "--rm", "--network=none", name, "--version")
    assert said == "labservice, version 0.1.0"


def test_the_package_has_a_layer_of_its_own(
    docker_lab: Lab, docker_images: dict[str, PackageImage], tmp_path: Path
) -> None:
    """A release that changes no dependency shares all layers but the package's with the one before."""
    lab = Lab(tmp_path / "labservice")
    shutil.copytree(docker_lab.root, lab.root, symlinks=True)
    lab.edit("src/labservice/device.py", "driver sees", "driver has")
    lab.commit()
    shutil.rmtree(lab.root / "dist")
    options = release_options(lab.project, BUNDLES)
    (image,) = build_images(lab.toolbox, lab.project, ("client",), bundles=options, load=False)

    def layers(item: PackageImage) -> list[str]:
        manifest = json.loads((item.layout / "blobs/sha256" / item.digest.removeprefix("sha256:")).read_text())
        return [layer["digest"] for layer in manifest["layers"]]

    old, new = layers(docker_images["client"]), layers(image)
    assert len(old) == len(new)
    assert [one == other for one, other in zip(old, new, strict=True)].count(False) == 1


def test_images_natively(native_lab: Lab, native_images: dict[str, PackageImage]) -> None:
    check_inside(native_lab, native_images)
    assert {image.engine for image in native_images.values()} == {"native"}


def test_native_images_are_the_same_everywhere(
    native_lab: Lab, native_images: dict[str, PackageImage], tmp_path: Path
) -> None:
    """Another directory, another cache: byte for byte the same."""
    lab = Lab(tmp_path / "elsewhere" / "labservice")
    shutil.copytree(native_lab.root, lab.root, symlinks=True, ignore=shutil.ignore_patterns("out", ".lockyard"))
    built = build_images(
        lab.toolbox, lab.project, bundles=release_options(lab.project, BUNDLES), skip_tests=True, load=False
    )
    assert {image.runtime: image.digest for image in built} == {
        name: image.digest for name, image in native_images.items()
    }


def test_a_native_dockerfile_by_docker(native_lab: Lab, native_images: dict[str, PackageImage], tmp_path: Path) -> None:
    """The base template native is a Dockerfile like any other."""
    need("docker")
    lab = Lab(tmp_path / "labservice")
    shutil.copytree(native_lab.root, lab.root, symlinks=True, ignore=shutil.ignore_patterns("out", ".lockyard"))
    (image,) = build_images(
        lab.toolbox, lab.project, ("client",), bundles=release_options(lab.project, BUNDLES), load=False,
        options=ImageOptions(engines=EngineOptions(engine="docker")),
    )  # fmt: skip
    lab.remove_image("localhost/labservice:0.1.0-client")
    assert image.engine == "docker"
    assert image.tests is not None
    assert image.tests.green
    files = "cd /opt/app && find . -type f | grep -v pyc | sort | xargs sha256sum"
    assert inside(lab, image.layout, "/bin/sh", "-c", files) == inside(
        native_lab, native_images["client"].layout, "/bin/sh", "-c", files
    )


def test_internal_with_packages_and_cuda(
    docker_lab: Lab, docker_images: dict[str, PackageImage], tmp_path: Path
) -> None:
    """Every block of the templates runs: Debian packages of both stages, CUDA from a repository with a key, own volumes."""
    lab = Lab(tmp_path / "labservice")
    shutil.copytree(docker_lab.root, lab.root, symlinks=True, ignore=shutil.ignore_patterns("out", ".lockyard"))
    (lab.root / "keys").mkdir()
    (lab.root / "keys/cuda.asc").write_text("a key\n")
    lab.edit("runtimes.yaml", "    base_template: generic\n", "    base_template: internal\n")
    lab.edit(
        "runtimes.yaml", '    gpu: {cuda: "12.9", cudnn: "9"}\n',
        '    gpu: {cuda: "12.9", cudnn: "9", key: keys/cuda.asc}\n    build_packages: [gcc]\n    final_packages: [tini]\n'
        "    volumes: [/data, /srv/lab]\n    user: {uid: 2000, gid: 2001, name: lab}\n",
    )  # fmt: skip
    lab.generate()
    lab.commit()
    options = release_options(lab.project, BUNDLES)
    (image,) = build_images(lab.toolbox, lab.project, ("client-gpu",), bundles=options, load=False)
    lab.remove_image("localhost/labservice:0.1.0-client-cuda12.9")
    said = inside(
        lab, image.layout, "/bin/sh", "-c", "cat /var/log/apt-asked; id -u; id -g; id -un; stat -c %U /srv/lab"
    )
    assert said.splitlines() == [
        "update", "install --no-install-recommends --yes tini",
        "update", "install --no-install-recommends --yes ca-certificates",
        "update", "install --no-install-recommends --yes cuda-libraries-12-9 libcudnn9-cuda-12",
        "2000", "2001", "lab", "lab",
    ]  # fmt: skip
    source = inside(lab, image.layout, "/bin/sh", "-c", "cat /etc/apt/sources.list.d/cuda.list /usr/share/keyrings/*")
    assert source == (
        "deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.asc] "
        "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/ /\na key"
    )


def test_native_is_refused_where_there_is_run(docker_lab: Lab) -> None:
    with pytest.raises(BuildError) as caught:
        build_images(
            docker_lab.toolbox, docker_lab.project, ("client",), bundles=release_options(docker_lab.project, BUNDLES),
            options=ImageOptions(engines=EngineOptions(engine="native")),
        )  # fmt: skip
    assert "Dockerfile.client is a derived Dockerfile, which needs a container engine" in caught.value.message
    assert caught.value.hint == "--engine docker, or base_template: native in runtimes.yaml"


def test_a_failing_step_is_told(docker_lab: Lab, docker_images: dict[str, PackageImage], tmp_path: Path) -> None:
    """What the lock lacks ends the build: nothing is fetched that no hash names."""
    lab = Lab(tmp_path / "labservice")
    shutil.copytree(docker_lab.root, lab.root, symlinks=True, ignore=shutil.ignore_patterns("out"))
    (lab.root / "requirements/requirements_client.txt").write_text("# nothing\n")
    lab.commit()
    with pytest.raises(BuildError) as caught:
        build_images(lab.toolbox, lab.project, ("client",), bundles=release_options(lab.project, BUNDLES))
    assert "failed" in caught.value.message
    assert any("No matching distribution found for click" in line for line in caught.value.details)
    assert "the whole log is in .lockyard/logs/package-0.1.0-client.log" in str(caught.value.hint)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    need("registry")
    with docker_registry(tmp_path / "registry") as found:
        yield found


def tags(registry: DockerRegistry, lab: Lab, name: str) -> dict[str, str]:
    environ = {"DOCKER_CONFIG": str(registry.docker_config)}
    port = RegistryClient(f"{registry.host}/{name}", DockerCredentials(environ), log=RecordingLog())
    try:
        return {tag: str(port.manifest_digest(tag)) for tag in port.tags()}
    finally:
        port.close()


def start(lab: Lab, registry: DockerRegistry, *args: str) -> "subprocess.Popen[str]":
    targets = [part for name in ("first", "second") for part in ("--target-ecr-repo", f"{registry.host}/lab/{name}")]
    argv = [
        sys.executable,
        "-m",
        "lockyard",
        "--root",
        str(lab.root),
        "package",
        "images",
        "--no-isolation",
        "--no-load",
    ]
    return subprocess.Popen(
        [*argv, *targets, *args], env={**lab.environ, "DOCKER_CONFIG": str(registry.docker_config), "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["docker", "native"])
def test_published_to_two_repositories(request: pytest.FixtureRequest, registry: DockerRegistry, kind: str) -> None:
    """Killed in the middle of the push, run again: nothing is built again, and both repositories are complete."""
    lab: Lab = request.getfixturevalue(f"{kind}_lab")
    images: dict[str, PackageImage] = request.getfixturevalue(f"{kind}_images")
    process = start(lab, registry)
    wait_until(lambda: registry.requests("PATCH") > 0 or registry.requests("PUT") > 0 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = start(lab, registry)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err.count("built already from the same files") == 3
    wanted = {f"{name}{suffix}": images[kind].digest for kind, suffix in KINDS.items() for name in ("0.1.0", "latest")}
    assert tags(registry, lab, "lab/first") == wanted == tags(registry, lab, "lab/second")
    assert len(out.splitlines()) == 2 * len(wanted)
    puts = registry.requests("PUT")
    again = start(lab, registry)
    assert again.communicate(timeout=300)[0] == out
    assert registry.requests("PUT") == puts


def wait_until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_pulled_by_docker(docker_lab: Lab, docker_images: dict[str, PackageImage], registry: DockerRegistry) -> None:
    """What was published is what an engine runs."""
    process = start(docker_lab, registry)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    name = f"{registry.host}/lab/second:latest-client"
    environ = {"DOCKER_CONFIG": str(registry.docker_config)}
    docker(docker_lab, "pull", "--quiet", name, env=environ)
    assert docker(docker_lab, "run", "--rm", "--network=none", name, "--version") == "labservice, version 0.1.0"
    docker_lab.remove_image(name)


@pytest.fixture
def place_of_images(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A clone of examples/labservice that needs no network: a base, and wheels of what is installed here."""
    need("docker", "debian", "sandbox")
    index = fill(tmp_path / "index", *BUILD, *LAB)
    lab = make_lab(tmp_path, base=python_base())
    env = environment(LOCKYARD_CACHE_DIR=tmp_path / "cache", UV_NO_INDEX="1", UV_FIND_LINKS=index)
    subprocess.run(["lockyard", "package", "lock", "--fresh"], cwd=lab.root, env=env, check=True, capture_output=True)
    lab.commit("locks")
    lab.git("tag", "--force", "v0.1.0")
    yield lab.root, env
    for image in ("0.1.0", "0.1.0-client", "0.1.0-client-dirty", "0.1.0-client-cuda12.9"):
        lab.remove_image(f"localhost/labservice:{image}")


def test_the_page_about_images(place_of_images: tuple[Path, dict[str, str]]) -> None:
    """Its commands do what it says. Here, and last: the names of its images are those of this file's."""
    check_page(ROOT / "docs/how-to/images-of-a-python-package.md", "images", *place_of_images)
