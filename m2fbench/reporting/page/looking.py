"""Everything that is looked for in one run's predictions, for a report; what cannot be had stands beside it with the reason."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from m2fbench.analysis.bootstrap import Progress
from m2fbench.analysis.comparing import compare_runs
from m2fbench.analysis.curves import calibration, instance_confusion, precision_recall
from m2fbench.analysis.findings import Calibration, Comparison, Confusion, Curve, Disaggregation, ErrorFindings, Intervals
from m2fbench.analysis.instance_errors import instance_errors
from m2fbench.analysis.intervals import intervals
from m2fbench.analysis.layers import Examination
from m2fbench.analysis.panoptic_errors import panoptic_confusion, panoptic_errors
from m2fbench.analysis.runs import Evidence, Run, Tell, silent
from m2fbench.analysis.semantic_errors import boundary_profile, semantic_confusion, semantic_errors
from m2fbench.analysis.subsets import disaggregate
from m2fbench.errors import M2FBenchError
from m2fbench.reporting.images.examination import layer_findings, layer_pictures
from m2fbench.reporting.images.gallery import Gallery, compared_pictures, gallery
from m2fbench.reporting.images.picture import Picture
from m2fbench.types import Head

SUBSET_RESAMPLES = 200
IMAGES = 3
"""Of each kind, in a report of up to three runs."""
QUICK = "the report was made with --quick, from stored figures only"
NO_IMAGES = "the report was made with --no-images"
ANOTHER_VARIANT = (
    "shown for another variant of this checkpoint; images that changed most are under the comparison (--images N: of every run)"
)
T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How much is looked for. resamples: behind intervals and comparisons; images: of the dataset that are shown of each kind (best, worst ...),
    None: as many as keep the page small, and best and worst ones of one variant of each checkpoint; number: how many that is; quick: only what
    is stored already."""

    resamples: int = 1000
    seed: int = 0
    images: int | None = None
    quick: bool = False
    tell: Tell = silent
    progress: Progress | None = None
    number: int = IMAGES

    def over(self, runs: int) -> "Effort":
        """The same with the number of images that suits a report of so many runs."""
        fitting = max(1, min(IMAGES, 2 * IMAGES // max(1, runs - 1)))
        return replace(self, number=fitting if self.images is None else self.images)


@dataclass(frozen=True)
class Looked:
    """What was found in one run. errors, confusions: by head. missing: what was not found -> why."""

    intervals: Intervals | None = None
    disaggregation: Disaggregation | None = None
    errors: tuple[ErrorFindings, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    precision_recall: tuple[Curve, ...] = ()
    calibration: Calibration | None = None
    boundary: tuple[Curve, ...] = ()
    gallery: Gallery | None = None
    examination: Examination | None = None
    layer_pictures: tuple[Picture, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


def look(run: Run, effort: Effort, gallery_of_it: bool = True) -> Looked:
    """All of it for one run, telling what is worked on. gallery_of_it: with its best and worst images."""
    missing: dict[str, str] = {}
    examined = _tried("examination", missing, lambda: layer_findings(run))
    found = Looked(examination=examined, missing=missing)
    if effort.quick or run.evidence is None:
        why = QUICK if effort.quick else run.problem or "there are no predictions"
        missing |= dict.fromkeys(("intervals", "subsets", "errors", "images"), why)
        return found
    evidence, few = run.evidence, min(SUBSET_RESAMPLES, effort.resamples)

    def tell(what: str) -> None:
        effort.tell(f"{run.label}: {what}")

    found = replace(
        found,
        intervals=_tried(
            "intervals",
            missing,
            lambda: intervals(evidence, resamples=effort.resamples, seed=effort.seed, tell=tell, progress=effort.progress),
        ),
        disaggregation=_tried(
            "subsets", missing, lambda: disaggregate(evidence, resamples=few, seed=effort.seed, tell=tell, progress=effort.progress)
        ),
    )
    return _with_pictures(_with_errors(found, evidence, tell), run, effort.number, gallery_of_it, tell)


def _tried(what: str, missing: dict[str, str], work: Callable[[], T]) -> T | None:
    try:
        return work()
    except M2FBenchError as error:
        missing[what] = str(error)
        return None


def _with_errors(found: Looked, evidence: Evidence, tell: Tell) -> Looked:
    """Of every head that was predicted, the task's own first."""
    ways: dict[Head, tuple[Callable[[Evidence], ErrorFindings], Callable[[Evidence], Confusion]]] = {
        "instance": (instance_errors, instance_confusion),
        "panoptic": (panoptic_errors, panoptic_confusion),
        "semantic": (semantic_errors, semantic_confusion),
    }
    errors: list[ErrorFindings] = []
    confusions: list[Confusion] = []
    for head in sorted(evidence.predictions.heads, key=lambda head: head != evidence.suite.task):
        tell(f"sorting {head} errors")
        of_errors, of_confusion = ways[head]
        one = _tried(f"{head} errors", found.missing, partial(of_errors, evidence))
        errors += [one] if one is not None else []
        matrix = _tried(f"{head} confusion", found.missing, partial(of_confusion, evidence))
        confusions += [matrix] if matrix is not None else []
    instances, semantic = (head in evidence.predictions.heads for head in ("instance", "semantic"))
    curves = _tried("precision over recall", found.missing, lambda: precision_recall(evidence)) if instances else None
    return replace(
        found,
        errors=tuple(errors),
        confusions=tuple(confusions),
        precision_recall=curves or (),
        calibration=_tried("calibration", found.missing, lambda: calibration(evidence)) if instances else None,
        boundary=(_tried("boundary profile", found.missing, lambda: boundary_profile(evidence)) if semantic else None) or (),
    )


def _with_pictures(found: Looked, run: Run, number: int, gallery_of_it: bool, tell: Tell) -> Looked:
    if not number:
        found.missing["images"] = NO_IMAGES
        return found
    if gallery_of_it:
        shown = _tried("images", found.missing, lambda: gallery(run, number, tell=tell))
    else:
        shown, found.missing["best and worst images"] = None, ANOTHER_VARIANT
    examined = found.examination
    strips = (
        ()
        if examined is None
        else _tried("layer by layer", found.missing, lambda: tuple(islice(layer_pictures(run, examined), number)))
    )
    return replace(found, gallery=shown, layer_pictures=strips or ())


@dataclass(frozen=True)
class Compared:
    """A further run beside the first of its suite. comparison: None where it could not be made; problem then says why. pictures: the images
    that changed most, side by side, under a heading each."""

    run: Run
    comparison: Comparison | None
    pictures: tuple[tuple[str, str, tuple[Picture, ...]], ...] = ()
    problem: str | None = None


def compare_all(runs: Sequence[Run], effort: Effort) -> Iterator[Compared]:
    """Each further run of a suite with the first one of it, image by image."""
    for run in runs[1:]:
        if effort.quick:
            yield Compared(run, None, problem=QUICK)
            continue
        effort.tell(f"comparing {run.label} with {runs[0].label}")
        try:
            found = compare_runs(
                runs[0], run, resamples=effort.resamples, seed=effort.seed, tell=effort.tell, progress=effort.progress
            )
            shown = compared_pictures(runs[0], run, found.changes, effort.number, tell=effort.tell) if effort.number else ()
        except M2FBenchError as error:
            yield Compared(run, None, problem=str(error))
        else:
            yield Compared(run, found, tuple((part.title, part.description, part.pictures) for part in shown))
