"""Tables and sentences of a model card that say how good a checkpoint is: figures, classes, subsets, errors, variants."""

import math
from collections.abc import Iterator, Mapping, Sequence

from m2fbench.analysis.findings import ErrorFindings, ErrorShare, Estimate, SubsetFinding
from m2fbench.analysis.object_subsets import CONVENTION
from m2fbench.analysis.runs import Run
from m2fbench.analysis.words import counted
from m2fbench.reporting.card.disturbed import MARK, marked
from m2fbench.reporting.card.facts import MAIN, SuiteRuns
from m2fbench.reporting.card.metadata import FIGURES, TASKS, interval_of, long_name
from m2fbench.reporting.card.text import (
    INTERVAL,
    MENDING,
    escape,
    folded,
    listed,
    number,
    prose,
    signed,
    span,
    table,
    with_span,
)
from m2fbench.results import RunResult

BY_SIZE = ("APs", "APm", "APl")
_SIZES = ("small", "medium", "large")
CLASS_FIGURES = ("PQ", "AP", "IoU")
FEW = 10
"""Fewer true objects than these say nothing of a class."""


def by_size(result: RunResult) -> tuple[str, ...]:
    """The names of the figures by object size, as the suite has them; empty where it has none."""
    for end in ("", "_th_pan"):
        if not math.isnan(result.value("APl" + end)) or not math.isnan(result.value("APs" + end)):
            return tuple(name + end for name in BY_SIZE)
    return ()


def figures_of(result: RunResult) -> list[str]:
    """The figures that a card's table shows, in its order."""
    names = dict.fromkeys((*FIGURES, *by_size(result)))
    return [name for name in names if not math.isnan(result.value(name))]


def setting(suite: SuiteRuns) -> str:
    """What the figures are of: dataset, images, protocol, precision."""
    result = suite.result
    protocol, variant, dataset = result.protocol or {}, result.variant, result.dataset or {}
    size = f" at {protocol['min_size']}/{protocol['max_size']}" if "min_size" in protocol else ""
    scored, total = int(dataset.get("scored_images", 0)), dataset.get("images")
    images = counted(scored, "image") if total in (scored, None) else f"{scored:,} of {counted(int(total), 'image')}"
    tta = ", multi-scale and flip" if protocol.get("tta") else ""
    partial = " **Partial: not all images were scored.**" if result.status == "partial" else ""
    found = suite.analyses.intervals
    how = "" if found is None else f"; {100 * found.level:.0f} % intervals from {found.resamples:,} resamples of the images"
    return (
        f"{TASKS[suite.task]} on {escape(suite.dataset)}, {images}; protocol {escape(protocol.get('name', 'unknown'))}{size}{tta}, "
        f"{escape(variant['dtype'])}. Figures in percent{how}.{partial}"
    )


def figures_table(suite: SuiteRuns) -> str:
    """Every headline figure with its interval, and the published one beside it where there is one."""
    result = suite.result
    published = {c.metric: c for c in result.comparisons}
    compared = any(c.comparable for c in published.values())
    sure = suite.analyses.intervals is not None
    header = [
        "metric",
        "value",
        *([INTERVAL] if sure else []),
        *(["published"] if published else []),
        *(["difference"] if compared else []),
    ]
    rows = []
    for name in figures_of(result):
        row = [escape(name), number(result.value(name)), *([span(interval_of(suite, name))] if sure else [])]
        entry = published.get(name)
        row += ["-" if entry is None else number(entry.published)] if published else []
        row += ["-" if entry is None or not entry.comparable else signed(entry.difference)] if compared else []
        rows.append(row)
    notes = []
    if published:
        notes.append(f"Published: {listed([escape(s) for s in dict.fromkeys(c.source for c in published.values())])}.")
    if published and not all(c.comparable for c in published.values()):
        notes.append(f"Not comparable with it: {prose(result.reason or 'another setting')}.")
    return f"{setting(suite)}\n\n{table(header, rows)}" + (f"\n\n{' '.join(notes)}" if notes else "")


