"""One image to three repositories of a registry, four tags each: Lockyard, skopeo in sequence, docker push in sequence.

The image has the files of the build benchmark's packages, 1.4 GB in 20 layers: docker compresses what it pushes, so noise would
flatter it. Lockyard pushes it with gzip and with zstd layers, skopeo with gzip; docker makes gzip layers of its own. Each tool has a registry of its own, empty at first; then again with nothing new, then a release with about 5 % new bytes.
Goals: the fewest bytes and requests of the three, at least as fast as skopeo, ten times as fast as docker; nothing new: 0 bytes and
0.1 s a repository; the patch: bytes within 2 % of its new layers.
"""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from support.bench import ROOT
from support.bench_channel import FIRST as EDITION
from support.bench_channel import bench_channel
from support.built import add_release, make_distribution, write_real
from support.docker_registry import DockerRegistry, docker_registry
from support.packed import pack, packed_layers
from support.require import need

pytestmark = pytest.mark.timeout(3600)
LAYERS = 20
NAMES = ("team/one", "team/two", "team/three")
FIRST, PATCH = "1.4.2", "1.4.3"
GZIP, ZSTD = "cpu", "gpu"
"""The image types whose layers are so compressed."""


@dataclass(frozen=True)
class Cost:
    """What one round cost: seconds, processor seconds of the client (docker's daemon is not counted), requests, and
    bytes that the registry wrote (blobs and answers)."""

    seconds: float
    cpu: float
    requests: int
    written: int

    def __str__(self) -> str:
        return f"{self.seconds:8.2f} s, cpu {self.cpu:6.2f} s {self.requests:6} requests {self.written / 1e6:9.1f} MB"


