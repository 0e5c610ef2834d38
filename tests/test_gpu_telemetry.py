"""Telemetry, memory and energy on a real CUDA device."""

import time

import pytest
import torch

from m2fbench.profiling import nvml
from m2fbench.profiling.disturbances import disturbances
from m2fbench.profiling.energy import measure_energy
from m2fbench.profiling.memory import peak_memory
from m2fbench.profiling.meters import meters
from m2fbench.profiling.telemetry import watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch finds none"),
]


def busy(seconds: float) -> None:
    a = torch.randn(4096, 4096, device="cuda")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(10):
            a @ a
        torch.cuda.synchronize()


def test_the_driver_knows_torchs_device() -> None:
    torch.zeros(1, device="cuda")
    gpu = nvml.open_gpu(nvml.torch_identity("cuda"))
    assert isinstance(gpu, nvml.Gpu), gpu
    facts = nvml.read(gpu, nvml.FACTS, {})
    nvml.close(gpu)
    properties = torch.cuda.get_device_properties(0)
    assert facts["name"].split()[-1] in properties.name
    assert facts["memory_bytes"] == pytest.approx(properties.total_memory, rel=0.05)


def test_a_busy_device_is_seen_to_be_busy() -> None:
    busy(0.5)
    with watch("cuda", 0.05) as watching:
        busy(2)
    summary = watching.summary()
    gpu = summary["gpu"]
    assert gpu is not None, summary["unreadable"]
    assert summary["samples"] >= 10
    if gpu["sm_mhz"] is not None:
        assert 0 < gpu["sm_mhz"]["mean"] <= gpu["sm_max_mhz"]
    if gpu["utilisation_percent"] is not None:
        assert gpu["utilisation_percent"]["max"] > 50
    if gpu["watts"] is not None:
        assert gpu["watts"]["max"] > 20
    assert summary["sampler"]["failures"] == 0
    assert all(isinstance(line, str) for line in disturbances(summary))
    print(summary, disturbances(summary))


def test_the_energy_counter_grows_with_the_work() -> None:
    with meters("cuda") as (found, reasons):
        boards = [meter for meter in found if meter.name == "nvml"]
        if not boards:
            pytest.skip(f"no energy counter: {reasons}")
        (board,) = boards
        busy(0.5)
        use = measure_energy(lambda: busy(0.5), images=1, seconds=1, meters=boards, idle_seconds=3)
    assert use.seconds >= 100 * board.tick
    assert use.watts is not None
    assert use.watts > 30
    assert use.joules_per_image is not None
    assert use.joules_per_image_above_idle is not None
    assert 0 < use.joules_per_image_above_idle < use.joules_per_image
    print(use)


def test_the_devices_peak_is_the_allocation() -> None:
    held = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    with peak_memory("cuda") as peak:
        torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    assert peak.device_growth_bytes == 256 * 2**20
    assert peak.device_bytes is not None
    assert peak.device_bytes >= held.numel() + 256 * 2**20
    assert peak.device_reserved_bytes is not None
    assert peak.device_reserved_bytes >= peak.device_bytes
    if peak.device_used_bytes is not None:
        assert peak.device_used_bytes >= held.numel() + 256 * 2**20  # the allocator keeps the block
