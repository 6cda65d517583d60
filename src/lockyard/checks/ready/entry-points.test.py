"""Ready-made image test: the console scripts of direct packages exist and their functions load. Runs inside the image."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

context = json.loads(Path(os.environ["LOCKYARD_CONTEXT"]).read_text())
prefix = Path(context["prefix"])
direct = {name.replace("_", "-").lower() for name in context["direct"]} - set(context["skip_imports"])
failed = count = 0
for distribution in importlib.metadata.distributions():
    if (distribution.name or "").replace("_", "-").lower() not in direct:
        continue
    for point in distribution.entry_points:
        if point.group != "console_scripts" or point.extras:
            continue
        count += 1
        script = prefix / "bin" / point.name
        if not os.access(script, os.X_OK):
            print(f"{distribution.name}: {script} is not there or cannot be run")
            failed += 1
            continue
        try:
            point.load()
        except BaseException as error:  # noqa: BLE001 - whatever stops it stops the command
            print(f"{distribution.name}: {point.name} does not load: {type(error).__name__}: {error}")
            failed += 1
if not count:
    print("no direct package has a console script")
    sys.exit(77)
print(f"{count} console scripts, {failed} broken")
sys.exit(1 if failed else 0)
