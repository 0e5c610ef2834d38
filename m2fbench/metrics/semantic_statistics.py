"""What each image contributes to mIoU and its relatives, so that they can be accumulated anew for any choice of the images.

Of a class only three numbers of an image's confusion matrix are in any figure: the pixels on which truth and prediction agree, its
pixels in the truth, and those predicted where the truth is any class. Conventions: ``semantic_iou``'s.

Objects of a semantic map are the connected regions (8-connected) of one class in the truth; area and border are of these. A prediction
has no region of its own that belongs to one of them, so the figures of a subset are those of recall: ``mean_accuracy``,
``pixel_accuracy``, and ``accuracy`` by class, over the pixels of the regions in it. occlusion and crowd mean nothing without objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2fbench.files import map_over
from m2fbench.formats.panoptic import run_starts
from m2fbench.metrics.kept import Kept
from m2fbench.types import Dataset, Example, ImageId, LabelMap, MeanRule, ObjectSubset, Predictions, Summary

FIGURES = (
    "mIoU", "mIoU_present", "mIoU_union", "mIoU_all", "pixel_accuracy", "mean_accuracy", "frequency_weighted_IoU", "challenge_score",
)  # fmt: skip
_RECALL = ("mean_accuracy", "pixel_accuracy")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def semantic_figures(counts: Floats, rule: MeanRule) -> tuple[Floats, Floats]:
    """Overall figures [B, 8] as ``FIGURES``, and IoU and accuracy by class [B, 2, C], in percent, NaN where undefined.

    counts: [B, 3, C], hits, truth and predicted pixels of each class.
    """
    hits, truth, predicted = counts.transpose(1, 0, 2)
    iou, accuracy = _ratio(hits, truth + predicted - hits), _ratio(hits, truth)
    total = truth.sum(1)
    means = {
        "present": _mean(np.where(truth > 0, iou, np.nan)), "union": _mean(iou),
        "all": np.nansum(iou, 1) / iou.shape[1],
    }  # fmt: skip
    means = {name: np.where(total > 0, values, np.nan) for name, values in means.items()}
    pixel_accuracy = _ratio(hits.sum(1), total)
    overall = [
        means[rule], means["present"], means["union"], means["all"], pixel_accuracy, _mean(accuracy),
        _ratio((np.nan_to_num(iou) * truth).sum(1), total), (pixel_accuracy + means[rule]) / 2,
    ]  # fmt: skip
    return 100 * np.stack(overall, 1), 100 * np.stack([iou, accuracy], 1)


def region_figures(counts: Floats) -> tuple[Floats, Floats]:
    """mean_accuracy and pixel_accuracy [B, 2], and accuracy by class [B, 1, C]; counts as for ``semantic_figures``."""
    hits, truth = counts[:, 0], counts[:, 1]
    accuracy = _ratio(hits, truth)
    return 100 * np.stack([_mean(accuracy), _ratio(hits.sum(1), truth.sum(1))], 1), 100 * accuracy[:, None]


def _ratio(part: Floats, whole: Floats) -> Floats:
    shares = np.full(part.shape, np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _mean(values: Floats) -> Floats:
    """Over the classes of [B, C] that are defined, [B]."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(1), defined.sum(1, dtype=np.float64))


@dataclass(frozen=True)
class SemanticStatistics:
    """counts: int64 [N, 3, C], hits, truth and predicted pixels of each image. rule: the one that mIoU follows; None for regions of a
    subset, whose figures are those of recall, and of which predicted pixels are the hits."""

    image_ids: tuple[ImageId, ...]
    figures: tuple[str, ...]
    class_figures: tuple[str, ...]
    categories: tuple[str, ...]
    truth_count: Ints
    found_count: Ints
    counts: Ints
    rule: MeanRule | None

    def summarise(self, weights: Floats) -> Summary:
        """One matrix product: [B, N] by [N, 3 C]; sums of whole numbers below 2^53, exact."""
        images, parts, classes = self.counts.shape
        summed = weights @ self.counts.reshape(images, parts * classes).astype(np.float64)
        return Summary(*self._accumulated(summed.reshape(len(weights), parts, classes)))

    def per_image(self) -> Floats:
        return self._accumulated(self.counts.astype(np.float64))[0]

    def _accumulated(self, counts: Floats) -> tuple[Floats, Floats]:
        return region_figures(counts) if self.rule is None else semantic_figures(counts, self.rule)


def semantic_statistics(
    dataset: Dataset, image_ids: Sequence[ImageId], count: Callable[[Example], Ints], rule: MeanRule
) -> SemanticStatistics:
    """Of whole images. count: the confusion matrix of an image, [C, C + 1]."""
    classes = len(dataset.categories)

    def three(example: Example) -> Ints:
        table = count(example)
        return np.stack([table.diagonal(), table.sum(1), table[:, :classes].sum(0)])

    counts = np.zeros((len(image_ids), 3, classes), np.int64)
    for row, found in zip(counts, map_over(three, _examples(dataset, image_ids)), strict=True):
        row[:] = found
    return _statistics(dataset, image_ids, counts, rule)


