"""Energy counters of the hardware.

NVIDIA boards count millijoules themselves (Volta and newer); where one does not, its power is sampled and integrated. Processors count
microjoules in RAPL domains (Linux, /sys/class/powercap). The domains used do not overlap: whole packages, and DRAM beside them; cores and
graphics lie inside the package, ``psys`` would hold all of it again.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from m2fbench.profiling import nvml

MEASURED = "measured"
NVML_TICK = 0.1  # seconds; boards update their energy counter every 20 to 100 ms
RAPL_TICK = 0.001
SAMPLE_POWER_EVERY = 0.05
LOOK_FOR_WRAP_EVERY = 60.0  # 2**38 microjoules last 20 minutes at 200 W
MIRRORED = 1_000_000  # microjoules between two readings of one counter under two names
LET_READ = "let it be read: sudo chmod a+r /sys/class/powercap/*/energy_uj (until the next boot)"


@dataclass(frozen=True)
class Meter:
    """One energy counter. joules: since some fixed moment, monotonic (wraparound is unrolled). tick: seconds between its updates, at most."""

    name: str  # "nvml", "rapl package-0", "rapl package-0 dram"
    covers: str  # what the figure contains, for people
    label: str  # "measured", or "measured, integrated from power samples every N ms"
    joules: Callable[[], float]
    tick: float
    running: Callable[[], AbstractContextManager[object]] = nullcontext  # what has to go on while it counts


@contextmanager
def meters(device: str, *, root: Path = Path("/"), gpu: nvml.Gpu | str | None = None) -> Iterator[tuple[list[Meter], list[str]]]:
    """The counters that are here, and why others are not. device: ``cpu`` (RAPL) or ``cuda`` (NVML, and RAPL for the host beside it).
    root: of the tree that holds /sys; gpu: an open device, opened here where not given."""
    found, reasons = rapl_meters(root)
    opened = nvml.open_gpu(nvml.torch_identity(device)) if gpu is None and device.startswith("cuda") else gpu
    try:
        if opened is not None:
            meter = opened if isinstance(opened, str) else nvml_meter(opened)
            found, reasons = ([meter, *found], reasons) if isinstance(meter, Meter) else (found, [f"nvml: {meter}", *reasons])
        yield found, reasons
    finally:
        if gpu is None and opened is not None:
            nvml.close(opened)


def nvml_meter(gpu: nvml.Gpu, clock: Callable[[], float] = time.perf_counter) -> Meter | str:
    """The board's energy counter, else its power integrated, else why it has neither."""
    covers = "the whole board with its memory" + (", other MIG instances included" if gpu.mig else "")
    _, reason = nvml.ask(nvml.joules, gpu)
    if reason is None:
        return Meter("nvml", covers, MEASURED, lambda: nvml.joules(gpu), NVML_TICK)
    _, no_power = nvml.ask(nvml.watts, gpu)
    if no_power is not None:
        return f"no energy counter ({reason}) and no power reading ({no_power})"
    integral = _Integral(lambda: nvml.watts(gpu), clock)
    label = f"{MEASURED}, integrated from power samples every {SAMPLE_POWER_EVERY * 1000:.0f} ms"
    return Meter("nvml", covers, label, integral.joules, NVML_TICK, integral.running)


@dataclass
class _Integral:
    """Power integrated over time by trapezes, by a thread of its own while ``running``."""

    watts: Callable[[], float]
    clock: Callable[[], float]
    total: float = 0.0
    last: tuple[float, float] | None = None
    failure: Exception | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def joules(self) -> float:
        if self.failure is not None:
            raise self.failure
        with self.lock:
            power, moment = self.watts(), self.clock()
            if self.last is not None:
                self.total += (power + self.last[0]) / 2 * (moment - self.last[1])
            self.last = power, moment
            return self.total

    @contextmanager
    def running(self) -> Iterator[None]:
        self.last = self.failure = None
        with _read_every(SAMPLE_POWER_EVERY, self.joules, self.fail):
            yield

    def fail(self, error: Exception) -> None:
        self.failure = error  # the next reading raises it where it is reported


@contextmanager
def _read_every(seconds: float, joules: Callable[[], float], failed: Callable[[Exception], None]) -> Iterator[None]:
    """A thread that reads the counter while the block runs; it ends with the block, or with its first failure."""
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(seconds):
            try:
                joules()
            except Exception as error:
                failed(error)
                return

    thread = threading.Thread(target=read, name="m2fbench-meter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def rapl_meters(root: Path = Path("/")) -> tuple[list[Meter], list[str]]:
    """A meter for every package and its DRAM that can be read, and why others cannot."""
    base = root / "sys/class/powercap"
    found: list[Meter] = []
    reasons: list[str] = []
    counters: dict[str, _Unrolled] = {}
    for zone in sorted(base.glob("intel-rapl:*")):  # AMD's as well; intel-rapl-mmio shows the same packages again
        kind, package = _domain(zone), _domain(base / zone.name.rpartition(":")[0])
        if kind.startswith("package"):
            name, covers = f"rapl {kind}", f"processor {kind}: its cores, caches and graphics, whoever uses them"
        elif kind == "dram":
            name, covers = f"rapl {package} dram", "the memory of that package, whoever uses it"
        else:
            continue
        try:
            counter = _Unrolled(zone)
        except PermissionError:
            reasons.append(f"{name}: only root may read {zone / 'energy_uj'}; {LET_READ}")
            continue
        except (OSError, ValueError) as error:
            reasons.append(f"{name}: {error}")
            continue
        twin = next((other for other, seen in counters.items() if seen.mirrors(counter)), None)
        if twin is not None:
            reasons.append(f"{name}: shows the counter of {twin} again")  # dies of one package, on some AMD processors
            continue
        counters[name] = counter
        found.append(Meter(name, covers, MEASURED, counter.joules, RAPL_TICK, counter.running))
    if not found and not reasons:
        reasons.append(f"rapl: no package under {base} (another system than Linux, a virtual machine, or a processor without it)")
    return found, reasons


def _domain(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return zone.name


class _Unrolled:
    """A RAPL counter whose wraps are added up, as long as it is read at least once in each."""

    def __init__(self, zone: Path) -> None:
        self._path = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text())
        self._first = self._last = int(self._path.read_text())
        self._total = 0
        self._lock = threading.Lock()

    def mirrors(self, later: "_Unrolled") -> bool:
        """Whether the other, read just after, is this counter under another name."""
        return self._first > 0 and 0 <= later._first - self._first <= MIRRORED

    def joules(self) -> float:
        with self._lock:
            now = int(self._path.read_text())
            grown = now - self._last
            self._total += grown if grown >= 0 else grown + self._range
            self._last = now
            return self._total / 1e6

    def running(self) -> AbstractContextManager[None]:
        return _read_every(
            LOOK_FOR_WRAP_EVERY, self.joules, lambda error: None
        )  # the reading at the end fails as well, and is reported
