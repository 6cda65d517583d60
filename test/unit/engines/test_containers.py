"""What a Docker engine is asked for: the host's part of a container, GPUs."""

import pytest

from lockyard.engines.docker_build import gpu_request, host_options
from lockyard.ports.containers import ContainerRun

RUNTIME = {"Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}}}
CDI = {
    "Runtimes": {"runc": {"path": "runc"}},
    "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}, {"Source": "cdi", "ID": "nvidia.com/gpu=all"}],
}
OTHERS = [
    {},
    {"Runtimes": None, "DiscoveredDevices": None},
    {"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "example.com/fpga=0"}]},
]


@pytest.mark.parametrize(
    ("info", "request_"),
    [
        (RUNTIME, {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}),
        (CDI, {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}),
        *((info, None) for info in OTHERS),
    ],
)
def test_how_gpus_are_asked_for(info: dict[str, object], request_: dict[str, object] | None) -> None:
    assert gpu_request(info) == request_
    gpu = host_options(ContainerRun(image="a", label="b", gpu=True), info)["device_requests"]
    assert gpu == ([request_] if request_ else None)
    assert host_options(ContainerRun(image="a", label="b"), info)["device_requests"] is None


@pytest.mark.parametrize(
    ("info", "devices"),
    [
        (RUNTIME, [{"Driver": "nvidia", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}]),
        (CDI, [{"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=all"], "Capabilities": [], "Options": {}}]),
    ],
)
def test_the_whole_request_as_the_engine_gets_it(info: dict[str, object], devices: list[object]) -> None:
    from docker.types import HostConfig

    options = host_options(ContainerRun(image="a", label="b", gpu=True, shm_size=8 << 20), info)
    assert dict(HostConfig(version="1.41", **options)) == {
        "NetworkMode": "none", "ShmSize": 8 << 20, "Init": True, "DeviceRequests": devices,
    }  # fmt: skip
