"""Ready-made image test: the packages in the prefix are exactly those of the lock."""

import json
import os
import sys
from pathlib import Path

context = json.loads(Path(os.environ["LOCKYARD_CONTEXT"]).read_text())
there = {path.stem for path in Path(context["prefix"], "conda-meta").glob("*.json")}
wanted = set(context["packages"])
for name in sorted(there - wanted):
    print(f"{name}: in the image, not in the lock")
for name in sorted(wanted - there):
    print(f"{name}: in the lock, not in the image")
print(f"{len(wanted)} packages")
sys.exit(1 if there != wanted else 0)
