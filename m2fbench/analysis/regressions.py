"""Whether a figure has changed for good, since when, and by how much: pure functions of a series.

Nights are read in the order of time. Each is held to what came before it: to the last night in line, where both were compared image by image
(paired evidence), otherwise to the level and the noise of the nights before. While nights in a row lie off on one side, what they are held to
stands still, until they are a step (``nights.step_nights``) or one of them is in line again. So what is settled never changes when more
nights come: only nights of a run at the end are open to it.
"""

import math
from dataclasses import replace
from statistics import median

from m2fbench.analysis.level import Level
from m2fbench.analysis.nights import (
    BACK,
    FEWEST,
    Evidence,
    Night,
    Rules,
    by_baseline,
    by_level,
    by_pair,
    confirms,
    figure_of,
    is_back,
    lost,
    needed,
    share_of,
    step_nights,
    together,
    weight,
)
from m2fbench.analysis.series import Detection, Paired, Point, Series, State, Step
from m2fbench.analysis.trend import drift

__all__ = ["Rules", "confirms", "detect", "is_back"]

KNOWN = 5
"""Residuals from which on the noise of a series is said."""


def detect(series: Series, rules: Rules | None = None) -> Detection:
    """What the series shows, night by night, each judged by what came before it and, for a step, the nights that confirm it."""
    reader = _Reader(series, rules or Rules())
    for index in range(len(series.points)):
        reader.read(index)
    return reader.detection()


