"""A history's results and series as JSON documents."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from m2fbench.analysis.circumstances import changes
from m2fbench.analysis.series import Detection, Series
from m2fbench.history.records import Entry
from m2fbench.types import JsonObject


def json_text(value: Iterable[object] | JsonObject) -> str:
    """NaN as null; of many, as a list."""
    document = value if isinstance(value, dict) else list(value)
    return json.dumps(_without_nan(document), indent=1, ensure_ascii=False, allow_nan=False)


def series_json(series: Series, detection: Detection, entries: Mapping[str, Entry] | None = None) -> JsonObject:
    """entries: by SHA-256; where they are given, all points are in it, with the names of their nights, and what changed at each step."""
    steps = []
    for step in detection.steps:
        first, last_good = series.points[step.first], series.points[step.last_good]
        steps.append(
            asdict(step)
            | {"first": first.result, "last_good": last_good.result, "since": first.time, "open": step is detection.open}
        )
        if entries is not None:
            found = changes(entries[last_good.result].circumstances, entries[first.result].circumstances)
            steps[-1]["night"] = entries[first.result].night or None
            steps[-1]["changes"] = [{"what": c.what, "before": c.before, "after": c.after} for c in found]
    document = asdict(series.key) | {"unit": series.unit, "higher_is_better": series.higher_is_better, "steps": steps}
    points = [asdict(point) | {"state": state} for point, state in zip(series.points, detection.states, strict=True)]
    if entries is not None:
        points = [point | {"night": entries[point["result"]].night or None} for point in points]
    return document | {"cell": series.key.cell, "latest": points[-1], "points": points if entries is not None else len(points)}


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
