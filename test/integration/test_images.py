"""The demo images in other people's tools, and in two directories."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from lockyard.cli.root import run
from lockyard.engines.daemon import open_containers
from support.buildkit import second_daemon
from support.demo import demo_base, demo_channel
from support.docker_registry import docker_registry
from support.effects import RecordingLog
from support.engine_site import BASE, INSTALLER, engine_base
from support.pool import pool_of
from support.require import ROOT, need

pytestmark = pytest.mark.integration

VERSION = "0.1.0"
RELEASE = "build_artifacts/v0/v0.1/v0.1.0"
IMPORT = "import numpy, pandas, ssl; print(numpy.__version__)"


def lockyard(root: Path, cache: Path, *args: str) -> int:
    return run(["-q", "--root", str(root), *args], environ={**os.environ, "LOCKYARD_CACHE_DIR": str(cache)})


def distribution(place: Path) -> Path:
    """A copy of the example with the demo channel and base in it."""
    root = place / "data-science"
    shutil.copytree(ROOT / "examples" / "data-science", root)
    for name in ("channel", "base", "out", ".lockyard"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "channel").symlink_to(demo_channel() / "2026-01")
    (root / "base").mkdir()
    (root / "base" / "debian.tar.zst").symlink_to(demo_base().absolute())
    return root


def tool(*argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo distribution, locked, built and tested."""
    need("sandbox", "debian")
    place = tmp_path_factory.mktemp("images")
    root = distribution(place)
    assert lockyard(root, place / "cache", "build", VERSION) == 0
    return root


def layout(root: Path, image_type: str) -> Path:
    return root / "out" / VERSION / image_type / "linux-64"


def digests(root: Path) -> list[str]:
    found = [json.loads((layout(root, name) / "index.json").read_text()) for name in ("cpu", "gpu")]
    return [item["manifests"][0]["digest"] for item in found]


def test_the_image_tests_ran_inside(root: Path) -> None:
    records = [json.loads((layout(root, name) / "tests.json").read_text()) for name in ("cpu", "gpu")]
    assert [record["manifest"] for record in records] == digests(root)
    assert [record["failed"] for record in records] == [0, 0]
    assert records[0]["executed"] >= 7
    assert records[1]["skipped"] == 0
    assert records[1]["executed"] > records[0]["executed"]


