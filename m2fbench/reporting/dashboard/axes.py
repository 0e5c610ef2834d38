"""Scales of a chart: what is shown from where to where, and where its ticks stand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from m2fbench.analysis.series import Detection, Point
from m2fbench.reporting.dashboard.naming import instant

_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360)
_DAYS = (1, 2, 7, 14)
_FIRST, _LAST = -62135596800.0, 253402300799.0  # of what dates can be written, in seconds since 1970
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)


@dataclass(frozen=True)
class Frame:
    """Nights from ``first`` on. start, end: seconds since 1970; low, high: figures at the lower and the upper edge."""

    first: int
    start: float
    end: float
    low: float
    high: float

    def x(self, seconds: float) -> float:
        """0 at the left edge to 1 at the right."""
        return (seconds - self.start) / (self.end - self.start)

    def y(self, value: float) -> float:
        """0 at the upper edge to 1 at the lower; what lies beyond stands at the edge."""
        return min(max((self.high - value) / (self.high - self.low), 0.0), 1.0)

    def beyond(self, value: float) -> bool:
        return not self.low <= value <= self.high


def seconds_of(points: Sequence[Point]) -> list[float]:
    """Of every point; one whose time cannot be read stands where the one before it does."""
    found: list[float] = []
    for point in points:
        at = instant(point.time)
        found.append((found[-1] if found else 0.0) if math.isnan(at) else at)
    return found


def frame_of(
    points: Sequence[Point],
    detection: Detection,
    seconds: Sequence[float],
    first: int,
    levels: Sequence[float],
    *,
    intervals: bool = True,
) -> Frame:
    """The last nights from ``first`` on. Outliers and intervals may widen what is shown, but not so that the nights cannot be told apart.
    intervals: whether they are shown at all."""
    shown = range(first, len(points))
    plain = [points[i].value for i in shown if detection.states[i] != "outlier" and not points[i].disturbed]
    values = [v for v in plain if not math.isnan(v)] or [points[i].value for i in shown if not math.isnan(points[i].value)]
    values += [level for level in levels if values]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    spread = (high - low) or abs(high) * 0.01 or 1.0
    ends = ((points[i].value, points[i].low, points[i].high) if intervals else (points[i].value,) for i in shown)
    every = [v for night in ends for v in night if not math.isnan(v)]
    low, high = max(min([*every, low]), low - 0.7 * spread), min(max([*every, high]), high + 0.7 * spread)
    margin = 0.07 * max(high - low, spread)
    start, end = seconds[first], seconds[-1]
    span = end - start
    side = max(span * (0.015 if span > 10 * 86400 else 0.05), 30.0) if span else 21600.0
    return Frame(first, max(start - side, _FIRST), min(end + side, _LAST), low - margin, high + margin)


def value_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values between the two, at most so many."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if (high - low) / (power * m) <= most)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def time_ticks(start: float, end: float, most: int = 7) -> list[tuple[float, str]]:
    """(seconds, label) of the first of months, of days where there are few, or of minutes within a few days, at most so many."""
    days = (end - start) / 86400
    if days < 2:
        return _minute_ticks(start, end, next((step for step in _MINUTES if days * 1440 / step <= most), 720))
    for step in _DAYS:
        if days / step <= most:
            return _day_ticks(start, end, step)
    for step in _MONTHS:
        found = _month_ticks(start, end, step)
        if len(found) <= most:
            return found
    return [(start, _date(start, "%Y")), (end, _date(end, "%Y"))]


def _minute_ticks(start: float, end: float, step: int) -> list[tuple[float, str]]:
    """Minutes that are multiples of the step, the first of them and midnight with their day."""
    every = range(math.ceil(start / 60 / step) * step, math.floor(end / 60) + 1, step)
    forms = ("%b %-d" if not minute % 1440 else "%b %-d %H:%M" if minute == every[0] else "%H:%M" for minute in every)
    return [(minute * 60.0, _date(minute * 60.0, form)) for minute, form in zip(every, forms, strict=True)]


def _day_ticks(start: float, end: float, step: int) -> list[tuple[float, str]]:
    first = math.ceil(start / 86400 / step) * step
    last = math.floor(end / 86400)
    return [(day * 86400.0, _date(day * 86400.0, "%b %-d")) for day in range(first, last + 1, step)]


def _month_ticks(start: float, end: float, step: int) -> list[tuple[float, str]]:
    begin = _moment(start)
    number = max((begin.year * 12 + begin.month - 1) // step * step, 12)
    found: list[tuple[float, str]] = []
    while number // 12 <= 9999:
        at = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
        if at.timestamp() > end:
            return found
        if at.timestamp() >= start:
            label = str(at.year) if at.month == 1 else at.strftime("%b")
            found.append((at.timestamp(), label))
        number += step
    return found


def _moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _date(seconds: float, form: str) -> str:
    moment = _moment(seconds)
    return moment.strftime(form.replace("%-d", str(moment.day)))
