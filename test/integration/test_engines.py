"""Dockerfiles of every kind, built by a real Docker engine into layouts that hold what the lock says."""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lockyard.app.build import build_release
from lockyard.app.engines import EngineOptions
from lockyard.app.imagebench import NO_GPU_IN_ENGINE
from lockyard.app.testing import TestOptions, check_release, require_green
from lockyard.conda.formats import read_env_out
from lockyard.engines.daemon import DockerDaemon, open_containers
from lockyard.engines.docker_build import MARK
from lockyard.errors import BuildError, ImageTestError
from lockyard.oci.layout import read_layout
from lockyard.process import is_left_over, temporary_name
from support.effects import RecordingLog
from support.engine_cli import start, wait_for
from support.engine_site import (
    BASE,
    CLASSIC,
    FINISH,
    RELEASE,
    VERSION,
    Site,
    add_platform,
    check_platforms,
    engine_base,
    make_site,
    meet_after_load,
)
from support.require import need
from support.team import check_team_images, team_base, write_team_release

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerDaemon]:
    need("docker", "debian", "sandbox")
    daemon = open_containers(os.environ, RecordingLog())
    with contextlib.closing(daemon), engine_base(daemon):
        yield daemon


@pytest.fixture
def site(engine: DockerDaemon, tmp_path: Path) -> Iterator[Site]:
    made = make_site(tmp_path)
    yield made
    for name in made.images():
        engine.remove_image(name)


