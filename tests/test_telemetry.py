"""What telemetry reads of a machine, on synthetic ones and on this one."""

import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from machines import IDENTITY, PAGE, FakeNvml, gpu_of, linux, machine_stat, stat_line, write

from m2fbench.profiling import host, nvml, telemetry
from m2fbench.profiling.telemetry import Machine, Watch, watch

CPUS = frozenset({0, 1, 2, 3})


def counters(root: Path, moment: float, switches: int | None = 0, why: dict[str, str] | None = None) -> host.Counters:
    return host.counters(root, 100, moment, switches, {} if why is None else why)


def test_facts_of_a_synthetic_machine(tmp_path: Path) -> None:
    why: dict[str, str] = {}
    assert host.facts(linux(tmp_path), CPUS, why) == {
        "processor": "Synthetic 9000",
        "cores": 4,
        "affinity": 4,
        "quota_cores": None,
        "usable_cores": 4,
        "memory_bytes": 16 * 2**30,
        "memory_limit_bytes": None,
        "frequency_limits_mhz": {"min": 800, "max": 4000},
        "governor": "performance",
        "frequency_driver": "intel_pstate",
        "turbo": True,
        "on_battery": False,
    }
    assert why == {}


@pytest.mark.parametrize("version", [1, 2])
def test_container_limits_of_the_group_and_those_above_it_hold(tmp_path: Path, version: int) -> None:
    group = "sys/fs/cgroup"
    if version == 2:
        files = {
            "proc/self/cgroup": "0::/box/inner",
            f"{group}/box/cpu.max": "150000 100000",
            f"{group}/box/inner/cpu.max": "max 100000",
            f"{group}/box/memory.max": "max",
            f"{group}/box/inner/memory.max": 2**30,
            f"{group}/box/inner/cpu.stat": "usage_usec 1\nthrottled_usec 2500000",
        }
    else:
        files = {
            "proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n0::/ignored",
            f"{group}/cpu,cpuacct/box/cpu.cfs_quota_us": 150000,
            f"{group}/cpu,cpuacct/box/cpu.cfs_period_us": 100000,
            f"{group}/cpu,cpuacct/cpu.cfs_quota_us": -1,
            f"{group}/memory/box/memory.limit_in_bytes": 2**30,
            f"{group}/memory/memory.limit_in_bytes": 2**63 - 4096,
            f"{group}/cpu,cpuacct/box/cpu.stat": "nr_throttled 4\nthrottled_time 2500000000",
        }
    write(linux(tmp_path), files)
    facts = host.facts(tmp_path, CPUS, {})
    assert (facts["quota_cores"], facts["usable_cores"], facts["memory_limit_bytes"]) == (1.5, 1.5, 2**30)
    assert counters(tmp_path, 0).throttled == 2.5


def test_a_machine_that_shows_nothing_gives_reasons_and_no_figures(tmp_path: Path) -> None:
    """As on another system than Linux."""
    why: dict[str, str] = {}
    facts = host.facts(tmp_path, None, why)
    assert all(value is None or value == {"min": None, "max": None} for value in facts.values())
    between = host.between(counters(tmp_path, 0, None, why), counters(tmp_path, 5, None, why), why)
    assert all(value is None or value == [None, None] for value in between.values())
    names = (
        "processor",
        "cores",
        "memory_bytes",
        "affinity",
        "governor",
        "turbo",
        "on_battery",
        "others_cores",
        "own_cores",
        "swapped",
    )
    assert all(why[f"host.{name}"] for name in names)


