"""A result as an MLflow run: names, parameters, metrics and tags. Pure.

A run is named ``ROW/VARIANT``, begins and ends when the result's measuring did, and holds

    parameters  the cell (suite, row, variant, kind, limit), the conditions that its figures hold under (the variant's settings, protocol,
                dataset) and the checkpoint
    metrics     every figure that was measured, at the time of the result; ``fps.low`` and ``fps.high`` are the ends of its interval
    tags        m2fbench.result, the SHA-256 by which it is found again; status, reason, machine, night; the commit, the versions of libraries and
                whatever else may explain a change; m2fbench.unmeasured, the figures without a value, since a metric must have one
    artifact    result.json, the result file itself

MLflow admits no brackets in the names of metrics and draws those with the same beginning up to a slash together: "time (backbone)" becomes
``backbone/time``, a class's figure ``class/person/AP``. Other characters than ASCII letters, digits, ``_``, ``-`` and inner spaces are written
as their code point in hexadecimal between dots (``AP@50``: ``AP.40.50``), so that no two figures share a name and ``figure_of`` tells each.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from m2fbench.history.entries import conditions_hash
from m2fbench.history.exporting import FORMAT_VERSION, finite, time_of
from m2fbench.history.records import Entry
from m2fbench.results import RunResult

RESULT_TAG = "m2fbench.result"
ARTIFACT_TAG = "m2fbench.artifact"
ARTIFACT = "result.json"
LONGEST_NAME, LONGEST_PARAMETER, LONGEST_TAG = 250, 6000, 5000  # characters, MLflow's limits


@dataclass(frozen=True)
class MlflowRun:
    """started, finished: milliseconds since 1970, UTC. status: "FINISHED", or "FAILED" for what could not be run. unmeasured: figures left out,
    since they have no value, or a name that is too long."""

    name: str
    started: int
    finished: int
    status: str
    parameters: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    unmeasured: tuple[str, ...]


def run_of(entry: Entry, result: RunResult | None, *, per_class: bool = False) -> MlflowRun:
    """result: the whole result, for when it was begun and for figures by class; None where its file is not at hand."""
    finished = _milliseconds(entry.time)
    started = _milliseconds(result.started) if result is not None and result.started else finished
    metrics: dict[str, float] = {}
    unmeasured: list[str] = []
    for key, shown_name, value in _metrics(entry, result if per_class else None):
        measured = finite(value)
        if measured is None or len(key) > LONGEST_NAME:
            unmeasured.append(shown_name)
        else:
            metrics[key] = measured
    could_run = entry.status not in ("unavailable", "unsupported")
    return MlflowRun(
        name=f"{entry.row}/{entry.variant}",
        started=min(started, finished),
        finished=finished,
        status="FINISHED" if could_run else "FAILED",
        parameters=_parameters(entry),
        metrics=metrics,
        tags=_tags(entry, unmeasured),
        unmeasured=tuple(unmeasured),
    )


def metric_name(figure: str, category: str | None = None) -> str:
    """The metric's name of a figure, which may hold its subset in brackets, over all classes or for one."""
    name, bracket, subset = figure.partition(" (")
    parts = [subset[:-1], name] if bracket and subset.endswith(")") else [figure]
    return "/".join(map(_escaped, parts if category is None else ["class", category, *parts]))


def figure_of(metric: str) -> tuple[str, str | None]:
    """(figure, category) of a metric's name. Raises ValueError for a name that ``metric_name`` does not make."""
    parts = [_unescaped(part) for part in metric.split("/")]
    category = None
    if len(parts) > 2 and parts[0] == "class":
        category, parts = parts[1], parts[2:]
    figure = f"{parts[1]} ({parts[0]})" if len(parts) == 2 else metric if len(parts) > 2 else parts[0]
    if metric_name(figure, category) != metric:
        raise ValueError(f"{metric!r} is no metric of m2fbench")
    return figure, category


def _metrics(entry: Entry, result: RunResult | None) -> Iterator[tuple[str, str, float]]:
    """(metric, what to call it, value)."""
    for figure in entry.figures:
        name = metric_name(figure.name)
        yield name, figure.name, figure.value
        for end, value in (("low", figure.low), ("high", figure.high)):
            if finite(value) is not None:
                yield f"{name}.{end}", f"{figure.name} {end}", value
    for m in () if result is None else result.measurements:
        if m.category is not None:
            figure_name = m.name if m.subset is None else f"{m.name} ({m.subset})"
            yield metric_name(figure_name, m.category), f"{figure_name} of {m.category}", m.value


def _parameters(entry: Entry) -> dict[str, str]:
    found: dict[str, object] = {
        "suite": entry.suite,
        "row": entry.row,
        "variant": entry.variant,
        "kind": entry.kind,
        "limit": entry.limit,
        **{key: value for key, value in entry.conditions.items() if key != "limit"},
        **{key: value for key, value in entry.circumstances.items() if key.startswith("checkpoint.")},
    }
    return {_key(key): _cut(_text(value), LONGEST_PARAMETER) for key, value in found.items()}


def _tags(entry: Entry, unmeasured: list[str]) -> dict[str, str]:
    of_ours = {
        RESULT_TAG: entry.sha256,
        "m2fbench.export": FORMAT_VERSION,
        "m2fbench.status": entry.status,
        "m2fbench.reason": entry.reason,
        "m2fbench.machine": entry.machine,
        "m2fbench.night": entry.night or None,
        "m2fbench.commit": entry.circumstances.get("environment.m2fbench_commit"),
        "m2fbench.conditions": conditions_hash(entry.conditions),
        "m2fbench.disturbed": entry.disturbed,
        "m2fbench.unmeasured": json.dumps(unmeasured, ensure_ascii=False) if unmeasured else None,
        "m2fbench.warnings": "\n".join(entry.warnings) or None,
        "mlflow.source.name": "m2fbench",
        "mlflow.note.content": entry.reason,
    }
    others = {_key(k): v for k, v in entry.circumstances.items() if k not in entry.conditions and not k.startswith("checkpoint.")}
    found = others | of_ours
    return {key: _cut(_text(value), LONGEST_TAG) for key, value in found.items() if value is not None}


def _escaped(part: str) -> str:
    inner = re.sub(r"[^A-Za-z0-9_\- ]", lambda match: f".{ord(match[0]):x}.", part)
    return re.sub(r"^ | $", ".20.", inner) or ".-."


def _unescaped(part: str) -> str:
    return "" if part == ".-." else re.sub(r"\.([0-9a-f]+)\.", lambda match: chr(int(match[1], 16)), part)


def _key(key: str) -> str:
    """The name of a parameter or tag: dotted keys stay as they are."""
    name = key if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]*", key) else _escaped(key)
    return name[:LONGEST_NAME]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _milliseconds(text: str) -> int:
    time = time_of(text)
    return 1 if time is None else max(1, int(time.timestamp() * 1000))