def test_finish(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """The environment's layers keep their blobs; the Dockerfile's come on top; nothing else stays in the engine."""
    (site.release / "Dockerfile").write_text(FINISH)
    images = site.build(engines=EngineOptions(engine="docker")).images
    assert [image.image_type for image in images] == ["cpu", "gpu"]
    assert site.inside("gpu", "/bin/cat", "/etc/made", "/opt/conda/share/data.txt", capfd=capfd) == "tool\ndata\n"
    layout = read_layout(images[1].layout, verify_layers=True)
    assert layout.image.validate() == []
    labels = layout.image.runtime["Labels"]
    assert (labels["org.opencontainers.image.version"], labels["lockyard.image-type"]) == ("1.0.0", "gpu")
    assert "IMAGE_VERSION=1.0.0" in layout.image.runtime["Env"]
    (site.release / "Dockerfile").write_text(FINISH.replace("RUN", "# RUN"))
    native = site.build().images[1]
    below = [layer.descriptor.digest for layer in read_layout(native.layout).image.layers][:-1]
    assert [layer.descriptor.digest for layer in layout.image.layers][: len(below)] == below
    assert sorted(site.images()) == ["localhost/lockyard-site:1.0.0-cpu", "localhost/lockyard-site:1.0.0-gpu"]


def test_auto_names_the_line_that_needs_a_container(site: Site) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    first = site.image()
    assert f"cpu: engine docker: {RELEASE}/Dockerfile:6 has RUN" in site.log.lines
    assert json.loads((first.layout / "build.json").read_text())["engine"] == "docker"
    assert site.image().digest == first.digest  # nothing changed: the engine's cache gives the same image


@pytest.mark.parametrize("dockerfile", [FINISH, CLASSIC], ids=["finish", "classic"])
def test_what_was_exported_is_not_asked_for_again(site: Site, dockerfile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changed: the engine exports nothing. A layer that the cache has lost comes from the engine again."""
    (site.release / "Dockerfile").write_text(dockerfile)
    first = site.image()

    def refuse(*_: object) -> None:
        raise AssertionError("exported")

    with monkeypatch.context() as patch:
        patch.setattr(DockerDaemon, "export", refuse)
        assert site.image().digest == first.digest
    top = read_layout(first.layout).image.layers[-1].descriptor.digest
    (site.root.with_name("cache") / "blobs/v1/sha256" / top.hex).unlink()
    shutil.rmtree(site.root / "out")
    assert site.image().digest == first.digest
    read_layout(first.layout, verify_layers=True)


def test_platforms_build_side_by_side(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two platforms of one type in one engine at the same time: neither gets the other's environment."""
    add_platform(site)
    meet_after_load(DockerDaemon, monkeypatch)
    check_platforms(site.build(image_types=("cpu",), engines=EngineOptions(engine="docker")).images)


def test_classic_with_a_lock(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """It finds the locked specs, appends to them, gets the variant's arguments; what it installs must be the lock."""
    (site.release / "Dockerfile").write_text(CLASSIC)
    (site.release / "cpu.arg_based_env.in").write_text("")
    image = site.image()
    assert site.inside("cpu", "/bin/cat", "/etc/greeting", capfd=capfd) == "cpu\n"
    record = json.loads((image.layout / "build.json").read_text())
    assert record["args"] == {"GREETING": "cpu", "IMAGE_VERSION": "1.0.0"}
    assert record["base"]["reference"] == f"{BASE}:1"
    assert record["base"]["digest"].startswith("sha256:")
    log = (site.root / ".lockyard/logs/1.0.0-cpu-linux-64.log").read_text()
    assert "\n1\n" in log  # grep -c '^channel::tool\[' has found the locked spec
    assert site.image(build_args={"GREETING": "hello"}).digest != image.digest
    assert site.inside("cpu", "/bin/cat", "/etc/greeting", capfd=capfd) == "hello\n"


def test_what_is_installed_must_be_the_lock(site: Site) -> None:
    (site.release / "Dockerfile").write_text(CLASSIC + "RUN printf 'data\\n' > /tmp/more && install-env /tmp/more\n")
    with pytest.raises(
        BuildError, match="cpu linux-64 does not hold the packages of its lock: 1 differences"
    ) as caught:
        site.image()
    assert caught.value.details == ("data-1.0-0: in the image, not in the lock",)
    assert not (site.root / "out").exists()


def test_classic_without_a_lock_is_read_out_of_the_image(site: Site) -> None:
    (site.release / "Dockerfile").write_text(CLASSIC)
    (site.release / "cpu.lock.json").unlink()
    (site.release / "source-version.txt").write_text("0.9.0\n")
    site.image()
    packages = read_env_out((site.release / "cpu.env.out").read_text(), "cpu.env.out")
    assert [package.dist for package in packages] == ["tool-1.0-0"]
    assert site.image().packages == 1  # from the file, as from an adopted release
    text = (site.release / "cpu.env.out").read_text().replace("tool-1.0-0", "tool-1.1-0")
    (site.release / "cpu.env.out").write_text(text)
    with pytest.raises(BuildError, match="does not hold the packages of its lock|installing|failed"):
        site.image()


def test_derived_for_one_type(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """One type has a patch of an earlier image, the other its Dockerfile as it was."""
    (site.release / "Dockerfile").write_text(FINISH.replace("RUN", "# RUN"))
    site.build(load=True)
    (site.release / "Dockerfile-gpu.patch").write_text(
        "FROM localhost/lockyard-site:1.0.0-gpu\nRUN echo patched > /etc/patched\n"
    )
    cpu, gpu = site.build().images
    engines = [json.loads((image.layout / "build.json").read_text())["engine"] for image in (cpu, gpu)]
    assert engines == ["native", "docker"]
    assert site.inside("gpu", "/bin/cat", "/etc/patched", "/opt/conda/share/data.txt", capfd=capfd) == "patched\ndata\n"
    base = json.loads((gpu.layout / "build.json").read_text())["base"]
    assert base["reference"] == "localhost/lockyard-site:1.0.0-gpu"
    assert base["digest"].startswith("sha256:")


def test_a_broken_step_is_shown_and_nothing_is_built(site: Site) -> None:
    """The step, its last lines, the place of the log; the other type's image is not kept either."""
    broken = "RUN i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); done; exit 3\n"
    (site.release / "Dockerfile").write_text(FINISH)
    (site.release / "Dockerfile-gpu.patch").write_text(FINISH + broken)
    with pytest.raises(BuildError, match=r"gpu linux-64: Step 7/\d+ : RUN i=0.* failed: .*non-zero code: 3") as caught:
        site.build()
    assert [line for line in caught.value.details if line.startswith("line")] == [
        f"line {i}" for i in range(21, 60)
    ] or len([line for line in caught.value.details if line.startswith("line")]) >= 39
    assert caught.value.hint == "the whole log is in .lockyard/logs/1.0.0-gpu-linux-64.log"


def test_a_teams_dockerfile_of_a_hundred_lines(
    site: Site, engine: DockerDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    """Build arguments, a user, Debian packages, post-install steps: cpu and gpu side by side, and both hold their lock."""
    assert len((Path(__file__).parents[1] / "support/team.Dockerfile").read_text().splitlines()) >= 100
    write_team_release(site)
    with team_base(engine):
        images = site.build().images
    check_team_images(functools.partial(site.inside, capfd=capfd))
    runtime = read_layout(images[1].layout, verify_layers=True).image.runtime
    assert (runtime["User"], runtime["Entrypoint"]) == ("analyst", ["/usr/bin/tini", "--"])
    assert runtime["Labels"]["com.example.type"] == "gpu"


def test_secrets_are_refused_before_anything_runs(site: Site) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    with pytest.raises(BuildError, match="the build argument PIP_TOKEN looks like a secret"):
        site.build(build_args={"PIP_TOKEN": "x"})


def test_a_build_that_is_ended_leaves_nothing(site: Site, engine: DockerDaemon) -> None:
    """Cancelled in the middle of a step: the engine stops it and removes its container."""
    (site.release / "Dockerfile").write_text(FINISH + "RUN echo in the long step; sleep 300\n")
    daemon = open_containers(os.environ, RecordingLog())
    started = threading.Event()

    class Watching(RecordingLog):
        def detail(self, message: str) -> None:
            if "in the long step" in message and "RUN" not in message:
                started.set()

    site.log = Watching()
    toolbox = dataclasses.replace(site.toolbox, containers=lambda: daemon)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(
            build_release, toolbox, site.workspace, VERSION, skip_tests=True, load=False, image_types=("cpu",)
        )
        assert started.wait(120)
        daemon.cancel()
        with pytest.raises(BuildError, match="was ended|Docker daemon failed"):
            running.result(60)
    for container in engine._api.containers():
        if "sleep 300" in container["Command"]:
            engine._api.wait(container["Id"], timeout=60)  # the engine is ending it
    assert not (site.root / "out").exists()
    assert not [name for name in site.images() if "-env-tmp" in name]


def leftovers(site: Site, engine: DockerDaemon) -> list[str]:
    """What only a running build or test may have: containers, images and files; other tests may use the engine, too."""
    found = [(item["Names"][0], item["Command"]) for item in engine._api.containers(all=True)]
    containers = [" ".join(item) for item in found if "31557" in item[1] or _is_ours(item[0])]
    images = [tag for item in engine._api.images() for tag in item["RepoTags"] or () if _is_ours(tag)]
    places = (site.root.with_name("cache"), site.root / ".lockyard", site.root / "out")
    files = [str(path) for place in places for path in place.rglob(".*.new-*")]
    return [*containers, *images, *files]


def _is_ours(name: str) -> bool:
    """Tell whether a temporary name is of this process, or of one that is gone."""
    return is_left_over(name) or f"-{os.getpid()}-" in name


LONG = FINISH + "RUN echo in the long step; sleep 31557\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_build_leaves_nothing(site: Site, engine: DockerDaemon, number: signal.Signals) -> None:
    """As a user does it: the command line, one signal; the engine's build ends, exit code 130, nothing is left."""
    (site.release / "Dockerfile").write_text(LONG)
    before = set(leftovers(site, engine))
    process = start(site.root, "-v", "build", "1.0.0", environ={"DOCKER_HOST": os.environ.get("DOCKER_HOST", "")})
    try:
        wait_for(process, "| in the long step")
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out.splitlines()[-1]) == (130, "interrupted"), out
    assert set(leftovers(site, engine)) - before == set()
    assert not (site.root / "out").exists()
    assert site.images() == []


def test_a_killed_build_is_cleaned_up_by_the_next_one(site: Site, engine: DockerDaemon) -> None:
    """SIGKILL: the engine ends the build when its client is gone; the next build removes the environment image."""
    (site.release / "Dockerfile").write_text(LONG)
    before = set(leftovers(site, engine))
    process = start(site.root, "-v", "build", "1.0.0", environ={"DOCKER_HOST": os.environ.get("DOCKER_HOST", "")})
    try:
        wait_for(process, "| in the long step")
    finally:
        process.kill()
        process.communicate()
    left = [item for item in set(leftovers(site, engine)) - before if "tmp-" in item]
    assert left, "what is to be cleaned up"
    (site.release / "Dockerfile").write_text(FINISH)
    images = site.build(load=True).images
    assert [image.image_type for image in images] == ["cpu", "gpu"]
    assert set(leftovers(site, engine)) - before == set()
    assert sorted(site.images()) == ["localhost/lockyard-site:1.0.0-cpu", "localhost/lockyard-site:1.0.0-gpu"]


@pytest.mark.parametrize(("engine_name", "megabytes"), [("native", 4), ("docker", 14)])
def test_a_full_disk(site: Site, engine_name: str, megabytes: int) -> None:
    """One message with the room there is, nothing half-done; with more room it goes on from what is finished."""
    need("root")
    cache = site.root.with_name("cache")
    cache.mkdir()
    big = "RUN head -c 9000000 /dev/urandom > /big\n" if engine_name == "docker" else ""
    (site.release / "Dockerfile").write_text(FINISH.replace("RUN /opt/conda/bin/tool > /etc/made\n", big))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(cache)], check=True)
    try:
        with pytest.raises(BuildError, match="^the disk is full$") as caught:
            site.image(engines=EngineOptions(engine=engine_name))
        assert caught.value.details[0].endswith(f"bytes are free for the cache: {cache}")
        assert not (site.root / "out").exists()
        assert not [path for path in cache.rglob("*") if path.is_file() and "new" in path.name and path.stat().st_size]
        assert not [name for name in site.images() if "-env-tmp" in name]
        subprocess.run(["mount", "-o", "remount,size=200m", str(cache)], check=True)
        assert site.image(engines=EngineOptions(engine=engine_name)).layers > 1
    finally:
        # The cache is in use by this process as long as it lives.
        subprocess.run(["umount", "--lazy", str(cache)], check=True)


@dataclasses.dataclass(frozen=True)
class End:
    """A command that cannot succeed, how it ends, and what its user reads."""

    code: int
    words: tuple[str, ...]
    steps: str = ""
    test: str = "true\n"
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)
    room: int | None = None
    """Megabytes of the cache's file system."""


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(
            End(
                5, ("error: cpu linux-64: Step 7/9 : RUN echo it went wrong; exit 3 failed: ", "  it went wrong",
                    "next: the whole log is in .lockyard/logs/1.0.0-cpu-linux-64.log"),
                steps="RUN echo it went wrong; exit 3\n",
            ), id="a broken RUN",
        ),
        pytest.param(
            End(
                7, ("error: image tests of cpu linux-64 failed: 0 passed, 1 failed", "    it is red", "    exit code 4",
                    "next: nothing was published"), test="echo it is red; exit 4\n",
            ), id="a failing test",
        ),
        pytest.param(
            End(
                5, (f"error: {RELEASE}/Dockerfile:6 has RUN, and no Docker daemon answers at unix:///nowhere/docker.sock",
                    "next: start one or set DOCKER_HOST; without one: a finish Dockerfile with no RUN"),
                environ={"DOCKER_HOST": "unix:///nowhere/docker.sock"},
            ), id="no daemon",
        ),
        pytest.param(
            End(
                5, ("error: the disk is full", "bytes are free for the cache: ", "next: lockyard cache prune makes room"),
                steps="RUN head -c 9000000 /dev/urandom > /big\n", room=14,
            ), id="a full disk",
        ),
    ],
)  # fmt: skip
def test_how_a_command_ends(site: Site, engine: DockerDaemon, end: End) -> None:
    """Through the command line: one message with the next step, its exit code, nothing published, nothing left behind."""
    (site.release / "Dockerfile").write_text(FINISH + end.steps)
    suite = site.root / "test" / "image"
    suite.mkdir(parents=True)
    (suite / "red.test.sh").write_text(end.test)
    cache = site.root.with_name("cache")
    cache.mkdir()
    before = set(leftovers(site, engine))
    with contextlib.ExitStack() as stack:
        if end.room is not None:
            need("root")
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={end.room}m", "tmpfs", str(cache)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(cache)], check=True)
        args = ("build", "1.0.0", "--image-type", "cpu", "--no-load", "--target-ecr-repo", "oci:published")
        environ = {"DOCKER_HOST": os.environ.get("DOCKER_HOST", ""), **end.environ}
        process = start(site.root, *args, environ=environ)
        out, _ = process.communicate(timeout=120)
        assert set(leftovers(site, engine)) - before == set()
    assert process.returncode == end.code, out
    found = out.splitlines()
    assert [any(word in line for line in found) for word in end.words] == [True] * len(end.words), out
    assert sum(line.startswith("error: ") for line in found) == 1
    assert "Traceback" not in out
    assert not (site.root / "published").exists()


