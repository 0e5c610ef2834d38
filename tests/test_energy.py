"""Joules per image on synthetic counters whose truth is known, and the counters themselves."""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from machines import FakeNvml, gpu_of, write

from m2fbench.profiling import meters as metering
from m2fbench.profiling.energy import EnergyUse, measure_energy
from m2fbench.profiling.meters import MEASURED, Meter, meters, nvml_meter, rapl_meters

RANGE = 262_143_328_850  # microjoules, of an Intel package


class Board:
    """A clock that only moves when told, and a board that draws ``idle`` watts, ``busy`` watts in a pass of ``length`` seconds. Its
    counter shows the energy of the last whole tick."""

    def __init__(self, idle: float = 80, busy: float = 300, length: float = 0.5, tick: float = 0.1) -> None:
        self.idle, self.busy, self.length, self.tick = idle, busy, length, tick
        self.now, self.passes = 1000.0, 0
        self.history: list[tuple[float, float, float]] = [(0.0, self.now, idle)]  # from, to, watts

    def clock(self) -> float:
        return self.now

    def go(self, seconds: float, watts: float) -> None:
        self.history.append((self.now, self.now + seconds, watts))
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        self.go(seconds, self.idle)

    def step(self) -> None:
        self.passes += 1
        self.go(self.length, self.busy)

    def joules(self) -> float:
        until = int(self.now / self.tick + 1e-6) * self.tick
        return sum(max(0.0, min(end, until) - start) * watts for start, end, watts in self.history)

    def measure(self, seconds: float = 5, images: int = 4, **options: Any) -> EnergyUse:
        meter = Meter("nvml", "the board", MEASURED, self.joules, self.tick)
        options = {"meters": [meter]} | options
        return measure_energy(self.step, images=images, seconds=seconds, clock=self.clock, sleep=self.sleep, **options)


def test_known_joules_come_out() -> None:
    board = Board()
    use = board.measure(seconds=20)
    assert (board.passes, use.images, use.seconds) == (40, 160, pytest.approx(20))
    assert use.watts == pytest.approx(300)
    assert use.joules_per_image == pytest.approx(300 * 0.5 / 4)  # gross: nothing is subtracted
    assert use.joules_per_image_above_idle == pytest.approx(220 * 0.5 / 4)
    (reading,) = use.meters
    assert (reading.joules, reading.idle_watts) == (pytest.approx(6000), pytest.approx(80))
    assert (use.label, use.reasons, use.idle_seconds) == ("nvml (measured)", (), pytest.approx(3))


@pytest.mark.parametrize("length", [0.013, 0.37, 1.7])
@pytest.mark.parametrize("tick", [0.02, 0.1])
def test_the_counters_ticks_cost_at_most_one_percent(length: float, tick: float) -> None:
    """However short it was asked for, it goes on for 100 ticks, and in whole passes."""
    board = Board(length=length, tick=tick)
    use = board.measure(seconds=0.01)
    assert use.seconds >= 100 * tick - 1e-6
    assert use.seconds == pytest.approx(board.passes * length)
    assert use.resolution == pytest.approx(tick / use.seconds)
    assert use.resolution <= 0.01 + 1e-9
    assert use.joules_per_image == pytest.approx(300 * length / 4, rel=0.01)


def test_without_a_counter_there_is_a_reason_and_no_work() -> None:
    board = Board()
    use = board.measure(meters=[], reasons=["rapl: no package here"])
    assert (use.joules_per_image, use.watts, use.label, use.reasons) == (None, None, None, ("rapl: no package here",))
    assert board.passes == 0
    assert board.measure(meters=[]).reasons == ("no energy counter was given",)


def failing_after(board: Board, readings: int) -> Callable[[], float]:
    left = iter(range(readings))

    def joules() -> float:
        if next(left, None) is None:
            raise OSError("device lost")
        return board.joules()

    return joules


@pytest.mark.parametrize("readings", [0, 1, 2, 3, 4])
def test_a_counter_that_stops_answering_is_left_out(readings: int) -> None:
    """Whenever it stops: at first, in the idle seconds, at the start, at the end."""
    board = Board()
    good = Meter("rapl package-0", "the package", MEASURED, board.joules, 0.001)
    lost = Meter("nvml", "the board", MEASURED, failing_after(board, readings), 0.1)
    use = board.measure(seconds=20, meters=[lost, good])
    assert [each.name for each in use.meters] == ["rapl package-0"]
    assert use.reasons == ("nvml: device lost",)
    assert use.joules_per_image == pytest.approx(37.5)


