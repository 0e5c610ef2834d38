"""Steps, outliers and recoveries on series small enough to be followed by eye, and what must hold of all series."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.level import Level, Window, scatter
from m2fbench.analysis.nights import by_level, figure_of
from m2fbench.analysis.regressions import Rules, confirms, detect
from m2fbench.analysis.series import Detection, Paired, Point, Series, SeriesKey, State
from m2fbench.results import Kind

nan = math.nan
WIGGLE = (0.0, 0.4, -0.3, 0.1, -0.5, 0.3, -0.1, 0.5, -0.4, 0.2)
"""Noise of about 0.35 that any ten nights in a row see the same of."""


def point(number: int, value: float, **more: object) -> Point:
    return replace(Point(f"r{number}", f"2026-{1 + number // 28:02}-{1 + number % 28:02}T00:00:00Z", value), **more)  # type: ignore[arg-type]


def series_of(points: Sequence[Point], *, kind: Kind = "speed", unit: str = "images/s", higher: bool = True) -> Series:
    return Series(SeriesKey("suite", "row", "variant", kind, "figure"), unit, higher, tuple(points))


def nights(*levels: tuple[float, int], wiggle: Sequence[float] = WIGGLE) -> list[Point]:
    """So many nights at each level, with noise."""
    values = [level for level, number in levels for _ in range(number)]
    return [point(k, value + wiggle[k % len(wiggle)]) for k, value in enumerate(values)]


def seen(points: Sequence[Point], rules: Rules | None = None, **more: object) -> Detection:
    return detect(series_of(points, **more), rules)  # type: ignore[arg-type]


def with_values(points: Sequence[Point], values: dict[int, float]) -> list[Point]:
    return [replace(p, value=values.get(k, p.value)) for k, p in enumerate(points)]


# what a night is


def test_nothing_and_the_first_night() -> None:
    empty = seen([])
    assert (empty.states, empty.steps, empty.open, empty.baseline, empty.trend) == ((), (), None, None, None)
    assert math.isnan(empty.noise)
    one = seen([point(0, 40.0)])
    assert (one.states, one.baseline, one.open) == (("first",), 0, None)


def test_nights_without_a_figure_are_passed_over() -> None:
    found = seen(with_values(nights((40, 12)), {0: nan, 5: nan, 11: math.inf}))
    assert found.states == ("unmeasured", "first", *["steady"] * 3, "unmeasured", *["steady"] * 5, "unmeasured")
    assert found.baseline == 10
    assert seen([point(0, nan)]).baseline is None


def test_noise_is_no_step() -> None:
    found = seen(nights((40, 60)))
    assert found.states == ("first", *["steady"] * 59)
    assert (found.steps, found.baseline, found.trend) == ((), 59, None)
    assert found.noise == pytest.approx(stdev(WIGGLE), rel=0.3)


def test_one_night_off_is_a_suspect_and_then_an_outlier() -> None:
    off = with_values(nights((40, 22)), {20: 30.0})
    tonight = seen(off[:21])
    assert (tonight.states[20], tonight.steps, tonight.open) == ("suspect", (), None)
    assert tonight.baseline == 19  # not the night in suspicion
    after = seen(off)
    assert (after.states[20], after.states[21], after.steps, after.baseline) == ("outlier", "steady", (), 21)


def test_two_nights_off_are_no_step_and_three_are() -> None:
    points = nights((40, 20), (36, 3))
    assert seen(points[:22]).states[20:] == ("suspect", "suspect")
    assert seen(points[:22]).steps == ()
    (step,) = seen(points).steps
    assert (step.first, step.last_good, step.found, step.direction, step.evidence) == (20, 19, 22, "regression", "level")
    assert (step.before, step.after) == (pytest.approx(40, abs=0.3), pytest.approx(36, abs=0.5))
    assert step.relative == pytest.approx(-0.1, abs=0.02)
    assert seen(points).states[20:] == ("regression", "steady", "steady")


def test_outliers_on_both_sides_are_no_step() -> None:
    found = seen(with_values(nights((40, 30)), {20: 30.0, 21: 50.0, 22: 30.0, 23: 50.0}))
    assert found.steps == ()
    assert found.states[20:24] == ("outlier",) * 4


def test_one_night_far_off_does_not_carry_two_doubtful_ones() -> None:
    limit = 4 * seen(nights((40, 20))).noise
    off = with_values(nights((40, 23)), {20: 40 - 0.65 * limit, 21: 20.0, 22: 40 - 0.65 * limit})
    assert seen(off).steps == ()


@pytest.mark.parametrize(("higher", "direction"), [(True, "regression"), (False, "improvement")])
def test_what_is_better_decides_the_direction(higher: bool, direction: str) -> None:
    (step,) = seen(nights((40, 20), (36, 5)), higher=higher).steps
    assert step.direction == direction
    assert (seen(nights((40, 20), (36, 5)), higher=higher).open is None) == (not higher)


def test_an_improvement_is_the_level_from_then_on() -> None:
    found = seen(nights((40, 20), (44, 20), (40, 5)))
    assert [(s.direction, s.first) for s in found.steps] == [("improvement", 20), ("regression", 40)]
    assert found.open == found.steps[1]
    assert found.baseline == 39


def test_changes_too_small_to_matter_are_none() -> None:
    quiet = [w / 100 for w in WIGGLE]
    assert seen(nights((40, 20), (39.3, 20), wiggle=quiet)).steps == ()  # 1.75 %
    assert len(seen(nights((40, 20), (39.1, 20), wiggle=quiet)).steps) == 1  # 2.25 %
    found = seen(nights((40, 20), (39.3, 20), wiggle=quiet))
    assert found.states[21:] == ("steady",) * 19
    assert found.baseline == 39  # the level follows


def test_equal_values_do_not_make_any_wiggle_a_step() -> None:
    same = [point(k, 40.0 + (1e-12 if k > 20 else 0)) for k in range(30)]
    assert seen(same, Rules(share=0, points=0)).steps == ()
    assert seen(same).states == ("first", *["steady"] * 29)


def test_a_figure_that_never_moves_and_then_does() -> None:
    memory = [point(k, 8e9 if k < 10 else 8.4e9) for k in range(13)]
    (step,) = seen(memory, unit="bytes", higher=False).steps
    assert (step.direction, step.first, step.found) == ("regression", 10, 12)


def test_what_is_counted_needs_one_night() -> None:
    found = seen([point(0, 2e11), point(1, 3e11)], kind="flops", unit="count", higher=False)
    assert found.states == ("first", "regression")
    assert found.open == found.steps[0]
    wavering = [point(k, v) for k, v in enumerate([100.0, 101, 100, 101, 100, 101, 100, 103.5])]
    assert seen(wavering, kind="flops", unit="count", higher=False).states[-1] == "regression"
    assert seen([point(0, 2e11), point(1, 2.01e11)], kind="flops", unit="count", higher=False).steps == ()  # 0.5 %


def test_from_zero() -> None:
    counted = [point(k, 0.0 if k < 5 else 3.0) for k in range(10)]
    assert [s.first for s in seen(counted, unit="count", higher=False).steps] == [5]
    assert math.isnan(seen(counted, unit="count", higher=False).steps[0].relative)


def test_a_night_counts_for_no_more_than_its_own_interval_says() -> None:
    points = nights((40, 20), (36, 3))
    vague = [*points[:20], *(replace(p, low=p.value - 8, high=p.value + 8) for p in points[20:])]
    assert seen(vague).steps == ()
    sure = [*points[:20], *(replace(p, low=p.value - 0.1, high=p.value + 0.1) for p in points[20:])]
    assert len(seen(sure).steps) == 1


def test_of_few_nights_little_is_said() -> None:
    two = seen([point(0, 40.0), point(1, 30.0)])
    assert (two.states, two.steps) == (("first", "suspect"), ())
    after_one = seen([point(0, 40.0), *(point(k, 30.0 + WIGGLE[k % 10]) for k in range(1, 12))])
    assert after_one.steps == ()  # the first may have been the odd one
    assert after_one.states[:4] == ("first", "suspect", "suspect", "suspect")
    assert after_one.states[4:] == ("steady",) * 8
    (large,) = seen(nights((40, 4), (25, 3))).steps
    assert (large.first, large.found) == (4, 6)
    assert seen(nights((40, 4), (39, 3))).steps == ()


def test_nights_that_follow_each_other_alike_make_the_rules_stricter() -> None:
    """Of nights that wander together for days, three in a row say less than of independent ones."""
    rng = random.Random(1)
    wander, value = [], 0.0
    for _ in range(400):
        value = 0.8 * value + 0.6 * rng.gauss(0, 0.6)
        wander.append(value)
    shuffled = wander.copy()
    rng.shuffle(shuffled)
    step = 2.3  # of a noise of 0.6
    for values, found in ((wander, 0), (shuffled, 1)):
        points = [point(k, 40 - step if k >= 397 else 40 + v) for k, v in enumerate(values)]
        assert sum(s.found == 399 for s in seen(points).steps) == found


def test_nights_that_are_unlike_are_no_step_together() -> None:
    assert seen(with_values(nights((40, 23)), {20: 27.0, 21: 27.0, 22: 38.8})).steps == ()
    calm = [*(point(k, 40.0) for k in range(4)), point(4, 38.0), point(5, 36.5), point(6, 38.9)]
    assert seen(calm).steps == ()  # four equal nights are no proof of a figure without noise
    assert len(seen([*calm[:4], *(point(k, 38.0) for k in (4, 5, 6))]).steps) == 1


def test_a_level_of_few_nights_is_not_known_so_well() -> None:
    few, many = Level(40, shares=False, together=3), Level(40, shares=False, together=3)
    for value in (50.0, 50.2, 49.8) * 10:
        few.add(value)
        many.add(value)
    few.move([50.0, 50.2, 49.8])
    series = series_of([], kind="accuracy", unit="percent")
    limits = [by_level(0, point(0, 49.0), level, figure_of(series, Rules()), Rules()).limit for level in (few, many)]
    assert limits[0] / limits[1] == pytest.approx(math.sqrt((1 + 1.25 / 3) / (1 + 1.25 / 30)))
    assert limits[1] == pytest.approx(4 * 0.2, rel=0.25)


# disturbed nights


def disturbed(points: Sequence[Point], *places: int) -> list[Point]:
    return [replace(p, disturbed=k in places) for k, p in enumerate(points)]


def test_disturbed_nights_neither_begin_nor_make_a_step_by_themselves() -> None:
    points = nights((40, 20), (36, 3), (40, 5))
    assert seen(disturbed(points, 20, 21, 22)).states[20:23] == ("outlier",) * 3
    assert seen(disturbed(points, 20, 21, 22)[:23]).states[20:] == ("suspect",) * 3
    slow = nights((40, 20), (36, 4))
    (step,) = seen(disturbed(slow, 20)).steps
    assert (step.first, step.last_good, step.found) == (21, 19, 23)
    assert seen(disturbed(slow, 20)).states[20:22] == ("outlier", "regression")


def test_what_is_known_to_be_disturbed_is_no_noise() -> None:
    odd = range(4, 40, 3)
    points = with_values(nights((40, 40)), dict.fromkeys(odd, 30.0))
    assert seen(disturbed(points, *odd)).noise < 0.6
    assert seen(points).noise > 1


def test_a_machine_that_is_always_disturbed_is_believed_in_the_end() -> None:
    slow = nights((40, 20), (36, 10))
    (step,) = seen(disturbed(slow, *range(20, 30))).steps
    assert (step.first, step.found) == (20, 25)  # twice as many nights


def test_a_disturbed_night_does_not_end_what_others_say() -> None:
    slow = with_values(nights((40, 20), (36, 4)), {21: 48.0})
    (step,) = seen(disturbed(slow, 21)).steps
    assert (step.first, step.found) == (20, 23)
    assert seen(slow).steps == ()


# other conditions


def test_other_conditions_are_a_new_beginning() -> None:
    points = [replace(p, conditions="a" if k < 20 else "b") for k, p in enumerate(nights((40, 20), (20, 20)))]
    found = seen(points)
    assert (found.states[20], found.steps) == ("restart", ())
    assert seen(points[:21]).baseline == 20
    slower = [*points, *(point(40 + k, 15.0 + WIGGLE[k], conditions="b") for k in range(3))]
    (step,) = seen(slower).steps
    assert (step.first, step.last_good) == (40, 39)


def test_under_other_conditions_no_regression_is_open() -> None:
    points = nights((40, 20), (36, 5))
    assert seen(points).open is not None
    found = seen([*points, point(25, 36.0, conditions="b")])
    assert (found.open, found.baseline, len(found.steps)) == (None, 25, 1)


def test_under_other_conditions_the_noise_is_learnt_anew() -> None:
    quiet = [point(k, 40 + WIGGLE[k % 10] / 20) for k in range(150)]
    points = [*quiet, *(point(150 + k, 60 + WIGGLE[k % 10], conditions="b") for k in range(14))]
    assert seen(points).noise > 5 * seen(quiet).noise


def test_what_is_under_suspicion_when_conditions_change_stays_so() -> None:
    points = [*nights((40, 20), (36, 2)), point(22, 36.0, conditions="b"), point(23, 36.0, conditions="b")]
    assert seen(points).states[20:] == ("suspect", "suspect", "restart", "steady")


# regressions that are open


def test_while_a_regression_is_open_the_baseline_stays() -> None:
    found = seen(nights((40, 20), (36, 30)))
    assert (found.open, found.baseline) == (found.steps[0], 19)
    assert found.states[23:] == ("steady",) * 27


def test_coming_back_closes_it() -> None:
    found = seen(nights((40, 20), (36, 15), (40, 10)))
    assert [(s.direction, s.first, s.found) for s in found.steps] == [("regression", 20, 22), ("improvement", 35, 37)]
    assert (found.open, found.baseline) == (None, 44)


def test_coming_back_in_part_does_not() -> None:
    points = nights((40, 20), (30, 15), (34, 15))
    found = seen(points)
    assert [s.direction for s in found.steps] == ["regression", "improvement"]
    assert (found.open, found.baseline) == (found.steps[0], 19)
    rest = seen([*points, *(point(50 + k, 40 + WIGGLE[k]) for k in range(3))])
    assert [s.direction for s in rest.steps] == ["regression", "improvement", "improvement"]
    assert rest.open is None


def test_worse_again_while_open() -> None:
    found = seen(nights((40, 20), (36, 12), (32, 12)))
    assert [(s.direction, s.first, s.last_good) for s in found.steps] == [("regression", 20, 19), ("regression", 32, 31)]
    assert (found.open, found.baseline) == (found.steps[0], 19)
    half = seen(nights((40, 20), (36, 12), (32, 12), (36, 12)))
    assert (half.open, half.baseline) == (half.steps[0], 19)
    assert seen(nights((40, 20), (36, 12), (32, 12), (40, 12))).open is None


def test_two_steps_one_right_after_the_other() -> None:
    found = seen(nights((40, 30), (36, 4), (32, 4)))
    assert [(s.first, s.found) for s in found.steps] == [(30, 32), (34, 36)]


def test_a_slow_return_closes_it_too() -> None:
    quiet = [w / 4 for w in WIGGLE]
    slopes = [37.5 + 0.03 * k + quiet[k % 10] for k in range(100)]
    points = [*nights((40, 30), wiggle=quiet), *(point(30 + k, v) for k, v in enumerate(slopes))]
    assert seen(points[:40]).open is not None
    found = seen(points)
    assert [s.direction for s in found.steps] == ["regression"]
    assert found.open is None
    assert found.baseline == len(points) - 1


def test_what_a_person_accepts_is_open_no_more() -> None:
    points = nights((40, 20), (36, 15))
    for place in (20, 22, 30):
        accepted = [replace(p, accepted=k == place) for k, p in enumerate(points)]
        found = seen(accepted)
        assert found.steps[0].accepted
        assert (found.open, found.baseline) == (None, 34)
    before = seen([replace(p, accepted=k == 19) for k, p in enumerate(points)])
    assert before.open == before.steps[0]
    assert not before.steps[0].accepted


def test_after_acceptance_the_new_level_counts() -> None:
    points = [replace(p, accepted=k == 20) for k, p in enumerate(nights((40, 20), (36, 15), (33, 10)))]
    found = seen(points)
    assert [s.accepted for s in found.steps] == [True, False]
    assert (found.open, found.baseline) == (found.steps[1], 34)


# drift


def test_slow_drift_is_a_trend_and_no_step() -> None:
    drifting = [point(k, p.value - 0.02 * k) for k, p in enumerate(nights((40, 200)))]
    found = seen(drifting)
    assert found.steps == ()
    assert found.trend is not None
    assert found.trend.change == pytest.approx(-0.02 * 199 / 38, rel=0.1)
    assert found.trend.points == 200
    assert found.trend.days == pytest.approx(7 * 30 + 3, abs=15)
    assert seen(drifting[:30]).trend is None


def test_a_trend_smaller_than_what_matters_is_none() -> None:
    drifting = [point(k, p.value / 50 + 40 - 0.003 * k) for k, p in enumerate(nights((0, 200)))]
    assert seen(drifting).trend is None  # 1.5 %
    assert seen(drifting, Rules(share=0.01)).trend is not None


def test_a_step_is_no_trend() -> None:
    assert seen(nights((44, 60), (42, 60), (40, 60), (38, 60))).trend is None


@pytest.mark.full
def test_wandering_noise_is_rarely_a_trend() -> None:
    found = 0
    for seed in range(200):
        rng, value, points = random.Random(seed), 0.0, []
        for k in range(180):
            value = 0.7 * value + rng.gauss(0, 1)
            points.append(point(k, 40 + value))
        found += seen(points, Rules(share=0.001)).trend is not None
    assert found <= 4


def test_times_that_cannot_be_read_do_not_matter() -> None:
    drifting = [replace(point(k, p.value - 0.02 * k), time="?") for k, p in enumerate(nights((40, 200)))]
    trend = seen(drifting).trend
    assert trend is not None
    assert trend.days == 199


# accuracy: paired evidence


def paired(baseline: int, difference: float, p: float, **more: object) -> dict[str, Paired]:
    ends = Estimate(difference, difference - 0.1, difference + 0.1)
    return {f"r{baseline}": Paired(f"r{baseline}", 500, ends, p, **more)}  # type: ignore[arg-type]


def accuracy(*nights: dict[str, Paired] | None, start: float = 50.0) -> list[Point]:
    """A night for each: what comparisons of it there are."""
    points = [point(0, start)]
    for k, pairs in enumerate(nights, 1):
        change = next(iter(pairs.values())).difference.value if pairs else 0.0
        points.append(point(k, start + change, paired=pairs or {}))
    return points


def judged(*nights: dict[str, Paired] | None, rules: Rules | None = None) -> Detection:
    return seen(accuracy(*nights), rules, kind="accuracy", unit="percent")


def test_two_nights_surely_worse_are_a_step() -> None:
    one = judged(paired(0, -0.3, 0.0005))
    assert (one.states, one.steps, one.baseline) == (("first", "suspect"), (), 0)
    both = judged(paired(0, -0.3, 0.0005), paired(0, -0.32, 0.0005))
    (step,) = both.steps
    assert (step.first, step.last_good, step.found, step.evidence, step.direction) == (1, 0, 2, "paired", "regression")
    assert step.change == pytest.approx(-0.31)
    assert (both.open, both.baseline) == (step, 0)
    assert both.states == ("first", "regression", "steady")


def test_as_many_paired_nights_as_the_rules_say() -> None:
    seven = [paired(0, -0.3, 0.0005)] * 7
    assert judged(*seven[:6], rules=Rules(paired_nights=7)).steps == ()
    (step,) = judged(*seven, rules=Rules(paired_nights=7)).steps
    assert (step.first, step.found) == (1, 7)


def test_a_second_run_of_the_night_settles_it() -> None:
    yes = judged(paired(0, -0.3, 0.0005, repeated=True))
    assert yes.states == ("first", "regression")
    assert yes.open is not None
    assert (yes.open.first, yes.open.found, yes.baseline) == (1, 1, 0)
    no = judged(paired(0, -0.3, 0.0005, repeated=False))
    assert (no.states, no.steps, no.baseline) == (("first", "outlier"), (), 0)
    calm = judged(paired(0, -0.3, 0.0005), paired(0, -0.3, 0.0005, repeated=False), paired(0, -0.3, 0.0005))
    assert calm.states == ("first", "outlier", "outlier", "suspect")
    never = judged(*[paired(0, -0.3, 0.0005, repeated=False)] * 5)
    assert never.steps == ()


def test_a_gain_is_not_settled_by_a_second_run_that_looked_for_a_loss() -> None:
    assert judged(paired(0, 0.3, 0.0005, repeated=False)).states == ("first", "suspect")
    assert judged(paired(0, 0.3, 0.0005, repeated=True)).states == ("first", "suspect")
    found = judged(paired(0, 0.3, 0.0005), paired(0, 0.3, 0.0005))
    assert [s.direction for s in found.steps] == ["improvement"]
    assert (found.open, found.baseline) == (None, 2)


def test_the_same_predictions_are_never_off() -> None:
    found = judged(paired(0, 0.0, 1.0, identical=True), paired(1, -0.3, nan, identical=True))
    assert found.states == ("first", "steady", "steady")


@pytest.mark.parametrize(("difference", "p"), [(-0.3, 0.06), (-0.04, 0.0001), (5.0, 0.2)])
def test_what_chance_gives_or_what_does_not_matter_is_in_line(difference: float, p: float) -> None:
    found = judged(*[paired(k, difference, p) for k in range(5)])
    assert found.states == ("first", *["steady"] * 5)
    assert (found.steps, found.baseline) == ((), 5)


def test_alpha_and_points_are_inclusive() -> None:
    assert judged(*[paired(0, -0.05, 0.001)] * 2).steps
    assert not judged(*[paired(0, -0.049, 0.001)] * 2).steps
    assert not judged(*[paired(0, -0.05, 0.0011)] * 2).steps


def test_a_doubtful_night_is_no_baseline_and_counts_once_others_stand_out() -> None:
    doubtful = judged(paired(0, -0.2, 0.01))
    assert (doubtful.states, doubtful.baseline) == (("first", "steady"), 0)
    found = judged(paired(0, -0.2, 0.01), paired(0, -0.25, 0.0005), paired(0, -0.22, 0.004), paired(0, -0.25, 0.0005))
    (step,) = found.steps
    assert (step.first, step.last_good, step.found) == (1, 0, 4)
    small = judged(paired(0, -0.08, 0.03), paired(0, -1.0, 0.0005), paired(0, -1.0, 0.0005))
    assert small.steps[0].first == 2  # what is much smaller was before the step
    gone = judged(paired(0, -0.2, 0.01), paired(0, 0.01, 0.9))
    assert (gone.states, gone.baseline) == (("first", "steady", "steady"), 2)


def test_a_drop_that_did_not_stay() -> None:
    found = judged(paired(0, -0.3, 0.0005), paired(0, 0.02, 0.7), paired(2, -0.3, 0.0005), paired(2, 0.0, 1.0))
    assert found.states == ("first", "outlier", "steady", "outlier", "steady")
    assert found.steps == ()


def test_comparisons_with_other_runs_do_not_count() -> None:
    points = accuracy(paired(0, 0.0, 1.0), *[paired(0, -0.3, 0.0005)] * 2)
    assert seen(points, kind="accuracy", unit="percent").baseline == 1  # so that r1 is what the next is held to
    assert seen(points, kind="accuracy", unit="percent").steps == ()


def test_without_a_p_value_the_level_decides() -> None:
    pairs = [paired(k, 0.0, 1.0) for k in range(8)]
    found = judged(*pairs, *[paired(8, -3.0, nan)] * 3)
    assert [(s.first, s.evidence) for s in found.steps] == [(9, "level")]


def test_nights_without_comparison_are_held_to_the_level() -> None:
    level = [point(k, 50 + WIGGLE[k % 10] / 10) for k in range(20)]
    drop = [point(20 + k, 49 + WIGGLE[k] / 10) for k in range(3)]
    (step,) = seen([*level, *drop], kind="accuracy", unit="percent").steps
    assert (step.first, step.evidence) == (20, "level")
    wide = [replace(p, low=p.value - 3, high=p.value + 3) for p in (*level, *drop)]  # over images, the same every night
    assert len(seen(wide, kind="accuracy", unit="percent").steps) == 1


def test_back_at_the_baseline() -> None:
    down = [paired(0, -0.6, 0.0005, repeated=True)]
    same = judged(*down, paired(0, 0.0, 1.0, identical=True))
    assert [s.direction for s in same.steps] == ["regression", "improvement"]
    assert (same.open, same.baseline, same.states[2]) == (None, 2, "improvement")
    alike = judged(*down, paired(0, -0.02, 0.7), paired(0, 0.03, 0.6))
    assert [(s.direction, s.first, s.found) for s in alike.steps] == [("regression", 1, 1), ("improvement", 2, 3)]
    assert (alike.open, alike.baseline) == (None, 3)
    once = judged(*down, paired(0, -0.02, 0.7), paired(0, -0.6, 0.0005))
    assert once.open == once.steps[0]
    assert once.baseline == 0


def test_a_second_run_settles_a_recovery_too() -> None:
    down = [paired(0, -0.6, 0.0005, repeated=True)]
    yes = judged(*down, paired(0, -0.02, 0.7, repeated=True))
    assert [(s.direction, s.first, s.found, s.ends) for s in yes.steps] == [("regression", 1, 1, None), ("improvement", 2, 2, 0)]
    assert (yes.open, yes.baseline, yes.returning) == (None, 2, False)
    open_ = judged(*down, paired(0, -0.02, 0.7))
    assert (open_.open, open_.returning) == (open_.steps[0], True)
    no = judged(*down, paired(0, -0.02, 0.7, repeated=False))
    assert (no.open, no.returning) == (no.steps[0], False)
    assert not judged(*down, paired(0, -0.6, 0.0005)).returning
    assert not judged(*down, paired(0, -0.02, 0.7), paired(0, -0.6, 0.0005)).returning
    assert not judged(paired(0, -0.02, 0.7)).returning


def test_better_than_the_baseline_is_back() -> None:
    """Also where it is so surely, or by much."""
    for difference, p in ((0.3, 0.0005), (0.4, 0.06)):
        found = judged(paired(0, -0.6, 0.0005, repeated=True), paired(0, difference, p, repeated=True))
        assert (found.open, found.steps[-1].ends) == (None, 0)


def test_a_recovery_by_comparison_needs_no_equal_value() -> None:
    """Nights of the same predictions have no noise, so that a value a little below the baseline's would stand out of it."""
    same = [point(k, 50.0, paired={f"r{k - 1}": Paired(f"r{k - 1}", 9, Estimate(0.0), 1.0, identical=True)}) for k in range(1, 30)]
    down = point(30, 40.0, paired=paired(29, -10.0, 0.0005, repeated=True))
    back = point(31, 49.0, paired=paired(29, -1.0, 0.4, repeated=True))
    found = seen([point(0, 50.0), *same, down, back], kind="accuracy", unit="percent")
    assert (found.open, found.states[31], found.steps[-1].ends) == (None, "improvement", 0)


