"""A small distribution whose images a real engine builds, with a stand-in for a package manager in its base."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lockyard.app.build import build_release
from lockyard.app.images import BuildResult, ImageResult, run_in_image
from lockyard.app.workspace import Workspace, open_workspace
from lockyard.cli.root import make_toolbox
from lockyard.conda.formats import write_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.engines.daemon import DockerDaemon
from lockyard.oci.image import Image
from lockyard.oci.layout import read_layout
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.ports.containers import Builder, Loaded
from lockyard.version import Version
from support.demo import demo_base
from support.effects import RecordingLog
from support.packages import DirectorySource, Node, Package

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
    name=$(printf '%s' "$line" | sed -n "s/^.*::\\\\([^[]*\\\\).*/\\\\1/p")
    [ -n "$name" ] || name=$line
    case $name in ''|'#'*) continue;; esac
    version=$(printf '%s' "$line" | sed -n "s/.*version='==\\\\([^']*\\\\)'.*/\\\\1/p")
    found=$(ls -d /pool/"$name-$version"* | tail -n 1)
    echo "installing $found"
    cp -a "$found"/. /opt/conda/
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


@contextlib.contextmanager
def engine_base(daemon: DockerDaemon, packages: bytes | None = None) -> Iterator[None]:
    """Have the base with the stand-in installer in an engine; `packages` is another `pool`."""
    with demo_base().open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
        rootfs = stream.read()
    daemon._api.import_image_from_data(rootfs, repository=f"{BASE}-rootfs", tag="1")
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, data in {
            "Dockerfile": f"FROM {BASE}-rootfs:1\nADD pool.tar /\n".encode(),
            "pool.tar": pool() if packages is None else packages,
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    context.seek(0)
    for message in daemon._api.build(fileobj=context, custom_context=True, tag=f"{BASE}:1", decode=True, rm=True):
        assert "error" not in message, message
    yield
    for name in (f"{BASE}:1", f"{BASE}-rootfs:1"):
        daemon.remove_image(name)


@dataclasses.dataclass
class Site:
    """A distribution whose packages come from a directory, whose engine is real."""

    root: Path
    log: RecordingLog
    source: DirectorySource
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Beside those of the process that name an engine."""
    opened: Builder | None = None
    """BuildKit that is open already."""

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
        real = make_toolbox(self.log, {**environ, **self.environ, "LOCKYARD_CACHE_DIR": str(cache)})
        opened = self.opened
        if opened is not None:
            real = dataclasses.replace(real, buildkit=lambda *_: opened)
        return dataclasses.replace(real, packages=lambda: self.source)

    def build(self, **options: Any) -> BuildResult:
        options = {"skip_tests": True, "load": False, **options}
        return build_release(self.toolbox, self.workspace, VERSION, **options)

    def image(self, image_type: str = "cpu", **options: Any) -> ImageResult:
        return self.build(image_types=(image_type,), **options).images[0]

    def inside(self, image_type: str, *argv: str, capfd: pytest.CaptureFixture[str]) -> str:
        capfd.readouterr()  # what was printed before is not the command's
        result = run_in_image(self.toolbox, self.workspace, VERSION, image_type, argv)
        assert result.exit_code == 0
        return capfd.readouterr().out

    def images(self) -> list[str]:
        done = subprocess.run(
            [shutil.which("docker", path="/usr/bin") or "docker", "images", "-a", "--format", "{{.Repository}}:{{.Tag}}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [line for line in done.stdout.split() if "lockyard-site" in line]


def make_site(tmp_path: Path) -> Site:
    """Write the distribution."""
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
    return made


def add_platform(site: Site) -> None:
    """Give the type cpu a second platform with another package; nothing runs in its Dockerfile."""
    path = site.root / "template/v1/variants.toml"
    path.write_text(
        path.read_text().replace("[variants.cpu]\n", '[variants.cpu]\nplatforms = ["linux-64", "linux-aarch64"]\n')
    )
    here = locked(DATA)
    other = dataclasses.replace(here, subdir="linux-aarch64", url=here.url.replace("linux-64", "linux-aarch64"))
    lock = Lock(
        image_type="cpu", platforms={"linux-64": (locked(TOOL),), "linux-aarch64": (other,)}, channels=("channel",)
    )
    (site.release / "cpu.env.in").write_text("")
    (site.release / "cpu.lock.json").write_text(write_lock_json(lock))
    (site.release / "Dockerfile").write_text(
        FINISH.replace("RUN /opt/conda/bin/tool > /etc/made\n", "COPY dirs /again\n")
    )


def meet_after_load(engine: type[Builder], patch: pytest.MonkeyPatch) -> None:
    """Let two builds go on only when the environments of both are in the engine: the worst moment."""
    barrier = threading.Barrier(2)
    load = engine.load

    def both(self: Builder, image: Image, blobs: Mapping[Digest, Path], name: str) -> Loaded:
        loaded = load(self, image, blobs, name)
        barrier.wait(120)
        return loaded

    patch.setattr(engine, "load", both)


def check_platforms(images: tuple[ImageResult, ...]) -> None:
    """Each image is its platform's, with its platform's packages."""
    found = {}
    for image in images:
        layout = read_layout(image.layout, verify_layers=True)
        names: set[str] = set()
        for layer in layout.image.layers:
            with tarfile.open(layout.blob(layer.descriptor.digest)) as archive:
                names |= {
                    name for name in archive.getnames() if name.startswith(("opt/conda/bin/", "opt/conda/share/"))
                }
        found[image.platform] = (layout.image.config["architecture"], names)
    assert found == {
        "linux-64": ("amd64", {"opt/conda/bin/tool"}), "linux-aarch64": ("arm64", {"opt/conda/share/data.txt"}),
    }  # fmt: skip
