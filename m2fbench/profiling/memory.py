"""Peaks of host and device memory of a block of code."""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2fbench.profiling import nvml

RESET_PEAK = "5"  # proc(5), clear_refs: VmHWM becomes what is resident now; Linux 4.0 and newer


@dataclass
class Peak:
    """Filled in when the block ends. Bytes; None where it could not be measured, with the reason in ``notes``. What belongs to the block is
    the growth: the peak above the level at its start, for other models live beside it in the same process."""

    host_bytes: int | None = None  # peak resident memory of this process
    host_growth_bytes: int | None = None  # above the resident memory at the start
    device_bytes: int | None = None  # peak of what torch's tensors take on the device
    device_growth_bytes: int | None = None
    device_reserved_bytes: int | None = None  # peak of what torch's allocator holds, tensors or not
    device_used_bytes: int | None = None  # all processes, contexts and libraries together, by NVML, at the end of the block
    notes: list[str] = field(default_factory=list)


@dataclass(eq=False)  # each is itself, however alike two of them are
class _Open:
    """A block that has begun: levels at its start, and the highest seen before a block inside it set the counters back."""

    host: int | None
    device: int = 0
    highest: dict[str, int] = field(default_factory=dict)

    def note(self, peaks: dict[str, int]) -> None:
        for name, count in peaks.items():
            self.highest[name] = max(self.highest.get(name, 0), count)


_blocks: list[_Open] = []


@contextmanager
def peak_memory(
    device: str, *, status: Path = Path("/proc/self"), torch_memory: Any = None, gpu: nvml.Gpu | str | None = None
) -> Iterator[Peak]:
    """Measure the peaks of the block. device: ``cpu`` or ``cuda`` (``cuda:1``). Blocks may nest; not from several threads.

    Memory that an allocator kept from earlier use is no growth: a second pass over the same image shows less than the first.
    status: the folder of this process under /proc; torch_memory: torch.cuda; gpu: an open device for NVML, opened here where not given
    (which takes milliseconds, outside the block)."""
    peak = Peak()
    if device.startswith("cuda") and torch_memory is None:
        import torch

        torch_memory = torch.cuda
    if torch_memory is not None and not torch_memory.is_available():
        peak.notes.append("device: torch finds no CUDA device")
        device = "cpu"  # torch's counters would answer 0
    peaks = _Peaks(status, torch_memory if device.startswith("cuda") else None, device, peak)
    for outer in _blocks:
        outer.note(peaks.now())
    before = _lifetime_peak()
    resettable = peaks.reset()
    block = _Open(_resident(status, "VmRSS"), peaks.allocated())
    _blocks.append(block)
    try:
        yield peak
    finally:
        block.note(peaks.now())
        _blocks.remove(block)
        for outer in _blocks:
            outer.note(block.highest)
        _fill_host(peak, block, resettable, before)
        _fill_device(peak, block, device, gpu)


@dataclass
class _Peaks:
    """The peaks since the last reset, wherever they are read from."""

    status: Path
    cuda: Any
    device: str
    told: Peak

    def reset(self) -> bool:
        """Whether the host's peak could be set back."""
        if self.cuda is not None:
            self._guarded(lambda: self.cuda.reset_peak_memory_stats(self.device))
        try:
            (self.status / "clear_refs").write_text(RESET_PEAK)
        except OSError:
            return False
        return _resident(self.status, "VmHWM") is not None

    def now(self) -> dict[str, int]:
        found = {"host": _resident(self.status, "VmHWM")}
        if self.cuda is not None:
            found["device"] = self._guarded(lambda: int(self.cuda.max_memory_allocated(self.device)))
            found["reserved"] = self._guarded(lambda: int(self.cuda.max_memory_reserved(self.device)))
        return {name: count for name, count in found.items() if count is not None}

    def allocated(self) -> int:
        return self._guarded(lambda: int(self.cuda.memory_allocated(self.device))) or 0 if self.cuda is not None else 0

    def _guarded(self, query: Callable[[], Any]) -> Any:
        value, reason = nvml.ask(query)
        if reason is not None and f"device: {reason}" not in self.told.notes:
            self.told.notes.append(f"device: {reason}")
        return value


def _resident(status: Path, name: str) -> int | None:
    """VmRSS (resident now) or VmHWM (its peak) in bytes; None where there is no /proc."""
    try:
        lines = (status / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _lifetime_peak() -> int | None:
    """The peak since the process began; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if platform.system() == "Darwin" else used * 1024  # macOS counts bytes, Linux kibibytes


def _fill_host(peak: Peak, block: _Open, resettable: bool, before: int | None) -> None:
    if resettable:
        peak.host_bytes = block.highest["host"]
        if block.host is not None:
            peak.host_growth_bytes = max(0, peak.host_bytes - block.host)
        return
    after = _lifetime_peak()
    if before is None or after is None:
        peak.notes.append(f"host: {platform.system()} tells no peak of resident memory")
        return
    peak.host_bytes = after
    peak.notes.append(
        "host: the peak since the process began, for it cannot be set back (/proc/self/clear_refs); the block's may be lower"
    )
    if after > before and block.host is not None:
        peak.host_growth_bytes = after - block.host  # a new peak: it lies in the block
    else:
        peak.notes.append(
            "host: growth unknown, the block stayed under an earlier peak or the level at its start could not be read"
        )


def _fill_device(peak: Peak, block: _Open, device: str, gpu: nvml.Gpu | str | None) -> None:
    if not device.startswith("cuda"):
        return
    peak.device_bytes, peak.device_reserved_bytes = block.highest.get("device"), block.highest.get("reserved")
    if peak.device_bytes is not None:
        peak.device_growth_bytes = peak.device_bytes - block.device
    opened = nvml.open_gpu(nvml.torch_identity(device)) if gpu is None else gpu
    used, reason = (None, opened) if isinstance(opened, str) else nvml.ask(nvml.used_bytes, opened)
    peak.device_used_bytes = used
    if reason is not None:
        peak.notes.append(f"device used: {reason}")
    if gpu is None:
        nvml.close(opened)
