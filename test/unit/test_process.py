"""Names of what must not outlive a process."""

import os
import signal
import subprocess
import sys
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


def test_names_of_a_process_that_is_gone_are_left_over() -> None:
    code = "from lockyard.process import temporary_name; print(temporary_name())"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert is_left_over(name)
    assert is_left_over(f"/lockyard-{name}")
    assert not is_left_over(f"{name}-more")
    host = name.split("-")[1]
    assert not is_left_over(name.replace(host, "0" * 8)), "of another machine"


def test_directories_of_killed_processes_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from lockyard.process import own_directory\n"
        "with own_directory(Path(sys.argv[1])) as place: (place / 'file').touch(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with own_directory(tmp_path) as first:
        assert not left.exists()
        with own_directory(tmp_path) as second:
            assert first.is_dir()
            assert first != second
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "image:1.0.0-cpu", "image:env", "tmp-00000000-x-1-00000000"])
def test_other_names_are_nobody_s(name: str) -> None:
    assert not is_left_over(name)
