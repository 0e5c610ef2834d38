"""One night held to what came before it, and what several in a row then say: the rules of ``regressions.detect``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from m2fbench.analysis.level import Level, scatter
from m2fbench.analysis.series import Paired, Point, Series

Evidence = Literal["paired", "level"]

DOUBTFUL = 0.05
"""Largest p of a paired difference that a night may have which is part of a step beside nights that stand out."""
DOUBTFUL_SHARE = 0.5
"""Of what a night stands out by, how far off one must be that is part of a step beside others."""
BACK = 0.25
"""Of what was lost, how far from its baseline a night may lie that has recovered it."""
FEW = 10
"""Residuals below which the noise is no smaller than the scatter of the nights in question."""
FEWEST = 3
"""Nights at a level, unless a step led to it, below which other nights are not held to it: the odd one may be among these."""
Z = 1.959964
"""Half the width of a 95 % interval, in standard deviations."""
ROUNDING = 1e-9
"""As a share of a value: what computing it in another order may change."""


@dataclass(frozen=True)
class Rules:
    """alpha: two-sided p at or below which a paired difference stands out. points: the least difference of a figure in percent, in points,
    that does. share: the least of any other figure, as a share of its level. sigmas: how many standard deviations of a night's noise a value
    without paired evidence must lie off. nights: how many in a row make a step of such; paired_nights: of paired ones, where no second
    run of the night confirmed it. window: nights that a level is taken from; its noise is from three times as many."""

    alpha: float = 0.001
    points: float = 0.05
    share: float = 0.02
    sigmas: float = 4.0
    nights: int = 3
    paired_nights: int = 2
    window: int = 40


@dataclass(frozen=True)
class Figure:
    """What of a figure its judgement depends on. worse: the side of a loss, 1 or -1. in_points: of percent, its changes are in points, all
    others' in shares of the level; its own interval is then over images, which are the same every night, and tells little of the noise between
    nights. counted: from shapes, without noise: one night is enough. least: smaller changes are none."""

    worse: int
    in_points: bool
    counted: bool
    least: float


def figure_of(series: Series, rules: Rules) -> Figure:
    in_points = series.unit == "percent"
    least = rules.points if in_points else rules.share
    return Figure(-1 if series.higher_is_better else 1, in_points, series.key.kind == "flops", least)


@dataclass(frozen=True)
class Night:
    """A night against the level and the baseline.

    deviation: from the level; limit: what noise alone does not reach; both in the level's ``scale``. side: 1 or -1 where it is so far above
    or below that it may be part of a step, 0 where it is in line. out: it stands out by itself. paired: side and out are by paired evidence.
    sure: it needs no other night. refuted: a second run of the night did not show it. back: by paired evidence as good as the baseline again,
    while a regression is open.
    """

    index: int
    value: float
    disturbed: bool
    deviation: float
    limit: float
    side: int
    out: bool
    paired: bool = False
    sure: bool = False
    refuted: bool = False
    back: bool = False

    @property
    def off(self) -> float:
        """How far from the level, on its side."""
        return self.deviation * self.side


def by_level(index: int, point: Point, level: Level, figure: Figure, rules: Rules) -> Night:
    """A night by the noise of the series."""
    deviation = level.deviation(point.value)
    limit = max(ROUNDING * abs(point.value) / level.scale, rules.sigmas * _noise(point, level, figure) * level.widening)
    enough = max(limit, figure.least)
    side = int(math.copysign(1, deviation)) if abs(deviation) > DOUBTFUL_SHARE * enough else 0
    return Night(index, point.value, point.disturbed, deviation, limit, side, abs(deviation) > enough)


def _noise(point: Point, level: Level, figure: Figure) -> float:
    """Of one night, in the level's ``scale``: of the series, and no less than the night's own interval says; 0 where nothing is known."""
    if figure.counted:
        return 0.0
    known = level.lasting if level.known else 0.0
    if figure.in_points and level.known >= FEW:
        return known
    own = (point.high - point.low) / (2 * Z * level.scale)
    return known if math.isnan(own) else max(known, own)


def by_pair(night: Night, pair: Paired, figure: Figure, rules: Rules) -> Night:
    """The same night by the paired bootstrap against the last night in line; as it was where that has no p-value (too few images)."""
    if math.isnan(pair.p_value) and not pair.identical:
        return night
    large = differs(pair, rules)
    side = int(math.copysign(1, pair.difference.value)) if large and pair.p_value <= max(DOUBTFUL, rules.alpha) else 0
    out = large and pair.p_value <= rules.alpha
    worse = out and side == figure.worse
    return replace(
        night, side=side, out=out, paired=True, sure=worse and pair.repeated is True, refuted=worse and pair.repeated is False
    )


def confirms(difference: float, p_value: float, rules: Rules) -> bool | None:
    """Whether a second run of a night on which accuracy dropped, compared with the same baseline, drops too (``Paired.repeated``): True where it
    stands out as well, False where it is in line, None where it is in between and the next night must tell."""
    if difference > -rules.points or p_value > max(DOUBTFUL, rules.alpha):
        return False
    return True if p_value <= rules.alpha else None


def differs(pair: Paired, rules: Rules) -> bool:
    """Whether by as much as would matter."""
    return not pair.identical and abs(pair.difference.value) >= rules.points


def lost(pair: Paired, figure: Figure, rules: Rules) -> bool:
    """Whether the run is surely worse than that baseline."""
    return differs(pair, rules) and pair.p_value <= rules.alpha and pair.difference.value * figure.worse > 0


def by_baseline(night: Night, pair: Paired, loss: float, figure: Figure, rules: Rules) -> Night:
    """The same night while a regression is open, by the paired bootstrap against the good night before it: whether it is as good again, or
    better. loss: from that night to the present level, in the figure's unit, positive. Where a second run of the night was back as well it
    needs no other night; where it was not, it is not back."""
    if night.deviation * figure.worse >= 0 or pair.repeated is False or not returns(pair, loss, figure, rules):
        return night
    return replace(night, side=-figure.worse, back=True, sure=pair.identical or pair.repeated is True)


def returns(pair: Paired, loss: float, figure: Figure, rules: Rules) -> bool:
    """Whether by paired evidence nothing, or next to nothing, of a regression is lost any more. pair: with the good night before it."""
    return pair.identical or is_back(-pair.difference.value * figure.worse, pair.p_value, loss, rules)


def is_back(gain: float, p_value: float, loss: float, rules: Rules) -> bool:
    """Whether a paired difference with the good night before a regression shows next to nothing of it. gain: the difference, positive where
    better. loss: at the level that the regression led to, positive."""
    short = 0 > gain <= -rules.points and not p_value > DOUBTFUL
    return not short and -gain <= BACK * loss


def together(run: Sequence[Night], level: Level, figure: Figure, rules: Rules) -> bool:
    """Whether nights that follow each other on one side stand out together: by their median, so that one far off carries no others, and by
    less the more they are (``share_of``)."""
    limit = median(night.limit for night in run)
    if level.known < FEW and not figure.counted:
        limit = max(limit, rules.sigmas * level.widening * scatter(night.deviation for night in run))
    return median(night.off for night in run) > max(share_of(len(run)) * limit, figure.least)


def share_of(nights: int) -> float:
    """Of what one night must be off, what the median of so many in a row must be: 1 of one, 3/4 of three, 1/2 of any number."""
    return 0.5 + 1 / (nights + 1)


def alike(run: Sequence[Night]) -> list[Night]:
    """The nights of a run that are at its new level, if it is one: at least half as far off as their median."""
    least = DOUBTFUL_SHARE * median(night.off for night in run)
    return [night for night in run if night.off > least]


def weight(run: Sequence[Night]) -> float:
    """How many nights these count for. Where something else took the machine's time, a night is half a one."""
    return sum(0.5 if night.disturbed else 1.0 for night in run)


def needed(figure: Figure, rules: Rules) -> int:
    """Nights that make a step without paired evidence."""
    return 1 if figure.counted else rules.nights


def step_nights(
    run: Sequence[Night], level: Level, figure: Figure, rules: Rules, *, founded: bool
) -> tuple[Evidence, list[Night]] | None:
    """By what a run is a step, and which of its nights lie at the new level; None where it is none yet. founded: the old level stands on
    enough nights."""
    if any(n.sure for n in run) or sum(n.back or (n.paired and n.out) for n in run) >= rules.paired_nights:
        return "paired", alike(run) or list(run)
    if founded and weight(alike(run)) >= needed(figure, rules) and together(run, level, figure, rules):
        return "level", alike(run)
    return None
