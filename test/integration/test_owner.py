"""`owner`: the user who has the prefix installs into it in a derived image; nobody else does."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lockyard.engines.sandbox import open_sandbox
from lockyard.oci.layout import write_layout
from lockyard.ports.containers import RunRequest, RunResult
from support.demo import PYTHON, demo_packages
from support.prepared import Workshop, settings
from support.require import need

pytestmark = pytest.mark.integration

DERIVED = "ARG ENV_IMAGE\nFROM ${ENV_IMAGE}\nENV HOME=/tmp\nUSER 1000:100\n"
INSTALL = ("pip", "install", "--no-index", "--no-deps", "--no-cache-dir", "/wheels/small-1.0-py3-none-any.whl")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    need("sandbox", "debian", "root")
    return Workshop(tmp_path_factory.mktemp("owner"))


def wheel(place: Path) -> Path:
    place.mkdir()
    info = "small-1.0.dist-info"
    with zipfile.ZipFile(place / "small-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("small.py", "def main():\n    print('installed')\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nsmall = small:main\n")
        archive.writestr(f"{info}/RECORD", "small.py,,\n")
    return place


def run_as_user(workshop: Workshop, owner: tuple[int, int], place: Path) -> tuple[RunResult, RunResult, RunResult]:
    """Install a wheel as 1000:100 in an image whose prefix belongs to `owner`; then look, then write outside of it."""
    chosen = settings(owner=owner)
    packages = demo_packages(workshop.place / "packages", *PYTHON, "setuptools", "wheel", "pip", "click")
    request = workshop.request(packages, workshop.base(), chosen)
    built = workshop.build(replace(workshop.prepare(request, chosen), dockerfile=DERIVED))
    write_layout(place / "layout", built.image, built.blobs)
    with open_sandbox(place / "layout", cache_dir=workshop.cache, log=workshop.log) as runner:
        binds = ((wheel(place / "wheels"), "/wheels", False),)
        script = " ".join((*INSTALL, "&& small && python -c 'import small; print(small.__file__)' && id -u && id -g"))
        first = runner.run(RunRequest(argv=("sh", "-c", script), binds=binds))
        second = runner.run(
            RunRequest(
                argv=(
                    "sh",
                    "-c",
                    "pip uninstall -y click && echo x > /opt/conda/etc-mine && ! python -c 'import click'",
                )
            )
        )
        third = runner.run(RunRequest(argv=("sh", "-c", "echo x > /etc/mine || echo x > /opt/mine")))
    return first, second, third


def test_the_owner_installs_into_the_prefix(workshop: Workshop, tmp_path: Path) -> None:
    first, second, third = run_as_user(workshop, (1000, 100), tmp_path)
    assert first.exit_code == 0, first.output
    assert first.output.splitlines()[-3:] == ["/opt/conda/lib/python3.11/site-packages/small.py", "1000", "100"]
    assert second.exit_code == 0, second.output
    assert third.exit_code != 0
    assert third.output.count("Permission denied") == 2


def test_others_do_not(workshop: Workshop, tmp_path: Path) -> None:
    first, second, _ = run_as_user(workshop, (0, 0), tmp_path)
    assert first.exit_code != 0
    assert "normal site-packages is not writeable" in first.output
    assert second.exit_code != 0
