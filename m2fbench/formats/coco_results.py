"""COCO's results format for instance segmentation: a JSON list of {image_id, category_id, segmentation, score}.

Convention: https://cocodataset.org/#format-results. No ``bbox`` is written: evaluators would take its area for the mask's.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from m2fbench.errors import PredictionsError
from m2fbench.types import ImageId, InstanceSet, JsonObject


def to_results(image_id: ImageId, instances: InstanceSet, category_ids: Sequence[int]) -> list[JsonObject]:
    """One image's predictions under the dataset's own ids. category_ids: the dataset's id of each category index."""
    return [
        {"image_id": image_id, "category_id": category_ids[category], "segmentation": rle, "score": score}
        for rle, category, score in zip(instances.rles, instances.categories.tolist(), instances.scores.tolist(), strict=True)
    ]


def read_results(path: Path, image_ids: set[ImageId], category_ids: set[int]) -> list[JsonObject]:
    """A results file of anyone's making, checked entry by entry and without boxes.

    Raises PredictionsError naming the first entry that is not a prediction for this dataset.
    """
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PredictionsError(f"{path}: not valid JSON ({error}); write it again") from error
    if not isinstance(entries, list):
        raise PredictionsError(f"{path}: expected a JSON list of COCO results, got a {type(entries).__name__}")
    return [_checked(entry, f"{path}: entry {number}", image_ids, category_ids) for number, entry in enumerate(entries)]


def _checked(entry: object, where: str, image_ids: set[ImageId], category_ids: set[int]) -> JsonObject:
    if not isinstance(entry, dict):
        raise PredictionsError(f"{where}: expected an object, got a {type(entry).__name__}")
    for key in ("image_id", "category_id", "segmentation", "score"):
        if key not in entry:
            raise PredictionsError(f"{where}: expected the key '{key}', got {', '.join(entry) or 'none'}")
    if entry["image_id"] not in image_ids:
        raise PredictionsError(
            f"{where}: image {entry['image_id']!r} is not in the dataset; are these predictions for another one?"
        )
    if entry["category_id"] not in category_ids:
        raise PredictionsError(
            f"{where}: category {entry['category_id']!r} is not in the dataset (its ids run from {min(category_ids)} to "
            f"{max(category_ids)}); were contiguous indices written for the dataset's own ids?"
        )
    if isinstance(entry["score"], bool) or not isinstance(entry["score"], int | float):
        raise PredictionsError(f"{where}: expected a number as score, got {entry['score']!r}")
    return {key: entry[key] for key in ("image_id", "category_id", "segmentation", "score")}
