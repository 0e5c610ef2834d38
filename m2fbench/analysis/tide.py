"""TIDE's classes of error, prediction by prediction, and what mending each kind would gain in every class.

Convention: Bolya et al., TIDE (ECCV 2020) and its package ``tidecv``; ``instance_errors`` says what each kind is. hotcoco's ``tide_errors``
gives the same where there are no crowd regions, which it takes for instances that a prediction may be near to; and it gives no classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2fbench.metrics.coco_statistics import RECALL_THRESHOLDS
from m2fbench.metrics.instance_matching import EXCUSED, RIGHT, InstancePairs

FOUND, BACKGROUND = 0.5, 0.1
"""IoU from which on a prediction finds an instance, and up to which it means nothing of it."""

WRONG = ("Loc", "Cls", "Dupe", "Bkg", "Both")
"""Kinds of wrong predictions: each is of the first that holds."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Errors:
    """What every prediction of ``InstancePairs`` is at an IoU of 0.5. kind: index into ``WRONG``, -1 for none, [D]. right: bool [D]. mended:
    the true instance that it would find, were its error mended, -1 for none, [D]. found, missed: which true instances are, and which no
    mended prediction would find either, bool [G]; crowd regions are neither."""

    kind: Ints
    right: Bools
    mended: Ints
    found: Bools
    missed: Bools


def errors_of(pairs: InstancePairs, near: tuple[Ints, Ints, Floats]) -> Errors:
    """near: all pairs of any class with an IoU of ``BACKGROUND`` or more, see ``instance_matching.overlaps``."""
    outcomes, taken = pairs.match(pairs.crowd[None])
    outcome = np.zeros(len(pairs.found), np.int8)
    outcome[pairs.candidates] = outcomes[0, 0]
    found = taken[0, 0] & ~pairs.crowd
    own = pairs.found.category[near[0]] == pairs.truth.category[near[1]]
    of_own, own_iou = _nearest(near, own, len(outcome))
    of_other, other_iou = _nearest(near, ~own, len(outcome))
    _, found_iou = _nearest(near, own & found[near[1]], len(outcome))
    holds = [
        (own_iou >= BACKGROUND) & (own_iou <= FOUND),
        other_iou >= FOUND,
        found_iou >= FOUND,
        np.maximum(own_iou, other_iou) <= BACKGROUND,
    ]
    kind = np.select(holds, range(len(holds)), len(holds))
    kind[(outcome == RIGHT) | (outcome == EXCUSED)] = -1
    meant = np.select([kind == WRONG.index("Loc"), kind == WRONG.index("Cls")], [of_own, of_other], -1)
    meaning = np.flatnonzero(meant >= 0)
    meant[meaning[found[meant[meaning]]]] = -1
    by_score = np.argsort(-pairs.score, kind="stable")
    claims = by_score[meant[by_score] >= 0]
    claimed, first = np.unique(meant[claims], return_index=True)
    mended = np.full(len(outcome), -1)
    mended[claims[first]] = claimed
    missed = ~found & ~pairs.crowd
    missed[claimed] = False
    return Errors(kind, outcome == RIGHT, mended, found, missed)


def _nearest(near: tuple[Ints, Ints, Floats], chosen: Bools, count: int) -> tuple[Ints, Floats]:
    """Of each prediction the true instance with the greatest IoU among the ``chosen`` pairs, of equals the first, and that IoU; -1 and 0 for
    none."""
    ours, theirs, iou = (part[chosen] for part in near)
    order = np.lexsort((-theirs, iou))  # what is written last stays
    truth, greatest = np.full(count, -1), np.zeros(count)
    truth[ours[order]], greatest[ours[order]] = theirs[order], iou[order]
    return truth, greatest


def counts(errors: Errors, crowd: Bools) -> dict[str, float]:
    """How many errors there are of each kind."""
    found = {name: float((errors.kind == k).sum()) for k, name in enumerate(WRONG)}
    unfound = float((~errors.found & ~crowd).sum())
    return {**found, "Miss": float(errors.missed.sum()), "FP": sum(found.values()), "FN": unfound}


def mended_by_class(pairs: InstancePairs, errors: Errors) -> dict[str, dict[str, float]]:
    """AP50 in percent of each class with truth, as it is under "" and with all errors of a kind mended, in any class, under the kind's name;
    NaN where no truth is left."""
    truths = np.bincount(pairs.truth.category[~pairs.crowd], minlength=len(pairs.categories))
    return {name: _mended(pairs, errors, k) for k, name in enumerate(pairs.categories) if truths[k]}


def _mended(pairs: InstancePairs, errors: Errors, k: int) -> dict[str, float]:
    of_class = pairs.found.category == k
    single = (pairs.truth.category == k) & ~pairs.crowd
    truths = int(single.sum())
    counted = of_class & (errors.right | (errors.kind >= 0))
    moves = (errors.mended >= 0) & (pairs.truth.category[errors.mended] == k)

    def score(chosen: Bools, right: Bools, truths: int) -> float:
        order = np.flatnonzero(chosen)
        order = order[np.argsort(-pairs.score[order], kind="stable")]
        return 100 * average_precision(right[order], truths)

    found = {"": score(counted, errors.right, truths)}
    for number, name in enumerate(WRONG):
        of_kind = errors.kind == number
        moved = of_kind & moves
        found[name] = score(counted & ~of_kind | moved, errors.right | moved, truths)
    found["Miss"] = score(counted, errors.right, truths - int(errors.missed[single].sum()))
    found["FP"] = score(of_class & errors.right, errors.right, truths)
    found["FN"] = score(counted, errors.right, int(errors.found[single].sum()))
    return found


def average_precision(right: Bools, truths: int) -> float:
    """COCO's, 0..1, of predictions best first; NaN without truth."""
    if not truths:
        return float("nan")
    hits = np.flatnonzero(right)
    if not len(hits):
        return 0.0
    number = np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate((number / (hits + 1))[::-1])[::-1]
    passed = np.searchsorted(RECALL_THRESHOLDS, number / truths, "right")
    return float((envelope * np.diff(passed, prepend=0)).sum() / len(RECALL_THRESHOLDS))
