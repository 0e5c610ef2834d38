"""Instance annotations in COCO's format: COCO itself, and any dataset that people keep in the same layout.

    DATA/annotations/instances_val2017.json
    DATA/val2017/000000000139.jpg ...

DATA is ``--data`` or ``$M2FBENCH_DATA``, or its subfolder ``coco`` where that is what holds the annotations.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets.coco_files import (
    BYTE_ORDER_MARK,
    ImageRecord,
    Record,
    by_id,
    different_ids,
    examples_of,
    locate,
    open_image,
    read_json,
    records,
    without_truth,
)  # fmt: skip
from m2fbench.errors import DatasetError
from m2fbench.files import missing_of, stamp, stamps_sha256
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.rle import segmentation_problems
from m2fbench.suite import datasets
from m2fbench.types import Category, Dataset, Example, Head, JsonObject, LabelMap, PanopticMap, Size


class CocoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    annotations: str = Field("annotations/instances_val2017.json", description="Annotation file, in the data folder or absolute.")
    images: str = Field("val2017", description="Folder of the images, in the data folder or absolute.")
    exif_rotation: bool = Field(True, description="Turn images upright by their EXIF orientation, as the original code does.")


class _Category(Record):
    id: int
    name: str


class _Annotation(Record):
    id: int | str
    image_id: int | str
    category_id: int
    segmentation: Any
    iscrowd: Literal[0, 1] | None = None
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@datasets.register("coco_instance")
class CocoInstance(Dataset):
    """COCO-format instance annotations; examples by ascending image id, categories by ascending category id.

    Records are checked on opening, masks by ``check``. Annotations without ``iscrowd`` are no crowds; without ``area``, theirs is
    the mask's. A file without the list of annotations (COCO's image_info files) opens as a test set.
    """

    Options: ClassVar[type[BaseModel]] = CocoOptions
    tasks: ClassVar[tuple[Head, ...]] = ("instance",)
    needs_data: ClassVar[str | None] = (
        "`m2fbench datasets fetch coco-val2017` gets it; or "
        "download val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download, unpack both into one "
        "folder, and pass it with --data or M2FBENCH_DATA"
    )
    name = "coco_instance"

    def __init__(self, options: CocoOptions, data: Path | None, task: Head = "instance") -> None:
        self._options = options
        root = locate(self.name, self.needs_data, options.annotations, data)
        self._file, folder = root / options.annotations, root / options.images
        with paused_collector():
            self._content, self._sha256 = read_json(self._file)
            images = sorted(records(self._content, "images", ImageRecord, self._file), key=by_id)
            categories = sorted(records(self._content, "categories", _Category, self._file), key=by_id)
            self._has_truth = "annotations" in self._content
            self._annotations = records(self._content, "annotations", _Annotation, self._file) if self._has_truth else []
        self.categories = tuple(Category(c.name, True) for c in categories)
        self.category_ids = tuple(c.id for c in categories)
        self.label_values = tuple(range(len(categories)))
        self._examples = examples_of(images, folder, self._file)
        self._check(images, categories)

    def _check(self, images: Sequence[ImageRecord], categories: Sequence[_Category]) -> None:
        different_ids("images", images, self._file)
        different_ids("categories", categories, self._file)
        known, known_images = set(self.category_ids), {e.image_id for e in self._examples}
        for number, annotation in enumerate(self._annotations):
            where = f"{self._file}: annotations[{number}]"
            if annotation.image_id not in known_images:
                raise DatasetError(f"{where}: names image {annotation.image_id!r}, which is not in the file")
            if annotation.category_id not in known:
                raise DatasetError(f"{where}: names category {annotation.category_id}, which is not in the file")

    def check(self) -> None:
        """Every mask, RLE or polygons, against its image's size: evaluators take a damaged one for another and say nothing."""
        if not self._has_truth:
            raise DatasetError(without_truth(self._file))
        sizes = {e.image_id: e.size for e in self._examples}
        problems = segmentation_problems((a.segmentation, sizes[a.image_id]) for a in self._annotations)
        for number, problem in enumerate(problems):
            if problem:
                raise DatasetError(f"{self._file}: annotations[{number}]: segmentation: {problem}")

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        return open_image(example, exif_rotation=self._options.exif_rotation)

    def stamp(self, example: Example) -> str:
        return stamp(example.source)

    def fingerprint(self) -> JsonObject:
        """Hash of the annotation file; and of name, size and modification time of every image."""
        sources = [example.source for example in self._examples]
        return {
            "name": self.name,
            "annotations_sha256": self._sha256 if self._has_truth else None,
            "images_sha256": stamps_sha256(sources),
            "images": len(sources),
            "missing_images": missing_of(sources),
            "exif_rotation": self._options.exif_rotation,
        }

    def coco_truth(self) -> Path | JsonObject:
        """The file itself where evaluators read it as we do, else its content in the form they expect."""
        if not self._has_truth:
            raise DatasetError(without_truth(self._file))
        ids = [a.id for a in self._annotations]
        regular = len(set(ids)) == len(ids) and all(type(i) is int and i > 0 for i in ids)
        whole = all(a.iscrowd is not None and a.area is not None for a in self._annotations)
        plain = self._file.open("rb").read(3) != BYTE_ORDER_MARK and isinstance(self._content.get("info", {}), dict)
        return self._file if regular and whole and plain else self._regular()

    def _regular(self) -> JsonObject:
        sizes = {e.image_id: e.size for e in self._examples}
        annotations = []
        for number, a in enumerate(self._annotations, 1):
            area = _area(a.segmentation, sizes[a.image_id]) if a.area is None else a.area
            annotations.append({
                "id": number, "image_id": a.image_id, "category_id": a.category_id, "segmentation": a.segmentation,
                "iscrowd": a.iscrowd or 0, "area": area, "bbox": [0, 0, 1, 1],
            })  # fmt: skip
        return {
            "images": [{"id": e.image_id, "file_name": e.source, "height": e.size[0], "width": e.size[1]} for e in self._examples],
            "categories": [{"id": i, "name": c.name} for i, c in zip(self.category_ids, self.categories, strict=True)],
            "annotations": annotations,
        }

    def panoptic_truth(self, example: Example) -> PanopticMap:
        raise DatasetError(f"{self._file}: instance annotations, which say nothing of stuff; use the dataset coco_panoptic")

    def semantic_truth(self, example: Example) -> LabelMap:
        raise DatasetError(f"{self._file}: instance annotations, which say nothing of stuff; use the dataset coco_panoptic")


def _area(segmentation: Any, size: Size) -> int:
    import hotcoco.mask

    rles = hotcoco.mask.frPyObjects(segmentation, *size)
    return int(hotcoco.mask.area(hotcoco.mask.merge(rles) if isinstance(rles, list) else rles))
