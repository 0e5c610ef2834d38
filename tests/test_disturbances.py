"""The lines that say what disturbed a measurement, and the test for drift on series whose truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machines import FakeNvml, gpu_of
from test_telemetry import process, sampled, synthetic

from m2fbench.profiling.disturbances import disturbances, drift


def level(low: float, high: float) -> dict[str, float]:
    return {"min": low, "p10": low, "mean": (low + high) / 2, "p90": high, "max": high}


def test_a_quiet_machine_has_no_lines(tmp_path: Path) -> None:
    assert disturbances(sampled(synthetic(tmp_path, gpu_of(FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=0x3))), 5)) == []


def test_a_machine_that_cannot_be_read_has_no_lines() -> None:
    assert disturbances({"host": {}, "gpu": None, "unreadable": {"host": "unknown"}}) == []
    assert (
        disturbances({"host": {"others_share": None, "steal_share": None, "governor": None, "frequency_mhz": None}, "gpu": None})
        == []
    )


def test_what_a_synthetic_device_does_becomes_lines(tmp_path: Path) -> None:
    fake = FakeNvml(
        nvmlDeviceGetCurrentClocksEventReasons=0x1 | 0x4 | 0x40,
        nvmlDeviceGetComputeRunningProcesses=[process(100), process(300, 3 * 2**30)],
    )
    power, heat, others = disturbances(sampled(synthetic(tmp_path, gpu_of(fake)), 5))
    assert power.startswith("throttling: power cap in 100% of the samples; the board is at its power limit")
    assert heat.startswith("throttling: hardware thermal slowdown in 100% of the samples; the device is too hot")
    assert others == (
        "other processes on the device: unnamed (pid 300, 3072 MiB); they take its time and memory; end them or measure on another device"
    )


HOST: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"others_share": 0.051, "others_cores": 0.41}, {"others_share": 0.05}, "other processes used 0.4 cores, 5% of the machine (allowed 5%)"),
    ({"steal_share": 0.013}, {"steal_share": 0.01}, "steal 1.3% (allowed 1%)"),
    ({"swapped_in_bytes": 0, "swapped_out_bytes": 2**21}, {"swapped_in_bytes": 0}, "the machine swapped 0 MiB in and 2 MiB out"),
    ({"quota_throttled_seconds": 1.5, "quota_cores": 2.0}, {"quota_throttled_seconds": 0.0}, "the container's CPU quota (2.0 cores) stopped us"),
    ({"threads": 8, "usable_cores": 1.5}, {"threads": 4, "usable_cores": 4}, "8 threads on 1.5 usable cores"),
    ({"governor": "powersave", "frequency_driver": "acpi-cpufreq"}, {"governor": "performance"}, "CPU governor powersave; clocks stay"),
    ({"governor": "powersave", "frequency_driver": "intel_pstate"}, {"governor": "schedutil"}, "CPU governor powersave; with intel_pstate"),
    ({"on_battery": True}, {"on_battery": False}, "on battery"),
    ({"frequency_mhz": level(2800, 3000)}, {"frequency_mhz": level(2860, 3000)}, "the processor's clock moved between 2800 and 3000 MHz (7%)"),
]  # fmt: skip


@pytest.mark.parametrize(("loud", "quiet", "expected"), HOST, ids=[case[2][:20] for case in HOST])
def test_each_disturbance_of_the_host_and_its_bound(loud: dict[str, Any], quiet: dict[str, Any], expected: str) -> None:
    (line,) = disturbances({"host": loud})
    assert line.startswith(expected)
    assert line.count(";") >= 2 or "on battery" in line  # seen; why it matters; what to do
    assert disturbances({"host": quiet}) == []


def test_moving_device_clocks_and_a_dear_sampler() -> None:
    sm, memory = disturbances({"gpu": {"sm_mhz": level(1700, 1980), "memory_mhz": level(2000, 2619)}})
    assert sm.startswith("the device's SM clock moved between 1700 and 1980 MHz (14%)")
    assert memory.startswith("the device's memory clock moved")
    (line,) = disturbances({"sampler": {"cpu_share": 0.02}})
    assert line.startswith("our own sampling used 2.0% of a core")


NOISES = {
    "gaussian": lambda rng, n: 1 + rng.normal(0, 0.05, n),
    "skewed": lambda rng, n: np.exp(rng.normal(0, 0.1, n)),
    "outliers": lambda rng, n: 1 + rng.normal(0, 0.03, n) + (rng.random(n) < 0.05) * rng.exponential(2, n),
    "heavy tails": lambda rng, n: 1 + 0.02 * rng.standard_t(2, n),
    "neighbours alike": lambda rng, n: 1 + np.convolve(rng.normal(0, 0.03, n + 2), [1, 0.7, 0.4], "valid"),
}


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("count", [24, 100, 400])
def test_noise_raises_no_alarm(noise: str, count: int) -> None:
    """At most 1 % of a thousand seeds."""
    alarms = sum(drift(NOISES[noise](np.random.default_rng(seed), count).tolist()) is not None for seed in range(1000))
    assert alarms <= 10


def test_noise_raises_no_alarm_at_a_hundred_seeds() -> None:
    assert not any(drift(NOISES["gaussian"](np.random.default_rng(seed), 60).tolist()) for seed in range(100))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("at", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("size", [1.1, 1 / 1.1])
def test_a_step_of_a_tenth_is_seen(seed: int, at: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    series = 0.05 * (1 + rng.normal(0, 0.03, 100))
    series[int(at * 100) :] *= size
    line = drift(series.tolist())
    assert line is not None
    assert ("slower" in line) == (size > 1)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("end", [1.1, 0.9])
def test_a_linear_drift_of_a_tenth_is_seen(seed: int, end: float) -> None:
    rng = np.random.default_rng(seed)
    line = drift((np.linspace(1, end, 100) * (1 + rng.normal(0, 0.03, 100))).tolist())
    assert line is not None
    assert ("slower" in line) == (end > 1)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["gaussian", "outliers", "heavy tails"])
def test_steps_and_trends_are_seen_in_other_noise(noise: str) -> None:
    missed = 0
    for seed in range(200):
        series = NOISES[noise](np.random.default_rng(seed), 200)
        stepped = series * np.where(np.arange(200) < 120, 1, 1.1)
        missed += (drift(stepped.tolist()) is None) + (drift((series * np.linspace(1, 1.1, 200)).tolist()) is None)
    assert missed <= 4  # of 400


def test_the_line_says_what_and_where() -> None:
    series = [1.0, 1.001] * 30 + [1.2, 1.201] * 20
    assert (drift(series) or "").startswith("latencies drift, a step after 60 of 100: 20.0% slower from there on")
    assert (drift(np.linspace(1, 1.3, 90).tolist()) or "").startswith("latencies drift, a trend: the last third is")


def test_what_cannot_show_a_drift() -> None:
    assert drift([]) is None
    assert drift([1.0] * 100) is None
    assert drift(np.linspace(1, 2, 19).tolist()) is None
    assert drift(np.linspace(1, 2, 20).tolist()) is not None
    assert drift(np.linspace(1, 1.02, 100).tolist()) is None  # real, and smaller than what matters
    assert drift([*np.linspace(1, 2, 20).tolist(), float("nan")]) is not None
