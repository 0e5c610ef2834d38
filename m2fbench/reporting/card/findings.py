"""The analyses that a model card draws on, of one suite's reference run; and what they say of the decoder, layer by layer."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from m2fbench.analysis.bootstrap import Progress
from m2fbench.analysis.comparing import compare_runs
from m2fbench.analysis.curves import calibration
from m2fbench.analysis.findings import Calibration, Comparison, ErrorFindings
from m2fbench.analysis.instance_errors import instance_errors
from m2fbench.analysis.intervals import intervals
from m2fbench.analysis.layers import Examination, LayerFinding, read_examination
from m2fbench.analysis.panoptic_errors import panoptic_errors
from m2fbench.analysis.runs import Evidence, Run, Tell
from m2fbench.analysis.semantic_errors import semantic_errors
from m2fbench.analysis.subsets import disaggregate
from m2fbench.errors import M2FBenchError
from m2fbench.reporting.card.facts import MAIN, Analyses, CardOptions, SuiteRuns
from m2fbench.reporting.card.text import LAYERS, escape, number, prose, table

T = TypeVar("T")
SUBSET_RESAMPLES = 200
QUICK = "the card was made with --quick"


def analysed_runs(suite: SuiteRuns) -> list[Run]:
    """The runs that ``analyse`` works on: the reference, and those that it is compared with."""
    if suite.reference is None or suite.reference.evidence is None:
        return []
    return [suite.reference, *(run for run in suite.others if run.evidence is not None and run.result is not None)]


def analyse(suite: SuiteRuns, options: CardOptions, of: Callable[[Run], Tell], progress: Progress | None = None) -> Analyses:
    """Everything about the reference run; what cannot be had stands in ``missing`` with the reason. of: where to tell what is done for a run."""
    reference = suite.reference
    if reference is None:
        return Analyses()
    missing: dict[str, str] = {}
    examined = _tried("examination", missing, lambda: read_examination(reference.folder))
    if options.quick or reference.evidence is None:
        why = QUICK if options.quick else reference.problem or "there are no predictions"
        return Analyses(layers=examined, missing={**missing, "intervals": why, "subsets": why, "errors": why})
    evidence, few, tell = reference.evidence, min(SUBSET_RESAMPLES, options.resamples), of(reference)
    tell(reference.label)
    return Analyses(
        intervals=_tried(
            "intervals", missing, lambda: intervals(evidence, resamples=options.resamples, tell=tell, progress=progress)
        ),
        disaggregation=_tried("subsets", missing, lambda: disaggregate(evidence, resamples=few, tell=tell, progress=progress)),
        errors=tuple(_errors(evidence, missing, tell)),
        calibrations=dict(_calibrations(evidence, missing)),
        comparisons=dict(_comparisons(reference, suite, options, missing, of, progress)),
        layers=examined,
        missing=missing,
    )


def _tried(what: str, missing: dict[str, str], look: Callable[[], T]) -> T | None:
    try:
        return look()
    except M2FBenchError as error:
        missing[what] = str(error)
        return None


def _errors(evidence: Evidence, missing: dict[str, str], tell: Tell) -> Iterator[ErrorFindings]:
    """Of every head that was predicted, the task's own first."""
    ways = {"instance": instance_errors, "panoptic": panoptic_errors, "semantic": semantic_errors}
    for head in sorted(evidence.predictions.heads, key=lambda head: head != evidence.suite.task):
        tell(f"sorting {head} errors")
        if (found := _tried("errors", missing, partial(ways[head], evidence))) is not None:
            yield found


def _calibrations(evidence: Evidence, missing: dict[str, str]) -> Iterator[tuple[str, Calibration]]:
    """Of instances, which have scores."""
    if "instance" in evidence.predictions.heads:
        found = _tried("calibration", missing, lambda: calibration(evidence))
        if found is not None:
            yield "instance", found


def _comparisons(
    reference: Run,
    suite: SuiteRuns,
    options: CardOptions,
    missing: dict[str, str],
    of: Callable[[Run], Tell],
    progress: Progress | None,
) -> Iterator[tuple[str, Comparison]]:
    """Of the suite's other runs with the reference, image by image."""
    for run in analysed_runs(suite)[1:]:
        look = partial(compare_runs, reference, run, resamples=options.resamples, tell=of(run), progress=progress)
        found = _tried(f"comparison with {run.label}", missing, look)
        if found is not None:
            yield run.label, found


def examination(suite: SuiteRuns) -> str:
    """What each decoder layer adds, where ``m2fbench examine`` has looked; else how to look."""
    found = suite.analyses.layers
    if found is None:
        why = suite.analyses.missing.get("examination")
        said = f" ({prose(why)})" if why else ""
        return f"Not examined{said}: `m2fbench examine RUN` measures what each decoder layer adds, and where its queries look."
    names = [name for name in MAIN[suite.task] if any(not math.isnan(layer.figures.get(name, math.nan)) for layer in found.layers)]
    told = {"FLOPs saved": "saved", "IoU with the masks before": "mask_iou", "queries that change class": "class_changed"}
    kept = {title: field for title, field in told.items() if any(not math.isnan(getattr(layer, field)) for layer in found.layers)}
    rows = [_layer_row(layer, names, list(kept.values())) for layer in found.layers]
    of = f"the first {found.images} images" if found.images < found.run_images else f"all {found.images} images"
    text = f"{LAYERS} What a model that stops after each gives, over {of}:"
    shown = table(["after layer", *(f"{escape(name)} there" for name in names), *kept], rows)
    return "\n\n".join([text, shown, _what_layers_say(found, names)])


def _layer_row(layer: LayerFinding, names: list[str], fields: list[str]) -> list[str]:
    values = [number(layer.figures.get(name, math.nan)) for name in names]
    shares = [getattr(layer, field) for field in fields]
    return [str(layer.layer), *values, *("-" if math.isnan(share) else f"{100 * share:.1f} %" for share in shares)]


def _what_layers_say(found: Examination, names: list[str]) -> str:
    """How early most of the figure is there."""
    if not names or len(found.layers) < 2:
        return ""
    name, last = names[0], found.layers[-1]
    final = last.figures.get(name, math.nan)
    early = next((layer for layer in found.layers if final - layer.figures.get(name, math.nan) <= 1), last)
    if early is last or math.isnan(final):
        return f"No earlier layer comes within a point of the last one's {escape(name)} {number(final)}."
    cost = number(final - early.figures[name])
    saved = "" if math.isnan(early.saved) else f", for {100 * early.saved:.0f} % fewer FLOPs"
    what = f"Stopping after layer {early.layer} of {last.layer} gives {cost} points less, by {escape(name)}{saved}"
    return f"{what}: a variant `decoder_layers: {early.layer}`."
