"""One figure against what does not move: the published one, and that of a named release."""

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.intervals import intervals
from m2fbench.analysis.regressions import Rules, detect
from m2fbench.analysis.series import Point
from m2fbench.errors import HistoryError, M2FBenchError
from m2fbench.history.entries import conditions_hash
from m2fbench.history.history import History
from m2fbench.history.records import Entry
from m2fbench.nightly.against import Scene, begun, blank, changes_between, with_difference
from m2fbench.nightly.judged import Tonight
from m2fbench.nightly.notes import acceptance_note, paired_note, unlike_conditions, unsure
from m2fbench.nightly.pairing import evidence_of, is_drop
from m2fbench.nightly.records import Change, FigureState, FigureVerdict
from m2fbench.results import Comparison

Draws = tuple[int, int]
"""Resamples and seed."""


def against_published(scene: Scene, tonight: Tonight, draws: Draws) -> FigureVerdict | None:
    """None where no such figure is published. The suite's tolerance decides where it has one for the figure; otherwise the figure is worse
    where even the published one as low as its rounding allows lies beyond the run's 95 % interval."""
    printed = _comparison(scene.history, tonight)
    if printed is None:
        return None
    found = replace(blank(tonight, "published"), baseline_value=printed.published)
    if tonight.point is None:
        return found
    found = replace(found, difference=Estimate(found.value - printed.published), evidence="published")
    if not printed.comparable:
        reason = tonight.entry.reason if tonight.entry is not None else None
        return replace(
            found, state="not compared", note=f"not comparable with the published figure: {reason or 'other conditions'}"
        )
    sign = 1 if found.higher_is_better else -1
    off = sign * found.difference.value
    if printed.within is not None:
        if printed.within or off > 0:
            return replace(found, state="steady" if printed.within else "improvement")
        nights = _standing(tonight, lambda p: _fails(scene.history, tonight, p))
        return begun(scene.history, replace(found, state="regression"), nights[0], len(nights))
    low, high = _interval(scene, tonight, draws)
    if math.isnan(low) and tonight.kind == "accuracy":
        return replace(found, state="unmeasured", note="neither a tolerance of the suite nor an interval to compare it by")
    ends = (found.value, found.value) if math.isnan(low) else (low, high)
    found = replace(found, low=low, high=high)
    room = rounding(printed.published, percent=found.unit == "percent")
    best, worst = (ends[1], ends[0]) if sign > 0 else (ends[0], ends[1])
    if sign * (printed.published - best) > room:

        def below(point: Point) -> bool:
            end = point.value if math.isnan(point.low) else point.high if sign > 0 else point.low
            return point.result == found.result or sign * (printed.published - end) > room

        nights = _standing(tonight, below)
        return begun(scene.history, replace(found, state="regression"), nights[0], len(nights))
    return replace(found, state="improvement" if sign * (worst - printed.published) > room else "steady")


