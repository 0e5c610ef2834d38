"""A verdict in words and in tables of plain text, which summary, terminal and JUnit file draw each in its own way."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from m2fbench.analysis.circumstances import in_short
from m2fbench.analysis.words import counted
from m2fbench.errors import shown
from m2fbench.nightly.records import FigureState, FigureVerdict, Outcome, Verdict

NAMED = 3
"""Regressions that the headline names of many."""
_ORDER: tuple[FigureState, ...] = ("regression", "suspect", "unmeasured", "accepted", "improvement", "restart", "new", "steady")
MOVED: tuple[FigureState, ...] = ("regression", "suspect", "accepted", "improvement")
_POWERS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class TextTable:
    """rows: cells of plain text. words: so many columns from the left are words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int


def headline(verdict: Verdict) -> str:
    """All of it in one line of plain text."""
    parts = [
        _of_state(verdict, "regression", "regression", always=True),
        _unmeasured(verdict),
        _of_state(verdict, "suspect", "suspect"),
        _of_state(verdict, "improvement", "improvement"),
    ]
    said = "; ".join(part for part in parts if part)
    done = sum(outcome.state == "done" for outcome in verdict.outcomes)
    measured = f"{done} of {counted(len(verdict.outcomes), 'cell')} measured"
    return said if verdict.status != "ok" else f"{said} ({measured})"


def _of_state(verdict: Verdict, state: FigureState, noun: str, always: bool = False) -> str:
    """ "1 regression: CELL AP 71.24 → 66.02 since 2026-11-28"; a figure counts once, whatever it is compared with."""
    first: dict[tuple[str, str, str], FigureVerdict] = {}
    for figure in verdict.of(state):
        if state == "suspect" and figure.is_better:  # nobody has to look at it
            continue
        first.setdefault((figure.cell, figure.kind, figure.figure), figure)
    if not first:
        return f"no {noun}" if always else ""
    named = "; ".join(movement(figure) for figure in list(first.values())[:NAMED])
    more = f"; and {len(first) - NAMED} more" if len(first) > NAMED else ""
    return f"{counted(len(first), noun)}: {named}{more}"


def _unmeasured(verdict: Verdict) -> str:
    undone = [o for o in verdict.outcomes if o.state not in ("done", "unsupported", "unavailable")]
    names = {o.cell.name for o in undone}
    lacking = list(dict.fromkeys((f.cell, f.figure) for f in verdict.of("unmeasured") if f.cell not in names))
    parts = []
    if undone:
        named = ", ".join(f"{o.cell.name} ({o.state})" for o in undone[:NAMED])
        parts.append(f"{counted(len(undone), 'cell')} not measured: {named}{_more(undone)}")
    if lacking:
        named = ", ".join(f"{cell} {figure}" for cell, figure in lacking[:NAMED])
        parts.append(f"{counted(len(lacking), 'figure')} not measured: {named}{_more(lacking)}")
    return "; ".join(parts)


def _more(all_of_them: Sequence[object]) -> str:
    return f" and {len(all_of_them) - NAMED} more" if len(all_of_them) > NAMED else ""


def movement(figure: FigureVerdict) -> str:
    """ "CELL AP 71.24 → 66.02 since 2026-11-28"."""
    against = "" if figure.baseline == "last-good" else f" against {figure.baseline}"
    since = f" since {figure.since[:10]}" if figure.since else ""
    before, now = (shown_value(value, figure.unit) for value in (figure.baseline_value, figure.value))
    return f"{figure.cell} {figure.figure} {before} → {now}{against}{since}"


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
        ends = f" ({_signed(d.low)} to {_signed(d.high)})" if d.has_interval else ""
        return f"{_signed(d.value)}{ends}"
    if not figure.baseline_value:
        return "-"
    return f"{round(100 * d.value / abs(figure.baseline_value), 1) + 0.0:+.1f} %"


def shown_p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: never "-0.00"


def by_importance(figures: Iterable[FigureVerdict]) -> list[FigureVerdict]:
    """Regressions first; otherwise as they came."""
    return sorted(figures, key=lambda f: _ORDER.index(f.state))


