"""ADE20K truth that somebody prepared with the original code's scripts, or with ours: the JSON files, checked."""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from m2fbench.datasets.ade20k_files import PREPARE_AGAIN
from m2fbench.datasets.ade20k_truth import CLASSES
from m2fbench.errors import DatasetError, shown
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.rle import segmentation_problems
from m2fbench.types import Example, JsonObject

_Class = Annotated[int, Field(ge=0, lt=CLASSES)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Image(_Record):
    id: str


class _Segment(_Record):
    id: Annotated[int, Field(ge=1, lt=2**24)]
    category_id: _Class
    area: Annotated[int, Field(ge=1)]
    iscrowd: Literal[0, 1]


class _Map(_Record):
    image_id: str
    segments_info: list[_Segment]


class _Instance(_Record):
    id: Annotated[int, Field(ge=1)]
    image_id: str
    category_id: _Class
    segmentation: dict[str, Any]
    area: Annotated[int, Field(ge=1)]
    iscrowd: Literal[0, 1]


def read_panoptic(path: Path, images: Collection[str]) -> tuple[dict[str, list[JsonObject]], str]:
    """Image id -> the records of its segments, and the SHA-256 of the file. Raises DatasetError where it is not of these images."""
    document, sha256 = _read(path, images, _Map)
    segments = {entry["image_id"]: entry["segments_info"] for entry in document["annotations"]}
    if segments.keys() != set(images) or len(segments) != len(document["annotations"]):
        raise DatasetError(f"{path}: expected one annotation for every image, got {len(document['annotations'])}; {PREPARE_AGAIN}")
    return segments, sha256


def read_instances(path: Path, images: Collection[str]) -> tuple[list[JsonObject], str]:
    """The annotations, and the SHA-256 of the file. Raises DatasetError where it is not of these images."""
    document, sha256 = _read(path, images, _Instance)
    for number, annotation in enumerate(document["annotations"]):
        if annotation["image_id"] not in images:
            name = shown(annotation["image_id"])
            raise DatasetError(f"{path}: annotations[{number}]: names image '{name}', which is not in the file; {PREPARE_AGAIN}")
    return document["annotations"], sha256


def check_masks(path: Path, annotations: Sequence[JsonObject], examples: Sequence[Example]) -> None:
    """Every mask of prepared annotations against its image's size."""
    sizes = {example.image_id: example.size for example in examples}
    problems = segmentation_problems((a["segmentation"], sizes[a["image_id"]]) for a in annotations)
    for number, problem in enumerate(problems):
        if problem:
            raise DatasetError(f"{path}: annotations[{number}]: segmentation: {problem}; {PREPARE_AGAIN}")


def _read(path: Path, images: Collection[str], kind: type[_Record]) -> tuple[dict[str, Any], str]:
    """The document, whose images are ``images`` and whose annotations are of ``kind``; and the SHA-256 of the file."""
    try:
        content = path.read_bytes()
        with paused_collector():
            document = from_json(content)
            if not isinstance(document, dict):
                raise DatasetError(f"{path}: expected an object, got a {type(document).__name__}; {PREPARE_AGAIN}")
            named = [image.id for image in TypeAdapter(list[_Image]).validate_python(document.get("images"))]
            TypeAdapter(list[kind]).validate_python(document.get("annotations"))  # type: ignore[valid-type]  # for pydantic
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as failure:
        first = failure.errors()[0]
        where = ".".join(map(str, first["loc"])) or "images or annotations"
        raise DatasetError(f"{path}: {where}: {first['msg']}, got {shown(first['input'], 40)!r}; {PREPARE_AGAIN}") from None
    except ValueError as error:
        raise DatasetError(f"{path}: not valid JSON ({error}); {PREPARE_AGAIN}") from error
    if len(named) != len(images) or set(named) != set(images):
        odd = min(set(named) ^ set(images), default=named[0])
        raise DatasetError(
            f"{path}: expected the {len(images)} images of the folder, got {len(named)}, '{shown(odd)}' being in one of the two only; "
            f"{PREPARE_AGAIN}"
        )
    return document, hashlib.sha256(content).hexdigest()
