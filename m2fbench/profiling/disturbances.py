"""What disturbed a measurement, in one line each: pure functions over what telemetry saw and over the latencies themselves."""

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from m2fbench.profiling.nvml import IDLE
from m2fbench.types import JsonObject

OTHERS = 0.05  # share of all cores' time that other processes may use
STEAL = 0.01
CLOCK_MOVES = 0.05  # between the levels of the lowest and the highest tenth of samples
SAMPLER = 0.01  # of one core, our own sampling thread
SHORTEST_SERIES = 20  # below it even a perfect order has a p of more than ALPHA
ALPHA = 0.002
DRIFT = 0.02  # a smaller change turns no comparison over

HELD_BACK = {  # clock event reason -> what it means and what to do; others (idle, clocks that somebody set) are no disturbance
    "power cap": ("the board is at its power limit and lowers its clocks", "compare only with runs at the same limit, or raise it"),
    "software thermal slowdown": ("the device is hot and lowers its clocks", "cool it or pause between runs, and measure again"),
    "hardware thermal slowdown": ("the device is too hot and halves its clocks or worse", "cool it and measure again"),
    "hardware slowdown": (
        "the board forced its clocks down (heat, power or its supply)",
        "check cooling and power supply, and measure again",
    ),
    "hardware power brake": ("the system's power supply forced the clocks down", "check the power supply, and measure again"),
    "sync boost": ("a group of devices runs at the clock of its slowest", "take the device out of the group"),
    "board limit": ("the board's voltage or current limit lowers the clocks", "compare only with runs on the same board"),
    "reliability": ("the voltage limit for reliability lowers the clocks", "compare only with runs on the same board"),
}


def disturbances(summary: JsonObject) -> list[str]:
    """One line each: what was seen, why it matters, what to do. summary: ``Watch.summary()``. Empty: nothing that could be read disturbed;
    what could not be read stands under ``unreadable`` there."""
    return [*_of_gpu(summary.get("gpu") or {}), *_of_host(summary.get("host") or {}), *_of_sampler(summary)]


def _of_gpu(gpu: JsonObject) -> Iterator[str]:
    for reason, share in (gpu.get("clock_reasons") or {}).items():
        if reason != IDLE and reason in HELD_BACK:
            meaning, remedy = HELD_BACK[reason]
            yield f"throttling: {reason} in {share:.0%} of the samples; {meaning}; {remedy}"
    others = gpu.get("other_processes") or []
    if others:
        listed = ", ".join(f"{each['name'] or 'unnamed'} (pid {each['pid']}, {_mebibytes(each['bytes'])})" for each in others[:5])
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield f"other processes on the device: {listed}{more}; they take its time and memory; end them or measure on another device"
    for name, what in (("sm_mhz", "SM clock"), ("memory_mhz", "memory clock")):
        yield from _moved(gpu.get(name), f"the device's {what}", "lock the clocks (nvidia-smi -lgc, -lmc) or warm up for longer")


def _of_host(host: JsonObject) -> Iterator[str]:
    share, cores = host.get("others_share"), host.get("others_cores")
    if share is not None and share > OTHERS:
        yield (
            f"other processes used {cores:.1f} cores, {share:.0%} of the machine (allowed {OTHERS:.0%}); "
            "they slow the measured code and its clocks; stop them and measure again"
        )
    steal = host.get("steal_share")
    if steal is not None and steal > STEAL:
        yield (
            f"steal {steal:.1%} (allowed {STEAL:.0%}): the hypervisor gave our cores to other machines; "
            "times are too long by an unknown part; measure on a machine of your own"
        )
    swapped = {way: host.get(f"swapped_{way}_bytes") or 0 for way in ("in", "out")}
    if any(swapped.values()):
        yield (
            f"the machine swapped {_mebibytes(swapped['in'])} in and {_mebibytes(swapped['out'])} out; "
            "a page from disk costs more than an image; free memory and measure again"
        )
    throttled = host.get("quota_throttled_seconds")
    if throttled:
        yield (
            f"the container's CPU quota ({host.get('quota_cores')} cores) stopped us for {throttled:.2f} core seconds; "
            "times hold the pauses; raise the quota or use fewer threads"
        )
    yield from _of_settings(host)
    yield from _moved(host.get("frequency_mhz"), "the processor's clock", "fix it (cpupower frequency-set) or warm up for longer")