def rounding(printed: float, *, percent: bool) -> float:
    """Half a unit of its last printed digit; percentages are printed to a tenth at least."""
    exponent = Decimal(repr(printed)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return 0.5 * 10.0 ** (min(exponent, -1) if percent else exponent)


def against_release(scene: Scene, tonight: Tonight, baseline: str) -> FigureVerdict:
    """Accuracy by the paired comparison; everything else, and accuracy without predictions at hand, by the values and the series' noise."""
    released = release_result(scene.history, tonight, baseline)
    if isinstance(released, str):
        return blank(tonight, baseline, note=released if tonight.missing is None else tonight.missing)
    before = released.figure(tonight.figure)
    found = blank(tonight, baseline)
    if before is None or math.isnan(before.value):
        return replace(found, note=tonight.missing or f"{_name(baseline)} has no {tonight.figure} of this cell")
    found = replace(found, baseline_value=before.value, baseline_result=released.sha256)
    if tonight.point is None:
        return found
    if tonight.point.result == released.sha256:
        return replace(found, state="steady", difference=Estimate(0.0, 0.0, 0.0), note="this result is the release's")
    pair = tonight.point.paired.get(released.sha256)
    found = with_difference(found, pair)
    found = _by_pairs(scene, found, tonight, released) if pair else _by_level(scene, found, tonight, released)
    if found.state == "regression" and (said := _accepted(scene.history, tonight, released)):
        return replace(found, state="accepted", note=said)
    return found


def release_result(history: History, tonight: Tonight, baseline: str) -> Entry | str:
    """The release's result for tonight's cell, of the same kind, measured under the same conditions; a line that says why there is none."""
    name = _name(baseline)
    releases = history.releases()
    if name not in releases:
        known = ", ".join(sorted(releases)) or "none"
        return f"there is no release {name}; the history has: {known}"
    same = []
    for sha256 in releases[name]:
        try:
            entry = history.entry(sha256)
        except HistoryError:
            continue
        limit = tonight.entry.limit if tonight.entry is not None else tonight.series.key.limit if tonight.series else 0
        if (entry.cell, entry.kind, entry.limit) == (tonight.outcome.cell.name, tonight.kind, limit):
            same.append(entry)
    if not same:
        return f"release {name} has no {tonight.kind} result of this cell"
    if tonight.kind == "speed" and tonight.entry is not None:
        machine = tonight.entry.machine
        if not any(entry.machine == machine for entry in same):
            return f"release {name} was measured on {same[-1].machine}, tonight on {machine}"
        same = [entry for entry in same if entry.machine == machine]
    now = tonight.entry.conditions if tonight.entry is not None else None
    for entry in reversed(same):
        if now is None or conditions_hash(entry.conditions) == conditions_hash(now):
            return entry
    return f"release {name} was measured under other conditions ({unlike_conditions(same[-1].conditions, now or {})})"


def below_already(tonight: Tonight, released: Entry, rules: Rules) -> bool:
    """Whether the night before lay surely below the release, so that a second run of tonight has nothing to add."""
    before = next((p for p in reversed(tonight.earlier) if not math.isnan(p.value)), None)
    return before is not None and _dropped(before, released, rules)


def _dropped(point: Point, released: Entry, rules: Rules) -> bool:
    pair = point.paired.get(released.sha256)
    return pair is not None and is_drop(pair.difference.value, pair.p_value, rules)


def _name(baseline: str) -> str:
    return baseline.removeprefix("release:")


def _by_pairs(scene: Scene, found: FigureVerdict, tonight: Tonight, released: Entry) -> FigureVerdict:
    rules = scene.rules
    assert tonight.point is not None
    pair = tonight.point.paired[released.sha256]
    found = replace(found, note=paired_note(pair, rules))
    if _dropped(tonight.point, released, rules):
        nights = _standing(tonight, lambda point: _dropped(point, released, rules))
        sure = pair.repeated is True or len(nights) >= rules.paired_nights
        found = replace(found, state="regression" if sure else "suspect", changes=_changed(scene, released, nights))
        return begun(scene.history, found, nights[0], len(nights))
    risen = pair.p_value <= rules.alpha and pair.difference.value >= max(rules.points, 1e-12)
    return replace(found, state="improvement") if risen else replace(found, state="steady", note=found.note or unsure(pair, rules))


def _changed(scene: Scene, released: Entry, nights: list[Point]) -> tuple[Change, ...]:
    return changes_between(scene.history, released.sha256, nights[0].result)


def _by_level(scene: Scene, found: FigureVerdict, tonight: Tonight, released: Entry) -> FigureVerdict:
    rules = scene.rules
    assert tonight.point is not None
    assert tonight.series is not None
    reason = scene.unpaired.get(released.sha256, "no comparison of the images is kept")
    note = f"compared by its level only: {reason}" if tonight.kind == "accuracy" else None
    noise = detect(tonight.series, rules).noise
    least = rules.points if found.unit == "percent" else rules.share * abs(found.baseline_value)
    sign = 1 if found.higher_is_better else -1
    released_figure = released.figure(found.figure)

    def off(point: Point, direction: int) -> bool:
        gap = direction * sign * (point.value - found.baseline_value)
        apart = True
        if released_figure is not None and not math.isnan(point.low) and not math.isnan(released_figure.low):
            apart = point.low > released_figure.high or point.high < released_figure.low
        return gap >= least and gap > 0 and apart and gap >= rules.sigmas * (0.0 if math.isnan(noise) else noise)

    if off(tonight.point, -1):
        nights = _standing(tonight, lambda point: off(point, -1))
        state: FigureState = "regression" if len(nights) >= rules.nights else "suspect"
        found = replace(found, state=state, note=note, changes=_changed(scene, released, nights))
        return begun(scene.history, found, nights[0], len(nights))
    return replace(found, state="improvement" if off(tonight.point, 1) else "steady", note=note)


def _standing(tonight: Tonight, bad: Callable[[Point], bool]) -> list[Point]:
    """The nights in a row, tonight the last, that are bad; nights without a value do not end them, other conditions do."""
    assert tonight.series is not None
    assert tonight.point is not None
    found: list[Point] = []
    for point in reversed(tonight.series.points):
        if math.isnan(point.value):
            continue
        if point.conditions != tonight.point.conditions or not bad(point):
            break
        found.append(point)
    return found[::-1]


def _accepted(history: History, tonight: Tonight, released: Entry) -> str | None:
    """When and why a person accepted a change of the figure after the release."""
    points = tonight.series.points if tonight.series is not None else ()
    since = {p.result for p in points if p.accepted and p.time > released.time}
    found = [a for a in history.acceptances() if a.figure == tonight.figure and a.result in since]
    return acceptance_note(found[-1]) if found else None


def _comparison(history: History, tonight: Tonight) -> Comparison | None:
    """The published figure beside tonight's, or where tonight has no result beside the last night's."""
    sha256 = tonight.entry.sha256 if tonight.entry is not None else tonight.earlier[-1].result if tonight.earlier else None
    if sha256 is None:
        return None
    try:
        comparisons = history.result(sha256).comparisons
    except HistoryError:
        return None
    return next((c for c in comparisons if c.metric == tonight.figure), None)


def _fails(history: History, tonight: Tonight, point: Point) -> bool:
    """Whether a night's own result says that the figure lies below what its suite tolerates."""
    try:
        comparisons = history.result(point.result).comparisons
    except HistoryError:
        return False
    sign = 1 if tonight.higher_is_better else -1
    return any(c.metric == tonight.figure and c.within is False and sign * c.difference < 0 for c in comparisons)


def _interval(scene: Scene, tonight: Tonight, draws: Draws) -> tuple[float, float]:
    """The figure's own interval: the history's, else computed from the predictions; NaN where they are not at hand."""
    assert tonight.point is not None
    if not math.isnan(tonight.point.low) or tonight.kind != "accuracy":
        return tonight.point.low, tonight.point.high
    try:
        run = evidence_of(scene.history, tonight.point.result)
        if isinstance(run, str) or run.evidence is None:
            return math.nan, math.nan
        found = intervals(run.evidence, resamples=draws[0], seed=draws[1]).figures.get((tonight.figure, None))
    except M2FBenchError:
        return math.nan, math.nan
    return (found.low, found.high) if found is not None else (math.nan, math.nan)
