"""Measure commands and callables side by side, and print them as ratios. Times are seconds, memory is bytes.

A command is started from a process of its own that holds nothing: on Linux a child's peak memory begins with its parent's, and the
parent would be pytest. `python bench.py N ARGV…` is that process.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """A command line to time; `prepare` runs before each run and is not timed."""

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    prepare: Callable[[], object] | None = None


@dataclass
class Timing:
    """What the runs of one thing took; `peaks` is empty for a callable, which shares its process."""

    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def least(self) -> float:
        """The least wall time: what the machine can do when nobody disturbs it."""
        return min(self.walls)

    @property
    def median(self) -> float:
        """The median wall time."""
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        """The least processor time, user and system, children included; it hardly depends on what else runs."""
        return min(self.cpus)

    @property
    def peak(self) -> int | None:
        """The most resident memory."""
        return max(self.peaks, default=None)


def measure(things: Mapping[str, Command | Callable[[], object]], *, runs: int = 5) -> dict[str, Timing]:
    """Time each thing `runs` times, in turns, so that what else the machine does falls on all of them alike."""
    found = {name: Timing() for name in things}
    for _ in range(runs):
        for name, thing in things.items():
            wall, cpu, peak = _command(thing) if isinstance(thing, Command) else _callable(thing)
            found[name].walls.append(wall)
            found[name].cpus.append(cpu)
            if peak is not None:
                found[name].peaks.append(peak)
    return found


def report(title: str, timings: Mapping[str, Timing], *lines: str) -> str:
    """Return a table whose last column is each median over that of the first row; `lines` follow it."""
    first = next(iter(timings.values())).median
    runs = len(next(iter(timings.values())).walls)
    width = max(map(len, timings))
    rows = [f"\n{title} ({runs} runs each)", f"  {'':{width}}      least    median       cpu     peak    ratio"]
    for name, timing in timings.items():
        peak = f"{timing.peak / 1e6:5.0f} MB" if timing.peak is not None else f"{'':8}"
        rows.append(
            f"  {name:{width}}  {timing.least:7.3f} s {timing.median:7.3f} s {timing.cpu:7.3f} s {peak} {timing.median / first:8.2f}"
        )
    return "\n".join([*rows, *(f"  {line}" for line in lines)])


def _callable(function: Callable[[], object]) -> tuple[float, float, None]:
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu, None


def _command(command: Command) -> tuple[float, float, int]:
    if command.prepare is not None:
        command.prepare()
    os.sync()  # what was written and removed before is no load for this one
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, *command.argv],
        # As users have it: compiled modules are kept between runs.
        env={**(os.environ if command.env is None else command.env), "PYTHONDONTWRITEBYTECODE": ""},
        cwd=command.cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(command.argv)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    wall, cpu, peak = json.loads(done.stdout)
    return wall, cpu, peak


def main() -> int:
    """Run one command, its output away, and print wall time, processor time and peak memory as JSON."""
    start = time.perf_counter()
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvp(sys.argv[1], sys.argv[1:])
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
