"""A figure night after night: the records that regression detection reads and pages draw.

Times are UTC, ISO 8601 to the second, so that their order is that of the text. Figures are in their own unit (percent, images/s, seconds, bytes,
count), NaN where they could not be measured. A result is named by the SHA-256 of its file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from m2fbench.analysis.findings import Estimate
from m2fbench.results import Kind


@dataclass(frozen=True, order=True)
class SeriesKey:
    """What is measured again and again. row: the checkpoint's name in the suite. figure: as results have it, with its subset in brackets where
    it has one (``time (backbone)``). limit: images of a limited run, 0 for all of them. machine: of figures that depend on it (speed, memory,
    energy), "" for those that do not."""

    suite: str
    row: str
    variant: str
    kind: Kind
    figure: str
    limit: int = 0
    machine: str = ""

    @property
    def cell(self) -> str:
        """``suite/row/variant``, as run directories lie."""
        return f"{self.suite}/{self.row}/{self.variant}"


@dataclass(frozen=True)
class Paired:
    """What the paired bootstrap said of one figure of a run against an earlier run over the same images (``analysis.comparing``).

    baseline: the earlier result. difference: run - baseline with its 95 % interval, in points. p_value: two-sided. identical: all predictions
    are the same, so that nothing was resampled. repeated: whether a second run of the same night, made from nothing, showed the same: a
    drop, or, while a regression was open, being back at its baseline; None where none was made, or its answer was neither.
    """

    baseline: str
    images: int
    difference: Estimate
    p_value: float
    identical: bool = False
    repeated: bool | None = None


@dataclass(frozen=True)
class Point:
    """One night's figure.

    result: its result file. value: with the interval that the night itself gives (of accuracy over images, of speed over its latencies); NaN
    ends where there is none. conditions: hash of what must be the same for two values to be compared at all (dataset, images scored,
    protocol's settings, variant's settings). machine: what ran it. disturbed: something else took the machine's time meanwhile.
    paired: by baseline result, whatever is known. accepted: a person has accepted what changed with this run.
    """

    result: str
    time: str
    value: float
    low: float = math.nan
    high: float = math.nan
    conditions: str = ""
    machine: str = ""
    disturbed: bool = False
    paired: Mapping[str, Paired] = field(default_factory=dict)
    accepted: bool = False


@dataclass(frozen=True)
class Series:
    """One figure's points in the order of time."""

    key: SeriesKey
    unit: str
    higher_is_better: bool
    points: tuple[Point, ...]


State = Literal["first", "steady", "suspect", "outlier", "regression", "improvement", "restart", "unmeasured"]
"""What a night is, seen from tonight. first: nothing to compare with yet. steady: no change that stands out of the noise. suspect: stands
out, and too few nights yet to say that it stays. outlier: stood out and did not stay. regression, improvement: the first night of a step.
restart: measured under other conditions than before, not compared. unmeasured: no value."""


@dataclass(frozen=True)
class Step:
    """A change that stays. Places are indices of ``Series.points``.

    first: the first night at the new level; before it, last_good: the last at the old. found: the night on which it was certain. before, after:
    the levels. evidence: "paired" (same images, bootstrap) or "level" (the series' own noise). accepted: by a person, no alarm any more. ends: of
    an improvement that made up for open regressions, the place of the first of these in ``Detection.steps``.
    """

    first: int
    last_good: int
    found: int
    before: float
    after: float
    direction: Literal["regression", "improvement"]
    evidence: Literal["paired", "level"]
    accepted: bool = False
    ends: int | None = None

    @property
    def change(self) -> float:
        """after - before, in the figure's unit."""
        return self.after - self.before

    @property
    def relative(self) -> float:
        """The change as a share of the level before; NaN where that is 0."""
        return self.change / abs(self.before) if self.before else math.nan


@dataclass(frozen=True)
class Trend:
    """A slow drift over the present level, too slow for a step. change: of the fitted line from first to last, relative to the level.
    days: spanned. points: fitted."""

    change: float
    days: float
    points: int


@dataclass(frozen=True)
class Detection:
    """What a series shows. states: one a point. steps: in the order of time. noise: the standard deviation of one night about its level, in
    the figure's unit, NaN where too few nights tell. open: the regression under which the last point still stands, neither accepted nor
    recovered from; None where there is none. baseline: the last good point that a next night is compared with, None without one. in_line:
    the last point of the present level, against which a further change is seen; the baseline where nothing is open. trend: a drift that no
    step explains, None where none stands out. returning: a regression is open and the last point shows nothing of it; more nights must tell."""

    states: tuple[State, ...]
    steps: tuple[Step, ...]
    noise: float
    open: Step | None = None
    baseline: int | None = None
    trend: Trend | None = None
    in_line: int | None = None
    returning: bool = False
