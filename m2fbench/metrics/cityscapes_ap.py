"""Cityscapes' own instance AP: not COCO's. Checked against the official cityscapesScripts.

Convention: cityscapesScripts ``evalInstanceLevelSemanticLabeling`` without distances. IoU above 0.50 to 0.95; truth instances
from 100 pixels on; predictions that lie on groups, on smaller instances or on void are ignored, not wrong; of several predictions
of one instance the best scored counts; AP is the step-wise integral over a curve that ends at precision 1, recall 0; the mean is
over the classes that have truth. There is no limit on the number of predictions, and empty masks do not exist.

    instance ids + masks -> count_image -> ImageCounts, one per image -> average_precisions -> [classes, IoU thresholds]
"""

import importlib.metadata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import PredictionsError
from m2fbench.files import map_over
from m2fbench.formats.rle import compressed, decode_counts
from m2fbench.metrics.cityscapes_ap_statistics import CityscapesAPStatistics
from m2fbench.metrics.cityscapes_instance_official import official_table
from m2fbench.metrics.coco_files import entries_by_image, largest_difference
from m2fbench.suite import metrics
from m2fbench.types import (
    Dataset,
    Example,
    Head,
    ImageId,
    ImageStatistics,
    JsonObject,
    Measurement,
    ObjectSubset,
    Predictions,
    ScoringRules,
    Verification,
)

OVERLAPS = np.arange(0.5, 1.0, 0.05)  # as the official script makes them, to the last bit
SMALLEST = 100  # pixels of a truth instance that counts
FIRST_INSTANCE = 1000  # the ids of instances are label id * 1000 + number; below stand groups and stuff
VOID = (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)  # label ids that are not evaluated
PIECES = 1 << 21  # runs of mask and truth put against each other at once, which bounds the memory

Ints = NDArray[np.int64]

TRUE, FALSE, IGNORED = 1, 0, -1


class InstanceTruth(Protocol):
    """What the Cityscapes reader offers besides ``Dataset``."""

    def instance_ids(self, example: Example) -> NDArray[np.int32]:
        """The official instanceIds PNG, [H, W]: label id * 1000 + number for an instance, the label id for everything else."""
        ...


@dataclass(frozen=True)
class ImageCounts:
    """What one image adds to the AP of every class; P predictions, K classes, T IoU thresholds.

    categories: class index of each prediction, int64 [P]. scores: float64 [P]. outcomes: int8 [P, T], TRUE where the prediction
    is the best of a truth instance, FALSE or IGNORED. truths: truth instances that count, int64 [K].
    """

    categories: Ints
    scores: NDArray[np.float64]
    outcomes: NDArray[np.int8]
    truths: Ints


class CityscapesAP:
    """Average precision by Cityscapes' protocol, over the classes and for each."""

    name = "cityscapes_ap"
    head: Head = "instance"
    only_for: str | None = "cityscapes"
    version = 1
    names: tuple[str, ...] = ("AP", "AP50")

    def score(
        self, dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rules: ScoringRules
    ) -> tuple[Measurement, ...]:
        """AP and AP50 in percent, over all classes and for each, and how many truth instances each class has."""
        counts = count_images(dataset, predictions, image_ids)
        things = _things(dataset)
        table = average_precisions(counts, len(things))
        truths = sum((c.truths for c in counts), np.zeros(len(things), np.int64))
        return (*_figures(table, list(things.values())), *_truth_instances(truths, list(things.values())))

    def verify(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        measurements: Sequence[Measurement],
    ) -> Verification:
        """All figures by the official script, on files written for it."""
        evaluator = f"cityscapesScripts {importlib.metadata.version('cityscapesscripts')}"
        things = _things(dataset)
        truth = cast(InstanceTruth, dataset)
        images = [(partial(truth.instance_ids, example), entries) for example, entries in _images(dataset, predictions, image_ids)]
        table = official_table(images, list(things))
        ours = [m for m in measurements if m.name in self.names]
        return Verification(evaluator, largest_difference(ours, _figures(table, list(things.values()))))

    def statistics(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        subset: ObjectSubset | None = None,
    ) -> ImageStatistics | None:
        """None for a subset of the objects, which this protocol does not have."""
        if subset is not None:
            return None
        counts, names = count_images(dataset, predictions, image_ids), tuple(_things(dataset).values())
        image = np.repeat(np.arange(len(counts)), [len(c.scores) for c in counts])
        category, score, outcomes = _predictions(counts)
        found = np.bincount(image * len(names) + category, minlength=len(counts) * len(names)).reshape(len(counts), len(names))
        truths = np.array([c.truths for c in counts], np.int64).reshape(len(counts), len(names))
        return CityscapesAPStatistics(
            tuple(image_ids), self.names, self.names, names, truths, found, image, category, score, outcomes == TRUE, outcomes != IGNORED
        )  # fmt: skip


metrics.register(CityscapesAP.name)(CityscapesAP())


