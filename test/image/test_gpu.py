"""What a gpu image must do. Only the last test needs a device."""

import pytest
import torch

pytestmark = pytest.mark.gpu


def test_pytorch_is_built_for_cuda() -> None:
    """The solver took the CUDA build."""
    assert torch.version.cuda is not None
    assert torch.backends.cudnn.version() is not None


def test_architectures() -> None:
    """Kernels for the data centre's devices are part of it."""
    assert any(name.startswith("sm_8") for name in torch.cuda.get_arch_list())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_device_computes() -> None:
    """A product on the device equals the one on the processor."""
    a = torch.rand(64, 64)
    assert torch.allclose((a.cuda() @ a.cuda()).cpu(), a @ a, atol=1e-3)
