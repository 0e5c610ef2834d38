"""Panoptic and instance truth of ADE20K from its official label files: pure functions on arrays.

Convention: what the original code's preparation makes (facebookresearch/Mask2Former 9b0651c, datasets/prepare_ade20k_pan_seg.py
and prepare_ade20k_ins_seg.py): stuff from the semantic labels first, in ascending class, then the instances over it, in ascending
number; pixels of things without an instance stay void. A stuff segment keeps the area and the box that it had before things were
pasted over it, even where nothing of it is left: panopticapi counts by that area. Category ids are 0..149 in both kinds of truth.

A segment's id is its colour in the PNG: the class's own for stuff and for the first instance of a thing, a random one near it for
further instances. Here the random numbers begin anew with every image, so that the same files always give the same ids.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2fbench.labels import label_set
from m2fbench.types import JsonObject

CLASSES = 150  # values of the semantic labels; 0 is unlabelled
INSTANCE_CLASSES = 100  # values of an instance map's first channel where its second is not 0
COLOR_SPREAD = 30  # how far the colour of a further instance may lie from its class's, in each channel

Labels = NDArray[np.uint8]
"""[H, W]: 0 unlabelled, 1..150 a class."""
InstanceLabels = NDArray[np.uint8]
"""[H, W, 3]: 1..100 the class, then the instance's number in the image, 0 for none; the third channel means nothing."""


