"""A history in the terminal: its results, its series and what they show, and one result or cell in full."""

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from m2fbench.analysis.series import Detection, Point, Series, Step
from m2fbench.history.records import Acceptance, Added, Entry, Figure, Problem

Detected = Sequence[tuple[Series, Detection]]

SHORT = 10  # hexadecimal digits of a SHA-256 shown
MAIN = {
    "accuracy": ("PQ", "AP", "mIoU", "AP_th_pan", "mIoU_pan"),
    "speed": ("fps", "fps_task", "latency", "peak_device_memory"),
    "flops": ("FLOPs", "parameters"),
}
"""Shown where no figure is asked for."""
_SCALES = {"count": ((1e9, "G"), (1e6, "M")), "bytes": ((1e9, "GB"), (1e6, "MB")), "s": ((1.0, "s"), (1e-3, "ms"))}
_STYLES = {"regression": "bold red", "improvement": "green", "suspect": "yellow", "unmeasured": "yellow"}


def added_lines(added: Added, address: str) -> Iterator[Text]:
    """What came of adding; each problem in a line of its own."""
    yield from problem_lines(added.problems)
    failed = f", {len(added.problems)} could not be read" if added.problems else ""
    yield Text(f"{plain(address)}: {len(added.new)} new, {len(added.known)} known before{failed}")


def plain(text: object) -> str:
    """What comes from files anyone may have written, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def problem_lines(problems: Sequence[Problem]) -> Iterator[Text]:
    for problem in problems:
        yield Text(plain(f"{problem.kind}: {problem.location}: {problem.message}"), style="yellow")


def release_lines(releases: Mapping[str, Sequence[str]], entries: Sequence[Entry]) -> Iterator[Text]:
    """Each release, and below it its results."""
    known = {entry.sha256: entry for entry in entries}
    for name, results in releases.items():
        yield Text(f"{name}: {len(results)} results")
        for result in results:
            entry = known.get(result)
            what = f"{entry.cell}, {entry.kind}, {when(entry.time)}" if entry else "no longer in the history"
            yield Text(f"  {plain(result[:SHORT])} {plain(what)}")


def acceptance_lines(accepted: Sequence[Acceptance], cells: Mapping[str, str]) -> Iterator[Text]:
    for each in accepted:
        where = cells.get(each.result, "no longer in the history")
        yield Text(plain(f"{when(each.time)} on {each.host}: {where} {each.figure} from {each.result[:SHORT]} on: {each.reason}"))


def entries_table(entries: Sequence[Entry], figures: Sequence[str] = (), width: int = 160) -> Table:
    """A line a result. figures: columns; the main ones of each kind where none are named. width: of the terminal; a narrow one gets fewer
    columns."""
    narrow = width < 120
    table = Table("result", "time", "cell", *(() if narrow else ("kind", "machine")))
    for name in figures or ("figures",):
        table.add_column(name, justify="right" if figures else "left", no_wrap=bool(figures))
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].overflow = "fold"
    for entry in entries:
        found = {name: entry.figure(name) for name in figures}
        cells = [shown(f.value, f.unit) if f else "-" for f in found.values()] if figures else [_main_figures(entry)]
        kind = entry.kind + (f", {entry.limit} images" if entry.limit else "")
        cell, machine = plain(entry.cell), plain(entry.machine)
        where = (f"{cell}\n{kind} on {machine}",) if narrow else (cell, kind, machine)
        table.add_row(entry.sha256[:SHORT], when(entry.time), *where, *cells)
    return table


def _main_figures(entry: Entry) -> str:
    found = [f for name in MAIN[entry.kind] if (f := entry.figure(name)) is not None and not math.isnan(f.value)][:2]
    text = ", ".join(f"{f.name} {shown(f.value, f.unit)}" for f in found)
    return text if entry.status == "complete" else f"{text} ({entry.status})".strip()


def series_table(found: Detected, width: int = 160) -> Table:
    """A line a series: its last value, what it shows now, and how many steps it has had. width: of the terminal; a narrow one gets fewer columns."""
    narrow = width < 120
    wide = ("cell", "kind", "figure", "machine", "nights", "last night", "latest", "now", "steps")
    table = Table(*(("cell", "figure", "latest", "now") if narrow else wide))
    for column in table.columns:
        column.overflow = "fold"
        column.justify = "right" if column.header in ("nights", "latest", "steps") else "left"
        column.no_wrap = narrow and column.header == "latest"
    for series, detection in found:
        key, last = series.key, series.points[-1]
        kind = key.kind + (f", {key.limit} images" if key.limit else "")
        if narrow:
            latest = f"{shown(last.value, series.unit)}\n{when(last.time)[:10]}"
            table.add_row(plain(key.cell + _on(series)), f"{plain(key.figure)}\n{kind}", latest, _now(series, detection))
            continue
        latest = with_interval(last.value, last.low, last.high, series.unit)
        table.add_row(
            plain(key.cell), kind, plain(key.figure), plain(key.machine), str(len(series.points)), when(last.time), latest,
            _now(series, detection), str(len(detection.steps)),
        )  # fmt: skip
    return table


def _now(series: Series, detection: Detection) -> Text:
    if (step := detection.open) is not None:
        change = changed(step.change, step.relative, series.unit)
        return Text(f"regression since {when(series.points[step.first].time)}: {change}", style=_STYLES["regression"])
    state = detection.states[-1]
    return Text(state, style=_STYLES.get(state, ""))


def step_lines(series: Series, detection: Detection, changes: Mapping[int, Sequence[tuple[str, object, object]]]) -> Iterator[Text]:
    """Each step: from what to what, between which results, and what else changed with it. changes: (what, before, after) by a step's place."""
    for place, step in enumerate(detection.steps):
        first, last_good = series.points[step.first], series.points[step.last_good]
        yield Text(
            f"{plain(series.key.figure + _on(series))}: {step.direction} on {when(first.time)}, {shown(step.before, series.unit)} -> "
            f"{shown(step.after, series.unit)} ({changed(step.change, step.relative, series.unit)}){_standing(step, detection)}",
            style=_STYLES[step.direction] if step is detection.open else "",
        )
        evidence = "compared image by image" if step.evidence == "paired" else "against the series' own noise"
        yield Text(f"  first at the new level: {_named(first)}; last at the old: {_named(last_good)}; {evidence}")
        for what, before, after in changes.get(place, ()):
            yield Text(plain(f"  {what}: {_value(before)} -> {_value(after)}"))
        if not changes.get(place):
            yield Text("  nothing that was recorded changed between the two")


