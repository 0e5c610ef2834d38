"""What the site says of one series: its present state, its latest value, and how far that is from where it was."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

from m2fbench.analysis import regressions
from m2fbench.analysis.main_figures import is_main
from m2fbench.analysis.nights import figure_of
from m2fbench.analysis.regressions import Rules
from m2fbench.analysis.series import Detection, Point, Series, SeriesKey, Step
from m2fbench.history.records import Acceptance, Entry
from m2fbench.reporting.dashboard.naming import instant, name_length, night_name, slug_of
from m2fbench.reporting.dashboard.units import Scale, scale_of

Status = Literal["regression", "recovering", "suspect", "unmeasured", "drift", "recovered", "improvement", "new", "steady", "ended"]
STATUSES: dict[Status, tuple[str, str]] = {
    "regression": ("▼", "a step to the worse that lasts"),
    "recovering": ("△", "a regression stands, and the last night shows nothing of it; the next ones tell whether it is over"),
    "suspect": ("◆", "the last night stands out; the next ones tell whether it stays"),
    "unmeasured": ("○", "the last night gave no value"),
    "drift": ("↘", "a slow change that no step explains"),
    "recovered": ("✓", "back from a regression in the last thirty nights"),
    "improvement": ("▲", "a step to the better in the last thirty nights"),
    "new": ("+", "too few nights yet to tell a change from noise"),
    "steady": ("●", "nothing stands out of the noise"),
    "ended": ("■", "no result for a fortnight"),
}
"""Icon and meaning, the most pressing first."""
RECENT = 30  # nights for which an improvement or a recovery is news
HUGE = 1e300
ENDED = 14 * 86400.0  # seconds after which a series that nobody measures has ended


@dataclass(frozen=True)
class Digest:
    """series with what detection says of it. status: tonight's. latest: the last measured point, None without any. level: what the latest is
    held against: the level before an open regression, one recovered from or a recent improvement, else the nights before; NaN where there is
    none. step: the one that the status is about. stale: nobody has measured it for a fortnight. main: shown unless others are asked for."""

    series: Series
    detection: Detection
    slug: str
    scale: Scale
    status: Status
    latest: int | None
    level: float
    step: Step | None
    stale: bool
    main: bool

    @property
    def key(self) -> SeriesKey:
        return self.series.key

    @property
    def points(self) -> tuple[Point, ...]:
        return self.series.points

    @property
    def value(self) -> float:
        return math.nan if self.latest is None else self.points[self.latest].value

    @property
    def time(self) -> str:
        return self.points[-1 if self.latest is None else self.latest].time

    @property
    def change(self) -> float:
        return self.value - self.level

    @property
    def change_text(self) -> str:
        return self.scale.change(self.change, self.level)

    def step_text(self, step: Step) -> str:
        return "recovered" if step.ends is not None else self.scale.change(step.change, step.before)

    def ended_by(self, step: Step) -> Step | None:
        """The regression that a recovery made up for."""
        return None if step.ends is None else self.detection.steps[step.ends]

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Of every night, as detection has them, but that the first night of a recovery is no improvement."""
        recoveries = {step.first for step in self.detection.steps if step.ends is not None}
        return tuple("recovered" if i in recoveries else state for i, state in enumerate(self.detection.states))

    @property
    def disturbed(self) -> bool:
        """Whether something else took the machine's time while the latest value was measured."""
        return self.latest is not None and self.points[self.latest].disturbed

    @property
    def machines(self) -> tuple[str, ...]:
        return tuple(sorted({point.machine for point in self.points if point.machine}))


