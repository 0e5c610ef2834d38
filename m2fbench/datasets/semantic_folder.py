"""Anyone's semantic dataset: a folder of images and a folder of label PNGs with the same names.

    DATA/images/street/0001.jpg     DATA/labels/street/0001.png     DATA/classes.txt

DATA is ``--data`` or ``$M2FBENCH_DATA``. An image's id is its path in the folder without suffix (``street/0001``).
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets.images import read_image
from m2fbench.datasets.truth_png import image_sizes
from m2fbench.errors import DatasetError, ImageError, shown
from m2fbench.files import map_over, missing_of, pngs_sha256, stamp, stamps_sha256
from m2fbench.formats.class_list import ClassList, read_class_list
from m2fbench.formats.label_png import read_labels, to_indices, unexpected_values
from m2fbench.labels import label_set, label_sets
from m2fbench.registry import near
from m2fbench.suite import datasets
from m2fbench.types import Category, Example, Head, ImageId, JsonObject, LabelMap, PanopticMap

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


class SemanticFolderOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    images: str = Field("images", description="Folder of the images, in the data folder or absolute; subfolders are looked into.")
    labels: str = Field("labels", description="Folder of the label PNGs, with the images' names and subfolders.")
    classes: str = Field(
        description="Class list: a file with a name a line, a JSON list of names or of {name, value}; or a label set's name."
    )
    first_value: int = Field(0, ge=0, le=65535, description="Value of the first class in the PNGs, where the list gives none.")
    ignore_values: list[int] = Field([255], description="Values in the PNGs that are unlabelled pixels.")
    strict_values: bool = Field(True, description="Refuse any other value; false: take it for unlabelled.")
    exif_rotation: bool = Field(True, description="Turn images upright by their EXIF orientation, as the original code does.")


@datasets.register("semantic_folder")
class SemanticFolder:
    """Images and label PNGs paired by their path without suffix; examples in the order of their ids."""

    Options: ClassVar[type[BaseModel]] = SemanticFolderOptions
    tasks: ClassVar[tuple[Head, ...]] = ("semantic",)
    needs_data: ClassVar[str | None] = (
        "put the images into one folder and label PNGs of the same names into another, name both and a class list in the suite's "
        "dataset section, and pass the folder that holds them with --data or M2FBENCH_DATA"
    )
    name = "semantic_folder"

    def __init__(self, options: SemanticFolderOptions, data: Path | None, task: Head = "semantic") -> None:
        root = data or Path()
        self._options, self._folder, self._labels = options, root / options.images, root / options.labels
        if not self._folder.is_dir():
            raise DatasetError(f"dataset {self.name} is not here: looked for the folder {self._folder}; {self.needs_data}")
        classes = _classes(options, root)
        self.categories = tuple(Category(name, thing) for name, thing in zip(classes.names, _things(options, classes), strict=True))
        self.category_ids = self.label_values = classes.values
        self._paths = _by_stem(self._folder, SUFFIXES)
        if not self._paths:
            raise DatasetError(f"{self._folder}: expected images ({', '.join(SUFFIXES)}), got none")
        images: dict[ImageId, Path] = dict(sorted(self._paths.items()))
        sizes = image_sizes(images, self._label_path, exif_rotation=options.exif_rotation)
        self._examples = [Example(i, size, str(path)) for (i, path), size in zip(images.items(), sizes, strict=True)]

    @cached_property
    def _label_paths(self) -> Mapping[str, Path]:
        if not self._labels.is_dir():
            raise DatasetError(
                f"dataset {self.name}: its truth is not here: looked for the folder {self._labels}; {self.needs_data}"
            )
        return _by_stem(self._labels, (".png",))

    def _label_path(self, image_id: ImageId) -> Path:
        """Where the label PNG of an image is, or belongs."""
        there = self._label_paths if self._labels.is_dir() else {}
        return there.get(str(image_id), self._labels / f"{image_id}.png")

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        image = read_image(Path(example.source), exif_rotation=self._options.exif_rotation)
        if image.shape[:2] != example.size:
            raise ImageError(f"{example.source}: changed its size since the dataset was opened; start again")
        return image

    def check(self) -> None:
        """Every image has a label PNG and the other way round, of the same size and, unless ``strict_values`` is off, with the
        values of the classes and ``ignore_values`` only."""
        for here, there, what, other in (
            (self._paths, self._label_paths, "image", f"label PNG in {self._labels}"),
            (self._label_paths, self._paths, "label PNG", f"image in {self._folder}"),
        ):
            alone = sorted(set(here) - set(there))
            if alone:
                raise DatasetError(
                    f"{here[alone[0]]}: this {what} has no {other}, as {len(alone)} of {len(here)} have none; add what is missing, or "
                    f"take the {what}s out"
                )
        for _ in map_over(self._check_labels, self._examples):
            pass

    def _check_labels(self, example: Example) -> None:
        raw = self._raw(example)
        if not self._options.strict_values:
            return
        for value, pixels in unexpected_values(raw, {*self.label_values, *self._options.ignore_values}).items():
            raise DatasetError(
                f"{self._label_paths[str(example.image_id)]}: {pixels} pixels have the value {value}, which is neither a class "
                f"({_span(self.label_values)}) nor among dataset.ignore_values; add it there, set dataset.first_value, or set "
                f"dataset.strict_values: false to take such pixels for unlabelled"
            )

    def _raw(self, example: Example) -> LabelMap:
        path = self._label_paths.get(str(example.image_id))
        if path is None:
            raise DatasetError(f"{example.source}: has no label PNG in {self._labels}")
        raw = read_labels(path)
        if raw.shape != example.size:
            turned = raw.shape == example.size[::-1] and self._options.exif_rotation
            remedy = (
                "it may disregard the image's EXIF rotation (then set dataset.exif_rotation: false)" if turned else "label it again"
            )
            raise DatasetError(
                f"{path}: expected {example.size[1]}x{example.size[0]} pixels as the image has, got {raw.shape[1]}x{raw.shape[0]}; {remedy}"
            )
        return raw

    def stamp(self, example: Example) -> str:
        return stamp(example.source)

    def fingerprint(self) -> JsonObject:
        """Hashes of name, size and check sum of every label PNG; name, size and modification time of every image; and of the classes and
        their values."""
        sources = [example.source for example in self._examples]
        labels = [path for _, path in sorted(self._label_paths.items())] if self._labels.is_dir() else []
        named = {c.name: str(v) for c, v in zip(self.categories, self.label_values, strict=True)}
        named[""] = f"{sorted(self._options.ignore_values)}"
        return {
            "name": self.name,
            "annotations_sha256": pngs_sha256(labels) if labels else None,
            "classes_sha256": _sha256(named),
            "images_sha256": stamps_sha256(sources),
            "images": len(sources),
            "missing_images": missing_of(sources),
            "exif_rotation": self._options.exif_rotation,
        }

    def semantic_truth(self, example: Example) -> LabelMap:
        return to_indices(self._raw(example), self.label_values)

    def coco_truth(self) -> Path | JsonObject:
        raise DatasetError(f"dataset {self.name} has label maps only, no instances")

    def panoptic_truth(self, example: Example) -> PanopticMap:
        raise DatasetError(f"dataset {self.name} has label maps only, no segments")


def _classes(options: SemanticFolderOptions, root: Path) -> ClassList:
    """The class list, from the data folder, or by a label set's name. No value is both a class's and ignored."""
    path = root / options.classes
    if path.is_file():
        classes = read_class_list(path, options.first_value)
    elif options.classes in label_sets():
        names = label_set(options.classes).names
        classes = ClassList(names, tuple(range(options.first_value, options.first_value + len(names))))
    else:
        raise DatasetError(
            f"dataset.classes: expected a class list file ({path} is none) or one of {', '.join(label_sets())}, got "
            f"'{options.classes}'{near(options.classes, label_sets())}"
        )
    for name, value in zip(classes.names, classes.values, strict=True):
        if value in options.ignore_values:
            raise DatasetError(
                f"dataset.ignore_values: {value} is the value of class '{shown(name)}'; set the values that are no class"
            )
    return classes


def _things(options: SemanticFolderOptions, classes: ClassList) -> list[bool]:
    """Which classes are things, as far as a label set says; a semantic task does not ask."""
    if options.classes in label_sets() and label_set(options.classes).names == classes.names:
        return [category.is_thing for category in label_set(options.classes).classes]
    return [False] * len(classes.names)


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by their path inside ``folder`` without suffix, hidden ones left out."""
    found: dict[str, Path] = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            stem, dot, suffix = name.rpartition(".")
            if name.startswith(".") or dot + suffix.lower() not in suffixes:
                continue
            path = Path(root) / name
            key = (Path(root) / stem).relative_to(folder).as_posix()
            if key in found:
                raise DatasetError(f"{path}: has the name of {found[key].name} but for the suffix; keep one of the two")
            found[key] = path
    return found


def _sha256(texts: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name}\0{text}\n" for name, text in texts.items()).encode()).hexdigest()


def _span(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)}" if len(values) == max(values) - min(values) + 1 else ", ".join(map(str, values[:40]))
