"""One figure against its last good night: what detection says of the series that ends tonight, in a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from m2fbench.analysis.circumstances import changes
from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.regressions import Rules, detect
from m2fbench.analysis.series import Detection, Paired, Point, Series, Step
from m2fbench.errors import HistoryError
from m2fbench.history.history import History
from m2fbench.nightly.judged import Tonight
from m2fbench.nightly.notes import Seen, notes_on
from m2fbench.nightly.records import Change, FigureState, FigureVerdict
from m2fbench.reporting.dashboard.naming import slug_of

_UPWARDS: tuple[FigureState, ...] = ("improvement", "improving", "recovering", "recovered")


@dataclass(frozen=True)
class Scene:
    """What all figures of a cell are judged with. unpaired: baseline results that tonight's could not be compared with image by image ->
    why."""

    history: History
    rules: Rules
    unpaired: Mapping[str, str]


@dataclass(frozen=True)
class Known:
    """The last good night before tonight, measured under tonight's conditions. step: the regression that stood when tonight began; level: then
    the last night in line with it, which a further change is seen against."""

    point: Point
    step: Step | None = None
    level: Point | None = None

    @property
    def open(self) -> bool:
        return self.step is not None

    @property
    def lost(self) -> float:
        """By that regression, at the level that tonight is seen against, in the figure's unit; 0 where none stands."""
        return 0.0 if self.level is None else abs(self.level.value - self.point.value)


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
        return Known(point)
    return Known(point, before.open, None if before.in_line is None else tonight.earlier[before.in_line])


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
    state, step = _reading(seen, known, scene.rules)
    held = known
    if known is not None and known.level is not None and state in _UPWARDS:
        held = replace(known, point=known.level)  # what has risen is the level that the regression led to
    found = _with_baseline(blank(tonight, "last-good", state), held)
    if held is not None:
        found = with_difference(found, tonight.point.paired.get(held.point.result))
    if state == "suspect" and found.is_better:
        found = replace(found, state="improving")
    found = replace(found, tonight=_of_tonight(scene.history, tonight))
    found = _placed(scene, found, tonight.series, seen, step, known)
    what = Seen(scene.history, scene.rules, scene.unpaired, tonight, known.point if known is not None else None, seen)
    return replace(found, note="; ".join(notes_on(what, found)) or None)


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


def begun(history: History, found: FigureVerdict, first: Point, nights: int) -> FigureVerdict:
    """With the night since which it is so."""
    try:
        night = history.entry(first.result).night or None
    except HistoryError:
        night = None
    return replace(found, since=first.time, since_night=night, since_result=first.result, since_value=first.value, nights=nights)


def _with_baseline(found: FigureVerdict, known: Known | None) -> FigureVerdict:
    if known is None:
        return found
    return replace(found, baseline_value=known.point.value, baseline_result=known.point.result)


def _reading(seen: Detection, known: Known | None, rules: Rules) -> tuple[FigureState, Step | None]:
    """Tonight's state, and the step that it rests on."""
    last = len(seen.states) - 1
    state, recent = seen.states[last], seen.steps[-1] if seen.steps else None
    if seen.open is not None:
        return ("recovering" if seen.returning else "regression"), seen.open
    risen = recent if recent is not None and recent.direction == "improvement" and last in (recent.first, recent.found) else None
    if known is not None and known.step is not None and not _accepted(seen, known.step):
        return "recovered", risen
    if risen is not None:
        return ("improvement" if risen.ends is None else "recovered"), risen
    if (
        recent is not None
        and recent.accepted
        and last - recent.first < rules.window
        and state not in ("suspect", "outlier", "restart")
    ):
        return "accepted", recent
    if state == "suspect" or state == "outlier":
        return "suspect", None
    if state == "restart":
        return "restart", None
    return ("new" if state == "first" else "steady"), None


def _accepted(seen: Detection, step: Step) -> bool:
    return any(s.first == step.first and s.accepted for s in seen.steps)


def _of_tonight(history: History, tonight: Tonight) -> tuple[Change, ...]:
    """What differs from the night before."""
    if tonight.point is None or not tonight.earlier:
        return ()
    return changes_between(history, tonight.earlier[-1].result, tonight.point.result)


def _placed(
    scene: Scene, found: FigureVerdict, series: Series, seen: Detection, step: Step | None, known: Known | None
) -> FigureVerdict:
    """With the night since which its state holds, and what changed there."""
    points, state = series.points, found.state
    if state in ("recovering", "recovered"):
        if step is not None and step.direction == "improvement":
            found = _from_step(scene, found, series, step)
        elif known is not None and known.level is not None:
            found = replace(found, changes=changes_between(scene.history, known.level.result, points[-1].result))
        ended = (
            seen.steps[step.ends] if step is not None and step.ends is not None else seen.open or (known.step if known else None)
        )
        return found if ended is None else begun(scene.history, found, points[ended.first], _measured(points[ended.first :]))
    if step is not None:
        return begun(scene.history, _from_step(scene, found, series, step), points[step.first], _measured(points[step.first :]))
    if state in ("suspect", "improving"):
        first = len(points) - 1
        while first > 0 and seen.states[first - 1] == "suspect":
            first -= 1
        return begun(scene.history, found, points[first], len(points) - first)
    return found


def _measured(points: tuple[Point, ...]) -> int:
    return sum(not math.isnan(point.value) for point in points)


def _from_step(scene: Scene, found: FigureVerdict, series: Series, step: Step) -> FigureVerdict:
    first, last_good = series.points[step.first], series.points[step.last_good]
    if found.state == "accepted":  # what it is held to tonight is the new level
        pair = series.points[-1].paired.get(last_good.result)
        found = with_difference(replace(found, baseline_value=last_good.value, p_value=math.nan), pair)
    if found.evidence != "paired":
        before = last_good.value if step.evidence == "paired" else step.before
        found = replace(found, baseline_value=before, difference=Estimate(found.value - before), evidence=step.evidence)
    changed = changes_between(scene.history, last_good.result, first.result)
    return replace(found, baseline_result=last_good.result, changes=changed)
