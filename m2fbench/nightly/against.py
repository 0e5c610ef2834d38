"""One figure against its last good night: what detection says of the series that ends tonight, in a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from m2fbench.analysis.circumstances import changes
from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.regressions import Rules, detect
from m2fbench.analysis.series import Detection, Paired, Point, Series, Step
from m2fbench.analysis.words import counted
from m2fbench.errors import HistoryError, shown
from m2fbench.history.history import History
from m2fbench.nightly.judged import Tonight
from m2fbench.nightly.pairing import is_drop
from m2fbench.nightly.records import Change, FigureState, FigureVerdict
from m2fbench.reporting.dashboard.naming import slug_of

Evidence = Literal["paired", "level", "published", "none"]


@dataclass(frozen=True)
class Scene:
    """What all figures of a cell are judged with. unpaired: baseline results that tonight's could not be compared with image by image ->
    why."""

    history: History
    rules: Rules
    unpaired: Mapping[str, str]


@dataclass(frozen=True)
class Known:
    """The last good night before tonight, measured under tonight's conditions. open: whether a regression stood when tonight began; level: then
    the last night in line with it, which a further change is seen against."""

    point: Point
    open: bool
    level: Point | None = None


def baseline_of(tonight: Tonight, rules: Rules) -> Known | None:
    """None where nothing before tonight can be compared with it."""
    if tonight.series is None or not tonight.earlier:
        return None
    before = detect(replace(tonight.series, points=tonight.earlier), rules)
    if before.baseline is None:
        return None
    point = tonight.earlier[before.baseline]
    if tonight.point is not None and point.conditions != tonight.point.conditions:
        return None
    if before.open is None:
        return Known(point, False)
    return Known(point, True, None if before.in_line is None else tonight.earlier[before.in_line])


def blank(tonight: Tonight, baseline: str, state: FigureState = "unmeasured", note: str | None = None) -> FigureVerdict:
    """What is known of the figure before it is compared with anything."""
    point = tonight.point
    page = None if tonight.series is None else f"series/{slug_of(tonight.series.key)}.html"
    found = FigureVerdict(
        tonight.outcome.cell.name, tonight.kind, tonight.figure, tonight.unit, tonight.higher_is_better, state, baseline, note=note, page=page
    )  # fmt: skip
    if point is None:
        return replace(found, result=tonight.entry.sha256 if tonight.entry else None, note=note or tonight.missing)
    return replace(found, value=point.value, low=point.low, high=point.high, result=point.result)


def against_last_good(scene: Scene, tonight: Tonight) -> FigureVerdict:
    known = baseline_of(tonight, scene.rules)
    if tonight.point is None or tonight.series is None:
        found = blank(tonight, "last-good", note=tonight.missing)
        standing = "; a regression stood the night before" if known is not None and known.open else ""
        return replace(_with_baseline(found, known), note=f"{found.note or 'not measured'}{standing}")
    seen = detect(tonight.series, scene.rules)
    state, step = _reading(seen, scene.rules)
    if state == "improvement" and known is not None and known.level is not None:
        known = replace(known, point=known.level)  # what has improved is the level that the regression left
    found = _with_baseline(blank(tonight, "last-good", state), known)
    pair = tonight.point.paired.get(known.point.result) if known is not None else None
    if known is not None:
        found = with_difference(found, pair)
    if step is not None:
        found = _of_step(scene, found, tonight.series, step)
    elif state == "suspect":
        found = _of_suspect(found, tonight.series, seen)
    return replace(found, note="; ".join(_notes(scene, tonight, known, seen, state, step)) or None)


def with_difference(found: FigureVerdict, pair: Paired | None) -> FigureVerdict:
    """Against ``baseline_value``: the paired difference where there is one, else that of the two values."""
    if pair is not None:
        return replace(found, difference=pair.difference, p_value=pair.p_value, evidence="paired")
    return replace(found, difference=Estimate(found.value - found.baseline_value), evidence="level")


def changes_between(history: History, before: str, after: str) -> tuple[Change, ...]:
    """What differs between the circumstances of two results; nothing where the history has lost one."""
    try:
        one, other = history.entry(before).circumstances, history.entry(after).circumstances
    except HistoryError:
        return ()
    return tuple(Change(c.what, c.before, c.after) for c in changes(one, other))


def paired_note(pair: Paired, rules: Rules) -> str | None:
    if pair.identical:
        return "the predictions are the baseline's, byte for byte"
    if pair.repeated is None or not is_drop(pair.difference.value, pair.p_value, rules):  # it was another figure that dropped
        return None
    return "a second run, made from nothing, dropped too" if pair.repeated else "a second run, made from nothing, did not drop"


def _with_baseline(found: FigureVerdict, known: Known | None) -> FigureVerdict:
    if known is None:
        return found
    return replace(found, baseline_value=known.point.value, baseline_result=known.point.result)


def _reading(seen: Detection, rules: Rules) -> tuple[FigureState, Step | None]:
    """Tonight's state, and the step that it rests on."""
    last = len(seen.states) - 1
    state, recent = seen.states[last], seen.steps[-1] if seen.steps else None
    if seen.open is not None:
        return "regression", seen.open
    if recent is not None and recent.direction == "improvement" and last in (recent.first, recent.found):
        return "improvement", recent
    if recent is not None and recent.accepted and last - recent.first < rules.window and state not in ("suspect", "restart"):
        return "accepted", recent
    if state == "suspect" or state == "outlier":
        return "suspect", None
    if state == "restart":
        return "restart", None
    return ("new" if state == "first" else "steady"), None


