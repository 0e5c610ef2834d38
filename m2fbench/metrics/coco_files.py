"""What the metrics on COCO files share: the files as the evaluators want them, and figures out of the arrays they give."""

import contextlib
import io
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from m2fbench.errors import PredictionsError
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.rle import compressed
from m2fbench.types import Category, Dataset, ImageId, JsonObject, Measurement, Predictions

Figure = tuple[str, int | None, int, int]
"""precision or recall, IoU threshold index or None for all, area index, detections index."""

AREAS = {"s": "small", "m": "medium", "l": "large"}


def read_entries(path: Path) -> list[JsonObject]:
    """A COCO results file that was checked when it was written or imported."""
    try:
        with paused_collector():
            entries: list[JsonObject] = from_json(path.read_bytes())
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PredictionsError(f"{path}: not valid JSON ({error}); write it again") from error
    return entries


def entries_by_image(path: Path) -> dict[ImageId, list[JsonObject]]:
    """The results of each image, in the order of the file."""
    found: dict[ImageId, list[JsonObject]] = {}
    for entry in read_entries(path):
        found.setdefault(entry["image_id"], []).append(entry)
    return found


def compressed_entries(path: Path, truth: JsonObject) -> list[JsonObject]:
    """``read_entries`` for evaluators that know compressed run lengths only. truth: COCO annotations of its images."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    entries = read_entries(path)
    for entry in entries:
        size = sizes[entry["image_id"]]
        try:
            entry["segmentation"] = {"size": list(size), "counts": compressed(entry["segmentation"], size)}
        except ValueError as error:
            raise PredictionsError(f"{path}: image {entry['image_id']}: {error}") from error
    return entries


@contextlib.contextmanager
def integer_ids(
    dataset: Dataset, predictions: Path, image_ids: Sequence[ImageId]
) -> Iterator[tuple[Path | JsonObject, Path, dict[ImageId, int]]]:
    """Truth, results and image ids as the evaluators want them, which is with integers; files that have them pass untouched."""
    truth = dataset.coco_truth()
    examples = dataset.examples()
    if all(isinstance(example.image_id, int) for example in examples):
        yield truth, predictions, {i: int(i) for i in image_ids}
        return
    numbers = {example.image_id: number for number, example in enumerate(examples, 1)}
    document = dict(load_truth(truth))
    document["images"] = [image | {"id": numbers[image["id"]]} for image in document["images"]]
    document["annotations"] = [a | {"image_id": numbers[a["image_id"]]} for a in document["annotations"]]
    entries = [entry | {"image_id": numbers[entry["image_id"]]} for entry in read_entries(predictions)]
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as folder:
        results = Path(folder) / "results.json"
        results.write_text(json.dumps(entries))
        yield document, results, {i: numbers[i] for i in image_ids}


def evaluated(truth: Path | JsonObject, results: Path, image_ids: Sequence[int], source: Path) -> Any:
    """hotcoco's evaluation of masks over these images, accumulated. truth, results, image_ids: as ``integer_ids`` gives them; source: the
    predictions' file, for the message. Raises PredictionsError."""
    import hotcoco

    try:
        known = hotcoco.COCO(truth if isinstance(truth, dict) else str(truth))
        found = known.load_res(str(results))
    except ValueError as error:
        raise PredictionsError(f"{source}: cannot be scored: {error}") from error
    evaluation = hotcoco.COCOeval(known, found, "segm")
    evaluation.params.img_ids = list(image_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def load_truth(truth: Path | JsonObject) -> JsonObject:
    """The content of COCO annotations."""
    if isinstance(truth, dict):
        return truth
    with paused_collector():
        document: JsonObject = from_json(truth.read_bytes())
    return document


def pycocotools_pair(truth: Path | JsonObject, results: Path) -> tuple[Any, Any]:
    """Truth and results as pycocotools' ``COCO`` objects. It prints; the caller keeps that from the user."""
    from pycocotools.coco import COCO

    known = COCO()
    known.dataset = load_truth(truth)
    known.createIndex()
    found = compressed_entries(results, known.dataset)
    if found:
        return known, known.loadRes(found)
    predicted = COCO()  # pycocotools' loadRes takes no empty list
    predicted.dataset = {**known.dataset, "annotations": []}
    predicted.createIndex()
    return known, predicted


def things(dataset: Dataset) -> list[Category]:
    return [category for category in dataset.categories if category.is_thing]


def undefined(dataset: Dataset) -> JsonObject:
    """An evaluator's arrays where there is no image to evaluate."""
    classes = len(things(dataset))
    return {"precision": np.full((10, 101, classes, 4, 3), -1.0), "recall": np.full((10, classes, 4, 3), -1.0)}


def measurements(
    arrays: Mapping[str, Any], dataset: Dataset, figures: Mapping[str, Figure], per_class: Sequence[str]
) -> list[Measurement]:
    """In percent, from precision [T, R, K, A, M] and recall [T, K, A, M], -1 where undefined: over all, then each class."""
    means = {name: _means(values) for name, values in _parts(arrays, figures)}
    found = [Measurement(name, overall, subset=AREAS.get(name[-1])) for name, (overall, _) in means.items()]
    for name in per_class:
        for value, category in zip(means[name][1], things(dataset), strict=True):
            found.append(Measurement(name, value, category=category.name, subset=AREAS.get(name[-1])))
    return found


def truth_instances(dataset: Dataset, truth: Path | JsonObject, image_ids: Sequence[int]) -> list[Measurement]:
    """How many truth annotations of each class count in these images, which is those that are no crowds."""
    chosen = set(image_ids)
    annotations = load_truth(truth)["annotations"]
    counts = Counter(a["category_id"] for a in annotations if not a.get("iscrowd") and a["image_id"] in chosen)
    pairs = zip(dataset.category_ids, dataset.categories, strict=True)
    return [Measurement("truth_instances", counts[i], "count", category=c.name) for i, c in pairs if c.is_thing]


def largest_difference(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> float:
    """Largest absolute difference of figures in the same order, in their unit; NaN against a number is infinite."""
    return max((_difference(a.value, b.value) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _difference(ours: float, theirs: float) -> float:
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs)


def _parts(arrays: Mapping[str, Any], figures: Mapping[str, Figure]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """For each figure the part of the evaluator's arrays that it is the mean of, [n, K]; each part is taken out once."""
    taken: dict[tuple[str, int, int], NDArray[np.float64]] = {}
    for name, (kind, threshold, area, detections) in figures.items():
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


def official_difference(
    dataset: Dataset,
    predictions: Predictions,
    image_ids: Sequence[ImageId],
    ours: Sequence[Measurement],
    figures: Mapping[str, Figure],
    per_class: Sequence[str],
    iou_of: Callable[[Any], Any] | None = None,
) -> float:
    """Largest absolute difference, in percent points, of all figures from pycocotools'. iou_of: makes, for its evaluation, what stands in
    for its own computation of IoU."""
    from pycocotools.cocoeval import COCOeval

    if not image_ids:
        return math.inf if any(m.measured for m in ours) else 0.0
    assert predictions.instances is not None
    with (
        integer_ids(dataset, predictions.instances, image_ids) as (truth, results, ids),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        evaluation = COCOeval(*pycocotools_pair(truth, results), "segm")
        evaluation.params.imgIds = list(ids.values())
        if iou_of is not None:
            evaluation.computeIoU = iou_of(evaluation)
        evaluation.evaluate()
        evaluation.accumulate()
    return largest_difference(ours, measurements(evaluation.eval, dataset, figures, per_class))
