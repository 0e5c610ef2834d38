"""All figures of a set of runs in one long pandas frame, a line a figure, from which every table and every plot is made.

Columns: run (its label), suite, row, variant, kind (accuracy, speed, flops), metric, category (class, None: over all), subset, value, unit,
higher_is_better, low, high (95 % interval), published, published_source, comparable, difference (measured - published, where comparable or not),
status, reason, scope (of speed: paper, task), images (that were scored or timed), device, path (suite/row/variant/file).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m2fbench.analysis.findings import Intervals
from m2fbench.analysis.runs import Run
from m2fbench.results import Comparison, RunResult
from m2fbench.types import Measurement

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "run", "suite", "row", "variant", "kind", "metric", "category", "subset", "value", "unit", "higher_is_better", "low", "high",
    "published", "published_source", "comparable", "difference", "status", "reason", "scope", "images", "device", "path",
)  # fmt: skip
_ENDS = ("_low", "_high")
_NO_INTERVAL = {"low": math.nan, "high": math.nan}


def frame_of(runs: Sequence[Run], intervals: Mapping[str, Intervals] | None = None) -> "pd.DataFrame":
    """Every figure of the runs, in their order, measured or only published. intervals: those of a run's accuracy, by its label.

    ``flops.json`` is one for all variants of a row, and so are its lines: each variant has them.
    """
    import pandas as pd

    lines = [line for run in runs for line in _lines(run, (intervals or {}).get(run.label))]
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(("value", "low", "high", "published", "difference", "images"), "float64"))


def _lines(run: Run, intervals: Intervals | None) -> Iterator[dict[str, Any]]:
    for result in (run.result, run.speed, run.flops):
        if result is None:
            continue
        of_result = intervals if result is run.result else None
        common = _common(run, result)
        printed = {c.metric: c for c in result.comparisons}
        seen = set()
        ends = {m.name: m.value for m in result.measurements if m.category is None and m.name.endswith(_ENDS)}
        for measurement in result.measurements:
            if measurement.name in ends:
                continue
            over_all = measurement.category is None and (measurement.subset is None or result.kind == "accuracy")
            beside = printed.get(measurement.name) if over_all else None
            if beside is not None:
                seen.add(measurement.name)
            yield common | _figure(measurement, result) | _published(beside) | _interval(measurement, ends, of_result)
        parameters = (result.checkpoint or {}).get("parameters")
        if result.kind == "accuracy" and parameters is not None:
            yield common | _figure(Measurement("parameters", parameters, "count", False), result) | _published(None) | _NO_INTERVAL
        for metric, comparison in printed.items():
            if metric not in seen:
                missing = Measurement(metric, math.nan, _unit(metric))
                yield common | _figure(missing, result) | _published(comparison) | _NO_INTERVAL


def _common(run: Run, result: RunResult) -> dict[str, Any]:
    device = result.device or {}
    machine = (result.environment or {}).get("processor") if device.get("kind") == "cpu" else device.get("name")
    return {
        "run": run.label,
        "suite": str(result.suite["name"]),
        "row": result.row,
        "variant": str(result.variant["name"]),
        "kind": result.kind,
        "status": result.status,
        "reason": result.reason,
        "images": (result.dataset or {}).get("scored_images"),
        "device": " ".join(str(part) for part in (device.get("kind"), machine) if part) or None,
        "path": None if result.path is None else "/".join(result.path.parts[-4:]),
    }


def _figure(measurement: Measurement, result: RunResult) -> dict[str, Any]:
    scope = None
    name = measurement.name
    if result.kind == "speed" and name.startswith(("fps", "latency", "time", "speed_up")):
        scope = "task" if "_task" in name else "paper"
        name = name.replace("_task", "")
    return {
        "metric": name,
        "category": measurement.category,
        "subset": measurement.subset,
        "value": measurement.value,
        "unit": measurement.unit,
        "higher_is_better": measurement.higher_is_better,
        "scope": scope,
    }


def _published(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {"published": math.nan, "published_source": None, "comparable": None, "difference": math.nan}
    return {
        "published": comparison.published,
        "published_source": comparison.source,
        "comparable": comparison.comparable,
        "difference": comparison.difference,
    }


def _interval(measurement: Measurement, ends: Mapping[str, float], intervals: Intervals | None) -> dict[str, float]:
    """As the result has it beside the figure (speed), else as the bootstrap gives it (accuracy)."""
    if measurement.category is None and f"{measurement.name}_low" in ends:
        return {"low": ends[f"{measurement.name}_low"], "high": ends.get(f"{measurement.name}_high", math.nan)}
    found = None if intervals is None else intervals.figures.get((measurement.name, measurement.category))
    return {"low": math.nan if found is None else found.low, "high": math.nan if found is None else found.high}


def _unit(metric: str) -> str:
    """Of a figure that is published and was not measured."""
    return {"fps": "images/s", "FLOPs": "count", "parameters": "count"}.get(metric, "percent")


def value_of(frame: "pd.DataFrame", run: str, metric: str, *, kind: str | None = None, scope: str | None = None) -> float:
    """One run's figure over all classes; NaN where it has none."""
    chosen = line_of(frame, run, metric, kind=kind, scope=scope)
    return math.nan if chosen is None else float(chosen["value"])


def line_of(
    frame: "pd.DataFrame", run: str, metric: str, *, kind: str | None = None, scope: str | None = None
) -> "pd.Series[Any] | None":
    """The line of one run's figure over all classes: of its accuracy where that was measured too, else of its speed; None for none."""
    chosen = frame[(frame.run == run) & (frame.metric == metric) & frame.category.isna()]
    if kind is not None:
        chosen = chosen[chosen.kind == kind]
    if scope is not None:
        chosen = chosen[chosen.scope == scope]
    return None if chosen.empty else chosen.iloc[0]


def speed_scope(frame: "pd.DataFrame") -> str | None:
    """The one scope whose fps all runs are shown by: ``paper`` where any run has it; None where no speed was measured."""
    scopes = set(frame[(frame.metric == "fps") & frame.value.notna()].scope)
    return next((scope for scope in ("paper", "task") if scope in scopes), None)


def cost_of(frame: "pd.DataFrame", run: str, cost: str) -> float:
    """FLOPs (count ``paper``), parameters, or fps (of ``speed_scope``), as counted or measured."""
    return value_of(frame, run, cost, scope=speed_scope(frame) if cost == "fps" else None)
