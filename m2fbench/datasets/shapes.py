"""The embedded dataset: procedural scenes of shapes on a landscape, made as they are asked for; no files, no download."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, cast

import hotcoco.mask
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets.scenes import CATEGORIES, SCENES_VERSION, THINGS, generate
from m2fbench.suite import datasets
from m2fbench.types import Dataset, Example, Head, JsonObject, LabelMap, PanopticMap, Segment

SEEDS = {"train": 1, "val": 2, "test": 4}
MIN_SIZE, MAX_SIZE = 128, 192  # the resize that the bundled checkpoint was trained with


class ShapesOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    split: Literal["train", "val", "test"] = Field("test", description="Stream of scenes; the bundled checkpoint saw `train` only.")
    count: int = Field(200, ge=1, le=1_000_000, description="Number of scenes.")


@datasets.register("shapes")
class Shapes(Dataset):
    """Scene k of a split is image id k + 1. Categories are the things and, but for the instance task, the ground they lie on."""

    Options: ClassVar[type[BaseModel]] = ShapesOptions
    tasks: ClassVar[tuple[Head, ...]] = ("instance", "panoptic", "semantic")
    needs_data: ClassVar[str | None] = None
    name = "shapes"

    def __init__(self, options: ShapesOptions, data: Path | None = None, task: Head = "instance") -> None:
        self._seed, self._split, self._count = SEEDS[options.split], options.split, options.count
        self.categories = CATEGORIES[: len(THINGS)] if task == "instance" else CATEGORIES
        self.category_ids = tuple(range(1, len(self.categories) + 1))
        self.label_values = tuple(range(len(self.categories)))

    @cached_property
    def _truth(self) -> JsonObject:
        """COCO annotations of the whole split, made from the scenes themselves."""
        images: list[JsonObject] = []
        annotations: list[JsonObject] = []
        for index in range(self._count):
            scene = generate(self._seed, index)
            height, width = scene.ids.shape
            images.append({"id": index + 1, "height": height, "width": width, "file_name": f"{self._split}/{index:06d}"})
            things = [(number, c) for number, c in enumerate(scene.classes, 1) if c < len(THINGS)]
            if not things:
                continue
            masks = np.stack([number == scene.ids.T for number, _ in things])  # [n, width, height]: Fortran order, transposed
            for rle, box, (_, category) in zip(*_encode(masks.transpose(2, 1, 0)), things, strict=True):
                annotations.append({
                    "id": len(annotations) + 1, "image_id": index + 1, "category_id": self.category_ids[category],
                    "iscrowd": 0, "area": int(hotcoco.mask.area(rle)), "bbox": box.tolist(),
                    "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                })  # fmt: skip
        categories = [{"id": i, "name": c.name} for i, c in zip(self.category_ids, self.categories, strict=True) if c.is_thing]
        return {"images": images, "annotations": annotations, "categories": categories}

    def examples(self) -> Sequence[Example]:
        return [Example(i["id"], (i["height"], i["width"]), f"shapes {i['file_name']}") for i in self._truth["images"]]

    def image(self, example: Example) -> NDArray[np.uint8]:
        return generate(self._seed, int(example.image_id) - 1).image

    def check(self) -> None:
        """Nothing to find: the truth is made from the scenes."""

    def stamp(self, example: Example) -> str:
        return f"scenes {SCENES_VERSION}"

    def fingerprint(self) -> JsonObject:
        """Version, split and count; and hashes of the truth and of the first image, which show another platform's drift.

        The truth's is that of the instances, whatever the task: all truth comes from the same maps.
        """
        digest = hashlib.sha256()
        for annotation in self._truth["annotations"]:
            digest.update(f"{annotation['image_id']} {annotation['category_id']} {annotation['segmentation']['counts']}\n".encode())
        image = hashlib.sha256(generate(self._seed, 0).image.tobytes()).hexdigest()
        return {
            "name": self.name, "version": SCENES_VERSION, "split": self._split, "images": self._count,
            "annotations_sha256": digest.hexdigest(), "first_image_sha256": image, "missing_images": 0,
        }  # fmt: skip

    def coco_truth(self) -> JsonObject:
        return self._truth

    def panoptic_truth(self, example: Example) -> PanopticMap:
        """Every pixel has a segment; opened for instances, those of things only, and the ground is void."""
        scene = generate(self._seed, int(example.image_id) - 1)
        segments = [Segment(number, c) for number, c in enumerate(scene.classes, 1) if c < len(self.categories)]
        return PanopticMap(np.where(scene.ids <= len(segments), scene.ids, 0), tuple(segments))

    def semantic_truth(self, example: Example) -> LabelMap:
        """Every pixel has a class; opened for instances, the ground is unlabelled (255)."""
        scene = generate(self._seed, int(example.image_id) - 1)
        classes = np.array(scene.classes, np.uint8)
        classes[classes >= len(self.categories)] = 255
        return classes[scene.ids - 1]


def _encode(masks: NDArray[np.bool_]) -> tuple[list[JsonObject], NDArray[np.float64]]:
    rles = cast(list[JsonObject], hotcoco.mask.encode(masks))
    return rles, hotcoco.mask.to_bbox(rles)