def _standing(step: Step, detection: Detection) -> str:
    return ", accepted" if step.accepted else ", open" if step is detection.open else ""


def _on(series: Series) -> str:
    return f" on {series.key.machine}" if series.key.machine else ""


def _named(point: Point) -> str:
    return f"{point.result[:SHORT]} of {when(point.time)}"


def _value(value: object) -> str:
    return "not known" if value is None else str(value)


def entry_facts(entry: Entry, releases: Sequence[str]) -> Table:
    """What the history knows of one result."""
    table = Table(box=None, pad_edge=False, show_header=False)
    facts: list[tuple[str, str]] = [
        ("result", entry.sha256), ("cell", entry.cell), ("kind", entry.kind + (f", the first {entry.limit} images" if entry.limit else "")),
        ("status", entry.status + (f": {entry.reason}" if entry.reason else "")), ("finished", entry.time or "not known"),
        ("machine", entry.machine + (", disturbed" if entry.disturbed else "")),
        *(("release", name) for name in releases), *(("found at", where) for where in entry.origins),
        *(("warning", warning) for warning in entry.warnings),
    ]  # fmt: skip
    for name, text in facts:
        table.add_row(name, Text(plain(text)))
    return table


def figures_table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "value", "95 %", "unit")
    for f in figures:
        interval = "" if math.isnan(f.low) else f"{_number(f.low)} to {_number(f.high)}"
        table.add_row(plain(f.name), _number(f.value), interval, plain(f.unit))
    return table


def circumstances_table(entry: Entry) -> Table:
    table = Table("circumstance", "value")
    for name, value in entry.circumstances.items():
        table.add_row(plain(name), Text(plain(value)))
    return table


def when(time: str) -> str:
    """To the minute, UTC."""
    return time[:16].replace("T", " ") or "-"


def shown(value: float, unit: str) -> str:
    """A figure in a unit that people read it in: 226.3 G, 103.2 ms, 43.71."""
    if math.isnan(value):
        return "-"
    for scale, name in _SCALES.get(unit, ()):
        if abs(value) >= scale or (scale, name) == _SCALES[unit][-1]:
            return f"{value / scale:.4g} {name}"
    return f"{value:.2f}"


def with_interval(value: float, low: float, high: float, unit: str) -> str:
    return (
        shown(value, unit)
        if math.isnan(low) or math.isnan(high)
        else f"{shown(value, unit)} ({shown(low, unit)} to {shown(high, unit)})"
    )


def changed(difference: float, share: float, unit: str) -> str:
    """Points for percentages, a share of the level before for all else."""
    return f"{difference:+.2f} points" if unit == "percent" or math.isnan(share) else f"{share:+.1%}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.6g}"