def count_images(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId]) -> list[ImageCounts]:
    """``count_image`` of each image, in their order; several at once."""
    label_ids = tuple(_things(dataset))
    truth = cast(InstanceTruth, dataset)

    def one(image: tuple[Example, list[JsonObject]]) -> ImageCounts:
        example, entries = image
        try:
            return count_image(truth.instance_ids(example), entries, label_ids)
        except ValueError as error:
            raise PredictionsError(f"{predictions.instances}: image {example.image_id}: {error}") from error

    images = _images(dataset, predictions, image_ids)
    return list(map_over(one, images))


def count_image(instance_ids: NDArray[np.int32], entries: Sequence[JsonObject], label_ids: Sequence[int]) -> ImageCounts:
    """Put one image's predictions beside its truth.

    instance_ids: as the official PNG has them, [H, W]. entries: COCO results of this image; those of other classes than
    ``label_ids`` are left out. Raises ValueError for a mask that is not of the image's size.
    """
    place = {label_id: k for k, label_id in enumerate(label_ids)}
    height, width = instance_ids.shape
    entries = [entry for entry in entries if entry["category_id"] in place]
    masks = [compressed(entry["segmentation"], (height, width)) for entry in entries]
    values, pixels, shared = _intersections(instance_ids, masks)
    there = np.flatnonzero(shared.sum(1))  # an empty mask is no prediction
    shared = shared[there]
    categories = np.array([place[entry["category_id"]] for entry in entries], np.int64)[there]
    scores = np.array([entry["score"] for entry in entries], np.float64)[there]
    owners = np.where(values < FIRST_INSTANCE, values, values // FIRST_INSTANCE)
    owner = np.array([place.get(label, -1) for label in owners.tolist()], np.int64)
    counted = (owner >= 0) & (values >= FIRST_INSTANCE) & (pixels >= SMALLEST)
    return ImageCounts(
        categories, scores, _outcomes(values, pixels, shared, owner, categories, scores),
        np.bincount(owner[counted], minlength=len(label_ids)).astype(np.int64),
    )  # fmt: skip


def _outcomes(
    values: Ints, pixels: Ints, shared: Ints, owner: Ints, categories: Ints, scores: NDArray[np.float64]
) -> NDArray[np.int8]:
    """What becomes of each prediction at each threshold, int8 [P, T].

    values, pixels, owner: id, size and class of each truth region, [V], class -1 where it has none that is evaluated. shared:
    pixels that prediction and truth region have in common, [P, V].
    """
    areas = shared.sum(1)
    same = np.where(owner == categories[:, None], shared, 0)  # only truth of its own class concerns a prediction
    is_group, is_small = values < FIRST_INSTANCE, pixels < SMALLEST
    excused = shared[:, np.isin(values, VOID)].sum(1)
    excused = excused + same[:, is_group].sum(1) + same[:, is_small].sum(1)  # what is both counts twice, as in the script
    outcomes = np.where((excused / np.maximum(areas, 1))[:, None] > OVERLAPS, IGNORED, FALSE).astype(np.int8)
    if not same.size:
        return outcomes
    # Truth regions do not overlap, so no prediction has an IoU above a half with two: the nearest one is the only match.
    iou = same / (pixels + areas[:, None] - same)
    nearest = iou.argmax(1)
    matched = np.take_along_axis(iou, nearest[:, None], 1) > OVERLAPS
    on_instance = ~(is_group | is_small)[nearest]
    outcomes[matched & ~on_instance[:, None]] = IGNORED
    outcomes[matched & on_instance[:, None]] = FALSE
    by_score = np.argsort(-scores, kind="stable")
    for t in range(len(OVERLAPS)):
        candidates = by_score[(matched[:, t] & on_instance)[by_score]]
        _, best = np.unique(nearest[candidates], return_index=True)
        outcomes[candidates[best], t] = TRUE
    return outcomes


def _intersections(instance_ids: NDArray[np.int32], masks: Sequence[str]) -> tuple[Ints, Ints, Ints]:
    """Region ids [V], their sizes [V], and the pixels that each mask shares with each, [P, V]; int64.

    Runs against runs: both the masks and the truth are cut into runs down the columns, and the cost is that of the runs.
    """
    height, width = instance_ids.shape
    starts, run_values = _runs(instance_ids)
    ids, region = np.unique(run_values, return_inverse=True)
    values = ids.astype(np.int64)
    pixels = np.bincount(region, np.diff(starts), len(values)).astype(np.int64)
    lengths, per_mask, broken = decode_counts(masks)
    ends = np.cumsum(lengths)
    before = np.cumsum(per_mask) - per_mask
    mask_of = np.repeat(np.arange(len(masks)), per_mask)
    totals = np.bincount(mask_of, lengths, len(masks))
    if broken.any() or (lengths < 0).any() or (totals != height * width).any():
        raise ValueError(f"a segmentation is not a run-length encoding of {height} x {width} pixels")
    set_runs = np.flatnonzero((np.arange(len(lengths)) - before[mask_of]) & (lengths > 0))
    mask_of = mask_of[set_runs]
    end = ends[set_runs] - mask_of * (height * width)
    begin = end - lengths[set_runs]
    first = np.searchsorted(starts, begin, "right") - 1
    pieces = np.searchsorted(starts, end, "left") - first
    shared = np.zeros(len(masks) * len(values))
    total = np.cumsum(pieces)
    cuts = np.searchsorted(total, np.arange(PIECES, total[-1] if len(total) else 0, PIECES))
    for block in np.split(np.arange(len(pieces)), cuts):
        run = np.repeat(block, pieces[block])
        ordinal = np.arange(len(run)) - np.repeat(np.cumsum(pieces[block]) - pieces[block], pieces[block])
        truth = first[run] + ordinal
        length = np.minimum(end[run], starts[truth + 1]) - np.maximum(begin[run], starts[truth])
        shared += np.bincount(mask_of[run] * len(values) + region[truth], length, len(shared))
    return values, pixels, shared.astype(np.int64).reshape(len(masks), len(values))


def _runs(instance_ids: NDArray[np.int32]) -> tuple[Ints, NDArray[np.int32]]:
    """Where each run of one id begins, column by column, and the number of pixels as the last, int64 [R + 1]; its id [R]."""
    height, width = instance_ids.shape
    begins = np.empty((width, height), bool)
    begins[:, 0] = True
    np.not_equal(instance_ids[1:], instance_ids[:-1], out=begins[:, 1:].T)
    starts = np.flatnonzero(begins)
    columns, rows = np.divmod(starts, height)
    return np.append(starts, height * width), instance_ids[rows, columns]


def average_precisions(counts: Iterable[ImageCounts], classes: int) -> NDArray[np.float64]:
    """AP of each class at each threshold over any images, 0..1, float64 [K, T]; NaN for a class without truth."""
    counts = list(counts)
    table = np.full((classes, len(OVERLAPS)), np.nan)
    truths = sum((c.truths for c in counts), np.zeros(classes, np.int64))
    categories, scores, outcomes = _predictions(counts)
    for k in np.flatnonzero(truths):
        of_class = np.flatnonzero(categories == k)
        ascending = of_class[np.argsort(scores[of_class])]
        for t in range(len(OVERLAPS)):
            chosen = ascending[outcomes[ascending, t] != IGNORED]
            table[k, t] = _average_precision(scores[chosen], outcomes[chosen, t] == TRUE, int(truths[k]))
    return table


def _predictions(counts: Sequence[ImageCounts]) -> tuple[Ints, NDArray[np.float64], NDArray[np.int8]]:
    """Class, score and outcomes of the predictions of all images, one after the other."""
    return (
        np.concatenate([np.zeros(0, np.int64), *(c.categories for c in counts)]),
        np.concatenate([np.zeros(0), *(c.scores for c in counts)]),
        np.concatenate([np.zeros((0, len(OVERLAPS)), np.int8), *(c.outcomes for c in counts)]),
    )


def _average_precision(scores: NDArray[np.float64], is_true: NDArray[np.bool_], truths: int) -> float:
    """Area under precision over recall at every distinct score; ``scores`` ascending."""
    if not len(scores):
        return 0.0
    first = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))  # of each distinct score
    true_below = np.append(0, np.cumsum(is_true))[first]
    true_positives = int(is_true.sum()) - true_below
    precision = np.append(true_positives / (len(scores) - first), 1.0)
    recall = np.append(true_positives / truths, 0.0)
    widths = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0, 0.5], "valid")
    return float(np.dot(precision, widths))