@dataclass(frozen=True)
class Runs:
    """A label map column by column, as runs of one value: value uint8 [R], start and length int64 [R]; size (H, W)."""

    value: NDArray[np.uint8]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    size: tuple[int, int]

    @classmethod
    def of(cls, labels: NDArray[np.uint8]) -> "Runs":
        flat = labels.ravel(order="F")
        start = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        return cls(flat[start], start, np.diff(start, append=flat.size), (labels.shape[0], labels.shape[1]))

    def areas(self) -> NDArray[np.int64]:
        """Pixels of every value, int64 [256]."""
        return np.bincount(self.value, self.length, 256).astype(np.int64)

    def boxes(self) -> NDArray[np.int64]:
        """x, y, width and height of every value, int64 [256, 4]; without meaning for values that do not occur."""
        height, last = self.size[0], self.start + self.length - 1
        over = self.start // height != last // height  # a run that goes on in the next column reaches both borders
        low, high = np.full((256, 2), np.iinfo(np.int64).max // 2), np.full((256, 2), -1)
        np.minimum.at(low[:, 0], self.value, self.start // height)
        np.minimum.at(low[:, 1], self.value, np.where(over, 0, self.start % height))
        np.maximum.at(high[:, 0], self.value, last // height)
        np.maximum.at(high[:, 1], self.value, np.where(over, height - 1, last % height))
        return np.concatenate([low, high - low + 1], axis=1)

    def counts(self, value: int) -> list[int]:
        """COCO's run lengths of one value's mask: zeros first, then in turn; no final run of zeros after the last."""
        mine = self.value == value
        start, length = self.start[mine], self.length[mine]
        gaps = start - np.concatenate(([0], (start + length)[:-1]))
        lengths = np.stack([gaps, length], axis=1).ravel().tolist()
        rest = self.size[0] * self.size[1] - int(start[-1] + length[-1])
        return [*lengths, rest] if rest else lengths


def labels_problem(labels: Labels) -> str | None:
    """What is wrong with semantic labels, None where nothing is."""
    highest = int(labels.max(initial=0))
    return None if highest <= CLASSES else f"expected values 0 (unlabelled) to {CLASSES}, got {highest}"


def instances_problem(labels: InstanceLabels) -> str | None:
    """What is wrong with an instance map, None where nothing is."""
    classes, numbers = _instances(labels)
    for place, (value, number) in enumerate(zip(classes, numbers, strict=True)):
        if not 1 <= value <= INSTANCE_CLASSES:
            return f"instance {number}: expected a class of 1 to {INSTANCE_CLASSES} in the first channel, got {value}"
        if place and number == numbers[place - 1]:
            return f"instance {number}: expected one class in the first channel, got {classes[place - 1]} and {value}"
    return None


def panoptic(labels: Labels, instances: InstanceLabels) -> tuple[NDArray[np.int32], list[JsonObject]]:
    """Segment ids, int32 [H, W], 0 = void; and the segments as COCO's panoptic JSON has them. Both maps must be without problems."""
    stuff, things = Runs.of(labels), Runs.of(instances[..., 1])
    is_thing, thing_ids = _is_thing(), label_set("ade20k_instance").ids
    classes, numbers = _instances(instances)
    values = [value for value in np.unique(stuff.value).tolist() if value and not is_thing[value - 1]]
    categories = [value - 1 for value in values] + [thing_ids[value - 1] for value in classes]
    ids = _segment_ids(categories)
    of_stuff, of_things = np.zeros(256, np.int32), np.zeros(256, np.int32)
    of_stuff[values], of_things[numbers] = ids[: len(values)], ids[len(values) :]
    ids_map = np.where(instances[..., 1] > 0, of_things[instances[..., 1]], of_stuff[labels])
    areas = [*stuff.areas()[values].tolist(), *things.areas()[numbers].tolist()]
    boxes = [*stuff.boxes()[values].tolist(), *things.boxes()[numbers].tolist()]
    segments = [
        {"id": segment, "category_id": category, "area": area, "bbox": box, "iscrowd": 0}
        for segment, category, area, box in zip(ids, categories, areas, boxes, strict=True)
    ]
    return ids_map, segments


def annotations(image_id: str, instances: InstanceLabels) -> list[JsonObject]:
    """The instances as COCO annotations but for their ids, in ascending number. The map must be without problems."""
    import hotcoco.mask

    runs, thing_ids = Runs.of(instances[..., 1]), label_set("ade20k_instance").ids
    areas, boxes = runs.areas(), runs.boxes()
    found = []
    for value, number in zip(*_instances(instances), strict=True):
        rle = hotcoco.mask.frPyObjects({"size": list(runs.size), "counts": runs.counts(number)}, *runs.size)
        found.append({
            "image_id": image_id, "iscrowd": 0, "category_id": thing_ids[value - 1], "bbox": boxes[number].tolist(),
            "segmentation": {"size": list(runs.size), "counts": rle["counts"].decode("ascii")}, "area": int(areas[number]),
        })  # fmt: skip
    return found


def _instances(labels: InstanceLabels) -> tuple[list[int], list[int]]:
    """The pairs of class and number that occur where the number is not 0, in ascending number, then class."""
    pairs = np.flatnonzero(np.bincount((labels[..., 1].astype(np.int32) * 256 + labels[..., 0]).ravel(), minlength=65536)[256:])
    return (pairs % 256).tolist(), (pairs // 256 + 1).tolist()


@functools.cache
def colors() -> list[list[int]]:
    """ADE20K's own colour of every class, R, G, B of 0..255."""
    table: list[list[int]] = json.loads((Path(__file__).parent / "ade20k_colors.json").read_text(encoding="ascii"))
    return table


@functools.cache
def _is_thing() -> tuple[bool, ...]:
    return tuple(category.is_thing for category in label_set("ade20k").classes)


def _segment_ids(categories: Sequence[int]) -> list[int]:
    """An id for each segment of an image: R + 256 G + 65536 B of a colour that no other has."""
    random: np.random.RandomState | None = None
    taken = {tuple(color) for color, is_thing in zip(colors(), _is_thing(), strict=True) if not is_thing}
    ids = []
    for category in categories:
        own = color = tuple(colors()[category])
        if _is_thing()[category]:
            while color in taken:
                random = random or np.random.RandomState(0)
                near = random.randint(-COLOR_SPREAD, COLOR_SPREAD + 1, size=3)
                color = tuple((own + near).clip(0, 255).tolist())
            taken.add(color)
        ids.append(color[0] + 256 * color[1] + 65536 * color[2])
    return ids
