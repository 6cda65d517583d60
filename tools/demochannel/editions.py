"""The channel's dated editions, and what each of them adds."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from demochannel import tree
from demochannel.debian import Deb
from demochannel.errors import DemoError
from demochannel.interpreter import DEBS, python_abi_package, python_package
from demochannel.libraries import LIBRARIES, Library, library_package
from demochannel.packages import Package
from demochannel.pins import Pin
from demochannel.wheels import Wheel, gpu_package, open_wheel, wheel_package
from demochannel.zoo import zoo_packages

EDITIONS = {
    "2026-01": datetime(2026, 1, 15, tzinfo=UTC),
    "2026-02": datetime(2026, 2, 15, tzinfo=UTC),
    "2026-03": datetime(2026, 3, 15, tzinfo=UTC),
}
GPU_PACKAGES = {"nvidia-cuda-nvrtc-cu12": "cuda-nvrtc", "nvidia-cuda-runtime-cu12": "cuda-cudart"}
NEEDED_DEBS = sorted({*DEBS, *(deb for library in LIBRARIES for deb in library.debs)})

Recipe = Callable[[], tuple[Package, ...]]


def recipes(pins: tuple[Pin, ...], wheels: Path, debs: Mapping[str, Deb]) -> Iterator[tuple[str, Recipe]]:
    """Yield the edition and the maker of each package; big ones come first, so that threads finish together."""
    first, timestamp = next(iter(EDITIONS.items()))
    yield first, partial(python_packages, debs, timestamp)
    for pin in sorted(pins, key=lambda pin: -(wheels / pin.filename).stat().st_size):
        if pin.edition not in EDITIONS:
            raise DemoError(f"{pin.filename} is pinned for {pin.edition}, which is no edition")
        yield pin.edition, partial(packages_of_wheel, pin, wheels / pin.filename)
    for library in LIBRARIES:
        yield first, partial(library_packages, library, debs, timestamp)
    yield first, partial(zoo_packages, timestamp)


def python_packages(debs: Mapping[str, Deb], timestamp: datetime) -> tuple[Package, ...]:
    """Make the interpreter and the package that says what is compiled for it."""
    return python_package(debs, timestamp), python_abi_package(timestamp)


def library_packages(library: Library, debs: Mapping[str, Deb], timestamp: datetime) -> tuple[Package, ...]:
    """Make the package of one library."""
    return (library_package(library, debs, timestamp),)


def packages_of_wheel(pin: Pin, path: Path) -> tuple[Package, ...]:
    """Make what one wheel gives: its own package and, from two of them, the data as a package of its own."""
    wheel = open_wheel(path)
    timestamp = EDITIONS[pin.edition]
    if pin.name in GPU_PACKAGES:
        return (gpu_package(wheel, pin, GPU_PACKAGES[pin.name], timestamp),)
    packages = (wheel_package(wheel, pin, timestamp),)
    if pin.name == "certifi":
        return (*packages, ca_certificates_package(wheel, pin, timestamp))
    if pin.name == "tzdata":
        return (*packages, tzdata_package(wheel, pin, timestamp))
    return packages


def ca_certificates_package(wheel: Wheel, pin: Pin, timestamp: datetime) -> Package:
    """Make the package of root certificates that OpenSSL uses."""
    return Package(
        name="ca-certificates",
        version=pin.version,
        build_prefix=f"h{pin.sha256[:7]}",
        timestamp=timestamp,
        license="ISC",
        summary="Root certificates",
        depends=("__unix",),
        noarch="generic",
        files={
            "ssl/cacert.pem": tree.file(wheel.files["certifi/cacert.pem"].data),
            "ssl/cert.pem": tree.link("cacert.pem"),
        },
    )


def tzdata_package(wheel: Wheel, pin: Pin, timestamp: datetime) -> Package:
    """Make the package of time zones; its version is the one of the time zone database, `2025b` say."""
    zones = "tzdata/zoneinfo/"
    return Package(
        name="tzdata",
        version=wheel.files["tzdata/__init__.py"].data.decode().split('IANA_VERSION = "')[1].split('"')[0],
        build_prefix=f"h{pin.sha256[:7]}",
        timestamp=timestamp,
        license="LicenseRef-Public-Domain",
        summary="The time zone database",
        noarch="generic",
        files={
            f"share/zoneinfo/{path.removeprefix(zones)}": node
            for path, node in wheel.files.items()
            if path.startswith(zones) and not path.endswith(".py")
        },
    )
