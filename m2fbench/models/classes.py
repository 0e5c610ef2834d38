"""Which class of the dataset each class of a checkpoint is."""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2fbench.errors import ClassesError
from m2fbench.types import Category


@dataclass(frozen=True)
class ClassMap:
    """to_dataset: for each class of the checkpoint the dataset's category index, or -1 where it has none (a stuff class,
    where the dataset has things only).

    panoptic: the checkpoint has classes that the dataset has not. warnings: what a reader of the result should know.
    """

    to_dataset: tuple[int, ...]
    panoptic: bool
    warnings: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[int, ...]:
        """The checkpoint's classes that the dataset has, ascending."""
        return tuple(index for index, category in enumerate(self.to_dataset) if category >= 0)


def _aliases() -> dict[str, str]:
    table = json.loads((Path(__file__).parent / "class_aliases.json").read_text())
    return {_plain(other): _plain(name) for name, others in table.items() for other in others}


def _plain(name: str) -> str:
    """Letters and digits only, of any script, in one case."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def _comparable(names: Sequence[str]) -> Callable[[str], str]:
    """What to compare names by: their plain form, or themselves where that would take two for one ("C" and "C++")."""
    plain = [_plain(name) for name in names]
    return _plain if "" not in plain and len(set(plain)) == len(plain) else str


def match_classes(labels: Sequence[str], categories: Sequence[Category]) -> ClassMap:
    """Match a checkpoint's class names with a dataset's categories.

    By name (case, blanks and punctuation aside, then by the alias table) where every category is found; classes beyond those
    are left out, as a panoptic checkpoint's stuff is where all categories are things. Else by position, with a warning, where the
    counts are equal and no name stands at another place: when at least half of the names agree, or the checkpoint has only
    transformers' default names. Everything else raises ClassesError saying what differs: a wrong match would silently measure
    nonsense.
    """
    aliases = _aliases()
    key = _comparable([c.name for c in categories])
    names = [key(c.name) for c in categories]
    folded = [name if name in names else aliases.get(name, name) for name in map(key, labels)]
    targets = {name: index for index, name in enumerate(names)}
    found = [targets.get(name, -1) for name in folded]
    matched = [index for index in found if index >= 0]
    if len(set(matched)) == len(names) and len(matched) == len(names):
        moved = len(found) == len(names) and found != sorted(found)
        extra = [label for label, index in zip(labels, found, strict=True) if index < 0]
        notes = []
        if moved:
            notes.append("the checkpoint lists the dataset's classes in another order; they were matched by name")
        if extra:
            things = ", as a panoptic checkpoint on its things" if all(c.is_thing for c in categories) else ""
            notes.append(f"scored on the dataset's classes only{things}; the others are {_some(extra)}")
        return ClassMap(tuple(found), bool(extra), tuple(notes))
    return _by_position(labels, categories, found)


def _by_position(labels: Sequence[str], categories: Sequence[Category], found: list[int]) -> ClassMap:
    count = len(categories)
    default = all(re.fullmatch(r"LABEL_\d+", label) for label in labels)
    in_place = sum(index == place for place, index in enumerate(found))
    elsewhere = [place for place, index in enumerate(found) if index >= 0 and index != place]
    if len(labels) == count and not elsewhere and (default or 2 * in_place >= count):
        differing = [f"{label!r} for {c.name!r}" for label, c, i in zip(labels, categories, found, strict=True) if i < 0]
        what = "the checkpoint names no classes" if default else f"names that differ: {_some(differing)}"
        return ClassMap(tuple(range(count)), False, (f"classes were matched by position; {what}",))
    missing = [c.name for index, c in enumerate(categories) if index not in found]
    unknown = [label for label, index in zip(labels, found, strict=True) if index < 0]
    if len(labels) == count and elsewhere:
        order = [f"{labels[place]!r} is class {place}, in the dataset {found[place]}" for place in elsewhere]
        what = f"another order and other names: {_some(order)}; not in the checkpoint: {_some(missing)}"
    else:
        what = f"not in the checkpoint: {_some(missing)}; only in the checkpoint: {_some(unknown)}"
    remedy = ", or name its classes with --labels" if default or len(labels) == count else ""
    raise ClassesError(
        f"the checkpoint's {len(labels)} classes are not the dataset's {count}: {what}; run a suite of the dataset it was trained on{remedy}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
