"""Rate and remaining time of long work as lines, where no bar can be drawn."""

import threading
import time
from collections.abc import Callable

from lockyard.reports.text import human_size


class Meter:
    """Counts what was done. Thread-safe.

    `clock` gives seconds that only go forward; `say` gets a line when `every` seconds have passed since the last.
    """

    def __init__(
        self,
        description: str,
        total: int | None,
        unit: str,
        say: Callable[[str], None],
        *,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._description = description
        self._total = total
        self._unit = unit
        self._say = say
        self._every = every
        self._clock = clock
        self._guard = threading.Lock()
        self._count = 0
        self._began = self._said = clock()

    def add(self, amount: int) -> None:
        """Count `amount` more."""
        with self._guard:
            self._count += amount
            now = self._clock()
            if now - self._said < self._every:
                return
            self._said = now
            line = self._line(now - self._began)
        self._say(line)

    def summary(self) -> str:
        """Return the line at the end."""
        seconds = self._clock() - self._began
        rate = f" in {human_time(seconds)}, {self._amount(self._count / seconds)}/s" if seconds >= 1 else ""
        return f"{self._description}: {self._amount(self._count)}{rate}"

    def _line(self, seconds: float) -> str:
        rate = self._count / seconds
        done = f"{self._description}: {self._amount(self._count)}"
        if self._total is None:
            return f"{done}, {self._amount(rate)}/s"
        left = f", {human_time(max(0, self._total - self._count) / rate)} left" if rate > 0 else ""
        return f"{done} of {self._amount(self._total)}, {self._amount(rate)}/s{left}"

    def _amount(self, value: float) -> str:
        return human_size(value) if self._unit == "B" else f"{value:.3g} {self._unit}"


def human_time(seconds: float) -> str:
    """Return a length of time for people.

    >>> human_time(192.4)
    '3 min 12 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
