"""Synthetic machines: trees of /proc and /sys in a folder, and a stand-in for the module pynvml that counts what it is asked."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from m2fbench.profiling import nvml

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
IDENTITY = nvml.Identity("aaaa-bbbb", "00000000:41:00.0")


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def stat_line(pid: int, parent: int, seconds: tuple[float, float, float, float], core: int = 0, name: str = "a (b) c") -> str:
    """A line of /proc/PID/stat. seconds: utime, stime and those of waited-for children; the name is meant to mislead."""
    rest = ["0"] * 50  # fields 3 to 52
    rest[0], rest[1], rest[36] = "R", str(parent), str(core)
    rest[11:15] = [str(round(each * TICKS)) for each in seconds]
    return f"{pid} ({name}) {' '.join(rest)}"


def machine_stat(user: float, idle: float, *, iowait: float = 0, steal: float = 0, cores: int = 4) -> str:
    """/proc/stat in seconds; guest time is inside user, as the kernel counts it."""
    times = [user, 0, 0, idle, iowait, 0, 0, steal, user / 2, 0]
    total = " ".join(str(round(each * TICKS)) for each in times)
    return "\n".join([f"cpu  {total}", *(f"cpu{core} {total}" for core in range(cores)), "ctxt 5"])


def linux(root: Path, *, cores: int = 4, governor: str = "performance") -> Path:
    """A bare-metal machine whose process 100 measures."""
    cpu = "sys/devices/system/cpu"
    write(
        root,
        {
            "proc/cpuinfo": "processor : 0\nmodel name\t: Synthetic 9000\n",
            "proc/stat": machine_stat(10, 90, cores=cores),
            "proc/loadavg": "0.50 0.40 0.30 1/100 1",
            "proc/meminfo": "MemTotal:       16777216 kB",
            "proc/vmstat": "pswpin 7\npswpout 9",
            "proc/100/stat": stat_line(100, 1, (5, 1, 0, 0)),
            "proc/100/comm": "python",
            "proc/100/task/100/stat": stat_line(100, 1, (5, 1, 0, 0), core=2),
            f"{cpu}/intel_pstate/no_turbo": 0,
            "sys/class/power_supply/AC/type": "Mains",
            "sys/class/power_supply/AC/online": 1,
        },
    )
    for core in range(cores):
        write(
            root / cpu / f"cpu{core}/cpufreq",
            {
                "scaling_cur_freq": 3_000_000 + 1000 * core,
                "cpuinfo_min_freq": 800_000,
                "cpuinfo_max_freq": 4_000_000,
                "scaling_governor": governor,
                "scaling_driver": "intel_pstate",
            },
        )
    return root


class NVMLError(Exception):
    pass


class FakeNvml:
    """pynvml of a machine with one board. refused: names of functions that the driver does not support; asked: how often each was called.
    mig: None, "handle" (torch's UUID is the instance's) or "mode" (only the board is found, in MIG mode)."""

    def __init__(self, refused: tuple[str, ...] = (), mig: str | None = None, **values: Any) -> None:
        self.refused, self.mig, self.asked, self.open = refused, mig, Counter[str](), 0
        self.values = {
            "nvmlDeviceGetName": "Synthetic H1000",
            "nvmlSystemGetDriverVersion": b"999.1",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * 2**30, used=6 * 2**30),
            "nvmlDeviceGetMaxClockInfo": {1: 1980, 2: 2619},
            "nvmlDeviceGetApplicationsClock": {1: 1830, 2: 2619},
            "nvmlDeviceGetClockInfo": {1: 1755, 2: 2619},
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetPowerUsage": 350_500,
            "nvmlDeviceGetTotalEnergyConsumption": 5_000,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPerformanceState": 0,
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=93),
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=100, usedGpuMemory=2**30)],
            "nvmlDeviceGetGraphicsRunningProcesses": [],
            **values,
        }

    def nvmlInit(self) -> None:
        self._count("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._count("nvmlDeviceGetHandleByUUID")
        if uuid != ("MIG-aaaa-bbbb" if self.mig == "handle" else "GPU-aaaa-bbbb") or self.mig == "mode":
            raise NVMLError("Not Found")
        return "instance" if self.mig == "handle" else "board"

    def nvmlDeviceGetHandleByPciBusId(self, pci: str) -> str:
        self._count("nvmlDeviceGetHandleByPciBusId")
        if pci != IDENTITY.pci:
            raise NVMLError("Not Found")
        return "board"

    def nvmlDeviceIsMigDeviceHandle(self, handle: str) -> int:
        return int(handle == "instance")

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:
        assert handle == "instance"
        return "board"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        self._count("nvmlDeviceGetMigMode")
        return [int(self.mig is not None)] * 2

    def _count(self, name: str) -> None:
        self.asked[name] += 1
        if name in self.refused:
            raise NVMLError("Not Supported")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def query(handle: str | None = None, which: int | None = None) -> Any:
            self._count(name)
            board_only = ("Clock", "Power", "Temperature", "Performance", "Energy")
            if handle == "instance" and (any(word in name for word in board_only) or name == "nvmlDeviceGetUtilizationRates"):
                raise NVMLError("Not Supported")
            value = self.values[name]
            if callable(value):
                return value()
            return value[which] if isinstance(value, dict) else value

        return query


def gpu_of(fake: FakeNvml) -> nvml.Gpu:
    opened = nvml.open_gpu(IDENTITY, fake)
    assert isinstance(opened, nvml.Gpu), opened
    return opened
