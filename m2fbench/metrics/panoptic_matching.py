"""Which predicted segment is which true one: what panoptic quality, its statistics and its errors rest on.

Convention: panopticapi's ``evaluation.py``, as ``panoptic_quality`` states it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import PredictionsError
from m2fbench.formats.panoptic import listing_problem, read_ids, run_starts, segment_index
from m2fbench.formats.panoptic_predictions import PanopticEntry, read_predictions
from m2fbench.types import Dataset, Example, ImageId, PanopticMap, Predictions, Segment

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def overlaps(truth: PanopticMap, prediction: PanopticMap) -> Ints:
    """Pixels that each true segment shares with each predicted one, int64 [T + 2, P + 2]. Row and column 0 are void, the last
    ones are ids that belong to no segment."""
    true, predicted = truth.ids.ravel(), prediction.ids.ravel()
    starts = run_starts(true, predicted)
    rows = segment_index(true[starts], truth.segments)
    columns = segment_index(predicted[starts], prediction.segments)
    shape = len(truth.segments) + 2, len(prediction.segments) + 2
    pixels = np.bincount(rows * shape[1] + columns, np.diff(starts, append=true.size), shape[0] * shape[1])
    return pixels.astype(np.int64).reshape(shape)  # sums of whole numbers below 2^53: exact


@dataclass(frozen=True)
class Matching:
    """One image's T true and P predicted segments.

    true_class, found_class: int64 [T], [P]. crowd: bool [T]. true, found: int64 [M], the pairs of a true segment that is no crowd and a
    predicted one with an intersection over union above 0.5, of whatever classes; iou: float64 [M], theirs. Pairs of one class are
    matches. excused: bool [P], more than half on void and on the class's own crowd region, so no false positive.
    """

    true_class: Ints
    found_class: Ints
    crowd: Bools
    true: Ints
    found: Ints
    iou: NDArray[np.float64]
    excused: Bools

    @property
    def same(self) -> Bools:
        """[M]: whether the pair is of one class."""
        same: Bools = self.true_class[self.true] == self.found_class[self.found]
        return same


def match(table: Ints, truth: Sequence[Segment], prediction: Sequence[Segment]) -> Matching:
    """From ``overlaps``. A true segment's area in the union is the annotation's where there is one."""
    shared = table[1:-1, 1:-1]
    pixels, area, on_void = table[1:-1].sum(1), table[:, 1:-1].sum(0), table[0, 1:-1]
    true_area = np.array([n if s.area is None else s.area for n, s in zip(pixels.tolist(), truth, strict=True)], np.int64)
    true_class = np.array([s.category for s in truth], np.int64)
    found_class = np.array([s.category for s in prediction], np.int64)
    crowd = np.array([s.is_crowd for s in truth], bool)

    rows, columns = np.nonzero((shared > 0) & ~crowd[:, None])
    both = shared[rows, columns]
    iou = both / (true_area[rows] + area[columns] - both - on_void[columns])
    paired = iou > 0.5

    excused = on_void.copy()
    crowd_of = {int(true_class[row]): row for row in np.flatnonzero(crowd)}
    for category, row in crowd_of.items():
        excused += np.where(found_class == category, shared[row], 0)
    return Matching(true_class, found_class, crowd, rows[paired], columns[paired], iou[paired], 2 * excused > area)


def read_pair(dataset: Dataset, entry: PanopticEntry, example: Example) -> tuple[PanopticMap, PanopticMap, Ints]:
    """Truth and prediction of one image, and their ``overlaps``; raises PredictionsError where PNG and JSON do not fit each other or
    the image."""
    path, segments = entry
    truth = dataset.panoptic_truth(example)
    found = PanopticMap(read_ids(path, example.size), segments)
    table = overlaps(truth, found)
    if table[:, -1].any() or not table[:, 1:-1].any(0).all():
        raise PredictionsError(f"{path}: {listing_problem(found.ids, segments)}; write both again, from one map")
    return truth, found, table


def entries_of(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId]) -> dict[ImageId, PanopticEntry]:
    """PNG and listed segments of each image."""
    assert predictions.panoptic is not None
    sizes = {example.image_id: example.size for example in dataset.examples()}
    return read_predictions(
        predictions.panoptic, predictions.panoptic_folder, sizes, dataset.category_ids, required=image_ids
    )  # fmt: skip


def examples_of(dataset: Dataset, image_ids: Sequence[ImageId]) -> list[Example]:
    """In the order of ``image_ids``."""
    examples = {example.image_id: example for example in dataset.examples()}
    return [examples[image_id] for image_id in image_ids]
