"""The pinned wheels: which ones, by hash, and fetching them with pip."""

import hashlib
import importlib.util
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from demochannel.commands import run
from demochannel.errors import DemoError
from demochannel.interpreter import PYTHON

PINS_FILE = Path(__file__).with_name("wheels.toml")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
DOWNLOADS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Pin:
    """A wheel that an edition of the channel is made from."""

    edition: str
    name: str
    version: str
    filename: str
    sha256: str
    license: str
    build_number: int = 0

    @property
    def source(self) -> dict[str, str]:
        """What `sources.json` says about it."""
        return {
            "filename": self.filename,
            "kind": "wheel",
            "name": self.name,
            "sha256": self.sha256,
            "version": self.version,
        }


def load_pins(path: Path = PINS_FILE) -> tuple[Pin, ...]:
    """Read the list of pinned wheels."""
    data = tomllib.loads(path.read_text())
    if data["schema"] != 1:
        raise DemoError(f"{path.name}: schema {data['schema']} is newer than this program")
    return tuple(
        Pin(
            edition=wheel["edition"],
            name=wheel["name"],
            version=wheel["version"],
            filename=wheel["filename"],
            sha256=wheel["sha256"],
            license=data["licenses"][wheel["name"]],
            build_number=wheel.get("build-number", 0),
        )
        for wheel in data["wheel"]
    )


def fetch_wheels(pins: Iterable[Pin], work: Path, progress: Callable[[str], None]) -> Path:
    """Have every pinned wheel in the work directory, and return the folder that they are in."""
    folder = work / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    unique = {pin.filename: pin for pin in pins}
    missing = [pin for name, pin in sorted(unique.items()) if not has_hash(folder / name, pin.sha256)]
    if missing:
        if importlib.util.find_spec("pip") is None:
            raise DemoError("this Python has no pip: install the Python package pip into its environment")
        progress(f"wheels: fetching {len(missing)} files")
        batches = one_version_each(missing)
        with ThreadPoolExecutor(len(batches)) as pool:
            list(pool.map(_fetch_batch, batches, [folder / f".incoming-{number}" for number in range(len(batches))]))
    return folder


def has_hash(path: Path, sha256: str) -> bool:
    """Say whether a file is there with the wanted content."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256


def one_version_each(pins: Sequence[Pin]) -> list[list[Pin]]:
    """Divide pins into batches that hold a project once at most: pip refuses two versions of one at a time."""
    batches: list[list[Pin]] = [[] for _ in range(min(DOWNLOADS_AT_ONCE, len(pins)))]
    for pin in pins:
        free = [batch for batch in batches if all(other.name != pin.name for other in batch)]
        if not free:
            free = [[]]
            batches.append(free[0])
        min(free, key=len).append(pin)
    return batches


def requirement(pin: Pin) -> str:
    """Return the line of a requirements file that accepts this wheel only."""
    return f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n"


def _fetch_batch(pins: Sequence[Pin], stage: Path) -> None:
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    wanted = stage / "requirements.txt"
    wanted.write_text("".join(requirement(pin) for pin in pins))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    pip += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation", "cp"]
    pip += ["--python-version", PYTHON, *(argument for name in PLATFORMS for argument in ("--platform", name))]
    run([*pip, "--dest", stage, "--requirement", wanted])
    for pin in pins:
        if not has_hash(stage / pin.filename, pin.sha256):
            raise DemoError(f"pip did not bring {pin.filename} with the pinned hash")
        (stage / pin.filename).replace(stage.parent / pin.filename)
    shutil.rmtree(stage)