def _of_step(scene: Scene, found: FigureVerdict, series: Series, step: Step) -> FigureVerdict:
    first, last_good = series.points[step.first], series.points[step.last_good]
    nights = sum(not math.isnan(p.value) for p in series.points[step.first :])
    if found.evidence != "paired" or found.state == "accepted":
        before = last_good.value if step.evidence == "paired" else step.before
        found = replace(found, baseline_value=before, difference=Estimate(found.value - before), evidence=step.evidence)
    return replace(
        found,
        baseline_result=last_good.result,
        since=first.time,
        since_result=first.result,
        nights=nights,
        changes=changes_between(scene.history, last_good.result, first.result),
    )


def _of_suspect(found: FigureVerdict, series: Series, seen: Detection) -> FigureVerdict:
    """Since the first of the nights in a row that stand out."""
    first = len(series.points) - 1
    while first > 0 and seen.states[first - 1] == "suspect":
        first -= 1
    return replace(
        found, since=series.points[first].time, since_result=series.points[first].result, nights=len(series.points) - first
    )


def _notes(
    scene: Scene, tonight: Tonight, known: Known | None, seen: Detection, state: FigureState, step: Step | None
) -> list[str]:
    assert tonight.point is not None
    found = []
    pair = tonight.point.paired.get(known.point.result) if known is not None else None
    if pair is not None and (said := paired_note(pair, scene.rules)):
        found.append(said)
    if known is not None and pair is None and tonight.kind == "accuracy":
        reason = scene.unpaired.get(known.point.result, "no comparison of the images is kept")
        found.append(f"compared by its level only: {reason}")
    if state == "suspect" and not found and known is not None:
        better = (tonight.point.value > known.point.value) == tonight.higher_is_better
        found.append(f"{'better' if better else 'worse'} than before; too few nights yet to say that it stays")
    if state == "regression" and (further := _further(tonight, seen)):
        found.append(further)
    if state == "restart":
        found.append(_restart(scene, tonight))
    if state == "improvement" and step is not None and (said := _recovered(seen, step, tonight)):
        found.append(said)
    if tonight.point.disturbed:
        found.append("something else took the machine's time while it was measured")
    if known is not None and known.point.disturbed:
        found.append("something else took the machine's time while its baseline was measured")
    if seen.trend is not None:
        t = seen.trend
        found.append(f"drifts: {100 * t.change:+.1f} % over {t.days:.0f} days and {counted(t.points, 'night')}")
    return found


def _further(tonight: Tonight, seen: Detection) -> str | None:
    """Where the figure has fallen further since the regression began: the last time."""
    assert tonight.series is not None
    last = seen.steps[-1]
    if seen.open is None or last.direction != "regression" or last.first <= seen.open.first:
        return None
    return f"worse again since {tonight.series.points[last.first].time[:10]}"


def _recovered(seen: Detection, step: Step, tonight: Tonight) -> str | None:
    """Where the step goes back to about what stood before a regression."""
    assert tonight.series is not None
    place = seen.steps.index(step)
    earlier = seen.steps[place - 1] if place else None
    if earlier is None or earlier.direction != "regression" or abs(step.change) < abs(earlier.change) / 2:
        return None
    return f"recovered from the regression of {tonight.series.points[earlier.first].time[:10]}"


def _restart(scene: Scene, tonight: Tonight) -> str:
    """What of the conditions is not as it was."""
    said = "measured under other conditions than the nights before, so not compared with them"
    try:
        before = scene.history.entry(tonight.earlier[-1].result).conditions if tonight.earlier else {}
    except HistoryError:
        return said
    now = tonight.entry.conditions if tonight.entry is not None else {}
    unlike = unlike_conditions(before, now)
    return f"{said} ({unlike})" if unlike else said


def unlike_conditions(before: Mapping[str, object], now: Mapping[str, object], most: int = 3) -> str:
    """``dataset.count: was 60, is 61``, the first few."""
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    parts = [f"{key}: was {shown(before.get(key), 40)}, is {shown(now.get(key), 40)}" for key in keys[:most]]
    return "; ".join([*parts, *([f"{len(keys) - most} more"] if len(keys) > most else [])])