def test_no_engine_is_one_message(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(BuildError) as caught:
        site.build()
    assert caught.value.message == (
        f"{RELEASE}/Dockerfile:6 has RUN, and no Docker daemon answers at unix:///nowhere/docker.sock"
    )


def test_an_old_release_is_rebuilt_from_its_lock(site: Site, engine: DockerDaemon) -> None:
    (site.release / "Dockerfile").write_text(FINISH)
    first = site.image()
    shutil.rmtree(site.root / "out")
    engine.remove_image("localhost/lockyard-site:1.0.0-cpu")
    again = site.image()
    diff_ids = [str(layer.diff_id) for layer in read_layout(again.layout).image.layers]
    assert len(diff_ids) == first.layers


def test_dockerfile_tests_run_in_containers(site: Site, engine: DockerDaemon) -> None:
    """Built from the image under test, run, waited for, removed; the record holds them beside the scripts."""
    suite = site.root / "test" / "image"
    suite.mkdir(parents=True)
    (site.release / "Dockerfile").write_text(FINISH.replace("RUN", "# RUN"))
    files = {
        "good.test.Dockerfile": "ARG IMAGE\nFROM ${IMAGE}\nCOPY part /part\nRUN test -e /part\nCMD /opt/conda/bin/tool\n",
        "part": "",
        "service.test.Dockerfile": 'ARG BASE\nFROM ${BASE}\nCMD ["/bin/sh", "-c", "echo up on 80; sleep 1000"]\n',
        "bad.test.Dockerfile": "ARG IMAGE\nFROM ${IMAGE}\nCMD echo it is broken; exit 4\n",
        "stuck.test.Dockerfile": "ARG IMAGE\nFROM ${IMAGE}\nRUN sleep 31557\n",
        "gpu.test.Dockerfile": "ARG IMAGE\nFROM ${IMAGE}\n",
        "script.test.sh": 'test "$(/opt/conda/bin/tool)" = tool\n',
        "tests.toml": '[tests.service]\nimage-argument = "BASE"\nshm-size = "8 MiB"\n'
        'wait-for = { line = "up on \\\\d+", within = 60 }\n[tests.stuck]\ntimeout = 3\n[tests.gpu]\ngpu = true\n',
    }
    for name, text in files.items():
        (suite / name).write_text(text)
    before = set(leftovers(site, engine))
    with pytest.raises(ImageTestError, match="2 failed, 1 skipped") as caught:
        site.image(skip_tests=False)
    details = [line.strip() for line in caught.value.details]
    assert details[:3] == ["bad", "it is broken", "exit code 4"]
    assert (details[3], details[-1]) == ("stuck", "stuck: the build took longer than 3 s")
    assert set(leftovers(site, engine)) - before == set()
    for name in ("bad", "stuck"):
        (suite / f"{name}.test.Dockerfile").unlink()
    (suite / "tests.toml").write_text(files["tests.toml"].replace("[tests.stuck]\ntimeout = 3\n", ""))
    tests = site.image(skip_tests=False).tests
    assert tests is not None
    assert {test.name: test.outcome for test in tests.tests} == {
        "good": "passed", "gpu": "skipped", "script": "passed", "service": "passed",
    }  # fmt: skip
    asked = TestOptions(use_gpu=True, select="gpu")
    (image,) = check_release(site.toolbox, site.workspace, VERSION, image_types=("cpu",), options=asked).images
    assert image.tests is not None
    assert [(test.name, test.outcome, test.detail) for test in image.tests.tests] == [
        ("gpu", "skipped", NO_GPU_IN_ENGINE)
    ]
    with pytest.raises(ImageTestError, match="none was executed"):
        require_green([image])
    assert set(leftovers(site, engine)) - before == set()


def test_an_interrupted_test_run_leaves_nothing(site: Site, engine: DockerDaemon) -> None:
    """Ctrl-C while a container runs: pytest in its own process has time to remove container and image."""
    suite = site.root / "test" / "image"
    suite.mkdir(parents=True)
    (site.release / "Dockerfile").write_text(FINISH.replace("RUN", "# RUN"))
    (suite / "slow.test.Dockerfile").write_text("ARG IMAGE\nFROM ${IMAGE}\nCMD sleep 31557\n")
    site.build()
    before = set(leftovers(site, engine))
    events = engine._api.events(filters={"label": MARK, "event": "start"}, decode=True)
    process = start(site.root, "test", "1.0.0", environ={"DOCKER_HOST": os.environ.get("DOCKER_HOST", "")})
    try:
        assert next(events)["Action"] == "start"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        events.close()
        process.kill()
    assert process.returncode == 130, out
    assert set(leftovers(site, engine)) - before == set()


def test_what_killed_runs_left_is_removed_and_nothing_else(engine: DockerDaemon) -> None:
    code = "from lockyard import process; print(process.temporary_name())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    foreign = temporary_name().replace("tmp-", "tmp-0", 1)[:-1]  # of another machine
    names = [dead, temporary_name(), foreign]
    for name in names:
        engine._api.tag(f"{BASE}:1", "localhost/lockyard-sweep", f"env-{name}")
        engine._api.create_container(f"{BASE}:1", command=["true"], name=f"lockyard-{name}", labels={MARK: "test"})
    try:
        open_containers(os.environ, RecordingLog()).close()
        containers = {item["Names"][0] for item in engine._api.containers(all=True, filters={"label": MARK})}
        assert containers >= {f"/lockyard-{name}" for name in names[1:]}
        assert f"/lockyard-{dead}" not in containers
        tags = {tag for item in engine._api.images("localhost/lockyard-sweep") for tag in item["RepoTags"]}
        assert tags == {f"localhost/lockyard-sweep:env-{name}" for name in names[1:]}
    finally:
        for name in names[1:]:
            engine._api.remove_container(f"lockyard-{name}", force=True)
            engine.remove_image(f"localhost/lockyard-sweep:env-{name}")
