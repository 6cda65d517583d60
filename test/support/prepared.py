"""Build requests over the demo base, as the application makes them, and a real sandbox."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from lockyard.conda.lock import LockedPackage
from lockyard.distribution import EnvironmentSettings
from lockyard.engines.native import NativeEngine
from lockyard.engines.prepare import Preparer
from lockyard.engines.request import Base, BuildRequest, BuiltImage
from lockyard.engines.sandbox import open_image
from lockyard.oci.cache import BlobCache
from lockyard.oci.image import Image
from lockyard.oci.layering import plan_layers
from lockyard.oci.values import Digest
from lockyard.ports.containers import Runner
from lockyard.ports.solving import FetchedPackage
from lockyard.version import Version
from support.bases import open_base
from support.demo import demo_base
from support.effects import RecordingLog
from support.packages import Package

WHEN = "2026-01-15T00:00:00Z"


def settings(
    *, owner: tuple[int, int] = (0, 0), activation: str = "env", compile_pyc: bool = False,
    post_link: Mapping[str, str] | None = None,
) -> EnvironmentSettings:  # fmt: skip
    return EnvironmentSettings(owner, activation, compile_pyc, tuple((post_link or {}).items()))  # type: ignore[arg-type]  # texts of the tests


@dataclass
class Workshop:
    """A cache, a log, and how many sandboxes were opened."""

    place: Path
    log: RecordingLog = field(default_factory=RecordingLog)
    opened: int = 0

    @property
    def cache(self) -> Path:
        return self.place / "cache"

    def sandbox(self, image: Image, blobs: Mapping[Digest, Path]) -> AbstractContextManager[Runner]:
        self.opened += 1
        return open_image(image, blobs, cache_dir=self.cache, log=self.log)

    def base(self) -> Base:
        return open_base(self.place, f"rootfs:{demo_base().absolute()}")

    def request(
        self, packages: Iterable[tuple[LockedPackage, Path]], base: Base, chosen: EnvironmentSettings
    ) -> BuildRequest:
        items = list(packages)
        locked = tuple(package for package, _ in items)
        return BuildRequest(
            version=Version.parse("1.0.0"), image_type="cpu", platform="linux-64", packages=locked,
            fetched={item.dist: FetchedPackage(item, Path("/nowhere"), place, fetched=False) for item, place in items},
            plan=plan_layers({"cpu": list(locked)}), base=base, prefix="/opt/conda", owner=chosen.owner, created=WHEN,
            title="test",
        )  # fmt: skip

    def prepare(self, request: BuildRequest, chosen: EnvironmentSettings, *, host: str = "linux-64") -> BuildRequest:
        return Preparer(self.cache, self.log, self.sandbox, host=host).prepare(request, chosen)

    def build(self, request: BuildRequest) -> BuiltImage:
        return NativeEngine(BlobCache(self.cache), self.log).build(request)

    def extracted(self, *packages: Package) -> list[tuple[LockedPackage, Path]]:
        return [(package.locked(), package.extract(self.place / "packages")) for package in packages]
