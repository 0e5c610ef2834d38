"""By which properties objects are divided. Both ends of a range belong to it, as of COCO's area ranges."""

from dataclasses import dataclass

import numpy as np

from m2fbench.types import ObjectSubset

ANY_AREA = 1e10  # COCO's

CONVENTION = (
    "Objects are instances and segments of things, and connected regions of one class in semantic truth. Of a part of the objects true ones "
    "outside it are ignored, and so are unmatched predictions outside it (COCO's rule for areas); an object on the edge of two sizes is in both. "
    "Where no prediction can be told to be inside (occlusion, crowds, regions) the figures are of recall alone."
)
"""What figures over some of the objects are, for readers."""

_ABOVE_0, _ABOVE_QUARTER = float(np.nextafter(0, 1)), float(np.nextafter(0.25, 1))


@dataclass(frozen=True)
class ObjectRange:
    """A part of the objects under the names that findings give it."""

    attribute: str
    subset: str
    definition: str
    objects: ObjectSubset


def _areas(attribute: str, sides: tuple[int, ...], names: tuple[str, ...]) -> list[ObjectRange]:
    """Ranges between squares of ``sides``, the last one open."""
    ranges = []
    for name, low, high in zip(names, (0, *sides), (*sides, None), strict=True):
        text = f"at least {low}² pixels" if high is None else f"{low}² to {high}² pixels" if low else f"up to {high}² pixels"
        ranges.append(ObjectRange(attribute, name, text, ObjectSubset("area", low**2, ANY_AREA if high is None else high**2)))
    return ranges


OBJECT_RANGES = (
    *_areas("object size", (32, 96), ("small", "medium", "large")),
    *_areas("object size, finer", (16, 32, 64, 96, 192), ("0-16²", "16²-32²", "32²-64²", "64²-96²", "96²-192²", "192² and up")),
    ObjectRange("position", "inside", "not touching the image's border", ObjectSubset("border", 0, 0)),
    ObjectRange("position", "at the border", "touching the image's border", ObjectSubset("border", 1, 1)),
    ObjectRange("occlusion", "none", "no other true object in its box", ObjectSubset("occlusion", 0, 0)),
    ObjectRange("occlusion", "up to a quarter", "other true objects cover up to a quarter of its box", ObjectSubset("occlusion", _ABOVE_0, 0.25)),
    ObjectRange("occlusion", "more", "other true objects cover more than a quarter of its box", ObjectSubset("occlusion", _ABOVE_QUARTER, 1)),
    ObjectRange("crowd", "no crowd", "no crowd region in its box", ObjectSubset("crowd", 0, 0)),
    ObjectRange("crowd", "crowd", "a crowd region in its box", ObjectSubset("crowd", 1, 1)),
)  # fmt: skip