def test_other_processes_are_the_machine_less_our_tree(tmp_path: Path) -> None:
    linux(tmp_path)
    write(tmp_path, {"proc/101/stat": stat_line(101, 100, (2, 0, 0, 0)), "proc/102/stat": stat_line(102, 101, (1, 0, 0, 0))})
    write(tmp_path, {"proc/200/stat": stat_line(200, 1, (50, 50, 0, 0))})
    before = counters(tmp_path, 10.0, 3)
    assert before.own == pytest.approx(9)
    # 10 seconds on 4 cores: ours 8 (the child 101 ended and was waited for: its 2 + 3 seconds are ours now), others 4, steal 0.8, iowait 2
    (tmp_path / "proc/101/stat").unlink()
    write(
        tmp_path,
        {
            "proc/100/stat": stat_line(100, 1, (9, 1, 5, 0)),
            "proc/102/stat": stat_line(102, 100, (2, 0, 0, 0)),
            "proc/stat": machine_stat(10 + 12, 90 + 40 - 12 - 0.8 - 2, iowait=2, steal=0.8),
            "proc/vmstat": "pswpin 8\npswpout 9",
        },
    )
    between = host.between(before, counters(tmp_path, 20.0, 10), {})
    assert between["own_cores"] == pytest.approx(0.8)
    assert between["others_cores"] == pytest.approx(0.4)
    assert between["others_share"] == pytest.approx(0.1)
    assert between["steal_share"] == pytest.approx(0.02)
    assert between["iowait_share"] == pytest.approx(0.05)
    assert (between["swapped_in_bytes"], between["swapped_out_bytes"], between["involuntary_switches"]) == (PAGE, 0, 7)


def test_too_short_for_ticks_is_said(tmp_path: Path) -> None:
    why: dict[str, str] = {}
    between = host.between(counters(linux(tmp_path), 0), counters(tmp_path, 0.5), why)
    assert between["others_share"] is None
    assert between["steal_share"] is None
    assert why["host.others_cores"] == "measured for 0.50 s; ticks of 10 ms need 1 s"


@pytest.mark.parametrize(("file", "value", "key", "expected"), [
    ("sys/devices/system/cpu/intel_pstate/no_turbo", 1, "turbo", False),
    ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave", "governor", "performance, powersave"),
    ("sys/class/power_supply/AC/online", 0, "on_battery", True),
])  # fmt: skip
def test_settings_of_the_machine(tmp_path: Path, file: str, value: object, key: str, expected: object) -> None:
    write(linux(tmp_path), {file: value})
    assert host.facts(tmp_path, CPUS, {})[key] == expected


def test_a_battery_without_mains_tells_by_its_status(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/power_supply/BAT0/type": "Battery", "sys/class/power_supply/BAT0/status": "Discharging"})
    assert host.facts(tmp_path, CPUS, {})["on_battery"] is True


def test_the_driver_is_read(tmp_path: Path) -> None:
    fake, why = FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=0x04 | 0x40 | 0x800), {}
    gpu = gpu_of(fake)
    assert nvml.read(gpu, nvml.FACTS, why) == {
        "name": "Synthetic H1000", "driver": "999.1", "memory_bytes": 80 * 2**30, "sm_max_mhz": 1980, "memory_max_mhz": 2619,
        "application_sm_mhz": 1830, "application_memory_mhz": 2619, "power_limit_watts": 700.0,
    }  # fmt: skip
    assert nvml.read(gpu, nvml.SAMPLES, why) == {
        "sm_mhz": 1755, "memory_mhz": 2619, "watts": 350.5, "celsius": 61, "performance_state": 0, "utilisation_percent": 93,
        "used_bytes": 6 * 2**30, "clock_reasons": ["power cap", "hardware thermal slowdown", "reason 0x800"],
    }  # fmt: skip
    assert why == {}
    nvml.close(gpu)
    assert fake.open == 0


@pytest.mark.parametrize("name", [*nvml.FACTS, *nvml.SAMPLES])
def test_each_query_may_be_refused_alone(name: str) -> None:
    """Every driver function in turn answers "Not Supported"; everything else is still read."""
    queries = {**nvml.FACTS, **nvml.SAMPLES}
    fake = FakeNvml()
    nvml.ask(queries[name], gpu_of(fake))
    function = [each for each in fake.asked if each not in ("nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetMigMode")]
    refused = (*function, "nvmlDeviceGetCurrentClocksThrottleReasons") if name == "clock_reasons" else tuple(function)
    why: dict[str, str] = {}
    found = nvml.read(gpu_of(FakeNvml(refused=refused)), queries, why)
    assert why[f"gpu.{name}"] == "Not Supported"
    assert name not in found
    assert len(found) + len(why) == len(queries)


