"""What of one image's prediction is right: object by object, and pixel by pixel for pictures.

This is for looking at, at one threshold; figures are the metrics' own. Instances: in the order of their scores each takes, of the true
ones that are free and of its class, that of the largest IoU from 0.5 (as COCO's evaluator at that threshold); what is left takes the free
true ones of other classes in the same way, which is a wrong class. What lies by more than half of itself on a crowd region of its class is
ignored. Panoptic: pairs of an IoU above 0.5 as panopticapi has them, right in one class, wrong in two.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.image_evidence import ImageEvidence
from m2fbench.formats.panoptic import run_starts, segment_index
from m2fbench.metrics.panoptic_matching import Matching, match, overlaps
from m2fbench.types import Category, InstanceSet, LabelMap, PanopticMap, Rle

IOU = 0.5
CROWD_SHARE = 0.5

Verdicts = NDArray[np.uint8]


class Verdict(IntEnum):
    """Of a pixel or an object. Where several are true of a pixel the largest stands."""

    NOTHING = 0
    IGNORED = 1
    """The truth says nothing here, or says a crowd."""
    FALSE = 2
    """Predicted where the truth has nothing of the kind."""
    RIGHT = 3
    MISSED = 4
    """In the truth, and not found."""
    WRONG_CLASS = 5


ERRORS = (Verdict.FALSE, Verdict.MISSED, Verdict.WRONG_CLASS)


@dataclass(frozen=True)
class Judgement:
    """pixels: uint8 [H, W], values of Verdict. truth, prediction: of each object, uint8 [T], [P]; empty for semantic maps, which have
    none. partner: int64 [P], the true object that a prediction is matched with, -1 for none."""

    pixels: Verdicts
    truth: Verdicts
    prediction: Verdicts
    partner: NDArray[np.int64]

    @property
    def counts(self) -> dict[Verdict, int]:
        """Objects that are right, false, missed, of a wrong class: of predictions, but those that are missed of truth."""
        found = {v: int((self.prediction == v).sum()) for v in (Verdict.RIGHT, Verdict.FALSE, Verdict.WRONG_CLASS)}
        return found | {Verdict.MISSED: int((self.truth == Verdict.MISSED).sum())}

    @property
    def pixel_counts(self) -> dict[Verdict, int]:
        counts = np.bincount(self.pixels.ravel(), minlength=len(Verdict)).tolist()
        return {verdict: counts[verdict] for verdict in Verdict}


def judge(image: ImageEvidence) -> Judgement:
    """Of all its predictions; take ``image.confident(threshold)`` for instances. It must have truth."""
    truth, prediction = image.truth, image.prediction
    if isinstance(truth, InstanceSet) and isinstance(prediction, InstanceSet):
        return judge_instances(truth, prediction, image.example.size)
    if isinstance(truth, PanopticMap) and isinstance(prediction, PanopticMap):
        return judge_panoptic(truth, prediction, image.categories)
    assert isinstance(truth, np.ndarray)
    assert isinstance(prediction, np.ndarray)
    return judge_semantic(truth, prediction)


def overlaps_of(truth: InstanceSet, prediction: InstanceSet) -> NDArray[np.float64]:
    """Intersection over union, [P, T]; over a crowd's column the share of the prediction that lies on it."""
    import hotcoco.mask

    if not len(truth) or not len(prediction):
        return np.zeros((len(prediction), len(truth)))
    crowd = truth.is_crowd.tolist() if len(truth.is_crowd) else [False] * len(truth)
    return np.asarray(hotcoco.mask.iou(list(prediction.rles), list(truth.rles), crowd), np.float64)


def match_instances(truth: InstanceSet, prediction: InstanceSet) -> tuple[Verdicts, Verdicts, NDArray[np.int64]]:
    """``truth``, ``prediction`` and ``partner`` of the judgement. prediction: in the order in which it chooses."""
    iou = overlaps_of(truth, prediction)
    crowd = truth.is_crowd if len(truth.is_crowd) else np.zeros(len(truth), bool)
    same = prediction.categories[:, None] == truth.categories[None, :]
    partner = np.full(len(prediction), -1, np.int64)
    free = ~crowd
    for allowed in (same, ~same):
        for number in np.flatnonzero(partner < 0).tolist() if len(truth) else ():
            open_to = np.where(allowed[number] & free, iou[number], -1.0)
            best = int(open_to.argmax())
            if open_to[best] >= IOU:
                partner[number] = best
                free[best] = False
    matched = partner >= 0
    right = np.zeros(len(prediction), bool)
    right[matched] = same[matched, partner[matched]]
    on_crowd = (np.where(same & crowd[None, :], iou, 0.0) > CROWD_SHARE).any(1)
    found = np.where(
        right, Verdict.RIGHT, np.where(matched, Verdict.WRONG_CLASS, np.where(on_crowd, Verdict.IGNORED, Verdict.FALSE))
    )
    true = np.where(crowd, Verdict.IGNORED, Verdict.MISSED).astype(np.uint8)
    true[partner[matched]] = found[matched]
    return true, found.astype(np.uint8), partner


