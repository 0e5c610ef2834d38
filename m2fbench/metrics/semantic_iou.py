"""Mean intersection over union of semantic maps and its relatives, from one confusion matrix over the dataset.

Conventions: pixels whose truth is no class do not count, and a prediction that is no class is a miss. The mean over classes follows
one of three rules. ``present``: classes with truth pixels (detectron2's SemSegEvaluator, by which the published COCO, ADE20K and
Mapillary rows were made). ``union``: classes in truth or prediction (mmsegmentation's IoUMetric; the official Cityscapes script).
``all``: every class, one in neither being 0 (ADE20K's own script: demoEvaluation.m of CSAILVision/sceneparsing divides by eps).
``challenge_score`` is the ADE20K challenge's (pixel accuracy + mIoU) / 2.
"""

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2fbench.files import map_over
from m2fbench.formats.label_png import read_prediction, read_raw_prediction, to_indices
from m2fbench.labels import label_set
from m2fbench.metrics.cityscapes_official import official_name, official_scores
from m2fbench.metrics.pixel_counts import Counts, pair_counts
from m2fbench.metrics.semantic_statistics import FIGURES, region_statistics, semantic_statistics
from m2fbench.suite import metrics
from m2fbench.types import (
    Dataset,
    Example,
    Head,
    ImageId,
    ImageStatistics,
    LabelMap,
    MeanRule,
    Measurement,
    ObjectSubset,
    Predictions,
    ScoringRules,
    Verification,
)

CHUNK = 16  # images whose counts a thread sums, for a matrix an image would not fit into memory

Floats = NDArray[np.float64]


