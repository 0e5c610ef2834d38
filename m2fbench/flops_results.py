"""FLOPs and parameters of a suite's rows as results, for a suite whose ``measure`` asks for them."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from m2fbench.environment import describe_environment
from m2fbench.facts import Planned, not_run, now
from m2fbench.flops import FlopsRequest, ModelCost, flops_of_row
from m2fbench.planning import Event, Session
from m2fbench.results import Comparison, RunResult, compare
from m2fbench.types import Measurement, Published
from m2fbench.writing import make_folder, write_atomically


def flops_result(session: Session, planned: Planned, data: Path | None) -> RunResult:
    """What a row's model costs, stored as ``flops.json`` of the row: it is the same under every variant that changes no layer."""
    spec = planned.spec
    if planned.job is None and spec.row.checkpoint is None:
        return replace(not_run(spec, "unavailable", spec.row.unavailable), kind="flops")
    started = now()
    session.tell(Event("count", spec.row.name, spec.variant.name, message="counting FLOPs"))
    cost = flops_of_row(spec.suite, spec.row, FlopsRequest(data=data))
    known = replace(not_run(spec, "complete", None), kind="flops", details=cost.to_json(), environment=describe_environment())
    if cost.problem is not None:
        known = replace(known, status="unavailable", reason=cost.problem)
    measurements, published = tuple(figures(cost)), tuple(_published(cost))
    result = replace(
        known,
        started=started,
        finished=now(),
        measurements=measurements,
        published=published,
        comparisons=tuple(comparisons(cost)),
        warnings=cost.notes,
    )
    path = session.output / spec.suite.suite / spec.row.name / "flops.json"
    make_folder(path.parent)
    write_atomically(path, json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return replace(result, path=path)


def figures(cost: ModelCost) -> Iterator[Measurement]:
    """FLOPs are those of the count ``paper``, a multiply-add being one; ``FLOPs_fvcore`` those of the other. Both are means over the images."""
    for name, count in cost.counts.items():
        figure = "FLOPs" if name == "paper" else f"FLOPs_{name}"
        yield Measurement(figure, count.mean, "count", higher_is_better=False)
        yield Measurement(f"{figure}_std", count.std, "count", higher_is_better=False)
        for part, flops in count.count.by_part.items():
            yield Measurement(f"{figure}_by_part", flops, "count", higher_is_better=False, subset=part)
    yield Measurement("parameters", cost.all_parameters or math.nan, "count", higher_is_better=False)


def comparisons(cost: ModelCost) -> Iterator[Comparison]:
    """With the published figures: parameters are the same whatever the inputs, FLOPs those of the published inputs only."""
    measured = tuple(figures(cost))
    for printed in _published(cost):
        comparable = printed.metric == "parameters" or cost.as_published
        yield from compare(measured, (printed,), comparable=comparable, tolerance={})


def _published(cost: ModelCost) -> Iterator[Published]:
    if cost.published is not None:
        for figure, value in (
            ("FLOPs", _times(cost.published.flops_G, 10**9)),
            ("parameters", _times(cost.published.params_M, 10**6)),
        ):
            if value is not None:
                yield Published(figure, value, cost.source)


def _times(value: float | None, unit: int) -> float | None:
    return None if value is None else value * unit
