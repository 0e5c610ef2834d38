"""Cityscapes, fine annotations, in the layout of its own archives; and any dataset that people keep in the same layout.

    DATA/leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png
    DATA/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png      8 bits: official label ids
    DATA/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_instanceIds.png   16 bits: label id * 1000 + instance number,
                                                                               or the label id: stuff, and groups of things

DATA is ``--data`` or ``$M2FBENCH_DATA``, or its subfolder ``cityscapes`` where that is what holds the images. The label table and
what a group is: cityscapesscripts' ``helpers/labels.py`` and ``preparation/json2instanceImg.py``; panoptic truth:
``preparation/createPanopticImgs.py``, whose files this reader does without. The images carry no EXIF rotation.
"""

import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets.images import read_image
from m2fbench.datasets.truth_png import (
    check_files,
    image_sizes,
    raise_first,
    read_values,
    things_as_coco,
)  # fmt: skip
from m2fbench.errors import DatasetError, ImageError
from m2fbench.files import map_over, missing_of, pngs_sha256, stamp, stamps_sha256
from m2fbench.formats.label_png import to_indices, unexpected_values
from m2fbench.labels import label_set, select
from m2fbench.suite import datasets
from m2fbench.types import Example, Head, ImageId, JsonObject, LabelMap, PanopticMap, Segment

LABEL_IDS = range(34)  # of which 0..6, 9, 10, 14..16, 18, 29 and 30 are not evaluated
WITH_INSTANCES = range(24, 34)  # persons and vehicles; 29 (caravan) and 30 (trailer) are among them, though not evaluated
UNLABELED = 0
IMAGE, LABELS, INSTANCES = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_instanceIds.png"

RUN_BYTES = 6  # of a value and a length
KEPT_BYTES = 1 << 28  # of decoded truth; the 500 images of val take a third of it

Runs = tuple[NDArray[np.uint16], NDArray[np.int32]]
"""Values and lengths of the runs of equal pixels, row after row."""

_KNOWN_INSTANCE_IDS = frozenset(LABEL_IDS) | {1000 * label + n for label in WITH_INSTANCES for n in range(1000)}


class CityscapesOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    split: Literal["val", "train", "test"] = Field("val", description="Part of the dataset; `test` has no public truth.")
    classes: dict[str, str] | None = Field(
        None, description="Dataset's class name -> name by which the checkpoint knows it; others count as unlabelled."
    )


