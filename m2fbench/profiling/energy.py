"""Joules per image, from counters of the hardware; nothing is guessed here."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from m2fbench.profiling import nvml
from m2fbench.profiling.meters import Meter

RESOLUTION = 0.01  # a tick may be at most this share of a measurement


@dataclass(frozen=True)
class MeterReading:
    """What one meter counted. joules_per_image: gross; above_idle: the idle power of just before subtracted."""

    name: str
    covers: str
    label: str
    joules: float
    joules_per_image: float
    joules_per_image_above_idle: float | None
    watts: float
    idle_watts: float | None


@dataclass(frozen=True)
class EnergyUse:
    """joules_per_image: the sum over the meters (they do not overlap), None where there is no meter, with the reason."""

    joules_per_image: float | None
    joules_per_image_above_idle: float | None
    watts: float | None
    images: int
    seconds: float
    label: str | None
    resolution: float | None  # the counters' coarsest tick as a share of the measurement
    idle_seconds: float  # over which the idle power was measured, just before
    meters: tuple[MeterReading, ...]
    reasons: tuple[str, ...]  # why a meter is missing


def measure_energy(
    step: Callable[[], object],
    *,
    images: int,
    seconds: float,
    meters: Sequence[Meter],
    reasons: Sequence[str] = (),
    idle_seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> EnergyUse:
    """Call step() again and again, for ``seconds`` and for at least 100 ticks of the coarsest counter. step: one whole pass over ``images``
    images that has waited for the device when it returns; warm it up before. reasons: what ``meters`` said of counters that are not here.

    Before it, nothing is done for ``idle_seconds`` (the model loaded, the device's context open): the idle power, which is reported beside,
    and subtracted only in the figures that say so. A counter that stops answering is left out, with the reason."""
    if images < 1:
        raise ValueError(f"a pass over {images} images has no joules per image")
    why = [*reasons]
    counting = [meter for meter in meters if _answers(meter, why)]
    if not counting:
        return _summed([], 0, 0.0, 0.0, None, why or ["no energy counter was given"])
    tick = max(meter.tick for meter in counting)
    with ExitStack() as stack:
        for meter in counting:
            stack.enter_context(meter.running())
        idle, idle_spent = _idle_watts(counting, idle_seconds, clock, sleep)
        start, before = clock(), _readings(counting)
        passes, until = 0, max(seconds, tick / RESOLUTION)
        while not passes or clock() - start < until:
            step()
            passes += 1
        after, spent = _readings(counting), clock() - start
    done = []
    for meter, then, now in zip(counting, before, after, strict=True):
        if isinstance(then, str) or isinstance(now, str):
            why.append(f"{meter.name}: {then if isinstance(then, str) else now}")
        else:
            done.append(_reading(meter, now - then, passes * images, spent, idle.get(meter.name)))
    return _summed(done, passes * images, spent, idle_spent, tick / spent, why)


def _answers(meter: Meter, why: list[str]) -> bool:
    _, reason = nvml.ask(meter.joules)
    if reason is not None:
        why.append(f"{meter.name}: {reason}")
    return reason is None


def _readings(meters: Sequence[Meter]) -> list[float | str]:
    """Joules of each, or why it stopped telling them."""
    asked = [nvml.ask(meter.joules) for meter in meters]
    return [reason if reason is not None else value for value, reason in asked]


def _idle_watts(
    meters: Sequence[Meter], seconds: float, clock: Callable[[], float], sleep: Callable[[float], object]
) -> tuple[dict[str, float], float]:
    """Watts by meter while nothing is done, and for how long that was."""
    if seconds <= 0:
        return {}, 0.0
    start, before = clock(), _readings(meters)
    sleep(seconds)
    after, spent = _readings(meters), clock() - start
    pairs = zip(meters, before, after, strict=True)
    return {m.name: (now - then) / spent for m, then, now in pairs if not isinstance(then, str) and not isinstance(now, str)}, spent


def _reading(meter: Meter, joules: float, images: int, seconds: float, idle: float | None) -> MeterReading:
    above = (joules - idle * seconds) / images if idle is not None else None
    return MeterReading(meter.name, meter.covers, meter.label, joules, joules / images, above, joules / seconds, idle)


def _summed(
    done: list[MeterReading], images: int, seconds: float, idle_seconds: float, resolution: float | None, why: list[str]
) -> EnergyUse:
    above = [each.joules_per_image_above_idle for each in done]
    known = [each for each in above if each is not None]
    return EnergyUse(
        joules_per_image=sum(each.joules_per_image for each in done) if done else None,
        joules_per_image_above_idle=sum(known) if done and len(known) == len(done) else None,
        watts=sum(each.watts for each in done) if done else None,
        images=images,
        seconds=seconds,
        label=" + ".join(f"{each.name} ({each.label})" for each in done) or None,
        resolution=resolution if done else None,
        idle_seconds=idle_seconds,
        meters=tuple(done),
        reasons=tuple(why),
    )
