"""Of all parts of the data the one on which a run loses most: one rule, for the report and the model card."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from m2fbench.analysis.findings import Disaggregation, Estimate, Intervals, SubsetFinding
from m2fbench.types import Head

FIGURES: Mapping[Head, tuple[str, ...]] = {"instance": ("AP",), "panoptic": ("PQ", "PQ_th", "PQ_st"), "semantic": ("mIoU",)}
"""A task's main figure, and for a part that has not it (objects of a panoptic model: things alone) the next."""


@dataclass(frozen=True)
class WorstSubset:
    """figure: the subset's main one. estimate: there; overall: the same figure over all."""

    subset: SubsetFinding
    figure: str
    estimate: Estimate
    overall: Estimate

    @property
    def loss(self) -> float:
        """In points."""
        return self.overall.value - self.estimate.value


def worst_subset(task: Head, found: Disaggregation | None, intervals: Intervals | None) -> WorstSubset | None:
    """The subset whose main figure lies furthest below the same figure over all, among those that rest on enough, are of the task's own head
    or of whole images, and whose interval lies wholly below the overall one; of equals the first. None where there is none, or no intervals."""
    if found is None or intervals is None:
        return None
    below = []
    for subset in found.subsets:
        figure = next((n for n in FIGURES[task] if not math.isnan(subset.figures.get(n, _NOTHING).value)), None)
        if figure is None or not subset.enough or subset.head not in (None, task):
            continue
        estimate, overall = subset.figures[figure], intervals.figures.get((figure, None), _NOTHING)
        if estimate.has_interval and overall.has_interval and estimate.high < overall.low:
            below.append(WorstSubset(subset, figure, estimate, overall))
    return max(below, key=lambda worst: worst.loss, default=None)


_NOTHING = Estimate(math.nan)
