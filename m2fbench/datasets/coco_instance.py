"""Instance annotations in COCO's format: COCO itself, and any dataset that people keep in the same layout.

    DATA/annotations/instances_val2017.json
    DATA/val2017/000000000139.jpg ...

DATA is ``--data`` or ``$M2FBENCH_DATA``, or its subfolder ``coco`` where that is what holds the annotations.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from m2fbench.datasets.images import read_image
from m2fbench.errors import DatasetError, ImageError
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.rle import segmentation_problems
from m2fbench.suite import datasets
from m2fbench.types import Category, Example, ImageId, JsonObject, Size

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class CocoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    annotations: str = Field("annotations/instances_val2017.json", description="Annotation file, in the data folder or absolute.")
    images: str = Field("val2017", description="Folder of the images, in the data folder or absolute.")
    exif_rotation: bool = Field(True, description="Turn images upright by their EXIF orientation, as the original code does.")


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Image(_Record):
    id: int | str
    file_name: str
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


class _Category(_Record):
    id: int
    name: str


class _Annotation(_Record):
    id: int | str
    image_id: int | str
    category_id: int
    segmentation: Any
    iscrowd: Literal[0, 1] | None = None
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@datasets.register("coco_instance")
class CocoInstance:
    """COCO-format instance annotations; examples by ascending image id, categories by ascending category id.

    Records are checked on opening, masks by ``check``. Annotations without ``iscrowd`` are no crowds; without ``area``, theirs is
    the mask's.
    """

    Options: ClassVar[type[BaseModel]] = CocoOptions
    tasks: ClassVar[tuple[str, ...]] = ("instance",)
    needs_data: ClassVar[str | None] = (
        "download val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download, unpack both into one "
        "folder, and pass it with --data or M2FBENCH_DATA"
    )
    name = "coco_instance"

    def __init__(self, options: CocoOptions, data: Path | None) -> None:
        self._options = options
        self._file, folder = self._locate(options, data)
        with paused_collector():
            self._content, self._sha256 = _read_json(self._file)
            images = sorted(_records(self._content, "images", _Image, self._file), key=_by_id)
            categories = sorted(_records(self._content, "categories", _Category, self._file), key=_by_id)
            self._annotations = _records(self._content, "annotations", _Annotation, self._file)
        self.categories = tuple(Category(c.name, True) for c in categories)
        self.category_ids = tuple(c.id for c in categories)
        self._paths: dict[ImageId, str] = {i.id: os.path.join(folder, _inside(i.file_name, self._file)) for i in images}  # noqa: PTH118
        self._examples = [Example(i.id, (i.height, i.width), self._paths[i.id]) for i in images]
        self._check(images, categories)

    def _locate(self, options: CocoOptions, data: Path | None) -> tuple[Path, Path]:
        roots = [Path()] if data is None else [data, data / "coco"]
        for root in roots:
            if (root / options.annotations).is_file():
                return root / options.annotations, root / options.images
        looked = " and ".join(str(root / options.annotations) for root in roots)
        raise DatasetError(f"dataset {self.name} is not here: looked for {looked}; {self.needs_data}")

    def _check(self, images: Sequence[_Image], categories: Sequence[_Category]) -> None:
        for kind, ids in (("images", [i.id for i in images]), ("categories", [c.id for c in categories])):
            if len(set(ids)) != len(ids):
                raise DatasetError(f"{self._file}: expected {kind} of different ids, got {len(ids)} with {len(set(ids))} ids")
        known = set(self.category_ids)
        for number, annotation in enumerate(self._annotations):
            where = f"{self._file}: annotations[{number}]"
            if annotation.image_id not in self._paths:
                raise DatasetError(f"{where}: names image {annotation.image_id!r}, which is not in the file")
            if annotation.category_id not in known:
                raise DatasetError(f"{where}: names category {annotation.category_id}, which is not in the file")

    def check(self) -> None:
        """Every mask, RLE or polygons, against its image's size: evaluators take a damaged one for another and say nothing."""
        sizes = {e.image_id: e.size for e in self._examples}
        problems = segmentation_problems((a.segmentation, sizes[a.image_id]) for a in self._annotations)
        for number, problem in enumerate(problems):
            if problem:
                raise DatasetError(f"{self._file}: annotations[{number}]: segmentation: {problem}")

    def examples(self) -> Sequence[Example]:
        return self._examples

    def image(self, example: Example) -> NDArray[np.uint8]:
        image = read_image(Path(self._paths[example.image_id]), exif_rotation=self._options.exif_rotation)
        if image.shape[:2] != example.size:
            raise ImageError(
                f"{example.source}: expected {example.size[1]}x{example.size[0]} pixels as in the annotations, got "
                f"{image.shape[1]}x{image.shape[0]}; it is another file, or its annotations disregard its EXIF rotation "
                f"(then set dataset.exif_rotation: false)"
            )
        return image

    def stamp(self, example: Example) -> str:
        try:
            status = os.stat(self._paths[example.image_id])  # noqa: PTH116
        except OSError:
            return "missing"
        return f"{status.st_size} bytes, {status.st_mtime_ns} ns"

    def fingerprint(self) -> JsonObject:
        """Hash of the annotation file; and of name, size and modification time of every image."""
        stamps = {example.image_id: self.stamp(example) for example in self._examples}
        digest = hashlib.sha256()
        for image_id, stamp in stamps.items():
            digest.update(f"{Path(self._paths[image_id]).name}\0{stamp}\n".encode())
        return {
            "name": self.name,
            "annotations_sha256": self._sha256,
            "images_sha256": digest.hexdigest(),
            "images": len(stamps),
            "missing_images": sum(stamp == "missing" for stamp in stamps.values()),
            "exif_rotation": self._options.exif_rotation,
        }

    def coco_truth(self) -> Path | JsonObject:
        """The file itself where evaluators read it as we do, else its content in the form they expect."""
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


