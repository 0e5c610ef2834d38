"""What panoptic quality lost to which kind of error, and which classes are taken for which.

Each kind is mended alone, in the counts of each class, and PQ computed again; what it gains is the cost:

- missed: every missed segment (FN) is found, as a match with the mean IoU of its class's matches (of all matches where the class has none,
  1 where there is none at all), so that quality is not mended with it;
- false: every false segment (FP) is taken away; a class that was nothing but false then leaves the mean;
- matching: both of these, which leaves PQ = SQ;
- mask quality: every match has an IoU of 1, which leaves PQ = RQ;
- class: every pair of a true and a predicted segment of two classes with an IoU above 0.5 (void and crowds as in PQ) is given the right
  class: one missed and one false segment become a match with that IoU.

A pair of the wrong class is also among the missed and the false, and PQ is a product, so the costs need not add up.
"""

import math

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.findings import Confusion, ErrorFindings, ErrorShare
from m2fbench.analysis.runs import Evidence
from m2fbench.metrics.panoptic_statistics import QUALITY, image_counts, quality
from m2fbench.metrics.segment_records import SegmentRecords, segment_records
from m2fbench.suite import figure_name

Floats = NDArray[np.float64]

DEFINITIONS = {
    "missed": "true segments that no prediction of their class matches (FN); mended: found, with the mean IoU of their class's matches",
    "false": "predicted segments that match no true one of their class (FP); mended: taken away",
    "matching": "missed and false segments together; mended: both, which leaves PQ = SQ",
    "mask quality": "matched segments whose IoU is below 1; mended: an IoU of 1, which leaves PQ = RQ",
    "class": "pairs of a true and a predicted segment with an IoU above 0.5 whose classes differ; mended: the right class, so a match "
    "in place of one missed and one false segment",
}
CONVENTION = "counts of panopticapi's PQ, one kind of error mended at a time"
NOTE = "a pair of the wrong class is also one missed and one false segment, and PQ is a product: the costs need not add up"
_PQ, _THINGS, _STUFF = (QUALITY.index(name) for name in ("PQ", "PQ_th", "PQ_st"))


def panoptic_errors(evidence: Evidence) -> ErrorFindings:
    """Costs in points of PQ; by class in points of the class's own PQ, by group in points of PQ_th and PQ_st; NaN where a class or group
    has none, or has nothing left to measure once mended."""
    dataset = evidence.dataset
    records = segment_records(dataset, evidence.predictions, evidence.image_ids)
    things = np.array([c.is_thing for c in dataset.categories], bool)
    counts = image_counts(records, len(things)).sum(0)
    mended = _mended(records, counts)
    overall, by_class = quality(np.stack([counts, *mended.values()]), things)
    gains, class_gains = overall[1:] - overall[0], by_class[1:, 0] - by_class[0, 0]
    there = ~np.isnan(by_class[0, 0])
    number = {
        "missed": counts[2].sum(), "false": counts[1].sum(), "matching": counts[1:3].sum(),
        "mask quality": float((records.same & (records.iou < 1)).sum()), "class": float((~records.same).sum()),
    }  # fmt: skip
    return ErrorFindings(
        head="panoptic",
        figure=figure_name("PQ", "panoptic", evidence.suite.task),
        value=float(overall[0, _PQ]),
        convention=CONVENTION,
        shares=tuple(
            ErrorShare(name, DEFINITIONS[name], float(number[name]), float(gain))
            for name, gain in zip(mended, gains[:, _PQ], strict=True)
        ),
        by_class={
            category.name: dict(zip(mended, class_gains[:, k].tolist(), strict=True))
            for k, category in enumerate(dataset.categories)
            if there[k]
        },
        by_class_unit="points of the class's PQ",
        by_group={
            group: dict(zip(mended, gains[:, column].tolist(), strict=True))
            for group, column in (("things", _THINGS), ("stuff", _STUFF))
            if not math.isnan(overall[0, column])
        },
        by_group_unit="points of PQ_th (things) and PQ_st (stuff)",
        notes=(NOTE,),
    )


def _mended(records: SegmentRecords, counts: Floats) -> dict[str, Floats]:
    """Counts [4, C] (TP, FP, FN, sum of IoU) by the kind of error that was mended in them."""
    tp, fp, fn, iou = counts
    none = np.zeros_like(tp)
    usual = iou.sum() / tp.sum() if tp.sum() else 1.0
    mean_iou = np.where(tp > 0, iou / np.maximum(tp, 1), usual)
    found = tp + fn, iou + fn * mean_iou
    return {
        "missed": np.stack([found[0], fp, none, found[1]]),
        "false": np.stack([tp, none, fn, iou]),
        "matching": np.stack([found[0], none, none, found[1]]),
        "mask quality": np.stack([tp, fp, fn, tp]),
        "class": _with_right_classes(records, counts),
    }


def _with_right_classes(records: SegmentRecords, counts: Floats) -> Floats:
    wrong = ~records.same
    true, found = records.true[wrong], records.found[wrong]
    right, taken_for = records.truth.category[true], records.prediction.category[found]
    mended = counts.copy()
    np.add.at(mended[0], right, 1)
    np.add.at(mended[1], taken_for, -records.false[found].astype(float))  # one mostly on void or a crowd was no false segment
    np.add.at(mended[2], right, -1)
    np.add.at(mended[3], right, records.iou[wrong])
    return mended


def panoptic_confusion(evidence: Evidence) -> Confusion:
    """Of segments matched whatever their classes."""
    dataset = evidence.dataset
    records = segment_records(dataset, evidence.predictions, evidence.image_ids)
    nothing = len(dataset.categories)
    table = np.zeros((nothing + 1, nothing + 1))
    np.add.at(table, (records.truth.category[records.true], records.prediction.category[records.found]), 1)
    unmatched, alone = ~records.crowd, ~records.excused
    unmatched[records.true], alone[records.found] = False, False
    np.add.at(table[:, nothing], records.truth.category[unmatched], 1)
    np.add.at(table[nothing], records.prediction.category[alone], 1)
    return Confusion(
        "panoptic", tuple(c.name for c in dataset.categories), tuple(map(tuple, table.tolist())), "segments",
        "a true and a predicted segment with an IoU above 0.5, of whatever classes; void, crowd regions and excused predictions as in PQ",
    )  # fmt: skip