def _statistics(dataset: Dataset, image_ids: Sequence[ImageId], counts: Ints, rule: MeanRule | None) -> SemanticStatistics:
    names = tuple(c.name for c in dataset.categories)
    figures, of_class = (FIGURES, ("IoU", "accuracy")) if rule is not None else (_RECALL, ("accuracy",))
    return SemanticStatistics(tuple(image_ids), figures, of_class, names, counts[:, 1], counts[:, 2], counts, rule)


def _examples(dataset: Dataset, image_ids: Sequence[ImageId]) -> list[Example]:
    examples = {example.image_id: example for example in dataset.examples()}
    return [examples[image_id] for image_id in image_ids]


@dataclass(frozen=True)
class Regions:
    """R connected regions of truth. image, category: int64 [R]. area: pixels, hits: those predicted right, int64 [R]; border: bool [R],
    whether it touches the map's edge."""

    image: Ints
    category: Ints
    area: Ints
    hits: Ints
    border: Bools

    def inside(self, subset: ObjectSubset) -> Bools:
        values = self.area if subset.attribute == "area" else self.border.astype(np.int64)
        inside: Bools = (subset.low <= values) & (values <= subset.high)
        return inside


_kept: Kept[Regions] = Kept()


def region_statistics(
    dataset: Dataset,
    predictions: Predictions,
    image_ids: Sequence[ImageId],
    maps: Callable[[Example], tuple[LabelMap, LabelMap]],
    subset: ObjectSubset,
) -> SemanticStatistics | None:
    """Of the regions in ``subset``. maps: truth and prediction of an image. None for an attribute that regions do not have."""
    if subset.attribute not in ("area", "border"):
        return None
    assert predictions.semantic is not None
    files = [predictions.semantic[image_id] for image_id in image_ids]

    def read() -> tuple[Regions, list[Path]]:
        found = list(map_over(lambda example: regions(*maps(example)), _examples(dataset, image_ids)))
        image = np.repeat(np.arange(len(found)), [len(table[0]) for table in found])
        joined = np.concatenate([np.zeros((4, 0), np.int64), *found], 1)
        return Regions(image, joined[0], joined[1], joined[2], joined[3] > 0), files

    kept = _kept.get(dataset, (tuple(files), tuple(image_ids)), read)
    chosen, classes = kept.inside(subset), len(dataset.categories)
    cells = (kept.image * classes + kept.category)[chosen]
    area, hits = (
        np.bincount(cells, pixels[chosen], len(image_ids) * classes).astype(np.int64).reshape(-1, classes)
        for pixels in (kept.area, kept.hits)
    )
    return _statistics(dataset, image_ids, np.stack([hits, area, hits], 1), None)


def regions(truth: LabelMap, prediction: LabelMap) -> Ints:
    """Category, area, hits and border (0 or 1) of each connected region of one class in the truth, int64 [4, R]; H and W at least 1.

    Runs of one class along a row are connected, not pixels, and all classes at once.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    height, width = truth.shape
    flat = truth.ravel()
    starts = np.union1d(run_starts(flat), np.arange(height, dtype=np.int64) * width)
    ends, category = np.append(starts[1:], flat.size), flat[starts]
    pairs = _touching(starts, ends, width)
    pairs = pairs[:, category[pairs[0]] == category[pairs[1]]]
    graph = coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), (len(starts), len(starts)))
    number, region = connected_components(graph, directed=False)

    hits = np.add.reduceat(flat == prediction.ravel(), starts, dtype=np.int64)
    on_edge = (starts < width) | (ends > flat.size - width) | (starts % width == 0) | (ends % width == 0)
    area, right, edge = (np.bincount(region, values, number).astype(np.int64) for values in (ends - starts, hits, on_edge))
    of_region = np.zeros(number, np.int64)
    of_region[region] = category
    labelled = of_region != np.iinfo(truth.dtype).max
    return np.stack([of_region, area, right, edge > 0])[:, labelled]


def _touching(starts: Ints, ends: Ints, width: int) -> Ints:
    """Pairs [2, E] of runs, by number, of which the second has a pixel below one of the first, or below and beside it.

    starts, ends: where in the flat map each run begins and ends (exclusive), int64 [S]; no run goes on into the next row.
    """
    upper = np.flatnonzero(starts < starts[-1] // width * width)  # all but the last row's
    row = starts[upper] // width * width
    leftmost = np.maximum(starts[upper] - 1, row) + width
    rightmost = np.minimum(ends[upper], row + width - 1) + width
    first, last = (np.searchsorted(starts, at, "right") - 1 for at in (leftmost, rightmost))
    number = last - first + 1
    before = np.cumsum(number) - number
    lower = np.arange(number.sum()) - np.repeat(before - first, number)
    return np.stack([np.repeat(upper, number), lower])
