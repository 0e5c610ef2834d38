"""COCO's run-length encoding, checked: evaluators take a damaged one for some other mask and say nothing.

Convention: ``rleFrString`` of pycocotools' maskApi: column by column, runs of 0 first; in the compressed form six bits a
character, and from the fourth run on the difference from the run two before.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from m2fbench.types import Size

BATCH = 8000  # encodings decoded at once

Ints = NDArray[np.int64]


def decode_counts(counts: Sequence[str]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Run lengths of many compressed encodings at once.

    Returns the lengths, all in a row int64 [R]; how many each encoding has, int64 [N]; and which encodings contain anything
    that is no run length, bool [N] (their lengths mean nothing).
    """
    sizes = np.array([len(text) for text in counts], np.int64)
    digits = np.frombuffer("".join(counts).encode("latin-1", "replace"), np.uint8) - np.uint8(48)  # below 48 wraps past 63
    ends, filled = np.cumsum(sizes) - 1, sizes > 0
    owner = np.repeat(np.arange(len(counts), dtype=np.int32), sizes)
    broken = np.zeros(len(counts), bool)
    broken[owner[digits > 63]] = True
    final = digits & 32 == 0  # the last character of each number
    broken[filled] |= ~final[ends[filled]]
    final[ends[filled]] = True
    last = np.flatnonzero(final)
    width = np.diff(last, prepend=-1)
    broken[owner[last[width > 7]]] = True  # more than any image has pixels
    values = (digits[last] & 31).astype(np.int64)
    values -= (values & 16) << 1  # two's complement
    for more in range(1, min(int(width.max(initial=0)), 7)):  # most numbers are of one character
        longer = width > more
        values[longer] = (values[longer] << 5) + (digits[last[longer] - more] & 31)
    per_mask = np.bincount(owner[last], minlength=len(counts))
    return _undo_differences(values, per_mask), per_mask, broken


def _undo_differences(values: Ints, per_mask: Ints) -> Ints:
    """From the fourth number of each mask on, add the one two before: a running sum over every other number, first one aside."""
    begins = np.cumsum(per_mask) - per_mask
    odd = (np.arange(len(values)) - np.repeat(begins, per_mask)) & 1 == 1
    even = ~odd
    even[begins[per_mask > 0]] = False
    lengths = values.copy()
    for chosen, each in ((odd, per_mask // 2), (even, (per_mask - 1).clip(0) // 2)):
        sums = np.cumsum(values[chosen])
        head = np.cumsum(each) - each  # where each mask's numbers begin
        before = np.where(head > 0, sums[head - 1] if len(sums) else 0, 0)
        lengths[chosen] = sums - np.repeat(before, each)
    return lengths


def segmentation_problems(masks: Iterable[tuple[object, Size]]) -> Iterator[str | None]:
    """For each (segmentation, size of its image): what is wrong with it, RLE or polygons; None where nothing is."""
    remaining = iter(masks)
    while batch := list(islice(remaining, BATCH)):
        problems = [_form_problem(segmentation, size) for segmentation, size in batch]
        compressed = [
            k for k, (s, _) in enumerate(batch) if problems[k] is None and isinstance(s, dict) and isinstance(s["counts"], str)
        ]
        if compressed:
            lengths, per_mask, broken = decode_counts([batch[k][0]["counts"] for k in compressed])  # type: ignore[index]
            owner = np.repeat(np.arange(len(compressed)), per_mask)
            total = np.bincount(owner, lengths, len(compressed))
            negative = np.bincount(owner, lengths < 0, len(compressed))
            pixels = np.array([batch[k][1][0] * batch[k][1][1] for k in compressed])
            for n in np.flatnonzero(broken | (negative > 0) | (total != pixels)):
                problems[compressed[n]] = (
                    "not a run-length encoding" if broken[n] else _sum_problem(batch[compressed[n]][1], total[n])
                )
        yield from problems


def _form_problem(segmentation: object, size: Size) -> str | None:
    """Everything but the lengths of compressed runs."""
    if isinstance(segmentation, list) and segmentation:
        return next(filter(None, map(_polygon_problem, segmentation)), None)
    if not isinstance(segmentation, dict):
        return f"expected a run-length encoding or polygons, got {str(segmentation)[:40]!r}"
    if segmentation.get("size") != list(size):
        return f"expected an encoding of size {list(size)} (height, width), got {segmentation.get('size')!r}"
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return None
    if not isinstance(counts, list) or not all(type(c) is int for c in counts):
        return f"expected run lengths as text or whole numbers, got {str(counts)[:40]!r}"
    return None if min(counts, default=0) >= 0 and sum(counts) == size[0] * size[1] else _sum_problem(size, sum(counts))


def _sum_problem(size: Size, total: float) -> str:
    return f"expected run lengths, none negative, that add up to {size[0]} x {size[1]} pixels, got {total:.0f}"


def _polygon_problem(polygon: object) -> str | None:
    if not isinstance(polygon, list) or len(polygon) < 4 or len(polygon) % 2:
        return f"expected polygons of x, y pairs, got {str(polygon)[:40]!r}"
    if not {type(v) for v in polygon} <= {int, float} or not math.isfinite(math.fsum(polygon)):
        return f"expected finite coordinates, got {str(polygon)[:40]!r}"
    return None


def compressed(segmentation: Any, size: Size) -> str:
    """Compressed run lengths of a mask in any form that COCO allows: as they stand, uncompressed, or polygons.

    Raises ValueError where it is of another size.
    """
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != list(size):
            raise ValueError(f"expected an encoding of size {list(size)} (height, width), got {segmentation['size']}")
        if isinstance(segmentation["counts"], str):
            return segmentation["counts"]
    import hotcoco.mask

    rles = hotcoco.mask.frPyObjects(segmentation, *size)
    return cast(bytes, (hotcoco.mask.merge(rles) if isinstance(rles, list) else rles)["counts"]).decode()
