"""The state of the machine while something is measured: a thread samples clocks, power and temperature, and counters are read at both ends.

``watch`` costs the measurement a handful of driver queries and two small files a sample; what is dear (every process of the machine, who
else is on the device) is read before and after. ``summary`` states the thread's own share of the processor.
"""

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from m2fbench.profiling import host, nvml
from m2fbench.types import JsonObject

PROCESSES_EVERY = 20  # samples between looks at who else is on the device
SHORTEST_INTERVAL = 0.01  # seconds
JOIN_SECONDS = 5.0  # a driver that does not answer must not hold the measurement for ever
SERIES = ("sm_mhz", "memory_mhz", "watts", "celsius", "utilisation_percent", "used_bytes", "performance_state")


@dataclass(frozen=True)
class Machine:
    """Where readings come from; tests put a synthetic machine in. gpu: the open device, the reason why it cannot be read, or None where
    the measurement is not about one."""

    root: Path = Path("/")
    gpu: nvml.Gpu | str | None = None
    cpus: frozenset[int] | None = None
    pid: int = field(default_factory=os.getpid)
    thread: int = field(default_factory=threading.get_native_id)  # the one that measures
    switches: Callable[[], int | None] = lambda: _involuntary_switches()
    clock: Callable[[], float] = time.perf_counter
    own_clock: Callable[[], float] = time.thread_time


def this_machine(device: str) -> Machine:
    """The machine that we run on; its device, where ``device`` is one, is open afterwards."""
    gpu = nvml.open_gpu(nvml.torch_identity(device)) if device.startswith("cuda") else None
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return Machine(gpu=gpu, cpus=frozenset(affinity(0)) if affinity else None)