def moved_table(verdict: Verdict) -> TextTable:
    """What moved, regressions first."""
    rows = tuple(
        (f.cell, f.figure, f.state, f.baseline, f.since[:10] if f.since else "-", str(f.nights) if f.nights else "-",
         shown_value(f.baseline_value, f.unit), shown_value(f.value, f.unit), shown_change(f), shown_p(f.p_value))
        for f in by_importance(verdict.of(*MOVED))
    )  # fmt: skip
    header = ("cell", "figure", "state", "against", "since", "nights", "before", "tonight", "change (95 % interval)", "p")
    return TextTable("What moved", header, rows, 5)


def unmeasured_table(verdict: Verdict) -> TextTable:
    """Cells that did not run to their end, then figures that the others lack, each with the reason."""
    undone = [o for o in verdict.outcomes if o.state != "done"]
    names = {o.cell.name for o in undone}
    rows: list[tuple[str, ...]] = [(o.cell.name, "all", o.state, o.reason or "-", o.log or "-") for o in undone]
    lacking = [f for f in verdict.of("unmeasured") if f.cell not in names]
    rows += [(f.cell, f.figure, f"against {f.baseline}", f.note or "-", "-") for f in lacking]
    return TextTable("What was not measured", ("cell", "figure", "state", "reason", "log"), tuple(rows), 5)


def figures_table(verdict: Verdict) -> TextTable:
    """Every figure against every baseline."""
    rows = tuple(
        (f.cell, f.figure, f.baseline, f.state, f.note or "-", shown_value(f.baseline_value, f.unit), shown_value(f.value, f.unit), shown_change(f))
        for f in by_importance(verdict.figures)
    )  # fmt: skip
    header = ("cell", "figure", "against", "state", "note", "baseline", "tonight", "change (95 % interval)")
    return TextTable("All figures", header, rows, 5)


def cells_table(verdict: Verdict) -> TextTable:
    """What came of each cell."""
    rows = tuple((o.cell.name, o.state, f"{o.seconds / 60:.1f}", _memory(o)) for o in verdict.outcomes)
    return TextTable("Cells", ("cell", "state", "minutes", "peak memory"), rows, 2)


def _memory(outcome: Outcome) -> str:
    return "-" if outcome.peak_memory_bytes is None else shown_value(float(outcome.peak_memory_bytes), "bytes")


def explanation(figure: FigureVerdict) -> list[str]:
    """Of one that moved: how surely, since when, against which result, and what else changed; plain lines."""
    nights = f", {counted(figure.nights, 'night')}" if figure.nights else ""
    evidence = {
        "paired": "paired bootstrap over the same images",
        "level": "against the series' own noise",
        "published": "against the published figure",
        "none": "not compared",
    }[figure.evidence]
    p = "" if math.isnan(figure.p_value) else f", p {shown_p(figure.p_value)}"
    lines = [f"change {shown_change(figure)}, {evidence}{p}"]
    if figure.since:
        lines.append(f"since {figure.since} (result {(figure.since_result or '-')[:12]}){nights}")
    if figure.baseline_result:
        lines.append(f"compared with result {figure.baseline_result[:12]}, tonight's is {(figure.result or '-')[:12]}")
    if figure.changes:
        since = "with it" if figure.state == "improvement" else "since the last good run"
        lines.append(f"changed {since}: {changed(figure)}")
    elif figure.state == "regression" and figure.baseline != "published":
        lines.append("nothing that the results record has changed since the last good run")
    if figure.note:
        lines.append(figure.note)
    return lines


def changed(figure: FigureVerdict, most: int = 12) -> str:
    """``checkpoint 1a2b3c4d5e → 2b3c4d5e6f``, one after another."""
    parts = [f"{shown(c.what)} {in_short(c.before)} → {in_short(c.after)}" for c in figure.changes[:most]]
    return "; ".join([*parts, *([f"and {len(figure.changes) - most} more"] if len(figure.changes) > most else [])])