def _by_id(record: Any) -> tuple[bool, Any]:
    """Numbers before texts, each in their own order."""
    return isinstance(record.id, str), record.id


def _area(segmentation: Any, size: Size) -> int:
    import hotcoco.mask

    rles = hotcoco.mask.frPyObjects(segmentation, *size)
    return int(hotcoco.mask.area(hotcoco.mask.merge(rles) if isinstance(rles, list) else rles))


def _read_json(path: Path) -> tuple[dict[str, Any], str]:
    try:
        content = path.read_bytes()
        document = from_json(content.removeprefix(BYTE_ORDER_MARK))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        whole = "" if content.rstrip().endswith(b"}") else "cut off: "
        raise DatasetError(f"{path}: {whole}not valid JSON ({error}); download or copy the file again") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: expected COCO annotations (a JSON object), got a {type(document).__name__}")
    return document, hashlib.sha256(content).hexdigest()


def _records(content: dict[str, Any], key: str, model: type[Any], file: Path) -> list[Any]:
    """``content[key]`` as records of ``model``; the first that is none is named with its number and field."""
    items = content.get(key)
    if not isinstance(items, list):
        got = "none" if items is None else type(items).__name__
        raise DatasetError(f"{file}: expected COCO annotations with a list '{key}', got {got}")
    try:
        return TypeAdapter(list[model]).validate_python(items)  # type: ignore[valid-type]  # a type made here, for pydantic
    except ValidationError as failure:
        error = failure.errors()[0]
        if len(error["loc"]) < 2:
            raise DatasetError(f"{file}: {key}[{error['loc'][0]}]: expected an object, got {str(error['input'])[:40]!r}") from None
        where = f"{file}: {key}[{error['loc'][0]}]"
        if error["type"] == "missing":
            raise DatasetError(f"{where}: expected the key '{error['loc'][1]}', got none") from None
        expected = error["msg"].removeprefix("Input should be ")
        raise DatasetError(f"{where}: {error['loc'][1]}: expected {expected}, got {str(error['input'])[:40]!r}") from None


def _inside(file_name: str, file: Path) -> str:
    """``file_name`` as a relative path that stays inside the image folder; plain texts, for there can be a hundred thousand."""
    path = file_name.replace("\\", "/")
    if not path.strip("./") or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise DatasetError(f"{file}: image file name {file_name!r}: expected a path inside the image folder")
    return path
