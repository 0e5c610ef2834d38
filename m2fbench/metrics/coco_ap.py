"""COCO average precision and recall of instance masks, by hotcoco; checked against the official pycocotools.

Convention: pycocotools' ``COCOeval(iouType="segm")``: areas are mask areas, images without annotations stay in, crowd regions
are ignored, at most 1/10/100 detections an image, IoU 0.50 to 0.95. Its -1 for "nothing to measure" becomes NaN here.
"""

import importlib.metadata
from collections.abc import Sequence

from m2fbench.metrics import coco_files
from m2fbench.metrics.coco_statistics import coco_statistics
from m2fbench.metrics.instance_matching import pairs_of
from m2fbench.suite import metrics
from m2fbench.types import (
    Dataset,
    Head,
    ImageId,
    ImageStatistics,
    Measurement,
    ObjectSubset,
    Predictions,
    ScoringRules,
    Verification,
)

_FIGURES: dict[str, coco_files.Figure] = {
    "AP": ("precision", None, 0, 2), "AP50": ("precision", 0, 0, 2), "AP75": ("precision", 5, 0, 2),
    "APs": ("precision", None, 1, 2), "APm": ("precision", None, 2, 2), "APl": ("precision", None, 3, 2),
    "AR1": ("recall", None, 0, 0), "AR10": ("recall", None, 0, 1), "AR100": ("recall", None, 0, 2),
    "ARs": ("recall", None, 1, 2), "ARm": ("recall", None, 2, 2), "ARl": ("recall", None, 3, 2),
}  # fmt: skip
_PER_CLASS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


class CocoAP:
    """Average precision and recall over a dataset, over all classes and for each."""

    name = "coco_ap"
    head: Head = "instance"
    only_for: str | None = None
    version = 1
    names = tuple(_FIGURES)

    def score(
        self, dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rules: ScoringRules
    ) -> tuple[Measurement, ...]:
        """Figures in percent over the categories that are things, and how many truth instances each of these has."""
        assert predictions.instances is not None
        with coco_files.integer_ids(dataset, predictions.instances, image_ids) as (truth, results, ids):
            truths = coco_files.truth_instances(dataset, truth, list(ids.values()))
            if not image_ids:  # the evaluator would take none for all
                return (*coco_files.measurements(coco_files.undefined(dataset), dataset, _FIGURES, _PER_CLASS), *truths)
            evaluation = coco_files.evaluated(truth, results, list(ids.values()), predictions.instances)
            arrays = evaluation.eval or {}
        return (*coco_files.measurements(arrays, dataset, _FIGURES, _PER_CLASS), *truths)

    def verify(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        measurements: Sequence[Measurement],
    ) -> Verification:
        """All figures by pycocotools, in percent points."""
        ours = [m for m in measurements if m.name in _FIGURES]
        evaluator = f"pycocotools {importlib.metadata.version('pycocotools')}"
        return Verification(evaluator, coco_files.official_difference(dataset, predictions, image_ids, ours, _FIGURES, _PER_CLASS))

    def statistics(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        subset: ObjectSubset | None = None,
    ) -> ImageStatistics | None:
        """Of all figures; of the objects in ``subset`` those that are over objects of any area, and where truth alone can be told to be
        in it those of recall, AR100."""
        return coco_statistics(pairs_of(dataset, predictions, image_ids), _FIGURES, _PER_CLASS, subset)


metrics.register(CocoAP.name)(CocoAP())