def test_older_drivers_name_the_reasons_otherwise() -> None:
    fake = FakeNvml(refused=("nvmlDeviceGetCurrentClocksEventReasons",), nvmlDeviceGetCurrentClocksThrottleReasons=0x21)
    assert nvml.read(gpu_of(fake), nvml.SAMPLES, {})["clock_reasons"] == ["idle", "software thermal slowdown"]


def test_without_a_driver_or_the_device_there_is_a_reason() -> None:
    assert nvml.open_gpu(IDENTITY, FakeNvml(refused=("nvmlInit",))) == "NVML cannot be used: Not Supported"
    fake = FakeNvml()
    assert nvml.open_gpu(nvml.Identity("cccc", None), fake) == "NVML does not know torch's device (UUID cccc, PCI None)"
    assert fake.open == 0
    assert nvml.open_gpu("a reason") == "a reason"
    assert isinstance(nvml.open_gpu(nvml.Identity(None, IDENTITY.pci), fake), nvml.Gpu)  # an older torch without UUIDs


def test_the_synthetic_driver_is_like_the_real_bindings() -> None:
    """Every function that is asked exists in pynvml, and the numbers of nvml.h that stand here are its numbers."""
    pynvml = pytest.importorskip("pynvml")
    fake = FakeNvml(mig="handle", refused=("nvmlDeviceGetHandleByUUID", "nvmlDeviceGetCurrentClocksEventReasons"))
    gpu = gpu_of(fake)
    nvml.read(gpu, {**nvml.FACTS, **nvml.SAMPLES}, {})
    nvml.processes(gpu, (), Path("/none"), {})
    nvml.ask(nvml.joules, gpu)
    functions = {*fake.asked, *(name for name in vars(FakeNvml) if name.startswith("nvml"))}
    assert len(functions) > 20
    assert [name for name in functions if not callable(getattr(pynvml, name, None))] == []
    assert (nvml.SM, nvml.MEMORY) == (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
    assert pynvml.NVML_TEMPERATURE_GPU == 0
    names = [
        "GpuIdle",
        "ApplicationsClocksSetting",
        "SwPowerCap",
        "HwSlowdown",
        "SyncBoost",
        "SwThermalSlowdown",
        "HwThermalSlowdown",
    ]
    names += ["HwPowerBrakeSlowdown", "DisplayClockSetting"]
    assert [getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names] == list(nvml.CLOCK_REASONS)[:9]


def test_the_real_bindings_without_a_driver_give_a_reason() -> None:
    pytest.importorskip("pynvml")
    opened = nvml.open_gpu(nvml.Identity("00000000-0000-0000-0000-000000000000", "00000000:ff:1f.0"))
    assert isinstance(opened, str)  # no driver, or no such device
    assert opened.startswith(("NVML cannot be used: ", "NVML does not know torch's device"))


def test_torchs_device_by_its_uuid_and_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert nvml.torch_identity("cuda") == "torch finds no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    properties = SimpleNamespace(uuid="aaaa-bbbb", pci_domain_id=0, pci_bus_id=0x41, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert nvml.torch_identity("cuda") == IDENTITY
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace())
    assert nvml.torch_identity("cuda:1") == nvml.Identity(None, None)
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert "AMD" in nvml.torch_identity("cuda")


