"""What a gpu image must do; no device is needed for these."""

import ctypes

import pytest

pytestmark = pytest.mark.gpu


def test_runtime_loads() -> None:
    """The CUDA runtime tells its version."""
    runtime = ctypes.CDLL("/opt/conda/lib/libcudart.so.12")
    version = ctypes.c_int()
    assert runtime.cudaRuntimeGetVersion(ctypes.byref(version)) == 0
    assert version.value >= 12000


def test_compiler_compiles() -> None:
    """NVRTC turns a kernel into PTX."""
    nvrtc = ctypes.CDLL("/opt/conda/lib/libnvrtc.so.12")
    program = ctypes.c_void_p()
    source = b'extern "C" __global__ void twice(float *x) { x[threadIdx.x] *= 2; }'
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"twice.cu", 0, None, None) == 0
    assert nvrtc.nvrtcCompileProgram(program, 0, None) == 0
    size = ctypes.c_size_t()
    assert nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)) == 0
    assert size.value > 200
