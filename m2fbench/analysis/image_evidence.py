"""One image's truth beside its prediction, in the program's own nouns, whatever files they come from."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.runs import Evidence
from m2fbench.errors import DatasetError, PredictionsError, shown
from m2fbench.formats.label_png import read_prediction
from m2fbench.formats.names import file_stem
from m2fbench.formats.panoptic import read_map
from m2fbench.formats.panoptic_predictions import read_predictions
from m2fbench.formats.rle import compressed
from m2fbench.metrics.coco_files import entries_by_image, load_truth
from m2fbench.types import Category, Dataset, Example, Head, ImageId, InstanceSet, JsonObject, LabelMap, PanopticMap, Size

Content = InstanceSet | PanopticMap | LabelMap
"""Truth or prediction of one image: of the instance, the panoptic or the semantic head."""

MAIN_FIGURE: Mapping[Head, str] = {"instance": "AP", "panoptic": "PQ", "semantic": "mIoU"}
"""The figure that speaks for a head, by the metrics' own names."""


@dataclass(frozen=True)
class ImageEvidence:
    """truth: None where the dataset has none; ``problem`` then says why. Instances are in the order of their scores, the highest first."""

    example: Example
    head: Head
    categories: tuple[Category, ...]
    truth: Content | None
    prediction: Content
    problem: str | None = None

    def confident(self, threshold: float) -> "ImageEvidence":
        """With predicted instances of at least that score only; maps have no scores and stay whole."""
        if not isinstance(self.prediction, InstanceSet):
            return self
        return replace(self, prediction=at_least(self.prediction, threshold))


def at_least(instances: InstanceSet, threshold: float) -> InstanceSet:
    """Those of at least that score."""
    return _chosen(instances, np.flatnonzero(instances.scores >= threshold))


def main_head(evidence: Evidence) -> Head:
    """The task's own head where it was predicted, else the first that was."""
    heads = evidence.predictions.heads
    return evidence.suite.task if evidence.suite.task in heads else heads[0]


def find_example(evidence: Evidence, wanted: str) -> Example:
    """The scored image of that id, as a number or text, or of that file name, with or without suffix and folders.

    An id counts before a file's name, as ``file_stem`` writes it or as the image has it. Raises DatasetError with the nearest ids where
    there is none, or where a file's name is that of several images.
    """
    everyone = evidence.dataset.examples()
    for names in (
        lambda e: {str(e.image_id)},
        lambda e: {file_stem(e.image_id)},
        lambda e: {e.source, PurePath(e.source).name, PurePath(e.source).stem},
    ):
        found = [example for example in everyone if wanted in names(example)]
        if len(found) > 1:
            ids = " and ".join(shown(repr(example.image_id), 40) for example in found[:2])
            raise DatasetError(
                f"image {shown(repr(wanted))}: {len(found)} images have files of that name, {ids} among them; give an id"
            )
        if found and found[0].image_id not in evidence.image_ids:
            raise DatasetError(
                f"image {shown(repr(wanted))}: is in the dataset, but this run has no prediction of it; it was limited to "
                f"{len(evidence.examples)} images, or left this one out"
            )
        if found:
            return found[0]
    near = difflib.get_close_matches(wanted, [str(e.image_id) for e in everyone], n=3, cutoff=0.5)
    near += difflib.get_close_matches(wanted, [PurePath(e.source).stem for e in everyone], n=2, cutoff=0.7) if not near else []
    some = near or [str(example.image_id) for example in evidence.examples[:3]]
    word = "the nearest are" if near else "there are, say,"
    raise DatasetError(
        f"image {shown(repr(wanted))}: expected an id or a file name of one of the run's {len(evidence.examples)} images; {word} "
        f"{', '.join(shown(name, 60) for name in some)}"
    )


def image_reader(evidence: Evidence, head: Head) -> Callable[[Example], ImageEvidence]:
    """A function that reads one image of the evidence; what is in one file for all images is read once, here.

    It may be called from several threads. Raises PredictionsError, here or there, for files that are damaged or of another size.
    """
    dataset = evidence.dataset
    predicted = _prediction_reader(evidence, head)
    try:
        truth_of, problem = _truth_reader(dataset, head), None
    except DatasetError as error:
        truth_of, problem = None, str(error)

    def read(example: Example) -> ImageEvidence:
        prediction = predicted(example)
        if truth_of is None:
            return ImageEvidence(example, head, dataset.categories, None, prediction, problem)
        try:
            return ImageEvidence(example, head, dataset.categories, truth_of(example), prediction)
        except DatasetError as error:
            return ImageEvidence(example, head, dataset.categories, None, prediction, str(error))

    return read


def _truth_reader(dataset: Dataset, head: Head) -> Callable[[Example], Content]:
    if head == "panoptic":
        return dataset.panoptic_truth
    if head == "semantic":
        return dataset.semantic_truth
    by_image: dict[ImageId, list[JsonObject]] = {}
    for annotation in load_truth(dataset.coco_truth()).get("annotations", ()):
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    index = {category_id: k for k, category_id in enumerate(dataset.category_ids)}
    return lambda example: _instances(by_image.get(example.image_id, ()), index, example.size, DatasetError)


def _prediction_reader(evidence: Evidence, head: Head) -> Callable[[Example], Content]:
    dataset, predictions = evidence.dataset, evidence.predictions
    if head == "panoptic":
        assert predictions.panoptic is not None
        sizes = {example.image_id: example.size for example in dataset.examples()}
        maps = read_predictions(predictions.panoptic, predictions.panoptic_folder, sizes, dataset.category_ids, evidence.image_ids)
        return lambda example: read_map(*maps[example.image_id], example.size)
    if head == "semantic":
        assert predictions.semantic is not None
        files = predictions.semantic
        return lambda example: read_prediction(files[example.image_id], example, dataset.label_values)
    assert predictions.instances is not None
    entries = entries_by_image(predictions.instances)
    index = {category_id: k for k, category_id in enumerate(dataset.category_ids)}
    return lambda example: _instances(entries.get(example.image_id, ()), index, example.size, PredictionsError)


def _instances(
    entries: Sequence[Mapping[str, Any]], index: Mapping[int, int], size: Size, error: type[DatasetError | PredictionsError]
) -> InstanceSet:
    """Annotations or results of one image, the highest score first; truth, which has none, in the order of the file."""
    try:
        rles = tuple({"size": list(size), "counts": compressed(entry["segmentation"], size)} for entry in entries)
    except ValueError as failure:
        raise error(f"image {entries[0]['image_id']!r}: {failure}") from failure
    found = InstanceSet(
        rles,
        np.array([index[entry["category_id"]] for entry in entries], np.int64),
        np.array([entry.get("score", 1.0) for entry in entries], np.float64),
        np.array([bool(entry.get("iscrowd")) for entry in entries], bool),
    )
    return _chosen(found, np.argsort(-found.scores, kind="stable"))


def _chosen(instances: InstanceSet, places: NDArray[np.int64]) -> InstanceSet:
    return InstanceSet(
        tuple(instances.rles[k] for k in places.tolist()),
        instances.categories[places],
        instances.scores[places],
        instances.is_crowd[places],
    )