@dataclass(frozen=True)
class Site:
    """The distribution, and what its first image holds: bytes of files, bytes of blobs."""

    root: Path
    unpacked: int
    size: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A distribution with a release of 20 layers, and one in which a layer of about 5 % has other bytes."""
    need("debian")
    place = tmp_path_factory.mktemp("bench")
    workspace = make_distribution(place / "small")
    made = packed_layers(place, (bench_channel() / EDITION).rglob("*.conda"), LAYERS)
    size = sum(item.layer.descriptor.size for item in made)
    old = min(made, key=lambda item: abs(item.layer.descriptor.size - size / 20))
    new = pack(place, old.directories, reverse=True)
    zstd = [pack(place, item.directories, compression="zstd") for item in made]
    other = pack(place, old.directories, reverse=True, compression="zstd")
    number = made.index(old)
    for version in (FIRST, PATCH):
        add_release(workspace.root, version, tested=False)
        for image_type, items, changed in ((GZIP, made, new), (ZSTD, zstd, other)):
            parts = [(item.layer, item.path) for item in items]
            if version == PATCH:
                parts[number] = (changed.layer, changed.path)
            write_real(workspace.root, version, parts, image_type)
    shutil.rmtree(place / "files")
    yield Site(workspace.root, sum(item.unpacked for item in made), size)
    shutil.rmtree(place, ignore_errors=True)


def tags(version: str) -> tuple[str, ...]:
    return (f"{version}-cpu", "1.4-cpu", "1-cpu", "latest-cpu")


def written(registry: DockerRegistry) -> int:
    """Bytes that the registry's process has written."""
    for line in Path(f"/proc/{registry.pid}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise AssertionError


def cost(registry: DockerRegistry, work: Callable[[], object]) -> Cost:
    methods = ("HEAD", "GET", "POST", "PATCH", "PUT", "DELETE")
    before = sum(map(registry.requests, methods)), written(registry)
    start, busy = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    seconds, done = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = done.ru_utime + done.ru_stime - busy.ru_utime - busy.ru_stime
    time.sleep(0.2)  # the log and the counters of the registry are a little behind
    after = sum(map(registry.requests, methods)), written(registry)
    return Cost(seconds, cpu, after[0] - before[0], after[1] - before[1])


def call(*args: str, **environ: str) -> None:
    done = subprocess.run(args, capture_output=True, text=True, check=False, env={**os.environ, **environ})
    assert done.returncode == 0, done.stderr[-3000:]


def lockyard(
    root: Path, registry: DockerRegistry, version: str, names: Sequence[str] = NAMES, image_type: str = GZIP
) -> None:
    targets = [part for name in names for part in ("--target-ecr-repo", f"{registry.host}/{name}")]
    args = ["--root", str(root), "push", version, "--image-type", image_type, *targets]
    call(sys.executable, str(ROOT / "src/main.py"), *args, DOCKER_CONFIG=str(registry.docker_config))


def skopeo(root: Path, registry: DockerRegistry, version: str) -> None:
    source = f"oci:{root}/out/{version}/cpu/linux-64:{version}-cpu"
    login = ["--dest-tls-verify=false", "--authfile", str(registry.docker_config / "config.json")]
    for name in NAMES:
        for tag in tags(version):
            call("skopeo", "copy", "-q", *login, source, f"docker://{registry.host}/{name}:{tag}")


def docker(registry: DockerRegistry, version: str) -> None:
    for name in NAMES:
        for tag in tags(version):
            call("docker", "tag", f"lockyard-bench:{version}", f"{registry.host}/{name}:{tag}")
            call("docker", "--config", str(registry.docker_config), "push", "-q", f"{registry.host}/{name}:{tag}")


@contextlib.contextmanager
def loaded(root: Path, registry: DockerRegistry) -> Iterator[None]:
    """Both images in the Docker engine, which is not timed."""
    for version in (FIRST, PATCH):
        source = f"oci:{root}/out/{version}/cpu/linux-64:{version}-cpu"
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        call("skopeo", "copy", "-q", "--dest-daemon-host", host, source, f"docker-daemon:lockyard-bench:{version}")
    try:
        yield
    finally:
        names = [f"{registry.host}/{name}:{tag}" for name in NAMES for tag in {*tags(FIRST), *tags(PATCH)}]
        call("docker", "rmi", "-f", *names, f"lockyard-bench:{FIRST}", f"lockyard-bench:{PATCH}")


def test_push(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("registry", "skopeo", "docker")
    root = site.root
    rounds = (("first", FIRST), ("nothing new", FIRST), ("5 % new", PATCH))
    found: dict[str, dict[str, Cost]] = {}
    sent = {}
    with docker_registry(tmp_path / "one") as registry:
        found["lockyard"] = {}
        for name, version in rounds:
            found["lockyard"][name] = cost(registry, partial(lockyard, root, registry, version))
            sent[name] = json.loads((root / f"out/{version}/push.json").read_text())["sent_bytes"]
        few = [cost(registry, partial(lockyard, root, registry, PATCH, NAMES[:1])).seconds for _ in range(5)]
        all_ = [cost(registry, partial(lockyard, root, registry, PATCH)).seconds for _ in range(5)]
        more = (min(all_) - min(few)) / (len(NAMES) - 1)
    with docker_registry(tmp_path / "four") as registry:
        push = partial(lockyard, image_type=ZSTD)
        found["lockyard, zstd"] = {
            name: cost(registry, partial(push, root, registry, version)) for name, version in rounds
        }
    with docker_registry(tmp_path / "two") as registry:
        found["skopeo"] = {name: cost(registry, partial(skopeo, root, registry, version)) for name, version in rounds}
    with docker_registry(tmp_path / "three") as registry, loaded(root, registry):
        found["docker"] = {name: cost(registry, partial(docker, registry, version)) for name, version in rounds}
    new = json.loads((root / f"build_artifacts/v1/v1.4/v{PATCH}/images.json").read_text())["images"]["cpu"]
    old = json.loads((root / f"build_artifacts/v1/v1.4/v{FIRST}/images.json").read_text())["images"]["cpu"]
    known = {item["digest"] for item in old["platforms"]["linux-64"]["layers"]}
    fresh = sum(item["size"] for item in new["platforms"]["linux-64"]["layers"] if item["digest"] not in known)
    what = f"{site.size / 1e6:.1f} MB ({site.unpacked / 1e9:.2f} GB of real files) in {LAYERS} layers"
    lines = [f"\npush {what} to {len(NAMES)} repositories, {len(tags(FIRST))} tags each"]
    for name, _ in rounds:
        lines.append(f"  {name}")
        base = found["lockyard"][name].seconds
        lines += [f"    {tool:14} {costs[name]} {costs[name].seconds / base:8.2f} x" for tool, costs in found.items()]
    lines.append(f"  nothing new: {more:.3f} s for each further repository")
    lines.append(
        f"  blob bytes sent by lockyard: {sent}; the new layers have {fresh} ({sent['5 % new'] / fresh - 1:+.2%})"
    )
    with capsys.disabled():
        print("\n".join(lines))
    assert sent["nothing new"] == 0
    assert abs(sent["5 % new"] / fresh - 1) < 0.02
    for name, _ in rounds:
        theirs = (found["skopeo"][name], found["docker"][name])
        for mine in (found["lockyard"][name], found["lockyard, zstd"][name]):
            assert mine.requests < min(item.requests for item in theirs)
        assert found["lockyard, zstd"][name].written < min(item.written for item in theirs)