def test_speed_that_is_back_for_a_night_is_returning() -> None:
    points = with_values(nights((40, 20), (30, 5)), {24: 39.5})
    found = seen(points)
    assert (found.open, found.returning) == (found.steps[0], True)
    half = seen(with_values(points, {24: 36.0}))
    assert (half.open, half.returning) == (half.steps[0], False)


def test_a_paired_step_is_as_large_as_the_difference_that_was_tested() -> None:
    points = [
        point(0, 50.0),
        point(1, 50.2, paired=paired(0, 0.2, 0.4)),
        point(2, 49.7, paired=paired(1, -0.5, 0.0005, repeated=True)),
    ]
    (step,) = seen(points, kind="accuracy", unit="percent").steps
    assert (step.before, step.after, step.change) == (50.2, 49.7, pytest.approx(-0.5))


def settled(number: int = 20) -> list[Point]:
    """Accuracy that is known: nights in line with noise of about 0.035 points."""
    return [point(k, 50 + WIGGLE[k % 10] / 10) for k in range(number)]


def test_back_in_part_by_level_and_by_comparison() -> None:
    """A rest that the noise of single nights would hide is still a loss where the images say so."""
    lower = [point(20 + k, 49.6 + WIGGLE[k] / 10, paired=paired(19, -0.4, 0.0005, repeated=True)) for k in range(4)]
    for p, still in ((0.0005, True), (0.4, False)):
        part = [point(24 + k, 49.9 + WIGGLE[k] / 10, paired=paired(19, -0.1, p)) for k in range(4)]
        found = seen([*settled(), *lower, *part], kind="accuracy", unit="percent")
        assert [s.direction for s in found.steps] == ["regression", "improvement"]
        assert (found.open is not None) == still


