"""The tables that are made from the frame of figures: in the paper's columns, every figure beside the published one, and what was not measured."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m2fbench.analysis.runs import Run
from m2fbench.reporting.page.frame import cost_of, value_of
from m2fbench.reporting.page.records import NOT_MEASURED, Cell, Column, Table, interval_cell, number_cell
from m2fbench.types import Head

if TYPE_CHECKING:
    import pandas as pd

PAPER_COLUMNS: Mapping[Head, tuple[str, ...]] = {
    "instance": ("AP", "APs", "APm", "APl", "boundary_AP"),
    "panoptic": ("PQ", "PQ_th", "PQ_st", "AP_th_pan", "mIoU_pan"),
    "semantic": ("mIoU",),
}
"""The accuracies of the paper's tables, in its order: tables III (COCO instance), I (COCO panoptic), V (ADE20K semantic)."""
MAIN: Mapping[Head, tuple[str, ...]] = {"instance": ("AP",), "panoptic": ("PQ", "AP_th_pan", "mIoU_pan"), "semantic": ("mIoU",)}
"""What a task is known by, the first of all first."""
COSTS = {
    "parameters": Column("params, M", True, "10⁶ parameters"),
    "FLOPs": Column("FLOPs, G", True, "10⁹ an image, a multiply-add being one, by the count named paper"),
    "fps": Column("fps", True, "images per second, batch 1, by scope"),
}
_SCALES = {"parameters": 1e6, "FLOPs": 1e9, "fps": 1.0}


def task_of(run: Run) -> Head:
    """A run's task: its suite's; where that is not at hand, the one whose figures it has."""
    if run.suite is not None:
        return run.suite.task
    names = {m.name for result in (run.result, run.speed) if result for m in result.measurements}
    return "panoptic" if "PQ" in names else "semantic" if "mIoU" in names else "instance"


def record_key(number: int) -> str:
    """Key of what the page says of the run of that number: how it was measured."""
    return f"run-{number + 1}"


