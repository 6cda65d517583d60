"""A small distribution with one locked release of real packages, and made-up image tests."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lockyard.app.build import build_release
from lockyard.app.images import BuildResult
from lockyard.app.workspace import Workspace, open_workspace
from lockyard.conda.formats import write_lock_json
from lockyard.conda.lock import Lock
from lockyard.oci.values import Compression
from lockyard.ports import Clock, Toolbox
from lockyard.ports.containers import BaseSandbox, RunRequest, RunResult
from lockyard.version import Version
from support.effects import RecordingLog
from support.packages import PLACEHOLDER, DirectorySource, Node, Package

VERSION = Version.parse("1.0.0")
RELEASE = "build_artifacts/v1/v1.0/v1.0.0"
DOCKERFILE = """\
ARG ENV_IMAGE
FROM ${ENV_IMAGE}
ARG IMAGE_VERSION
ENV IMAGE_VERSION=${IMAGE_VERSION}
COPY dirs /
CMD ["python"]
"""
PYTHON = Package(
    "python", "3.11.4", files={"bin/python3.11": Node(b"\x7fELF", 0o755), "bin/python": Node(link="python3.11")}
)
TOOL = Package("tool", files={"bin/tool": Node(f"#!{PLACEHOLDER}/bin/python\n".encode(), 0o755, prefix="text")})
PURE = Package(
    "pure", noarch="python", files={"site-packages/pure.py": Node(b"x = 1\n")}, entry_points=["pure = pure:x"]
)
DATA = Package("data", files={"share/data.bin": Node(bytes(3_000_000))})
PACKAGES = (PYTHON, TOOL, PURE, DATA)
JUNIT = '<testsuites><testsuite><testcase classname="test_x" name="one">%s</testcase></testsuite></testsuites>'


@dataclass
class Sandbox:
    """A runner that leaves a JUnit report, and remembers what it was asked."""

    inner: str = ""
    exit_code: int = 0
    requests: list[RunRequest] = field(default_factory=list)
    layouts: list[Path] = field(default_factory=list)

    @contextlib.contextmanager
    def __call__(self, layout: Path) -> Iterator["Sandbox"]:
        self.layouts.append(layout)
        yield self

    def run(self, request: RunRequest) -> RunResult:
        self.requests.append(request)
        for source, _, writable in request.binds:
            if writable:
                (source / "results.xml").write_text(JUNIT % self.inner)
        return RunResult(self.exit_code, "output of pytest\n")


@dataclass
class Site:
    """A distribution with one locked release."""

    root: Path
    cache: Path
    source: DirectorySource
    sandbox: Sandbox
    log: RecordingLog
    environ: dict[str, str] = field(default_factory=dict)
    base_sandbox: BaseSandbox | None = None

    @property
    def workspace(self) -> Workspace:
        return open_workspace(self.root)

    @property
    def toolbox(self) -> Toolbox:
        def absent(*_: object, **__: object) -> Any:
            raise AssertionError("this port is not for builds")

        return Toolbox(
            log=self.log, clock=FixedClock(), environ=self.environ, cache_dir=self.cache, solver=absent,
            packages=lambda: self.source, sandbox=self.sandbox, base_sandbox=self.base_sandbox or absent,
            registry=absent,
        )  # fmt: skip

    def lock(
        self, packages: Mapping[str, tuple[Package, ...]], platform: str = "linux-64", input_hash: str = ""
    ) -> None:
        for name, items in packages.items():
            locked = tuple(replace(item.locked(), size=len(item.files) * 1000) for item in items)
            if platform != "linux-64":
                locked = tuple(replace(item, subdir="noarch") for item in locked)
            lock = Lock(
                image_type=name, platforms={platform: locked}, channels=("file:channel",), input_hash=input_hash
            )
            (self.root / RELEASE / f"{name}.lock.json").write_text(write_lock_json(lock))

    def build(self, **options: Any) -> BuildResult:
        return build_release(self.toolbox, self.workspace, VERSION, **options)

    def digests(self, **options: Any) -> list[str]:
        return [image.digest for image in self.build(skip_tests=True, **options).images]


class FixedClock(Clock):
    """Builds ask no clock."""

    def now(self) -> Any:
        raise AssertionError("an image depends on no clock")


def make_site(tmp_path: Path, name: str = "site", *, compression: Compression = "gzip", variant: str = "") -> Site:
    """A distribution below `tmp_path` with two types, their packages, a Dockerfile and an image test."""
    root = tmp_path / name
    release = root / RELEASE
    (release / "dirs" / "etc").mkdir(parents=True)
    (root / "template" / "v1").mkdir(parents=True)
    (root / "test" / "image").mkdir(parents=True)
    (root / "lockyard.toml").write_text('name = "site"\ntitle = "Site"\n')
    types = "".join(f'[variants.{item}]\ncompression = "{compression}"\n{variant}\n' for item in ("cpu", "gpu"))
    (root / "template" / "v1" / "variants.toml").write_text(
        f'schema = 1\nchannels = ["file:channel"]\ncompile-pyc = false\n{types}'
    )
    (root / "test" / "image" / "test_x.py").write_text("def test_one(): pass\n")
    (release / "dirs" / "etc" / "motd").write_text("hello\n")
    (release / "Dockerfile").write_text(DOCKERFILE)
    for item in ("cpu", "gpu"):
        (release / f"{item}.env.in").write_text("tool\n")
    packages = root.with_name(f"{name}-packages")
    for package in PACKAGES:
        package.extract(packages)
    site = Site(root, root.with_name(f"{name}-cache"), DirectorySource(packages), Sandbox(), RecordingLog())
    site.lock({"cpu": PACKAGES[:3], "gpu": PACKAGES})
    return site
