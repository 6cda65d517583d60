"""Dockerfiles built by a real BuildKit in a second daemon, chosen through `--builder`."""

import contextlib
import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lockyard.app.build import build_release
from lockyard.app.bundles import BundleOptions
from lockyard.app.engines import EngineOptions
from lockyard.app.packagebuild import BuildOptions
from lockyard.app.packageimages import build_images, release_options
from lockyard.app.runtimebuild import ImageOptions
from lockyard.cli.root import run
from lockyard.engines.buildkit import BuildKit
from lockyard.engines.daemon import open_containers
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.layout import read_layout
from lockyard.ports.containers import BuildSecret
from support.buildkit import Second, remote_buildkit, second_daemon
from support.effects import RecordingLog
from support.engine_site import (
    BASE,
    CLASSIC,
    FINISH,
    VERSION,
    Site,
    add_platform,
    check_platforms,
    engine_base,
    make_site,
    meet_after_load,
)
from support.labimages import inside, make_lab, python_base
from support.require import need
from support.team import check_team_images, team_base, write_team_release

pytestmark = pytest.mark.integration

SECRET = "open-sesame-1234"
BUILDKIT = EngineOptions(engine="buildkit", builder="second")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    need("buildkit", "debian", "sandbox")
    with second_daemon(tmp_path_factory.mktemp("second")) as found:
        daemon = open_containers({"DOCKER_HOST": f"unix://{found.socket}"}, RecordingLog())
        with contextlib.closing(daemon), engine_base(daemon):
            yield found


