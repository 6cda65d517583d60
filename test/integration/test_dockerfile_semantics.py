"""Dockerfiles without RUN: what Lockyard makes of them equals what `docker build` does, configuration and files."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockyard import fs
from lockyard.engines.daemon import DockerDaemon, open_daemon
from lockyard.engines.native import NativeEngine
from lockyard.engines.request import Base, BuildRequest
from lockyard.oci.cache import BlobCache
from lockyard.oci.image import Layer, empty_image, oci_platform
from lockyard.oci.layering import LayerPlan
from lockyard.oci.tar import Entry, write_layer
from lockyard.oci.values import Descriptor
from lockyard.version import Version
from support.effects import RecordingLog
from support.require import need

pytestmark = pytest.mark.integration

WHEN = "2026-01-15T00:00:00Z"
REPOSITORY = f"localhost/lockyard-dockerfile-{os.getpid()}"
ARGS = {"GIVEN": "from the command", "IMAGE_VERSION": "1.2.3"}
HEAD = "ARG ENV_IMAGE\nARG BEFORE=global\nFROM ${ENV_IMAGE}\n"
IGNORED = {".dockerenv", "dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}
"""What the engine itself puts into a container."""

CASES = {
    "environment": """\
ARG BEFORE
ARG GIVEN=default
ARG UNSET
ARG TARGETARCH
ENV A=1   B="x  y" C='$A' D=$A\\$A E=${A}b
ENV A=2 F=$A
ENV OLD some   "quoted  words"
ENV G=${GIVEN} H=${UNSET:-no} I=${A:+yes} J=${UNSET:+never} K=$BEFORE L=$TARGETARCH M=${B:-${A}}
LABEL one=1 "two words"="a b" \\
  # a comment inside

  three=${A}
LABEL one="again $F"
EXPOSE 80 53/udp 9000-9002
VOLUME ["/data", "/more"]
VOLUME /third
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=1m30s --timeout=5s --retries=4 CMD ["true", "$A"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
CMD echo $A
""",
    "commands": """\
CMD ["a", "b"]
ENTRYPOINT exec thing "$HOME"
USER me:mail
WORKDIR /srv/$USER
WORKDIR deeper/./x/..
""",
    "an entry point takes the command back": 'ENTRYPOINT ["only"]\n',
    "escape": "ENV X=`$PATH Y=`\n",
    "copy": """\
COPY a.txt /usr
COPY a.txt /new/
COPY a.txt /new/name
COPY --chown=55 a.txt /n1/n2/file
COPY --chown=me d /dd/ee
COPY --chown=me:mail a.txt /gg
COPY --chown=9:8 --chmod=0600 d /ff
COPY d /etc
COPY d/ /bin
COPY toplink /followed
COPY a.txt d/b.txt /several/
COPY d/*.txt d/s?b /globbed/
COPY ["a b.txt", "/with blank/"]
WORKDIR /srv
COPY a.txt .
COPY a.txt relative
COPY a.txt mine/
COPY d sub/
COPY . /everything
""",
    "workdir": """\
WORKDIR /usr
WORKDIR bin
WORKDIR /fresh/one
USER me
WORKDIR two
COPY a.txt ./x
WORKDIR /etc
""",
    "add": """\
ADD a.txt /added
ADD files.tgz /unpacked/
ADD files.tgz /etc
ADD nothing.gz /plain/
COPY files.tgz /kept/
""",
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files beside the Dockerfile; modes as Lockyard sets them, whatever the umask here."""
    place = tmp_path_factory.mktemp("context")
    texts = {
        "a.txt": "a", "a b.txt": "blank", "d/b.txt": "b", "d/sub/c.txt": "c", "d/run": "#!/bin/sh\n",
        "left/out.md": "no", "left/in.md": "yes", "left/deep/out.log": "no", ".dockerignore": IGNORE,
    }  # fmt: skip
    for name, text in texts.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / "d/link").symlink_to("b.txt")
    (place / "toplink").symlink_to("a.txt")
    with tarfile.open(place / "files.tgz", "w:gz") as archive:
        for name, kind, mode in (("x", tarfile.DIRTYPE, 0o750), ("x/y", tarfile.REGTYPE, 0o640)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = kind, mode, 12, 13
            archive.addfile(info, io.BytesIO())
    (place / "nothing.gz").write_bytes(b"not an archive")
    for path in [place, *place.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.name == "run" else 0o644)
    return place


IGNORE = "# left out\n**/*.md\n!left/in.md\nleft/deep\n"


def base_of(place: Path) -> Base:
    """A small root file system with accounts and a link among its directories."""
    passwd = b"root:x:0:0::/root:/bin/sh\nme:x:1000:50::/home/me:/bin/sh\n"
    files = {"etc/passwd": passwd, "etc/group": b"root:x:0:\nmail:x:8:\nown:x:50:\n", "usr/bin/tool": b"x"}
    entries = [Entry(name, "directory", 0o755) for name in (b"etc", b"usr", b"usr/bin")]
    entries += [Entry(b"srv", "directory", 0o1777, 3, 4), Entry(b"srv/mine", "directory", 0o700, 1000, 50)]
    entries += [
        Entry(name.encode(), "file", 0o644, size=len(data), chunks=partial(iter, (data,))) for name, data in files.items()
    ]  # fmt: skip
    entries.append(Entry(b"bin", "symlink", 0o777, target=b"usr/bin"))
    path = place / "base.tar.gz"
    with ThreadPoolExecutor(1) as executor, path.open("wb") as stream:
        blob = write_layer(entries, stream.write, executor=executor)
    layer = Layer(Descriptor(blob.media_type, blob.digest, blob.size), blob.diff_id, "base")
    image = empty_image(oci_platform("linux-64"), WHEN).append(layer, created=WHEN)
    image = image.with_config(Env=["PATH=/usr/bin", "HOME=/root"], Cmd=["base"], Labels={"below": "1"})
    return Base("oci:base", None, image, {blob.digest: path})


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerDaemon]:
    need("docker")
    found = open_daemon(os.environ, RecordingLog())
    assert found is not None
    with contextlib.closing(found):
        yield found
    names = docker("images", "-q", REPOSITORY).split()
    if names:
        docker("rmi", "-f", *set(names))