@pytest.mark.parametrize("mig", ["handle", "mode"])
def test_mig_says_whose_the_figures_are(tmp_path: Path, mig: str) -> None:
    machine = synthetic(tmp_path, gpu=gpu_of(FakeNvml(mig=mig)))
    summary = sampled(machine, 3)
    assert summary["gpu"]["mig"] == nvml.MIG_NOTE
    assert summary["gpu"]["watts"]["mean"] == 350.5  # the board's
    if mig == "handle":
        assert summary["gpu"]["utilisation_percent"] is None
        assert summary["unreadable"]["gpu.utilisation_percent"] == "Not Supported"


def process(pid: int, used: int | None = 2**20) -> Any:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def test_others_on_the_device(tmp_path: Path) -> None:
    write(tmp_path, {"proc/100/comm": "python", "proc/300/comm": "train\x1b[31m"})
    fake = FakeNvml(
        nvmlDeviceGetComputeRunningProcesses=[process(100), process(300), process(400, None)],
        nvmlDeviceGetGraphicsRunningProcesses=[process(300)],
    )
    assert nvml.processes(gpu_of(fake), (100,), tmp_path, {}) == [
        {"pid": 300, "name": "train?[31m", "bytes": 2**20},
        {"pid": 400, "name": None, "bytes": None},
    ]


def test_in_a_container_one_strange_process_is_taken_for_us(tmp_path: Path) -> None:
    why: dict[str, str] = {}
    fake = FakeNvml(nvmlDeviceGetComputeRunningProcesses=[process(70001), process(70002)])
    assert [each["pid"] for each in nvml.processes(gpu_of(fake), (100,), tmp_path, why) or ()] == [70002]
    assert "taken to be this process" in why["gpu.own_process"]


def test_processes_that_the_driver_hides(tmp_path: Path) -> None:
    why: dict[str, str] = {}
    both = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
    assert nvml.processes(gpu_of(FakeNvml(refused=both)), (100,), tmp_path, why) is None
    assert why == {"gpu.other_processes": "Not Supported"}
    assert nvml.processes(gpu_of(FakeNvml(refused=both[1:])), (100,), tmp_path, {}) == []


def synthetic(root: Path, gpu: nvml.Gpu | str | None = None) -> Machine:
    moments = iter(range(0, 10**6, 10))
    return Machine(linux(root), gpu, CPUS, 100, 100, lambda: 5, lambda: float(next(moments)), lambda: 0.02)


def sampled(machine: Machine, samples: int, change: Any = lambda number: None) -> dict[str, Any]:
    """A watch that took exactly so many samples, without its thread; ``change(number)`` moves the machine before each."""
    watching = Watch(machine, 0.25, threads=4)
    watching._thread = threading.Thread(target=lambda: None)
    watching.start()
    for number in range(samples):
        change(number)
        watching._sample()
    watching.stop()
    return json.loads(json.dumps(watching.summary()))


def test_a_summary_of_samples(tmp_path: Path) -> None:
    clocks = [1980] * 15 + [1500] * 5
    fake = FakeNvml(nvmlDeviceGetClockInfo={1: 0, 2: 2619})

    def change(number: int) -> None:
        fake.values["nvmlDeviceGetClockInfo"][1] = clocks[number]
        fake.values["nvmlDeviceGetCurrentClocksEventReasons"] = 0x40 if clocks[number] == 1500 else 0
        write(tmp_path, {"sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": 3_000_000 + 10_000 * number})

    summary = sampled(synthetic(tmp_path, gpu_of(fake)), 20, change)
    assert summary["samples"] == 20
    assert summary["gpu"]["sm_mhz"] == {"min": 1500, "p10": 1500, "mean": 1860, "p90": 1980, "max": 1980}
    assert summary["gpu"]["clock_reasons"] == {"hardware thermal slowdown": 0.25}
    assert summary["host"]["frequency_mhz"]["mean"] == pytest.approx(3095)  # of core 2, where the measuring thread ran
    assert summary["gpu"]["other_processes"] == []
    assert summary["unreadable"] == {}
    assert fake.open == 0


