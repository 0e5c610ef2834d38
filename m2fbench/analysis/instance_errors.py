"""Which kinds of error cost a run's instances their AP50, by TIDE's classes.

Convention: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors (ECCV 2020), masks in place of boxes. The cost of a
kind of error is what AP50 gains where all of that kind are mended and all else stays as it is; a cost below 0, which comes of the thresholds
of recall, is 0. Where it differs from the package ``tidecv``: the mean is over classes with truth, as COCO's AP is (tidecv counts a class
without truth as 0, and leaves it out once its predictions are mended away); predictions on crowd regions are no errors (tidecv counts and mends
them too).
"""

import math

import numpy as np

from m2fbench.analysis.findings import ErrorFindings, ErrorShare
from m2fbench.analysis.runs import Evidence
from m2fbench.analysis.tide import BACKGROUND, counts, errors_of, mended_by_class
from m2fbench.metrics.instance_matching import overlaps, pairs_of
from m2fbench.suite import figure_name

DEFINITIONS = {
    "Cls": "wrong class: IoU of 0.5 or more with a true instance of another class; mended: of that class, or left out where the instance is "
    "found or claimed by a better scored one",
    "Loc": "badly outlined: IoU of 0.1 to 0.5 with a true instance of its class; mended: outlined right, or left out likewise",
    "Both": "wrong class and badly outlined: IoU of 0.1 to 0.5 with true instances of other classes alone; mended: left out",
    "Dupe": "a second find: IoU of 0.5 or more with a true instance of its class that another prediction has; mended: left out",
    "Bkg": "of nothing: IoU of at most 0.1 with every true instance; mended: left out",
    "Miss": "a true instance that is not found and that no Cls or Loc error could find; mended: not asked for",
    "FP": "all wrong predictions; mended: scored below all right ones",
    "FN": "all true instances that are not found; mended: not asked for",
}
CONVENTION = (
    "TIDE (Bolya et al. 2020), mask IoU, thresholds 0.5 and 0.1; a wrong prediction is the first that holds of Loc, Cls, Dupe, Bkg, Both; "
    "the 100 best predictions of each image and class, crowd regions ignored"
)
NOTES = ("each cost is of mending one kind alone, so they need not add up to what is missing from 100",)


def instance_errors(evidence: Evidence) -> ErrorFindings:
    """Costs in points of AP50, NaN without truth; by class in points of the class's AP50, NaN where none of its truth is left."""
    asked = (evidence.dataset, evidence.predictions, evidence.image_ids)
    pairs = pairs_of(*asked)
    errors = errors_of(pairs, overlaps(*asked, BACKGROUND))
    number, mended = counts(errors, pairs.crowd), mended_by_class(pairs, errors)
    value = _mean([scores[""] for scores in mended.values()])
    return ErrorFindings(
        head="instance",
        figure=figure_name("AP50", "instance", evidence.suite.task),
        value=value,
        convention=CONVENTION,
        shares=tuple(
            ErrorShare(name, definition, number[name], _gain(_mean([scores[name] for scores in mended.values()]), value))
            for name, definition in DEFINITIONS.items()
        ),
        by_class={name: {kind: scores[kind] - scores[""] for kind in DEFINITIONS} for name, scores in mended.items()},
        by_class_unit="points of the class's AP50",
        notes=NOTES,
    )


def _mean(scores: list[float]) -> float:
    """Over classes; one of which no truth is left counts as 0, as TIDE has it."""
    return float(np.nan_to_num(scores).mean()) if scores else math.nan


def _gain(mended: float, value: float) -> float:
    return math.nan if math.isnan(value) else max(0.0, mended - value)