def _involuntary_switches() -> int | None:
    """Of all threads of this process since it began; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Watch:
    """What ``watch`` hands out; it is read after the block."""

    def __init__(self, machine: Machine, interval: float, threads: int | None) -> None:
        self._machine, self._interval, self._threads = machine, max(interval, SHORTEST_INTERVAL), threads
        self._why: dict[str, str] = {}
        self._samples: list[JsonObject] = []
        self._queries = dict(nvml.SAMPLES)
        self._frequency = True
        self._others: dict[int, JsonObject] = {}
        self._others_known = False
        self._own_time, self._failures = 0.0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="m2fbench-watch", daemon=True)
        self._facts: JsonObject = {}
        self._gpu_facts: JsonObject | None = None
        self._before: host.Counters | None = None
        self._after: host.Counters | None = None

    def start(self) -> None:
        self._guarded(self._read_facts)
        self._guarded(self._look_at_processes)
        self._before = self._counted()
        self._guarded(self._thread.start)

    def stop(self) -> None:
        self._stop.set()
        self._after = self._counted()
        if self._thread.ident is not None:
            self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():  # in the driver, which would hold us as well
            self._why["sampler"] = f"a reading has not returned for {JOIN_SECONDS:.0f} s; what it would have seen is missing"
            return
        if not self._samples:
            self._guarded(self._sample)  # the block was shorter than an interval: better one look, just after it, than none
        self._guarded(self._look_at_processes)
        if self._machine.gpu is not None:
            nvml.close(self._machine.gpu)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Whatever goes wrong here must not end a measurement; it is told in the summary."""
        try:
            action()
        except Exception as error:
            self._failures += 1
            self._why.setdefault("sampler", f"a reading failed: {type(error).__name__}: {error}")

    def _read_facts(self) -> None:
        machine = self._machine
        self._facts = host.facts(machine.root, machine.cpus, self._why)
        if isinstance(machine.gpu, nvml.Gpu):
            self._gpu_facts = nvml.read(machine.gpu, nvml.FACTS, self._why)
        elif machine.gpu is not None:
            self._why["gpu"] = machine.gpu

    def _counted(self) -> host.Counters | None:
        try:
            machine = self._machine
            return host.counters(machine.root, machine.pid, machine.clock(), machine.switches(), self._why)
        except Exception as error:
            self._why["host.counters"] = f"{type(error).__name__}: {error}"
            return None

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._guarded(self._sample)
            if len(self._samples) % PROCESSES_EVERY == 0:
                self._guarded(self._look_at_processes)
            self._own_time = self._machine.own_clock()

    def _sample(self) -> None:
        """One reading; a query that fails once is not asked again, so that a device without it costs nothing."""
        machine, sample = self._machine, JsonObject()
        if self._frequency:
            try:
                sample["host_mhz"] = host.running_frequency(machine.root, machine.pid, machine.thread)
            except (OSError, ValueError, IndexError) as error:
                self._frequency = False
                self._why["host.frequency_mhz"] = (
                    f"{getattr(error, 'filename', None) or error} is not readable, as in most virtual machines"
                )
        if isinstance(machine.gpu, nvml.Gpu):
            refused: dict[str, str] = {}
            sample |= nvml.read(machine.gpu, self._queries, refused)
            for name, reason in refused.items():
                del self._queries[name.removeprefix("gpu.")]
                self._why[name] = reason + (f" (after {len(self._samples)} samples)" if self._samples else "")
        self._samples.append(sample)

    def _look_at_processes(self) -> None:
        machine = self._machine
        if isinstance(machine.gpu, nvml.Gpu):
            found = nvml.processes(machine.gpu, (machine.pid,), machine.root, self._why)
            self._others_known |= found is not None
            self._others |= {each["pid"]: each for each in found or ()}

    def summary(self) -> JsonObject:
        """JSON values only; None where something could not be read, with the reason under ``unreadable``. Shares are in 0..1."""
        before, after = self._before, self._after
        why = dict(self._why)
        counted: JsonObject = host.between(before, after, why) if before and after else {}
        seconds = after.moment - before.moment if before and after else None
        cpu = {"frequency_mhz": _spread(self._series("host_mhz")), "threads": self._threads}
        return {
            "seconds": seconds,
            "samples": len(self._samples),
            "interval": self._interval,
            "sampler": {
                "cpu_seconds": self._own_time,
                "cpu_share": self._own_time / seconds if seconds else None,  # of one core
                "failures": self._failures,
            },
            "host": {**self._facts, **cpu, **counted},
            "gpu": self._gpu_summary(),
            "unreadable": why,
        }

    def _series(self, name: str) -> list[float]:
        return [sample[name] for sample in self._samples if name in sample]

    def _gpu_summary(self) -> JsonObject | None:
        if not isinstance(self._machine.gpu, nvml.Gpu):
            return None
        reasons = Counter(word for sample in self._samples for word in sample.get("clock_reasons", ()))
        looked = sum("clock_reasons" in sample for sample in self._samples)
        facts = dict.fromkeys(nvml.FACTS) | (self._gpu_facts or {})
        return {
            **facts,
            "mig": nvml.MIG_NOTE if self._machine.gpu.mig else None,
            **{name: _spread(self._series(name)) for name in SERIES},
            "clock_reasons": {word: count / looked for word, count in reasons.most_common()} if looked else None,
            "other_processes": sorted(self._others.values(), key=lambda each: int(each["pid"])) if self._others_known else None,
        }


def _spread(values: list[float]) -> JsonObject | None:
    """p10 and p90 are what a short dip does not move: the level of a tenth of the samples at either end."""
    if not values:
        return None
    ordered = sorted(values)
    tenth = int(0.1 * (len(ordered) - 1))
    return {
        "min": ordered[0],
        "p10": ordered[tenth],
        "mean": statistics.fmean(ordered),
        "p90": ordered[-1 - tenth],
        "max": ordered[-1],
    }


@contextmanager
def watch(device: str, interval: float = 0.25, *, threads: int | None = None, machine: Machine | None = None) -> Iterator[Watch]:
    """Watch the machine during the block. device: ``cpu`` or ``cuda`` (``cuda:1``); interval: seconds between samples; threads: how many
    the measured code uses, torch's own number where not given. Enter it in the thread that measures. Never raises into the block and hides
    none of its exceptions."""
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    watching = Watch(machine or this_machine(device), interval, threads)
    watching.start()
    try:
        yield watching
    finally:
        watching.stop()
