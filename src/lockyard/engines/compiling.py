"""Compiles Python modules inside the sandbox. Run as a script by the image's own Python (3.7 or later), standard library only.

`compiling.py JOB WORKERS` starts a process of its own for each package of the JSON file JOB (`packages`: a list of lists of
`[source, recorded path, output, time]`): what `marshal` writes depends a little on what the process has in memory, and so each
package always meets the same. `compiling.py JOB WORKERS NUMBER` is such a process. Modules that do not compile get no output.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def compile_package(modules: list[list[Any]]) -> None:
    """Compile the modules of one package, in order."""
    warnings.simplefilter("ignore")
    for source, recorded, output, time in modules:
        data = Path(source).read_bytes()
        try:
            code = compile(data, recorded, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            continue
        head = b"".join(number.to_bytes(4, "little") for number in (0, time, len(data) & 0xFFFFFFFF))
        place = Path(output)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(importlib.util.MAGIC_NUMBER + head + marshal.dumps(code))


def main(argv: list[str]) -> int:
    """Run all packages, or one."""
    packages = json.loads(Path(argv[0]).read_text(encoding="utf-8"))["packages"]
    if len(argv) > 2:
        compile_package(packages[int(argv[2])])
        return 0

    def one(number: int) -> int:
        return subprocess.call([sys.executable, "-S", "-s", "-B", __file__, *argv, str(number)])

    with ThreadPoolExecutor(int(argv[1])) as pool:
        failed = [code for code in pool.map(one, range(len(packages))) if code]
    sys.stdout.write(f"tag {sys.implementation.cache_tag}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
