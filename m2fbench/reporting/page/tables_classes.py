"""The tables of figures by class and by COCO's object sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m2fbench.analysis.runs import Run
from m2fbench.reporting.page.frame import line_of, value_of
from m2fbench.reporting.page.records import Cell, Column, Table, interval_cell, number_cell
from m2fbench.reporting.page.tables import run_cell, why_missing

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("truth_segments", "truth_instances", "truth_pixels", "TP", "FP", "FN")
_COUNT_OF = {"PQ": "truth_segments", "AP": "truth_instances", "IoU": "truth_pixels"}


def class_metrics(frame: "pd.DataFrame", run: str) -> list[str]:
    """The figures that a run has by class, counts and sizes left out, in its order."""
    lines = frame[(frame.run == run) & frame.category.notna() & frame.subset.isna()]
    return [m for m in dict.fromkeys(lines.metric) if m not in COUNTS and not str(m).startswith("truth_")]


def class_table(frame: "pd.DataFrame", name: str, runs: Sequence[Run], metric: str) -> Table:
    """One figure of every class under every run, with the count of true objects; of one run its interval and its other figures too."""
    labels = [run.label for run in runs]
    lines = frame[frame.run.isin(labels) & frame.category.notna() & frame.subset.isna()]
    first = lines[lines.run == labels[0]]
    classes = list(dict.fromkeys(lines[lines.metric == metric].category))
    of = {(run, m, c): line for run, m, c, line in zip(lines.run, lines.metric, lines.category, lines.itertuples(), strict=True)}
    head = metric.split("_")[0]
    count = next((c for c in dict.fromkeys(first.metric) if str(c).startswith(_COUNT_OF.get(head, "truth_"))), None)
    further = [m for m in class_metrics(frame, labels[0]) if m != metric and _same_family(m, metric)] if len(runs) == 1 else []
    further += [c for c in ("TP", "FP", "FN") if head == "PQ" and len(runs) == 1]
    rows = []
    for category in classes:
        found = [of.get((run, metric, category)) for run in labels]
        cells = [
            number_cell(math.nan if f is None else f.value, 2, "" if f is not None and f.value == f.value else "no truth")
            for f in found
        ]
        if found[0] is not None and len(runs) == 1:
            cells.append(interval_cell(found[0].low, found[0].high))
        cells += [number_cell(_or_nan(of.get((labels[0], m, category))), 0 if m in COUNTS else 2) for m in further]
        counted = [number_cell(_or_nan(of.get((labels[0], count, category))), 0)] if count else []
        rows.append((Cell(str(category)), *counted, *cells))
    columns = [Column("class"), *([Column(str(count).removeprefix("truth_").split("_")[0], True, "in the truth")] if count else [])]
    columns += [Column(metric, True)] if len(runs) == 1 else [Column(label, True) for label in labels]
    columns += ([Column("95 % interval", True)] if len(runs) == 1 else []) + [Column(m, True) for m in further]
    return Table(f"classes-{name}-{metric}", f"{metric} by class, %", tuple(columns), tuple(rows))


def _same_family(metric: str, main: str) -> bool:
    """Whether both are of one metric: PQ with SQ and RQ, AP with AP50, IoU with accuracy."""
    families = (("PQ", "SQ", "RQ"), ("AP", "AR", "boundary"), ("IoU", "accuracy", "iIoU"))
    return any(metric.startswith(family) and main.startswith(family) for family in families)


def _or_nan(line: Any) -> float:
    return math.nan if line is None else float(line.value)


def size_metrics(frame: "pd.DataFrame", runs: Sequence[str]) -> dict[str, str]:
    """The AP figures by COCO's sizes that any of the runs has -> small, medium, large; empty for none."""
    for end in ("", "_th_pan"):
        names = {f"AP{letter}{end}": word for letter, word in (("s", "small"), ("m", "medium"), ("l", "large"))}
        if any(not math.isnan(value_of(frame, run, name)) for run in runs for name in names):
            return names
    return {}


def size_table(frame: "pd.DataFrame", name: str, runs: Sequence[Run], numbers: Mapping[str, int]) -> Table | None:
    """AP by COCO's object sizes."""
    metrics = size_metrics(frame, [run.label for run in runs])
    if not metrics:
        return None
    rows = []
    for run in runs:
        lines = [line_of(frame, run.label, m) for m in metrics]
        cells = []
        for metric, line in zip(metrics, lines, strict=True):
            cells.append(number_cell(math.nan if line is None else float(line["value"]), 2, why_missing(run, metric)))
            low, high = (math.nan, math.nan) if line is None else (float(line["low"]), float(line["high"]))
            cells.append(interval_cell(low, high))
        rows.append((run_cell(run.label, numbers), *cells))
    columns = [Column("run")]
    for metric in metrics:
        columns += [Column(metric, True), Column("95 % interval", True)]
    notes = ("small: under 32 x 32 pixels of mask, medium: up to 96 x 96, large: above (COCO)",)
    return Table(f"sizes-{name}", "AP by object size, %", tuple(columns), tuple(rows), notes)
