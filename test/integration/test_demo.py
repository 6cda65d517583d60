"""`make demo` as a newcomer runs it, and its images in other people's tools."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.require import ROOT, need

pytestmark = pytest.mark.integration

CHECK = "import numpy, pandas, ssl; print(numpy.__version__)"
TYPES = ("cpu", "gpu")


def call(*args: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, code: int = 0) -> str:
    done = subprocess.run([str(arg) for arg in args], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class Demo:
    directory: Path
    output: str

    @property
    def work(self) -> Path:
        return self.directory / "data-science"

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "LOCKYARD_CACHE_DIR": str(self.directory / "cache"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def lockyard(self, *args: str, code: int = 0, root: Path | None = None) -> str:
        return call("lockyard", *args, cwd=root or self.work, env=self.env, code=code)

    def digest(self, image_type: str, version: str = "0.1.2") -> str:
        index = json.loads((self.layout(image_type, version) / "index.json").read_text())
        digest: str = index["manifests"][0]["digest"]
        return digest

    def layout(self, image_type: str, version: str = "0.1.2") -> Path:
        return self.work / "out" / version / image_type / "linux-64"


@pytest.fixture(scope="module")
def demo() -> Demo:
    """One run of the demo, in a directory that keeps downloads between test runs."""
    need("debian", "sandbox")
    cache = Path(os.environ.get("LOCKYARD_TEST_CACHE", ROOT / ".cache"))
    directory = cache / "demo"
    output = call(sys.executable, ROOT / "tools" / "demo.py", "--directory", directory)
    return Demo(directory, output)


def test_prints_every_command_and_a_closing_table(demo: Demo) -> None:
    for words in (
        "$ lockyard create-patch-version-artifacts --base-patch-version 0.1.0",
        "$ lockyard lock 0.1.1 --fresh",
        "$ lockyard build 0.1.2",
        "$ lockyard push 0.1.2 --target-ecr-repo first --target-ecr-repo second",
        "What was made",
        "Where to look next",
    ):
        assert words in demo.output


def test_one_package_moved(demo: Demo) -> None:
    changes = json.loads(demo.lockyard("diff", "0.1.1", "0.1.2", "--json"))["types"]
    for image_type in TYPES:
        assert changes[image_type]["direct"]["changed"] == {"jinja2": ["3.1.5", "3.1.6"]}
        assert not changes[image_type]["indirect"]["changed"]


def test_patch_release_re_uses_layers(demo: Demo) -> None:
    """All layers but the moved package's, the metadata's and the Dockerfile's are those of the release before."""
    for image_type in TYPES:
        layers = [
            {layer["digest"] for layer in manifest(demo.layout(image_type, version))["layers"]}
            for version in ("0.1.1", "0.1.2")
        ]
        assert len(layers[1] - layers[0]) <= 3
        assert len(layers[1]) > 10