def class_figure(suite: SuiteRuns) -> tuple[str, str] | None:
    """(figure by class that says most of this task, the name of the count of true objects); None where there is none."""
    result = suite.result
    by_class = {m.name for m in result.measurements if m.category is not None and m.subset is None}
    wanted = {"panoptic": "PQ", "instance": "AP", "semantic": "IoU"}[suite.task]
    counts = {"PQ": "truth_segments", "AP": "truth_instances", "IoU": "truth_pixels"}
    for figure in (wanted, *CLASS_FIGURES):
        for name in (figure, f"{figure}_th_pan", f"{figure}_pan"):
            if name in by_class:
                ends = name.removeprefix(figure)
                count = next((c for c in (counts[figure] + ends, counts[figure]) if c in by_class), "")
                return name, count
    return None


def classes(suite: SuiteRuns) -> list[tuple[str, float, float]]:
    """(class, its figure, its true objects or pixels; NaN where unknown), in the dataset's order."""
    found = class_figure(suite)
    if found is None:
        return []
    figure, count = found
    result = suite.result
    values = {m.category: m.value for m in result.measurements if m.name == figure and m.category is not None}
    truth = {m.category: m.value for m in result.measurements if m.name == count and m.category is not None}
    return [(str(name), value, truth.get(name, math.nan)) for name, value in values.items()]


def class_table(suite: SuiteRuns) -> str | None:
    """All classes, folded; None where no figure is given by class."""
    found = class_figure(suite)
    if found is None:
        return None
    figure, count = found
    unit = count.removeprefix("truth_").partition("_")[0] or "objects"
    sure = suite.analyses.intervals is not None
    rows = [
        [
            escape(name), number(value), *([span(interval_of(suite, figure, name))] if sure else []),
            "-" if math.isnan(truth) else f"{truth:,.0f}",
        ]
        for name, value, truth in classes(suite)
    ]  # fmt: skip
    header = ["class", f"{figure} of the class", *([INTERVAL] if sure else []), f"true {unit}"]
    return folded(f"{figure} of each of the {len(rows)} classes", table(header, rows))


def subset_figure(suite: SuiteRuns, subset: SubsetFinding) -> str | None:
    """The figure that a subset is told by: the main one of its head, else what it has (recall, say)."""
    mains = MAIN[suite.task]
    head = subset.head or suite.task
    own = mains if suite.task != "panoptic" else {"panoptic": mains[:1], "instance": mains[1:2], "semantic": mains[2:]}[head]
    for name in (*own, *subset.figures):
        estimate = subset.figures.get(name)
        if estimate is not None and not math.isnan(estimate.value):
            return name
    return None


def subset_tables(suite: SuiteRuns) -> str | None:
    """The disaggregated results: those of the task's own head as a table, those of the others folded; None where there are none."""
    found = suite.analyses.disaggregation
    if found is None or not any(subset.images for subset in found.subsets):
        return None
    shown = [subset for subset in found.subsets if subset.images]
    own = [subset for subset in shown if subset.head in (None, suite.task)]
    others = [subset for subset in shown if subset not in own]
    parts = [_subset_table(suite, own)] if own else []
    if any(not subset.enough for subset in shown):
        parts.append("† too few images or objects, or too wide an interval, to say anything.")
    if others:
        heads = listed(list(dict.fromkeys(f"{subset.head} predictions" for subset in others)))
        parts.append(folded(f"The same of its {heads}", _subset_table(suite, others)))
    parts.append(folded("How the subsets are defined", "\n".join(_definitions(shown, found.undefined))))
    return "\n\n".join(parts)


