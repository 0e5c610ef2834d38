"""The sections of a report that show how good the runs are: results, costs, classes, object sizes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m2fbench.analysis.runs import Run
from m2fbench.history.entries import disturbed
from m2fbench.reporting.images.picture import safe_name
from m2fbench.reporting.page import plots_accuracy
from m2fbench.reporting.page.frame import cost_of, value_of
from m2fbench.reporting.page.looking import Looked
from m2fbench.reporting.page.plots_accuracy import Point
from m2fbench.reporting.page.records import Figure, Section
from m2fbench.reporting.page.tables import (
    MAIN,
    by_suite,
    figures_table,
    paper_table,
    task_of,
)
from m2fbench.reporting.page.tables_classes import class_metrics, class_table, size_metrics, size_table
from m2fbench.results import RunResult

if TYPE_CHECKING:
    import pandas as pd

CLASS_FIGURES = ("PQ", "AP", "IoU", "boundary_AP", "iIoU")
"""The figures by class that get a table and a figure of their own, with whatever ending."""


@dataclass(frozen=True)
class Material:
    """What sections are made of. numbers: place of a run among all, by its label; suites: the runs of each suite, by a name that is safe in
    keys and files."""

    runs: tuple[Run, ...]
    frame: "pd.DataFrame"
    looked: Mapping[str, Looked]

    @property
    def numbers(self) -> dict[str, int]:
        return {run.label: number for number, run in enumerate(self.runs)}

    @property
    def suites(self) -> dict[str, list[Run]]:
        found = list(by_suite(self.runs).items())
        names = [safe_name(name) for name, _ in found]
        return {
            name if names.count(name) == 1 else f"{name}-{place}": runs
            for place, (name, (_, runs)) in enumerate(zip(names, found, strict=True), 1)
        }

    def value(self, run: Run, metric: str) -> float:
        """A run's figure over everything."""
        return value_of(self.frame, run.label, metric)

    def title(self, runs: Sequence[Run]) -> str:
        return str(runs[0].any_result.suite["title"])


def machine_of(result: RunResult | None) -> str:
    """The processor or accelerator that a result was measured on."""
    device = (result.device if result else None) or {}
    machine = (
        ((result.environment if result else None) or {}).get("processor") if device.get("kind") == "cpu" else device.get("name")
    )
    return str(machine or device.get("kind") or "device unknown")


def overviews(material: Material) -> tuple[Figure, ...]:
    """The first figures of the page: for each suite all its runs beside what is published."""
    found = []
    for name, runs in material.suites.items():
        metrics = MAIN[task_of(runs[0])]
        figure = plots_accuracy.overview(material.frame, [r.label for r in runs], metrics, f"overview-{name}", material.title(runs))
        found += [figure] if figure is not None else []
    return tuple(found)


def results(material: Material) -> Section:
    """The paper's columns, then every figure with its interval beside the published one."""
    numbers, runs = material.numbers, material.runs
    tables = [paper_table(material.frame, name, of, numbers) for name, of in material.suites.items()]
    why = {
        run.label: material.looked[run.label].missing["intervals"]
        for run in runs
        if "intervals" in material.looked[run.label].missing
    }
    about = {run.label: about_run(run) for run in runs}
    tables.append(figures_table(material.frame, runs, numbers, why, about))
    remarks = [(run.label, f"warning: {w}") for run in runs for w in _warnings(run)]
    remarks += [
        (run.label, _standing(r)) for run in runs for r in (run.result, run.speed) if r is not None and r.reason is not None
    ]
    notes = said_by(remarks)
    intro = "Measured beside published. Each run's name leads to how it was measured; what has no figure says why."
    return Section("results", "Results", intro, tables=tuple(tables), notes=tuple(notes))


def said_by(lines: Sequence[tuple[str, str]]) -> list[str]:
    """(run, remark) pairs as lines, each remark once with all the runs that it is of."""
    runs: dict[str, dict[str, None]] = {}
    for run, remark in lines:
        runs.setdefault(remark, {})[run] = None
    return [f"{', '.join(of)}: {remark}" for remark, of in runs.items()]


def _warnings(run: Run) -> Iterator[str]:
    for result in (run.result, run.speed, run.flops):
        yield from result.warnings if result is not None else ()


def _standing(result: RunResult) -> str:
    word = "not comparable with published figures" if result.status == "complete" else result.status
    return f"{result.kind}: {word}: {result.reason}"


