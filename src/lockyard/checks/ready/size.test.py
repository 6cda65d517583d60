"""Ready-made image test: the compressed image is within its budget."""

import json
import os
import sys
from pathlib import Path

context = json.loads(Path(os.environ["LOCKYARD_CONTEXT"]).read_text())
size, budget = context["size"], context["max_size"]
if budget is None:
    print("no budget: max-size in [ready-made] of tests.toml")
    sys.exit(77)
print(f"{size / 1e6:.1f} MB of {budget / 1e6:.1f} MB")
sys.exit(1 if size > budget else 0)
