"""``m2fbench history``: results of many nights, from files that are the truth."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from m2fbench.cli_common import open_console, warn
from m2fbench.cli_history_export import KindName, SinceOption, UntilOption, export

if TYPE_CHECKING:
    from m2fbench.analysis.series import Detection, Series
    from m2fbench.errors import HistoryError
    from m2fbench.history.history import History
    from m2fbench.history.records import Entry, Selection
    from m2fbench.types import JsonObject

UNREAD = 3  # exit status: some files could not be read, the others are in

app = typer.Typer(
    name="history", help="Results of many nights: an index over result files.", no_args_is_help=True, rich_markup_mode=None
)

HistoryOption = Annotated[
    str, typer.Option("--history", envvar="M2FBENCH_HISTORY", help="Folder of the history, or an address that fsspec opens.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
CellArgument = Annotated[str, typer.Argument(metavar="SUITE/ROW/VARIANT", help="A cell of the matrix, as run directories lie.")]


@app.command()
def add(
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS...", help="Result files, run directories, folders of them, other histories; or addresses."),
    ],
    history: HistoryOption = "history",
) -> None:
    """Take results into a history: each file is copied, byte for byte. What cannot be read is named, and ends with status 3; the rest is in."""
    from m2fbench.history.finding import check_places
    from m2fbench.reporting.terminal.history import added_lines
    from m2fbench.reporting.terminal.waiting import Waiting

    check_places(results)
    notes = _notes()
    with _opened(history, create=True) as opened, Waiting(notes) as waiting:
        waiting.tell("looking for results")
        added = opened.add(results, progress=waiting.progress)
        address = opened.address
    console = open_console()
    for line in added_lines(added, address):
        console.print(line, soft_wrap=True)
    if added.problems:
        raise typer.Exit(UNREAD)


@app.command(name="list")
def list_(
    history: HistoryOption = "history",
    suite: Annotated[list[str] | None, typer.Option(help="Of this suite only; repeatable.")] = None,
    checkpoint: Annotated[list[str] | None, typer.Option(help="Of this row only; repeatable.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Of this variant only; repeatable.")] = None,
    kind: Annotated[list[KindName] | None, typer.Option(help="Of this kind only; repeatable.")] = None,
    machine: Annotated[list[str] | None, typer.Option(help="Of this machine only; repeatable.")] = None,
    figure: Annotated[list[str] | None, typer.Option(help="Show this figure; repeatable.")] = None,
    since: SinceOption = "",
    until: UntilOption = "",
    series: Annotated[bool, typer.Option("--series", help="Figures night after night, in place of results.")] = False,
    problems: Annotated[bool, typer.Option("--problems", help="Only the files that cannot be read.")] = False,
    releases: Annotated[bool, typer.Option("--releases", help="Only the releases and their results.")] = False,
    accepted: Annotated[bool, typer.Option("--accepted", help="Only what was accepted, why, when and where.")] = False,
    last: Annotated[int, typer.Option(min=0, help="Show so many results, the last ones; 0 for all. JSON has all.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the results of a history, or its series with what they show."""
    from m2fbench.history.records import Selection
    from m2fbench.reporting.terminal.history import entries_table, problem_lines, release_lines, series_table
    from m2fbench.reporting.terminal.history_json import series_json

    selection = Selection(
        suites=tuple(suite or ()), rows=tuple(checkpoint or ()), variants=tuple(variant or ()), kinds=tuple(k.value for k in kind or ()),
        figures=tuple(figure or ()), machines=tuple(machine or ()), since=since, until=until,
    )  # fmt: skip
    console = open_console()
    with _opened(history) as opened:
        found_problems = opened.problems()
        if releases:
            _print_json(dict(opened.releases())) if as_json else _print(console, release_lines(opened.releases(), opened.entries()))
        elif accepted:
            _list_accepted(opened, console, as_json)
        elif problems:
            _print_json([asdict(p) for p in found_problems]) if as_json else _print(console, problem_lines(found_problems))
        elif series:
            found = list(_detected(opened, selection, main=not figure and not as_json))
            _print_json(series_json(s, d) for s, d in found) if as_json else console.print(series_table(found, console.width))
        else:
            entries = opened.entries(selection)
            if as_json:
                _print_json(asdict(entry) | {"cell": entry.cell} for entry in entries)
            else:
                console.print(entries_table(entries[-last:] if last else entries, selection.figures, console.width))
                left = f", the last {last} shown: --last 0 for all" if last and len(entries) > last else ""
                console.print(Text(f"{len(entries)} results{left}"))
        if found_problems and not problems:
            warn(_notes(), [f"{len(found_problems)} files could not be read: m2fbench history list --problems"])


