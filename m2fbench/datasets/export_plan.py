"""What an export writes of its source: which classes, under which names and numbers, and one image after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import DatasetError
from m2fbench.labels import LabelSet
from m2fbench.registry import near
from m2fbench.types import Category, Dataset, ImageId, LabelMap, PanopticMap


@dataclass(frozen=True)
class Plan:
    """What is written of a source. For each of its ``categories``: ``ids`` in JSON files, ``values`` in label PNGs; None: left out.

    names: the source's class -> the layout's, of those that are written. unlabeled: the value of all other pixels.
    """

    source: str
    categories: tuple[Category, ...]
    names: Mapping[str, str]
    ids: tuple[int | None, ...]
    values: tuple[int | None, ...]
    unlabeled: int

    def label_png(self, semantic: LabelMap) -> NDArray[np.uint16]:
        """Contiguous indices of the source as the layout's values, [H, W]."""
        table = np.full(np.iinfo(semantic.dtype).max + 1, self.unlabeled, np.uint16)
        table[: len(self.values)] = [self.unlabeled if value is None else value for value in self.values]
        return table[semantic]

    def written(self) -> dict[int, Category]:
        """The categories that are written, under the layout's names, by id."""
        kept = [(i, c) for i, c in zip(self.ids, self.categories, strict=True) if i is not None]
        return {i: Category(self.names[c.name], c.is_thing) for i, c in sorted(kept, key=lambda pair: pair[0])}


@dataclass(frozen=True)
class Shot:
    """One image, its truth in the source's categories, and the id it gets. source: what it was, for messages."""

    image_id: ImageId
    source: str
    image: NDArray[np.uint8]
    panoptic: PanopticMap
    semantic: LabelMap


def _chosen(source: Dataset, names: Mapping[str, str] | None, known: Sequence[str] | None) -> dict[str, str]:
    """The source's class -> the layout's, checked. known: the layout's classes, None where it takes any."""
    own = [c.name for c in source.categories]
    if names is None:
        names = {name: name for name in own if known is None or name in known}
    for name in names:
        if name not in own:
            raise DatasetError(f"classes: expected names of {source.name} classes, got '{name}'{near(name, own)}")
    for name, other in names.items():
        if known is not None and other not in known:
            raise DatasetError(f"classes: {name}: expected a class of the layout, got '{other}'{near(other, known)}")
    if not names or len(set(names.values())) != len(names):
        raise DatasetError(f"classes: expected classes of {source.name}, each with a name of its own, got {dict(names) or 'none'}")
    return {name: names[name] for name in own if name in names}


def plan_by_table(
    source: Dataset, names: Mapping[str, str] | None, table: LabelSet, value_of: Callable[[int], int], unlabeled: int
) -> Plan:
    """A plan by a label set: things must stay things, and stuff stuff."""
    chosen = _chosen(source, names, table.names)
    ids: list[int | None] = []
    for category in source.categories:
        index = table.names.index(chosen[category.name]) if category.name in chosen else None
        if index is not None and table.classes[index].is_thing != category.is_thing:
            kinds = ("things", "stuff") if category.is_thing else ("stuff", "things")
            raise DatasetError(f"classes: {category.name} are {kinds[0]}, and {table.names[index]} of {table.title} are {kinds[1]}")
        ids.append(None if index is None else table.ids[index])
    values = tuple(None if i is None else value_of(i) for i in ids)
    return Plan(source.name, source.categories, chosen, tuple(ids), values, unlabeled)


def plan_of_own_classes(source: Dataset, names: Mapping[str, str] | None) -> Plan:
    """A plan for layouts that take any classes: ids as the source has them, values from 0."""
    chosen = _chosen(source, names, None)
    kept = [c.name in chosen for c in source.categories]
    ids = tuple(i if k else None for i, k in zip(source.category_ids, kept, strict=True))
    values = tuple(n if k else None for n, k in enumerate(kept))
    return Plan(source.name, source.categories, chosen, ids, values, 255 if len(kept) <= 255 else 65535)


def plan_of_mapillary_2_0(source: Dataset, names: Mapping[str, str] | None) -> Plan:
    """Label 0 is one that is not evaluated, as some are in the real config; the last is unlabelled."""
    chosen = _chosen(source, names, None)
    numbers = iter(range(1, len(chosen) + 1))
    values = tuple(next(numbers) if c.name in chosen else None for c in source.categories)
    ids = tuple(None if v is None else v + 1 for v in values)
    return Plan(source.name, source.categories, chosen, ids, values, len(chosen) + 1)
