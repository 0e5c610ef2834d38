"""ADE20K, the scene parsing challenge's 150 classes: semantic, panoptic and instance truth from the official files.

    DATA/ADEChallengeData2016/images/validation, annotations/validation, annotations_instance/validation

DATA is ``--data`` or ``$M2FBENCH_DATA``, or that folder itself. See ade20k_files for the layout, ade20k_truth for the convention.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets import ade20k_files as files
from m2fbench.datasets.ade20k_prepared import check_masks, read_instances, read_panoptic
from m2fbench.datasets.ade20k_truth import annotations, panoptic
from m2fbench.datasets.images import read_image
from m2fbench.errors import DatasetError, ImageError
from m2fbench.files import map_over, missing_of, pngs_sha256, stamp, stamps_sha256
from m2fbench.labels import label_set, select
from m2fbench.suite import datasets
from m2fbench.types import Example, Head, JsonObject, LabelMap, PanopticMap, Segment


class Ade20kOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    split: str = Field("validation", pattern=r"^\w[\w.-]*$", description="Folder of the images and of their annotations.")
    classes: dict[str, str] | None = Field(
        None, description="Class -> name by which the checkpoint knows it; other classes are left out, their pixels unlabelled."
    )


@datasets.register("ade20k")
class Ade20k:
    """Examples by ascending image id. Category ids are 0..149 in JSON files, of instances too; labels in PNGs are one more.

    Truth is made from the official PNGs. Where the instance PNGs are not there, files that the original code's scripts prepared are used,
    panoptic and instances each on its own.
    """

    Options: ClassVar[type[BaseModel]] = Ade20kOptions
    tasks: ClassVar[tuple[Head, ...]] = ("semantic", "panoptic", "instance")
    needs_data: ClassVar[str | None] = (
        f"`m2fbench datasets fetch ade20k` gets it; or unpack {files.IMAGES} into a folder and, for panoptic and instance truth, "
        f"{files.INSTANCES} into its {files.FOLDER}, and pass the folder with --data or M2FBENCH_DATA"
    )
    name = "ade20k"

    def __init__(self, options: Ade20kOptions, data: Path | None, task: Head = "semantic") -> None:
        self._options, self._task = options, task
        labels = select(label_set("ade20k_instance" if task == "instance" else "ade20k"), options.classes)
        self.categories = labels.classes
        self.label_values = tuple(i + 1 for i in labels.ids) if task == "instance" else labels.ids
        self.category_ids = tuple(value - 1 for value in self.label_values)
        self._index = {category: index for index, category in enumerate(self.category_ids)}
        self.layout = files.locate(data, options.split, str(self.needs_data))
        self._images = files.find_images(self.layout)

    @cached_property
    def _examples(self) -> list[Example]:
        return list(map_over(files.example_of, self._images.items()))

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        image = read_image(self._images[str(example.image_id)], exif_rotation=False)
        if image.shape[:2] != example.size:
            raise ImageError(f"{example.source}: expected {example.size[1]}x{example.size[0]} pixels as its header says")
        return image

    def stamp(self, example: Example) -> str:
        return stamp(self._images[str(example.image_id)])

    def fingerprint(self) -> JsonObject:
        """Names, sizes and modification times of images; names, sizes and check sums of the truth PNGs in use; contents of the prepared
        JSON files in use."""
        truth: list[str] = []
        if self._task != "instance":
            truth += _sums(self.layout.semantic)
        if self._needs_instance_labels:
            truth += _sums(self.layout.instances)
        if self._task == "panoptic" and self._prepared_panoptic:
            truth += [self._prepared_panoptic[1], *_sums(self.layout.prepared_panoptic()[1])]
        if self._task != "semantic" and self._prepared_instances:
            truth.append(self._prepared_instances[1])
        return {
            "name": self.name, "split": self._options.split, "classes": self._options.classes,
            "annotations_sha256": _sha256(truth) if truth else None,
            "images_sha256": stamps_sha256(self._images.values()), "images": len(self._images),
            "missing_images": missing_of(self._images.values()),
        }  # fmt: skip

    @cached_property
    def _prepared_panoptic(self) -> tuple[dict[str, list[JsonObject]], str] | None:
        file, folder = self.layout.prepared_panoptic()
        there = file.is_file() and folder.is_dir() and not self._has_official_instances
        return read_panoptic(file, self._images) if there else None

    @cached_property
    def _prepared_instances(self) -> tuple[list[JsonObject], str] | None:
        file = self.layout.prepared_instances()
        return read_instances(file, self._images) if file.is_file() and not self._has_official_instances else None

    @property
    def _has_official_instances(self) -> bool:
        """Then truth is made from them, as the prepared files were, so that preparing some changes nothing about a run begun before."""
        return self.layout.instances.is_dir()

    @property
    def _needs_instance_labels(self) -> bool:
        """Whether some truth of the task is made from the instance PNGs, for want of a prepared file."""
        if self._task == "panoptic" and self._prepared_panoptic is None:
            return True
        return self._task != "semantic" and self._prepared_instances is None

    def semantic_truth(self, example: Example) -> LabelMap:
        index = np.full(256, 255, np.uint8)
        index[list(self.label_values)] = np.arange(len(self.label_values))
        return index[files.read_semantic(self.layout.semantic / f"{example.image_id}.png", example.size)]

    def panoptic_truth(self, example: Example) -> PanopticMap:
        """A stuff segment's area is what it had before things were pasted over it; none of its pixels may be left."""
        if self._prepared_panoptic is None:
            semantic = files.read_semantic(self.layout.semantic / f"{example.image_id}.png", example.size)
            ids, segments = panoptic(semantic, self._instance_labels(example))
        else:
            file, folder = self.layout.prepared_panoptic()
            segments = self._prepared_panoptic[0][str(example.image_id)]
            ids = files.read_ids(folder / f"{example.image_id}.png", example.size)
            if odd := set(np.unique(ids).tolist()) - {0, *(s["id"] for s in segments)}:
                raise DatasetError(
                    f"{file}: image {example.image_id}: its PNG's segment {min(odd)} is not here; {files.PREPARE_AGAIN}"
                )
        kept = [s for s in segments if s["category_id"] in self._index]
        if len(kept) < len(segments):
            ids = np.where(np.isin(ids, [s["id"] for s in kept]), ids, 0)
        return PanopticMap(ids, tuple(Segment(s["id"], self._index[s["category_id"]], bool(s["iscrowd"]), s["area"]) for s in kept))

    def _instance_labels(self, example: Example) -> NDArray[np.uint8]:
        return files.read_instances(self.layout.instances / f"{example.image_id}.png", example.size)

    def coco_truth(self) -> Path | JsonObject:
        """The prepared file where there is one and no class is left out."""
        if self._prepared_instances is not None and self._options.classes is None:
            return self.layout.prepared_instances()
        return self._coco

    @cached_property
    def _coco(self) -> JsonObject:
        things = {i: c.name for i, c in zip(self.category_ids, self.categories, strict=True) if c.is_thing}
        if self._prepared_instances is None:
            files.check_partners(self._images, self.layout.instances, files.INSTANCES)
            of_images = map_over(lambda e: annotations(str(e.image_id), self._instance_labels(e)), self._examples)
            everything = [annotation for of_image in of_images for annotation in of_image]
        else:
            everything = self._prepared_instances[0]
        kept = (annotation for annotation in everything if annotation["category_id"] in things)
        return {
            "images": [files.image_record(example) for example in self._examples],
            "categories": [{"id": category, "name": name} for category, name in things.items()],
            "annotations": [annotation | {"id": number} for number, annotation in enumerate(kept, 1)],
        }

    def check(self) -> None:
        """Every label file of the task, prepared ones too; raises DatasetError with the first that is wrong."""
        looks: list[Callable[[Example], object]] = []
        if self._task != "instance":
            files.check_partners(self._images, self.layout.semantic, files.IMAGES)
            looks.append(self.semantic_truth)
        if self._needs_instance_labels:
            files.check_partners(self._images, self.layout.instances, files.INSTANCES)
            looks.append(self._instance_labels)
        if self._task == "panoptic" and self._prepared_panoptic:
            looks.append(self.panoptic_truth)
        if self._task != "semantic" and self._prepared_instances:
            check_masks(self.layout.prepared_instances(), self._prepared_instances[0], self._examples)
        for _ in map_over(lambda example: [look(example) for look in looks], self._examples):
            pass


def _sums(folder: Path) -> list[str]:
    """What the PNGs of a folder hold; nothing without it."""
    return [f"{folder.name} {pngs_sha256(files.pngs_in(folder))}"] if folder.is_dir() else []


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