def test_after_a_step_of_one_night_its_level_counts() -> None:
    drop = point(20, 49.5, paired=paired(19, -0.5, 0.0005, repeated=True))
    more = [point(21 + k, 49.0 + WIGGLE[k] / 10) for k in range(3)]
    found = seen([*settled(), drop, *more], kind="accuracy", unit="percent")
    assert [(s.first, s.last_good, s.evidence) for s in found.steps] == [(20, 19, "paired"), (21, 20, "level")]


def test_no_recovery_where_the_figure_says_otherwise() -> None:
    down = point(1, 49.0, paired=paired(0, -1.0, 0.0005, repeated=True))
    odd = point(2, 48.5, paired=paired(0, 0.0, 1.0, identical=True))
    assert seen([point(0, 50.0), down, odd], kind="accuracy", unit="percent").states[1:] == ("regression", "suspect")


def test_half_way_back_is_not_back() -> None:
    found = judged(paired(0, -0.6, 0.0005, repeated=True), *[paired(0, -0.3, 0.0005)] * 4)
    assert found.open == found.steps[0]
    assert found.baseline == 0
    unclear = judged(paired(0, -0.6, 0.0005, repeated=True), *[paired(0, -0.3, 0.2)] * 2)  # of few images
    assert (unclear.open, len(unclear.steps)) == (unclear.steps[0], 1)