@datasets.register("cityscapes")
class Cityscapes:
    """Examples by ascending image id, which is the file name up to ``_leftImg8bit.png``."""

    Options: ClassVar[type[BaseModel]] = CityscapesOptions
    tasks: ClassVar[tuple[Head, ...]] = ("panoptic", "instance", "semantic")
    needs_data: ClassVar[str | None] = (
        "register at https://www.cityscapes-dataset.com/ (a person has to; the login is theirs), download "
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there or with `csDownload` of cityscapesscripts, unpack both "
        "into one folder, and pass it with --data or M2FBENCH_DATA"
    )
    name = "cityscapes"

    def __init__(self, options: CityscapesOptions, data: Path | None, task: Head = "panoptic") -> None:
        table = label_set("cityscapes_instance" if task == "instance" else "cityscapes")
        labels = select(table, options.classes)
        self._options = options
        self.categories, self.category_ids, self.label_values = labels.classes, labels.ids, labels.ids
        self._left_out = [i for i in table.ids if i not in labels.ids]
        images, self._truth = self._locate(options.split, data)
        self._paths = self._find_images(images)
        sizes = image_sizes(self._paths, lambda image_id: self._partner(image_id, LABELS))
        self._decoded: dict[ImageId, Runs] = {}
        self._kept = 0  # runs
        self._examples = [Example(i, size, str(path)) for (i, path), size in zip(self._paths.items(), sizes, strict=True)]

    def _locate(self, split: str, data: Path | None) -> tuple[Path, Path]:
        """The folders of the images and of the truth, which need not be there."""
        roots = [Path()] if data is None else [data, data / self.name]
        for root in roots:
            if (root / "leftImg8bit" / split).is_dir():
                return root / "leftImg8bit" / split, root / "gtFine" / split
        looked = " and ".join(str(root / "leftImg8bit" / split) for root in roots)
        raise DatasetError(f"dataset {self.name} is not here: looked for {looked}; {self.needs_data}")

    def _find_images(self, folder: Path) -> dict[ImageId, Path]:
        found = sorted((path.name.removesuffix(IMAGE), path) for path in folder.glob(f"*/[!.]*{IMAGE}"))
        if not found:
            raise DatasetError(
                f"{folder}: expected images named <city>/<city>_<sequence>_<frame>{IMAGE}, got none; {self.needs_data}"
            )
        for (before, _), (image_id, path) in itertools.pairwise(found):
            if before == image_id:
                raise DatasetError(f"{path}: expected images of different names, got '{image_id}' in two folders; remove one")
        return dict(found)

    def _partner(self, image_id: ImageId, ending: str) -> Path:
        """The truth file of an image, in the folder of the same city."""
        return self._truth / self._paths[image_id].parent.name / f"{image_id}{ending}"

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        image = read_image(self._paths[example.image_id])
        if image.shape[:2] != example.size:
            raise ImageError(
                f"{example.source}: expected {example.size[1]}x{example.size[0]} pixels, as its header or its truth says, got "
                f"{image.shape[1]}x{image.shape[0]}; download it again"
            )
        return image

    def label_ids(self, example: Example) -> NDArray[np.uint8]:
        """Official label ids [H, W]; classes that the option ``classes`` leaves out are 0 (unlabelled)."""
        return self._drawn(example, _LABEL_OF[self._known]).astype(np.uint8)

    def instance_ids(self, example: Example) -> NDArray[np.int32]:
        """Label id * 1000 + instance number, or the label id alone, int32 [H, W]; left-out classes are 0, as in ``label_ids``."""
        return self._drawn(example, self._known).astype(np.int32)

    def joint_ids(self, example: Example) -> NDArray[np.uint16]:
        """``instance_ids`` as uint16, from which ``label_ids`` follow: the id, or a thousandth of it from 1000 on (``check``)."""
        return self._drawn(example, self._known)

    def semantic_truth(self, example: Example) -> LabelMap:
        return self._drawn(example, to_indices(_LABEL_OF, self.label_values)[self._known])

    @cached_property
    def _known(self) -> NDArray[np.uint16]:
        """What each value of an instance PNG counts as: itself, or 0 where ``classes`` leaves its class out."""
        values = _EVERY.copy()
        values[np.isin(_LABEL_OF, self._left_out)] = UNLABELED
        return values

    def _drawn(self, example: Example, table: NDArray[Any]) -> NDArray[Any]:
        """[H, W] of ``table`` [65536] looked up at the pixels of the instance PNG."""
        values, lengths = self._runs(example)
        return np.repeat(table[values], lengths).reshape(example.size)

    def _runs(self, example: Example) -> Runs:
        """The instance PNG, decoded once in the life of the reader: every truth follows from it, as ``check`` has seen."""
        if example.image_id not in self._decoded:
            pixels = read_values(self._partner(example.image_id, INSTANCES), example.size).astype(np.uint16, copy=False).ravel()
            ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]), len(pixels) - 1)
            runs = pixels[ends], np.diff(ends, prepend=-1).astype(np.int32)
            if RUN_BYTES * (self._kept + len(ends)) > KEPT_BYTES:
                return runs
            self._kept += len(ends)
            self._decoded[example.image_id] = runs
        return self._decoded[example.image_id]

    def panoptic_truth(self, example: Example) -> PanopticMap:
        """The segments of createPanopticImgs: ids are those of the instance PNG, groups are crowds, what is not evaluated is void."""
        ids = self.instance_ids(example)
        index = {label: k for k, label in enumerate(self.label_values)}
        segments = []
        for value in np.flatnonzero(np.bincount(ids.ravel())).tolist():
            category = index.get(value if value < 1000 else value // 1000)
            if category is not None:
                segments.append(Segment(value, category, value < 1000 and self.categories[category].is_thing))
        ids[~np.isin(ids, [s.id for s in segments])] = 0
        return PanopticMap(ids, tuple(segments))

    def coco_truth(self) -> JsonObject:
        """Every thing with an instance number; groups are crowds. Scored by COCO's rules this is not Cityscapes' own AP."""
        return self._coco

    @cached_property
    def _coco(self) -> JsonObject:
        return things_as_coco(self._examples, self.panoptic_truth, self.categories, self.category_ids)

    def check(self) -> None:
        """Every label and instance PNG: there, of its image's size, of known ids, the two of one image alike; and no truth without
        an image."""
        if not self._truth.is_dir():
            raise DatasetError(
                f"{self._truth}: no such folder, where the truth of {len(self._examples)} images belongs; {self.needs_data}"
            )
        for ending in (LABELS, INSTANCES):
            expected = (self._partner(i, ending) for i in self._paths)
            check_files([p for p in expected if not p.is_file()], "no such file, yet its image is there", "unpack gtFine again")
            there = (p for p in sorted(self._truth.glob(f"*/[!.]*{ending}")) if not self._has_image(p, ending))
            check_files(list(there), "truth without an image in leftImg8bit", "unpack leftImg8bit again, or remove the truth")
        raise_first([problem for found in map_over(self._problems, self._examples) for problem in found])

    def _has_image(self, truth: Path, ending: str) -> bool:
        image = self._paths.get(truth.name.removesuffix(ending))
        return image is not None and image.parent.name == truth.parent.name

    def _problems(self, example: Example) -> list[str]:
        labels, instances = (self._partner(example.image_id, ending) for ending in (LABELS, INSTANCES))
        drawn = read_values(labels, example.size)
        found = [
            f"{path}: expected {what}, got {min(unknown)}; is it another kind of file, of train ids say?"
            for path, unknown, what in (
                (labels, unexpected_values(drawn, LABEL_IDS), "label ids 0 to 33"),
                (
                    instances, set(np.unique(self._runs(example)[0]).tolist()) - _KNOWN_INSTANCE_IDS,
                    "label ids 0 to 33, or those of persons and vehicles * 1000 + number",
                ),
            )
            if unknown
        ]  # fmt: skip
        if not found and (unlike := np.argwhere(drawn != self._drawn(example, _LABEL_OF))).size:
            row, column = unlike[0].tolist()
            value = self._drawn(example, _EVERY)[row, column]
            found.append(
                f"{labels}: expected the label ids of {instances.name}, got {drawn[row, column]} where that has {value} (row {row}, "
                f"column {column}; {len(unlike)} such pixels); make both from one map"
            )
        return found

    def stamp(self, example: Example) -> str:
        return stamp(self._paths[example.image_id])

    def fingerprint(self) -> JsonObject:
        """Hashes over name, size and check sum of truth files and name, size and modification time of images, and what of them is read."""
        truth = [self._partner(i, ending) for i in self._paths for ending in (LABELS, INSTANCES)]
        return {
            "name": self.name,
            "split": self._options.split,
            "classes": self._options.classes,
            "annotations_sha256": pngs_sha256(truth) if any(path.is_file() for path in truth) else None,
            "images_sha256": stamps_sha256(self._paths.values()),
            "images": len(self._examples),
            "missing_images": missing_of(self._paths.values()),
        }


_EVERY = np.arange(1 << 16, dtype=np.uint16)
_LABEL_OF = np.where(_EVERY < 1000, _EVERY, _EVERY // 1000)  # the label id of each value of an instance PNG
