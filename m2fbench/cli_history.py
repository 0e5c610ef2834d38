"""``m2fbench history``: results of many nights, from files that are the truth."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from m2fbench.cli_common import open_console, warn
from m2fbench.cli_history_common import (
    UNREAD,
    HistoryOption,
    JsonOption,
    KindsOption,
    MachinesOption,
    RowsOption,
    SinceOption,
    SuitesOption,
    UntilOption,
    VariantsOption,
    cell_selection,
    check_names,
    detected,
    no_cell,
    notes,
    open_history,
    print_json,
    print_lines,
)
from m2fbench.cli_history_export import export
from m2fbench.cli_history_show import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2fbench.history.history import History
    from m2fbench.history.records import Problem, Selection

app = typer.Typer(
    name="history", help="Results of many nights: an index over result files.", no_args_is_help=True, rich_markup_mode=None
)

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
    with open_history(history, create=True) as opened, Waiting(notes()) as waiting:
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
    suite: SuitesOption = None,
    checkpoint: RowsOption = None,
    variant: VariantsOption = None,
    kind: KindsOption = None,
    machine: MachinesOption = None,
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
    from m2fbench.analysis.words import counted
    from m2fbench.history.records import Selection
    from m2fbench.reporting.terminal.history import entries_table, release_lines, series_table
    from m2fbench.reporting.terminal.history_json import series_json

    selection = Selection(
        suites=tuple(suite or ()), rows=tuple(checkpoint or ()), variants=tuple(variant or ()), kinds=tuple(k.value for k in kind or ()),
        figures=tuple(figure or ()), machines=tuple(machine or ()), since=since, until=until,
    )  # fmt: skip
    console = open_console()
    with open_history(history) as opened:
        check_names(opened, selection)
        found_problems = opened.problems()
        if releases:
            print_json(dict(opened.releases())) if as_json else print_lines(
                console, release_lines(opened.releases(), opened.entries())
            )
        elif accepted:
            _list_accepted(opened, selection, console, as_json)
        elif problems:
            print_json([asdict(p) for p in found_problems]) if as_json else _print_problems(console, found_problems, opened.address)
        elif series:
            found = detected(opened, selection, main=not figure and not as_json)
            print_json(series_json(s, d) for s, d in found) if as_json else console.print(series_table(found, console.width))
        else:
            entries = opened.entries(selection)
            if as_json:
                print_json(asdict(entry) | {"cell": entry.cell, "night": entry.night or None} for entry in entries)
            else:
                console.print(entries_table(entries[-last:] if last else entries, selection.figures, console.width))
                left = f", the last {last} shown: --last 0 for all" if last and len(entries) > last else ""
                console.print(Text(f"{counted(len(entries), 'result')}{left}"))
        if found_problems and not problems:
            warn(notes(), [f"{counted(len(found_problems), 'file')} could not be read: m2fbench history list --problems"])


app.command(name="show")(show)


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
    from m2fbench.analysis.words import counted
    from m2fbench.errors import HistoryError

    if delete and results:
        raise HistoryError("--delete is for a whole release: leave the results out, or name them all with --replace")
    with open_history(history) as opened:
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
    open_console().print(Text(f"release {name}: {counted(count, 'result')}"))


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
    with open_history(history) as opened:
        selection = cell_selection(cell, tuple(figure or ()))
        known = [entry.sha256 for entry in opened.entries(cell_selection(cell))]
        if not known:
            raise no_cell(opened, cell)
        lines = _withdrawn(opened, cell, set(known), figure) if withdraw else _accepted(opened, cell, selection, reason)
    print_lines(open_console(), (Text(plain(line)) for line in lines))
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
            for s, d in detected(history, selection)
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
    """Make the index again from the files, each of which is held to its name, and forget the damaged ones at sources that are gone from there. Ends
    with 3 where files cannot be read."""
    from m2fbench.analysis.words import counted

    console = open_console()
    with open_history(history) as opened:
        opened.rebuild()
        problems = opened.problems()
        _print_problems(console, problems, opened.address)
        failed = f", {counted(len(problems), 'file')} that cannot be read" if problems else ""
        console.print(Text(f"{opened.address}: {counted(len(opened.entries()), 'result')}{failed}"), soft_wrap=True)
    if problems:
        raise typer.Exit(UNREAD)


app.command(name="export")(export)


def _list_accepted(history: "History", selection: "Selection", console: Console, as_json: bool) -> None:
    from m2fbench.history.records import Selection
    from m2fbench.reporting.terminal.history import acceptance_lines

    entries = {entry.sha256: entry for entry in history.entries(selection)}
    found = [
        each
        for each in history.acceptances()
        if selection == Selection() or (each.result in entries and (not selection.figures or each.figure in selection.figures))
    ]
    if as_json:
        print_json(
            asdict(each) | ({"cell": entry.cell, "night": entry.night or None} if entry else {"cell": None, "night": None})
            for each, entry in ((each, entries.get(each.result)) for each in found)
        )
    else:
        print_lines(console, acceptance_lines(found, entries))


def _print_problems(console: Console, problems: "Sequence[Problem]", address: str) -> None:
    from m2fbench.reporting.terminal.history import how_to_dismiss, problem_lines

    print_lines(console, problem_lines(problems))
    if problems:
        print_lines(notes(), [how_to_dismiss(address)])
