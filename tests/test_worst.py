"""The subset on which most is lost: each against the same figure over all, and only where that is sure."""

import math
from dataclasses import replace
from typing import Any

from m2fbench.analysis.findings import Disaggregation, Estimate, FigureKey, Intervals, SubsetFinding
from m2fbench.analysis.worst import worst_subset

OVERALL: dict[FigureKey, Estimate] = {
    ("PQ", None): Estimate(60.0, 57.0, 63.0),
    ("PQ_th", None): Estimate(40.0, 36.0, 44.0),
    ("PQ", "tree"): Estimate(5.0, 4.0, 6.0),
}
INTERVALS = Intervals(OVERALL, 100, 1000, 0)


def subset(name: str, figure: str, value: float, half: float = 1.0, **changes: Any) -> SubsetFinding:
    figures = {figure: Estimate(value, value - half, value + half), "segment_recall": Estimate(1.0, 0.5, 1.5)}
    return replace(SubsetFinding("object size", name, name, "object", 30, 90, figures, head="panoptic"), **changes)


def found(*subsets: SubsetFinding) -> str | None:
    worst = worst_subset("panoptic", Disaggregation(subsets, {}), INTERVALS)
    return None if worst is None else worst.subset.subset


def test_each_figure_is_held_against_the_same_over_all() -> None:
    """Things at 35 lose 5 of their 40; images at 50 lose 10 of 60, though 35 is the lower figure."""
    of_images = subset("dark", "PQ", 50.0, attribute="brightness", level="image", head=None)
    assert found(subset("small", "PQ_th", 33.0), of_images) == "dark"
    assert found(subset("small", "PQ_th", 25.0), of_images) == "small"
    worst = worst_subset("panoptic", Disaggregation((of_images,), {}), INTERVALS)
    assert worst is not None
    assert (worst.figure, worst.loss, worst.overall.low) == ("PQ", 10.0, 57.0)


def test_what_is_not_sure_or_of_another_head_is_not_told() -> None:
    sure = subset("medium", "PQ_th", 30.0)
    assert found(sure) == "medium"
    for other in (
        subset("few", "PQ_th", 10.0, enough=False),
        subset("wide", "PQ_th", 10.0, half=26.0),  # its interval reaches 36
        subset("masks", "PQ_th", 10.0, head="instance"),
        subset("recall", "PQ_th", math.nan),
        subset("another figure", "AP_th_pan", 1.0),
        subset("no interval", "PQ_th", 10.0, figures={"PQ_th": Estimate(10.0)}),
    ):
        assert found(other) is None, other.subset
        assert found(other, sure) == "medium", other.subset
    assert worst_subset("panoptic", Disaggregation((sure,), {}), None) is None
    assert worst_subset("panoptic", None, INTERVALS) is None
