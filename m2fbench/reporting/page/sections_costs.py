"""The sections of a report that show what the runs cost, what was not measured, and how everything was measured."""

from collections.abc import Iterator
from typing import Any

from m2fbench.analysis.runs import Run
from m2fbench.reporting.page import plots_costs
from m2fbench.reporting.page.records import Cell, Column, Figure, Section, Table
from m2fbench.reporting.page.sections_results import Material, about_run, said_by
from m2fbench.reporting.page.tables import missing_table, record_key
from m2fbench.reporting.page.tables_costs import flops_parts, memory_table, parts_table, scopes_of, speed_table, stages_of
from m2fbench.results import RunResult
from m2fbench.types import JsonObject

OUTSIDE_NOTE = "in brackets: outside of what is measured"
_LEFT_OUT = {"scopes", "latency", "stages", "memory", "counts", "parts", "operators", "by_operator", "uncounted"}


def speed(material: Material) -> Section:
    """Images per second and where the time goes, each scope by itself."""
    runs, numbers = material.runs, material.numbers
    table = speed_table(runs, numbers)
    if table is None:
        return Section("speed", "Speed")
    figures: list[Figure] = []
    tables = [table]
    latencies = {run.label: plots_costs.read_latencies(run.speed) for run in runs if run.speed is not None}
    for scope in dict.fromkeys(scope for run in runs if run.speed is not None for scope in scopes_of(run.speed)):
        of_scope = {label: by_scope.get(scope, []) for label, by_scope in latencies.items()}
        stages = stages_of(runs, scope)
        drawn = (
            plots_costs.latency_distribution(of_scope, [run.label for run in runs], f"latency-{scope}", scope),
            plots_costs.stacked(stages, f"stages-{scope}", "Where the time goes", "ms an image", f"Scope {scope}; {OUTSIDE_NOTE}."),
        )
        figures += [figure for figure in drawn if figure is not None]
        parts = parts_table(stages, numbers, f"stages-{scope}", f"Where the time goes, ms an image, scope {scope}", OUTSIDE_NOTE)
        tables += [parts] if parts is not None else []
    memory = memory_table(runs, numbers)
    tables += [memory] if memory is not None else []
    notes = [
        f"{run.label}: no table of images beside the result, so no distribution"
        for run in runs
        if run.speed and not latencies[run.label]
    ]
    return Section("speed", "Speed", figures=tuple(figures), tables=tuple(tables), notes=tuple(notes))


def flops(material: Material) -> Section:
    """FLOPs by part of the model. A row's count is one for all variants, so each row is shown once."""
    seen: dict[Any, Run] = {}
    for run in material.runs:
        if run.flops is not None:
            seen.setdefault(run.flops.path or run.label, run)
    parts = flops_parts(list(seen.values()))
    if not parts:
        return Section("flops", "FLOPs")
    inputs = (f"{run.label}: over {(run.flops.details or {}).get('inputs')}" for run in seen.values() if run.flops)
    note = f"Of the count named paper, the same for all variants of a row that change no layer. {'; '.join(inputs)}"
    figure = plots_costs.stacked(parts, "flops", "Where the FLOPs are", "FLOPs an image, G", note)
    table = parts_table(parts, material.numbers, "flops", "FLOPs by part, G an image", note, 3)
    return Section("flops", "FLOPs", figures=() if figure is None else (figure,), tables=() if table is None else (table,))


def not_measured(material: Material) -> Section:
    """Everything without a figure, and images left out, with the reasons."""
    table = missing_table(material.frame, material.runs, material.numbers)
    rows = []
    for run in material.runs:
        for what, why in material.looked[run.label].missing.items():
            rows.append((Cell(run.label, link=record_key(material.numbers[run.label])), Cell(what), Cell(why)))
        found = material.looked[run.label].intervals
        for metric, why in (found.missing if found is not None else {}).items():
            rows.append((Cell(run.label, link=record_key(material.numbers[run.label])), Cell(f"intervals of {metric}"), Cell(why)))
    columns = (Column("run"), Column("analysis"), Column("reason"))
    tables = [table] if table is not None else []
    tables += [Table("not-analysed", "What was not analysed", columns, tuple(rows))] if rows else []
    tables += list(_skipped(material))
    return Section("not-measured", "What was not measured", tables=tuple(tables))


