"""Annotations in COCO's panoptic format: COCO itself, and any dataset that people keep in the same layout.

    DATA/annotations/panoptic_val2017.json
    DATA/annotations/panoptic_val2017/000000000139.png ...     segment ids, id = R + 256 G + 65536 B
    DATA/annotations/instances_val2017.json                    for instance figures, where it is there
    DATA/val2017/000000000139.jpg ...

DATA is ``--data`` or ``$M2FBENCH_DATA``, or its subfolder ``coco`` where that is what holds the annotations.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets.coco_files import (
    ImageRecord,
    Record,
    by_id,
    different_ids,
    examples_of,
    inside,
    locate,
    open_image,
    read_json,
    records,
    without_truth,
)  # fmt: skip
from m2fbench.datasets.coco_instance import CocoInstance, CocoOptions
from m2fbench.errors import DatasetError
from m2fbench.files import map_over, missing_of, pngs_sha256, stamp, stamps_sha256
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.panoptic import LARGEST_ID, areas_and_boxes, read_map, segment_index, segment_rles
from m2fbench.formats.panoptic_predictions import PanopticEntry
from m2fbench.labels import label_set
from m2fbench.suite import datasets
from m2fbench.types import Category, Example, Head, ImageId, JsonObject, LabelMap, PanopticMap, Segment

INSTANCES = "annotations/instances_val2017.json"


class CocoPanopticOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    annotations: str = Field("annotations/panoptic_val2017.json", description="Annotation file, in the data folder or absolute.")
    segments: str | None = Field(None, description="Folder of its PNGs; by default the annotation file's path without .json.")
    images: str = Field("val2017", description="Folder of the images, in the data folder or absolute.")
    instances: str | None = Field(
        INSTANCES,
        description="Instance annotations of the same images, for instance figures. Null, or the default where that file is not there "
        "or of other images: the things of the panoptic annotations.",
    )
    exif_rotation: bool = Field(True, description="Turn images upright by their EXIF orientation, as the original code does.")


class _Category(Record):
    id: int
    name: str
    isthing: Literal[0, 1]


class _Segment(Record):
    id: Annotated[int, Field(ge=1, le=LARGEST_ID)]
    category_id: int
    iscrowd: Literal[0, 1] = 0
    area: Annotated[int, Field(ge=0, strict=False)] | None = None


class _Annotation(Record):
    image_id: int | str
    file_name: str
    segments_info: list[_Segment]


@datasets.register("coco_panoptic")
class CocoPanoptic:
    """COCO-format panoptic annotations; examples by ascending image id, categories by ascending category id, things and stuff
    mixed as their ids are.

    Records are checked on opening, PNGs as they are read and by ``check``. Segments without ``iscrowd`` are no crowds; without
    ``area``, theirs is that of their pixels. A file without annotations opens as a test set.
    """

    Options: ClassVar[type[BaseModel]] = CocoPanopticOptions
    tasks: ClassVar[tuple[Head, ...]] = ("panoptic", "semantic")
    needs_data: ClassVar[str | None] = (
        "`m2fbench datasets fetch coco-val2017` gets it; or "
        "download val2017.zip, panoptic_annotations_trainval2017.zip and annotations_trainval2017.zip from "
        "https://cocodataset.org/#download, unpack them into one folder, unpack annotations/panoptic_val2017.zip in its folder, "
        "and pass the folder with --data or M2FBENCH_DATA"
    )
    name = "coco_panoptic"

    def __init__(self, options: CocoPanopticOptions, data: Path | None, task: Head = "panoptic") -> None:
        self._options = options
        root = locate(self.name, self.needs_data, options.annotations, data)
        self._file = root / options.annotations
        self._segments = root / (options.segments or options.annotations.removesuffix(".json"))
        self._images = root / options.images
        self._instances_file = self._find_instances(root)
        with paused_collector():
            content, self._sha256 = read_json(self._file)
            images = sorted(records(content, "images", ImageRecord, self._file), key=by_id)
            self._has_truth = "annotations" in content
            known = self._has_truth or not _is_coco_image_info(content)
            categories = sorted(records(content, "categories", _Category, self._file), key=by_id) if known else _coco_categories()
            annotations = records(content, "annotations", _Annotation, self._file) if self._has_truth else []
        different_ids("images", images, self._file)
        different_ids("categories", categories, self._file)
        self.categories = tuple(Category(c.name, c.isthing == 1) for c in categories)
        self.category_ids = tuple(c.id for c in categories)
        self.label_values = tuple(range(len(categories)))
        self._examples = examples_of(images, self._images, self._file)
        self._truth = self._checked(annotations)

    def _find_instances(self, root: Path) -> Path | None:
        chosen = self._options.instances
        if chosen is None or (root / chosen).is_file():
            return None if chosen is None else root / chosen
        if chosen == INSTANCES:
            return None
        raise DatasetError(
            f"{root / chosen}: no such file, which dataset.instances names; null takes the panoptic annotations' things"
        )

    def _checked(self, annotations: Sequence[_Annotation]) -> dict[ImageId, PanopticEntry]:
        """PNG and segments by image."""
        index = {category_id: k for k, category_id in enumerate(self.category_ids)}
        known = {example.image_id for example in self._examples}
        truth: dict[ImageId, PanopticEntry] = {}
        for number, annotation in enumerate(annotations):
            where = f"{self._file}: annotations[{number}]"
            if annotation.image_id not in known:
                raise DatasetError(f"{where}: names image {annotation.image_id!r}, which is not in the file")
            if annotation.image_id in truth:
                raise DatasetError(f"{where}: expected one annotation for each image, got a second one for {annotation.image_id!r}")
            for segment in annotation.segments_info:
                if segment.category_id not in index:
                    raise DatasetError(f"{where}: names category {segment.category_id}, which is not in the file")
            if len({segment.id for segment in annotation.segments_info}) != len(annotation.segments_info):
                raise DatasetError(f"{where}: expected segments of different ids, got two of one")
            truth[annotation.image_id] = (
                self._segments / inside(annotation.file_name, self._file),
                tuple(Segment(s.id, index[s.category_id], s.iscrowd == 1, s.area) for s in annotation.segments_info),
            )
        return truth

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        return open_image(example, exif_rotation=self._options.exif_rotation)

    def stamp(self, example: Example) -> str:
        return stamp(example.source)

    def panoptic_file(self, example: Example) -> PanopticEntry:
        """The PNG, and the segments that the JSON lists for it: for evaluators that read files themselves."""
        if example.image_id not in self._truth:
            raise DatasetError(f"{self._file}: expected an annotation for every image, got none for {example.image_id!r}")
        return self._truth[example.image_id]

    def panoptic_truth(self, example: Example) -> PanopticMap:
        path, segments = self.panoptic_file(example)
        return read_map(path, segments, example.size, DatasetError)

    def semantic_truth(self, example: Example) -> LabelMap:
        """Every segment's class, crowd regions' too, void ignored: what detectron2's ``prepare_panoptic_fpn`` renders."""
        truth = self.panoptic_truth(example)
        classes = [s.category for s in truth.segments]
        index = segment_index(truth.ids, truth.segments)
        if len(self.categories) <= 255:
            return np.array([255, *classes], np.uint8)[index]
        return np.array([65535, *classes], np.uint16)[index]

    def check(self) -> None:
        """Every PNG: that it is there, of its image's size, and has the segments that the file lists; and the instances."""
        if not self._has_truth:
            raise DatasetError(without_truth(self._file))
        unannotated = [e.image_id for e in self._examples if e.image_id not in self._truth]
        if unannotated:
            raise DatasetError(
                f"{self._file}: expected an annotation for every image, got none for {unannotated[0]!r}{_more(unannotated)}"
            )
        absent = [path for path, _ in self._truth.values() if not path.is_file()]
        if absent:
            raise DatasetError(
                f"{absent[0]}: no such file{_more(absent)}; {self._file} names it, and PNGs are looked for in {self._segments}"
            )
        for _ in map_over(self._check_areas, self._examples):
            pass
        instances, _ = self._instances
        if instances is not None:
            instances.check()

    def _check_areas(self, example: Example) -> None:
        truth = self.panoptic_truth(example)
        for segment, pixels in zip(truth.segments, areas_and_boxes(truth)[0].tolist(), strict=True):
            if segment.area is not None and segment.area < pixels:
                raise DatasetError(
                    f"{self._file}: image {example.image_id!r}: segment {segment.id}: area: expected at least the {pixels} pixels "
                    f"that it has in {self._truth[example.image_id][0].name}, got {segment.area}; put them right, or leave area out"
                )

    def fingerprint(self) -> JsonObject:
        """``annotations_sha256``: content of the JSON files; name, size and check sum of the PNGs."""
        sources = [example.source for example in self._examples]
        instances, words = self._instances
        of_instances = None if instances is None else instances.fingerprint()["annotations_sha256"]
        content = f"{self._sha256} {pngs_sha256(path for path, _ in self._truth.values())} {of_instances}"
        return {
            "name": self.name,
            "annotations_sha256": hashlib.sha256(content.encode()).hexdigest() if self._truth else None,
            "instances": words,
            "images_sha256": stamps_sha256(sources),
            "images": len(sources),
            "missing_images": missing_of(sources),
            "exif_rotation": self._options.exif_rotation,
        }

    @cached_property
    def _instances(self) -> tuple[CocoInstance | None, str]:
        """The instance annotations, None where the panoptic ones stand in; and which it is, in words. Raises DatasetError where a
        file that the options name, other than by default, is of other images or things."""
        stand_in = "things of the panoptic annotations"
        if self._instances_file is None:
            return None, stand_in
        options = CocoOptions(annotations=str(self._instances_file.resolve()), images=str(self._images.resolve()))
        instances = CocoInstance(options, None)
        problem = self._unlike(instances)
        if problem is None:
            return instances, self._instances_file.name
        if self._options.instances == INSTANCES:
            return None, f"{stand_in}: {self._instances_file.name} {problem}"
        raise DatasetError(f"{self._instances_file}: {problem}; 'instances: null' takes the panoptic annotations' things")

    def _unlike(self, instances: CocoInstance) -> str | None:
        """Why these instances cannot be the truth of this dataset's images and things; None where they can."""
        things = tuple(i for i, c in zip(self.category_ids, self.categories, strict=True) if c.is_thing)
        if instances.category_ids != things:
            return f"has other categories than the {len(things)} things of {self._file.name}"
        sizes = {e.image_id: e.size for e in instances.examples()}
        unlike = [e.image_id for e in self._examples if sizes.get(e.image_id) != e.size]
        return f"has no image {unlike[0]!r} of {self._file.name} in its size{_more(unlike)}" if unlike else None

    def coco_truth(self) -> Path | JsonObject:
        """The instance annotations, or else the things of the panoptic ones."""
        instances, _ = self._instances
        return self._things if instances is None else instances.coco_truth()

    @cached_property
    def _things(self) -> JsonObject:
        annotations: list[JsonObject] = []
        for example, found in zip(self._examples, map_over(self._things_of, self._examples), strict=True):
            for fields in found:
                annotations.append({"id": len(annotations) + 1, "image_id": example.image_id, **fields})
        return {
            "images": [{"id": e.image_id, "file_name": e.source, "height": e.size[0], "width": e.size[1]} for e in self._examples],
            "categories": [
                {"id": i, "name": c.name} for i, c in zip(self.category_ids, self.categories, strict=True) if c.is_thing
            ],
            "annotations": annotations,
        }  # fmt: skip

    def _things_of(self, example: Example) -> list[JsonObject]:
        truth = self.panoptic_truth(example)
        things = PanopticMap(truth.ids, tuple(s for s in truth.segments if self.categories[s.category].is_thing))
        areas, boxes = areas_and_boxes(things)
        return [
            {
                "category_id": self.category_ids[segment.category], "segmentation": rle, "iscrowd": int(segment.is_crowd),
                "area": area, "bbox": box,
            }
            for segment, rle, area, box in zip(things.segments, segment_rles(things), areas.tolist(), boxes.tolist(), strict=True)
        ]  # fmt: skip


def _more(items: Sequence[object]) -> str:
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""


def _is_coco_image_info(content: JsonObject) -> bool:
    """Whether the categories are COCO's, all of them or the 80 things, and none says ``isthing``: as its image_info files list them."""
    listed = content.get("categories")
    named = [(c.get("id"), c.get("name")) for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    plain = bool(named) and not any("isthing" in c for c in content["categories"])
    known = (label_set("coco_instance"), label_set("coco_panoptic"))
    return plain and any(sorted(named, key=str) == sorted(zip(k.ids, k.names, strict=True), key=str) for k in known)


def _coco_categories() -> list[_Category]:
    table = label_set("coco_panoptic")
    return [_Category(id=i, name=c.name, isthing=1 if c.is_thing else 0) for i, c in zip(table.ids, table.classes, strict=True)]
