"""Just enough of a `conda` for `conda-lock install`: `create --file EXPLICIT --prefix DIR` and `--version`.

Each package is fetched from its address, held against its md5, and all are installed by rattler.
"""

import argparse
import asyncio
import hashlib
import sys
import tempfile
import urllib.request
from pathlib import Path

import rattler


def fetch(url: str, md5: str, place: Path) -> Path:
    """Bring one package; its bytes must have this md5."""
    path = place / url.rsplit("/", 1)[-1]
    with urllib.request.urlopen(url) as response:
        path.write_bytes(response.read())
    found = hashlib.md5(path.read_bytes()).hexdigest()
    if found != md5:
        raise SystemExit(f"{url}: md5 {found}, not {md5}")
    return path


async def install(lines: list[str], prefix: str) -> None:
    """Install what the lines of an explicit list name."""
    with tempfile.TemporaryDirectory() as place:
        records = []
        for line in lines:
            url, _, md5 = line.partition("#")
            record = await rattler.RepoDataRecord.from_package_archive(fetch(url, md5, Path(place)))
            records.append(record)
        await rattler.install(records, prefix, cache_dir=Path(place) / "cache", show_progress=False)
        await asyncio.sleep(0.05)  # rattler's threads drop their Python objects


def main() -> None:
    """Run one command."""
    if "--version" in sys.argv:
        print("conda 24.11.0")
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["create"])
    parser.add_argument("--file", required=True, type=Path)
    parser.add_argument("--prefix", required=True)
    for flag in ("--quiet", "--yes", "--copy"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    lines = [line.strip() for line in options.file.read_text().splitlines()]
    asyncio.run(install([line for line in lines if "://" in line and not line.startswith("#")], options.prefix))


if __name__ == "__main__":
    main()
