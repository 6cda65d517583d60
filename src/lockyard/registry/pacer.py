"""Token buckets: requests are spread so that a registry's quotas hold. The clock and the waiting are given."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    """`level` tokens at the time `at`; below nothing are those who wait."""

    rate: float
    level: float
    at: float


class Pacer:
    """Lets each operation happen as often as its rate says, after a burst of one second's worth; thread-safe.

    Args:
        rates: operation → requests per second; others are not limited.
        now: seconds that only grow.
        sleep: waits so many seconds.

    """

    def __init__(
        self,
        rates: Mapping[str, float],
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._guard = threading.Lock()
        start = now()
        self._buckets = {name: _Bucket(rate, max(rate, 1.0), start) for name, rate in rates.items()}

    def take(self, operation: str) -> None:
        """Wait until one more `operation` may happen."""
        bucket = self._buckets.get(operation)
        if bucket is None:
            return
        with self._guard:
            now = self._now()
            bucket.level = min(max(bucket.rate, 1.0), bucket.level + (now - bucket.at) * bucket.rate) - 1
            bucket.at = now
            wait = -bucket.level / bucket.rate
        if wait > 0:
            self._sleep(wait)