def _subset_table(suite: SuiteRuns, subsets: Sequence[SubsetFinding]) -> str:
    rows = []
    for subset in subsets:
        name = subset_figure(suite, subset)
        estimate = Estimate(math.nan) if name is None else subset.figures[name]
        rows.append([
            escape(subset.attribute), escape(subset.subset) + ("" if subset.enough else " †"), escape(name or "-"), number(estimate.value),
            span(estimate), f"{subset.images:,}", "-" if subset.objects is None else f"{subset.objects:,}",
        ])  # fmt: skip
    header = ["divided by", "subset", "metric", "value of the subset", INTERVAL, "images", "objects"]
    return table(header, rows, words=3)


def _definitions(subsets: Sequence[SubsetFinding], undefined: Mapping[str, str]) -> Iterator[str]:
    """A line an attribute, and one for each kind of predictions whose truth divides otherwise."""
    by_attribute: dict[str, dict[str | None, dict[str, str]]] = {}
    for subset in subsets:
        by_attribute.setdefault(subset.attribute, {}).setdefault(subset.head, {})[subset.subset] = subset.definition
    for attribute, by_head in by_attribute.items():
        heads: dict[str, list[str]] = {}
        for head, parts in by_head.items():
            said = "; ".join(f"{escape(name)} = {prose(definition)}" for name, definition in parts.items())
            heads.setdefault(said, []).extend([head] if head else [])
        for said, of in heads.items():
            yield f"- {escape(attribute)}{f' ({listed(of)})' if len(heads) > 1 else ''}: {said}"
    if any(subset.level == "object" for subset in subsets):
        yield f"- {CONVENTION}"
    for attribute, why in undefined.items():
        yield f"- {escape(attribute)}: none ({prose(why)})"


_UNITS = {"instance": "errors", "panoptic": "segments", "semantic": "pixels"}
_TOGETHER = {"matching", "FP", "FN"}  # sums of other kinds


def told_errors(found: ErrorFindings) -> list[ErrorShare]:
    """The kinds of error that cost something, the dearest first."""
    shares = (share for share in found.shares if share.name not in _TOGETHER and not math.isnan(share.cost) and share.cost > 0)
    return sorted(shares, key=lambda share: -share.cost)


def errors(suite: SuiteRuns) -> Iterator[str]:
    """A paragraph a head: what its figure lost to which errors."""
    for found in suite.analyses.errors:
        told = told_errors(found)
        if not told:
            continue
        parts = [
            f"{escape(s.name)} {number(s.cost, 1)}"
            + ("" if s.count is None or math.isnan(s.count) else f" ({s.count:,.0f} {_UNITS[found.head]})")
            for s in told[:4]
        ]
        yield (
            f"{MENDING} {escape(found.figure)} {number(found.value)}, in points: {listed(parts)}. "
            f"{escape(told[0].name).capitalize()}: {prose(told[0].definition)}. Convention: {prose(found.convention)}."
        )


def what_differs(run: Run) -> str:
    """What a variant does otherwise than float32 by the paper's protocol."""
    result = run.any_result
    variant, protocol = result.variant, result.protocol or {}
    said = [] if protocol.get("name") == "paper" else [f"protocol {protocol.get('name')}"]
    said += [str(variant["dtype"])] if variant["dtype"] != "float32" else []
    said += [f"autocast {variant['autocast']}"] if variant.get("autocast") else []
    said += [
        key.replace("_", " ") for key in ("tf32", "channels_last", "cudnn_benchmark", "fuse", "lean", "compile") if variant.get(key)
    ]
    said += [f"attention {variant['attention']}"] if variant.get("attention", "sdpa") != "sdpa" else []
    said += [f"{variant['decoder_layers']} decoder layers"] if variant.get("decoder_layers") is not None else []
    said += ["multi-scale and flip"] if protocol.get("tta") else []
    return ", ".join(said) or "nothing"


