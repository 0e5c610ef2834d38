"""What a reader must know of one figure besides its numbers: how surely, what could not be compared, why it is no alarm."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from m2fbench.analysis.regressions import Rules
from m2fbench.analysis.series import Detection, Paired, Point
from m2fbench.analysis.words import counted
from m2fbench.errors import HistoryError, shown
from m2fbench.history.history import History
from m2fbench.history.records import Acceptance
from m2fbench.nightly.judged import Tonight
from m2fbench.nightly.pairing import is_drop
from m2fbench.nightly.records import FigureVerdict
from m2fbench.nightly.wording import day_of, shown_p, signed


@dataclass(frozen=True)
class Seen:
    """What the notes on a figure rest on. unpaired: results that tonight's could not be compared with image by image -> why. good: the last good
    night before tonight, None without one. detection: of the series up to tonight."""

    history: History
    rules: Rules
    unpaired: Mapping[str, str]
    tonight: Tonight
    good: Point | None
    detection: Detection

    @property
    def pair(self) -> Paired | None:
        """Tonight compared with the last good night."""
        point = self.tonight.point
        return None if self.good is None or point is None else point.paired.get(self.good.result)


def notes_on(seen: Seen, found: FigureVerdict) -> list[str]:
    """One a line, of a figure that was measured and held to its last good night; found: so far."""
    return [*_of_evidence(seen, found), *_of_state(seen, found), *_of_circumstances(seen)]


def _of_evidence(seen: Seen, found: FigureVerdict) -> Iterator[str]:
    pair, rules = seen.pair, seen.rules
    if found.state == "accepted" and (seen.good is None or seen.good.result != found.baseline_result):
        return
    if pair is not None:
        if said := paired_note(
            pair, rules, returning=found.state in ("recovering", "recovered") or seen.detection.open is not None
        ):
            yield said
        if found.state == "steady" and (said := unsure(pair, rules)):
            yield said
    elif seen.good is not None and seen.tonight.kind == "accuracy":
        yield f"compared by its level only: {seen.unpaired.get(seen.good.result, 'no comparison of the images is kept')}"


def _of_state(seen: Seen, found: FigureVerdict) -> Iterator[str]:
    state, detection, rules = found.state, seen.detection, seen.rules
    if state in ("suspect", "improving") and (seen.pair is None or seen.pair.repeated is None):
        yield f"{'better' if state == 'improving' else 'worse'} than before; too few nights yet to say that it stays"
    if state in ("improving", "improvement") and (said := _accepted_before(seen, found)):
        yield said
    if state == "recovering":
        enough = rules.paired_nights if seen.pair is not None else rules.nights
        confirmed = "one more night confirms it" if enough == 2 else f"{counted(enough, 'night')} in a row confirm it"
        yield f"{_no_loss(seen)}; {confirmed}"
    if state == "recovered" and seen.pair is not None and not seen.pair.identical:
        yield _no_loss(seen)
    if state == "regression" and (said := _further(seen)):
        yield said
    if state == "restart":
        yield _restart(seen)
    if state == "accepted":
        yield from _acceptances(seen)
    if detection.trend is not None:
        t = detection.trend
        yield f"drifts: {100 * t.change:+.1f} % over {t.days:.0f} days and {counted(t.points, 'night')}"


def _of_circumstances(seen: Seen) -> Iterator[str]:
    point = seen.tonight.point
    if point is not None and point.disturbed:
        yield "something else took the machine's time while it was measured"
    if seen.good is not None and seen.good.disturbed:
        yield "something else took the machine's time while its baseline was measured"


def paired_note(pair: Paired, rules: Rules, *, returning: bool = False) -> str | None:
    """returning: a regression stood, and the run is compared with the good one before it."""
    if pair.identical:
        return (
            "the predictions are the baseline's, byte for byte"
            if not returning
            else "the predictions are those of the last good run, byte for byte"
        )
    dropped = is_drop(pair.difference.value, pair.p_value, rules)
    if pair.repeated is None or (not dropped and not returning):  # it was another figure that moved
        return None
    if dropped:
        return "a second run, made from nothing, dropped too" if pair.repeated else "a second run, made from nothing, did not drop"
    return "a second run, made from nothing, is back too" if pair.repeated else "a second run, made from nothing, is not back"


def unsure(pair: Paired, rules: Rules) -> str | None:
    """Why a difference whose interval leaves out 0 counts for nothing."""
    d = pair.difference
    if pair.identical or not d.has_interval or d.low <= 0 <= d.high or math.isnan(pair.p_value):
        return None
    if pair.p_value > rules.alpha:
        return f"its interval leaves out 0, but p {shown_p(pair.p_value)} is above alpha, {rules.alpha:g}: taken for chance"
    return (
        f"its interval leaves out 0, but it is less than {rules.points:g} points (rules.points)"
        if abs(d.value) < rules.points
        else None
    )


def _no_loss(seen: Seen) -> str:
    """What tonight is against the last good night."""
    assert seen.good is not None
    assert seen.tonight.point is not None
    pair = seen.pair
    if pair is None:
        return f"no loss by its level against the last good run (result {seen.good.result[:12]})"
    ends = f" ({signed(pair.difference.low)} to {signed(pair.difference.high)})" if pair.difference.has_interval else ""
    said = f"{signed(pair.difference.value)}{ends}, p {shown_p(pair.p_value)}"
    return f"no loss against the last good run (result {seen.good.result[:12]}): {said}"


def _further(seen: Seen) -> str | None:
    """Where the figure has fallen further since the regression began: the last time."""
    detection, series = seen.detection, seen.tonight.series
    last = detection.steps[-1]
    if series is None or detection.open is None or last.direction != "regression" or last.first <= detection.open.first:
        return None
    return f"worse again since {day_of(series.points[last.first].time, _night(seen, series.points[last.first].result))}"


def _night(seen: Seen, result: str) -> str | None:
    try:
        return seen.history.entry(result).night or None
    except HistoryError:
        return None


def _acceptances(seen: Seen) -> Iterator[str]:
    """Who said so, and why: of the nights since the step."""
    series = seen.tonight.series
    if series is None:
        return
    since = {point.result for point in series.points[seen.detection.steps[-1].first :]}
    yield from (
        acceptance_note(a) for a in seen.history.acceptances() if a.figure == seen.tonight.figure and a.result in since
    )  # fmt: skip


def acceptance_note(acceptance: Acceptance) -> str:
    return f"accepted on {acceptance.time[:10]}: {shown(acceptance.reason)}"


def _accepted_before(seen: Seen, found: FigureVerdict) -> str | None:
    """Where the figure is back at the level before a change that a person had accepted."""
    series = seen.tonight.series
    step = next((s for s in reversed(seen.detection.steps) if s.direction == "regression"), None)
    if series is None or step is None or not step.accepted:
        return None
    sign = 1 if found.higher_is_better else -1
    if sign * (found.value - step.before) < -abs(step.change) / 4:
        return None
    first = series.points[step.first]
    return f"back at the level before the change of {day_of(first.time, _night(seen, first.result))} that was accepted"


def _restart(seen: Seen) -> str:
    """What of the conditions is not as it was."""
    said = "measured under other conditions than the nights before, so not compared with them"
    tonight = seen.tonight
    try:
        before = seen.history.entry(tonight.earlier[-1].result).conditions if tonight.earlier else {}
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