def test_meters_add_up_and_without_idle_nothing_is_above_it() -> None:
    board = Board()
    both = [Meter(name, name, MEASURED, board.joules, 0.1) for name in ("nvml", "rapl package-0")]
    use = board.measure(seconds=20, meters=both, idle_seconds=0)
    assert use.joules_per_image == pytest.approx(75)
    assert use.joules_per_image_above_idle is None
    assert use.label == "nvml (measured) + rapl package-0 (measured)"


def test_what_the_passes_raise_goes_on_and_meters_are_stopped() -> None:
    running = []

    @contextmanager
    def counting() -> Any:
        running.append("begun")
        try:
            yield
        finally:
            running.append("ended")

    board = Board()
    with pytest.raises(ZeroDivisionError):
        measure_energy(
            lambda: 1 / 0, images=1, seconds=1, meters=[Meter("m", "", MEASURED, board.joules, 0.1, counting)], clock=board.clock, sleep=board.sleep
        )  # fmt: skip
    assert running == ["begun", "ended"]
    with pytest.raises(ValueError, match="0 images"):
        board.measure(images=0)


def powercap(root: Path, zones: dict[str, tuple[str, int]]) -> Path:
    for zone, (name, count) in zones.items():
        write(root / "sys/class/powercap" / zone, {"name": name, "energy_uj": count, "max_energy_range_uj": RANGE})
    return root


def set_counter(root: Path, zone: str, count: int) -> None:
    write(root, {f"sys/class/powercap/{zone}/energy_uj": count})


def test_rapl_domains_do_not_overlap(tmp_path: Path) -> None:
    powercap(
        tmp_path,
        {
            "intel-rapl:0": ("package-0", 5_000_000),
            "intel-rapl:0:0": ("core", 4_000_000),
            "intel-rapl:0:1": ("dram", 7_000_000),
            "intel-rapl:1": ("package-1", 90_000_000),
            "intel-rapl:2": ("psys", 500_000_000),
            "intel-rapl-mmio:0": ("package-0", 5_000_000),
        },
    )
    found, reasons = rapl_meters(tmp_path)
    assert [meter.name for meter in found] == ["rapl package-0", "rapl package-0 dram", "rapl package-1"]
    assert reasons == []
    set_counter(tmp_path, "intel-rapl:0", 8_500_000)
    set_counter(tmp_path, "intel-rapl:0:1", 7_250_000)
    assert [meter.joules() for meter in found] == [3.5, 0.25, 0.0]


def test_rapl_wraps_are_added_up(tmp_path: Path) -> None:
    (meter,), _ = rapl_meters(powercap(tmp_path, {"intel-rapl:0": ("package-0", RANGE - 1_000_000)}))
    for count in (2_000_000, RANGE - 500_000, 1_500_000):
        set_counter(tmp_path, "intel-rapl:0", count)
        joules = meter.joules()
    assert joules == pytest.approx((RANGE + RANGE + 1_500_000 - (RANGE - 1_000_000)) / 1e6)


