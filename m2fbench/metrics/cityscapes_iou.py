"""The four official Cityscapes figures of semantic maps: IoU and instance-weighted iIoU, over classes and over categories.

Convention: evalPixelLevelSemanticLabeling of cityscapesScripts. Predictions are official label ids; pixels whose truth is an ignored
label count for nothing, a predicted ignored label is a miss. iIoU weighs an instance's pixels by the average size of its class over
its own size, false positives unweighted. Averages are over the classes or categories in truth or prediction. The figures are always
the official ones, over all 19 classes, whatever part of them a suite's ``dataset.classes`` takes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import DatasetError
from m2fbench.files import map_over
from m2fbench.formats.label_png import read_raw_prediction, to_indices
from m2fbench.labels import label_set
from m2fbench.metrics.cityscapes_official import LABELS, OfficialLabels, official_labels, official_name, official_scores
from m2fbench.metrics.cityscapes_statistics import FIGURES, cityscapes_statistics
from m2fbench.metrics.pixel_counts import Counts, joint_runs, pair_counts, weighted_counts
from m2fbench.suite import metrics
from m2fbench.types import (
    Dataset,
    Example,
    Head,
    ImageId,
    ImageStatistics,
    Measurement,
    ObjectSubset,
    Predictions,
    ScoringRules,
    Verification,
)

# evaluated label ids by category (cityscapesscripts/helpers/labels.py)
CATEGORIES: dict[str, tuple[int, ...]] = {
    "flat": (7, 8), "construction": (11, 12, 13), "object": (17, 19, 20), "nature": (21, 22), "sky": (23,), "human": (24, 25),
    "vehicle": (26, 27, 28, 31, 32, 33),
}  # fmt: skip
# all label ids of the categories whose labels all have instances: a predicted caravan (29) is a vehicle to iIoU, though not to IoU
INSTANCE_CATEGORIES: dict[str, tuple[int, ...]] = {"human": (24, 25), "vehicle": tuple(range(26, 34))}
EVALUATED = tuple(sorted(i for ids in CATEGORIES.values() for i in ids))
# average pixels of an instance in the training set, by label id (args.avgClassSize of the official script)
MEAN_INSTANCE_SIZE: dict[int, float] = {
    24: 3462.4756337644, 25: 3930.4788056518, 26: 12794.0202738185, 27: 27855.1264367816, 28: 35732.1511111111,
    31: 67583.7075812274, 32: 6298.7200839748, 33: 4672.3249222261,
}  # fmt: skip

# the same by label id: [34], 0 where a label has no instances; and [34, 34], which labels are of one category
_MEAN_SIZE = np.array([MEAN_INSTANCE_SIZE.get(label, 0.0) for label in range(LABELS)])
_SAME_CATEGORY = np.array(
    [[any(a in ids and b in ids for ids in INSTANCE_CATEGORIES.values()) for b in range(LABELS)] for a in range(LABELS)]
)

_WITH_INSTANCES = len(EVALUATED) + len(MEAN_INSTANCE_SIZE)
STARTS = len(EVALUATED), _WITH_INSTANCES, _WITH_INSTANCES + len(CATEGORIES)  # of the second to fourth kind of score in ``parts``
ROWS = STARTS[2] + len(INSTANCE_CATEGORIES)

NO_LABEL = 255  # in a prediction: no official id
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CityscapesCounts:
    """What one image, or a sum of images, contributes.

    confusion: pixels, int64 [34, 35], truth by row, the last column predictions of no official id. weighted: weighted pixels of the
    instances of each label id, float64 [34, 4]: hits and misses of the class, hits and misses of its category.
    """

    confusion: Counts
    weighted: Floats


def count(labels: NDArray[np.uint8] | None, instances: NDArray[Any], predicted: NDArray[np.uint8]) -> CityscapesCounts:
    """One image's counts from official label ids, official instance ids and predicted label ids (over 33: none), all [H, W].

    labels: None where they follow from the instance ids. Raises ValueError where a truth id is none of the official ones.
    """
    present, joint = _by_instance(instances, predicted)
    table = np.zeros((256, 256), np.int64)
    if labels is None:
        label_of = np.where(present < 1000, present, present // 1000)
        for label in np.unique(label_of).tolist():
            table[label] = joint[label_of == label].sum(0)
    else:
        table = pair_counts(labels, predicted)
    if table[LABELS:].any():
        raise ValueError(f"expected label ids from 0 to {LABELS - 1}, got {int(np.flatnonzero(table.any(1)).max())}")
    confusion = np.concatenate([table[:LABELS, :LABELS], table[:LABELS, LABELS:].sum(1, keepdims=True)], 1)
    return CityscapesCounts(confusion, _weighted(present[present > 1000], joint[present > 1000]))


def _by_instance(instances: NDArray[Any], predicted: NDArray[np.uint8]) -> tuple[Counts, Counts]:
    """The instance ids that are there, ascending, [N], and their pixels by predicted value, [N, 256]."""
    ids, found, lengths = joint_runs(instances, predicted)
    if ids.max(initial=0) >= LABELS * 1000:
        raise ValueError(f"expected instance ids under {LABELS * 1000}, got {int(ids.max())}")
    rank = np.zeros(LABELS * 1000, np.int32)
    rank[ids] = 1
    present = np.flatnonzero(rank)
    rank[present] = np.arange(len(present), dtype=np.int32) * 256
    return present, weighted_counts(rank[ids] + found, lengths, 256 * len(present)).reshape(-1, 256)


def _weighted(present: Counts, joint: Counts) -> Floats:
    """The instances' part, from their ids and their pixels by predicted value, [N, 256]."""
    labels = present // 1000
    kept = np.isin(labels, EVALUATED)
    labels, joint = labels[kept], joint[kept]
    without = labels[~np.isin(labels, list(MEAN_INSTANCE_SIZE))]
    if len(without):
        raise ValueError(f"expected instances of classes that have them, got instance id {present[kept][labels == without[0]][0]}")
    size, hits = joint.sum(1), joint[np.arange(len(labels)), labels]
    of_category = (joint[:, :LABELS] * _SAME_CATEGORY[labels]).sum(1)
    weight = _MEAN_SIZE[labels] / size
    weighted = np.zeros((LABELS, 4))
    np.add.at(weighted, labels, np.stack([hits, size - hits, of_category, size - of_category], 1) * weight[:, None])
    return weighted