def about_run(run: Run) -> tuple[tuple[str, str], ...]:
    """How a run was measured, in a few lines."""
    result = run.any_result
    protocol, variant, dataset = result.protocol or {}, result.variant, result.dataset or {}
    environment = result.environment or {}
    libraries = environment.get("libraries", {})
    size = f", {protocol['min_size']}/{protocol['max_size']}" if "min_size" in protocol else ""
    lines = {
        "checkpoint": (result.checkpoint or {}).get("reference"),
        "protocol": f"{protocol.get('name')}{size}{', multi-scale and flip' if protocol.get('tta') else ''}" if protocol else None,
        "precision": variant.get("dtype"),
        "images": f"{dataset.get('scored_images')} of {dataset.get('name')}" if dataset else None,
        "hardware": machine_of(result) if result.device else None,
        "versions": ", ".join(f"{n} {libraries[n]}" for n in ("torch", "transformers", "hotcoco") if n in libraries) or None,
        "measured": (result.finished or "").replace("T", " ").replace("+00:00", " UTC") or None,
    }
    return tuple((name, str(value)) for name, value in lines.items() if value is not None)


def trade_offs(material: Material) -> Section:
    """Accuracy against FLOPs, parameters and fps, with the published checkpoints of the suites beside."""
    figures, notes = [], []
    for name, runs in material.suites.items():
        metric, labels = MAIN[task_of(runs[0])][0], [run.label for run in runs]
        for cost in plots_accuracy.COSTS:
            printed = list(published_points(runs, metric, cost))
            known = [value for value in (cost_of(material.frame, label, cost) for label in labels) if not math.isnan(value)]
            if len(known) > 1 and len({*known, *(p.cost for p in printed)}) == 1:
                notes.append(f"{material.title(runs)}: {metric} against {cost}: not drawn, {cost} are the same for all runs")
                continue
            figure = plots_accuracy.trade_off(material.frame, labels, metric, cost, printed, f"trade-off-{name}-{cost.lower()}")
            if figure is None:
                notes.append(
                    f"{material.title(runs)}: {metric} against {cost}: not drawn, {len(known)} of {len(labels)} runs have {cost}"
                )
            else:
                figures.append(figure)
        if slowed := [run.label for run in runs if disturbed(run.speed)]:
            notes.append(f"fps of {', '.join(slowed)}: the measurement was disturbed: see the warnings under Results.")
    intro = "Up is more accurate; left is cheaper in FLOPs and parameters, right is faster. No measured run beats one on the front in both ways."
    return Section("trade-offs", "Accuracy against cost", intro, tuple(figures), notes=tuple(notes))


def published_points(runs: Sequence[Run], metric: str, cost: str) -> Iterator[Point]:
    """What the suite's rows have published of both, whether they were run or not."""
    suite = runs[0].suite
    names = {"FLOPs": ("flops_G", 1e9), "parameters": ("params_M", 1e6), "fps": ("fps", 1.0)}
    for row in suite.checkpoints if suite is not None else ():
        printed = None if row.published_costs is None else getattr(row.published_costs, names[cost][0])
        if printed is not None and metric in row.published:
            yield Point(row.name, printed * names[cost][1], row.published[metric], measured=False)


def classes(material: Material) -> Section:
    """Every class: figure and table of each head's main figure."""
    parts = []
    for name, runs in material.suites.items():
        labels = [run.label for run in runs]
        lines = material.frame[material.frame.run.isin(labels) & material.frame.category.notna() & material.frame.subset.isna()]
        lines = lines[lines.kind == ("accuracy" if (lines.kind == "accuracy").any() else "speed")]
        metrics = [m for m in class_metrics(lines, labels[0]) if m.removesuffix("_pan").removesuffix("_th") in CLASS_FIGURES]
        for metric in metrics:
            key = f"{name}-{safe_name(metric)}"
            figure = plots_accuracy.class_bars(lines, labels, metric, f"classes-{key}")
            table = class_table(lines, key, runs, metric)
            title = f"{metric} by class" + (f": {material.title(runs)}" if len(material.suites) > 1 else "")
            figures = () if figure is None else (figure,)
            parts.append(Section(f"by-class-{key}", title, figures=figures, tables=(table,), folded=metric != metrics[0]))
    return Section("classes", "By class", parts=tuple(parts))


def sizes(material: Material) -> Section:
    """AP by COCO's object sizes."""
    figures, tables = [], []
    for name, runs in material.suites.items():
        labels = [run.label for run in runs]
        metrics = size_metrics(material.frame, labels)
        table = size_table(material.frame, name, runs, material.numbers)
        figure = plots_accuracy.grouped_bars(
            material.frame, labels, metrics, f"sizes-{name}", "AP by object size", "Lines are 95 % intervals."
        ) if metrics else None  # fmt: skip
        figures += [figure] if figure is not None else []
        tables += [table] if table is not None else []
    return Section("sizes", "By object size", "Finer sizes are among the subsets.", tuple(figures), tables=tuple(tables))