def test_wraps_during_one_long_pass_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread reads on while the passes run: two wraps between the readings at both ends count twice."""
    monkeypatch.setattr(metering, "LOOK_FOR_WRAP_EVERY", 0.002)
    (meter,), _ = rapl_meters(powercap(tmp_path, {"intel-rapl:0": ("package-0", 0)}))
    counter, seen = meter.joules.__self__, threading.Event()  # type: ignore[attr-defined]
    with meter.running():
        for count in (RANGE - 10, 10, RANGE - 10, 10):
            path = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
            (tmp_path / "next").write_text(str(count))
            (tmp_path / "next").replace(path)  # never seen half written
            for _ in range(1000):
                if counter._last == count:
                    break
                seen.wait(0.005)
            assert counter._last == count
    assert meter.joules() == pytest.approx((2 * RANGE + 10) / 1e6)
    assert not [thread for thread in threading.enumerate() if thread.name == "m2fbench-meter"]


def test_one_counter_under_several_names_counts_once(tmp_path: Path) -> None:
    zones = {"intel-rapl:0": ("package-0-die-0", 90_000_000), "intel-rapl:1": ("package-0-die-1", 90_000_400)}
    found, reasons = rapl_meters(powercap(tmp_path, zones))
    assert [meter.name for meter in found] == ["rapl package-0-die-0"]
    assert reasons == ["rapl package-0-die-1: shows the counter of rapl package-0-die-0 again"]


def test_permission_denied_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    powercap(tmp_path, {"intel-rapl:0": ("package-0", 5)})
    real = Path.read_text

    def denied(self: Path, *arguments: Any, **options: Any) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    found, (reason,) = rapl_meters(tmp_path)
    assert found == []
    assert reason.startswith("rapl package-0: only root may read ")
    assert reason.endswith("sudo chmod a+r /sys/class/powercap/*/energy_uj (until the next boot)")


def test_a_machine_without_rapl(tmp_path: Path) -> None:
    found, (reason,) = rapl_meters(tmp_path)
    assert found == []
    assert reason.startswith("rapl: no package under ")


def test_the_boards_counter(tmp_path: Path) -> None:
    fake = FakeNvml()
    meter = nvml_meter(gpu_of(fake))
    assert isinstance(meter, Meter)
    fake.values["nvmlDeviceGetTotalEnergyConsumption"] = 12_345
    assert (meter.label, meter.joules()) == ("measured", 12.345)
    mig = nvml_meter(gpu_of(FakeNvml(mig="handle")))
    assert isinstance(mig, Meter)
    assert mig.covers == "the whole board with its memory, other MIG instances included"


def test_power_is_integrated_where_there_is_no_counter() -> None:
    """Trapezes over a power that falls from 300 W to 100 W and stays there."""
    moments, power = (
        iter([0.0, 1.0, 2.0, 4.0]),
        iter([0, 300_000, 100_000, 100_000, 100_000]),
    )  # the first only asks whether it can be read
    fake = FakeNvml(refused=("nvmlDeviceGetTotalEnergyConsumption",), nvmlDeviceGetPowerUsage=lambda: next(power))
    meter = nvml_meter(gpu_of(fake), clock=lambda: next(moments))
    assert isinstance(meter, Meter)
    assert meter.label == "measured, integrated from power samples every 50 ms"
    assert [meter.joules() for _ in range(4)] == [0, 200, 300, 500]


def test_the_thread_that_samples_power_runs_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "SAMPLE_POWER_EVERY", 0.001)
    fake, often = FakeNvml(refused=("nvmlDeviceGetTotalEnergyConsumption",)), threading.Event()
    asked = 0

    def power() -> int:
        nonlocal asked
        asked += 1
        if asked > 20:
            often.set()
        if asked > 25:
            raise RuntimeError("device lost")
        return 100_000

    fake.values["nvmlDeviceGetPowerUsage"] = power
    meter = nvml_meter(gpu_of(fake))
    assert isinstance(meter, Meter)
    with meter.running():
        assert often.wait(10)
        threads = [thread for thread in threading.enumerate() if thread.name == "m2fbench-meter"]
        for thread in threads:
            thread.join(10)  # it ends at its first failure
    assert len(threads) == 1
    assert not threads[0].is_alive()
    with pytest.raises(RuntimeError, match="device lost"):
        meter.joules()


def test_a_board_without_either_is_said() -> None:
    refused = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    reason = "no energy counter (Not Supported) and no power reading (Not Supported)"
    assert nvml_meter(gpu_of(FakeNvml(refused=refused))) == reason


def test_the_counters_of_a_device_and_its_host(tmp_path: Path) -> None:
    powercap(tmp_path, {"intel-rapl:0": ("package-0", 5)})
    fake = FakeNvml()
    with meters("cuda", root=tmp_path, gpu=gpu_of(fake)) as (found, reasons):
        assert [meter.name for meter in found] == ["nvml", "rapl package-0"]
        assert reasons == []
    with meters("cuda", root=tmp_path, gpu="torch finds no CUDA device") as (found, reasons):
        assert [meter.name for meter in found] == ["rapl package-0"]
        assert reasons == ["nvml: torch finds no CUDA device"]
    with meters("cpu", root=tmp_path) as (found, reasons):
        assert [meter.name for meter in found] == ["rapl package-0"]
        assert reasons == []
