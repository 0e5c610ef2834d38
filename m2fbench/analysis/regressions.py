"""Whether a figure has changed for good, since when, and by how much: pure functions of a series."""

from dataclasses import dataclass

from m2fbench.analysis.series import Detection, Series


@dataclass(frozen=True)
class Rules:
    """alpha: two-sided p at or below which a paired difference stands out. points: the least difference of an accuracy figure, in points,
    that does. share: the least of any other figure, as a share of its level. sigmas: how many standard deviations of a night's noise a value
    without paired evidence must lie off. nights: how many in a row make a step of such; paired_nights: of paired ones, where no second
    run of the night confirmed it. window: nights that a level and its noise are taken from."""

    alpha: float = 0.001
    points: float = 0.05
    share: float = 0.02
    sigmas: float = 3.5
    nights: int = 3
    paired_nights: int = 2
    window: int = 20


def detect(series: Series, rules: Rules | None = None) -> Detection:
    """What the series shows, night by night, each judged by what came before it and, for a step, the nights that confirm it."""
    raise NotImplementedError