def total(parts: Iterable[CityscapesCounts]) -> CityscapesCounts:
    """The sum over images, in their order, so that it is the same to the last digit with any number of threads."""
    confusion, weighted = np.zeros((LABELS, LABELS + 1), np.int64), np.zeros((LABELS, 4))
    for part in parts:
        confusion += part.confusion
        weighted += part.weighted
    return CityscapesCounts(confusion, weighted)


@dataclass(frozen=True)
class CityscapesSummary:
    """In percent, NaN where undefined. iou, iiou: by label id. category_iou, category_iiou: by category."""

    iou: Mapping[int, float]
    iiou: Mapping[int, float]
    category_iou: Mapping[str, float]
    category_iiou: Mapping[str, float]

    @property
    def figures(self) -> dict[str, float]:
        return {
            "IoU_class": _mean(self.iou.values()), "IoU_category": _mean(self.category_iou.values()),
            "iIoU_class": _mean(self.iiou.values()), "iIoU_category": _mean(self.category_iiou.values()),
        }  # fmt: skip


def parts(counts: CityscapesCounts) -> Floats:
    """What every score is made of, and adds up over images: hits, misses and false positives, float64 [ROWS, 3], of the IoU of each class,
    the iIoU of each class with instances, the IoU of each category and the iIoU of each category with instances, in the tables' order."""
    confusion, weighted = counts.confusion, counts.weighted

    def false_positives(ids: Sequence[int], own: Sequence[int]) -> int:
        """Pixels predicted as one of ``ids`` where the truth is evaluated and none of ``own``."""
        others = [i for i in EVALUATED if i not in own]
        return int(confusion[np.ix_(others, ids)].sum())

    def iou(ids: Sequence[int]) -> tuple[float, float, float]:
        hits, truth = int(confusion[np.ix_(ids, ids)].sum()), int(confusion[list(ids)].sum())
        return hits, truth - hits, false_positives(ids, ids)

    def category_iiou(category: str, ids: Sequence[int]) -> tuple[float, float, float]:
        hits, misses = weighted[list(ids), 2:].sum(0).tolist()
        return hits, misses, false_positives(ids, CATEGORIES[category])

    found = [iou((i,)) for i in EVALUATED]
    found += [(weighted[i, 0], weighted[i, 1], false_positives((i,), (i,))) for i in MEAN_INSTANCE_SIZE]
    found += [iou(ids) for ids in CATEGORIES.values()]
    found += [category_iiou(category, ids) for category, ids in INSTANCE_CATEGORIES.items()]
    return np.array(found, np.float64)  # whole numbers below 2^53 stay exact


def summarise(counts: CityscapesCounts) -> CityscapesSummary:
    """The scores of summed counts."""
    classes, instances, categories, instance_categories = (
        [_share(*row) for row in group.tolist()] for group in np.split(parts(counts), STARTS)
    )
    return CityscapesSummary(
        dict(zip(EVALUATED, classes, strict=True)),
        dict(zip(MEAN_INSTANCE_SIZE, instances, strict=True)),
        dict(zip(CATEGORIES, categories, strict=True)),
        dict(zip(INSTANCE_CATEGORIES, instance_categories, strict=True)),
    )


