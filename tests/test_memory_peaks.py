"""Peaks of memory, on real allocations and where the system refuses."""

import contextlib
import ctypes
import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from machines import FakeNvml, gpu_of, write

from m2fbench.profiling import memory
from m2fbench.profiling.memory import peak_memory

MB = 10**6


def touched(megabytes: int) -> None:
    """Take that much and give it back."""
    np.ones(megabytes * MB // 8)


@pytest.fixture(autouse=True)
def linux_only() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc/self/clear_refs here")
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # what other tests left free would be taken again, and be no growth
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def test_memory_that_was_freed_again_shows_and_belongs_to_its_block() -> None:
    touched(300)  # an earlier, higher peak
    with peak_memory("cpu") as large:
        touched(200)
    with peak_memory("cpu") as small:
        touched(50)
    assert large.host_growth_bytes == pytest.approx(200 * MB, rel=0.1)
    assert small.host_growth_bytes == pytest.approx(50 * MB, rel=0.1)
    assert large.host_bytes is not None
    assert large.host_bytes > large.host_growth_bytes
    assert large.notes == []
    assert large.device_bytes is None


def test_what_is_held_before_is_not_the_blocks() -> None:
    held = np.ones(100 * MB // 8)
    with peak_memory("cpu") as peak:
        touched(60)
    assert held.size
    assert peak.host_growth_bytes == pytest.approx(60 * MB, rel=0.1)


@pytest.mark.parametrize(("first", "inner", "last", "expected"), [(150, 40, 0, 150), (0, 150, 0, 150), (0, 40, 150, 150)])
def test_blocks_nest(first: int, inner: int, last: int, expected: int) -> None:
    with peak_memory("cpu") as outer:
        touched(first)
        with peak_memory("cpu") as within:
            touched(inner)
        touched(last)
    assert outer.host_growth_bytes == pytest.approx(expected * MB, rel=0.1)
    assert within.host_growth_bytes == pytest.approx(inner * MB, rel=0.1)
    assert memory._blocks == []


def test_exceptions_go_on_and_the_peak_is_filled_in() -> None:
    def fail() -> None:
        touched(50)
        raise MemoryError

    with pytest.raises(MemoryError), peak_memory("cpu") as peak:
        fail()
    assert peak.host_growth_bytes == pytest.approx(50 * MB, rel=0.1)
    assert memory._blocks == []


def refusing(tmp_path: Path) -> Path:
    """A /proc/self whose clear_refs cannot be written (a folder refuses root as well)."""
    write(tmp_path, {"status": "VmHWM:  4000 kB\nVmRSS:  3000 kB"})
    (tmp_path / "clear_refs").mkdir()
    return tmp_path


def test_without_a_reset_the_peak_is_the_process_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([5000 * 1024, 9000 * 1024])
    monkeypatch.setattr(memory, "_lifetime_peak", lambda: next(peaks))
    with peak_memory("cpu", status=refusing(tmp_path)) as peak:
        pass
    assert peak.host_bytes == 9000 * 1024
    assert peak.host_growth_bytes == 6000 * 1024  # a new peak of the process, so it lies in the block
    assert peak.notes[0].startswith("host: the peak since the process began")


def test_without_a_reset_and_under_an_earlier_peak_the_growth_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_lifetime_peak", lambda: 9000)
    with peak_memory("cpu", status=refusing(tmp_path)) as peak:
        pass
    assert (peak.host_bytes, peak.host_growth_bytes) == (9000, None)
    assert "growth unknown" in peak.notes[1]


def test_no_system_call_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_lifetime_peak", lambda: None)
    with peak_memory("cpu", status=tmp_path / "none") as peak:
        pass
    assert peak.host_bytes is None
    assert "tells no peak of resident memory" in peak.notes[0]


class Cuda:
    """torch.cuda with an allocator of numbers."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def is_available(self) -> bool:
        return True

    def take(self, count: int) -> None:
        self.now += count
        self.peak = max(self.peak, self.now)

    def reset_peak_memory_stats(self, device: str) -> None:
        self.peak = self.now

    def memory_allocated(self, device: str) -> int:
        return self.now

    def max_memory_allocated(self, device: str) -> int:
        return self.peak

    def max_memory_reserved(self, device: str) -> int:
        return self.peak + 1000


def test_the_devices_peaks() -> None:
    cuda, gpu = Cuda(), gpu_of(FakeNvml())
    cuda.take(500)
    cuda.take(-400)
    with peak_memory("cuda", torch_memory=cuda, gpu=gpu) as outer:
        cuda.take(70)
        cuda.take(-70)
        with peak_memory("cuda", torch_memory=cuda, gpu=gpu) as inner:
            cuda.take(20)
    assert (inner.device_bytes, inner.device_growth_bytes, inner.device_reserved_bytes) == (120, 20, 1120)
    assert (outer.device_bytes, outer.device_growth_bytes, outer.device_reserved_bytes) == (170, 70, 1170)
    assert outer.device_used_bytes == 6 * 2**30
    assert outer.notes == []


def test_a_device_that_is_not_here_has_no_peak_of_zero() -> None:
    cuda: Any = SimpleNamespace(is_available=lambda: False)
    with peak_memory("cuda", torch_memory=cuda) as peak:
        pass
    assert (peak.device_bytes, peak.device_growth_bytes, peak.device_used_bytes) == (None, None, None)
    assert peak.notes == ["device: torch finds no CUDA device"]


def test_a_device_that_refuses_does_not_end_the_measurement() -> None:
    cuda = Cuda()
    cuda.max_memory_reserved = lambda device: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with peak_memory("cuda", torch_memory=cuda, gpu="no driver") as peak:
        pass
    assert (peak.device_bytes, peak.device_reserved_bytes) == (0, None)
    assert peak.notes == ["device: division by zero", "device used: no driver"]


def test_blocks_alike_are_told_apart() -> None:
    """Two nested blocks in which nothing grows have the same levels; the inner one's end must not end the outer one."""
    with peak_memory("cpu") as outer:
        with peak_memory("cpu"):
            pass
        assert len(memory._blocks) == 1
        touched(80)
    assert outer.host_growth_bytes == pytest.approx(80 * MB, rel=0.1)
    assert memory._blocks == []