def docker(*args: str) -> str:
    program = shutil.which("docker", path="/usr/bin:/usr/local/bin") or "docker"
    env = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = subprocess.run([program, *args], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def config_of(name: str) -> dict[str, Any]:
    """The configuration of an image as the daemon has it, less what BuildKit notes for Windows."""
    value: dict[str, Any] = json.loads(docker("inspect", name))[0]["Config"]
    return {key: item for key, item in value.items() if item and key not in {"ArgsEscaped", "Hostname", "Image"}}


def files_of(name: str, place: Path) -> Mapping[str, tuple[Any, ...]]:
    """Path → kind, mode, owner, content of everything in an image."""
    container = docker("create", name, "x").strip()
    try:
        docker("export", "-o", str(place), container)
    finally:
        docker("rm", container)
    found = {}
    with tarfile.open(place) as archive:
        for member in archive:
            path = member.name.strip("/")
            if path in IGNORED or path.split("/")[0] in IGNORED:
                continue
            stream = archive.extractfile(member) if member.isreg() else None
            content = hashlib.sha256(stream.read()).hexdigest() if stream else member.linkname
            found[path] = (member.type, oct(member.mode), member.uid, member.gid, content)
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_that_of_docker_build(name: str, context: Path, daemon: DockerDaemon, tmp_path: Path) -> None:
    text = ("# escape=`\n" if name == "escape" else "") + HEAD + CASES[name]
    (context / "Dockerfile").write_text(text)
    request = BuildRequest(
        version=Version.parse("1.0.0"), image_type="cpu", platform="linux-64", packages=(), fetched={}, plan=LayerPlan({}),
        base=base_of(tmp_path), prefix="/opt/conda", owner=(0, 0), created=WHEN, title="t", context=fs.read_tree(context),
        args=ARGS,
    )  # fmt: skip
    engine = NativeEngine(BlobCache(tmp_path / "cache"), RecordingLog())
    below, ours = engine.build(request), engine.build(replace(request, dockerfile=text))
    slug = name.replace(" ", "-")
    daemon.load(below.image, below.blobs, f"{REPOSITORY}:below-{slug}")
    daemon.load(ours.image, ours.blobs, f"{REPOSITORY}:ours-{slug}")
    arguments = [part for key, value in ARGS.items() for part in ("--build-arg", f"{key}={value}")]
    docker(
        "build", "-q", "--network=none", "--build-arg", f"ENV_IMAGE={REPOSITORY}:below-{slug}", *arguments,
        "-t", f"{REPOSITORY}:theirs-{slug}", str(context),
    )  # fmt: skip
    assert config_of(f"{REPOSITORY}:ours-{slug}") == config_of(f"{REPOSITORY}:theirs-{slug}")
    mine, theirs = (files_of(f"{REPOSITORY}:{who}-{slug}", tmp_path / f"{who}.tar") for who in ("ours", "theirs"))
    assert sorted(set(mine) ^ set(theirs)) == []
    assert {path: (mine[path], theirs[path]) for path in mine if mine[path] != theirs[path]} == {}
    assert "opt/conda/conda-meta/history" in mine
