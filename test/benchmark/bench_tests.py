"""What an image test costs beside itself, and a second `build` with nothing changed."""

from pathlib import Path

import pytest

from lockyard.app.testing import TestOptions, check_release
from support.bench import measure, report
from support.engine_site import VERSION, make_site
from support.require import need

FEW, MANY = 1, 41


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


def test_a_second_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two types, native, images tested: nothing is made again and nothing is tested again."""
    need("debian", "sandbox")
    site = make_site(tmp_path)
    suite = site.root / "test" / "image"
    suite.mkdir(parents=True)
    (suite / "tool.test.sh").write_text("/opt/conda/bin/tool\n")

    def build() -> None:
        site.build(skip_tests=False)

    first = measure({"first build": build}, runs=1)
    timings = {**first, **measure({"nothing changed": build}, runs=5)}
    with capsys.disabled():
        print(report("build of two types", timings, "goal for the second: under 3 s"))
