"""A year of nights that is made up, step by planted step: all are found, and next to nothing else is.

Speed is on one machine until the 200th night and on another one since; accuracy goes through the paired bootstrap night by night, as a nightly
does it. ``scripts/simulate_nightlies.py`` says of many years how surely and how soon.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from simulate_nightlies import (
    RESAMPLES,
    SPEED,
    AccuracyYear,
    Found,
    Planted,
    Scores,
    SpeedYear,
    accuracy_scores,
    accuracy_series,
    compared,
    dropped,
    held_to,
    speed_series,
)

from m2fbench.analysis.bootstrap import bootstrap
from m2fbench.analysis.comparing import _differences
from m2fbench.analysis.intervals import estimates_of
from m2fbench.analysis.regressions import Rules, detect
from m2fbench.analysis.runs import MetricStatistics
from m2fbench.analysis.series import Series
from m2fbench.nightly.config import NightlyConfig

CHANGE = 200  # of the machine
SMALL, LARGE = Planted(120, -0.3), Planted(270, 0.8)
NOISE = 0.035  # points, of a night's accuracy

MACHINES = (
    SpeedYear(0.008, (Planted(90, -0.05),), nights=CHANGE, drift=-0.015),
    SpeedYear(0.012, (Planted(80, -0.08),), nights=365 - CHANGE, drift=0.01, level=95.0),
)


def speeds(seed: int) -> list[Series]:
    rng = np.random.default_rng([seed, 1])
    return [speed_series(year, rng, replace(SPEED, machine=f"machine {k}")) for k, year in enumerate(MACHINES, 1)]


def a_year(seed: int) -> tuple[list[Found], Found]:
    """Of speed by machine, and of accuracy."""
    found = [held_to(year.planted, series.points, detect(series)) for year, series in zip(MACHINES, speeds(seed), strict=True)]
    year = AccuracyYear(NOISE, (SMALL, LARGE))
    series, seen = accuracy_series(year, np.random.default_rng([seed, 2]))
    for night, detection in enumerate(seen[1:], 1):
        earlier = [replace(s, accepted=False) for s in seen[night - 1].steps]
        assert [replace(s, accepted=False) for s in detection.steps[: len(earlier)]] == earlier  # what was said stays said
    alarmed = next(night for night, detection in enumerate(seen) if detection.open is not None)
    assert SMALL.night <= alarmed <= SMALL.night + 2
    assert seen[-1].open is None  # the second step made up for the first
    return found, held_to(year.planted, series.points, seen[-1])


def assert_found(parts: Sequence[Found]) -> None:
    """Every step on its third night with a figure or before, the first bad night known to within one, no more than one false alarm in all."""
    delays = [delay for part in parts for delay in part.delays]
    assert len(delays) == 4
    assert all(delay is not None and delay <= 2 for delay in delays), delays
    assert all(abs(first) <= 1 for part in parts for first in part.firsts)
    assert sum(part.false for part in parts) <= 1


@pytest.mark.full
def test_a_year() -> None:
    speed, accuracy = a_year(0)
    assert_found([*speed, accuracy])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_more_years(seed: int) -> None:
    speed, accuracy = a_year(seed)
    assert_found([*speed, accuracy])


def test_the_small_step_is_one_that_unpaired_intervals_cannot_show() -> None:
    """Over other images of the same kind the figure varies several times as much as the step is large; over the same ones it does not."""
    scores = accuracy_scores(AccuracyYear(NOISE, (SMALL,)), np.random.default_rng([0, 2]), runs=1)[0][:, [119, 120]]
    (summary,) = bootstrap([Scores(scores)], resamples=RESAMPLES, seed=0)
    for run in estimates_of(summary.overall, len(scores)):
        assert run.high - run.low > 5 * abs(SMALL.size)
    pair = compared(summary.overall[:, 0], summary.overall[:, 1], len(scores), "before")
    assert dropped(pair, Rules())
    assert pair.difference.high < 0


def test_nights_resampled_together_are_compared_as_two_runs_are() -> None:
    """The simulation's short cut gives the comparison that a nightly makes, to the last digit."""
    scores = accuracy_scores(AccuracyYear(0.1), np.random.default_rng(3), runs=1)[0][:, :6]
    (all_nights,) = bootstrap([Scores(scores)], resamples=300, seed=0)
    pair = compared(all_nights.overall[:, 1], all_nights.overall[:, 4], len(scores), "r1")
    sides = [MetricStatistics("made up", "semantic", Scores(scores[:, [k]]), {"0": "mean"}) for k in (1, 4)]
    (found,) = _differences([(sides[0], sides[1])], 300, 0, None)
    assert found.p_value == pair.p_value
    assert found.difference.value == pytest.approx(pair.difference.value, abs=1e-12)
    assert found.difference.low == pytest.approx(pair.difference.low, abs=1e-9)


def test_the_simulated_nights_are_those_of_the_defaults() -> None:
    config = NightlyConfig.model_validate({"nightly": "n", "suites": [{"suite": "shapes_semantic"}]})
    assert config.resamples == RESAMPLES
    assert config.rules.rules == Rules()


@pytest.mark.full
def test_without_confirmation_there_are_false_alarms() -> None:
    """The same nights, but one night enough for a step: what the year shows is not for want of noise."""
    hasty = Rules(nights=1, paired_nights=1)
    false = [
        held_to(year.planted, series.points, detect(series, hasty)).false
        for seed in range(3)
        for year, series in zip(MACHINES, speeds(seed), strict=True)
    ]
    assert min(false) >= 1
    assert sum(false) >= 15
    calm = [
        held_to(year.planted, series.points, detect(series)).false
        for seed in range(3)
        for year, series in zip(MACHINES, speeds(seed), strict=True)
    ]
    assert sum(calm) <= 1


@pytest.mark.full
def test_a_drop_within_the_noise_raises_none() -> None:
    """3 % of a speed whose nights are 3 % apart; 0.05 points of an accuracy whose nights are 0.05 apart."""
    for seed in range(10):
        series = speed_series(SpeedYear(0.03, (Planted(100, -0.03),), nights=200), np.random.default_rng([seed, 3]))
        assert detect(series).steps == ()
    year = AccuracyYear(0.05, (Planted(60, -0.05),), nights=120)
    _, seen = accuracy_series(year, np.random.default_rng([0, 4]))
    assert seen[-1].steps == ()
