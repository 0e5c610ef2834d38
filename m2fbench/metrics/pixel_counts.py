"""Counting the pairs of values that two maps have pixel by pixel, which is what every semantic figure rests on.

Label maps are made of runs, so pairs are counted once a run and not once a pixel, wherever runs are few.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2fbench.types import LabelMap

BLOCK = 1 << 16  # pixels compared at once, so that what a comparison leaves stays in the processor's cache

Counts = NDArray[np.int64]


def pair_counts(first: LabelMap, second: LabelMap) -> Counts:
    """Pixels by value in ``first`` (row) and in ``second`` (column), int64 [256, 256]; both maps are uint8 [H, W]."""
    one, other, lengths = joint_runs(first, second)
    return weighted_counts(one.astype(np.uint16) << 8 | other, lengths, 1 << 16).reshape(256, 256)


def joint_runs(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Counts | None]:
    """The values of both maps [H, W] in every run over which neither changes, and the runs' lengths, all [R]; rows follow on each
    other. Where runs are many: the values of every pixel, and None."""
    one, other = first.ravel(), second.ravel()
    if not len(one):
        return one, other, np.zeros(0, np.int64)
    found, runs = [], 1
    for start in range(0, len(one) - 1, BLOCK):
        stop = min(start + BLOCK, len(one) - 1)
        changes = one[start + 1 : stop + 1] != one[start:stop]
        changes |= other[start + 1 : stop + 1] != other[start:stop]
        found.append(np.flatnonzero(changes) + start)
        runs += len(found[-1])
        if 4 * runs > len(one):
            return one, other, None
    ends = np.append(np.concatenate([np.zeros(0, np.int64), *found]), len(one) - 1)
    return one[ends], other[ends], np.diff(ends, prepend=-1)


def weighted_counts(values: NDArray[Any], lengths: Counts | None, size: int) -> Counts:
    """How many pixels have each value from 0 to ``size`` - 1, from ``joint_runs``' lengths; int64 [size]."""
    if lengths is None:
        return np.bincount(values, minlength=size)
    return np.bincount(values, lengths, size).astype(np.int64)  # sums of whole numbers below 2^53: exact