def _skipped(material: Material) -> Iterator[Table]:
    rows = [
        (Cell(run.label), Cell(result.kind), Cell(str(one["image_id"])), Cell(str(one["error"])))
        for run in material.runs
        for result in (run.result, run.speed)
        if result is not None
        for one in result.skipped
    ]
    if rows:
        yield Table("skipped", "Images left out", (Column("run"), Column("kind"), Column("image"), Column("reason")), tuple(rows))


def method(material: Material) -> Section:
    """The runs side by side, then everything that is known of each."""
    names = list(dict.fromkeys(name for run in material.runs for name, _ in about_run(run)))
    rows = tuple(
        (Cell(run.label, link=record_key(number)), *(Cell(dict(about_run(run)).get(name, "-")) for name in names))
        for number, run in enumerate(material.runs)
    )
    overview = Table("protocols", "The runs side by side", (Column("run"), *(Column(name) for name in names)), rows)
    parts = tuple(_record(run, number) for number, run in enumerate(material.runs))
    return Section("method", "How this was measured", tables=(overview,), notes=tuple(_intervals(material)), parts=parts)


def _intervals(material: Material) -> Iterator[str]:
    lines = []
    for run in material.runs:
        found = material.looked[run.label].intervals
        if found is not None:
            said = (
                f"{100 * found.level:.0f} % percentile bootstrap intervals over {found.images} images, {found.resamples} resamples "
                f"(seed {found.seed}), each accumulated anew from what every image contributes"
            )
            lines.append((run.label, said))
    yield from said_by(lines)
    if any(run.speed is not None for run in material.runs):
        yield "Intervals of speed are over images, as the run stored them"


def _record(run: Run, number: int) -> Section:
    rows = []
    for result in (run.result, run.speed, run.flops):
        if result is not None:
            rows += [(Cell(result.kind), Cell(name), Cell(value)) for name, value in _facts(result)]
    table = Table(f"record-{number + 1}", f"Record of {run.label}", (Column("of"), Column("what"), Column("value")), tuple(rows))
    notes = () if run.problem is None else (f"Its predictions cannot be looked at: {run.problem}",)
    return Section(record_key(number), run.label, tables=(table,), notes=notes, folded=True)


def _facts(result: RunResult) -> Iterator[tuple[str, str]]:
    """Everything that was recorded beside the figures, names dotted."""
    yield "suite", f"{result.suite['name']}: {result.suite['title']} (SHA-256 {result.suite.get('sha256')})"
    yield "row", result.row
    yield "status", result.status + (f": {result.reason}" if result.reason else "")
    groups: JsonObject = {
        "variant": result.variant, "checkpoint": result.checkpoint, "dataset": result.dataset, "protocol": result.protocol, "rules": result.rules,
        "device": result.device, "environment": result.environment, "limit": result.limit, "started": result.started, "finished": result.finished,
        "seconds": result.timings, "prediction key": result.prediction_key, "result key": result.result_key, "verified": result.verified,
        "details": {k: v for k, v in (result.details or {}).items() if k not in _LEFT_OUT},
    }  # fmt: skip
    for name, value in groups.items():
        yield from _flat(name, value)
    for scope, facts in scopes_of(result).items():
        for name in ("definition", "heads", "images", "first_of_shape", "not_counted"):
            yield f"scope {scope}.{name}", _text(facts.get(name))
    for warning in result.warnings:
        yield "warning", warning


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if value is None or value in ({}, [], ""):
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value[:20]) + (f", and {len(value) - 20} more" if len(value) > 20 else "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