@app.command()
def show(
    result: Annotated[str, typer.Argument(metavar="RESULT|SUITE/ROW/VARIANT", help="The beginning of a SHA-256, or a cell.")],
    history: HistoryOption = "history",
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the figures by class.")] = False,
    circumstances: Annotated[bool, typer.Option("--circumstances", help="Also all that may explain a change.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one result, or every series of a cell: its steps, the first bad result of each, and what changed there."""
    with _opened(history) as opened:
        if "/" in result:
            _show_cell(opened, result, as_json)
        else:
            _show_result(opened, result, per_class, circumstances, as_json)


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="Such as v1.2; a nightly can then be held to release:v1.2.")],
    results: Annotated[
        list[str] | None, typer.Argument(metavar="RESULTS...", help="Beginnings of SHA-256, or run directories.")
    ] = None,
    history: HistoryOption = "history",
    replace: Annotated[bool, typer.Option("--replace", help="Where there is a release of that name.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the release of that name; its results stay.")] = False,
) -> None:
    """Name results as those of a release, to compare later ones with."""
    from m2fbench.errors import HistoryError

    if delete and results:
        raise HistoryError("--delete is for a whole release: leave the results out, or name them all with --replace")
    with _opened(history) as opened:
        if delete:
            opened.delete_release(name)
            open_console().print(Text(f"release {name}: deleted, its results are still in the history"), soft_wrap=True)
            return
        chosen: list[str] = []
        for each in results or ():
            if not Path(each).exists():
                chosen.append(each)
                continue
            added = opened.add([each])
            if added.problems:
                raise HistoryError(f"{added.problems[0].location}: {added.problems[0].message}")
            chosen += (*added.new, *added.known)
        opened.release(name, chosen, replace=replace)
        count = len(opened.releases()[name])
    open_console().print(Text(f"release {name}: {count} results"))