def manifest(layout: Path) -> dict[str, list[dict[str, str]]]:
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    found: dict[str, list[dict[str, str]]] = json.loads(
        (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_text()
    )
    return found


def test_tests_ran_inside(demo: Demo) -> None:
    for image_type, executed in (("cpu", 7), ("gpu", 9)):
        record = json.loads((demo.layout(image_type) / "tests.json").read_text())
        assert record["manifest"] == demo.digest(image_type)
        assert (record["executed"], record["passed"], record["failed"]) == (executed, executed, 0)


def test_published_with_exact_and_floating_tags(demo: Demo) -> None:
    for repository in ("first", "second"):
        index = json.loads((demo.work / "registry" / repository / "index.json").read_text())
        tags = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"] for item in index["manifests"]}
        for image_type in TYPES:
            for tag in ("0.1.2", "0.1", "0", "latest"):
                assert tags[f"{tag}-{image_type}"] == demo.digest(image_type)
            assert tags[f"0.1.1-{image_type}"] == demo.digest(image_type, "0.1.1")


def test_same_lock_same_digest_elsewhere(demo: Demo, tmp_path: Path) -> None:
    """Another directory, no caches: the same manifest digests."""
    elsewhere = tmp_path / "another place"
    shutil.copytree(demo.work, elsewhere, symlinks=True, ignore=shutil.ignore_patterns("out", "registry", ".lockyard"))
    (elsewhere / "channel").unlink()
    (elsewhere / "channel").symlink_to(demo.directory / "channel" / "2026-03")
    (elsewhere / "base").unlink()
    (elsewhere / "base").symlink_to(demo.directory / "base")
    env = {**demo.env, "LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}
    call("lockyard", "build", "0.1.2", "--skip-tests", cwd=elsewhere, env=env)
    again = Demo(tmp_path, "")
    for image_type in TYPES:
        layout = elsewhere / "out" / "0.1.2" / image_type / "linux-64"
        digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        assert digest == demo.digest(image_type)
    assert again.directory == tmp_path


@pytest.mark.parametrize("image_type", TYPES)
def test_run_inside(demo: Demo, image_type: str) -> None:
    out = demo.lockyard("run", "0.1.2", "--image-type", image_type, "--", "python", "-c", CHECK)
    assert out.strip() == "2.2.6"


@pytest.mark.parametrize("image_type", TYPES)
def test_skopeo_reads_it(demo: Demo, image_type: str) -> None:
    need("skopeo")
    found = json.loads(call("skopeo", "inspect", f"oci:{demo.layout(image_type)}"))
    assert found["Digest"] == demo.digest(image_type)
    assert found["Labels"]["org.opencontainers.image.version"] == "0.1.2"
    assert "/opt/conda/bin:" in next(item for item in found["Env"] if item.startswith("PATH="))
    published = json.loads(call("skopeo", "inspect", f"oci:{demo.work / 'registry' / 'first'}:0.1.2-{image_type}"))
    assert published["Digest"] == demo.digest(image_type)


@pytest.mark.parametrize("image_type", TYPES)
def test_runc_runs_it(demo: Demo, image_type: str, tmp_path: Path) -> None:
    """umoci unpacks it, runc runs it."""
    need("umoci", "runc", "root")
    layout = tmp_path / "layout"
    call("skopeo", "copy", f"oci:{demo.layout(image_type)}", f"oci:{layout}:it")
    bundle = tmp_path / "bundle"
    call("umoci", "unpack", "--image", f"{layout}:it", bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["/opt/conda/bin/python", "-c", CHECK], "terminal": False}
    (bundle / "config.json").write_text(json.dumps(config))
    name = f"lockyard-{image_type}-{os.getpid()}"
    assert call("runc", "--root", tmp_path / "state", "run", "--bundle", bundle, name).strip() == "2.2.6"


@pytest.fixture
def engine_image(demo: Demo, request: pytest.FixtureRequest) -> Iterator[str]:
    """The image of a type, loaded into the Docker engine."""
    need("docker", "skopeo")
    name = f"lockyard-test:{request.param}-{os.getpid()}"
    target = f"docker-daemon:{name}"
    host = os.environ.get("DOCKER_HOST")
    options: Sequence[str] = ["--dest-daemon-host", host] if host else []
    call("skopeo", "copy", *options, f"oci:{demo.layout(request.param)}", target)
    yield name
    import docker

    docker.from_env().images.remove(name, force=True)


@pytest.mark.parametrize("engine_image", TYPES, indirect=True)
def test_docker_engine_runs_it(engine_image: str) -> None:
    import docker

    client = docker.from_env(timeout=600)
    try:
        output = client.containers.run(
            engine_image, ["/opt/conda/bin/python", "-c", CHECK], remove=True, network_disabled=True
        )
    finally:
        client.close()
    assert output.decode().strip() == "2.2.6"


def test_failing_test_publishes_nothing(demo: Demo, tmp_path: Path) -> None:
    """A release whose image test fails ends with 7, and push refuses what was built."""
    root = tmp_path / "ds"
    shutil.copytree(demo.work, root, symlinks=True, ignore=shutil.ignore_patterns("registry"))
    for name in ("channel", "base"):
        place = (demo.work / name).resolve()
        (root / name).unlink()
        (root / name).symlink_to(place)
    (root / "test" / "image" / "test_bad.py").write_text("def test_bad() -> None:\n    assert 'me' == 'you'\n")
    target = ("--target-ecr-repo", "oci:published")
    before = sorted(path.name for path in root.iterdir())
    demo.lockyard("push", "0.1.2", *target, code=7, root=root)  # the suite is another one: the record does not count
    demo.lockyard("build", "0.1.2", *target, code=7, root=root)
    demo.lockyard("push", "0.1.2", *target, code=7, root=root)
    assert sorted(path.name for path in root.iterdir()) == before


def test_forged_record_is_refused(demo: Demo, tmp_path: Path) -> None:
    """A record that names another digest, or claims tests that did not run, publishes nothing."""
    for forgery in ({"manifest": "sha256:" + "0" * 64}, {"executed": 0, "passed": 0}, {"suite": "sha256:" + "0" * 64}):
        root = tmp_path / next(iter(forgery))
        shutil.copytree(demo.work, root, symlinks=True, ignore=shutil.ignore_patterns("registry"))
        path = root / "out" / "0.1.2" / "cpu" / "linux-64" / "tests.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **forgery}))
        demo.lockyard("push", "0.1.2", "--target-ecr-repo", "oci:published", code=7, root=root)
        assert not (root / "published").exists()


def test_layers_hold_no_host_path(demo: Demo) -> None:
    """Neither the cache nor the checkout is named in conda-meta."""
    layout = demo.layout("cpu")
    blobs = layout / "blobs" / "sha256"
    found = 0
    for layer in manifest(layout)["layers"]:
        with tarfile.open(blobs / layer["digest"].removeprefix("sha256:"), "r:*") as archive:
            for member in archive:
                if member.name.startswith("opt/conda/conda-meta/") and member.name.endswith(".json"):
                    stream = archive.extractfile(member)
                    assert stream is not None
                    data = stream.read()
                    found += 1
                    assert str(demo.directory).encode() not in data
    assert found > 30
