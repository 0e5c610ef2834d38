"""How far pixels are from the nearest boundary between two classes of a label map.

A pixel lies at a boundary (distance 1) if one of its 8 neighbours is of another class; where either of the two is ignored there is no
boundary. Distances are chessboard distances in pixels, so a pixel k - 1 steps from one at a boundary is at distance k.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from m2fbench.types import LabelMap, Size

Bools = NDArray[np.bool_]

BAND = 0.005
"""How wide the boundary band is on each side, as a share of the image's diagonal: 4 pixels at 640x480, 11 at 2048x1024. Wide enough for
what annotators and masks predicted at a quarter of the resolution leave open; at Boundary IoU's 0.02 (arXiv 2103.16562), which is made for
single objects, the bands of a scene's classes would leave little inside."""

PROFILE = (0.00125, 0.0025, BAND, 0.01, 0.02, 0.04, 0.08)
"""Distances at which accuracy is told, as shares of the diagonal; each step is twice the last."""


def band_width(size: Size) -> int:
    """``BAND`` of the diagonal in whole pixels, at least 1."""
    return max(1, int(BAND * math.hypot(*size) + 0.5))


def profile_distances(size: Size) -> list[int]:
    """The distances in whole pixels that are no further than each of ``PROFILE``; 0 where not even one is."""
    return [int(share * math.hypot(*size)) for share in PROFILE]


def at_boundary(labels: LabelMap) -> Bools:
    """bool [H, W], the pixels at distance 1."""
    labelled = labels != np.iinfo(labels.dtype).max
    found = np.zeros(labels.shape, bool)
    every, head, tail = slice(None), slice(None, -1), slice(1, None)
    for one, other in (
        ((every, head), (every, tail)), ((head, every), (tail, every)), ((head, head), (tail, tail)), ((head, tail), (tail, head)),
    ):  # fmt: skip
        differs = (labels[one] != labels[other]) & labelled[one] & labelled[other]
        found[one] |= differs
        found[other] |= differs
    return found


def dilated(mask: Bools, radius: int) -> Bools:
    """bool [H, W], the pixels within ``radius`` of one of ``mask``, chessboard; each step reaches about twice as far as the last."""
    found, reach = mask, 0
    while reach < radius:
        step = min(reach + 1, radius - reach)  # no further, or the map's edge would cut off what goes round it
        wide = found.copy()
        wide[:, step:] |= found[:, :-step]
        wide[:, :-step] |= found[:, step:]
        found = wide.copy()
        found[step:] |= wide[:-step]
        found[:-step] |= wide[step:]
        reach += step
    return found


def within(labels: LabelMap, distances: Iterable[int]) -> dict[int, Bools]:
    """For each distance the pixels [H, W] that are no further from a boundary, ignored ones among them; at 0 there are none."""
    found, reached = at_boundary(labels), 1
    masks = {}
    for far in sorted(set(distances)):
        if far:
            found, reached = dilated(found, far - reached), far
        masks[far] = found if far else np.zeros(labels.shape, bool)
    return masks
