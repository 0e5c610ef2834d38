"""A history in the terminal: its results, its series and what they show, and one result or cell in full."""

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from m2fbench.analysis.main_figures import MAIN_FIGURES
from m2fbench.analysis.series import Detection, Series
from m2fbench.analysis.words import counted
from m2fbench.history.records import Acceptance, Added, Entry, Figure, Problem

Detected = Sequence[tuple[Series, Detection]]

SHORT = 10  # hexadecimal digits of a SHA-256 shown
_SCALES = {"count": ((1e9, "G"), (1e6, "M")), "bytes": ((1e9, "GB"), (1e6, "MB")), "s": ((1.0, "s"), (1e-3, "ms"))}
STYLES = {"regression": "bold red", "improvement": "green", "suspect": "yellow", "unmeasured": "yellow"}


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


def how_to_dismiss(address: str) -> Text:
    """What ends the problems of a history."""
    return Text(
        plain(
            "to dismiss them: mend a file and add it again, or delete it and m2fbench history rebuild on the machine that found it; what a "
            f"machine that is no more has found goes with its file in {address}/problems"
        ),
        style="dim",
    )


def release_lines(releases: Mapping[str, Sequence[str]], entries: Sequence[Entry]) -> Iterator[Text]:
    """Each release, and below it its results."""
    known = {entry.sha256: entry for entry in entries}
    for name, results in releases.items():
        yield Text(f"{name}: {counted(len(results), 'result')}")
        for result in results:
            entry = known.get(result)
            what = f"{entry.cell}, {entry.kind}, {when(entry.time)}" if entry else "no longer in the history"
            yield Text(f"  {plain(result[:SHORT])} {plain(what)}")


def acceptance_lines(accepted: Sequence[Acceptance], entries: Mapping[str, Entry]) -> Iterator[Text]:
    """entries: by SHA-256."""
    for each in accepted:
        entry = entries.get(each.result)
        where = entry.cell if entry else "no longer in the history"
        night = f" (night {entry.night})" if entry and entry.night else ""
        yield Text(
            plain(f"{when(each.time)} on {each.host}: {where} {each.figure} from {each.result[:SHORT]}{night} on: {each.reason}")
        )


def entries_table(entries: Sequence[Entry], figures: Sequence[str] = (), width: int = 160) -> Table:
    """A line a result. figures: columns; the main ones of each kind where none are named. width: of the terminal; a narrow one gets fewer
    columns. The night has one where any result was measured in one that has a name."""
    narrow = width < 120
    nights = any(entry.night for entry in entries)
    table = Table("result", "time", "cell", *(() if narrow else ("kind", "machine", *(("night",) if nights else ()))))
    for name in figures or ("figures",):
        table.add_column(name, justify="right" if figures else "left", no_wrap=bool(figures))
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].overflow = "fold"
    for entry in entries:
        found = {name: entry.figure(name) for name in figures}
        cells = [shown(f.value, f.unit) if f else "-" for f in found.values()] if figures else [_main_figures(entry)]
        kind = entry.kind + (f", {entry.limit} images" if entry.limit else "")
        cell, machine = plain(entry.cell), plain(entry.machine)
        night = plain(entry.night)
        if narrow:
            where: tuple[str, ...] = (f"{cell}\n{kind} on {machine}" + (f", night {night}" if night else ""),)
        else:
            where = (cell, kind, machine, *((night,) if nights else ()))
        table.add_row(entry.sha256[:SHORT], when(entry.time), *where, *cells)
    return table


def _main_figures(entry: Entry) -> str:
    found = [f for name in MAIN_FIGURES[entry.kind] if (f := entry.figure(name)) is not None and not math.isnan(f.value)][:2]
    text = ", ".join(f"{f.name} {shown(f.value, f.unit)}" for f in found)
    return text if entry.status == "complete" else f"{text} ({entry.status})".strip()


def series_table(found: Detected, width: int = 160, *, cell: bool = True) -> Table:
    """A line a series: its last value, what it shows now, and how many steps it has had. width: of the terminal; a narrow one gets fewer columns.
    cell: say of which it is."""
    narrow = width < 120
    machines = cell or any(series.key.machine for series, _ in found)
    wide = ("cell", "kind", "figure", "machine", "nights", "last night", "latest", "now", "steps")
    headers = [
        h
        for h in (("cell", "figure", "latest", "now") if narrow else wide)
        if (cell or h != "cell") and (machines or h != "machine")
    ]
    table = Table(*headers)
    for column in table.columns:
        column.overflow = "fold"
        column.justify = "right" if column.header in ("nights", "latest", "steps") else "left"
        column.no_wrap = narrow and column.header == "latest"
    for series, detection in found:
        line = _narrow_line(series, cell) if narrow else _wide_line(series)
        line |= {"now": _now(series, detection), "steps": str(len(detection.steps))}
        table.add_row(*(line[header] for header in headers))
    return table


def _narrow_line(series: Series, cell: bool) -> dict[str, str | Text]:
    key, last = series.key, series.points[-1]
    kind = f"{_kind(series)}{'' if cell else plain(on_machine(series))}"
    return {
        "cell": plain(key.cell + on_machine(series)),
        "figure": f"{plain(key.figure)}\n{kind}",
        "latest": f"{shown(last.value, series.unit)}\n{when(last.time)[:10]}",
    }


def _wide_line(series: Series) -> dict[str, str | Text]:
    key, last = series.key, series.points[-1]
    return {
        "cell": plain(key.cell), "kind": _kind(series), "figure": plain(key.figure), "machine": plain(key.machine),
        "nights": str(len(series.points)), "last night": when(last.time), "latest": with_interval(last.value, last.low, last.high, series.unit),
    }  # fmt: skip


def _kind(series: Series) -> str:
    return series.key.kind + (f", {counted(series.key.limit, 'image')}" if series.key.limit else "")


def _now(series: Series, detection: Detection) -> Text:
    if (step := detection.open) is not None:
        change = changed(step.change, step.relative, series.unit)
        return Text(f"regression since {when(series.points[step.first].time)}: {change}", style=STYLES["regression"])
    state = detection.states[-1]
    return Text(state, style=STYLES.get(state, ""))


def on_machine(series: Series) -> str:
    return f" on {series.key.machine}" if series.key.machine else ""


def entry_facts(entry: Entry, releases: Sequence[str], accepted: Sequence[Acceptance] = ()) -> Table:
    """What the history knows of one result."""
    table = Table(box=None, pad_edge=False, show_header=False)
    facts: list[tuple[str, str]] = [
        ("result", entry.sha256), ("cell", entry.cell), ("kind", entry.kind + (f", the first {entry.limit} images" if entry.limit else "")),
        ("status", entry.status + (f": {entry.reason}" if entry.reason else "")), ("finished", entry.time or "not known"),
        ("machine", entry.machine + (", disturbed" if entry.disturbed else "")),
        *((("night", entry.night),) if entry.night else ()), *(("release", name) for name in releases),
        *(("accepted", f"{a.figure}, {when(a.time)} on {a.host}: {a.reason}") for a in accepted), *(("found at", where) for where in entry.origins),
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
