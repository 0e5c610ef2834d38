"""Boundary AP of instance masks, by faster-coco-eval; checked against its definition worked out another way.

Convention: Cheng et al., Boundary IoU (CVPR 2021) and its boundary-iou-api. A mask's boundary is what lies within 0.02 of the
image's diagonal, rounded to whole pixels and at least one, from its outline, chessboard distance; the image's border is outline
too. Outside crowds the IoU is the smaller one of the masks' and their boundaries'; all else is COCO AP, areas being masks' areas.
"""

import importlib.metadata
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2fbench import files
from m2fbench.errors import PredictionsError
from m2fbench.metrics import coco_files
from m2fbench.metrics.coco_statistics import coco_statistics
from m2fbench.metrics.instance_matching import IOU_THRESHOLDS, mask_iou, pairs_of
from m2fbench.suite import metrics
from m2fbench.types import (
    Dataset,
    Head,
    ImageId,
    ImageStatistics,
    Measurement,
    ObjectSubset,
    Predictions,
    Rle,
    ScoringRules,
    Verification,
)

DILATION_RATIO = 0.02

_FIGURES: dict[str, coco_files.Figure] = {
    "boundary_AP": ("precision", None, 0, 2), "boundary_AP50": ("precision", 0, 0, 2), "boundary_AP75": ("precision", 5, 0, 2),
    "boundary_APs": ("precision", None, 1, 2), "boundary_APm": ("precision", None, 2, 2),
    "boundary_APl": ("precision", None, 3, 2),
}  # fmt: skip
_PER_CLASS = ("boundary_AP", "boundary_AP50", "boundary_AP75")


class BoundaryAP:
    """Average precision by boundary IoU, over all classes and for each."""

    name = "boundary_ap"
    head: Head = "instance"
    only_for: str | None = None
    version = 1
    names = tuple(_FIGURES)

    def score(
        self, dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rules: ScoringRules
    ) -> tuple[Measurement, ...]:
        """Figures in percent, over the categories that are things."""
        from faster_coco_eval import COCO, COCOeval_faster

        assert predictions.instances is not None
        if not image_ids:  # the evaluator would take none for all
            return tuple(coco_files.measurements(coco_files.undefined(dataset), dataset, _FIGURES, _PER_CLASS))
        workers = files.WORKERS
        with coco_files.integer_ids(dataset, predictions.instances, image_ids) as (truth, results, ids):
            known = COCO(coco_files.load_truth(truth))
            entries = coco_files.compressed_entries(results, known.dataset)
            try:
                found = known.loadRes(entries)
            except (ValueError, TypeError, RuntimeError) as error:
                raise PredictionsError(f"{predictions.instances}: cannot be scored: {error}") from error
            evaluation = COCOeval_faster(
                known, found, "boundary", boundary_dilation_ratio=DILATION_RATIO, boundary_cpu_count=workers,
                rle_iou_max_workers=workers,
            )  # fmt: skip
            evaluation.params.imgIds = list(ids.values())
            evaluation.evaluate()
            evaluation.accumulate()
        return tuple(coco_files.measurements(evaluation.eval, dataset, _FIGURES, _PER_CLASS))

    def verify(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        measurements: Sequence[Measurement],
    ) -> Verification:
        """All figures by pycocotools with the IoU worked out here from the definition, in percent points."""
        evaluator = f"pycocotools {importlib.metadata.version('pycocotools')} with boundary IoU by definition"
        return Verification(
            evaluator,
            coco_files.official_difference(dataset, predictions, image_ids, measurements, _FIGURES, _PER_CLASS, _boundary_iou_of),
        )

    def statistics(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        subset: ObjectSubset | None = None,
    ) -> ImageStatistics | None:
        """Of all figures; of the objects in ``subset`` those that are over objects of any area; None where truth alone can be told to be
        in it."""
        return coco_statistics(pairs_of(dataset, predictions, image_ids, boundary_iou), _FIGURES, _PER_CLASS, subset)


metrics.register(BoundaryAP.name)(BoundaryAP())


def boundary_iou(found: Sequence[Rle], truth: Sequence[Rle], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The smaller one of the masks' IoU and their boundaries', [D, G]; the former alone for crowd regions, and where it is below all
    thresholds. Boundaries are worked out by faster-coco-eval where they can matter."""
    from faster_coco_eval.core.mask import rleToBoundary

    iou = mask_iou(found, truth, crowd)
    near = (iou >= IOU_THRESHOLDS[0]) & ~crowd
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    if len(rows):
        ours, theirs = (
            [rleToBoundary(masks[k], DILATION_RATIO) for k in chosen.tolist()]
            for masks, chosen in ((found, rows), (truth, columns))
        )
        part = np.ix_(rows, columns)
        iou[part] = np.minimum(iou[part], mask_iou(ours, theirs, np.zeros(len(theirs), bool)))
    return iou


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of ``mask`` [H, W] that lie near its outline or the image's border."""
    height, width = mask.shape
    distance = max(1, round(DILATION_RATIO * math.sqrt(height**2 + width**2)))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inner = mask[box]  # nothing of the mask lies outside, so this is where it has to be looked at
    for axis in (0, 1):
        inner = _all_within(inner, distance, axis)
    near = mask.copy()
    near[box] &= ~inner
    return near


def _all_within(mask: NDArray[np.bool_], distance: int, axis: int) -> NDArray[np.bool_]:
    """Where everything up to ``distance`` before and after along ``axis`` is set; beyond the array nothing is."""
    padding = [(distance + 1, distance) if a == axis else (0, 0) for a in (0, 1)]
    sums = np.cumsum(np.pad(mask, padding), axis, dtype=np.int32)
    window = 2 * distance + 1
    after = np.take(sums, range(window, sums.shape[axis]), axis)
    before = np.take(sums, range(sums.shape[axis] - window), axis)
    full: NDArray[np.bool_] = after - before == window
    return full


def _boundary_iou_of(evaluation: Any) -> Callable[[int, int], Any]:
    """What stands in for ``COCOeval.computeIoU``: IoU of detections, best score first, with truth, [D, G]."""
    import pycocotools.mask

    def of_masks(rles: Sequence[Rle]) -> list[Rle]:
        near = (boundary(pycocotools.mask.decode(rle).astype(bool)) for rle in rles)
        return [pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in near]

    def compute(image_id: int, category_id: int) -> Any:
        truth, found = evaluation._gts[image_id, category_id], evaluation._dts[image_id, category_id]
        if not truth or not found:
            return []
        order = np.argsort([-d["score"] for d in found], kind="mergesort")[: evaluation.params.maxDets[-1]]
        theirs, ours = [t["segmentation"] for t in truth], [found[k]["segmentation"] for k in order]
        crowd = [int(t["iscrowd"]) for t in truth]
        iou = pycocotools.mask.iou(ours, theirs, crowd)
        near = pycocotools.mask.iou(of_masks(ours), of_masks(theirs), crowd)
        return np.where(np.array(crowd, bool), iou, np.minimum(iou, near))

    return compute
