"""What an evaluation server takes, from the predictions of a run."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from m2fbench.errors import StoreError
from m2fbench.formats.cityscapes_instances import write as write_cityscapes
from m2fbench.types import Dataset, Example, JsonObject, Predictions
from m2fbench.writing import write_atomically

MARKER = "m2fbench.json"
"""Says that a folder is a submission of ours, and of which predictions."""


def write_submission(
    dataset: Dataset, predictions: Predictions, examples: Sequence[Example], folder: Path, prediction_key: str
) -> None:
    """Put into ``folder`` what the dataset's server takes: COCO results and COCO panoptic files, label PNGs under the images' ids, and for
    Cityscapes instances a text file and masks an image. A submission that is there is replaced.

    Conventions: https://cocodataset.org/#upload, the ADE20K challenge's and Mapillary's label PNGs, and cityscapesScripts' file names.
    """
    discard_submission(folder)
    try:
        folder.mkdir(parents=True)
        write_atomically(folder / MARKER, json.dumps({"prediction_key": prediction_key, "images": len(examples)}) + "\n")
        if predictions.instances is not None:
            _instances(dataset, predictions.instances, examples, folder / "instance")
        if predictions.panoptic is not None and predictions.panoptic_folder is not None:
            (folder / "panoptic").mkdir()
            shutil.copy(predictions.panoptic, folder / "panoptic.json")
            for path in sorted(predictions.panoptic_folder.glob("*.png")):
                shutil.copy(path, folder / "panoptic" / path.name)
        if predictions.semantic is not None:
            (folder / "semantic").mkdir()
            for path in predictions.semantic.values():
                shutil.copy(path, folder / "semantic" / path.name)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror}; free space or mend the permissions, and run again"
        ) from error


def discard_submission(folder: Path) -> None:
    """Delete a submission of ours; nothing where there is none. Raises StoreError where something else lies there."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not (folder / MARKER).is_file():
        raise StoreError(f"{folder}: is in the way, and no submission of m2fbench's ({MARKER} is not in it); move it elsewhere")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be replaced: {error.strerror}; mend the permissions, and run again") from error


def _instances(dataset: Dataset, results: Path, examples: Sequence[Example], folder: Path) -> None:
    folder.mkdir()
    entries: list[JsonObject] = json.loads(results.read_bytes())
    if dataset.name != "cityscapes":
        write_atomically(folder / "results.json", json.dumps(entries) + "\n")
        return
    by_image: dict[object, list[JsonObject]] = {example.image_id: [] for example in examples}
    for entry in entries:
        by_image.setdefault(entry["image_id"], []).append(entry)
    for image_id, its in by_image.items():
        write_cityscapes(folder, str(image_id), its)
