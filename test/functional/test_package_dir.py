"""An adopted release whose lock has lines that nothing can fetch, and spec files with a known typo."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from demochannel.packages import archive, repodata_record
from lockyard.cli.root import run
from support.channel import package, write_distribution

RELEASE = "build_artifacts/v0/v0.1/v0.1.0"
LOST = package("lost")
BARE = package("bare", depends=["lost >=1"])


@dataclass
class Adopted:
    """A release with an `env.out` only: line 4 has an address that leads nowhere, line 5 no hash."""

    root: Path
    files: Path
    capture: pytest.CaptureFixture[str]

    def build(self, *args: str, code: int = 0) -> str:
        self.capture.readouterr()
        argv = ["--root", str(self.root), "build", "0.1.0", "--skip-tests", "--no-load", *args]
        found = run(argv, environ={"LOCKYARD_CACHE_DIR": str(self.root / "cache"), "COLUMNS": "200"})
        err = self.capture.readouterr().err
        assert found == code, err
        return err


@pytest.fixture
def adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Adopted:
    root = write_distribution(tmp_path / "root", {"cpu": ["bare", "lost[version'>=1']"]})
    files = tmp_path / "files"
    files.mkdir()
    for item in (LOST, BARE):
        (files / item.filename).write_bytes(archive(item))
    md5 = repodata_record(LOST, archive(LOST))["md5"]
    (root / RELEASE / "cpu.env.out").write_text(
        "# platform: linux-64\n@EXPLICIT\n"
        f"\nfile:///nowhere/conda-bld/linux-64/{LOST.filename}#{md5}\n"
        f"https://conda.anaconda.org/team/linux-64/{BARE.filename}#\n"
    )
    return Adopted(root, files, capsys)


def test_lines_that_nothing_can_fetch_are_named_with_the_way_out(adopted: Adopted) -> None:
    err = adopted.build(code=5)
    assert f"error: {RELEASE}/cpu.env.out:4: {LOST.filename.removesuffix('.conda')}: file:///nowhere/" in err
    assert f"{RELEASE}/cpu.env.out:5: {BARE.filename.removesuffix('.conda')}: the line has no hash" in err
    assert f"next: lockyard build 0.1.0 --package-dir DIR, where DIR has {BARE.filename}, {LOST.filename}" in err
    assert "Traceback" not in err
    assert not (adopted.root / "out").exists()


def test_package_files_are_taken_by_name(adopted: Adopted) -> None:
    adopted.build("--package-dir", str(adopted.files))
    assert (adopted.root / "out/0.1.0/cpu/linux-64/index.json").is_file()
    assert str(adopted.files) not in (adopted.root / RELEASE / "cpu.env.out").read_text()


def test_a_file_that_is_another_package_is_refused(adopted: Adopted) -> None:
    (adopted.files / LOST.filename).write_bytes(archive(package("lost", "2.0.0")))
    err = adopted.build("--package-dir", str(adopted.files), code=5)
    assert f"{RELEASE}/cpu.env.out:4: {adopted.files / LOST.filename} is another package" in err
    assert "md5 in the lock:" in err


def test_a_file_that_is_not_in_the_directory_is_named(adopted: Adopted) -> None:
    (adopted.files / BARE.filename).unlink()
    err = adopted.build("--package-dir", str(adopted.files), code=5)
    assert f"error: {RELEASE}/cpu.env.out:5: " in err
    assert f"next: put {BARE.filename} into {adopted.files}" in err
    adopted.build("--package-dir", str(adopted.files / "no"), code=2)


def test_the_known_typo_is_read_as_meant_with_its_line(adopted: Adopted, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--root", str(adopted.root), "diff", "0.1.0", "0.1.0"]
    assert run(argv, environ={}) == 0
    argv = ["--root", str(adopted.root), "lock", "0.1.0", "--dry-run"]
    assert run(argv, environ={"LOCKYARD_CACHE_DIR": str(adopted.root / "cache"), "COLUMNS": "200"}) == 4
    err = capsys.readouterr().err
    assert (
        f"warning: {RELEASE}/cpu.env.in:3: \"lost[version'>=1']\" lacks a '='; read as \"lost[version='>=1']\"" in err
    )