def test_worse_still_by_comparison_with_the_night_before() -> None:
    worse = {**paired(0, -1.0, 0.0005), **paired(1, -0.5, 0.0005, repeated=True)}
    found = judged(paired(0, -0.5, 0.0005, repeated=True), worse)
    assert [(s.first, s.last_good) for s in found.steps] == [(1, 0), (2, 1)]
    assert (found.open, found.baseline) == (found.steps[0], 0)


def test_a_step_that_was_accepted_moves_the_baseline_of_accuracy() -> None:
    points = accuracy(paired(0, -0.6, 0.0005, repeated=True), paired(0, -0.6, 0.0005))
    points[1] = replace(points[1], accepted=True)
    found = seen(points, kind="accuracy", unit="percent")
    assert (found.open, found.baseline, found.steps[0].accepted) == (None, 2, True)


@pytest.mark.parametrize(
    ("difference", "p", "answer"), [(-0.3, 0.001, True), (-0.3, 0.01, None), (-0.3, 0.2, False), (-0.04, 0.0001, False), (0.3, 0.0001, False)]
)  # fmt: skip
def test_what_a_second_run_says(difference: float, p: float, answer: bool | None) -> None:
    assert confirms(difference, p, Rules()) is answer


# what holds of all series


@st.composite
def made(draw: st.DrawFn) -> Series:
    """Levels with noise and whatever may befall a night; in units where doubling is exact."""
    rng = random.Random(draw(st.integers(0, 10_000)))
    in_points = draw(st.booleans())
    noise = draw(st.sampled_from([0.0, 0.1, 1.0]))
    level, points, conditions = 64.0, [], "a"
    for k in range(draw(st.integers(0, 60))):
        event = rng.random()
        if event < 0.06:
            level += rng.choice([-8, -4, 4, 8])
        elif event < 0.08:
            conditions = rng.choice("ab")
        value = level + rng.gauss(0, noise) + (rng.choice([-20, 20]) if rng.random() < 0.06 else 0)
        pairs = {}
        for other in points[-4:]:
            if in_points and rng.random() < 0.7:
                off = value - other.value
                repeated = rng.choice([None, None, True, False])
                p = min(1.0, 2.0 ** -abs(off)) if rng.random() < 0.95 else nan
                pairs[other.result] = Paired(other.result, 9, Estimate(off), p, identical=off == 0, repeated=repeated)
        missing = rng.random() < 0.04
        width = rng.choice([nan, 0.5])
        points.append(
            point(
                k, nan if missing else value, low=value - width, high=value + width, conditions=conditions, disturbed=rng.random() < 0.1,
                paired=pairs, accepted=rng.random() < 0.03,
            )
        )  # fmt: skip
    return series_of(points, kind="accuracy" if in_points else "speed", unit="percent" if in_points else "images/s")


