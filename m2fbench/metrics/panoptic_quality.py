"""Panoptic quality of Kirillov et al. (arXiv 1801.00868), as the COCO panoptic API computes it.

Convention: panopticapi's ``evaluation.py``. A predicted and a true segment of one class match where their intersection over
union is above 0.5, the prediction's pixels on void (0) not counting in the union. Crowd regions match nothing and are missed by
nobody; an unmatched prediction of which more than half lies on void and on its class's crowd region (the last one listed, where
there are several) is no false positive. PQ = sum of IoU / (TP + FP/2 + FN/2) for each class, and the mean over the classes that
have any of the three: a class that is only predicted counts with 0.

A true segment's area in the union is the annotation's where the truth gives one (``Segment.area``), a predicted one's its pixels.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from m2fbench.files import map_over
from m2fbench.metrics.panoptic_files import counts_of_files
from m2fbench.metrics.panoptic_matching import entries_of, examples_of, match, overlaps, read_pair
from m2fbench.metrics.panoptic_official import official_figures
from m2fbench.metrics.panoptic_statistics import PARTS, QUALITY, panoptic_statistics
from m2fbench.suite import metrics
from m2fbench.types import (
    Dataset,
    Example,
    Head,
    ImageId,
    ImageStatistics,
    Measurement,
    ObjectSubset,
    PanopticMap,
    Predictions,
    ScoringRules,
    Segment,
    Verification,
)  # fmt: skip

_GROUPS = ("", "_th", "_st")
_COUNTS = ("TP", "FP", "FN", "truth_segments")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PanopticCounts:
    """By class, all of length C: matched pairs, predictions without truth, truth without prediction (int64); sum of the pairs'
    IoU (float64); true segments that are no crowd (int64). Counts of several images are their sum."""

    tp: Ints
    fp: Ints
    fn: Ints
    iou: Floats
    truth: Ints

    @classmethod
    def none(cls, classes: int) -> "PanopticCounts":
        zeros = np.zeros(classes, np.int64)
        return cls(zeros, zeros, zeros, np.zeros(classes), zeros)

    def __add__(self, other: "PanopticCounts") -> "PanopticCounts":
        return PanopticCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def panoptic_counts(truth: PanopticMap, prediction: PanopticMap, classes: int) -> PanopticCounts:
    """One image's counts; both maps of one size. classes: number of categories."""
    return counts_of_overlaps(overlaps(truth, prediction), truth.segments, prediction.segments, classes)


def counts_of_overlaps(table: Ints, truth: Sequence[Segment], prediction: Sequence[Segment], classes: int) -> PanopticCounts:
    """One image's counts from ``overlaps``."""
    found = match(table, truth, prediction)
    matches = found.same
    rows, columns, iou = found.true[matches], found.found[matches], found.iou[matches]
    missed, false = ~found.crowd, ~found.excused
    missed[rows], false[columns] = False, False

    count = functools.partial(np.bincount, minlength=classes)
    true_class = found.true_class
    iou_sum = np.bincount(true_class[rows], iou, classes).astype(np.float64)
    return PanopticCounts(
        count(true_class[rows]),
        count(found.found_class[false]),
        count(true_class[missed]),
        iou_sum,
        count(true_class[~found.crowd]),
    )


def summarise(counts: PanopticCounts, things: NDArray[np.bool_]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Figures over classes (PQ, SQ_th, ...), and PQ, SQ, RQ by class [C], in percent; NaN where there is nothing to measure.

    things: bool [C].
    """
    weight = counts.tp + 0.5 * counts.fp + 0.5 * counts.fn
    there = weight > 0
    whole = np.where(there, weight, np.nan)
    values = {
        "PQ": 100 * counts.iou / whole,
        "SQ": 100 * counts.iou / np.where(there, np.maximum(counts.tp, 1), np.nan),  # 0 where nothing matched
        "RQ": 100 * counts.tp / whole,
    }
    groups = (there, there & things, there & ~things)
    overall = {
        part + suffix: float(values[part][group].mean()) if group.any() else math.nan
        for suffix, group in zip(_GROUPS, groups, strict=True)
        for part in PARTS
    }
    return overall, {part: each.tolist() for part, each in values.items()}


class PanopticQuality:
    """PQ, SQ and RQ over all classes, things and stuff, and for each class; with the counts behind them."""

    name = "panoptic_quality"
    head: Head = "panoptic"
    only_for: str | None = None
    version = 1
    names: tuple[str, ...] = QUALITY

    def score(
        self, dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rules: ScoringRules
    ) -> tuple[Measurement, ...]:
        """Raises PredictionsError naming the file where a PNG and the JSON do not fit each other or the image."""
        counts = _counts(dataset, predictions, image_ids)
        overall, by_class = summarise(counts, np.array([c.is_thing for c in dataset.categories], bool))
        named = zip(_COUNTS, (counts.tp, counts.fp, counts.fn, counts.truth), strict=True)
        return tuple(_measurements(dataset, overall, by_class, {name: values.astype(float).tolist() for name, values in named}))

    def verify(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        measurements: Sequence[Measurement],
    ) -> Verification:
        """All figures by panopticapi where it is installed, else by cityscapesScripts' evaluator of the same definition."""
        entries = entries_of(dataset, predictions, image_ids)
        evaluator, figures = official_figures(dataset, examples_of(dataset, image_ids), entries)
        official = _measurements(dataset, *figures)
        return Verification(evaluator, max(difference(m.value, o.value) for m, o in zip(measurements, official, strict=True)))

    def statistics(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        subset: ObjectSubset | None = None,
    ) -> ImageStatistics | None:
        """Of all segments, or of those in ``subset``: any attribute of truth, area and border of predictions too."""
        return panoptic_statistics(dataset, predictions, image_ids, subset)


metrics.register(PanopticQuality.name)(PanopticQuality())


def image_counts(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId]) -> Iterator[PanopticCounts]:
    """The counts of each image, in the order of ``image_ids``."""
    entries = entries_of(dataset, predictions, image_ids)
    classes = len(dataset.categories)

    def count(example: Example) -> PanopticCounts:
        truth, found, table = read_pair(dataset, entries[example.image_id], example)
        return counts_of_overlaps(table, truth.segments, found.segments, classes)

    yield from map_over(count, examples_of(dataset, image_ids))


def _counts(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId]) -> PanopticCounts:
    """Over all the images, in the quickest way that there is."""
    entries = entries_of(dataset, predictions, image_ids)
    if found := counts_of_files(dataset, examples_of(dataset, image_ids), entries):
        (tp, fp, fn, truth), iou = found
        return PanopticCounts(tp, fp, fn, iou, truth)
    return sum(image_counts(dataset, predictions, image_ids), PanopticCounts.none(len(dataset.categories)))


def _measurements(
    dataset: Dataset,
    overall: Mapping[str, float],
    by_class: Mapping[str, Sequence[float]],
    counts: Mapping[str, Sequence[float]],
) -> Iterator[Measurement]:
    for name in PanopticQuality.names:
        yield Measurement(name, overall[name])
    for name in PARTS:
        for value, category in zip(by_class[name], dataset.categories, strict=True):
            yield Measurement(name, value, category=category.name)
    for name in _COUNTS:
        for value, category in zip(counts[name], dataset.categories, strict=True):
            yield Measurement(name, value, "count", name in ("TP", "truth_segments"), category.name)


def difference(ours: float, theirs: float) -> float:
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs)