def _figures(table: NDArray[np.float64], names: Sequence[str]) -> list[Measurement]:
    """AP and AP50 in percent from the table [K, T] (0..1): over all classes that are defined, then of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the mean of nothing, which is NaN as it should be
        overall = (100 * float(np.nanmean(table)), 100 * float(np.nanmean(table[:, 0])))
    found = [Measurement("AP", overall[0]), Measurement("AP50", overall[1])]
    found += [Measurement("AP", 100 * float(np.mean(row)), category=name) for row, name in zip(table, names, strict=True)]
    return found + [Measurement("AP50", 100 * float(row[0]), category=name) for row, name in zip(table, names, strict=True)]


def _truth_instances(truths: Ints, names: Sequence[str]) -> list[Measurement]:
    return [Measurement("truth_instances", float(n), "count", category=name) for n, name in zip(truths, names, strict=True)]


def _things(dataset: Dataset) -> dict[int, str]:
    """Label id -> name of the classes that are evaluated, in the dataset's order."""
    pairs = zip(dataset.category_ids, dataset.categories, strict=True)
    return {label_id: category.name for label_id, category in pairs if category.is_thing}


def _images(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId]) -> list[tuple[Example, list[JsonObject]]]:
    """Each image with its predictions."""
    assert predictions.instances is not None
    entries = entries_by_image(predictions.instances)
    examples = {example.image_id: example for example in dataset.examples()}
    return [(examples[image_id], entries.get(image_id, [])) for image_id in image_ids]
