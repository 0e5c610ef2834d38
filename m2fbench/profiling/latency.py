"""Statistics of per-image times: pure functions of numbers.

Convention: a benchmark's fps is the number of images over the sum of their times, that is, one over the mean time (detectron2's evaluator, which
the paper's fps comes from), never the mean of each image's own rate. Intervals are of the mean: Student's t with a variance that counts in how far
the times of neighbouring images go together (Newey and West 1987, Bartlett's weights), as they do where a machine warms up or slows down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % confidence interval; NaN for an end that the values do not bound."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """Times of one image each, in seconds. images: how many. percentiles: of 50, 90, 95 and 99 those that so many images can tell, which is one
    image beyond them at least; interpolated linearly. fps: images per second, with its interval."""

    images: int
    mean: Interval
    deviation: float
    percentiles: dict[int, float]
    fastest: float
    slowest: float
    fps: Interval


def latency(seconds: Sequence[float]) -> Latency:
    """Raises ValueError for no times, and for such as are not positive and finite."""
    times = np.asarray(seconds, np.float64)
    if not len(times) or not np.isfinite(times).all() or (times <= 0).any():
        raise ValueError(f"expected positive times, got {list(seconds)[:3]}")
    mean = mean_interval(times)
    return Latency(
        images=len(times),
        mean=replace(mean, low=mean.low if mean.low > 0 else math.nan),
        deviation=float(times.std(ddof=1)) if len(times) > 1 else math.nan,
        percentiles={p: float(np.percentile(times, p)) for p in PERCENTILES if len(times) * (100 - p) >= 100},
        fastest=float(times.min()),
        slowest=float(times.max()),
        fps=Interval(1 / mean.value, _inverse(mean.high), _inverse(mean.low)),
    )


def _inverse(mean: float) -> float:
    """Of an interval's end; NaN where the mean could be zero, which bounds nothing."""
    return 1 / mean if mean > 0 else math.nan


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """The mean of ``values`` [n], in their order of measurement, with its interval."""
    mean = float(values.mean())
    half = _half_width(values - mean)
    return Interval(mean, mean - half, mean + half)


def speed_up(reference: Sequence[float], variant: Sequence[float]) -> Interval:
    """How many times faster the variant is: the sum of the reference's times over that of the variant's, both of the same images in the same order.

    What slowed both down at the same image (its size, the machine) cancels; the interval is that of a ratio estimator, from the residuals
    reference - ratio x variant.
    """
    first, second = np.asarray(reference, np.float64), np.asarray(variant, np.float64)
    if len(first) != len(second) or not len(first):
        raise ValueError(f"expected the times of the same images, got {len(first)} and {len(second)}")
    ratio = float(first.mean() / second.mean())
    half = _half_width(first - ratio * second) / float(second.mean())
    return Interval(ratio, ratio - half, ratio + half)


def _half_width(residuals: NDArray[np.float64]) -> float:
    """Of the interval of a mean whose residuals [n] these are; NaN below two values."""
    n = len(residuals)
    if n < 2:
        return math.nan
    from scipy.stats import t  # half a second

    return float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(long_run_variance(residuals) / n)


def long_run_variance(residuals: NDArray[np.float64]) -> float:
    """The variance that a mean of n such residuals has, times n; never less than their own variance, so that noise does not pass for
    certainty in short series."""
    n = len(residuals)
    own = float((residuals**2).sum() / (n - 1))
    lags = int(4 * (n / 100) ** (2 / 9))  # Newey and West's rule of thumb
    total = own
    for lag in range(1, min(lags, n - 1) + 1):
        covariance = float((residuals[lag:] * residuals[:-lag]).sum() / (n - 1))
        total += 2 * (1 - lag / (lags + 1)) * covariance
    return max(total, own)
