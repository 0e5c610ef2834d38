"""The published datasets' class tables: data (one JSON per label set), in the order in which the original models predict them.

Sources: the datasets' own class lists as the original code registers them (facebookresearch/Mask2Former 9b0651c, detectron2
02b5c4e). ``id`` is the dataset's own: COCO category ids, Cityscapes label ids, ADE20K's label PNG values (1..150) and, for its
instance task, instance category ids, Mapillary's panoptic ids (its label PNGs count from 0).
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from m2fbench.types import Category

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class LabelSet:
    """classes: in contiguous model order. ids: the dataset's own id of each."""

    name: str
    title: str
    classes: tuple[Category, ...]
    ids: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.classes)


def label_sets() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


@functools.cache
def label_set(name: str) -> LabelSet:
    """The label set of that name, one of ``label_sets()``."""
    table = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    classes = tuple(Category(entry["name"], entry["thing"]) for entry in table["classes"])
    return LabelSet(name, table["title"], classes, tuple(entry["id"] for entry in table["classes"]))
