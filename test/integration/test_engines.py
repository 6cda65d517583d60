"""Dockerfiles of every kind, built by a real Docker engine into layouts that hold what the lock says."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lockyard.app.build import build_release
from lockyard.app.engines import EngineOptions
from lockyard.app.images import BuildResult, ImageResult, run_in_image
from lockyard.app.workspace import Workspace, open_workspace
from lockyard.cli.root import make_toolbox
from lockyard.conda.formats import read_env_out, write_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.engines.daemon import DockerDaemon, open_containers
from lockyard.engines.docker_build import MARK
from lockyard.errors import BuildError, ImageTestError
from lockyard.oci.layout import read_layout
from lockyard.ports import Toolbox
from lockyard.version import Version
from support.demo import demo_base
from support.effects import RecordingLog
from support.packages import DirectorySource, Node, Package
from support.require import need

pytestmark = pytest.mark.integration

VERSION = Version.parse("1.0.0")
RELEASE = "build_artifacts/v1/v1.0/v1.0.0"
PREFIX = "opt/conda"
BASE = f"localhost/lockyard-engines-base-{os.getpid()}"
TOOL = Package("tool", files={"bin/tool": Node(b"#!/bin/sh\necho tool\n", 0o755)})
OLD_DATA = Package("data", "0.9", files={"share/data.txt": Node(b"old\n")})
DATA = Package("data", files={"share/data.txt": Node(b"data\n")})
PACKAGES = {"cpu": (TOOL,), "gpu": (DATA, TOOL)}
INSTALLER = """#!/bin/sh
# A stand-in for a package manager: takes specs as a lock gives them, and loose ones; installs from /pool.
set -eu
mkdir -p /opt/conda/conda-meta
for file in "$@"; do
  while IFS= read -r line; do
    name=$(printf '%s' "$line" | sed -n "s/^.*::\\\\([a-z]*\\\\).*/\\\\1/p")
    [ -n "$name" ] || name=$line
    case $name in ''|'#'*) continue;; esac
    version=$(printf '%s' "$line" | sed -n "s/.*version='==\\\\([^']*\\\\)'.*/\\\\1/p")
    found=$(ls -d /pool/"$name-$version"* | tail -n 1)
    echo "installing $found"
    cp -R "$found"/. /opt/conda/
  done < "$file"
