"""Names of what must not outlive a process."""

import os
import subprocess
from pathlib import Path

import pytest

from lockyard.process import is_left_over, own_directory, temporary_name


def test_names_of_a_living_process_are_not_left_over() -> None:
    one, two = temporary_name(), temporary_name()
    assert one != two
    assert f"-{os.getpid()}-" in one
    assert not is_left_over(one)
    assert not is_left_over(f"localhost/image:env-{one}")


def test_a_process_that_has_the_number_of_an_older_one_is_another() -> None:
    kind, host, pid, started, rest = temporary_name().split("-")
    assert is_left_over("-".join([kind, host, pid, str(int(started) - 1), rest]))


def dead_name() -> str:
    """A temporary name of a process that has ended."""
    with subprocess.Popen(["true"]) as ended:
        pass
    kind, host, _, started, rest = temporary_name().split("-")
    return "-".join([kind, host, str(ended.pid), started, rest])


def test_names_of_a_process_that_is_gone_are_left_over() -> None:
    name = dead_name()
    assert is_left_over(name)
    assert is_left_over(f"/lockyard-{name}")
    assert not is_left_over(f"{name}-more")
    assert not is_left_over(name.replace(name.split("-")[1], "0" * 8)), "of another machine"


def test_directories_of_killed_processes_are_removed(tmp_path: Path) -> None:
    left = tmp_path / f".{dead_name()}.new-abcdefgh"
    (left / "below").mkdir(parents=True)
    with own_directory(tmp_path) as first:
        assert not left.exists()
        with own_directory(tmp_path) as second:
            assert first.is_dir()
            assert first != second
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "image:1.0.0-cpu", "image:env", "tmp-00000000-x-1-00000000"])
def test_other_names_are_nobody_s(name: str) -> None:
    assert not is_left_over(name)