def test_another_machine_tests_what_was_pushed(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real registry, a checkout of the distribution with nothing built, an empty cache; then what is green is published."""
    need("registry")
    with docker_registry(tmp_path / "registry") as registry:
        repository = f"{registry.host}/stage"
        environ = {**os.environ, "DOCKER_CONFIG": str(registry.docker_config)}
        other = distribution(tmp_path / "other")
        for place in (root, other):
            table = f'stage = {{ uri = "{repository}", stage = true }}\n'
            (place / "lockyard.toml").write_text((place / "lockyard.toml").read_text() + table)
        call = partial(run, environ={**environ, "LOCKYARD_CACHE_DIR": str(tmp_path / "first")})
        assert call(["-q", "--root", str(root), "push", VERSION, "--target-ecr-repo", "stage"]) == 0
        shutil.copytree(root / RELEASE, other / RELEASE, dirs_exist_ok=True)
        capsys.readouterr()
        call = partial(run, environ={**environ, "LOCKYARD_CACHE_DIR": str(tmp_path / "second")})
        wanted = f"{repository}@{digests(root)[0]}"
        args = ["-q", "--root", str(other), "test", "--image", wanted, "--json"]
        assert call([*args, "--rerun"]) == 0
        (image,) = json.loads(capsys.readouterr().out)["images"]
        assert (image["reference"], image["image_type"], image["known"]) == (wanted, "cpu", False)
        assert image["passed"] >= 7
        assert image["record"].startswith("sha256:")
        target = ["--image-type", "cpu", "--target-ecr-repo", "oci:published"]
        assert call(["-q", "--root", str(other), "push", VERSION, "--from", "stage", *target]) == 0
        by_hand = tool(
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull,
            f"--image={wanted}", "-q", "test/image", cwd=other, env={**environ, "LOCKYARD_CACHE_DIR": str(tmp_path / "second")},
        )  # fmt: skip
        assert " passed" in by_hand


def test_the_same_lock_gives_the_same_digest_elsewhere(root: Path, tmp_path: Path) -> None:
    """Another directory, an empty cache, one worker."""
    other = distribution(tmp_path)
    for path in (root / "build_artifacts").rglob("*"):
        if path.is_file():
            shutil.copyfile(path, other / path.relative_to(root))
    assert lockyard(other, tmp_path / "cache", "build", VERSION, "--skip-tests", "--workers", "1") == 0
    assert digests(other) == digests(root)


@pytest.mark.parametrize("image_type", ["cpu", "gpu"])
def test_skopeo_reads_the_layout(image_type: str, root: Path, tmp_path: Path) -> None:
    need("skopeo")
    source = f"oci:{layout(root, image_type)}:{VERSION}-{image_type}"
    found = json.loads(tool("skopeo", "inspect", source))
    assert found["Digest"] == digests(root)[image_type == "gpu"]
    assert found["Labels"]["org.opencontainers.image.version"] == VERSION
    tool("skopeo", "copy", "-q", source, f"dir:{tmp_path / 'copy'}")
    assert len(list((tmp_path / "copy").iterdir())) > len(found["Layers"])


def container(bundle: Path, argv: Sequence[str]) -> str:
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": list(argv)}
    path.write_text(json.dumps(config))
    return tool("runc", "--root", str(bundle / "state"), "run", f"lockyard-{os.getpid()}-{bundle.name}", cwd=bundle)


@pytest.mark.parametrize("image_type", ["cpu", "gpu"])
def test_a_container_of_runc_imports_the_libraries(image_type: str, root: Path, tmp_path: Path) -> None:
    need("root", "umoci", "runc")
    bundle = tmp_path / image_type
    tool("umoci", "unpack", "--image", f"{layout(root, image_type)}:{VERSION}-{image_type}", str(bundle))
    assert container(bundle, ["python", "-c", IMPORT]).startswith("2.")


def test_the_docker_engine_runs_the_image(root: Path) -> None:
    need("docker", "skopeo")
    name = f"localhost/lockyard-test-{os.getpid()}:{VERSION}-cpu"
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")  # skopeo does not read it by itself
    source = f"oci:{layout(root, 'cpu')}:{VERSION}-cpu"
    tool("skopeo", "copy", "-q", "--dest-daemon-host", host, source, f"docker-daemon:{name}")
    docker = shutil.which("docker", path="/usr/bin:/usr/local/bin") or "docker"
    try:
        out = tool(
            docker, "run", "--rm", "--network=none", name, "python", "-c", f"import os; {IMPORT}; print(os.getcwd())"
        )
        assert out.splitlines()[1] == "/home/data"
    finally:
        tool(docker, "rmi", "-f", name)


def test_conda_metadata_is_complete_for_rattler(root: Path, tmp_path: Path) -> None:
    """rattler reads the installed packages of the unpacked image and finds the locked ones."""
    need("root", "umoci")
    import rattler

    bundle = tmp_path / "bundle"
    tool("umoci", "unpack", "--image", f"{layout(root, 'cpu')}:{VERSION}-cpu", str(bundle))
    meta = bundle / "rootfs" / "opt" / "conda" / "conda-meta"
    names = {rattler.PrefixRecord.from_path(path).name.normalized for path in meta.glob("*.json")}
    locked = json.loads((root / "build_artifacts" / "v0" / "v0.1" / "v0.1.0" / "cpu.lock.json").read_text())
    assert names == {package["name"] for package in locked["packages"]["linux-64"]}
    history = (meta / "history").read_text()
    assert history.startswith("==> 20")
    assert "# update specs: [" in history


SUITE = {
    "tests.toml": '[ready-made]\nrun = ["all"]\nmax-size = "200 MB"\n[tests.gpu-only]\ntypes = ["gpu"]\n',
    "welcome.test.sh": ". /etc/profile.d/welcome.sh\n",
    "gpu-only.test.sh": "exit 1\n",
    "derived.test.Dockerfile": 'ARG IMAGE\nFROM ${IMAGE}\nRUN python -c "import pandas"\nCMD ["python", "-c", "import numpy"]\n',
}
MADE = 'RUN python -c "import numpy" && echo made > /etc/made\n'
CLASSIC = f"""FROM {BASE}:1 AS environment
ARG ENV_IN_FILENAME
COPY $ENV_IN_FILENAME /tmp/
RUN install-env /tmp/$ENV_IN_FILENAME

FROM {BASE}-rootfs:1
COPY --from=environment /opt/conda /opt/conda
ARG IMAGE_VERSION
ENV IMAGE_VERSION=${{IMAGE_VERSION}} LANG=C.UTF-8 PATH=/opt/conda/bin:/usr/local/bin:/usr/bin:/bin
COPY dirs /
{MADE}
WORKDIR /home/data
CMD ["python"]
"""


def test_the_same_suite_is_green_on_every_engine(
    root: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The example, built natively, in Docker on the environment image and all by its Dockerfile, and in BuildKit."""
    need("docker", "buildkit")
    place = distribution(tmp_path)
    release = place / RELEASE
    for path in (root / RELEASE).glob("*.json"):
        shutil.copy(path, release)
    for name, text in SUITE.items():
        (place / "test/image" / name).write_text(text)
    plain = (release / "Dockerfile").read_text()
    finish = plain.replace("--chmod=0644 ", "").replace(
        "WORKDIR", f"{MADE}WORKDIR"
    )  # Docker's older builder knows no --chmod
    records: dict[str, dict[str, str]] = {}
    digests = set()

    def build(name: str, engine: str, dockerfile: str, *args: str, environ: Mapping[str, str] | None = None) -> None:
        (release / "Dockerfile").write_text(dockerfile)
        env = {**os.environ, **(environ or {}), "LOCKYARD_CACHE_DIR": str(root.parent / "cache")}
        command = ["-q", "--root", str(place), "build", VERSION, "--image-type", "cpu", "--no-load", "--engine", engine]
        assert run([*command, *args], environ=env) == 0
        assert json.loads((layout(place, "cpu") / "build.json").read_text())["engine"] == engine
        record = json.loads((layout(place, "cpu") / "tests.json").read_text())
        records[name] = {test["name"]: test["outcome"] for test in record["tests"]}
        digests.add(record["manifest"])

    build("native", "native", plain)
    daemon = open_containers(os.environ, RecordingLog())
    with contextlib.closing(daemon), engine_base(daemon, pool_of(layout(place, "cpu"), tmp_path, INSTALLER.encode())):
        build("finish in Docker", "docker", finish)
        build("classic in Docker", "docker", CLASSIC)
        daemon.remove_image(f"localhost/data-science:{VERSION}-cpu")
        with second_daemon(tmp_path_factory.mktemp("second")) as second:
            # Tests in containers run in the first daemon, the build is in the second.
            build("finish in BuildKit", "buildkit", finish, "--builder", second.builder, environ=second.environ)
    assert len(digests) == 4
    first = records["native"]
    assert {name: found for name, found in records.items() if found != first} == {}
    passed = {name for name, outcome in first.items() if outcome == "passed"}
    assert passed >= {"welcome", "derived", "ready-made/imports", "ready-made/equals-lock", "ready-made/ownership"}
    assert first["gpu-only"] == "skipped"
    collect = ("-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "-q", "--collect-only", "test/image")
    listed = tool(sys.executable, *collect, "-m", "gpu", f"--image=oci:{layout(place, 'cpu')}", cwd=place)
    assert listed.split()[0] == "gpu-only.test.sh::gpu-only"
    assert "1/5 tests collected" in listed
    assert "failed" not in first.values()
