"""`build` on about 1.4 GB of real packages, against `docker build` of the same lock by py-rattler, and against its own compressor.

Three image types have the same packages, compressed with gzip (the default), with zstd, and with zstd at level 1. `docker build` compresses nothing:
`docker push` does. Docker gets the best case: the packages and the installer are in the build context, bound into the one RUN by BuildKit, no network.
py-rattler compiles no modules, so `compile-pyc` is off. `LOCKYARD_BENCH_RUNS` says how often each thing runs.
"""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from lockyard.engines.daemon import open_daemon
from lockyard.oci.layout import read_layout
from lockyard.oci.tar import BLOCK
from lockyard.unpack import decompressed
from support.bases import open_base
from support.bench import ROOT, Command, Timing, measure, report
from support.bench_channel import FIRST, SECOND, bench_channel, median_package, names
from support.demo import demo_base
from support.docker_registry import DockerRegistry, docker_registry
from support.effects import RecordingLog
from support.require import need

pytestmark = pytest.mark.timeout(3600)
RUNS = int(os.environ.get("LOCKYARD_BENCH_RUNS", "3"))

COMPRESSIONS = {"gzip": "gzip", "zstd": "zstd", "fast": "zstd:1"}
TYPES = (*COMPRESSIONS,)
GZIP = TYPES[0]
# py-rattler compiles no Python modules either.
VARIANTS = """schema = 1
channels = ["file:channel"]
compile-pyc = false
""" + "".join(
    f"""[variants.{name}]
base = "rootfs:base.tar.zst"
virtual-packages = {{ __glibc = "2.36", __linux = "5.10", __unix = "0" }}
compression = "{compression}"
"""
    for name, compression in COMPRESSIONS.items()
)
INSTALL = """\
import asyncio, sys
from pathlib import Path
import rattler

async def main():
    paths = sorted(Path("/context/packages").iterdir())
    records = [await rattler.RepoDataRecord.from_package_archive(path) for path in paths]
    await rattler.install(
        records, target_prefix="/opt/conda", cache_dir="/tmp/cache", show_progress=False,
        platform=rattler.Subdir("linux-64"),
    )
    await asyncio.sleep(0.05)

asyncio.run(main())
"""
DOCKERFILE = """\
FROM localhost/lockyard-bench-base:1
ENV PATH=/opt/conda/bin:/usr/sbin:/usr/bin:/sbin:/bin CONDA_PREFIX=/opt/conda
RUN --mount=type=bind,target=/context \\
    PYTHONPATH=/context/site /context/tool/bin/python -B /context/install.py && rm -rf /tmp/cache
"""
NAME = "localhost/lockyard-bench:docker"


