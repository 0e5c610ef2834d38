"""The nouns that every layer shares. numpy only: nothing here knows of torch, of files or of a dataset's own ids."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

Size = tuple[int, int]
"""(height, width) in pixels, always in this order."""

Rle = dict[str, Any]
"""COCO run-length encoding, ``{"size": [height, width], "counts": compressed str}``, column by column."""

ImageId = int | str


@dataclass(frozen=True)
class Category:
    """A class under its contiguous index inside the program; a dataset's own ids live only in its reader."""

    name: str
    is_thing: bool


@dataclass(frozen=True)
class Example:
    """One image of a dataset.

    size: (height, width) that truth and prediction share, which is the size of the image as decoded and turned upright.
    source: where the image comes from, for messages: a file's path, or a scene's number.
    """

    image_id: ImageId
    size: Size
    source: str


@dataclass(frozen=True)
class InstanceSet:
    """The instances of one image, truth and prediction alike; all four have the same length N.

    rles: masks at the image's size; truth may be None where a reader leaves polygons to the evaluator.
    categories: contiguous indices, int64 [N]. scores: 0..1, float64 [N]; 1 for truth. is_crowd: bool [N]; False for predictions.
    """

    rles: tuple[Rle, ...]
    categories: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_crowd: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.rles)


@dataclass(frozen=True)
class Measurement:
    """One figure. ``value`` is NaN where it could not be measured (null on disk), never -1 and never 0.

    Accuracies are in percent as the papers print them (AP 45.0). subset: "small", a split name, ...; category: a class's name.
    """

    name: str
    value: float
    unit: str = "percent"
    higher_is_better: bool = True
    category: str | None = None
    subset: str | None = None

    @property
    def measured(self) -> bool:
        return not math.isnan(self.value)


@dataclass(frozen=True)
class Published:
    """The number a paper prints, beside which ours stands."""

    metric: str
    value: float
    source: str


JsonObject = dict[str, Any]
Identity = Mapping[str, Any]
"""Everything that changes a number, by name; JSON values only."""


class Dataset(Protocol):
    """A dataset reader; one class per module of ``datasets/``. Files are looked at on construction, images on demand."""

    Options: ClassVar[type[BaseModel]]
    """The keys of a suite's ``dataset:`` section besides ``name``."""
    tasks: ClassVar[tuple[str, ...]]
    needs_data: ClassVar[str | None]
    """How to get the data, one line; None where nothing is needed."""

    name: str
    categories: tuple[Category, ...]
    category_ids: tuple[int, ...]
    """The dataset's own id of each category."""

    def __init__(self, options: Any, data: Path | None) -> None: ...

    def examples(self) -> Sequence[Example]:
        """All images, in the order in which ``--limit`` counts them."""
        ...

    def image(self, example: Example) -> NDArray[np.uint8]:
        """uint8 [height, width, 3], RGB, upright. Raises ImageError."""
        ...

    def check(self) -> None:
        """Look at every annotation, which opening does not; raises DatasetError. Called before anything is predicted or scored
        over data that no run has checked yet."""
        ...

    def stamp(self, example: Example) -> str:
        """What tells this state of one image from another, cheaply: a file's size and modification time, say."""
        ...

    def fingerprint(self) -> JsonObject:
        """What tells this state of the data from any other: hashes, counts, versions.

        ``images_sha256`` and ``missing_images`` speak of the image files, everything else of what does not change when one of
        them is replaced.
        """
        ...

    def coco_truth(self) -> Path | JsonObject:
        """Instance truth in COCO's annotation format: the file itself where there is one."""
        ...


class Metric(Protocol):
    """One metric, or one family computed together; one module of ``metrics/`` each."""

    name: str
    task: str
    version: int
    """Part of the result's identity: raise it with any change that can move a figure."""
    names: tuple[str, ...]
    """The figures it gives."""

    def score(self, dataset: Dataset, predictions: Path, image_ids: Sequence[ImageId]) -> tuple[Measurement, ...]:
        """The figures over the images ``image_ids``; entries of other images in ``predictions`` do not count."""
        ...

    def verify(
        self, dataset: Dataset, predictions: Path, image_ids: Sequence[ImageId], measurements: Sequence[Measurement]
    ) -> float:
        """Largest difference from the official evaluator, in the figures' unit; NaN against a number is infinite."""
        ...
