"""What a GPU has to offer, asked of NVIDIA's driver itself: nothing to install."""

import contextlib
import ctypes


def cuda_devices() -> int:
    """Return how many GPUs the driver sees; 0 without a driver."""
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0