@dataclass
class Site:
    """The distribution, its caches, and the context of the same thing for Docker."""

    place: Path
    registry: DockerRegistry
    docker: str = shutil.which("docker", path="/usr/bin:/usr/local/bin") or "docker"

    @property
    def root(self) -> Path:
        return self.place / "site"

    @property
    def cache(self) -> Path:
        return self.place / "cache"

    @property
    def env(self) -> dict[str, str]:
        own = {"LOCKYARD_CACHE_DIR": str(self.cache), "DOCKER_CONFIG": str(self.registry.docker_config)}
        # As users have it: compiled modules are kept between runs.
        return {**os.environ, **own, "DOCKER_BUILDKIT": "1", "PYTHONDONTWRITEBYTECODE": ""}

    def lockyard(self, *args: str) -> list[str]:
        return [sys.executable, str(ROOT / "src/main.py"), "-q", "--root", str(self.root), *args]

    def run(self, *argv: str) -> str:
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def build_argv(self, version: str = "1.0.0", image_type: str = GZIP) -> list[str]:
        return self.lockyard("build", version, "--image-type", image_type, "--skip-tests", "--no-load")

    def build(self, version: str = "1.0.0", image_type: str = GZIP) -> None:
        self.run(*self.build_argv(version, image_type))

    def layout(self, version: str = "1.0.0", image_type: str = GZIP) -> Path:
        return self.root / "out" / version / image_type / "linux-64"

    def digest(self, version: str, image_type: str) -> str:
        index = json.loads((self.layout(version, image_type) / "index.json").read_text())
        return str(index["manifests"][0]["digest"])

    def sizes(self, image_type: str) -> tuple[int, int]:
        """Return the bytes of the tars and of the blobs of what was built last, without the base."""
        record = json.loads((self.layout(image_type=image_type) / "build.json").read_text())
        return sum(item["uncompressed"] for item in record["layers"]), sum(item["size"] for item in record["layers"])

    def forget(self, *, blobs: bool = True) -> None:
        """Remove what builds made; the packages stay."""
        shutil.rmtree(self.root / "out", ignore_errors=True)
        if blobs:
            shutil.rmtree(self.cache / "blobs", ignore_errors=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two locked releases, the second with one package of median size built again; the packages are in the cache."""
    need("debian", "docker", "registry")
    place = tmp_path_factory.mktemp("bench")
    with docker_registry(place / "registry") as registry:
        site = Site(place, registry)
        (site.root / "template/v1").mkdir(parents=True)
        (site.root / "lockyard.toml").write_text('name = "bench"\n')
        (site.root / "template/v1/variants.toml").write_text(VARIANTS)
        (site.root / "base.tar.zst").symlink_to(demo_base().absolute())
        for version, edition in (("1.0.0", FIRST), ("1.0.1", SECOND)):
            release = site.root / f"build_artifacts/v1/v1.0/v{version}"
            release.mkdir(parents=True)
            if version == "1.0.1":
                (release / "source-version.txt").write_text("1.0.0\n")
            (site.root / "channel").unlink(missing_ok=True)
            (site.root / "channel").symlink_to(bench_channel().absolute() / edition)
            for name in TYPES:
                (release / f"{name}.env.in").write_text("\n".join(["python", "numpy", "pandas", *names(), ""]))
            update = ("--update", median_package()) if version == "1.0.1" else ()
            site.run(*site.lockyard("lock", version, *update))
            for name in TYPES:
                site.build(version, name)
        yield site
        subprocess.run([site.docker, "rmi", "-f", NAME], capture_output=True, check=False)


@pytest.fixture(scope="module")
def context(site: Site) -> Path:
    """The build context: packages, a Python with py-rattler, the script, the Dockerfile; the base is in the daemon."""
    import rattler

    place = site.place / "context"
    lock = json.loads((site.root / "build_artifacts/v1/v1.0/v1.0.0/gzip.lock.json").read_text())
    (place / "packages").mkdir(parents=True)
    for package in lock["packages"]["linux-64"]:
        path = package["url"].removeprefix("file:channel/")
        os.link(bench_channel() / FIRST / path, place / "packages" / Path(path).name)
    tool = {"python", "tzdata", "bzip2", "libexpat", "libffi", "libgcc", "liblzma", "libsqlite", "libuuid", "libxcrypt",
            "libzlib", "ncurses", "openssl", "readline", "ca-certificates"}  # fmt: skip
    wanted = [path for path in (place / "packages").iterdir() if path.name.rsplit("-", 2)[0] in tool]
    script = INSTALL.replace("/opt/conda", str(place / "tool")).replace("/tmp/cache", str(site.place / "tool-cache"))
    script = script.replace('sorted(Path("/context/packages").iterdir())', repr([*map(str, wanted)]))
    site.run(sys.executable, "-c", script)
    shutil.copytree(Path(rattler.__file__).parent, place / "site" / "rattler")
    (place / "install.py").write_text(INSTALL)
    (place / "Dockerfile").write_text(DOCKERFILE)
    base = open_base(site.place, f"rootfs:{demo_base().absolute()}")
    daemon = open_daemon(os.environ, RecordingLog())
    assert daemon is not None
    with contextlib.closing(daemon):
        daemon.load(base.image, base.blobs, "localhost/lockyard-bench-base:1")
    return place


def docker_build(site: Site, context: Path) -> Command:
    def prepare() -> None:
        site.run(site.docker, "builder", "prune", "-af")
        subprocess.run([site.docker, "rmi", "-f", NAME], capture_output=True, check=False)

    argv = [site.docker, "build", "--no-cache", "--network=none", "-q", "-t", NAME, str(context)]
    return Command(argv, env=site.env, prepare=prepare)


def daemon_of(site: Site) -> str:
    info = json.loads(site.run(site.docker, "info", "--format", "{{json .}}"))
    return f"dockerd {info['ServerVersion']}, storage driver {info['Driver']}, BuildKit"


def processor_time_of_the_daemon() -> float:
    """Return the processor seconds that dockerd and its ended children have used."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(host.removeprefix("unix://"))
        pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(text)


def ratios(own: Sequence[Timing], other: Timing) -> str:
    """Say how much faster each of our types is, of the medians and of the least times."""
    found = (
        f"{name} {other.median / mine.median:.1f} (least {other.least / mine.least:.1f})"
        for name, mine in zip(TYPES, own, strict=True)
    )
    return ", ".join(found)


def test_cold_against_docker(site: Site, context: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in TYPES:
        site.build(image_type=name)
    sizes = {name: site.sizes(name) for name in TYPES}
    before = processor_time_of_the_daemon()
    ours = {
        f"lockyard build, {name}": Command(site.build_argv(image_type=name), env=site.env, prepare=site.forget)
        for name in TYPES
    }
    found = measure({**ours, "docker build": docker_build(site, context)}, runs=RUNS)
    daemon = (processor_time_of_the_daemon() - before) / RUNS
    *own, docker = found.values()
    ready = site.run(site.docker, "run", "--rm", NAME, "python", "-c", "import numpy, scipy, pandas; print('ok')")
    assert ready == "ok\n"
    lines = [f"{sizes[GZIP][0] / 1e9:.2f} GB of files; {daemon_of(site)}"]
    lines += [f"blobs, {name}: {packed / 1e6:.1f} MB" for name, (_, packed) in sizes.items()]
    lines.append(f"docker build / lockyard build: {ratios(own, docker)} (goal 3)")
    lines.append(f"processor time of docker with its daemon: {docker.cpu + daemon:.1f} s")
    show(capsys, report("cold build", found, *lines))


def test_build_and_push_against_docker(site: Site, context: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each run has an empty registry of its own, so that nothing is mounted that an earlier run has sent.

    It keeps its data in memory where that is possible: real ones do not share the disk of the machine that builds.
    """

    def with_lockyard(name: str, site: Site) -> None:
        site.run(*site.build_argv(image_type=name), "--target-ecr-repo", f"{site.registry.host}/bench")

    def with_docker(site: Site) -> None:
        name = f"{site.registry.host}/bench:1"
        site.run(*docker.argv)
        site.run(site.docker, "tag", NAME, name)
        site.run(site.docker, "push", "-q", name)

    docker = docker_build(site, context)
    things: dict[str, tuple[Callable[[], object], Callable[[Site], None]]] = {
        f"lockyard build, push, {name}": (site.forget, partial(with_lockyard, name)) for name in TYPES
    }
    things["docker build, push"] = (docker.prepare or (lambda: None), with_docker)
    found: dict[str, Timing] = {name: Timing() for name in things}
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    for _ in range(RUNS):
        for name, (prepare, run) in things.items():
            prepare()
            os.sync()
            with (
                tempfile.TemporaryDirectory(dir=memory) as place,
                docker_registry(Path(place), tokens=True) as registry,
            ):
                mine = partial(run, replace(site, registry=registry))
                found[name].walls += measure({name: mine}, runs=1)[name].walls
            found[name].cpus.append(0.0)
    *own, other = found.values()
    show(capsys, report("build and push", found, f"docker / lockyard: {ratios(own, other)} (goal 8)"))


@pytest.mark.parametrize("name", TYPES)
def test_one_package_and_nothing_changed(name: str, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    kept = site.place / f"kept-blobs-{name}"
    site.forget()
    site.build(image_type=name)
    digest = site.digest("1.0.0", name)
    shutil.copytree(site.cache / "blobs", kept, copy_function=os.link)

    def changed() -> None:
        site.forget()
        shutil.copytree(kept, site.cache / "blobs", copy_function=os.link)

    def unchanged() -> None:
        site.forget(blobs=False)
        site.build(image_type=name)

    found = measure(
        {
            "cold": Command(site.build_argv(image_type=name), env=site.env, prepare=site.forget),
            "one package changed": Command(site.build_argv("1.0.1", name), env=site.env, prepare=changed),
            "nothing changed": Command(site.build_argv(image_type=name), env=site.env, prepare=unchanged),
        },
        runs=RUNS,
    )
    shutil.rmtree(kept)
    assert site.digest("1.0.0", name) == digest
    cold, one, none = found.values()
    show(
        capsys,
        report(
            f"builds of {site.sizes(name)[0] / 1e9:.2f} GB, {name}; changed: {median_package()}", found,
            f"cold / one package changed: {cold.median / one.median:.1f} (goal 10)",
            f"nothing changed: {none.median:.2f} s, {none.cpu:.2f} s of processor time (goal under 1 s), the same digest",
        ),
    )  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_layers_against_their_compressor(name: str, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """All of layer production (reading, checking, tar, two hashes, writing) against the compressor alone on the same tars.

    What each of them reads was read once just before: neither waits for the disk.
    """
    site.build(image_type=name)
    layout = read_layout(site.layout(image_type=name))
    own = json.loads((layout.path / "build.json").read_text())["layers"]
    place = site.place / "tars"
    place.mkdir()
    tars = [place / f"{number}.tar" for number in range(len(own))]
    for path, layer in zip(tars, layout.image.layers[-len(own) :], strict=True):
        blob = layout.blob(layer.descriptor.digest)
        with blob.open("rb") as raw, path.open("wb") as out, decompressed(raw, layer) as stream:
            shutil.copyfileobj(stream, out, BLOCK)
    size = sum(path.stat().st_size for path in tars)
    workers = str(os.cpu_count() or 1)
    script = (sys.executable, str(ROOT / "test/support/bench_layers.py"))
    things = {
        "compressor alone": (place, (*script, "compress", COMPRESSIONS[name], workers, *map(str, tars))),
        "layer production": (site.cache / "packages", (*script, "produce", *site.build_argv(image_type=name)[2:])),
    }
    found = {what: Timing() for what in things}
    for _ in range(RUNS):
        for what, (inputs, argv) in things.items():
            if what == "layer production":
                site.forget()
            os.sync()
            read(inputs)
            wall, cpu = json.loads(site.run(*argv).splitlines()[0])
            found[what].walls.append(wall)
            found[what].cpus.append(cpu)
    shutil.rmtree(place)
    alone, whole = found.values()
    show(
        capsys,
        report(
            f"layers, {name}: {size / 1e9:.2f} GB, {workers} workers", found,
            f"{size / 1e6 / whole.median:.0f} MB/s of {size / 1e6 / alone.median:.0f} MB/s: "
            f"{alone.median / whole.median:.0%} by wall, {alone.cpu / whole.cpu:.0%} by processor time (goal 70 %)",
        ),
    )  # fmt: skip


def read(directory: Path) -> None:
    """Read all files of a directory to their ends."""
    block = bytearray(BLOCK)
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as stream:
                while stream.readinto(block):
                    pass
