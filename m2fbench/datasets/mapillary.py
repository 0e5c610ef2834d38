"""Mapillary Vistas, versions 1.2 and 2.0 of its annotations, in the layout of either archive.

    DATA/validation/images/<id>.jpg
    DATA/validation/{labels,instances,panoptic}/<id>.png          the archive of v1.2 (and of v1.1)
    DATA/validation/v1.2/{labels,instances,panoptic}/<id>.png     the archive of v2.0, which holds both versions
    DATA/validation/v2.0/{labels,instances,panoptic}/<id>.png
    .../panoptic/panoptic_2018.json (v1.2), panoptic_2020.json (v2.0); DATA/config_v2.0.json: the classes of v2.0

DATA is ``--data`` or ``$M2FBENCH_DATA``, or its subfolder ``mapillary_vistas`` or ``mapillary``.

Sources: the layout, and how files are to be read, from the archive's own ``demo.py`` (label PNGs index the config's ``labels``;
instance PNGs are 16 bits, label * 256 + instance number; panoptic ids are R + 256 G + 65536 B); the 65 classes of v1.2 and the
images' EXIF rotation from the original code. Category ids in the panoptic JSONs are label + 1: the original code's table has that
for v1.2; for v2.0 only other people's readers say so, therefore the names that the JSON gives its ids are compared with the
config's. Not verified against the files themselves, which need a login: that v2.0 evaluates 116 of its 124 labels (they are taken
from the config, whatever it says).
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets import mapillary_truth
from m2fbench.datasets.images import read_image
from m2fbench.datasets.truth_png import (
    check_files,
    image_sizes,
    raise_first,
    read_values,
    things_as_coco,
)
from m2fbench.errors import DatasetError, ImageError
from m2fbench.files import content_sha256, map_over, missing_of, pngs_sha256, stamp, stamps_sha256
from m2fbench.formats.label_png import to_indices, unexpected_values
from m2fbench.labels import label_set, select
from m2fbench.suite import datasets
from m2fbench.types import Example, Head, ImageId, JsonObject, LabelMap, PanopticMap

ENDINGS = (".jpg", ".jpeg", ".png")
FOLDERS = ("", "mapillary_vistas", "mapillary")
LABELS_1_2 = 66  # the last, 65, is unlabelled


class MapillaryOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    split: Literal["validation", "training", "testing"] = Field(
        "validation", description="Part of the dataset; `testing` has no public truth."
    )
    version: Literal["1.2", "2.0"] = Field("1.2", description="Version of the annotations; the published numbers are of 1.2.")
    classes: dict[str, str] | None = Field(
        None, description="Dataset's class name -> name by which the checkpoint knows it; others count as unlabelled."
    )
    exif_rotation: bool = Field(True, description="Turn images upright by their EXIF orientation, as the original code does.")


@datasets.register("mapillary")
class Mapillary:
    """Examples by ascending image id, which is the file name without its ending."""

    Options: ClassVar[type[BaseModel]] = MapillaryOptions
    tasks: ClassVar[tuple[Head, ...]] = ("panoptic", "semantic")
    needs_data: ClassVar[str | None] = (
        "ask for the archive at https://www.mapillary.com/dataset/vistas (a person has to; the login is theirs), unpack it into one "
        "folder, so that it holds validation/images (and config_v2.0.json for version 2.0), and pass that with --data or M2FBENCH_DATA"
    )
    name = "mapillary"

    def __init__(self, options: MapillaryOptions, data: Path | None, task: Head = "panoptic") -> None:
        self._options = options
        self._root, images, self._truth = self._locate(options, data)
        if options.version == "1.2":
            table = label_set("mapillary_vistas")
            self._labels, self._config = LABELS_1_2, None
        else:
            self._config = self._root / "config_v2.0.json"
            table, self._labels = mapillary_truth.read_config(self._config)
        labels = select(table, options.classes)
        self.categories, self.category_ids = labels.classes, labels.ids
        self.label_values = tuple(i - 1 for i in labels.ids)
        # in detectron2's sem_seg_predictions.json: the original registers the semantic dataset without ids, so indices stand for them
        self.sem_seg_ids = tuple(map(table.ids.index, labels.ids)) if task == "semantic" else self.category_ids
        self._known = dict(zip(table.ids, table.names, strict=True))
        self._paths = self._find_images(images)
        sizes = image_sizes(self._paths, lambda image_id: self._partner(image_id, "labels"), exif_rotation=options.exif_rotation)
        self._examples = [Example(i, size, str(path)) for (i, path), size in zip(self._paths.items(), sizes, strict=True)]

    def _locate(self, options: MapillaryOptions, data: Path | None) -> tuple[Path, Path, Path]:
        """The dataset's folder, that of the images, and that of the truth, which need not be there."""
        roots = [Path()] if data is None else [data / folder for folder in FOLDERS]
        for root in roots:
            split = root / options.split
            if (split / "images").is_dir():
                both = split / f"v{options.version}"
                return root, split / "images", split if options.version == "1.2" and not both.is_dir() else both
        looked = " and ".join(str(root / options.split / "images") for root in roots)
        raise DatasetError(f"dataset {self.name} is not here: looked for {looked}; {self.needs_data}")

    def _find_images(self, folder: Path) -> dict[ImageId, Path]:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")
        if not found:
            raise DatasetError(f"{folder}: expected images <id>.jpg, got none; {self.needs_data}")
        images: dict[ImageId, Path] = {}
        for path in found:
            if path.stem in images:
                raise DatasetError(f"{path}: expected images of different names, got {images[path.stem].name} too; remove one")
            images[path.stem] = path
        return dict(sorted(images.items()))

    def _partner(self, image_id: ImageId, kind: str) -> Path:
        return self._truth / kind / f"{image_id}.png"

    @property
    def _panoptic_json(self) -> Path:
        return self._truth / "panoptic" / ("panoptic_2018.json" if self._options.version == "1.2" else "panoptic_2020.json")

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        image = read_image(self._paths[example.image_id], exif_rotation=self._options.exif_rotation)
        if image.shape[:2] != example.size:
            raise ImageError(
                f"{example.source}: expected {example.size[1]}x{example.size[0]} pixels, as its header or its truth says, got "
                f"{image.shape[1]}x{image.shape[0]}; unpack it again"
            )
        return image

    def semantic_truth(self, example: Example) -> LabelMap:
        return to_indices(read_values(self._partner(example.image_id, "labels"), example.size), self.label_values)

    def panoptic_truth(self, example: Example) -> PanopticMap:
        """From the panoptic PNG and JSON; without them from the instance PNG, which knows no crowds."""
        if self._annotations is None:
            values = read_values(self._partner(example.image_id, "instances"), example.size)
            return mapillary_truth.from_instances(values, self.label_values, self.categories)
        annotation = self._annotations.get(str(example.image_id))
        if annotation is None:
            raise DatasetError(
                f"{self._panoptic_json}: expected an annotation of image {example.image_id}, got none; unpack it again"
            )
        png = self._partner(example.image_id, "panoptic")
        return mapillary_truth.from_panoptic(png, annotation, example.size, self.category_ids)

    @cached_property
    def _annotations(self) -> dict[str, mapillary_truth.Annotation] | None:
        """By image id; None where there is no panoptic JSON."""
        path = self._panoptic_json
        return mapillary_truth.read_annotations(path, self._known, self._labels) if path.is_file() else None

    def coco_truth(self) -> JsonObject:
        """The things of the panoptic truth."""
        return self._coco

    @cached_property
    def _coco(self) -> JsonObject:
        _ = self._annotations  # read once, before the threads ask for it
        return things_as_coco(self._examples, self.panoptic_truth, self.categories, self.category_ids)

    def check(self) -> None:
        """Every label PNG and every panoptic or instance PNG: there, of its image's size, of known values; no truth without an image."""
        if not (self._truth / "labels").is_dir():
            images = len(self._examples)
            raise DatasetError(
                f"{self._truth / 'labels'}: no such folder, where the truth of {images} images belongs; {self.needs_data}"
            )
        for kind in ("labels", "instances" if self._annotations is None else "panoptic"):
            expected = (self._partner(i, kind) for i in self._paths)
            check_files(
                [p for p in expected if not p.is_file()], "no such file, yet its image is there", "unpack the archive again"
            )
            there = (p for p in sorted((self._truth / kind).glob("[!.]*.png")) if p.stem not in self._paths)
            check_files(list(there), "truth without an image", "unpack the archive again, or remove the truth")
        raise_first([problem for found in map_over(self._problems, self._examples) for problem in found])

    def _problems(self, example: Example) -> list[str]:
        path = self._partner(example.image_id, "labels")
        found = [self._unknown(path, list(unexpected_values(read_values(path, example.size), range(self._labels))))]
        if self._annotations is None:
            path = self._partner(example.image_id, "instances")
            known = range(256 * self._labels)
            found.append(self._unknown(path, [v // 256 for v in unexpected_values(read_values(path, example.size), known)]))
        else:
            self.panoptic_truth(example)
        return [problem for problem in found if problem]

    def _unknown(self, path: Path, labels: list[int]) -> str | None:
        if not labels:
            return None
        return f"{path}: expected labels 0 to {self._labels - 1} of version {self._options.version}, got {labels[0]}; is it another version's?"

    def stamp(self, example: Example) -> str:
        return stamp(self._paths[example.image_id])

    def fingerprint(self) -> JsonObject:
        """Hashes over name, size and check sum of truth files and name, size and modification time of images, and what of them is read."""
        truth = [self._partner(i, kind) for i in self._paths for kind in ("labels", "instances", "panoptic")]
        tables = content_sha256([self._panoptic_json, *([self._config] if self._config else [])])
        truth_sha256 = hashlib.sha256(f"{pngs_sha256(truth)} {tables}".encode()).hexdigest()
        return {
            "name": self.name,
            "split": self._options.split,
            "version": self._options.version,
            "classes": self._options.classes,
            "exif_rotation": self._options.exif_rotation,
            "annotations_sha256": truth_sha256 if (self._truth / "labels").is_dir() else None,
            "images_sha256": stamps_sha256(self._paths.values()),
            "images": len(self._examples),
            "missing_images": missing_of(self._paths.values()),
        }
