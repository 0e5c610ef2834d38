"""Bootstrap over images: what a figure could have been, had other images of the same kind been drawn.

A resample draws as many images as there are, with replacement, and every figure is accumulated anew from what the drawn images contribute: the
mean of per-image AP is not AP. Runs that are compared are weighted by the same draws, so that what makes an image hard for both cancels out.

Intervals are percentile intervals (Efron 1979): the quantiles of the resampled figures. BCa would correct them for bias and skew, but its
acceleration needs the figures without each image in turn, N further accumulations, which for 5000 images costs five times the resamples, and
which is unstable for classes of few images; differences of paired runs, which decisions rest on, are nearly symmetric, where the two agree.
Percentile intervals are too narrow where images are few: by sqrt((N - 1) / N), and by the t quantile against the normal one (``narrowness``).

A resample need not hold every class. A mean over classes is then, as by the metric itself, over those that it holds, so that classes of few
images come and go in it: that is part of what the interval spans, and where such classes are worse (or better) than the others it lies a little
higher (or lower) than the figure would wander with all of them.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.findings import LEVEL
from m2fbench.types import Floats, ImageStatistics, Summary

Progress = Callable[[int, int], None]
"""Told how many resamples are done, and of how many."""

BLOCK = 125
"""Resamples accumulated at once. The threads are in the accumulation itself, which spreads classes (AP) or matrix products over them."""

DEFINED = 0.9
"""The share of resamples in which a figure must be defined to have an interval. A class that k images hold is in none of those drawn with
probability about exp(-k), so that this asks for three images or more."""

ROUNDING = 1e-9
"""Points. Differences below it come from the order of summation and are none."""


def draw(images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """How often each image is drawn in each resample, int32 [B, N], every row summing to N: multinomial counts.

    The rows come one after another from one ``Generator(PCG64(seed))``: a seed gives the same draws however they are worked on in blocks,
    and more resamples begin with the fewer.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    counts = np.zeros((resamples, images), np.int32)
    for row in counts if images else ():
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return counts


def bootstrap(
    statistics: Sequence[ImageStatistics],
    *,
    resamples: int,
    seed: int,
    images: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> list[Summary]:
    """The figures of each of ``statistics``, all of them over the same images and weighted by the same draws: row 0 of every array is of the
    images as they are, rows 1 to B of the resamples.

    images: indices of those that take part, [n]; all of them where not given. The others have weight 0 throughout.
    """
    sizes = {len(each.image_ids) for each in statistics}
    if len(sizes) > 1:
        raise ValueError(f"expected statistics over the same images, got {sorted(sizes)} of them")
    total = sizes.pop() if sizes else 0
    chosen = np.arange(total) if images is None else images
    counts = np.concatenate([np.ones((1, len(chosen)), np.int32), draw(len(chosen), resamples, seed)])
    done: list[list[Summary]] = [[] for _ in statistics]
    for begin in range(0, len(counts), BLOCK):
        block = counts[begin : begin + BLOCK]
        weights = np.zeros((len(block), total))
        weights[:, chosen] = block
        for summaries, each in zip(done, statistics, strict=True):
            summaries.append(each.summarise(weights))
        if progress is not None:
            progress(max(0, begin + len(block) - 1), resamples)
    return [
        Summary(np.concatenate([s.overall for s in parts]), np.concatenate([s.by_class for s in parts])) for parts in done
    ]  # fmt: skip


def percentiles(resampled: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Lower and upper ends [...] of the percentile intervals of figures [B, ...]; NaN where a figure is defined in less than ``DEFINED`` of the
    resamples, and otherwise of those in which it is. Quantiles between two resamples are interpolated linearly."""
    ordered = np.sort(resampled, 0)  # NaN last
    defined = len(resampled) - np.isnan(resampled).sum(0)
    known = (defined > 0) & (defined >= DEFINED * len(resampled))
    low, high = (_quantile(ordered, defined, share) for share in ((1 - level) / 2, (1 + level) / 2))
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def _quantile(ordered: Floats, defined: NDArray[np.int64], share: float) -> Floats:
    """Of the first ``defined`` [...] rows of ``ordered`` [B, ...]."""
    if not len(ordered):
        return np.full(ordered.shape[1:], np.nan)
    position = share * np.maximum(defined - 1, 0)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(defined - 1, 0))
    first, second = (np.take_along_axis(ordered, rows[None], 0)[0] for rows in (below, above))
    quantile: Floats = first + (position - below) * (second - first)
    return quantile


def narrowness(images: int) -> float:
    """By which share percentile intervals of a mean over so many images are too narrow; 1 for fewer than two, which have no width."""
    from scipy.special import ndtri, stdtrit

    if images < 2:
        return 1.0
    upper = (1 + LEVEL) / 2
    return 1 - float(np.sqrt((images - 1) / images) * ndtri(upper) / stdtrit(images - 1, upper))


def difference(a: Floats, b: Floats) -> Floats:
    """b - a, 0 where nothing but rounding is between them."""
    between: Floats = b - a
    return np.where(np.abs(between) < ROUNDING, 0.0, between)


def p_values(differences: Floats, holding: NDArray[np.int64] | int | None = None) -> Floats:
    """Two-sided p-values [...] of no difference, from resampled differences [B, ...]: twice the smaller share of resamples on or beyond
    zero, both counts one higher (Davison and Hinkley 1997, 4.2), so that it is never 0; 1 for identical runs. NaN as for ``percentiles``.

    holding: how many images each figure rests on [...]. No p is below 2^(1 - holding), the least that a test of so many signs can give: three
    images that all gain leave out zero in every resample, and still show next to nothing."""
    defined = len(differences) - np.isnan(differences).sum(0)
    known = (defined > 0) & (defined >= DEFINED * len(differences))
    beyond = np.minimum((differences <= 0).sum(0), (differences >= 0).sum(0))
    least = 0.0 if holding is None else np.exp2(1.0 - np.asarray(holding, float))
    return np.where(known, np.minimum(1.0, np.maximum(least, 2 * (beyond + 1) / (defined + 1))), np.nan)


def false_discovery(p: Floats) -> Floats:
    """Benjamini and Hochberg's (1995) adjusted p-values of one family of tests [M]: those up to 0.05 hold, with 5 % of them expected to be
    false. NaN stays and is not counted."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    if len(known):
        order = known[np.argsort(p[known], kind="stable")]
        scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
        adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted
