"""A verdict in words and in tables of plain text, which summary, terminal and JUnit file draw each in its own way."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from m2fbench.analysis.circumstances import in_short
from m2fbench.analysis.words import counted
from m2fbench.errors import shown
from m2fbench.nightly.records import UNCOMPARED, Change, FigureState, FigureVerdict, Outcome, Verdict

NAMED = 2
"""Figures, or cells, of one state that the headline names; of more it says how many."""
_ORDER: tuple[FigureState, ...] = (
    "regression", "suspect", "unmeasured", "recovering", "recovered", "accepted", "improvement", "improving", "restart", "not compared", "new",
    "steady",
)  # fmt: skip
MOVED: tuple[FigureState, ...] = ("regression", "suspect", "recovering", "recovered", "accepted", "improvement", "improving")
_RISEN: tuple[FigureState, ...] = ("recovering", "recovered", "improvement", "improving")
_CANNOT = ("unsupported", "unavailable")
_POWERS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class TextTable:
    """rows: cells of plain text. words: so many columns from the left are words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int


def headline(verdict: Verdict) -> str:
    """All of it in one line of plain text: what is named where there is little, and counted where there is much."""
    parts = [
        _of_state(verdict, "regression", "regression", always=True),
        _unmeasured(verdict),
        _of_state(verdict, "suspect", "suspect"),
        _of_state(verdict, "recovering", "figure recovering", "figures recovering"),
        _of_state(verdict, "recovered", "figure recovered", "figures recovered"),
        _of_state(verdict, "improvement", "improvement"),
    ]
    if verdict.status != "ok" and (uncompared := verdict.of(*UNCOMPARED)):
        parts.append(f"{counted(len(uncompared), 'figure')} not compared")
    said = "; ".join(part for part in parts if part)
    return said if verdict.status != "ok" else f"{said} ({_measured(verdict)})"


def _measured(verdict: Verdict) -> str:
    """ "3 of 3 cells measured, 9 figures compared, 2 not"; of several baselines each comparison counts."""
    done = sum(outcome.state == "done" for outcome in verdict.outcomes)
    left = sum(outcome.state == "left out" for outcome in verdict.outcomes)
    noun = "figure" if len({f.baseline for f in verdict.figures}) < 2 else "comparison"
    uncompared = len(verdict.of(*UNCOMPARED))
    compared = len(verdict.figures) - uncompared - len(verdict.of("unmeasured"))
    made = "compared" if noun == "figure" else "made"
    parts = [
        f"{done:,} of {counted(len(verdict.outcomes), 'cell')} measured",
        f"{left} left out" if left else "",
        f"{counted(compared, noun)} {made}",
        f"{uncompared} not" if uncompared else "",
    ]
    return ", ".join(part for part in parts if part)


def _of_state(verdict: Verdict, state: FigureState, noun: str, nouns: str | None = None, always: bool = False) -> str:
    """ "1 regression: CELL AP 71.24 → 66.02 since 2026-11-28", "5 regressions in 2 cells"; a figure counts once, whatever it is compared with."""
    first: dict[tuple[str, str, str], FigureVerdict] = {}
    for figure in verdict.of(state):
        first.setdefault((figure.cell, figure.kind, figure.figure), figure)
    if not first:
        return f"no {noun}" if always else ""
    number = f"{len(first)} {nouns}" if nouns and len(first) > 1 else counted(len(first), noun)
    if len(first) > NAMED:
        return f"{number} in {counted(len({f.cell for f in first.values()}), 'cell')}"
    return f"{number}: {'; '.join(map(movement, first.values()))}"


def _unmeasured(verdict: Verdict) -> str:
    undone = [o for o in verdict.outcomes if o.state not in ("done", "left out", *_CANNOT)]
    names = {o.cell.name for o in undone}
    lacking = list(dict.fromkeys((f.cell, f.figure) for f in verdict.of("unmeasured") if f.cell not in names))
    parts = []
    if undone:
        states = ", ".join(f"{number} {state}" for state, number in Counter(o.state for o in undone).items())
        named = f": {', '.join(f'{o.cell.name} ({o.state})' for o in undone)}" if len(undone) <= NAMED else f" ({states})"
        parts.append(f"{counted(len(undone), 'cell')} not measured{named}")
    if lacking:
        cells = counted(len({cell for cell, _ in lacking}), "cell")
        named = f": {', '.join(f'{cell} {figure}' for cell, figure in lacking)}" if len(lacking) <= NAMED else f" in {cells}"
        parts.append(f"{counted(len(lacking), 'figure')} not measured{named}")
    return "; ".join(parts)


def movement(figure: FigureVerdict) -> str:
    """ "CELL AP 71.24 → 66.02 since 2026-11-28 (night n5)"."""
    return f"{figure.cell} {moved(figure)}"


def moved(figure: FigureVerdict) -> str:
    """The same without the cell. Of a regression that stands the level that it led to, and tonight's where that is another."""
    against = "" if figure.baseline == "last-good" else f" against {figure.baseline}"
    since = day_of(figure.since, figure.since_night) if figure.since else ""
    before, now, first = (shown_value(value, figure.unit) for value in (figure.baseline_value, figure.value, figure.since_value))
    if since and figure.state == "recovered":
        return f"{figure.figure} {before} → {now}, the level before the regression of {since}"
    if since and figure.state == "recovering":
        return f"{figure.figure} {before} → {now}, back at the level before the regression of {since}, to be confirmed"
    when = f" since {since}" if since else ""
    if figure.state == "regression" and figure.nights > 1 and not math.isnan(figure.since_value) and first != now:
        return f"{figure.figure} {before} → {first}{against}{when}, tonight {now}"
    return f"{figure.figure} {before} → {now}{against}{when}"


def day_of(time: str, night: str | None) -> str:
    """ "2026-11-28 (night n5)"; the date alone where it is the night's name, or nobody gave it one."""
    return time[:10] if not night or night == time[:10] else f"{time[:10]} (night {shown(night, 80)})"


def shown_value(value: float, unit: str) -> str:
    """As people read it: percent without its sign, as papers print it."""
    if math.isnan(value):
        return "-"
    if unit == "percent":
        return f"{value:.2f}"
    if unit == "s":
        return f"{1000 * value:.4g} ms"
    if unit in ("bytes", "count"):
        power, letter = next(((p, letter) for p, letter in _POWERS if abs(value) >= p), (1.0, ""))
        return f"{value / power:.4g} {letter}{'B' if unit == 'bytes' else ''}".rstrip()
    return f"{value:.4g} {unit}"


def shown_change(figure: FigureVerdict) -> str:
    """Points with the interval for accuracy, a share of the baseline for everything else."""
    d = figure.difference
    if math.isnan(d.value):
        return "-"
    if figure.unit == "percent":
        ends = f" ({signed(d.low)} to {signed(d.high)})" if d.has_interval else ""
        return f"{signed(d.value)}{ends}"
    if not figure.baseline_value:
        return "-"
    return f"{round(100 * d.value / abs(figure.baseline_value), 1) + 0.0:+.1f} %"


def shown_p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def signed(value: float) -> str:
    """A difference in points."""
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: never "-0.00"


def by_importance(figures: Iterable[FigureVerdict]) -> list[FigureVerdict]:
    """Regressions first; otherwise as they came."""
    return sorted(figures, key=lambda f: _ORDER.index(f.state))


def moved_table(verdict: Verdict) -> TextTable:
    """What moved, regressions first."""
    rows = tuple(
        (f.cell, f.figure, f.state, f.baseline, day_of(f.since, f.since_night) if f.since else "-", str(f.nights) if f.nights else "-",
         shown_value(f.baseline_value, f.unit), shown_value(f.value, f.unit), shown_change(f), shown_p(f.p_value))
        for f in by_importance(verdict.of(*MOVED))
    )  # fmt: skip
    header = ("cell", "figure", "state", "against", "since", "nights", "before", "tonight", "change (95 % interval)", "p")
    return TextTable("What moved", header, rows, 5)


def unmeasured_table(verdict: Verdict) -> TextTable:
    """Cells that did not run to their end, then figures that the others lack, each with the reason."""
    undone = [o for o in verdict.outcomes if o.state not in ("done", "left out")]
    names = {o.cell.name for o in undone}
    rows: list[tuple[str, ...]] = [(o.cell.name, "all", o.state, o.reason or "-", o.log or "-") for o in undone]
    lacking = [f for f in verdict.of("unmeasured") if f.cell not in names]
    rows += [(f.cell, f.figure, f"against {f.baseline}", f.note or "-", "-") for f in lacking]
    return TextTable("What was not measured", ("cell", "figure", "state", "reason", "log"), tuple(rows), 5)


def figures_table(verdict: Verdict) -> TextTable:
    """Every figure against every baseline."""
    rows = tuple(
        (f.cell, f.figure, f.baseline, f.state, f.note or "-", shown_value(f.baseline_value, f.unit), shown_value(f.value, f.unit),
         shown_change(f), shown_p(f.p_value))
        for f in by_importance(verdict.figures)
    )  # fmt: skip
    header = ("cell", "figure", "against", "state", "note", "baseline", "tonight", "change (95 % interval)", "p")
    return TextTable("All figures", header, rows, 5)


def cells_table(verdict: Verdict) -> TextTable:
    """What came of each cell."""
    rows = tuple((o.cell.name, o.state, f"{o.seconds / 60:.1f}", _memory(o)) for o in verdict.outcomes)
    return TextTable("Cells", ("cell", "state", "minutes", "peak memory"), rows, 2)


def _memory(outcome: Outcome) -> str:
    return "-" if outcome.peak_memory_bytes is None else shown_value(float(outcome.peak_memory_bytes), "bytes")


def explanation(figure: FigureVerdict) -> list[str]:
    """Of one that moved: how surely, since when, against which result, and what else changed; plain lines."""
    evidence = {
        "paired": "paired bootstrap over the same images",
        "level": "against the series' own noise",
        "published": "against the published figure",
        "none": "not compared",
    }[figure.evidence]
    p = "" if math.isnan(figure.p_value) else f", p {shown_p(figure.p_value)}"
    lines = [f"change {shown_change(figure)}, {evidence}{p}"]
    if figure.since:
        lines.append(_since(figure))
    if figure.baseline_result:
        lines.append(f"compared with result {figure.baseline_result[:12]}, tonight's is {(figure.result or '-')[:12]}")
    return [*lines, *_changes(figure), *([figure.note] if figure.note else [])]


def _since(figure: FigureVerdict) -> str:
    night = f"night {shown(figure.since_night, 80)}, " if figure.since_night else ""
    began = f"{figure.since} ({night}result {(figure.since_result or '-')[:12]})"
    if figure.state in ("recovering", "recovered"):
        return f"the regression began {began}"
    nights = f", {counted(figure.nights, 'night')}" if figure.nights else ""
    return f"since {began}{nights}"


def _changes(figure: FigureVerdict) -> list[str]:
    """What came with the first night, and what with tonight where that is another."""
    good = "the last good run" if figure.baseline == "last-good" else figure.baseline
    lines = []
    if figure.changes:
        since = f"between {good} and the first bad night" if figure.nights > 1 else f"since {good}"
        lines.append(f"changed {'with it' if figure.state in _RISEN else since}: {changed(figure.changes)}")
    elif figure.state == "regression" and figure.baseline != "published":
        lines.append(f"nothing that the results record has changed between {good} and the first bad night")
    if figure.tonight and set(figure.tonight) != set(figure.changes):
        lines.append(f"changed since the night before: {changed(figure.tonight)}")
    return lines


def changed(changes: Sequence[Change], most: int = 12) -> str:
    """``checkpoint 1a2b3c4d5e → 2b3c4d5e6f``, one after another."""
    parts = [f"{shown(c.what)} {in_short(c.before)} → {in_short(c.after)}" for c in changes[:most]]
    return "; ".join([*parts, *([f"and {len(changes) - most} more"] if len(changes) > most else [])])
