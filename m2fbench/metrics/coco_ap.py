"""COCO average precision and recall of instance masks, by hotcoco; checked against the official pycocotools.

Convention: pycocotools' ``COCOeval(iouType="segm")``: areas are mask areas, images without annotations stay in, crowd regions
are ignored, at most 1/10/100 detections an image, IoU 0.50 to 0.95. Its -1 for "nothing to measure" becomes NaN here.
"""

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import PredictionsError
from m2fbench.suite import metrics
from m2fbench.types import Dataset, ImageId, JsonObject, Measurement

_AREAS = ("all", "small", "medium", "large")
_DETECTIONS = (1, 10, 100)

# name -> (precision or recall, IoU threshold index or None for all, area index, detections index)
_FIGURES: dict[str, tuple[str, int | None, int, int]] = {
    "AP": ("precision", None, 0, 2), "AP50": ("precision", 0, 0, 2), "AP75": ("precision", 5, 0, 2),
    "APs": ("precision", None, 1, 2), "APm": ("precision", None, 2, 2), "APl": ("precision", None, 3, 2),
    "AR1": ("recall", None, 0, 0), "AR10": ("recall", None, 0, 1), "AR100": ("recall", None, 0, 2),
    "ARs": ("recall", None, 1, 2), "ARm": ("recall", None, 2, 2), "ARl": ("recall", None, 3, 2),
}  # fmt: skip
_PER_CLASS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
_SUBSET = {"s": "small", "m": "medium", "l": "large"}


class CocoAP:
    """Average precision and recall over a dataset, over all classes and for each."""

    name = "coco_ap"
    task = "instance"
    version = 1
    names = tuple(_FIGURES)

    def score(self, dataset: Dataset, predictions: Path, image_ids: Sequence[ImageId]) -> tuple[Measurement, ...]:
        """Figures in percent. ``predictions``: COCO results; entries of images outside ``image_ids`` do not count."""
        import hotcoco

        if not image_ids:  # the evaluator would take none for all
            classes = len(dataset.categories)
            nothing = {"precision": np.full((10, 101, classes, 4, 3), -1.0), "recall": np.full((10, classes, 4, 3), -1.0)}
            return tuple(_measurements(nothing, dataset))
        with _integer_ids(dataset, predictions, image_ids) as (truth, results, ids):
            try:
                known = hotcoco.COCO(truth if isinstance(truth, dict) else str(truth))
                found = known.load_res(str(results))
            except ValueError as error:
                raise PredictionsError(f"{predictions}: cannot be scored: {error}") from error
            evaluation = hotcoco.COCOeval(known, found, "segm")
            evaluation.params.img_ids = list(ids.values())
            evaluation.evaluate()
            evaluation.accumulate()
            arrays = evaluation.eval or {}
        return tuple(_measurements(arrays, dataset))

    def verify(
        self, dataset: Dataset, predictions: Path, image_ids: Sequence[ImageId], measurements: Sequence[Measurement]
    ) -> float:
        """Largest absolute difference, in percent points, of all figures from pycocotools'."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not image_ids:
            return math.inf if any(m.measured for m in measurements) else 0.0
        with _integer_ids(dataset, predictions, image_ids) as (truth, results, ids), contextlib.redirect_stdout(io.StringIO()):
            known = COCO()
            known.dataset = truth if isinstance(truth, dict) else json.loads(truth.read_bytes())
            known.createIndex()
            found = json.loads(results.read_bytes())
            if found:
                predicted = known.loadRes(found)
            else:  # pycocotools' loadRes takes no empty list
                predicted = COCO()
                predicted.dataset = {**known.dataset, "annotations": []}
                predicted.createIndex()
            evaluation = COCOeval(known, predicted, "segm")
            evaluation.params.imgIds = list(ids.values())
            evaluation.evaluate()
            evaluation.accumulate()
            official: dict[str, Any] = evaluation.eval
        return max(
            _difference(ours.value, theirs.value)
            for ours, theirs in zip(measurements, _measurements(official, dataset), strict=True)
        )


metrics.register(CocoAP.name)(CocoAP())


def _measurements(arrays: Mapping[str, Any], dataset: Dataset) -> list[Measurement]:
    """From the evaluator's precision [T, R, K, A, M] and recall [T, K, A, M], -1 where undefined: over all, then each class."""
    means = {name: _means(values) for name, values in _parts(arrays)}
    found = [Measurement(name, overall, subset=_SUBSET.get(name[-1])) for name, (overall, _) in means.items()]
    for name in _PER_CLASS:
        for value, category in zip(means[name][1], dataset.categories, strict=True):
            found.append(Measurement(name, value, category=category.name, subset=_SUBSET.get(name[-1])))
    return found


def _parts(arrays: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """For each figure the part of the evaluator's arrays that it is the mean of, [n, K]; each part is taken out once."""
    taken: dict[tuple[str, int, int], NDArray[np.float64]] = {}
    for name, (kind, threshold, area, detections) in _FIGURES.items():
        key = (kind, area, detections)
        if key not in taken:
            taken[key] = np.ascontiguousarray(np.asarray(arrays[kind])[..., area, detections])
        values = taken[key] if threshold is None else taken[key][threshold : threshold + 1]
        yield name, values.reshape(-1, values.shape[-1])


def _means(values: NDArray[np.float64]) -> tuple[float, list[float]]:
    """Mean of what is defined in ``values`` [n, K], in percent, over all classes and for each; NaN where nothing is."""
    defined = values > -1
    counts = defined.sum(0)
    sums = np.where(defined, values, 0.0).sum(0)
    each = np.full(len(counts), np.nan)
    np.divide(100 * sums, counts, out=each, where=counts > 0)
    return (100 * float(sums.sum()) / int(counts.sum()) if counts.any() else math.nan), each.tolist()


def _difference(ours: float, theirs: float) -> float:
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs)


@contextlib.contextmanager
def _integer_ids(
    dataset: Dataset, predictions: Path, image_ids: Sequence[ImageId]
) -> Iterator[tuple[Path | JsonObject, Path, dict[ImageId, int]]]:
    """Truth, results and image ids as the evaluators want them, which is with integers; files that have them pass untouched."""
    truth = dataset.coco_truth()
    examples = dataset.examples()
    if all(isinstance(example.image_id, int) for example in examples):
        yield truth, predictions, {i: int(i) for i in image_ids}
        return
    numbers = {example.image_id: number for number, example in enumerate(examples, 1)}
    document = dict(truth if isinstance(truth, dict) else json.loads(truth.read_bytes()))
    document["images"] = [image | {"id": numbers[image["id"]]} for image in document["images"]]
    document["annotations"] = [a | {"image_id": numbers[a["image_id"]]} for a in document["annotations"]]
    entries = [entry | {"image_id": numbers[entry["image_id"]]} for entry in json.loads(predictions.read_bytes())]
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as folder:
        results = Path(folder) / "results.json"
        results.write_text(json.dumps(entries))
        yield document, results, {i: numbers[i] for i in image_ids}