def by_suite(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each suite, in their order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(str(run.any_result.suite["name"]), []).append(run)
    return found


def why_missing(run: Run, metric: str) -> str:
    """Why a run has no figure of that name, as far as is known."""
    if metric == "fps":
        return "no speed was measured: m2fbench speed" if run.speed is None else run.speed.reason or "no speed of this scope"
    if metric == "FLOPs":
        return "FLOPs were not counted: measure: flops in the suite" if run.flops is None else run.flops.reason or "not counted"
    result = run.result or run.speed
    if result is None or metric == "parameters":
        return "not counted"
    if result.status in ("unavailable", "unsupported", "predicted"):
        return f"{result.status}: {result.reason or 'not scored'}"
    known = {m.name for m in result.measurements}
    return "nothing of this kind in the truth" if metric in known else "no metric of the suite gives it"


def run_cell(label: str, numbers: Mapping[str, int], about: tuple[tuple[str, str], ...] = ()) -> Cell:
    """A run's name, which leads to how it was measured."""
    return Cell(label, label, link=record_key(numbers[label]) if label in numbers else "", about=about)


def paper_table(frame: "pd.DataFrame", name: str, runs: Sequence[Run], numbers: Mapping[str, int]) -> Table:
    """The columns of the paper's table of this task, one line a run; of semantic suites one line for single and multi-scale."""
    task, title = task_of(runs[0]), str(runs[0].any_result.suite["title"])
    if task == "semantic":
        return _semantic_paper_table(frame, name, runs, numbers)
    metrics = [
        m for m in PAPER_COLUMNS[task] if m != "boundary_AP" or any(not math.isnan(value_of(frame, r.label, m)) for r in runs)
    ]
    rows = []
    for run in runs:
        cells = [number_cell(value_of(frame, run.label, m), 1, why_missing(run, m)) for m in metrics]
        rows.append((run_cell(run.label, numbers), _backbone(run), *cells, *_costs(frame, run)))
    columns = (Column("run"), Column("backbone"), *(Column(m, True) for m in metrics), *COSTS.values())
    return Table(f"paper-{name}", f"{title}: the paper's columns", columns, tuple(rows), _paper_notes(frame, runs))


def _costs(frame: "pd.DataFrame", run: Run) -> Iterator[Cell]:
    for cost, scale in _SCALES.items():
        yield number_cell(cost_of(frame, run.label, cost) / scale, 1, why_missing(run, cost))


def _backbone(run: Run) -> Cell:
    name = (run.any_result.checkpoint or {}).get("backbone")
    return Cell(str(name) if name else NOT_MEASURED)


def _paper_notes(frame: "pd.DataFrame", runs: Sequence[Run]) -> tuple[str, ...]:
    scopes = sorted({str(s) for s in frame[frame.run.isin([r.label for r in runs]) & (frame.metric == "fps")].scope.dropna()})
    devices = sorted({str(d) for d in frame[frame.run.isin([r.label for r in runs]) & (frame.kind == "speed")].device.dropna()})
    return (f"fps: scope {scopes[0] if len(scopes) == 1 else 'paper'}, on {'; '.join(devices)}",) if devices else ()


def _semantic_paper_table(frame: "pd.DataFrame", name: str, runs: Sequence[Run], numbers: Mapping[str, int]) -> Table:
    """A multi-scale run stands on the line of the single-scale run of the same settings."""
    lines: list[list[Run | None]] = []
    for run in runs:
        multi = bool((run.any_result.protocol or {}).get("tta"))
        free = next(
            (
                p
                for p in lines
                if p[multi] is None and (other := p[not multi]) is not None and _all_but_scale(other) == _all_but_scale(run)
            ),
            None,
        )
        if free is not None:
            free[multi] = run
        else:
            lines.append([None, run] if multi else [run, None])
    rows = []
    for pair in lines:
        first = pair[0] or pair[1]
        assert first is not None
        crop = (first.any_result.protocol or {}).get("min_size")
        scores = [
            Cell(NOT_MEASURED, math.nan, "not run")
            if run is None
            else number_cell(value_of(frame, run.label, "mIoU"), 1, why_missing(run, "mIoU"))
            for run in pair
        ]
        rows.append((
            run_cell(first.label, numbers), _backbone(first), number_cell(float(crop) if crop else math.nan, 0), *scores, *_costs(frame, first),
        ))  # fmt: skip
    columns = (
        Column("run"), Column("backbone"), Column("crop", True, "shortest edge of the test image, in pixels"),
        Column("mIoU s.s.", True, "single-scale"),
        Column("mIoU m.s.", True, "multi-scale and flip"), *COSTS.values(),
    )  # fmt: skip
    title = f"{runs[0].any_result.suite['title']}: the paper's columns"
    return Table(f"paper-{name}", title, columns, tuple(rows), _paper_notes(frame, runs))


def _all_but_scale(run: Run) -> tuple[object, ...]:
    """What single-scale and multi-scale runs of one checkpoint under the same settings have in common."""
    result = run.any_result
    return run.folder.parent, result.row, {name: value for name, value in result.variant.items() if name not in ("name", "tta")}


def figures_table(
    frame: "pd.DataFrame",
    runs: Sequence[Run],
    numbers: Mapping[str, int],
    why: Mapping[str, str],
    about: Mapping[str, tuple[tuple[str, str], ...]],
) -> Table:
    """Every figure over all classes of accuracy and costs beside the published one. why: run -> why it has no intervals; about: how it was
    measured, in short."""
    scored = set(frame[frame.kind == "accuracy"].run)
    beside_speed = (frame.kind == "speed") & (frame.unit == "percent") & ~frame.run.isin(scored)
    chosen = frame[
        frame.category.isna()
        & (frame.kind.isin(["accuracy", "flops"]) | beside_speed)
        & ~frame.metric.str.contains("_std|_by_part")
    ]
    rows: list[tuple[Cell, ...]] = []
    told: set[str] = set()  # how a run was measured is said on its first line; every line leads there
    for line in chosen[(chosen.kind != "accuracy") | (chosen.metric != "parameters")].itertuples():
        run = runs[numbers[str(line.run)]]
        scale, digits = _scale(str(line.unit))
        missing = why_missing(run, str(line.metric)) if math.isnan(line.value) else ""
        no_interval = "counted, not sampled" if line.kind == "flops" else why.get(str(line.run), "not computed for this metric")
        printed = _printed(line.published / scale)
        rows.append((
            run_cell(run.label, numbers, () if run.label in told else about.get(run.label, ())),
            Cell(str(line.metric)), number_cell(line.value / scale, digits, missing),
            interval_cell(line.low, line.high, digits, "" if missing else no_interval), printed,
            number_cell(line.difference / scale, digits, signed=True), _standing(line), Cell(_unit(str(line.unit))),
            number_cell(line.images, 0),
        ))  # fmt: skip
        told.add(run.label)
    columns = (
        Column("run"), Column("metric"), Column("measured", True), Column("95 % interval", True), Column("published", True),
        Column("difference", True, "measured less published"), Column("comparable"), Column("unit"), Column("images", True),
    )  # fmt: skip
    sources = dict.fromkeys(str(s) for s in chosen.published_source.dropna())
    notes = tuple(f"Published: {source}" for source in sources)
    return Table("figures", "Every figure over all classes", columns, tuple(rows), notes)


def _printed(value: float) -> Cell:
    """With the digits that were printed."""
    return Cell(NOT_MEASURED, math.nan) if math.isnan(value) else Cell(f"{value:.10g}", value)


def _scale(unit: str) -> tuple[float, int]:
    """What a figure is divided by to be shown, and its digits."""
    return (1e9, 2) if unit == "count" else (1.0, 2)


def _unit(unit: str) -> str:
    return {"percent": "%", "count": "10⁹"}.get(unit, unit)


def _standing(line: Any) -> Cell:
    """Whether the published figure was measured in the same way; where not, why."""
    if math.isnan(line.published):
        return Cell("")
    return Cell("yes") if line.comparable else Cell("no", note=str(line.reason or "another setting"))


def _why_no_speed(run: Run, metric: str) -> str:
    """As far as the result says why a figure of its speed is missing."""
    assert run.speed is not None
    facts = run.speed.details
    if facts is None:
        return f"{run.speed.status}: {run.speed.reason or 'not measured'}"
    if metric == "energy":
        return str(facts.get("failure") or "; ".join((facts.get("energy") or {}).get("reasons", ())) or "no counter could be read")
    if metric == "CO2e":
        return str((facts.get("emissions") or {}).get("reason") or "not given")
    if metric.startswith("peak_"):
        on_cpu = metric == "peak_device_memory" and (run.speed.device or {}).get("kind") == "cpu"
        return "a CPU has no memory of its own" if on_cpu else "; ".join(facts["memory"]["notes"]) or "it could not be read"
    return "no image was timed" if metric == "fps" else "no metric of the suite gives it, or nothing of this kind is in the truth"


def missing_table(frame: "pd.DataFrame", runs: Sequence[Run], numbers: Mapping[str, int]) -> Table | None:
    """What was published or asked for and not measured, with the reason; None where there is nothing of that."""
    rows = []
    for line in frame[frame.category.isna() & frame.value.isna()].itertuples():
        run = runs[numbers[str(line.run)]]
        metric = f"{line.metric} ({line.subset})" if isinstance(line.subset, str) else str(line.metric)
        reason = why_missing(run, str(line.metric)) if line.kind != "speed" else _why_no_speed(run, str(line.metric))
        rows.append((run_cell(str(line.run), numbers), Cell(metric), Cell(str(line.kind)), Cell(reason)))
    for run in runs:
        for kind, result in (("accuracy", run.result), ("speed", run.speed), ("FLOPs", run.flops)):
            if result is None:
                command = {"accuracy": "m2fbench run", "speed": "m2fbench speed"}.get(kind, "measure: flops in the suite")
                rows.append(
                    (run_cell(run.label, numbers), Cell(f"all of {kind}"), Cell(kind.lower()), Cell(f"not asked for: {command}"))
                )
    columns = (Column("run"), Column("figure"), Column("kind"), Column("reason"))
    return Table("not-measured", "What was not measured", columns, tuple(rows)) if rows else None
