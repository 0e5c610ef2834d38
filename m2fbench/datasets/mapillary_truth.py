"""Mapillary Vistas' own files: the config that lists the classes, the panoptic JSON, the instance PNGs. Sources: ``mapillary``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m2fbench.errors import DatasetError, shown
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.panoptic import read_map
from m2fbench.labels import LabelSet
from m2fbench.types import Category, LabelMap, PanopticMap, Segment, Size

T = TypeVar("T", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Label(_Record):
    name: str
    readable: str
    instances: bool
    evaluate: bool


class _Config(_Record):
    labels: Annotated[list[_Label], Field(min_length=1, max_length=256)]


class _Segment(_Record):
    id: Annotated[int, Field(ge=1, lt=256**3)]
    category_id: int
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    iscrowd: Literal[0, 1] | bool = 0


class Annotation(_Record):
    """One image's entry in the panoptic JSON."""

    image_id: str
    segments_info: list[_Segment]


class _Category(_Record):
    id: int
    name: str = ""
    supercategory: str = ""


class _Panoptic(_Record):
    annotations: list[Annotation]
    categories: list[_Category]


def read_config(path: Path) -> tuple[LabelSet, int]:
    """The evaluated classes of a ``config_v2.0.json``, under their readable names and with the ids of the panoptic JSON (label + 1);
    and the number of all labels."""
    config = _read(path, _Config, "the classes of version 2.0; it lies beside 'validation' in the archive of v2.0")
    evaluated = [(index, label) for index, label in enumerate(config.labels) if label.evaluate]
    names = [label.readable for _, label in evaluated]
    if len(set(names)) != len(names):  # the long names tell them apart
        names = [label.name for _, label in evaluated]
    if not evaluated or len(set(names)) != len(names):
        raise DatasetError(f"{path}: expected evaluated classes of different names, got {len(names)} with {len(set(names))} names")
    classes = tuple(Category(name, label.instances) for name, (_, label) in zip(names, evaluated, strict=True))
    table = LabelSet("mapillary_vistas_2.0", "Mapillary Vistas v2.0", classes, tuple(index + 1 for index, _ in evaluated))
    return table, len(config.labels)


def read_annotations(path: Path, known: Mapping[int, str], labels: int) -> dict[str, Annotation]:
    """The annotations of a panoptic JSON by image id, once its category ids are seen to mean what we take them for.

    known: the evaluated classes' names by panoptic id. labels: the number of all labels, evaluated or not.
    """
    with paused_collector():
        document = _read(path, _Panoptic, "the panoptic truth; unpack the archive again")
    for category in document.categories:
        names = {_plain(category.name), _plain(category.supercategory)} - {""}
        expected = known.get(category.id)
        if expected is not None and names and _plain(expected) not in names:
            raise DatasetError(
                f"{path}: expected category {category.id} to be '{expected}', got '{shown(category.name)}'; is it another version's file?"
            )
    for annotation in document.annotations:
        wrong = next((s.category_id for s in annotation.segments_info if not 1 <= s.category_id <= labels), None)
        if wrong is not None:
            where = f"{path}: image {shown(annotation.image_id)}"
            raise DatasetError(f"{where}: expected categories 1 to {labels}, got {wrong}; is it another version's file?")
    by_image = {annotation.image_id: annotation for annotation in document.annotations}
    if len(by_image) != len(document.annotations):
        raise DatasetError(f"{path}: expected one annotation an image, got {len(document.annotations)} of {len(by_image)} images")
    return by_image


def from_panoptic(png: Path, annotation: Annotation, size: Size, category_ids: Sequence[int]) -> PanopticMap:
    """The segments of ``category_ids``; those of other classes are void."""
    index = {category: k for k, category in enumerate(category_ids)}
    everything = tuple(
        Segment(s.id, s.category_id, bool(s.iscrowd), None if s.area is None else round(s.area)) for s in annotation.segments_info
    )
    ids = read_map(png, everything, size, DatasetError).ids
    kept = tuple(Segment(s.id, index[s.category], s.is_crowd, s.area) for s in everything if s.category in index)
    left_out = [s.id for s in everything if s.category not in index]
    if left_out:
        ids[np.isin(ids, left_out)] = 0
    return PanopticMap(ids, kept)


def from_instances(values: LabelMap, label_values: Sequence[int], categories: Sequence[Category]) -> PanopticMap:
    """Segments of an instance PNG, label * 256 + number [H, W]: every value of a thing is one, all of a stuff label are one.

    Segment ids are value + 1, as 0 is the first instance of the first class and no void.
    """
    every = np.arange(65536)
    index = np.full(256, -1)
    index[list(label_values)] = np.arange(len(label_values))
    category = index[every // 256]
    things = np.array([c.is_thing for c in categories])[category]
    table = np.where(category < 0, 0, np.where(things, every, every // 256 * 256) + 1).astype(np.int32)
    ids = table[values]
    found = np.flatnonzero(np.bincount(ids.ravel())).tolist()
    return PanopticMap(ids, tuple(Segment(i, int(index[(i - 1) // 256])) for i in found if i))


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


def _read(path: Path, model: type[T], what: str) -> T:
    try:
        return model.model_validate_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; it holds {what}") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as failure:
        first = failure.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        expected = first["msg"].removeprefix("Input should be ")
        raise DatasetError(f"{path}: {where + ': ' if where else ''}expected {shown(expected)}; it should hold {what}") from None
