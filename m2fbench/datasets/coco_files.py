"""What the readers of COCO's JSON files share: finding and parsing them, their records, and the image files they name."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from m2fbench.datasets.images import read_image
from m2fbench.errors import DatasetError, ImageError
from m2fbench.formats.names import refuse_shared_names
from m2fbench.types import Example

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DATA_FOLDER = "coco"


class Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class ImageRecord(Record):
    id: int | str
    file_name: str
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


def locate(name: str, needs_data: str | None, annotations: str, data: Path | None) -> Path:
    """The folder in which ``annotations`` is a file: ``data``, or its subfolder ``coco``."""
    roots = [Path()] if data is None else [data, data / DATA_FOLDER]
    for root in roots:
        if (root / annotations).is_file():
            return root
    looked = " and ".join(str(root / annotations) for root in roots)
    own = "val2017" in annotations
    remedy = (
        needs_data if own else "put the file there, or name another in the suite's dataset.annotations, or its folder with --data"
    )
    raise DatasetError(f"dataset {name} is not here: looked for {looked}; {remedy}")


def by_id(record: Any) -> tuple[bool, Any]:
    """Numbers before texts, each in their own order."""
    return isinstance(record.id, str), record.id


def read_json(path: Path) -> tuple[dict[str, Any], str]:
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


def records(content: dict[str, Any], key: str, model: type[Any], file: Path) -> list[Any]:
    """``content[key]`` as records of ``model``; the first that is none is named with its number and field."""
    items = content.get(key)
    if not isinstance(items, list):
        got = "none" if items is None else type(items).__name__
        raise DatasetError(f"{file}: expected COCO annotations with a list '{key}', got {got}")
    try:
        return TypeAdapter(list[model]).validate_python(items)  # type: ignore[valid-type]  # a type made here, for pydantic
    except ValidationError as failure:
        error = failure.errors()[0]
        number, *fields = error["loc"]
        where = f"{file}: {key}[{number}]"
        if not fields:
            raise DatasetError(f"{where}: expected an object, got {str(error['input'])[:40]!r}") from None
        if error["type"] == "missing":
            raise DatasetError(f"{': '.join([where, *_steps(fields[:-1])])}: expected the key '{fields[-1]}', got none") from None
        expected = error["msg"].removeprefix("Input should be ")
        raise DatasetError(
            f"{': '.join([where, *_steps(fields)])}: expected {expected}, got {str(error['input'])[:40]!r}"
        ) from None


def without_truth(file: Path) -> str:
    """What to say where truth is asked of a test set's file."""
    return f"{file}: expected annotations, got images only, no list 'annotations'; name a file that has one, or use --predict-only"


def _steps(fields: Sequence[int | str]) -> list[str]:
    """``segments_info``, 3, ``id`` as ["segments_info[3]", "id"]."""
    steps: list[str] = []
    for field in fields:
        if isinstance(field, int) and steps:
            steps[-1] += f"[{field}]"
        elif field not in ("int", "str"):  # the members of a union, which pydantic counts as steps
            steps.append(str(field))
    return steps


def inside(file_name: str, file: Path) -> str:
    """``file_name`` as a relative path that stays inside the image folder; plain texts, for there can be a hundred thousand."""
    path = file_name.replace("\\", "/")
    if not path.strip("./") or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise DatasetError(f"{file}: image file name {file_name!r}: expected a path inside the image folder")
    return path


def examples_of(images: Sequence[ImageRecord], folder: Path, file: Path) -> list[Example]:
    """In the given order; ``source`` is the path of the image file. Raises DatasetError for ids whose files would have one name."""
    refuse_shared_names((i.id for i in images), file)
    return [Example(i.id, (i.height, i.width), os.path.join(folder, inside(i.file_name, file))) for i in images]  # noqa: PTH118


def different_ids(kind: str, items: Sequence[Any], file: Path) -> None:
    ids = [item.id for item in items]
    if len(set(ids)) != len(ids):
        raise DatasetError(f"{file}: expected {kind} of different ids, got {len(ids)} with {len(set(ids))} ids")


def open_image(example: Example, *, exif_rotation: bool) -> NDArray[np.uint8]:
    """The image file that is ``example.source``, uint8 [height, width, 3]; an ImageError where it has another size."""
    image = read_image(Path(example.source), exif_rotation=exif_rotation)
    if image.shape[:2] != example.size:
        raise ImageError(
            f"{example.source}: expected {example.size[1]}x{example.size[0]} pixels as in the annotations, got "
            f"{image.shape[1]}x{image.shape[0]}; it is another file, or its annotations disregard its EXIF rotation "
            f"(then set dataset.exif_rotation: false)"
        )
    return image
