"""The create commands on 162 real releases of a public distribution: each spec file line for line and in order."""

import os
import tarfile
from pathlib import Path

import pytest

from lockyard.cli.root import run
from lockyard.version import Bump, Version, bump, release_dir
from support.require import SHARED, lack, need

pytestmark = pytest.mark.realdata

ARCHIVE = "upstream-releases.tar.xz"
VARIANTS = "schema = 1\n[variants.cpu]\n[variants.gpu]\nargs = { CUDA_MAJOR_MINOR_VERSION = '11.8' }\n"
EXPECTED = ".env.in.expected"
INPUTS = ("env.in", "env.out", "pinned_env.in", "arg_based_env.in")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("realdata")
    if not (SHARED / ARCHIVE).is_file():
        lack("realdata", f"{ARCHIVE} is not in the shared data beside the project")
    root = tmp_path_factory.mktemp("upstream")
    with tarfile.open(SHARED / ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture
def distribution(upstream: Path, tmp_path: Path) -> Path:
    """The same distribution, with only what each base release has, its files as links."""
    (tmp_path / "lockyard.toml").write_text('name = "upstream"\n')
    for major in (0, 1, 2):
        place = tmp_path / "template" / f"v{major}"
        place.mkdir(parents=True)
        (place / "variants.toml").write_text(VARIANTS)
    return tmp_path


def version_of(path: Path) -> Version:
    return Version.parse(path.name.removeprefix("v"))


def bump_between(base: Version, target: Version) -> Bump:
    (part,) = [part for part in Bump if bump(base, part) == target]
    return part


def link(source: Path, target: Path, *endings: str) -> None:
    """Link the files of a release that end so."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name.endswith(endings) and not (target / path.name).exists():
            os.link(path, target / path.name)


def test_every_line_of_every_release(upstream: Path, distribution: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = sorted({path.parent for path in upstream.rglob(f"*{EXPECTED}")}, key=version_of)
    wrong, lines, matched = [], 0, 0
    for source in targets:
        target, base = version_of(source), Version.parse((source / "source-version.txt").read_text().strip())
        link(upstream / release_dir(base), distribution / release_dir(base), *(f".{name}" for name in INPUTS))
        place = distribution / release_dir(target)
        link(source, place, ".additional_packages_env.in")
        part = bump_between(base, target)
        # --force where it was the base of an earlier one, linked in with its published files.
        force = ["--force"] if (place / "source-version.txt").exists() or any(place.glob("*.env.in")) else []
        command = [
            "-q",
            "--root",
            str(distribution),
            f"create-{part}-version-artifacts",
            f"--base-patch-version={base}",
        ]
        assert run([*command, *force], environ={}) == 0
        assert capsys.readouterr().out == f"{release_dir(target)}\n"
        for path in sorted(source.glob(f"*{EXPECTED}")):
            made, expected = (place / path.name.removesuffix(".expected")).read_text(), path.read_text()
            lines += len(expected.splitlines())
            if made.splitlines() == expected.splitlines() and made.endswith("\n"):
                matched += 1
            else:
                wrong.append(f"{target} {path.name}")
        # The published files again: what the rules give is not what was published.
        for path in list(place.iterdir()):
            path.unlink()
    with capsys.disabled():
        print(
            f"\nreal releases: {matched} of {matched + len(wrong)} spec files equal, {lines} lines in {len(targets)} releases"
        )
    assert not wrong
    assert (matched, len(targets)) == (324, 162)