class _Reader:
    """Reads a series from its first night to its last.

    run: the last nights, on one side, that may become a step. in_line: nights of the present level. good: the last of them, None before the
    first. founded: a step led to the level. opened: places in ``steps`` of regressions that are neither accepted nor recovered from. returning:
    the last night that showed nothing of an open one and did not end it.
    """

    def __init__(self, series: Series, rules: Rules) -> None:
        self.points, self.rules, self.figure = series.points, rules, figure_of(series, rules)
        self.level = Level(rules.window, shares=not self.figure.in_points, together=rules.nights)
        self.states: list[State] = []
        self.steps: list[Step] = []
        self.run: list[Night] = []
        self.in_line: list[int] = []
        self.opened: list[int] = []
        self.good: int | None = None
        self.founded = False
        self.conditions: str | None = None
        self.returning: int | None = None

    @property
    def baseline(self) -> int | None:
        return self.steps[self.opened[0]].last_good if self.opened else self.good

    def read(self, index: int) -> None:
        point = self.points[index]
        if not math.isfinite(point.value):
            self.states.append("unmeasured")
        elif point.conditions != self.conditions:
            self._begin(index, point)
        else:
            self.states.append("steady")
            night = self._held(index, point)
            self._judge(night)
            if self.opened and self._shows_none(night):
                self.returning = index
        if point.accepted:
            self._accept()

    def detection(self) -> Detection:
        noise = self.level.noise * self.level.scale if self.level.known >= KNOWN else math.nan
        trend = drift([self.points[k] for k in self.in_line], self.level.value, self.figure.least * self.level.scale)
        opened = self.steps[self.opened[0]] if self.opened else None
        returning = self.returning is not None and self.returning == len(self.points) - 1
        return Detection(tuple(self.states), tuple(self.steps), noise, opened, self.baseline, trend, self.good, returning)

    def _begin(self, index: int, point: Point) -> None:
        """Other conditions than before, or none before: nothing of it is held to earlier nights. A run that ends here stays in suspicion."""
        self.states.append("first" if self.conditions is None else "restart")
        self.conditions, self.good, self.founded = point.conditions, index, False
        self.level.restart(point.value)
        self.run, self.in_line, self.opened = [], [index], []

    def _held(self, index: int, point: Point) -> Night:
        night = by_level(index, point, self.level, self.figure, self.rules)
        if pair := self._pair(point, self.good):
            night = by_pair(night, pair, self.figure, self.rules)
        if self.opened and (pair := self._pair(point, self.baseline)):
            night = by_baseline(night, pair, abs(self._below(self.level.value)), self.figure, self.rules)
        return night

    def _below(self, value: float) -> float:
        """By how much it is worse than the good night before the open regression."""
        return (value - self.points[self.baseline or 0].value) * self.figure.worse

    def _shows_none(self, night: Night) -> bool:
        """Whether a night shows nothing of the open regression: by paired evidence where there is some, else by its value."""
        pair = self._pair(self.points[night.index], self.baseline)
        if pair is not None and (pair.identical or not math.isnan(pair.p_value)):
            return night.back
        return self._below(night.value) <= BACK * max(0.0, self._below(self.level.value))

    def _pair(self, point: Point, index: int | None) -> Paired | None:
        return None if index is None or not point.paired else point.paired.get(self.points[index].result)

    def _judge(self, night: Night) -> None:
        if self.run and night.disturbed and night.side != self.run[0].side:
            self.states[night.index] = "outlier" if night.out else "steady"  # no reason to end what undisturbed nights say
            return
        if self.run and (night.refuted or night.side != self.run[0].side):
            self._settle()
        if night.refuted:
            self.states[night.index] = "outlier"
            self.level.learn(night.value)
        elif night.side:
            self.run.append(night)
            self._decide()
        else:
            self._join(night)
            self.good = night.index
            self._recover_slowly()

    def _join(self, night: Night) -> None:
        self.states[night.index] = "steady"
        self.level.add(night.value)
        self.in_line.append(night.index)

    def _settle(self) -> None:
        """The run has ended without a step."""
        for night in self.run:
            if self.states[night.index] != "suspect":
                self._join(night)
                continue
            self.states[night.index] = "outlier"
            if not night.disturbed:  # of which the noise is no part
                self.level.learn(night.value)
        self.run = []

    def _decide(self) -> None:
        run, level, figure, rules = self.run, self.level, self.figure, self.rules
        founded = self.founded or figure.counted or len(level) >= FEWEST
        if found := step_nights(run, level, figure, rules, founded=founded):
            self._step(*found)
            return
        suspicious = (founded or not run[-1].paired) and together(run, level, figure, rules)
        for night in run:
            self.states[night.index] = "suspect" if suspicious or night.out else "steady"
        enough = needed(figure, rules)
        awaited = max(enough, rules.paired_nights) if any(night.paired for night in run) else enough
        if weight(run) >= 2 * awaited or (suspicious and not founded and weight(run) >= enough):
            self._follow(suspicious)

    def _follow(self, suspicious: bool) -> None:
        """The nights stay where they are and are no step: they differ by too little for one, or (suspicious) from too few nights before."""
        nights = [night.index for night in self.run]
        for index in () if suspicious else nights:
            self.states[index] = "steady"
        self._move(self.run)
        self.in_line = nights if suspicious else self.in_line + nights

    def _move(self, nights: list[Night]) -> None:
        """To the level of these nights."""
        self.level.move(night.value for night in nights)
        self.good, self.run = nights[-1].index, []

    def _step(self, evidence: Evidence, at_level: list[Night]) -> None:
        assert self.good is not None  # the first night of a segment is in line
        run = self.run
        first = next((night.index for night in at_level if not night.disturbed), at_level[0].index)
        nights = [night for night in run if night.index >= first]
        worse = run[0].side == self.figure.worse
        by_pairs = evidence == "paired" and run[-1].paired  # then the change is the difference that was tested
        before = self.points[self.good].value if by_pairs else self.level.value
        accepted = worse and any(self.points[k].accepted for k in range(first, run[-1].index + 1))
        step = Step(
            first, self.good, run[-1].index, before, median(night.value for night in nights),
            "regression" if worse else "improvement", evidence, accepted,
        )  # fmt: skip
        for night in run:
            odd = night.index < first and self.states[night.index] == "suspect"
            self.states[night.index] = "outlier" if odd else "steady"
        self.states[first] = step.direction
        self._move(nights)
        self.in_line, self.founded = [night.index for night in nights], True
        if not worse:
            ended = [place for place in self.opened if self._recovered(self.steps[place], nights)]
            self.opened = [place for place in self.opened if place not in ended]
            step = replace(step, ends=min(ended, default=None))
        elif not accepted:
            self.opened.append(len(self.steps))
        self.steps.append(step)

    def _loss(self, step: Step) -> float:
        """What of a regression is still lost at the present level."""
        return (self.level.value - step.before) * self.figure.worse

    def _recovered(self, step: Step, nights: list[Night]) -> bool:
        """Whether the step up to these nights has made up for the regression: by paired evidence, or what is still lost would be no step."""
        pairs = [pair for night in nights if (pair := self._pair(self.points[night.index], self.baseline))]
        if 2 * sum(lost(pair, self.figure, self.rules) for pair in pairs) > len(pairs):
            return False
        if 2 * sum(night.back for night in nights) > len(nights):
            return True
        allowed = max(share_of(self.rules.nights) * nights[-1].limit, self.figure.least)
        return self._loss(step) <= allowed * self.level.scale

    def _recover_slowly(self) -> None:
        """Closes a regression that the level has drifted back from, or risen from in steps too small to be found."""
        if self.opened and 2 * len(self.level) >= self.rules.window:
            pair = self._pair(self.points[self.in_line[-1]], self.baseline)
            if pair is None or not lost(pair, self.figure, self.rules):
                self.opened = [k for k in self.opened if self._loss(self.steps[k]) > BACK * abs(self.steps[k].change)]

    def _accept(self) -> None:
        """What has changed up to a night that a person has accepted is no alarm any more."""
        for place in self.opened:
            self.steps[place] = replace(self.steps[place], accepted=True)
        self.opened = []