def variants_table(suite: SuiteRuns) -> str | None:
    """The reference beside the other runs of the suite: what each differs in, gains and loses; None where there is one run."""
    runs = [run for run in suite.runs if run.result is not None and run.result.measurements]
    if len(runs) < 2:
        return None
    figures = [name for name in MAIN[suite.task] if any(not math.isnan(_value(run, name)) for run in runs)]
    reference = suite.reference
    speeds = {run.folder: marked(speed, run, suite) for run in runs if (speed := _speed(run)) is not None}
    header = ["variant", "what differs"]
    for name in figures:
        header += [name, "change"]
    rows = []
    for run in runs:
        assert run.result is not None
        row = [escape(run.result.variant["name"]), escape(what_differs(run))]
        for name in figures:
            change = _change(suite, run, name)
            row += [number(_value(run, name)), "" if run is reference else change]
        rows.append(row + ([speeds.get(run.folder, "-")] if speeds else []))
    changed = "Change: against the first line"
    disturbed = (
        f" {MARK} Disturbed: see the warnings under “Speeds, Sizes, Times”." if any(MARK in s for s in speeds.values()) else ""
    )
    paired = ", with the paired 95 % interval" if suite.analyses.comparisons else ""
    return f"{table([*header, *(['images/s'] if speeds else [])], rows, words=2)}\n\n{changed}{paired}.{disturbed}"


def _change(suite: SuiteRuns, run: Run, name: str) -> str:
    comparison = suite.analyses.comparisons.get(run.label)
    for difference in () if comparison is None else comparison.differences:
        if (difference.figure, difference.category) == (name, None) and difference.difference.has_interval:
            found = difference.difference
            return f"{signed(found.value)} ({signed(found.low)} to {signed(found.high)})"
    assert suite.reference is not None
    return signed(_value(run, name) - _value(suite.reference, name))


def _value(run: Run, name: str) -> float:
    return math.nan if run.result is None else run.result.value(name)


def _speed(run: Run) -> str | None:
    """Images a second, of scope ``paper`` where that was measured."""
    for name in ("fps", "fps_task") if run.speed is not None else ():
        assert run.speed is not None
        if not math.isnan(value := run.speed.value(name)):
            return number(value)
    return None


def headline_sentence(suite: SuiteRuns) -> str:
    """The figures that the task is known by, in a clause."""
    told = [
        f"{escape(name)} {with_span(suite.result.value(name), interval_of(suite, name))}"
        for name in MAIN[suite.task]
        if not math.isnan(suite.result.value(name))
    ]
    return listed(told)


def sure(suite: SuiteRuns) -> str:
    """What the brackets of ``headline_sentence`` are, where it has any."""
    return "" if suite.analyses.intervals is None else f" with {100 * suite.analyses.intervals.level:.0f} % intervals"


def metrics_text(suite: SuiteRuns) -> str:
    """Which figures there are and what they mean, a line each."""
    names = figures_of(suite.result)
    lines = [f"- {escape(name)}: {long_name(name)}" for name in names if name not in by_size(suite.result) or name in FIGURES]
    if sizes := [name for name in by_size(suite.result) if name not in FIGURES]:
        lines.append(
            f"- {listed([escape(name) for name in sizes])}: the same AP of objects under 32², of 32² to 96² and over 96² pixels"
        )
    found = suite.analyses.disaggregation
    parts = [subset_figure(suite, subset) for subset in (found.subsets if found is not None else ()) if subset.images]
    lines += [f"- {escape(name)}: {long_name(name)}" for name in dict.fromkeys(filter(None, parts)) if name not in names]
    rule = (suite.result.rules or {}).get("mean_iou")
    rules = {
        "present": "over the classes with true pixels (detectron2's rule)",
        "union": "over the classes in truth or prediction (Cityscapes' and mmsegmentation's rule)",
        "all": "over every class of the dataset (the rule of ADE20K's own script)",
    }
    if rule in rules and any(name.startswith("mIoU") for name in names):
        lines.append(f"- mIoU averages {rules[rule]}")
    return "\n".join(lines)
