"""What the commands of ``m2fbench history`` share: options, opening, selecting, printing."""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from m2fbench.cli_common import warn

if TYPE_CHECKING:
    from m2fbench.analysis.series import Detection, Series
    from m2fbench.errors import HistoryError
    from m2fbench.history.history import History
    from m2fbench.history.records import Selection
    from m2fbench.types import JsonObject

UNREAD = 3  # exit status: some files could not be read, the others are in
_LISTED = 8  # names in a message


class KindName(StrEnum):
    accuracy = "accuracy"
    speed = "speed"
    flops = "flops"


def _time(text: str) -> str:
    """As the history writes times, of which any beginning will do."""
    found = re.fullmatch(r"(\d{4}(?:-\d\d(?:-\d\d)?)?)(?:(?<=-\d\d-\d\d)[T ](\d\d(?::\d\d){0,2}))?Z?", text.strip())
    if text and found is None:
        raise typer.BadParameter(f"{text!r}: expected a time in UTC, or the beginning of one, as 2026-11 or 2026-11-30T03:00")
    return "" if found is None else "T".join(part for part in found.groups() if part)


HistoryOption = Annotated[
    str, typer.Option("--history", envvar="M2FBENCH_HISTORY", help="Folder of the history, or an address that fsspec opens.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
SuitesOption = Annotated[list[str] | None, typer.Option("--suite", help="Of this suite only; repeatable.")]
RowsOption = Annotated[list[str] | None, typer.Option("--checkpoint", help="Of this row only; repeatable.")]
VariantsOption = Annotated[list[str] | None, typer.Option("--variant", help="Of this variant only; repeatable.")]
KindsOption = Annotated[list[KindName] | None, typer.Option("--kind", help="Of this kind only; repeatable.")]
MachinesOption = Annotated[list[str] | None, typer.Option("--machine", help="Of this machine only; repeatable.")]
SinceOption = Annotated[str, typer.Option(callback=_time, help="From this time on (UTC, or the beginning of one: 2026-11).")]
UntilOption = Annotated[str, typer.Option(callback=_time, help="Up to this time, what it begins included.")]


def notes() -> Console:
    return Console(stderr=True, highlight=False, markup=False)


def open_history(address: str, *, create: bool = False) -> "History":
    from m2fbench.history.history import History

    console = notes()
    return History(address, tell=lambda what: warn(console, [what]), create=create)


def check_names(history: "History", selection: "Selection") -> None:
    """Raises HistoryError for the first name that no result of the history has, which is a slip and no empty answer."""
    from m2fbench.errors import HistoryError, shown
    from m2fbench.registry import near

    words = {"suites": "suite", "rows": "checkpoint", "variants": "variant", "machines": "machine", "figures": "figure"}
    wanted = {field: getattr(selection, field) for field in words if getattr(selection, field)}
    vocabulary = history.vocabulary() if wanted else {}
    for field, names in wanted.items():
        known = [shown(name) for name in vocabulary[field]]
        for name in names:
            if name not in vocabulary[field]:
                text = shown(name)
                raise HistoryError(f"--{words[field]} {text}: no result has it{near(text, known)}; expected one of {listed(known)}")


def listed(names: Iterable[str]) -> str:
    """The first of them."""
    found = list(dict.fromkeys(names))
    more = f", ... ({len(found)} in all)" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more if found else "none, as there are no results"


def cell_selection(cell: str, figures: tuple[str, ...] = ()) -> "Selection":
    from m2fbench.errors import HistoryError, shown
    from m2fbench.history.records import Selection

    parts = cell.strip("/").split("/")
    if len(parts) < 3:
        raise HistoryError(f"{shown(cell)!r}: expected SUITE/ROW/VARIANT, as m2fbench history list shows it")
    return Selection(suites=(parts[0],), rows=("/".join(parts[1:-1]),), variants=(parts[-1],), figures=figures)


def no_cell(history: "History", cell: str) -> "HistoryError":
    from m2fbench.errors import HistoryError, shown
    from m2fbench.registry import near

    known = sorted({shown(entry.cell) for entry in history.entries()})
    return HistoryError(f"{shown(cell)}: the history has no such cell{near(shown(cell), known)}; expected one of {listed(known)}")


def detected(history: "History", selection: "Selection", *, main: bool = False) -> "list[tuple[Series, Detection]]":
    """main: only the figures that matter most, all where none is of these."""
    from m2fbench.analysis.main_figures import is_main
    from m2fbench.analysis.regressions import detect

    found = history.series(selection)
    chosen = [one for one in found if main and is_main(one.key.kind, one.key.figure)] or found
    return [(one, detect(one)) for one in chosen]


def print_lines(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def print_json(value: "Iterable[object] | JsonObject") -> None:
    from m2fbench.reporting.terminal.history_json import json_text

    typer.echo(json_text(value))
