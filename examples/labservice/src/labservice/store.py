"""Measurements in a file: one JSON object a line, appended."""

import json
import math
import threading
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """A value of something, in a unit, at a time (seconds since 1970, UTC)."""

    name: str
    value: float
    unit: str = ""
    at: float = 0.0

    @classmethod
    def parse(cls, data: object) -> "Measurement":
        """Check what came from outside; raises `ValueError`."""
        if not isinstance(data, dict) or not isinstance(data.get("name"), str) or not data["name"]:
            raise ValueError("a measurement has a name")
        numbers = {key: data.get(key, 0.0) for key in ("value", "at")}
        for key, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise ValueError(f"{key} is not a number")
        return cls(data["name"], float(numbers["value"]), str(data.get("unit", "")), float(numbers["at"]))


class Store:
    """The measurements in a directory; threads may share it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "measurements.jsonl"
        self._guard = threading.Lock()

    def add(self, measurement: Measurement) -> None:
        """Append one."""
        line = json.dumps(asdict(measurement), sort_keys=True)
        with self._guard, self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def find(self, name: str | None = None) -> list[Measurement]:
        """Return all, or those of one name, oldest first."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines()
        found = [Measurement.parse(json.loads(line)) for line in lines]
        return [item for item in found if name is None or item.name == name]
