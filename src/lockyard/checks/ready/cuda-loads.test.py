"""Ready-made image test: the CUDA runtime of the environment loads and tells its version; no device is needed."""

import ctypes
import json
import os
import sys
from pathlib import Path

context = json.loads(Path(os.environ["LOCKYARD_CONTEXT"]).read_text())
found = sorted(Path(context["prefix"], "lib").glob("libcudart.so.*"))
if not found:
    print("the environment has no CUDA runtime")
    sys.exit(77)
version = ctypes.c_int()
code = ctypes.CDLL(str(found[-1])).cudaRuntimeGetVersion(ctypes.byref(version))
print(f"{found[-1]}: CUDA {version.value // 1000}.{version.value % 1000 // 10}")
sys.exit(1 if code or not version.value else 0)
