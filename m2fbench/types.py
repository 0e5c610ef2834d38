"""The nouns that every layer shares. numpy only: nothing here knows of torch, of files or of a dataset's own ids."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from m2fbench.errors import DatasetError

Size = tuple[int, int]
"""(height, width) in pixels, always in this order."""

Rle = dict[str, Any]
"""COCO run-length encoding, ``{"size": [height, width], "counts": compressed str}``, column by column."""

ImageId = int | str


Head = Literal["instance", "panoptic", "semantic"]
"""A kind of prediction, and the task whose own it is; a panoptic model can give all three from one forward pass."""

LabelMap = NDArray[np.unsignedinteger[Any]]
"""Contiguous category indices [H, W]; the largest value of the type (255 or 65535) is no class: ignored in truth, a miss in a
prediction. uint8 up to 255 classes."""


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
class Segment:
    """One segment of a panoptic map: its id there (1 and up), its class, and whether it is a crowd region (truth only).

    area: in pixels, as the truth's annotation says, None where that is the count of its pixels in the map. ADE20K's says more where
    things were pasted over stuff, none of whose pixels may be left: panopticapi takes the annotation's area into the union, and a
    segment without pixels is a miss.
    """

    id: int
    category: int
    is_crowd: bool = False
    area: int | None = None


@dataclass(frozen=True)
class PanopticMap:
    """The segments of one image, truth and prediction alike. ids: int32 [H, W], 0 = void; every other value is a segment's."""

    ids: NDArray[np.int32]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Predictions:
    """The files of a set of predictions in the official formats; None for a head that is not among them.

    instances: COCO results. panoptic: COCO panoptic JSON, whose PNGs lie in ``panoptic_folder``. semantic: the label PNG of each
    image, values as in ``Dataset.label_values``; any other value is no class.
    """

    instances: Path | None = None
    panoptic: Path | None = None
    panoptic_folder: Path | None = None
    semantic: Mapping[ImageId, Path] | None = None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that are there."""
        there: tuple[tuple[Head, object], ...] = (
            ("instance", self.instances), ("panoptic", self.panoptic), ("semantic", self.semantic),
        )  # fmt: skip
        return tuple(head for head, files in there if files is not None)


MeanRule = Literal["present", "union", "all"]
"""Over which classes an mIoU is the mean: with truth pixels (detectron2), in truth or prediction (mmsegmentation, Cityscapes), or
every class of the dataset (ADE20K's own script)."""


@dataclass(frozen=True)
class ScoringRules:
    """What of a suite's protocol concerns scoring. mean_iou: the rule that the figure ``mIoU`` follows."""

    mean_iou: MeanRule = "present"


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


@dataclass(frozen=True)
class Verification:
    """What an official evaluator said. evaluator: its name and version. difference: the largest between its figures and ours, in the
    figures' unit; NaN against a number is infinite. tolerance: what rounding may make of it."""

    evaluator: str
    difference: float
    tolerance: float = 1e-9


class Dataset(Protocol):
    """A dataset reader; one class per module of ``datasets/``. Files are looked at on construction, images and truth on demand.

    Truth is located lazily: a reader opens over images without truth (a test set), and the truth methods or ``check`` raise
    DatasetError where it is not there. Readers are subclasses, so that of the truth methods they write only those that they have.
    """

    Options: ClassVar[type[BaseModel]]
    """The keys of a suite's ``dataset:`` section besides ``name``."""
    tasks: ClassVar[tuple[Head, ...]]
    needs_data: ClassVar[str | None]
    """How to get the data, one line; None where nothing is needed."""

    name: str
    categories: tuple[Category, ...]
    """The classes of the task it was opened for, in contiguous order."""
    category_ids: tuple[int, ...]
    """The dataset's own id of each category in JSON files (COCO results, COCO panoptic)."""
    label_values: tuple[int, ...]
    """The value of each category in the dataset's own label PNGs."""

    def __init__(self, options: Any, data: Path | None, task: Head) -> None: ...

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
        """What tells this state of one image from another, cheaply: a file's size and modification time, say; "missing" without one."""
        ...

    def fingerprint(self) -> JsonObject:
        """What tells this state of the data from any other: hashes, counts, versions.

        ``images_sha256`` and ``missing_images`` speak of the image files, everything else of what does not change when one of
        them is replaced. ``annotations_sha256`` speaks of the truth, None where there is none.
        """
        ...

    def coco_truth(self) -> Path | JsonObject:
        """Instance truth in COCO's annotation format: the file itself where there is one. Its category ids are those of the
        categories that are things."""
        raise DatasetError(f"dataset {self.name} has no instance truth; take another task's suite")

    def panoptic_truth(self, example: Example) -> PanopticMap:
        """Panoptic truth of one image."""
        raise DatasetError(f"dataset {self.name} has no panoptic truth; take another task's suite")

    def semantic_truth(self, example: Example) -> LabelMap:
        """Semantic truth of one image, [height, width]."""
        raise DatasetError(f"dataset {self.name} has no semantic truth; take another task's suite")


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """The figures of B weightings of the same images, in percent, NaN where there is nothing to measure.

    overall: float64 [B, F], one column a figure. by_class: float64 [B, P, C], one plane a figure that is given by class.
    """

    overall: Floats
    by_class: Floats


class ImageStatistics(Protocol):
    """What each image contributes to a metric, from which its figures are accumulated anew for any choice of the images: resampled
    (bootstrap), a subset of them, or one alone.

    image_ids: of the N images. figures: the F names of the overall figures, among ``Metric.names``. class_figures: the P names of those
    given by class. categories: the C class names, in the metric's own order. truth_count, found_count: int64 [N, C], objects (instances,
    segments, or pixels of semantic maps) of truth that count and of predictions.
    """

    @property
    def image_ids(self) -> tuple[ImageId, ...]: ...
    @property
    def figures(self) -> tuple[str, ...]: ...
    @property
    def class_figures(self) -> tuple[str, ...]: ...
    @property
    def categories(self) -> tuple[str, ...]: ...
    @property
    def truth_count(self) -> NDArray[np.int64]: ...
    @property
    def found_count(self) -> NDArray[np.int64]: ...

    def summarise(self, weights: Floats) -> Summary:
        """weights: [B, N], how often each image counts, whole numbers. Ones give the metric's own figures, to rounding; zeros and ones
        those of a subset; counts those of a resample, in which an image drawn twice is two images."""
        ...

    def per_image(self) -> Floats:
        """float64 [N, F]: the overall figures of each image alone; NaN where that has nothing to measure."""
        ...


ObjectAttribute = Literal["area", "border", "occlusion", "crowd"]
"""A property of one object of an image (an instance, a segment, a connected region of a semantic map). area: pixels. border: 1 where it
touches the image's border, else 0. occlusion: the share of its box that other true objects cover, 0..1; truth only. crowd: 1 where its box
meets a crowd region, else 0; truth only."""


@dataclass(frozen=True)
class ObjectSubset:
    """The objects whose attribute lies in low <= value <= high, as COCO's area ranges: true objects outside are ignored (their matches count
    neither way), and so are unmatched predictions that are outside themselves. By an attribute of truth only, no prediction can be told to
    be inside, so only figures of recall are given."""

    attribute: ObjectAttribute
    low: float
    high: float


class Metric(Protocol):
    """One metric, or one family computed together; one module of ``metrics/`` each."""

    name: str
    head: Head
    """The kind of prediction it scores."""
    version: int
    """Part of the result's identity: raise it with any change that can move a figure."""
    names: tuple[str, ...]
    """The figures it gives."""
    only_for: str | None
    """The one dataset that it is defined on; None for any that has the truth."""

    def score(
        self, dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], rules: ScoringRules
    ) -> tuple[Measurement, ...]:
        """The figures over the images ``image_ids``; entries of other images in ``predictions`` do not count."""
        ...

    def verify(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        measurements: Sequence[Measurement],
    ) -> Verification:
        """The same figures by the official evaluator."""
        ...

    def statistics(
        self,
        dataset: Dataset,
        predictions: Predictions,
        image_ids: Sequence[ImageId],
        rules: ScoringRules,
        subset: ObjectSubset | None = None,
    ) -> ImageStatistics | None:
        """What each image contributes to the figures; of the objects in ``subset`` only where one is given. None where the metric has no
        such form, or the subset means nothing for it."""
        ...
