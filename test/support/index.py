"""Channel indexes without package files: enough to solve and to lock."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard

JANUARY = dt.datetime(2026, 1, 15, 12, tzinfo=dt.UTC)


def record(
    name: str, version: str, number: int = 0, *, day: int = 0, subdir: str = "noarch", **fields: Any
) -> dict[str, Any]:
    value = {
        "name": name,
        "version": version,
        "build": f"h_{number}",
        "build_number": number,
        "depends": [],
        "constrains": [],
        "subdir": subdir,
        "size": 1000,
        "timestamp": int((JANUARY + dt.timedelta(days=day)).timestamp() * 1000),
        **fields,
    }
    text = json.dumps(value, sort_keys=True).encode()
    return {"sha256": hashlib.sha256(text).hexdigest(), "md5": hashlib.md5(text).hexdigest(), **value}


def index(records: Iterable[dict[str, Any]], subdir: str) -> bytes:
    mine = [item for item in records if item["subdir"] == subdir]
    packages = {f"{item['name']}-{item['version']}-{item['build']}.conda": item for item in mine}
    return json.dumps({"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages}).encode()


def write_index(directory: Path, records: Iterable[dict[str, Any]], *, packed: bool = False) -> None:
    items = list(records)
    for subdir in ("noarch", "linux-64", "linux-aarch64"):
        data = index(items, subdir)
        place = directory / subdir
        place.mkdir(parents=True, exist_ok=True)
        name = "repodata.json.zst" if packed else "repodata.json"
        (place / name).write_bytes(zstandard.ZstdCompressor().compress(data) if packed else data)
