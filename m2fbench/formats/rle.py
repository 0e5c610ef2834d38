"""COCO's run-length encoding, checked: evaluators take a damaged one for some other mask and say nothing.

Convention: ``rleFrString`` of pycocotools' maskApi: column by column, runs of 0 first; in the compressed form six bits a
character, and from the fourth run on the difference from the run two before.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from m2fbench.types import Size


def run_lengths(counts: str | Sequence[int]) -> NDArray[np.int64]:
    """Lengths of the runs, compressed text or plain numbers. Raises ValueError for what is neither."""
    if not isinstance(counts, str):
        return np.array(counts, np.int64)
    if not counts:
        return np.zeros(0, np.int64)
    digits = np.frombuffer(counts.encode("latin-1", "replace"), np.uint8).astype(np.int64) - 48
    if digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("characters that are no run lengths")
    last = np.flatnonzero(digits & 32 == 0)  # the last character of each number
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 6:
        raise ValueError("a run length beyond any image")
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, 1 << (5 * (last - first + 1)), 0)  # two's complement
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def segmentation_problem(segmentation: object, size: Size) -> str | None:
    """What is wrong with a mask, RLE or polygons, of an image of ``size``; None where nothing is."""
    if isinstance(segmentation, dict):
        return _rle_problem(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        return f"expected a run-length encoding or polygons, got {str(segmentation)[:40]!r}"
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 4 or len(polygon) % 2:
            return f"expected polygons of x, y pairs, got {str(polygon)[:40]!r}"
        if not all(type(v) in (int, float) and math.isfinite(v) for v in polygon):
            return f"expected finite coordinates, got {str(polygon)[:40]!r}"
    return None


def _rle_problem(rle: dict[str, object], size: Size) -> str | None:
    if rle.get("size") != list(size):
        return f"expected an encoding of size {list(size)} (height, width), got {rle.get('size')!r}"
    counts = rle.get("counts")
    if not isinstance(counts, str) and not (isinstance(counts, list) and all(type(c) is int for c in counts)):
        return f"expected run lengths as text or whole numbers, got {str(counts)[:40]!r}"
    try:
        lengths = run_lengths(counts)
    except (ValueError, OverflowError) as error:
        return f"not a run-length encoding: {error}"
    if (lengths < 0).any() or int(lengths.sum()) != size[0] * size[1]:
        return f"expected run lengths that add up to {size[0]} x {size[1]} pixels, got {int(lengths.sum())}"
    return None