def test_a_sample_is_a_few_questions_and_refused_ones_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of a sample, counted: the driver's functions and the files read."""
    read: list[str] = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: read.append(self.name) or real(self, *a, **k))
    fake = FakeNvml(refused=("nvmlDeviceGetTemperature",))
    asked: list[tuple[int, int]] = []
    sampled(synthetic(tmp_path, gpu_of(fake)), 50, lambda number: asked.append((sum(fake.asked.values()), len(read))))
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(asked)]
    assert steps[0] == (8, 2)
    assert set(steps[1:]) == {(7, 2)}
    assert fake.asked["nvmlDeviceGetTemperature"] == 1


def test_a_device_lost_on_the_way_keeps_what_was_seen(tmp_path: Path) -> None:
    fake = FakeNvml()

    def change(number: int) -> None:
        fake.refused = ("nvmlDeviceGetPowerUsage",) if number >= 2 else ()

    summary = sampled(synthetic(tmp_path, gpu_of(fake)), 5, change)
    assert summary["gpu"]["watts"]["max"] == 350.5
    assert summary["unreadable"]["gpu.watts"] == "Not Supported (after 2 samples)"


def test_readers_that_break_do_not_break_the_measurement(tmp_path: Path) -> None:
    def broken() -> float:
        raise RuntimeError("no clock")

    machine = Machine(linux(tmp_path), gpu_of(FakeNvml(nvmlDeviceGetComputeRunningProcesses=5)), CPUS, 100, clock=broken)
    with watch("cuda", threads=1, machine=machine) as watching:
        done = True
    summary = watching.summary()
    assert done
    assert summary["seconds"] is None
    assert summary["unreadable"]["host.counters"] == "RuntimeError: no clock"
    assert summary["sampler"]["failures"] == 2  # the processes, at both ends
    assert summary["unreadable"]["sampler"].startswith("a reading failed: TypeError")


def test_exceptions_of_the_block_go_on_and_the_thread_ends() -> None:
    with pytest.raises(ZeroDivisionError), watch("cpu", 0.01, threads=1) as watching:
        raise ZeroDivisionError
    assert not watching._thread.is_alive()
    assert watching.summary()["samples"] >= 1


def test_a_driver_that_does_not_answer_does_not_hold_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "JOIN_SECONDS", 0.05)
    entered, answer = threading.Event(), threading.Event()
    fake = FakeNvml(nvmlDeviceGetTemperature=lambda: entered.set() or answer.wait(20) or 50)
    machine = synthetic(tmp_path, gpu_of(fake))
    with watch("cuda", 0.01, threads=1, machine=machine) as watching:
        assert entered.wait(10)
    asked = sum(fake.asked.values())
    summary = watching.summary()
    assert summary["unreadable"]["sampler"].startswith("a reading has not returned")
    assert sum(fake.asked.values()) == asked  # nothing more was asked of it
    answer.set()
    watching._thread.join(10)
    assert not watching._thread.is_alive()


@pytest.mark.full
def test_a_process_that_ends_within_the_block_is_not_held_up() -> None:
    code = (
        "import sys\nfrom m2fbench.profiling.telemetry import watch\nw = watch('cpu', 60.0, threads=1)\nw.__enter__()\nsys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 7


@pytest.mark.full
def test_this_machine() -> None:
    """Real readings: one busy core for a second is seen, and attributed to us."""
    if not Path("/proc/stat").exists():
        pytest.skip("no /proc here")
    with watch("cpu", 0.05, threads=2) as watching:
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            sum(range(1000))
    summary = watching.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["host"]["cores"] == os.cpu_count()
    assert 0.1 < summary["host"]["own_cores"] < 2.5  # others may have most of it
    assert 0 <= summary["host"]["others_share"] <= 1
    assert summary["samples"] >= 2
    assert 0 < summary["sampler"]["cpu_seconds"] < summary["seconds"]
    assert summary["gpu"] is None
    assert "gpu" not in summary["unreadable"]  # not asked for
