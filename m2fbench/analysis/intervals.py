"""Bootstrap intervals of one run's figures, over all classes and for each."""

import numpy as np

from m2fbench.analysis.bootstrap import Progress, bootstrap, percentiles
from m2fbench.analysis.findings import Estimate, FigureKey, Intervals
from m2fbench.analysis.runs import Evidence, MetricStatistics, Tell, silent, statistics_of
from m2fbench.suite import metrics
from m2fbench.types import Floats, Summary

FEWEST_IMAGES = 2
"""Of a single image every resample is that image, which says nothing of how much its figures vary."""


def intervals(
    evidence: Evidence, *, resamples: int = 1000, seed: int = 0, tell: Tell = silent, progress: Progress | None = None
) -> Intervals:
    """Of every figure whose metric says what each image contributes; ``missing`` says of which there are none, and why."""
    there = statistics_of(evidence, tell=tell)
    tell(f"resampling {len(evidence.examples)} images {resamples} times")
    summaries = bootstrap([m.statistics for m in there], resamples=resamples, seed=seed, progress=progress)
    figures: dict[FigureKey, Estimate] = {}
    for metric, summary in zip(there, summaries, strict=True):
        for key, estimate in estimates(metric, summary, len(evidence.examples)).items():
            figures.setdefault(key, estimate)  # as results are read: the first of a name
    return Intervals(figures, len(evidence.examples), resamples, seed, missing=missing(evidence, there))


def missing(evidence: Evidence, there: list[MetricStatistics]) -> dict[str, str]:
    """The suite's metrics without statistics -> why."""
    have = {m.metric for m in there}
    reasons = {}
    for name in evidence.suite.metrics:
        if name not in have:
            head = metrics.get(name).head
            known = head in evidence.predictions.heads
            reasons[name] = (
                "it does not say what each image contributes to its figures" if known else f"there are no {head} predictions"
            )
    return reasons


def estimates(metric: MetricStatistics, summary: Summary, images: int) -> dict[FigureKey, Estimate]:
    """Each figure with its interval; ``summary`` as ``bootstrap`` gives it. images: that took part."""
    statistics, names = metric.statistics, metric.names
    found: dict[FigureKey, Estimate] = {}
    for figure, estimate in zip(statistics.figures, estimates_of(summary.overall, images), strict=True):
        found[names[figure], None] = estimate
    for plane, figure in enumerate(statistics.class_figures):
        each = estimates_of(summary.by_class[:, plane], images)
        found |= {(names[figure], category): e for category, e in zip(statistics.categories, each, strict=True)}
    return found


def estimates_of(values: Floats, images: int) -> list[Estimate]:
    """One for each column of [1 + B, F], row 0 of which is of the images as they are."""
    low, high = percentiles(values[1:])
    if images < FEWEST_IMAGES or len(values) == 1:
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    return [Estimate(*row) for row in np.stack([values[0], low, high], 1).tolist()]