class Site:
    """Everything that pages are made of, looked up once."""

    def __init__(
        self,
        entries: Sequence[Entry],
        series: Sequence[Series],
        rules: Rules,
        progress: Callable[[int, int], None] | None = None,
        acceptances: Sequence[Acceptance] = (),
    ) -> None:
        """acceptances: by time; of several of the same the last one is told."""
        self.entries = {entry.sha256: entry for entry in entries}
        self._acceptances = {(a.result, a.figure): a for a in acceptances}
        self.newest = max((entry.time for entry in entries), default="")
        self.digests: list[Digest] = []
        filled = [_numbers(one) for one in series if one.points]
        for number, one in enumerate(sorted(filled, key=lambda s: s.key), 1):
            self.digests.append(digest(one, regressions.detect(one, rules), rules, self.newest))
            if progress is not None:
                progress(number, len(filled))
        self.everything_is_main = not any(d.main for d in self.digests)

    @cached_property
    def length(self) -> int:
        """Hexadecimal digits by which runs are named."""
        names = set(self.entries) | {point.result for d in self.digests for point in d.points}
        return name_length(names)

    def name(self, sha256: str) -> str:
        return sha256[: self.length]

    def night(self, point: Point) -> str:
        """The name of its night where that says more than its day."""
        entry = self.entries.get(point.result)
        return "" if entry is None else night_name(entry)

    def acceptance(self, digest: Digest, step: Step) -> Acceptance | None:
        """With whom a regression was accepted, as far as that is known: the first at or after its first night."""
        later = digest.points[step.first :] if step.accepted else ()
        found = ((point.result, digest.key.figure) for point in later if point.accepted)
        return self._acceptances.get(next(found, ("", "")))

    def accepted(self, digests: Sequence[Digest]) -> list[tuple[Digest, Step]]:
        """Regressions that a person has accepted, the newest first."""
        found = [(digest, step) for digest in digests for step in digest.detection.steps if step.accepted]
        return sorted(found, key=lambda pair: pair[0].points[pair[1].first].time, reverse=True)

    @property
    def shown(self) -> list[Digest]:
        """Series of the first page."""
        return [d for d in self.digests if d.main or self.everything_is_main]

    def open(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those with an open regression, those that are still measured first, then the newest."""
        found = [d for d in digests if d.detection.open is not None]
        found.sort(key=lambda d: d.points[d.detection.open.first].time if d.detection.open else "", reverse=True)
        return sorted(found, key=lambda d: d.stale)


def _numbers(series: Series) -> Series:
    """With NaN in place of what is infinite, or so large that differences would be: nothing can be said of it or drawn."""

    def number(point: Point) -> Point:
        low, high = (point.low, point.high) if abs(point.low) < HUGE and abs(point.high) < HUGE else (math.nan, math.nan)
        return replace(point, value=point.value if abs(point.value) < HUGE else math.nan, low=low, high=high)

    odd = any(abs(v) >= HUGE for point in series.points for v in (point.value, point.low, point.high))
    return replace(series, points=tuple(map(number, series.points))) if odd else series


def digest(series: Series, detection: Detection, rules: Rules, newest: str) -> Digest:
    """newest: time of the last result of all."""
    measured = [i for i, point in enumerate(series.points) if not math.isnan(point.value)]
    latest = measured[-1] if measured else None
    stale = bool(instant(newest) - instant(series.points[-1].time) > ENDED)
    status = _status(series, detection, rules, stale, bool(measured))
    step = detection.open
    if status in ("improvement", "recovered"):
        step = detection.steps[-1]
    origin = step if step is None or step.ends is None else detection.steps[step.ends]
    level = origin.before if origin is not None else _level(series, detection, measured, rules.window)
    values = [abs(series.points[i].value) for i in measured]
    return Digest(
        series, detection, slug_of(series.key), scale_of(series.unit, statistics.median(values) if values else math.nan), status, latest, level,
        step, stale, is_main(series.key.kind, series.key.figure) and bool(measured),
    )  # fmt: skip


def _status(series: Series, detection: Detection, rules: Rules, stale: bool, measured: bool) -> Status:
    last = detection.states[-1]
    if detection.open is not None:
        return "recovering" if detection.returning else "regression"
    if stale:
        return "ended"
    if not measured or last == "unmeasured":
        return "unmeasured"
    if last == "suspect":
        return "suspect"
    if last in ("first", "restart"):
        return "new"
    step = detection.steps[-1] if detection.steps else None
    if step is not None and step.direction == "improvement" and len(series.points) - step.first <= RECENT:
        return "improvement" if step.ends is None else "recovered"
    if not detection.steps and not _told(series, detection, rules):
        return "new"
    return "steady" if detection.trend is None else "drift"


def _told(series: Series, detection: Detection, rules: Rules) -> bool:
    """Whether the last night could be told from noise: the series' own is known, there is none, or the images are the same."""
    return not math.isnan(detection.noise) or figure_of(series, rules).counted or bool(series.points[-1].paired)


def _level(series: Series, detection: Detection, measured: Sequence[int], window: int) -> float:
    """The median of the nights before the latest, at its level and under its conditions, disturbed ones and outliers left out."""
    if not measured:
        return math.nan
    latest = measured[-1]
    start = max((step.first for step in detection.steps), default=0)
    conditions = series.points[latest].conditions
    before = [
        series.points[i].value
        for i in measured[:-1]
        if i >= start
        and detection.states[i] != "outlier"
        and not series.points[i].disturbed
        and series.points[i].conditions == conditions
    ]
    return statistics.median(before[-window:]) if before else math.nan


def levels(detection: Detection, series: Series) -> list[tuple[int, int, float]]:
    """(first, last, median) of every stretch between steps and changes of conditions, outliers and disturbed nights left out."""
    starts = {0, *(i for i, state in enumerate(detection.states) if state == "restart"), *(step.first for step in detection.steps)}
    breaks = [*sorted(starts), len(series.points)]
    found = []
    for start, end in pairwise(breaks):
        plain = [
            point.value
            for point, state in zip(series.points[start:end], detection.states[start:end], strict=True)
            if state != "outlier" and not point.disturbed and not math.isnan(point.value)
        ]
        if len(plain) > 1:
            found.append((start, end - 1, statistics.median(plain)))
    return found


def circumstances(site: Site, point: Point) -> Mapping[str, object]:
    entry = site.entries.get(point.result)
    return {} if entry is None else entry.circumstances