def judge_instances(truth: InstanceSet, prediction: InstanceSet, size: tuple[int, int]) -> Judgement:
    """Of a pair, what both have is right (or of a wrong class), what only one has is missed or false."""
    true, found, partner = match_instances(truth, prediction)
    pixels = np.zeros(size, np.uint8)

    def lay(where: NDArray[np.bool_], verdict: int) -> None:
        np.maximum(pixels, where * np.uint8(verdict), out=pixels)

    for number, verdict in enumerate(true.tolist()):
        if verdict in (Verdict.MISSED, Verdict.IGNORED):
            lay(decode(truth.rles[number]), verdict)
    for number, (verdict, other) in enumerate(zip(found.tolist(), partner.tolist(), strict=True)):
        mask = decode(prediction.rles[number])
        if other < 0:
            lay(mask, verdict)
            continue
        true_mask = decode(truth.rles[other])
        lay(mask & true_mask, verdict)
        lay(mask & ~true_mask, Verdict.FALSE)
        lay(true_mask & ~mask, Verdict.MISSED)
    return Judgement(pixels, true, found, partner)


def judge_panoptic(truth: PanopticMap, prediction: PanopticMap, categories: tuple[Category, ...]) -> Judgement:
    """Every pixel by the two segments that it is in, as ``_pair_verdicts`` says."""
    matching = match(overlaps(truth, prediction), truth.segments, prediction.segments)
    true = np.where(matching.crowd, Verdict.IGNORED, Verdict.MISSED).astype(np.uint8)
    found = np.where(matching.excused, Verdict.IGNORED, Verdict.FALSE).astype(np.uint8)
    verdicts = np.where(matching.same, Verdict.RIGHT, Verdict.WRONG_CLASS)
    true[matching.true], found[matching.found] = verdicts, verdicts
    partner = np.full(len(found), -1, np.int64)
    partner[matching.found] = matching.true

    flat_true, flat_found = truth.ids.ravel(), prediction.ids.ravel()
    starts = run_starts(flat_true, flat_found)
    rows = segment_index(flat_true[starts], truth.segments)
    columns = segment_index(flat_found[starts], prediction.segments)
    of_runs = _pair_verdicts(matching, true, found, categories)[rows, columns]
    pixels = np.repeat(of_runs, np.diff(starts, append=flat_true.size)).reshape(truth.ids.shape)
    return Judgement(pixels, true, found, partner)


def _pair_verdicts(matching: Matching, true: Verdicts, found: Verdicts, categories: tuple[Category, ...]) -> Verdicts:
    """For a pixel of each true and each predicted segment, uint8 [T + 2, P + 2] laid out as ``overlaps`` is.

    A thing is an object, stuff what lies around it: a thing's pixels that are given to stuff are missed, stuff's that are given to a thing
    are false, and only where both are things or both stuff is a class wrong. Of one class in other pairs, or in none: missed where the
    true segment is, else false.
    """
    thing = np.array([category.is_thing for category in categories], bool)
    true_thing, found_thing = thing[matching.true_class][:, None], thing[matching.found_class][None, :]
    other_class = matching.true_class[:, None] != matching.found_class[None, :]
    unlike = np.where(
        true_thing & ~found_thing, Verdict.MISSED, np.where(~true_thing & found_thing, Verdict.FALSE, Verdict.WRONG_CLASS)
    )
    alike = np.where((true == Verdict.RIGHT)[:, None] & (found == Verdict.FALSE)[None, :], Verdict.FALSE, Verdict.MISSED)
    table = np.full((len(true) + 2, len(found) + 2), Verdict.IGNORED, np.uint8)
    table[1:-1, 1:-1] = np.where(other_class, unlike, alike)
    table[1:-1, 0] = Verdict.MISSED
    table[1 + matching.true, 1 + matching.found] = found[matching.found]
    table[1:-1][matching.crowd] = Verdict.IGNORED
    return table


def judge_semantic(truth: LabelMap, prediction: LabelMap) -> Judgement:
    """A pixel without a predicted class is missed, one of another class wrong."""
    ignored, none = truth == np.iinfo(truth.dtype).max, prediction == np.iinfo(prediction.dtype).max
    pixels = np.where(truth == prediction, Verdict.RIGHT, np.where(none, Verdict.MISSED, Verdict.WRONG_CLASS)).astype(np.uint8)
    pixels[ignored] = Verdict.IGNORED
    nobody = np.zeros(0, np.uint8)
    return Judgement(pixels, nobody, nobody, np.zeros(0, np.int64))


def decode(rle: Rle) -> NDArray[np.bool_]:
    """bool [H, W]."""
    import hotcoco.mask

    mask: NDArray[np.bool_] = np.asarray(hotcoco.mask.decode(rle)).astype(bool)
    return mask
