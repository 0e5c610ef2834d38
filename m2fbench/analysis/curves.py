"""What a run's instances look like along the score: precision over recall, calibration, and which classes are taken for which."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.findings import Calibration, CalibrationBin, Confusion, Curve
from m2fbench.analysis.instance_evaluation import evaluation_of
from m2fbench.analysis.runs import Evidence
from m2fbench.metrics import coco_files

CONFUSION_SCORE = 0.5
"""The score from which on predictions count in a confusion matrix: with the hundred of each image, nearly all would be of nothing."""

_AT = {"IoU 0.50": [0], "IoU 0.75": [5], "IoU 0.50 to 0.95": list(range(10))}


def precision_recall(evidence: Evidence) -> tuple[Curve, ...]:
    """Precision at COCO's 101 recall thresholds, as AP is the mean of it: the greatest precision at any recall from there on, 0 beyond the
    recall that is reached. The mean over the classes with truth, at IoU 0.50, 0.75 and over all thresholds; no curve without truth."""
    precision = _precision(evidence)
    with_truth = (precision > -1).all((0, 1))
    if not with_truth.any():
        return ()
    means = precision[..., with_truth].mean(2)
    return tuple(_curve(name, means[thresholds].mean(0)) for name, thresholds in _AT.items())


def precision_recall_by_class(evidence: Evidence) -> Mapping[str, tuple[Curve, float]]:
    """The curve of each class with truth at IoU 0.50, under its name, and its AP50 in percent, which is the curve's mean."""
    at_half = _precision(evidence)[0]
    names = [category.name for category in coco_files.things(evidence.dataset)]
    curves = {name: at_half[:, k] for k, name in enumerate(names) if (at_half[:, k] > -1).all()}
    return {name: (_curve(name, y), 100 * float(y.mean())) for name, y in curves.items()}


def _precision(evidence: Evidence) -> NDArray[np.float64]:
    """[IoU thresholds, recall thresholds, classes] over objects of any area; -1 for classes without truth."""
    evaluation = evaluation_of(evidence)
    arrays = coco_files.undefined(evidence.dataset) if evaluation is None else evaluation.eval
    return np.asarray(arrays["precision"], np.float64)[..., 0, 2]


def _curve(name: str, precision: NDArray[np.float64]) -> Curve:
    return Curve(name, tuple(np.linspace(0, 1, len(precision)).tolist()), tuple(precision.tolist()))


def calibration(evidence: Evidence) -> Calibration:
    """Ten bins of scores. NaN where no prediction counts, and no bins where scores are no probabilities."""
    definition = (
        "right: matched to a true instance of its class at mask IoU 0.5, best scored first; of each image and class the 100 best count, those "
        "on crowd regions do not"
    )
    evaluation = evaluation_of(evidence)
    try:
        found = None if evaluation is None else evaluation.calibration(n_bins=10, iou_threshold=0.5)
    except ValueError:  # of scores outside 0..1, which other programs may write
        return Calibration((), math.nan, math.nan, f"{definition}; undefined, as some scores are outside 0 to 1")
    if found is None or not found["num_detections"]:
        return Calibration((), math.nan, math.nan, definition)
    bins = tuple(
        CalibrationBin(
            b["bin_lower"], b["bin_upper"], b["avg_confidence"] if b["count"] else math.nan,
            b["avg_accuracy"] if b["count"] else math.nan, b["count"],
        )
        for b in found["bins"]
    )  # fmt: skip
    return Calibration(bins, found["ece"], found["mce"], definition)


def instance_confusion(evidence: Evidence, iou: float = 0.5, score: float = CONFUSION_SCORE) -> Confusion:
    """Of the predictions with a score of ``score`` or more, of each image the 100 best."""
    definition = (
        f"predictions scored {score:g} or more, best first, each with the true instance of any class that is still free and has the greatest "
        f"mask IoU of {iou:g} or more; crowd regions are no truth here, so that predictions on them are of nothing"
    )
    names = tuple(category.name for category in coco_files.things(evidence.dataset))
    evaluation = evaluation_of(evidence)
    matrix = np.zeros((len(names) + 1, len(names) + 1))
    if evaluation is not None:
        matrix = np.asarray(evaluation.confusion_matrix(iou_thr=iou, min_score=score)["matrix"], np.float64)
    return Confusion("instance", names, tuple(tuple(row) for row in matrix.tolist()), "instances", definition)
