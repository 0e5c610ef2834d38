"""What each image contributes to panoptic quality, so that PQ, SQ and RQ can be accumulated anew for any choice of the images.

Conventions: ``panoptic_quality``'s. A class is in the means if it has a match, a false or a missed segment in the images that were
chosen; its SQ is 0 where nothing matched.

Of a subset of the segments: a true one in it counts as matched or missed; a prediction that matches one outside counts for nothing; any
other counts as false if it is in the subset itself. Matches are those of the whole maps, for at an IoU above 0.5 no choice of the others
changes them. By an attribute of truth only (occlusion, crowd) there are no false segments to speak of, so the figures are
``segment_recall``, 100 TP / (TP + FN), and SQ, means over the classes with truth in the subset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2fbench.metrics.segment_records import TRUTH_ONLY, SegmentRecords, Segments, segment_records
from m2fbench.types import Dataset, ImageId, ObjectSubset, Predictions, Summary

PARTS = ("PQ", "SQ", "RQ")
QUALITY = tuple(part + suffix for suffix in ("", "_th", "_st") for part in PARTS)
RECALL = ("segment_recall", "SQ")

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def quality(counts: Floats, things: Bools) -> tuple[Floats, Floats]:
    """Overall figures [B, 9] (PQ, SQ, RQ, PQ_th, ...) and PQ, SQ, RQ by class [B, 3, C], in percent, NaN where undefined.

    counts: [B, 4, C], TP, FP, FN, sum of IoU. things: bool [C].
    """
    tp, fp, fn, iou = counts.transpose(1, 0, 2)
    weight = tp + 0.5 * fp + 0.5 * fn
    there = weight > 0
    whole = np.where(there, weight, np.nan)
    by_class = 100 * np.stack([iou / whole, iou / np.where(there, np.maximum(tp, 1), np.nan), tp / whole], 1)
    groups = (there, there & things, there & ~things)
    return np.concatenate([mean_of(by_class, group) for group in groups], 1), by_class


def recall(counts: Floats) -> tuple[Floats, Floats]:
    """segment_recall and SQ, overall [B, 2] and by class [B, 2, C]; counts as for ``quality``, FP aside."""
    tp, _, fn, iou = counts.transpose(1, 0, 2)
    there = tp + fn > 0
    by_class = 100 * np.stack([tp / np.where(there, tp + fn, np.nan), iou / np.where(there, np.maximum(tp, 1), np.nan)], 1)
    return mean_of(by_class, there), by_class


def mean_of(values: Floats, chosen: Bools) -> Floats:
    """Means [B, P] of ``values`` [B, P, C] over the classes that are ``chosen`` [B, C]; NaN for none."""
    number = chosen.sum(1, dtype=np.float64)[:, None]
    means: Floats = np.where(chosen[:, None], values, 0).sum(2) / np.where(number > 0, number, np.nan)
    return means


@dataclass(frozen=True)
class PanopticStatistics:
    """counts: float64 [N, 4, C], TP, FP, FN and the sum of IoU of each image; FP is 0 where only recall is asked for, as
    ``class_figures`` then say. truth_count: true segments that are no crowd. found_count: all predicted ones; of a subset, TP + FP."""

    image_ids: tuple[ImageId, ...]
    figures: tuple[str, ...]
    class_figures: tuple[str, ...]
    categories: tuple[str, ...]
    truth_count: NDArray[np.int64]
    found_count: NDArray[np.int64]
    counts: Floats
    things: Bools

    def summarise(self, weights: Floats) -> Summary:
        """One matrix product: [B, N] by [N, 4 C]."""
        images, parts, classes = self.counts.shape
        summed = weights @ self.counts.reshape(images, parts * classes)
        return Summary(*self._accumulated(summed.reshape(len(weights), parts, classes)))

    def per_image(self) -> Floats:
        return self._accumulated(self.counts)[0]

    def _accumulated(self, counts: Floats) -> tuple[Floats, Floats]:
        return recall(counts) if self.class_figures == RECALL else quality(counts, self.things)


def panoptic_statistics(
    dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], subset: ObjectSubset | None = None
) -> PanopticStatistics:
    """Raises PredictionsError as ``PanopticQuality.score`` does."""
    records = segment_records(dataset, predictions, image_ids)
    classes = len(dataset.categories)
    counts = image_counts(records, classes, subset)
    uncrowded = ~records.crowd & records.truth.inside(subset)
    every = np.ones(len(records.excused), bool)
    found = counts[:, 0] + counts[:, 1] if subset is not None else _number(records.prediction, every, records.images, classes)
    return PanopticStatistics(
        image_ids=tuple(image_ids),
        figures=RECALL if _truth_only(subset) else QUALITY,
        class_figures=RECALL if _truth_only(subset) else PARTS,
        categories=tuple(c.name for c in dataset.categories),
        truth_count=_number(records.truth, uncrowded, records.images, classes).astype(np.int64),
        found_count=found.astype(np.int64),
        counts=counts,
        things=np.array([c.is_thing for c in dataset.categories], bool),
    )


def _truth_only(subset: ObjectSubset | None) -> bool:
    return subset is not None and subset.attribute in TRUTH_ONLY


def image_counts(records: SegmentRecords, classes: int, subset: ObjectSubset | None = None) -> Floats:
    """TP, FP, FN and the sum of IoU of each image, float64 [N, 4, C]; FP is 0 in a subset that predictions cannot be told to be in."""
    inside = records.truth.inside(subset)
    matches = records.same & inside[records.true]
    false = np.zeros(len(records.excused), bool) if _truth_only(subset) else records.false & records.prediction.inside(subset)
    matched = Segments(records.truth.image[records.true], records.truth.category[records.true], {})
    return np.stack(
        [
            _number(matched, matches, records.images, classes),
            _number(records.prediction, false, records.images, classes),
            _number(records.truth, records.missed & inside, records.images, classes),
            _number(matched, matches, records.images, classes, records.iou),
        ],
        1,
    )


def _number(segments: Segments, chosen: Bools, images: int, classes: int, worth: Floats | None = None) -> Floats:
    """By image and class, [N, C], how many of the ``chosen`` [S] there are, or the sum of what they are worth [S]."""
    cells = (segments.image * classes + segments.category)[chosen]
    summed = np.bincount(cells, None if worth is None else worth[chosen], images * classes)
    return summed.astype(np.float64).reshape(images, classes)
