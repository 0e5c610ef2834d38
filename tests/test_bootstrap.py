"""The bootstrap against distributions that are known."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2fbench.analysis.bootstrap import (
    BLOCK,
    DEFINED,
    bootstrap,
    difference,
    draw,
    false_discovery,
    narrowness,
    p_values,
    percentiles,
)
from m2fbench.analysis.intervals import estimates_of
from m2fbench.types import Floats, Summary

Z = 1.959964


@dataclass(frozen=True)
class Ratios:
    """Statistics whose figures by class are ratios of sums over images, C of them; with ones below, means. above, below: [N, C]."""

    above: Floats
    below: Floats
    figures: tuple[str, ...] = ("mean",)
    class_figures: tuple[str, ...] = ("ratio",)

    @property
    def image_ids(self) -> tuple[int, ...]:
        return tuple(range(len(self.above)))

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(str(k) for k in range(self.above.shape[1]))

    truth_count = found_count = np.zeros((0, 0), np.int64)

    def summarise(self, weights: Floats) -> Summary:
        whole = weights @ self.below
        ratio = np.full(whole.shape, np.nan)
        np.divide(weights @ self.above, whole, out=ratio, where=whole > 0)
        return Summary(ratio.mean(1, keepdims=True), ratio[:, None])

    def per_image(self) -> Floats:
        return self.summarise(np.eye(len(self.above))).overall


def means(values: Floats) -> Ratios:
    return Ratios(values, np.ones_like(values))


def resampled(statistics: Ratios, resamples: int = 1000, seed: int = 0) -> Floats:
    (summary,) = bootstrap([statistics], resamples=resamples, seed=seed)
    return summary.by_class[:, 0]


def test_draws_are_multinomial_and_the_same_for_a_seed() -> None:
    counts = draw(50, 2000, 3)
    assert counts.dtype == np.int32
    assert (counts.sum(1) == 50).all()
    np.testing.assert_array_equal(counts, draw(50, 2000, 3))
    np.testing.assert_array_equal(counts[:70], draw(50, 70, 3))  # more resamples begin with the fewer
    assert (counts != draw(50, 2000, 4)).any()
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.15)
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.02)  # of a multinomial count
    assert np.cov(counts[:, 0], counts[:, 1])[0, 1] == pytest.approx(-1 / 50, abs=0.06)


@pytest.mark.parametrize("resamples", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_blocks_change_nothing(resamples: int) -> None:
    values = np.random.default_rng(0).normal(size=(20, 3))
    told: list[tuple[int, int]] = []
    (summary,) = bootstrap([means(values)], resamples=resamples, seed=5, progress=lambda done, total: told.append((done, total)))
    weights = np.concatenate([np.ones((1, 20)), draw(20, resamples, 5)])
    np.testing.assert_allclose(summary.by_class[:, 0], weights @ values / 20, rtol=0, atol=1e-12)
    assert told[-1] == (resamples, resamples)
    assert told == sorted(told)


def test_intervals_of_a_mean_cover_as_they_say_and_are_as_wide_as_theory_has_it() -> None:
    images, datasets = 80, 1500
    values = np.random.default_rng(1).normal(50, 12, (images, datasets))
    low, high = percentiles(resampled(means(values), 1000)[1:])
    covered = ((low <= 50) & (high >= 50)).mean()
    assert covered == pytest.approx(0.95, abs=0.02)  # 1500 datasets: a standard error of 0.006
    assert (high - low).mean() == pytest.approx(2 * Z * 12 / np.sqrt(images), rel=0.03)
    assert (low > 50).mean() == pytest.approx((high < 50).mean(), abs=0.02)


def test_intervals_of_a_ratio_of_sums_agree_with_the_delta_method() -> None:
    rng = np.random.default_rng(2)
    images, datasets = 300, 200
    below = rng.gamma(2, 10, (images, datasets))
    above = below * rng.beta(6, 3, (images, datasets))
    found = resampled(Ratios(above, below), 1000)
    low, high = percentiles(found[1:])
    ratio = above.sum(0) / below.sum(0)
    np.testing.assert_allclose(found[0], ratio, rtol=1e-12)
    deviation = (above - ratio * below).std(0) / below.mean(0) / np.sqrt(images)
    assert (high - low).mean() == pytest.approx((2 * Z * deviation).mean(), rel=0.02)
    assert ((low <= 2 / 3) & (high >= 2 / 3)).mean() == pytest.approx(0.95, abs=0.035)
    # The ratio of sums is not the mean of ratios: here the two agree; with unequal images they do not.
    uneven = Ratios(np.array([[90.0], [0.0]]), np.array([[100.0], [1.0]]))
    assert resampled(uneven, 1)[0, 0] == pytest.approx(90 / 101)


@pytest.mark.full
def test_paired_differences_have_the_variance_of_the_difference_and_unpaired_that_of_the_sum() -> None:
    rng = np.random.default_rng(3)
    images, pairs = 200, 1500
    hardness = rng.normal(0, 10, (images, pairs))
    a, b = (50 + hardness + rng.normal(0, 3, hardness.shape) for _ in range(2))
    first, second = bootstrap([means(a), means(b)], resamples=800, seed=0)
    paired = difference(first.by_class[1:, 0], second.by_class[1:, 0])
    assert paired.var(0).mean() == pytest.approx((a - b).var(0).mean() / images, rel=0.03)
    apart = difference(resampled(means(a), 800, 1)[1:], resampled(means(b), 800, 2)[1:])
    assert apart.var(0).mean() == pytest.approx((a.var(0) + b.var(0)).mean() / images, rel=0.03)
    (low, high), (lower, higher) = percentiles(paired), percentiles(apart)
    assert ((high - low) < 0.5 * (higher - lower)).all()
    # Of no difference, one in twenty is called one; p-values are uniform, the tests two-sided.
    p = p_values(paired)
    assert ((low > 0) | (high < 0)).mean() == pytest.approx(0.05, abs=0.015)  # 1500 pairs: a standard error of 0.006
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert p.mean() == pytest.approx(0.5, abs=0.03)
    # A difference of two standard errors is one of p near 0.046.
    shifted = p_values(paired - paired.mean(0) + 2 * paired.std(0))
    assert np.median(shifted) == pytest.approx(0.0455, abs=0.012)


def test_identical_runs_differ_by_exactly_nothing() -> None:
    values = np.random.default_rng(4).normal(size=(30, 4))
    first, second = bootstrap([means(values), means(values.copy())], resamples=200, seed=0)
    between = difference(first.by_class[:, 0], second.by_class[:, 0])
    assert (between == 0).all()
    assert (p_values(between[1:]) == 1).all()
    assert all((e.value, e.low, e.high) == (0, 0, 0) for e in estimates_of(between, 30))


def test_no_p_value_is_less_than_so_few_images_can_give() -> None:
    gains = np.linspace(1, 2, 500)[:, None].repeat(4, 1)  # better in every resample
    found = p_values(gains, np.array([1, 3, 6, 100]))
    assert found.tolist() == pytest.approx([1, 0.25, 2 / 2**6, 2 / 501])
    assert p_values(gains, 3).tolist() == [0.25] * 4


def test_how_much_too_narrow_intervals_of_few_images_are() -> None:
    assert narrowness(1) == narrowness(0) == 1
    assert narrowness(5) == pytest.approx(1 - np.sqrt(4 / 5) * 1.959964 / 2.776445, abs=1e-6)  # t of 4 degrees, from a table
    assert 0 < narrowness(1000) < 0.002
    values = np.random.default_rng(8).normal(0, 1, (5, 400))
    low, high = percentiles(resampled(means(values), 1000)[1:])
    exact = 2 * 2.776445 * values.std(0, ddof=1) / np.sqrt(5)
    assert ((high - low) / exact).mean() == pytest.approx(1 - narrowness(5), abs=0.03)


def test_rounding_is_no_difference() -> None:
    a = np.full((101, 1), 30.0)
    assert (difference(a, a + 1e-13) == 0).all()
    assert p_values(difference(a, a + 1e-13)).tolist() == [1.0]
    assert p_values(difference(a, a + 1e-6)).tolist() == [pytest.approx(2 / 102)]


def test_only_resamples_that_define_a_figure_count_and_too_few_of_them_give_no_interval() -> None:
    images = 200
    below = np.zeros((images, 3))
    below[:1, 0] = below[:4, 1] = below[:, 2] = 1  # classes that one, four and all images hold
    above = below * np.random.default_rng(5).uniform(0, 100, below.shape)
    values = resampled(Ratios(above, below), 2000)
    defined = 1 - np.isnan(values[1:]).mean(0)
    assert defined == pytest.approx(1 - np.exp([-1.0, -4.0, -images]), abs=0.03)
    low, high = percentiles(values[1:])
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [defined[0] < DEFINED, False, False] == [True, False, False]
    some = values[1:, 1][~np.isnan(values[1:, 1])]
    np.testing.assert_allclose((low[1], high[1]), np.quantile(some, [0.025, 0.975]), rtol=1e-12)
    p = p_values(values[1:] - values[0])
    assert np.isnan(p).tolist() == [True, False, False]


@given(st.lists(st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=3, max_size=3), min_size=1, max_size=40))
def test_percentiles_are_numpys(rows: list[list[float]]) -> None:
    values = np.array(rows)
    for column, low, high in zip(values.T, *percentiles(values, 0.8), strict=True):
        known = column[~np.isnan(column)]
        if len(known) < DEFINED * len(column) or not len(known):
            assert np.isnan([low, high]).all()
        else:
            np.testing.assert_allclose((low, high), np.quantile(known, [0.1, 0.9]), rtol=1e-9, atol=1e-9)


def test_one_image_and_none() -> None:
    one = resampled(means(np.array([[40.0, 60.0]])), 10)
    assert (one == [40.0, 60.0]).all()
    assert not any(e.has_interval for e in estimates_of(one, 1))
    (nothing,) = bootstrap([means(np.zeros((0, 2)))], resamples=10, seed=0)
    with np.errstate(invalid="ignore"):
        assert all(np.isnan(e.value) and not e.has_interval for e in estimates_of(nothing.by_class[:, 0], 0))
    assert bootstrap([], resamples=10, seed=0) == []


def test_statistics_over_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"over the same images, got \[3, 4\]"):
        bootstrap([means(np.zeros((3, 1))), means(np.zeros((4, 1)))], resamples=1, seed=0)


def test_a_subset_of_the_images_is_resampled_alone() -> None:
    values = np.random.default_rng(6).normal(size=(40, 2))
    chosen = np.array([3, 7, 8, 20, 39])
    (some,) = bootstrap([means(values)], resamples=50, seed=2, images=chosen)
    (alone,) = bootstrap([means(values[chosen])], resamples=50, seed=2)
    # ``Ratios`` divides by the sum of weights, which is that of the chosen images.
    np.testing.assert_allclose(some.by_class, alone.by_class, rtol=1e-12)


@pytest.mark.full  # imports scipy.stats
def test_false_discovery_is_benjamini_and_hochbergs() -> None:
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(7).uniform(0, 0.2, 40)
    np.testing.assert_allclose(false_discovery(p), false_discovery_control(p), rtol=1e-12)
    holed = np.insert(p, [0, 13], np.nan)
    np.testing.assert_allclose(false_discovery(holed)[~np.isnan(holed)], false_discovery_control(p), rtol=1e-12)
    assert np.isnan(false_discovery(holed)[np.isnan(holed)]).all()
    assert false_discovery(np.zeros(0)).shape == (0,)
