"""Datasets held in arrays, and predictions written for them, for the tests of semantic metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m2fbench.formats.label_png import encode_labels, no_class
from m2fbench.formats.names import file_stem
from m2fbench.labels import label_set
from m2fbench.types import Category, Example, ImageId, Predictions

OFFICIAL = label_set("cityscapes")


class ArrayDataset:
    """A Dataset whose semantic truth is a dictionary of index maps."""

    def __init__(self, truth: Mapping[ImageId, np.ndarray], values: Sequence[int], name: str = "arrays") -> None:
        self.name, self.truth, self.label_values = name, truth, tuple(values)
        self.category_ids = self.label_values
        self.categories = tuple(Category(f"class {k}", False) for k in range(len(values)))

    def examples(self) -> list[Example]:
        return [Example(i, (m.shape[0], m.shape[1]), str(i)) for i, m in self.truth.items()]

    def semantic_truth(self, example: Example) -> np.ndarray:
        return self.truth[example.image_id]


class CityArrays(ArrayDataset):
    """Official label ids and instance ids by image."""

    def __init__(self, labels: Mapping[ImageId, np.ndarray], instances: Mapping[ImageId, np.ndarray]) -> None:
        nothing = np.full(256, 255, np.uint8)
        nothing[list(OFFICIAL.ids)] = np.arange(len(OFFICIAL.ids))
        super().__init__({i: nothing[m] for i, m in labels.items()}, OFFICIAL.ids, "cityscapes")
        self.categories = OFFICIAL.classes
        self.labels, self.instances = labels, instances

    def label_ids(self, example: Example) -> np.ndarray:
        return self.labels[example.image_id]

    def instance_ids(self, example: Example) -> np.ndarray:
        return self.instances[example.image_id]


def write_predictions(folder: Path, maps: Mapping[ImageId, np.ndarray]) -> Predictions:
    """Raw maps as label PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {i: folder / f"{file_stem(i)}.png" for i in maps}
    for image_id, raw in maps.items():
        paths[image_id].write_bytes(encode_labels(raw))
    return Predictions(semantic=paths)


def random_maps(rng: np.random.Generator, classes: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of patches, most of them alike; some classes in one of the two only, some pixels of no class in each."""
    kind: Any = np.uint8 if classes <= 255 else np.uint16
    common = rng.choice(classes, max(1, min(classes, int(rng.integers(1, 8)))), replace=False)
    truth = rng.choice(common, size).astype(kind)
    truth[:, : size[1] // 2] = common[0]
    predicted = np.where(rng.random(size) < 0.7, truth, rng.choice(classes, size)).astype(kind)
    truth[rng.random(size) < rng.choice([0, 0.1, 1], p=[0.3, 0.6, 0.1])] = no_class(classes)
    predicted[rng.random(size) < rng.choice([0, 0.1])] = no_class(classes)
    return truth, predicted


def city_maps(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label ids, instance ids and a prediction: ignored labels, instances of all classes that have them, and groups without number."""
    labels = rng.integers(0, 34, (size[0] // 4 + 1, size[1] // 4 + 1)).repeat(4, 0).repeat(4, 1)[: size[0], : size[1]]
    labels = np.where(rng.random(size) < 0.1, 0, labels).astype(np.uint8)
    numbers = rng.integers(-1, 3, (size[0] // 8 + 1, size[1] // 8 + 1)).repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    single = (labels >= 24) & (numbers >= 0)
    instances = np.where(single, labels.astype(np.int32) * 1000 + numbers, labels).astype(np.int32)
    predicted = np.where(rng.random(size) < 0.6, labels, rng.integers(0, 34, size)).astype(np.uint8)
    return labels, instances, predicted