def confusion(truth: LabelMap, prediction: LabelMap, classes: int) -> Counts:
    """Pixels by class of truth (row) and of prediction (column), int64 [C, C + 1]; the last column is predictions of no class.

    Raises ValueError where an index is neither under ``classes`` nor the type's largest value, which is no class.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"expected maps of one shape, got truth {truth.shape} and prediction {prediction.shape}")
    if truth.dtype == prediction.dtype == np.uint8:
        table = pair_counts(truth, prediction)
        table = np.concatenate([table[:, :classes], table[:, 255:], table[:, classes:255]], 1)  # no class beside the classes
        table = np.concatenate([table[:classes], table[255:], table[classes:255]])
        if table[classes + 1 :].any() or table[:, classes + 1 :].any():
            raise ValueError(f"expected indices under {classes} or 255, got another")
        return table[:classes, : classes + 1]
    rows, columns = _clamped(truth, classes), _clamped(prediction, classes)
    rows *= classes + 1
    rows += columns
    return np.bincount(rows.ravel(), minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)[:classes]


def _clamped(indices: LabelMap, classes: int) -> Counts:
    """int64 [H, W] with ``classes`` for no class."""
    nothing = int(np.iinfo(indices.dtype).max)
    none = indices == nothing
    found = indices.astype(np.int64)
    found[none] = -1
    if found.max(initial=0) >= classes:
        raise ValueError(f"expected indices under {classes} or {nothing}, got {found.max()}")
    found[none] = classes
    return found


@dataclass(frozen=True)
class Summary:
    """figures: in percent, by name. iou, accuracy: percent by class, float64 [C]; NaN for a class in neither truth nor prediction
    (accuracy: not in truth). truth_pixels: int64 [C]."""

    figures: Mapping[str, float]
    iou: Floats
    accuracy: Floats
    truth_pixels: Counts


def summarise(counts: Counts, rule: MeanRule = "present") -> Summary:
    """The figures of a confusion matrix [C, C + 1] as ``confusion`` gives it. rule: the one that ``mIoU`` follows."""
    classes = len(counts)
    hits = counts.diagonal().astype(np.float64)
    truth, predicted = counts.sum(1).astype(np.float64), counts[:, :classes].sum(0).astype(np.float64)
    union = truth + predicted - hits
    iou = _ratio(hits, union)
    accuracy = _ratio(hits, truth)
    total = float(truth.sum())
    means = _means(iou, truth > 0) if total else dict.fromkeys(("present", "union", "all"), math.nan)
    pixel_accuracy = float(hits.sum()) / total if total else math.nan
    weighted = float((np.nan_to_num(iou) * truth).sum()) / total if total else math.nan
    shares = {
        "mIoU": means[rule], "mIoU_present": means["present"], "mIoU_union": means["union"], "mIoU_all": means["all"],
        "pixel_accuracy": pixel_accuracy, "mean_accuracy": _mean(accuracy), "frequency_weighted_IoU": weighted,
        "challenge_score": (pixel_accuracy + means[rule]) / 2,
    }  # fmt: skip
    return Summary({name: 100 * share for name, share in shares.items()}, 100 * iou, 100 * accuracy, counts.sum(1))


def _means(iou: Floats, present: NDArray[np.bool_]) -> dict[MeanRule, float]:
    return {"present": _mean(iou[present]), "union": _mean(iou), "all": float(np.nansum(iou)) / len(iou)}


def _ratio(part: Floats, whole: Floats) -> Floats:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


class SemanticIoU:
    """mIoU by the suite's rule and by all three, accuracies, and IoU, accuracy and truth pixels of each class.

    A class that is predicted but nowhere in truth has IoU 0; one that is in neither has none.
    """

    name = "semantic_iou"
    head: Head = "semantic"
    only_for: str | None = None
    version = 1
    names: tuple[str, ...] = FIGURES

    def score(
        self, dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rules: ScoringRules
    ) -> tuple[Measurement, ...]:
        """Figures in percent; raises PredictionsError where a map does not fit its image."""
        classes = len(dataset.categories)

        def count(example: Example) -> Counts:
            return _count(dataset, predictions, example)

        total = _summed(count, dataset, image_ids, np.zeros((classes, classes + 1), np.int64))
        return tuple(_measurements(summarise(total, rules.mean_iou), dataset))

    def verify(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        measurements: Sequence[Measurement],
    ) -> Verification:
        """All figures by hotcoco, whose confusion matrix must be ours in every entry; on the whole of Cityscapes' classes also by the
        official script."""
        ours = {(m.name, m.category): m.value for m in measurements}
        theirs = _by_hotcoco(dataset, predictions, image_ids, rules.mean_iou)
        evaluator = f"hotcoco {importlib.metadata.version('hotcoco')}"
        difference = math.inf if theirs is None else _largest(ours, theirs)
        whole = dataset.name == "cityscapes" and dataset.label_values == label_set("cityscapes").ids
        if whole and image_ids:  # the script knows no part of the classes
            official = official_scores(dataset, predictions, image_ids, instances=False)
            scores: dict[tuple[str, str | None], float] = {("mIoU_union", None): 100 * official["averageScoreClasses"]}
            scores |= {("IoU", c.name): 100 * official["classScores"][c.name] for c in dataset.categories}
            difference = max(difference, _largest(ours, scores))
            evaluator += f" and {official_name()}"
        return Verification(evaluator, difference)

    def statistics(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        subset: ObjectSubset | None = None,
    ) -> ImageStatistics | None:
        """Of all pixels; with ``subset``, of those of the connected regions of truth in it."""

        def maps(example: Example) -> tuple[LabelMap, LabelMap]:
            return label_maps(dataset, predictions, example)

        if subset is not None:
            return region_statistics(dataset, predictions, image_ids, maps, subset)
        return semantic_statistics(dataset, image_ids, lambda example: _count(dataset, predictions, example), rules.mean_iou)


metrics.register(SemanticIoU.name)(SemanticIoU())


def label_maps(dataset: Dataset, predictions: Predictions, example: Example) -> tuple[LabelMap, LabelMap]:
    """Truth and prediction of one image."""
    assert predictions.semantic is not None
    predicted = read_prediction(predictions.semantic[example.image_id], example, dataset.label_values)
    return dataset.semantic_truth(example), predicted


def _count(dataset: Dataset, predictions: Predictions, example: Example) -> Counts:
    """``confusion`` of one image."""
    assert predictions.semantic is not None
    classes, values = len(dataset.categories), list(dataset.label_values)
    raw, truth = read_raw_prediction(predictions.semantic[example.image_id], example), dataset.semantic_truth(example)
    if not (raw.dtype == truth.dtype == np.uint8 and raw.shape == truth.shape and 0 <= min(values) <= max(values) <= 255):
        return confusion(truth, to_indices(raw, values), classes)
    table = pair_counts(truth, raw)  # counted by the values in the file: fewer are sorted than pixels
    if table[classes:255].any():
        raise ValueError(f"expected indices under {classes} or 255, got another")
    known = table[:classes, values]
    return np.concatenate([known, table[:classes].sum(1, keepdims=True) - known.sum(1, keepdims=True)], 1)


def _summed(count: Callable[[Example], Counts], dataset: Dataset, image_ids: Sequence[ImageId], zero: Counts) -> Counts:
    """The sum of the images' counts."""
    wanted = set(image_ids)
    examples = [e for e in dataset.examples() if e.image_id in wanted]

    def some(part: Sequence[Example]) -> Counts:
        total = zero.copy()
        for example in part:
            total += count(example)
        return total

    total = zero.copy()
    for part in map_over(some, [examples[k : k + CHUNK] for k in range(0, len(examples), CHUNK)]):
        total += part
    return total


