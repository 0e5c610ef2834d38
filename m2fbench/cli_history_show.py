"""``m2fbench history show``: one result, or one cell night after night."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from m2fbench.cli_common import open_console
from m2fbench.cli_history_common import (
    HistoryOption,
    JsonOption,
    cell_selection,
    check_names,
    detected,
    listed,
    no_cell,
    open_history,
    print_json,
    print_lines,
)

if TYPE_CHECKING:
    from m2fbench.history.history import History
    from m2fbench.history.records import Entry


def show(
    result: Annotated[str, typer.Argument(metavar="RESULT|SUITE/ROW/VARIANT", help="The beginning of a SHA-256, or a cell.")],
    history: HistoryOption = "history",
    figure: Annotated[list[str] | None, typer.Option(help="Only this figure; repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Of a cell all figures, in place of the main ones.")] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Of a result also the figures by class.")] = False,
    circumstances: Annotated[bool, typer.Option("--circumstances", help="Of a result also all that may explain a change.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one result, or the series of a cell: their steps, the first bad result of each, what changed there, and what was accepted."""
    figures = tuple(figure or ())
    with open_history(history) as opened:
        if "/" in result:
            _show_cell(opened, result, figures, every, as_json)
        else:
            _show_result(opened, result, figures, per_class, circumstances, as_json)


def _show_cell(history: "History", cell: str, figures: tuple[str, ...], every: bool, as_json: bool) -> None:
    from m2fbench.analysis.main_figures import is_main
    from m2fbench.analysis.words import counted
    from m2fbench.errors import HistoryError, shown
    from m2fbench.reporting.terminal.history import plain, series_table
    from m2fbench.reporting.terminal.history_json import series_json
    from m2fbench.reporting.terminal.history_steps import step_lines

    selection = cell_selection(cell)
    entries = {entry.sha256: entry for entry in history.entries(selection)}
    if not entries:
        raise no_cell(history, cell)
    check_names(history, replace(selection, figures=figures))
    found = list(detected(history, replace(selection, figures=figures)))
    if figures and not found:
        has = listed(f.name for entry in entries.values() for f in entry.figures)
        raise HistoryError(f"{shown(cell)}: it has no figure {', '.join(map(shown, figures))}; expected one of {has}")
    if as_json:
        print_json(series_json(*each, entries) for each in found)
        return
    main = [] if figures or every else [each for each in found if is_main(each[0].key.kind, each[0].key.figure)]
    chosen = main or found
    console = open_console()
    console.print(Text(plain(cell)), soft_wrap=True)
    if chosen:
        console.print(series_table(chosen, console.width, cell=False))
    else:
        console.print(Text(f"{counted(len(entries), 'result')}, none with a figure"))
    print_lines(console, step_lines(chosen, entries, history.acceptances()))
    if len(chosen) < len(found):
        steps = sum(len(d.steps) for _, d in found) - sum(len(d.steps) for _, d in chosen)
        with_steps = f", with {counted(steps, 'step')}" if steps else ""
        console.print(Text(f"{counted(len(found) - len(chosen), 'figure')} more{with_steps}: --all, or --figure NAME"))


def _show_result(
    history: "History", beginning: str, figures: tuple[str, ...], per_class: bool, circumstances: bool, as_json: bool
) -> None:
    from m2fbench.reporting.terminal.history import circumstances_table, entry_facts, figures_table
    from m2fbench.reporting.terminal.runs import class_tables

    entry = history.entry(beginning)
    _check_figures(entry, figures)
    releases = [name for name, results in history.releases().items() if entry.sha256 in results]
    accepted = [each for each in history.acceptances() if each.result == entry.sha256]
    shown_figures = [f for f in entry.figures if not figures or f.name in figures]
    if as_json:
        document = asdict(entry) | {"cell": entry.cell, "night": entry.night or None, "releases": releases}
        document |= {"figures": [asdict(f) for f in shown_figures], "accepted": [asdict(each) for each in accepted]}
        if per_class:
            document["measurements"] = history.result(entry.sha256).to_json()["measurements"]
        print_json(document)
        return
    console = open_console()
    console.print(entry_facts(entry, releases, accepted))
    console.print(figures_table(shown_figures))
    if per_class:
        for table in class_tables(history.result(entry.sha256)):
            console.print(table)
    if circumstances:
        console.print(circumstances_table(entry))


def _check_figures(entry: "Entry", figures: tuple[str, ...]) -> None:
    """Raises HistoryError for one that the result has not."""
    from m2fbench.errors import HistoryError, shown
    from m2fbench.registry import near

    known = [f.name for f in entry.figures]
    for name in figures:
        if name not in known:
            raise HistoryError(
                f"{entry.sha256[:10]}: it has no figure {shown(name)}{near(shown(name), map(shown, known))}; expected one of "
                f"{listed(map(shown, known))}"
            )
