"""Statistics of times, on series whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2fbench.profiling.latency import latency, long_run_variance, mean_interval, speed_up


def test_a_constant_time_has_no_spread() -> None:
    found = latency([0.25] * 10)
    assert (found.images, found.fps.value, found.fps.low, found.fps.high) == (10, 4.0, 4.0, 4.0)
    assert (found.mean.value, found.deviation, found.fastest) == (0.25, 0.0, 0.25)
    assert found.percentiles == {50: 0.25, 90: 0.25}


def test_fps_is_images_over_time_not_the_mean_of_rates() -> None:
    found = latency([1.0, 0.1])  # two images in 1.1 s; the mean of the rates would be 5.5
    assert found.fps.value == pytest.approx(2 / 1.1)


def test_percentiles_are_those_of_numpy_and_the_slowest_is_named() -> None:
    times = [k / 100 for k in range(100, 0, -1)]
    found = latency(times)
    assert found.percentiles == pytest.approx({p: np.percentile(times, p) for p in (50, 90, 95, 99)})
    assert (found.fastest, found.slowest) == (0.01, 1.0)


@pytest.mark.parametrize(
    ("images", "told"), [(1, []), (2, [50]), (9, [50]), (10, [50, 90]), (20, [50, 90, 95]), (99, [50, 90, 95])]
)
def test_percentiles_that_so_few_images_cannot_tell_are_not_given(images: int, told: list[int]) -> None:
    assert list(latency([0.1] * images).percentiles) == told


def test_no_end_of_an_interval_is_negative() -> None:
    found = latency([0.001, 1.0])
    assert math.isnan(found.mean.low)
    assert math.isnan(found.fps.high)
    assert 0 < found.fps.low < found.fps.value


def test_one_time_has_no_interval() -> None:
    found = latency([0.5])
    assert found.fps.value == 2.0
    assert math.isnan(found.fps.low)
    assert math.isnan(found.fps.high)
    assert math.isnan(found.deviation)


@pytest.mark.parametrize("times", [[], [0.0], [-1.0], [math.nan], [math.inf, 1.0]])
def test_what_is_no_time_is_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="positive times"):
        latency(times)


@given(st.lists(st.floats(1e-3, 10), min_size=2, max_size=50))
def test_the_interval_holds_the_estimate_and_survives_a_change_of_unit(times: list[float]) -> None:
    found, scaled = latency(times), latency([1000 * t for t in times])
    assert found.fps.low <= found.fps.value * (1 + 1e-12)
    assert math.isnan(found.fps.high) == math.isnan(found.mean.low), "times so uneven bound the rate on one side only"
    assert math.isnan(found.fps.high) or found.fps.value <= found.fps.high * (1 + 1e-12)
    assert scaled.mean.value == pytest.approx(1000 * found.mean.value)
    assert scaled.mean.high == pytest.approx(1000 * found.mean.high, rel=1e-6, abs=1e-6)


def ar1(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    noise = rng.normal(size=n + 50)
    for k in range(1, n + 50):
        noise[k] += rho * noise[k - 1]
    return noise[50:]


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.93), (0.3, 0.88)])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(rho: float, least: float) -> None:
    """Also where neighbours go together, for which a plain t interval covers far less often than it claims."""
    rng = np.random.default_rng(0)
    series = [10 + ar1(rng, 200, rho) for _ in range(1000)]
    held = np.mean([(i := mean_interval(values)).low <= 10 <= i.high for values in series])
    plain = np.mean([abs(v.mean() - 10) <= 1.972 * v.std(ddof=1) / math.sqrt(len(v)) for v in series])
    assert held >= least
    assert held >= plain - 0.01
    if rho:
        assert plain < least


def test_the_long_run_variance_of_neighbours_that_go_together_is_larger() -> None:
    values = ar1(np.random.default_rng(1), 4000, 0.5)
    values -= values.mean()
    assert 2.0 < long_run_variance(values) / values.var() < 3.5  # (1 + 0.5) / (1 - 0.5) = 3 in the limit
    alternating = np.tile([1.0, -1.0], 50)
    assert long_run_variance(alternating) >= alternating.var()  # never less than the values' own


def test_speed_up_cancels_what_slowed_both() -> None:
    rng = np.random.default_rng(2)
    size = rng.lognormal(0, 0.5, 400)  # images differ far more than the variants do
    reference = 1.10 * size * (1 + 0.01 * rng.normal(size=400))
    variant = 1.00 * size * (1 + 0.01 * rng.normal(size=400))
    paired = speed_up(reference, variant)
    assert paired.value == pytest.approx(1.10, abs=0.005)
    assert paired.low < 1.10 < paired.high
    assert paired.high - paired.low < 0.01
    assert speed_up(reference, reference).low == speed_up(reference, reference).high == 1.0
    with pytest.raises(ValueError, match="same images"):
        speed_up([1.0], [1.0, 2.0])