def _measurements(summary: Summary, dataset: Dataset) -> list[Measurement]:
    found = [Measurement(name, value) for name, value in summary.figures.items()]
    for name, values, unit in (
        ("IoU", summary.iou, "percent"), ("accuracy", summary.accuracy, "percent"), ("truth_pixels", summary.truth_pixels, "pixels"),
    ):  # fmt: skip
        found += [
            Measurement(name, float(value), unit, category=category.name)
            for value, category in zip(values, dataset.categories, strict=True)
        ]
    return found


def _by_hotcoco(
    dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rule: MeanRule
) -> dict[tuple[str, str | None], float] | None:
    """hotcoco's figures by name and class; None where its confusion matrix is not ours.

    It refuses predictions of no class, so it counts them as one class more, which truth never has; that one's own figures are
    left out of the means.
    """
    import hotcoco.semantic

    classes = len(dataset.categories)
    evaluation = hotcoco.semantic.SemanticEval(classes + 1, ignore_index=65535)
    ours = np.zeros((classes, classes + 1), np.int64)
    wanted = set(image_ids)
    for example in (e for e in dataset.examples() if e.image_id in wanted):
        truth, predicted = label_maps(dataset, predictions, example)
        ours += confusion(truth, predicted, classes)
        rows, columns = truth.astype(np.uint16), predicted.astype(np.uint16)
        rows[truth == np.iinfo(truth.dtype).max] = 65535
        columns[predicted == np.iinfo(predicted.dtype).max] = classes
        evaluation.update(rows, columns)
    theirs = evaluation.confusion()
    if not np.array_equal(theirs[:classes], ours) or theirs[classes].any():
        return None
    if not ours.any():
        return {(name, None): math.nan for name in SemanticIoU.names}
    report = evaluation.results()
    each = report["per_class"][:classes]
    iou, accuracy = (np.array([entry[key] for entry in each]) for key in ("IoU", "Acc"))
    truth_area = np.array([entry["gt_area"] for entry in each])
    iou, accuracy = (100 * np.where(values < 0, np.nan, values) for values in (iou, accuracy))
    means = _means(iou, truth_area > 0)
    union = means["union"] if ours[:, classes].any() else 100 * report["mIoU"]
    found: dict[tuple[str, str | None], float] = {
        ("mIoU_present", None): means["present"], ("mIoU_union", None): union, ("mIoU_all", None): means["all"],
        ("mIoU", None): means[rule], ("pixel_accuracy", None): 100 * report["aAcc"], ("mean_accuracy", None): 100 * report["mAcc"],
        ("frequency_weighted_IoU", None): 100 * report["fwIoU"], ("challenge_score", None): (100 * report["aAcc"] + means[rule]) / 2,
    }  # fmt: skip
    for k, category in enumerate(dataset.categories):
        found |= {("IoU", category.name): float(iou[k]), ("accuracy", category.name): float(accuracy[k])}
        found["truth_pixels", category.name] = float(truth_area[k])
    return found


def _largest(ours: Mapping[tuple[str, str | None], float], theirs: Mapping[tuple[str, str | None], float]) -> float:
    """Largest difference of the figures that ``theirs`` has; NaN against a number is infinite."""
    differences = [0.0]
    for key, other in theirs.items():
        undefined = math.isnan(ours[key]), math.isnan(other)
        differences.append(abs(ours[key] - other) if not any(undefined) else 0.0 if all(undefined) else math.inf)
    return float(max(differences))