def _of_settings(host: JsonObject) -> Iterator[str]:
    threads, cores = host.get("threads"), host.get("usable_cores")
    if threads is not None and cores is not None and threads > cores:
        yield f"{threads} threads on {cores:g} usable cores; they wait for one another; set OMP_NUM_THREADS={max(1, int(cores))}"
    if "powersave" in (host.get("governor") or ""):
        driver = host.get("frequency_driver")
        dynamic = driver in ("intel_pstate", "amd-pstate-epp")  # whose powersave is not the lowest clock
        meaning = f"with {driver} clocks follow the load late" if dynamic else "clocks stay at their lowest"
        yield f"CPU governor powersave; {meaning}; set it to performance (cpupower frequency-set -g performance)"
    if host.get("on_battery"):
        yield "on battery; clocks are lowered to save it; connect the power supply"


def _of_sampler(summary: JsonObject) -> Iterator[str]:
    share = (summary.get("sampler") or {}).get("cpu_share")
    if share is not None and share > SAMPLER:
        yield f"our own sampling used {share:.1%} of a core (allowed {SAMPLER:.0%}); it takes time from the measured code; sample less often"


def _moved(spread: JsonObject | None, what: str, remedy: str) -> Iterator[str]:
    if spread and spread["p90"] > 0 and (spread["p90"] - spread["p10"]) / spread["p90"] > CLOCK_MOVES:
        low, high = spread["p10"], spread["p90"]
        yield f"{what} moved between {low:.0f} and {high:.0f} MHz ({(high - low) / high:.0%}); latencies moved with it; {remedy}"


def _mebibytes(count: float | None) -> str:
    return "memory unknown" if count is None else f"{count / 2**20:.0f} MiB"


def drift(latencies: Sequence[float]) -> str | None:
    """One line where the series trends or steps by more than its noise explains, else None. latencies: in the order of measurement, of one
    image size, or each divided by the median of its size. Fewer than 20 cannot show a drift.

    Pettitt's rank test for a change at an unknown place (A. N. Pettitt, Applied Statistics 28, 1979), which a trend fails as well; ranks, so
    that outliers of any height count once. Its statistic is deflated by what the noise repeats from one value to the next, and a change of
    less than 2 % between the medians of the first and the last third is let pass."""
    values = [value for value in latencies if math.isfinite(value)]
    count = len(values)
    if count < SHORTEST_SERIES:
        return None
    ranks = _ranks(values)
    sums = [abs(2 * total - place * (count + 1)) for place, total in enumerate(accumulate(ranks), 1)]
    largest = max(sums[:-1])
    split = sums.index(largest) + 1
    step, trend = _without_step(ranks, split), _without_trend(ranks)
    stepped = _square(step) <= _square(trend)
    exponent = 6 * largest**2 / (count**3 + count**2) / _inflation(step if stepped else trend)
    third = count // 3
    first, last = (values[:split], values[split:]) if stepped else (values[:third], values[-third:])
    early, late = statistics.median(first), statistics.median(last)
    if 2 * math.exp(-exponent) > ALPHA or early <= 0 or abs(late / early - 1) < DRIFT:
        return None
    change = f"{abs(late / early - 1):.1%} {'slower' if late > early else 'faster'}"
    what = (
        f"a step after {split} of {count}: {change} from there on"
        if stepped
        else f"a trend: the last third is {change} than the first"
    )
    return f"latencies drift, {what}; their mean depends on when it was taken; find the cause, warm up for longer and measure again"


def _ranks(values: list[float]) -> list[float]:
    """1 for the smallest; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + 1 + end) / 2
        start = end
    return ranks


def _without_step(series: list[float], split: int) -> list[float]:
    early, late = statistics.fmean(series[:split]), statistics.fmean(series[split:])
    return [value - (early if place < split else late) for place, value in enumerate(series)]


def _without_trend(series: list[float]) -> list[float]:
    slope, level = statistics.linear_regression(range(len(series)), series)
    return [value - level - slope * place for place, value in enumerate(series)]


def _square(series: list[float]) -> float:
    return math.fsum(value * value for value in series)


def _inflation(rest: list[float]) -> float:
    """How much wider sums of the series spread than those of independent values: (1+r)/(1-r) of the correlation of neighbours, r in 0..0.5
    (more is rather the drift's own curve than noise)."""
    square = _square(rest)
    if square == 0:
        return 1.0
    r = min(0.5, max(0.0, math.fsum(a * b for a, b in pairwise(rest)) / square))
    return (1 + r) / (1 - r)