@pytest.fixture
def site(second: Second, tmp_path: Path) -> Site:
    made = make_site(tmp_path)
    # A daemon that is not there: nothing but the builder is asked.
    made.environ = {**second.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock", "PIP_PASSWORD": SECRET}
    return made


def test_finish(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """Both types; the environment's layers keep their blobs, what the Dockerfile adds comes on top."""
    (site.release / "Dockerfile").write_text(FINISH)
    images = site.build(engines=BUILDKIT).images
    assert [image.image_type for image in images] == ["cpu", "gpu"]
    assert site.inside("gpu", "/bin/cat", "/etc/made", "/opt/conda/share/data.txt", capfd=capfd) == "tool\ndata\n"
    layout = read_layout(images[1].layout, verify_layers=True)
    assert layout.image.validate() == []
    assert layout.image.runtime["Labels"]["lockyard.image-type"] == "gpu"
    assert "IMAGE_VERSION=1.0.0" in layout.image.runtime["Env"]
    assert json.loads((images[1].layout / "build.json").read_text())["engine"] == "buildkit"
    (site.release / "Dockerfile").write_text(FINISH.replace("RUN", "# RUN"))
    below = [layer.descriptor.digest for layer in read_layout(site.build().images[1].layout).image.layers][:-1]
    assert [layer.descriptor.digest for layer in layout.image.layers][: len(below)] == below
    assert not list((site.root.with_name("cache") / "buildkit").iterdir())


def test_nothing_changed_gives_the_same_image(site: Site) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    first = site.image(engines=BUILDKIT)
    assert any("exporting to docker image format" in line for line in site.log.lines)
    shutil.rmtree(site.root / "out")
    site.log.lines.clear()
    assert site.image(engines=BUILDKIT).digest == first.digest
    assert not any("exporting to docker image format" in line for line in site.log.lines), "nothing is sent back"
    (site.release / "dirs/etc/motd").write_text("another\n")
    assert site.image(engines=BUILDKIT).digest != first.digest
    site.log.lines.clear()
    (site.release / "dirs/etc/motd").write_text("hello\n")
    assert site.image(engines=BUILDKIT).digest == first.digest
    top = read_layout(first.layout).image.layers[-1].descriptor.digest
    (site.root.with_name("cache") / "blobs/v1/sha256" / top.hex).unlink()
    shutil.rmtree(site.root / "out")
    assert site.image(engines=BUILDKIT).digest == first.digest
    read_layout(first.layout, verify_layers=True)


def test_platforms_build_side_by_side(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    add_platform(site)
    meet_after_load(BuildKit, monkeypatch)
    check_platforms(site.build(image_types=("cpu",), engines=BUILDKIT).images)


def test_a_remote_driver(
    site: Site, second: Second, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    """A BuildKit elsewhere, reached by address alone: the environment goes there, both types come back."""
    (site.release / "Dockerfile").write_text(FINISH)
    with remote_buildkit(second, tmp_path_factory.mktemp("remote")) as address:
        buildx = functools.partial(subprocess.run, env=second.environ, check=True, capture_output=True, text=True)
        buildx(["docker", "buildx", "create", "--name", "cluster", "--driver", "remote", address])
        try:
            images = site.build(engines=EngineOptions(engine="buildkit", builder="cluster")).images
        finally:
            buildx(["docker", "buildx", "rm", "cluster"])
    assert [image.image_type for image in images] == ["cpu", "gpu"]
    assert site.inside("gpu", "/bin/cat", "/etc/made", "/opt/conda/share/data.txt", capfd=capfd) == "tool\ndata\n"


def test_classic(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """The locked specs, the variant's arguments, `.dockerignore`; what FROM was is recorded by digest."""
    (site.release / "Dockerfile").write_text(CLASSIC + "COPY . /all/\n")
    (site.release / ".dockerignore").write_text("dirs\nDockerfile\n")
    image = site.image(engines=BUILDKIT)
    assert site.inside("cpu", "/bin/cat", "/etc/greeting", capfd=capfd) == "cpu\n"
    assert site.inside("cpu", "/bin/sh", "-c", "ls -A /all", capfd=capfd).split() == [
        ".dockerignore", "Dockerfile", "cpu.env.in", "cpu.lock.json", "cpu.locked_env.in", "gpu.env.in", "gpu.lock.json",
    ]  # fmt: skip
    record = json.loads((image.layout / "build.json").read_text())
    assert record["base"]["reference"] == f"{BASE}:1"
    assert record["base"]["digest"].startswith(f"{BASE}:1@sha256:")


def test_a_teams_dockerfile_of_a_hundred_lines(site: Site, second: Second, capfd: pytest.CaptureFixture[str]) -> None:
    """Build arguments, a user, Debian packages, post-install steps: cpu and gpu side by side, and both hold their lock."""
    assert len((Path(__file__).parents[1] / "support/team.Dockerfile").read_text().splitlines()) >= 100
    write_team_release(site)
    with (
        contextlib.closing(open_containers({"DOCKER_HOST": f"unix://{second.socket}"}, RecordingLog())) as daemon,
        team_base(daemon),
    ):
        images = site.build(engines=BUILDKIT).images
    check_team_images(functools.partial(site.inside, capfd=capfd))
    runtime = read_layout(images[1].layout, verify_layers=True).image.runtime
    assert (runtime["User"], runtime["Entrypoint"]) == ("analyst", ["/usr/bin/tini", "--"])
    assert runtime["Labels"]["com.example.type"] == "gpu"


def test_a_secret_is_mounted_and_stays_nowhere(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A step that shows it is shown with `***`; no file of the image, of the log or of the record has it."""
    (tmp_path / "netrc").write_text(f"machine example.com password {SECRET}-file\n")
    (site.release / "Dockerfile").write_text(
        FINISH + "RUN --mount=type=secret,id=pip --mount=type=secret,id=netrc "
        "cat /run/secrets/pip && wc -c < /run/secrets/pip > /etc/length && test -s /run/secrets/netrc && cat /run/secrets/netrc\n"
    )
    secrets = (BuildSecret("pip", env="PIP_PASSWORD"), BuildSecret("netrc", source=tmp_path / "netrc"))
    options = EngineOptions(engine="buildkit", builder="second", secrets=secrets, no_cache=True)
    image = site.image(engines=options)
    assert site.inside("cpu", "/bin/cat", "/etc/length", capfd=capfd) == f"{len(SECRET)}\n"
    log = (site.root / ".lockyard/logs/1.0.0-cpu-linux-64.log").read_text()
    assert "***" in log
    for path in [*image.layout.rglob("*"), *(site.root / ".lockyard").rglob("*")]:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert not any(SECRET in line for line in site.log.lines)


def test_secrets_are_for_buildkit_and_must_be_there(site: Site) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    with pytest.raises(ConfigError, match="--secret is for BuildKit"):
        EngineOptions(engine="docker", secrets=(BuildSecret("pip", env="PIP_PASSWORD"),))
    missing = EngineOptions(engine="buildkit", secrets=(BuildSecret("a", env="NOT_THERE"),))
    with pytest.raises(ConfigError, match="the build secret a: the variable NOT_THERE is not set"):
        site.image(engines=missing)


def test_a_broken_step(site: Site) -> None:
    """The step, its last forty lines, the place of the log; nothing is built."""
    broken = "RUN i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); done; exit 3\n"
    (site.release / "Dockerfile").write_text(FINISH + broken)
    with pytest.raises(BuildError, match=r"cpu linux-64: \[3/4\] RUN i=0.* failed: exit code: 3") as caught:
        site.image(engines=BUILDKIT)
    assert list(caught.value.details) == [f"line {i}" for i in range(20, 60)]
    assert caught.value.hint == "the whole log is in .lockyard/logs/1.0.0-cpu-linux-64.log"
    assert not (site.root / "out").exists()
    assert not list((site.root.with_name("cache") / "buildkit").iterdir())


def test_a_build_that_is_ended_leaves_nothing(site: Site, second: Second) -> None:
    """Cancelled in the middle of a step: the client ends, and the builder ends the step."""
    mark = "in the long step"
    (site.release / "Dockerfile").write_text(FINISH + f"RUN echo {mark}; sleep 31557\n")
    started = threading.Event()

    class Watching(RecordingLog):
        def detail(self, message: str) -> None:
            if message.endswith(mark):
                started.set()

    site.log = Watching()
    builder = site.toolbox.buildkit("second", ())
    site.opened = builder
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(
            build_release, site.toolbox, site.workspace, VERSION, skip_tests=True, load=False, image_types=("cpu",),
            engines=BUILDKIT,
        )  # fmt: skip
        assert started.wait(120)
        builder.cancel()
        with pytest.raises(BuildError, match="was ended"):
            running.result(60)
    for pid in _processes("sleep\0" + "31557"):
        subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=60, check=True)  # the builder is ending it
    assert not (site.root / "out").exists()
    assert second.socket.exists()


def _processes(command: str) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if command in (place / "cmdline").read_text():
                found.append(int(place.name))
    return found


def test_a_full_disk(site: Site) -> None:
    """The builder has room, this machine has not: one message, nothing half-done."""
    cache = site.root.with_name("cache")
    cache.mkdir()
    (site.release / "Dockerfile").write_text(FINISH + "RUN head -c 9000000 /dev/urandom > /big\n")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(cache)], check=True)
    try:
        with pytest.raises(BuildError, match="^the disk is full$"):
            site.image(engines=BUILDKIT)
        assert not (site.root / "out").exists()
        assert not list((cache / "buildkit").iterdir())
    finally:
        # The cache is in use by this process as long as it lives.
        subprocess.run(["umount", "--lazy", str(cache)], check=True)


def test_no_builder_of_that_name(site: Site) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    with pytest.raises(BuildError, match='no builder "nowhere" found') as caught:
        site.image(engines=EngineOptions(engine="buildkit", builder="nowhere"))
    assert caught.value.hint == "docker buildx ls shows the builders"


def test_no_buildx_is_one_message(site: Site) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    site.environ = {"PATH": "/nowhere"}
    with pytest.raises(BuildError) as caught:
        site.image(engines=BUILDKIT)
    assert caught.value.message == (
        "--engine buildkit, and there is no buildx: neither `docker buildx version` nor `docker-buildx version` works"
    )


def test_options_of_buildkit_for_another_engine(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    environ = {**site.environ, "LOCKYARD_CACHE_DIR": str(site.root.with_name("cache"))}
    argv = ["--root", str(site.root), "build", str(VERSION), "--engine", "docker", "--secret", "id=PIP_PASSWORD"]
    assert run(argv, environ=environ) == 2
    assert "--secret is for BuildKit, and the engine is docker" in capfd.readouterr().err


def test_the_image_of_a_python_package(second: Second, tmp_path: Path) -> None:
    """The bundle goes to the builder as it is; stages, the base that we bring, and the tests inside are those of any engine."""
    made = make_lab(tmp_path, base=python_base())
    made.more = {**second.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    bundles = BundleOptions(build=BuildOptions(isolated=False, verify=False, try_out=False))
    (image,) = build_images(
        made.toolbox, made.project, ("client-gpu",), bundles=release_options(made.project, bundles),
        options=ImageOptions(engines=BUILDKIT),
    )  # fmt: skip
    assert (image.engine, image.tag) == ("buildkit", "0.1.0-client-cuda12.9")
    assert image.tests is not None
    assert image.tests.green
    assert inside(made, image.layout, "/bin/sh", "-c", "id -u; echo $NVIDIA_REQUIRE_CUDA").split() == [
        "1089",
        "cuda>=12.9",
    ]
