"""What an image test costs beside itself, and a second `build` with nothing changed."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lockyard.app.engines import EngineOptions
from lockyard.app.testing import TestOptions, check_release
from lockyard.conda.formats import write_lock_json
from lockyard.conda.lock import Lock
from lockyard.engines.daemon import open_containers
from support.bench import measure, report
from support.buildkit import second_daemon
from support.engine_site import FINISH, PACKAGES, VERSION, locked, make_site
from support.images import random_bytes
from support.packages import Node, Package
from support.require import need

FEW, MANY = 1, 41
LARGE = 16 << 20


@dataclass(frozen=True)
class Engine:
    """An engine to measure, the builder for BuildKit, and what its client needs of the environment."""

    name: str
    builder: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


def test_what_a_script_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One more script, with one worker: its process, its sandbox, its result. The script itself does nothing."""
    need("debian", "sandbox")
    site = make_site(tmp_path)
    suite = site.root / "test" / "image"
    suite.mkdir(parents=True)
    site.image()
    again = TestOptions(workers=1, rerun=True)

    def run(count: int) -> None:
        for path in suite.iterdir():
            path.unlink()
        for number in range(count):
            (suite / f"nothing{number}.test.sh").write_text("true\n")
        check_release(site.toolbox, site.workspace, VERSION, image_types=("cpu",), options=again)

    run(FEW)
    timings = measure({f"{FEW} script": lambda: run(FEW), f"{MANY} scripts": lambda: run(MANY)}, runs=3)
    few, many = timings.values()
    each = (many.median - few.median) / (MANY - FEW)
    with capsys.disabled():
        print(report("image tests", timings, f"each script over the others: {each:.3f} s (goal: under 0.2 s)"))


@pytest.fixture(params=["native", "docker", "buildkit"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Each engine; BuildKit in a daemon of its own."""
    need("debian", "sandbox")
    if request.param == "buildkit":
        need("buildkit")
        with second_daemon(tmp_path_factory.mktemp("second")) as second:
            yield Engine("buildkit", "second", {**second.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"})
        return
    if request.param == "docker":
        need("docker")
    yield Engine(request.param)


def test_a_second_build(engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two types with a large package, images tested: nothing is made again and nothing is tested again."""
    site = make_site(tmp_path)
    large = Package("large", files={f"share/large{number}": Node(random_bytes(number, LARGE)) for number in range(4)})
    large.extract(tmp_path / "packages")
    for name, packages in PACKAGES.items():
        records = tuple(map(locked, (*packages, large)))
        lock = Lock(image_type=name, platforms={"linux-64": records}, channels=("channel",))
        (site.release / f"{name}.lock.json").write_text(write_lock_json(lock))
        (site.release / f"{name}.env.in").write_text("".join(f"channel::{record.name}\n" for record in records))
    site.environ = engine.environ
    suite = site.root / "test" / "image"
    suite.mkdir(parents=True)
    (suite / "tool.test.sh").write_text("/opt/conda/bin/tool\n")
    if engine.name != "native":
        (site.release / "Dockerfile").write_text(FINISH)
    options = EngineOptions(engine=engine.name, builder=engine.builder)

    def build() -> None:
        site.build(skip_tests=False, engines=options)

    first = measure({"first build": build}, runs=1)
    timings = {**first, **measure({"nothing changed": build}, runs=3)}
    title = f"build of two types of {4 * LARGE >> 20} MiB, {engine.name}"
    with capsys.disabled():
        print(report(title, timings, "goal for the second: under 3 s"))
    if engine.name == "docker":
        with contextlib.closing(open_containers(os.environ, site.log)) as daemon:
            for name in site.images():
                daemon.remove_image(name)