done
"""
FINISH = """ARG ENV_IMAGE
FROM ${ENV_IMAGE}
ARG IMAGE_VERSION
ENV IMAGE_VERSION=${IMAGE_VERSION}
COPY dirs /
RUN /opt/conda/bin/tool > /etc/made
"""
CLASSIC = f"""ARG BASE={BASE}
FROM $BASE:1
ARG ENV_IN_FILENAME
ARG PINNED_ENV_IN_FILENAME
ARG ARG_BASED_ENV_IN_FILENAME
ARG IMAGE_VERSION
ARG GREETING=none
LABEL made-by="the platform team"
COPY $ENV_IN_FILENAME $PINNED_ENV_IN_FILENAME *.arg_based_env.in /tmp/
RUN grep -c '^channel::tool\\[' /tmp/$ENV_IN_FILENAME || true
RUN printf '# checked\\n' >> /tmp/$ENV_IN_FILENAME && install-env /tmp/$ENV_IN_FILENAME && rm /tmp/*.in
RUN echo "$GREETING" > /etc/greeting
CMD ["/opt/conda/bin/tool"]
"""


def pool() -> bytes:
    """A tar with the installer and every package, extracted, with its record."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:

        def add(path: str, data: bytes, mode: int = 0o644) -> None:
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))

        add("usr/bin/install-env", INSTALLER.encode(), 0o755)
        for package in (TOOL, OLD_DATA, DATA):
            record = locked(package)
            place = f"pool/{record.dist}"
            for name, node in package.files.items():
                add(f"{place}/{name}", node.data, node.mode)
            fields = {key: value for key, value in dataclasses.asdict(record).items() if value not in (None, ())}
            add(f"{place}/conda-meta/{record.dist}.json", json.dumps(fields).encode())
    return out.getvalue()


def locked(package: Package) -> LockedPackage:
    url = f"https://example.com/channel/linux-64/{package.locked().dist}.conda"
    return dataclasses.replace(package.locked(), size=10, url=url, channel="channel", md5="0" * 32)


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerDaemon]:
    need("docker", "debian", "sandbox")
    daemon = open_containers(os.environ, RecordingLog())
    with demo_base().open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
        rootfs = stream.read()
    daemon._api.import_image_from_data(rootfs, repository=f"{BASE}-rootfs", tag="1")
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, data in {
            "Dockerfile": f"FROM {BASE}-rootfs:1\nADD pool.tar /\n".encode(),
            "pool.tar": pool(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    context.seek(0)
    for message in daemon._api.build(fileobj=context, custom_context=True, tag=f"{BASE}:1", decode=True, rm=True):
        assert "error" not in message, message
    with contextlib.closing(daemon):
        yield daemon
        for name in (f"{BASE}:1", f"{BASE}-rootfs:1"):
            daemon.remove_image(name)


@dataclasses.dataclass
class Site:
    """A distribution whose packages come from a directory, whose engine is real."""

    root: Path
    log: RecordingLog
    source: DirectorySource

    @property
    def release(self) -> Path:
        return self.root / RELEASE

    @property
    def workspace(self) -> Workspace:
        return open_workspace(self.root)

    @property
    def toolbox(self) -> Toolbox:
        environ = {
            key: value for key, value in os.environ.items() if key.startswith("DOCKER") or key in {"PATH", "HOME"}
        }
        cache = self.root.with_name("cache")
        real = make_toolbox(self.log, {**environ, "LOCKYARD_CACHE_DIR": str(cache)})
        return dataclasses.replace(real, packages=lambda: self.source)

    def build(self, **options: Any) -> BuildResult:
        options = {"skip_tests": True, "load": False, **options}
        return build_release(self.toolbox, self.workspace, VERSION, **options)

    def image(self, image_type: str = "cpu", **options: Any) -> ImageResult:
        return self.build(image_types=(image_type,), **options).images[0]

    def inside(self, image_type: str, *argv: str, capfd: pytest.CaptureFixture[str]) -> str:
        result = run_in_image(self.toolbox, self.workspace, VERSION, image_type, argv)
        assert result.exit_code == 0
        return capfd.readouterr().out

    def images(self) -> list[str]:
        done = subprocess.run(
            [shutil.which("docker", path="/usr/bin") or "docker", "images", "-a", "--format", "{{.Repository}}:{{.Tag}}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [line for line in done.stdout.split() if "lockyard-site" in line]


@pytest.fixture
def site(engine: DockerDaemon, tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "site"
    (root / RELEASE / "dirs" / "etc").mkdir(parents=True)
    (root / "template" / "v1").mkdir(parents=True)
    shutil.copy(demo_base(), root / "base.tar.zst")
    (root / "lockyard.toml").write_text('name = "lockyard-site"\n')
    types = "".join(
        f'[variants.{name}]\nbase = "rootfs:base.tar.zst"\nargs = {{ GREETING = "{name}" }}\n' for name in PACKAGES
    )
    (root / "template/v1/variants.toml").write_text(f'schema = 1\nchannels = ["channel"]\ncompile-pyc = false\n{types}')
    (root / RELEASE / "dirs/etc/motd").write_text("hello\n")
    source = DirectorySource(tmp_path / "packages")
    for package in (TOOL, DATA):
        package.extract(tmp_path / "packages")
    made = Site(root, RecordingLog(), source)
    for name, packages in PACKAGES.items():
        (made.release / f"{name}.env.in").write_text("".join(f"channel::{item.locked().name}\n" for item in packages))
        lock = Lock(image_type=name, platforms={"linux-64": tuple(map(locked, packages))}, channels=("channel",))
        (made.release / f"{name}.lock.json").write_text(write_lock_json(lock))
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
    assert not [name for name in site.images() if name.endswith("-env")]


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
        "gpu.test.Dockerfile": "ARG IMAGE\nFROM ${IMAGE}\n",
        "script.test.sh": 'test "$(/opt/conda/bin/tool)" = tool\n',
        "tests.toml": '[tests.service]\nimage-argument = "BASE"\nshm-size = "8 MiB"\n'
        'wait-for = { line = "up on \\\\d+", within = 60 }\n[tests.gpu]\ngpu = true\n',
    }
    for name, text in files.items():
        (suite / name).write_text(text)
    with pytest.raises(ImageTestError, match="1 failed, 1 skipped") as caught:
        site.image(skip_tests=False)
    assert [line.strip() for line in caught.value.details] == ["bad", "it is broken", "exit code 4"]
    (suite / "bad.test.Dockerfile").unlink()
    tests = site.image(skip_tests=False).tests
    assert tests is not None
    assert {test.name: test.outcome for test in tests.tests} == {
        "good": "passed", "gpu": "skipped", "script": "passed", "service": "passed",
    }  # fmt: skip
    assert not [tag for item in engine._api.images() for tag in item["RepoTags"] or () if "lockyard-test" in tag]
    assert not engine._api.containers(all=True, filters={"label": MARK})
