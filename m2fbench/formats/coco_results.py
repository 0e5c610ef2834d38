"""COCO's results format for instance segmentation: a JSON list of {image_id, category_id, segmentation, score}.

Convention: https://cocodataset.org/#format-results. No ``bbox`` is written: evaluators would take its area for the mask's.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from m2fbench.errors import PredictionsError
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.rle import segmentation_problems
from m2fbench.types import ImageId, InstanceSet, JsonObject, Size


def to_results(image_id: ImageId, instances: InstanceSet, category_ids: Sequence[int]) -> list[JsonObject]:
    """One image's predictions under the dataset's own ids. category_ids: the dataset's id of each category index."""
    return [
        {"image_id": image_id, "category_id": category_ids[category], "segmentation": rle, "score": score}
        for rle, category, score in zip(instances.rles, instances.categories.tolist(), instances.scores.tolist(), strict=True)
    ]


def read_results(path: Path, sizes: Mapping[ImageId, Size], category_ids: set[int]) -> list[JsonObject]:
    """A results file of anyone's making, checked entry by entry and without boxes. sizes: (height, width) by image id.

    Raises PredictionsError naming the first entry that is not a prediction for this dataset.
    """
    with paused_collector():
        return _read(path, sizes, category_ids)


def _read(path: Path, sizes: Mapping[ImageId, Size], category_ids: set[int]) -> list[JsonObject]:
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"{path}: not valid JSON ({error}); write it again") from error
    if not isinstance(entries, list):
        raise PredictionsError(f"{path}: expected a JSON list of COCO results, got a {type(entries).__name__}")
    results = [_checked(entry, f"{path}: entry {number}", sizes, category_ids) for number, entry in enumerate(entries)]
    problems = segmentation_problems((r["segmentation"], sizes[r["image_id"]]) for r in results)
    for number, problem in enumerate(problems):
        if problem:
            raise PredictionsError(f"{path}: entry {number}: segmentation: {problem}")
    return results


def _checked(entry: object, where: str, sizes: Mapping[ImageId, Size], category_ids: set[int]) -> JsonObject:
    if not isinstance(entry, dict):
        raise PredictionsError(f"{where}: expected an object, got a {type(entry).__name__}")
    for key in ("image_id", "category_id", "segmentation", "score"):
        if key not in entry:
            raise PredictionsError(f"{where}: expected the key '{key}', got {', '.join(entry) or 'none'}")
    image_id, category_id, score = entry["image_id"], entry["category_id"], entry["score"]
    if type(image_id) not in (int, str) or image_id not in sizes:
        raise PredictionsError(f"{where}: image {image_id!r} is not in the dataset; are these predictions for another one?")
    if type(category_id) is not int or category_id not in category_ids:
        raise PredictionsError(
            f"{where}: category {category_id!r} is not in the dataset (its ids run from {min(category_ids)} to "
            f"{max(category_ids)}); were contiguous indices written for the dataset's own ids?"
        )
    if type(score) not in (int, float) or abs(score) > 1e300 or math.isnan(score):
        raise PredictionsError(f"{where}: expected a finite number as score, got {str(score)[:40]!r}")
    return {"image_id": image_id, "category_id": category_id, "segmentation": entry["segmentation"], "score": float(score)}
