"""Instance annotations in COCO's format: COCO itself, and any dataset that people keep in the same layout.

    DATA/annotations/instances_val2017.json
    DATA/val2017/000000000139.jpg ...

DATA is ``--data`` or ``$M2FBENCH_DATA``, or its subfolder ``coco`` where that is what holds the annotations.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from m2fbench.datasets.images import read_image
from m2fbench.errors import DatasetError, ImageError
from m2fbench.suite import datasets
from m2fbench.types import Category, Example, JsonObject


class CocoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    annotations: str = Field(
        "annotations/instances_val2017.json", description="Annotation file, inside the data folder or absolute."
    )
    images: str = Field("val2017", description="Folder of the images, inside the data folder or absolute.")
    exif_rotation: bool = Field(True, description="Turn images upright by their EXIF orientation, as the original code does.")


@datasets.register("coco_instance")
class CocoInstance:
    """COCO-format instance annotations; examples by ascending image id, categories by ascending category id."""

    Options: ClassVar[type[BaseModel]] = CocoOptions
    tasks: ClassVar[tuple[str, ...]] = ("instance",)
    needs_data: ClassVar[str | None] = (
        "download val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download, unpack both into one folder, "
        "and pass it with --data or M2FBENCH_DATA"
    )
    name = "coco_instance"

    def __init__(self, options: CocoOptions, data: Path | None) -> None:
        self._options = options
        self._annotations, self._images = self._locate(options, data)
        content, self._sha256 = _read_json(self._annotations)
        where = str(self._annotations)
        categories = sorted(_list(content, "categories", where, ("id", "name")), key=lambda c: c["id"])
        self.categories = tuple(Category(str(c["name"]), True) for c in categories)
        self.category_ids = tuple(int(c["id"]) for c in categories)
        images = sorted(_list(content, "images", where, ("id", "file_name", "height", "width")), key=lambda i: i["id"])
        self._paths = {i["id"]: self._images / _inside(str(i["file_name"]), where) for i in images}
        self._examples = [Example(i["id"], (int(i["height"]), int(i["width"])), str(self._paths[i["id"]])) for i in images]
        self._check_annotations(content, where)

    def _locate(self, options: CocoOptions, data: Path | None) -> tuple[Path, Path]:
        roots = [Path()] if data is None else [data, data / "coco"]
        for root in roots:
            if (root / options.annotations).is_file():
                return root / options.annotations, root / options.images
        looked = " and ".join(str(root / options.annotations) for root in roots)
        raise DatasetError(f"dataset {self.name} is not here: looked for {looked}; {self.needs_data}")

    def _check_annotations(self, content: dict[str, Any], where: str) -> None:
        annotations = _list(content, "annotations", where, ("id", "image_id", "category_id", "segmentation"))
        for kind, known, key in (("image", set(self._paths), "image_id"), ("category", set(self.category_ids), "category_id")):
            for annotation in annotations:
                if annotation[key] not in known:
                    raise DatasetError(
                        f"{where}: annotation {annotation['id']} names {kind} {annotation[key]}, which is not in the file"
                    )
        for kind, ids in (("images", len(self._examples)), ("categories", len(self.category_ids))):
            distinct = len(self._paths) if kind == "images" else len(set(self.category_ids))
            if ids != distinct:
                raise DatasetError(f"{where}: expected {kind} of different ids, got {ids} {kind} with {distinct} ids")

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        image = read_image(self._paths[example.image_id], exif_rotation=self._options.exif_rotation)
        if image.shape[:2] != example.size:
            raise ImageError(
                f"{example.source}: expected {example.size[1]}x{example.size[0]} pixels as in the annotations, got "
                f"{image.shape[1]}x{image.shape[0]}; it is another file, or its annotations disregard its EXIF rotation "
                f"(then set dataset.exif_rotation: false)"
            )
        return image

    def fingerprint(self) -> JsonObject:
        """Hash of the annotation file; and of name, size and modification time of every image."""
        digest, missing = hashlib.sha256(), 0
        for path in self._paths.values():
            try:
                status = path.stat()
                digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            except OSError:
                missing += 1
                digest.update(f"{path.name}\0missing\n".encode())
        return {
            "name": self.name,
            "annotations_sha256": self._sha256,
            "images_sha256": digest.hexdigest(),
            "images": len(self._paths),
            "missing_images": missing,
            "exif_rotation": self._options.exif_rotation,
        }

    def coco_truth(self) -> Path:
        return self._annotations


def _read_json(path: Path) -> tuple[dict[str, Any], str]:
    try:
        content = path.read_bytes()
        document = json.loads(content)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else error.start
        whole = "cut off: " if at >= len(content) - 1 or not content.rstrip().endswith(b"}") else ""
        raise DatasetError(
            f"{path}: {whole}not valid JSON from position {at} of {len(content)} on; download or copy the file again"
        ) from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: expected COCO annotations (a JSON object), got a {type(document).__name__}")
    return document, hashlib.sha256(content).hexdigest()


def _list(content: dict[str, Any], key: str, where: str, required: tuple[str, ...]) -> list[dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list):
        raise DatasetError(
            f"{where}: expected COCO annotations with a list '{key}', got {'none' if items is None else type(items).__name__}"
        )
    for number, item in enumerate(items):
        for name in required:
            if not isinstance(item, dict) or name not in item:
                raise DatasetError(f"{where}: {key}[{number}]: expected the key '{name}', got none")
    return items


def _inside(file_name: str, where: str) -> PurePosixPath:
    """``file_name`` as a path that stays inside the image folder."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DatasetError(f"{where}: image file name {file_name!r}: expected a path inside the image folder")
    return path
