"""The published datasets' class tables: data (one JSON per label set), in the order in which the original models predict them.

Sources: the datasets' own class lists as the original code registers them (facebookresearch/Mask2Former 9b0651c, detectron2
02b5c4e). ``id`` is the dataset's own: COCO category ids, Cityscapes label ids, ADE20K's label PNG values (1..150) and, for its
instance task, instance category ids, Mapillary's panoptic ids (its label PNGs count from 0).
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from m2fbench.errors import SuiteError, shown
from m2fbench.registry import near
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


def select(labels: LabelSet, classes: Mapping[str, str] | None) -> LabelSet:
    """Only the classes that ``classes`` lists, under the names that it gives them; all of them where it is None.

    classes: the dataset's name of a class, or the first of its synonyms ("person" of "person, individual") -> the name by which
    a checkpoint knows it. Order and ids stay the dataset's. Raises SuiteError where a name is not one class of ``labels``, and
    where two classes are given one name.
    """
    if classes is None:
        return labels
    renamed: dict[int, str] = {}
    for key, name in classes.items():
        index = _index(labels, key)
        if index in renamed:
            raise SuiteError(f"dataset.classes: expected every class once, got '{labels.names[index]}' twice, as '{key}' again")
        if not name or name in renamed.values():
            raise SuiteError(f"dataset.classes: expected a name of its own for every class, got '{name}' for '{key}'")
        renamed[index] = name
    if not renamed:
        raise SuiteError("dataset.classes: expected at least one class, got none; leave the key out for all of them")
    kept = sorted(renamed)
    return replace(
        labels,
        classes=tuple(replace(labels.classes[index], name=renamed[index]) for index in kept),
        ids=tuple(labels.ids[index] for index in kept),
    )


def _index(labels: LabelSet, key: str) -> int:
    """The index of the class named ``key``, else of the only one whose first synonym that is."""
    names = labels.names
    short = [name.partition(",")[0].strip() for name in names]
    for known in (names, short):
        found = [index for index, name in enumerate(known) if name == key]
        if len(found) == 1:
            return found[0]
    raise SuiteError(
        f"dataset.classes: expected names of {labels.title} classes, got '{shown(key)}'{near(key, dict.fromkeys([*names, *short]))}"
    )