def changed(series: Series, value: Callable[[float], float], sign: int = 1) -> Series:
    """With other values, and differences with the sign; other ends where that is negative."""

    def of(p: Point) -> Point:
        pairs = {k: replace(v, difference=Estimate(sign * v.difference.value)) for k, v in p.paired.items()}
        low, high = sorted([value(p.low), value(p.high)]) if not math.isnan(p.low) else (nan, nan)
        return replace(p, value=value(p.value), low=low, high=high, paired=pairs)

    return replace(series, points=tuple(of(p) for p in series.points))


def places(found: Detection) -> tuple[object, ...]:
    """All that a detection says but for numbers."""
    steps = [(s.first, s.last_good, s.found, s.direction, s.evidence, s.accepted) for s in found.steps]
    return found.states, steps, found.open and found.open.first, found.baseline


@given(made())
def test_a_detection_is_whole(series: Series) -> None:
    found = detect(series)
    assert len(found.states) == len(series.points)
    assert [k for k, s in enumerate(found.states) if s in ("regression", "improvement")] == [s.first for s in found.steps]
    assert all(found.states[s.first] == s.direction for s in found.steps)
    assert all(s.last_good < s.first <= s.found for s in found.steps)
    assert all(a.found < b.first for a, b in zip(found.steps, found.steps[1:], strict=False))
    assert all((state == "unmeasured") == math.isnan(p.value) for state, p in zip(found.states, series.points, strict=True))
    assert found.open is None or (found.open in found.steps and found.open.direction == "regression" and not found.open.accepted)
    measured = [p for p in series.points if not math.isnan(p.value)]
    assert (found.baseline is None) == (not measured)
    if found.baseline is not None:
        assert series.points[found.baseline].conditions == measured[-1].conditions
    for step in found.steps:
        sign = (step.after > step.before) - (step.after < step.before)
        if step.evidence == "level":
            assert sign == (1 if step.direction == "improvement" else -1)