@app.command()
def accept(
    cell: CellArgument,
    reason: Annotated[str, typer.Option(help="Why the change is as it should be; kept in the history.")] = "",
    history: HistoryOption = "history",
    figure: Annotated[list[str] | None, typer.Option(help="Of this figure only; repeatable.")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back what was accepted: alarms again.")] = False,
) -> None:
    """Accept the open regressions of a cell: they are no alarm any more, and the new level is the one to compare with."""
    from m2fbench.errors import HistoryError
    from m2fbench.reporting.terminal.history import plain

    if not withdraw and not reason.strip():
        raise HistoryError("which reason? --reason TEXT, for which the change is accepted; it is kept in the history")
    with _opened(history) as opened:
        selection = _cell_selection(cell, tuple(figure or ()))
        known = [entry.sha256 for entry in opened.entries(_cell_selection(cell))]
        if not known:
            raise _no_cell(opened, cell)
        lines = _withdrawn(opened, cell, set(known), figure) if withdraw else _accepted(opened, cell, selection, reason)
    _print(open_console(), (Text(plain(line)) for line in lines))
    if not lines:
        of_figure = " of that figure" if figure else ""
        if withdraw:
            raise HistoryError(f"{cell}: nothing was accepted{of_figure}; see m2fbench history list --accepted")
        raise HistoryError(f"{cell}: no open regression{of_figure}; see m2fbench history list --series")


def _accepted(history: "History", cell: str, selection: "Selection", reason: str) -> list[str]:
    """A line each."""
    from m2fbench.reporting.terminal.history import when

    done: dict[tuple[str, str], str] = {}
    while True:  # under a regression that is accepted, an earlier one may still be open
        opens = {
            (s.points[d.open.first].result, s.key.figure): s.points[d.open.first].time
            for s, d in _detected(history, selection)
            if d.open is not None
        }
        if not opens.keys() - done.keys():
            return list(done.values())
        for (result, name), time in opens.items():
            history.accept(result, name, reason)
            done[result, name] = f"accepted: {cell} {name}, the regression since {when(time)}"


def _withdrawn(history: "History", cell: str, results: set[str], figures: list[str] | None) -> list[str]:
    """A line each."""
    found = [a for a in history.acceptances() if a.result in results and (not figures or a.figure in figures)]
    for acceptance in found:
        history.withdraw(acceptance)
    return [f"withdrawn: {cell} {a.figure}, accepted for: {a.reason}" for a in found]


@app.command()
def rebuild(history: HistoryOption = "history") -> None:
    """Make the index again from the files, each of which is held to its name."""
    from m2fbench.reporting.terminal.history import problem_lines

    console = open_console()
    with _opened(history) as opened:
        opened.rebuild()
        problems = opened.problems()
        _print(console, problem_lines(problems))
        line = f"{opened.address}: {len(opened.entries())} results, {len(problems)} files that cannot be read"
        console.print(Text(line), soft_wrap=True)


app.command(name="export")(export)


def _notes() -> Console:
    return Console(stderr=True, highlight=False, markup=False)


def _opened(address: str, *, create: bool = False) -> "History":
    from m2fbench.history.history import History

    notes = _notes()
    return History(address, tell=lambda what: warn(notes, [what]), create=create)


def _print(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _detected(history: "History", selection: "Selection", *, main: bool = False) -> "Iterator[tuple[Series, Detection]]":
    """main: only the figures that matter most."""
    from m2fbench.analysis.regressions import detect
    from m2fbench.reporting.terminal.history import MAIN

    for series in history.series(selection):
        if not main or series.key.figure in MAIN[series.key.kind]:
            yield series, detect(series)


def _cell_selection(cell: str, figures: tuple[str, ...] = ()) -> "Selection":
    from m2fbench.errors import HistoryError
    from m2fbench.history.records import Selection

    parts = cell.strip("/").split("/")
    if len(parts) < 3:
        raise HistoryError(f"{cell!r}: expected SUITE/ROW/VARIANT, as m2fbench history list shows it")
    return Selection(suites=(parts[0],), rows=("/".join(parts[1:-1]),), variants=(parts[-1],), figures=figures)


def _no_cell(history: "History", cell: str) -> "HistoryError":
    from m2fbench.errors import HistoryError, shown

    known = ", ".join(dict.fromkeys(shown(entry.cell) for entry in history.entries())) or "none"
    return HistoryError(f"{cell}: the history has no such cell; expected one of {known}")


def _list_accepted(history: "History", console: Console, as_json: bool) -> None:
    from m2fbench.reporting.terminal.history import acceptance_lines

    found = history.acceptances()
    cells = {entry.sha256: entry.cell for entry in history.entries()} if found else {}
    if as_json:
        _print_json(asdict(each) | {"cell": cells.get(each.result)} for each in found)
    else:
        _print(console, acceptance_lines(found, cells))


def _show_cell(history: "History", cell: str, as_json: bool) -> None:
    from m2fbench.reporting.terminal.history import series_table, step_lines
    from m2fbench.reporting.terminal.history_json import series_json

    selection = _cell_selection(cell)
    found = list(_detected(history, selection))
    if not found:
        raise _no_cell(history, cell)
    entries = {entry.sha256: entry for entry in history.entries(selection)}
    if as_json:
        _print_json(series_json(*each, entries) for each in found)
        return
    console = open_console()
    console.print(series_table(found, console.width))
    for series, detection in found:
        changes = {k: list(_changes(entries, series, detection, k)) for k in range(len(detection.steps))}
        _print(console, step_lines(series, detection, changes))


def _changes(
    entries: "dict[str, Entry]", series: "Series", detection: "Detection", place: int
) -> Iterator[tuple[str, object, object]]:
    from m2fbench.analysis.circumstances import changes

    step = detection.steps[place]
    before, after = (entries[series.points[k].result].circumstances for k in (step.last_good, step.first))
    for change in changes(before, after):
        yield change.what, change.before, change.after


def _show_result(history: "History", beginning: str, per_class: bool, circumstances: bool, as_json: bool) -> None:
    from m2fbench.reporting.terminal.history import circumstances_table, entry_facts, figures_table
    from m2fbench.reporting.terminal.runs import class_tables

    entry = history.entry(beginning)
    releases = [name for name, results in history.releases().items() if entry.sha256 in results]
    if as_json:
        document = asdict(entry) | {"cell": entry.cell, "releases": releases}
        if per_class:
            document["measurements"] = history.result(entry.sha256).to_json()["measurements"]
        _print_json(document)
        return
    console = open_console()
    console.print(entry_facts(entry, releases))
    console.print(figures_table(entry.figures))
    if per_class:
        for table in class_tables(history.result(entry.sha256)):
            console.print(table)
    if circumstances:
        console.print(circumstances_table(entry))


def _print_json(value: "Iterable[object] | JsonObject") -> None:
    from m2fbench.reporting.terminal.history_json import json_text

    typer.echo(json_text(value))
