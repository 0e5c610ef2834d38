"""Speed on a CUDA device: what the events say adds up to what the clock says, memory is the work's own, and a whole measurement runs."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import m2fbench
from m2fbench.profiling.speed import Candidate, interleaved, time_one
from m2fbench.profiling.stages import between, mark, timed_parts
from m2fbench.speed import SpeedRequest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: run 'pytest -m gpu' on a machine that has one"),
]


def work(seconds_of: dict[str, float]) -> Candidate[int, int]:
    """Kernels that spin for about so long; nothing else."""
    device = torch.device("cuda")
    rate = 1e9  # cycles a second, roughly; only ratios are looked at

    class Spin(torch.nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.cycles = int(seconds * rate)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.cuda._sleep(self.cycles)
            return x

    backbone, decoder, post = (Spin(seconds_of[name]) for name in ("backbone", "decoder", "post"))
    x = torch.zeros(1, device=device)

    def forward(item: int) -> int:
        decoder(backbone(x))
        return item

    def compute(item: int) -> int:
        post(x)
        return item

    parts = (("backbone", backbone), ("decoder", decoder))
    return Candidate("spin", "task", device, lambda i: i, forward, compute, lambda i: i, lambda i: 0, parts)


def test_queued_work_is_timed_where_it_was_queued() -> None:
    """Launches return at once; without events all time would seem to be in the last wait."""
    candidate = work({"backbone": 0.06, "decoder": 0.02, "post": 0.04})
    (((_, (timing,)),)) = list(interleaved([candidate], [0], clock=time.perf_counter))
    stages = timing.stages
    assert stages["backbone"] / stages["decoder"] == pytest.approx(3, rel=0.1)
    assert stages["post-processing"] / stages["decoder"] == pytest.approx(2, rel=0.1)
    inside = sum(value for name, value in stages.items() if name != "encode")
    assert inside == pytest.approx(timing.seconds, rel=0.05), "what the device did is what the clock saw"


def test_the_device_is_quiet_before_the_clock_starts() -> None:
    candidate = work({"backbone": 0.01, "decoder": 0.01, "post": 0.01})
    alone = time_one(candidate, 0, time.perf_counter, counted=True).seconds
    torch.cuda._sleep(int(0.3e9))  # somebody else's work, still queued
    after = time_one(candidate, 0, time.perf_counter, counted=True).seconds
    assert after < 3 * alone


def test_marks_are_events() -> None:
    device = torch.device("cuda")
    module = torch.nn.Linear(512, 512).to(device)
    begin = mark(device, lambda: 0.0)
    with timed_parts([("linear", module)], device, lambda: 0.0) as marks:
        module(torch.zeros(4096, 512, device=device))
    end = mark(device, lambda: 0.0)
    torch.cuda.synchronize()
    assert 0 < marks.seconds()["linear"] <= between(begin, end) * 1.01


def test_a_whole_measurement(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    """Every variant that the device can do, timed, scored, with memory and the state of the device beside."""
    variants = (
        "{name: reference}",
        "{name: tf32, tf32: true}",
        "{name: half, autocast: float16}",
        "{name: plain, protocol: transformers}",
    )
    extra = f"variants: [{', '.join(variants)}]\nmeasure: [speed, energy]\n"
    request = SpeedRequest(("paper", "task"), energy_seconds=1.0, idle_seconds=0.5)
    results = m2fbench.run(shapes_suite(count=12, extra=extra), output=tmp_path / "runs", device="cuda", speed=request)
    for result in results:
        if result.status == "unsupported":
            assert result.reason
            continue
        assert result.value("fps") > 0
        assert result.value("fps_task") > 0
        assert result.value("peak_device_memory") > 0
        assert result.details is not None
        machine = result.details["machine"]
        assert machine["gpu"] is not None or machine["unreadable"]
        stages = result.details["scopes"]["paper"]["stages"]
        assert {"copy", "backbone", "pixel decoder", "transformer decoder", "post-processing", "encode"} <= set(stages)
        assert min(stages[name] for name in ("backbone", "pixel decoder", "transformer decoder")) > 0
        energy = result.details["energy"]
        assert (energy["joules_per_image"] is None) == bool(energy["reasons"] and not energy["meters"])
        assert math.isnan(result.value("energy")) == (energy["joules_per_image"] is None)