@given(made(), st.sampled_from([0.25, 8.0]))
def test_units_do_not_matter(series: Series, factor: float) -> None:
    if series.unit != "percent":
        found, other = detect(series), detect(changed(series, lambda v: factor * v))
        assert places(other) == places(found)
        assert [s.relative for s in other.steps] == [s.relative for s in found.steps]
        assert other.noise == pytest.approx(factor * found.noise, nan_ok=True)


@given(made())
def test_of_percent_the_level_does_not_matter(series: Series) -> None:
    if series.unit == "percent":
        found, other = detect(series), detect(changed(series, lambda v: v + 1024))
        assert places(other)[0] == places(found)[0]
        assert [s.change for s in other.steps] == pytest.approx([s.change for s in found.steps])


@given(made())
def test_what_is_better_is_only_a_name(series: Series) -> None:
    mirrored = replace(changed(series, lambda v: -v, -1), higher_is_better=False)
    assert places(detect(mirrored)) == places(detect(series))


MAY_BECOME: dict[State, set[State]] = {
    "suspect": {"suspect", "steady", "outlier", "regression", "improvement"},
    "steady": {"steady", "suspect", "regression", "improvement"},
}


@given(made())
def test_what_is_settled_stays(series: Series) -> None:
    rules = Rules()
    known = detect(replace(series, points=()))
    for length in range(1, len(series.points) + 1):
        found = detect(replace(series, points=series.points[:length]))
        before = [replace(s, accepted=False) for s in known.steps]
        assert [replace(s, accepted=False) for s in found.steps[: len(before)]] == before
        assert all(b.accepted >= a.accepted for a, b in zip(known.steps, found.steps, strict=False))
        moved = [k for k, state in enumerate(known.states) if found.states[k] != state]
        assert all(found.states[k] in MAY_BECOME.get(known.states[k], set()) for k in moved)
        if moved and known.baseline is not None:
            # only nights after the last one in line, which no more than a few can be
            measured = [k for k in range(length) if not math.isnan(series.points[k].value)]
            assert measured.index(moved[0]) >= len(measured) - 1 - 4 * rules.nights - sum(
                series.points[k].disturbed for k in measured
            )
        known = found


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 9))
def test_a_window_is_the_last_values_in_order(values: list[int], size: int) -> None:
    window = Window(size)
    for value in values:
        window.add(float(value))
    last = sorted(values[-size:])
    assert len(window) == len(last)
    if last:
        assert window.median == (last[(len(last) - 1) // 2] + last[len(last) // 2]) / 2


def test_the_spread_of_normal_noise() -> None:
    rng = random.Random(0)
    draws = [rng.gauss(3, 2) for _ in range(20_000)]
    assert scatter(draws) == pytest.approx(2, rel=0.02)
    assert scatter([*draws, *[1e9] * 2000]) == pytest.approx(2, rel=0.2)  # a tenth of outliers
    few = [scatter([rng.gauss(0, 1) for _ in range(4)]) for _ in range(2000)]
    assert sum(few) / len(few) > 1.3  # of few nights rather too much