def _share(hits: float, misses: float, false_positives: float) -> float:
    whole = hits + misses + false_positives
    return float(100 * hits / whole) if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


class CityscapesIoU:
    """The official table: four means, iIoU of each class with instances, IoU and iIoU of each category (subset "category")."""

    name = "cityscapes_iou"
    head: Head = "semantic"
    only_for: str | None = "cityscapes"
    version = 1
    names: tuple[str, ...] = FIGURES

    def score(
        self, dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rules: ScoringRules
    ) -> tuple[Measurement, ...]:
        """Figures in percent; raises PredictionsError where a map does not fit its image, DatasetError for ids of no label."""
        truth, wanted = official_labels(dataset), set(image_ids)
        examples = [e for e in dataset.examples() if e.image_id in wanted]
        counts = total(map_over(lambda example: _count(truth, predictions, example), examples))
        return tuple(_measurements(summarise(counts)))

    def verify(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        measurements: Sequence[Measurement],
    ) -> Verification:
        """All figures by the official script."""
        if not image_ids:
            return Verification(official_name(), math.inf if any(m.measured for m in measurements) else 0.0)
        official = official_scores(dataset, predictions, image_ids, instances=True)
        names = dict(zip(EVALUATED, label_set("cityscapes").names, strict=True))
        theirs = CityscapesSummary(
            {i: 100 * official["classScores"][name] for i, name in names.items()},
            {i: 100 * official["classInstScores"][names[i]] for i in MEAN_INSTANCE_SIZE},
            {category: 100 * official["categoryScores"][category] for category in CATEGORIES},
            {category: 100 * official["categoryInstScores"][category] for category in INSTANCE_CATEGORIES},
        )
        means = {
            "IoU_class": "averageScoreClasses", "IoU_category": "averageScoreCategories",
            "iIoU_class": "averageScoreInstClasses", "iIoU_category": "averageScoreInstCategories",
        }  # fmt: skip
        pairs = [
            (ours.value, other.value) for ours, other in zip(measurements, _measurements(theirs), strict=True) if ours.category
        ]
        pairs += [(m.value, 100 * official[means[m.name]]) for m in measurements if m.category is None]
        return Verification(official_name(), max(_difference(*pair) for pair in pairs))

    def statistics(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        subset: ObjectSubset | None = None,
    ) -> ImageStatistics | None:
        """None with ``subset``: the official protocol has none of objects."""
        if subset is not None:
            return None
        truth, examples = official_labels(dataset), {e.image_id: e for e in dataset.examples()}

        def count_parts(image_id: ImageId) -> Floats:
            return parts(_count(truth, predictions, examples[image_id]))

        each = np.array(list(map_over(count_parts, image_ids)), np.float64).reshape(-1, ROWS, 3)
        names = dict(zip(EVALUATED, label_set("cityscapes").names, strict=True))
        with_instances = {names[i]: EVALUATED.index(i) for i in MEAN_INSTANCE_SIZE}
        return cityscapes_statistics(image_ids, each, STARTS, with_instances)


metrics.register(CityscapesIoU.name)(CityscapesIoU())


def _count(truth: OfficialLabels, predictions: Predictions, example: Example) -> CityscapesCounts:
    assert predictions.semantic is not None
    predicted = read_raw_prediction(predictions.semantic[example.image_id], example)
    if predicted.dtype != np.uint8:
        predicted = to_indices(predicted, range(LABELS))
    follow = getattr(truth, "joint_ids", None)
    labels, instances = (None, follow(example)) if follow else (truth.label_ids(example), truth.instance_ids(example))
    for what, found in (("label", labels), ("instance", instances)):
        if found is not None and found.shape != example.size:
            raise DatasetError(
                f"{example.source}: its {what} ids have {found.shape[1]}x{found.shape[0]} pixels, not the image's size"
            )
    try:
        return count(labels, instances, cast(NDArray[np.uint8], predicted))
    except ValueError as error:
        raise DatasetError(f"{example.source}: its official ids: {error}") from error


def _measurements(summary: CityscapesSummary) -> list[Measurement]:
    names = dict(zip(EVALUATED, label_set("cityscapes").names, strict=True))
    found = [Measurement(name, value) for name, value in summary.figures.items()]
    found += [Measurement("iIoU", value, category=names[i]) for i, value in summary.iiou.items()]
    for name, values in (("IoU", summary.category_iou), ("iIoU", summary.category_iiou)):
        found += [Measurement(name, value, category=category, subset="category") for category, value in values.items()]
    return found


def _difference(ours: float, theirs: float) -> float:
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return float(abs(ours - theirs))
