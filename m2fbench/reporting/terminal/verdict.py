"""A night's verdict in the terminal: its headline, and tables of plain text."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m2fbench.errors import shown

_STYLES = {
    "regression": "bold red", "suspect": "yellow", "recovering": "green", "recovered": "green", "improvement": "green", "improving": "green",
    "accepted": "dim", "unmeasured": "yellow", "failed": "bold red",
    "timeout": "bold red", "memory": "bold red", "no budget": "yellow", "interrupted": "yellow",
}  # fmt: skip
_HEADLINES = {0: "green", 1: "bold red", 3: "yellow"}
_LONGEST = 2000  # characters of a name or a reason


class TextTable(Protocol):
    """A table of plain text; its first ``words`` columns are words, the others numbers."""

    @property
    def title(self) -> str: ...
    @property
    def header(self) -> Sequence[str]: ...
    @property
    def rows(self) -> Sequence[Sequence[str]]: ...
    @property
    def words(self) -> int: ...


def show_verdict(console: Console, headline: str, tables: Iterable[TextTable], notes: Iterable[str], exit_status: int) -> None:
    """The tables that have rows, the notes, and at the end, where a reader looks, the headline."""
    for table in tables:
        if not table.rows:
            continue
        if console.is_terminal:
            console.print(_drawn(table))
        else:
            for line in _lines(table):
                console.print(Text(line), soft_wrap=True)
    for note in notes:
        console.print(Text(shown(f"note: {note}", _LONGEST)), soft_wrap=True)
    console.print(Text(shown(headline, _LONGEST), style=_HEADLINES.get(exit_status, "")), soft_wrap=True)


def _drawn(table: TextTable) -> Table:
    found = Table(title=Text(table.title), title_justify="left")
    for number, name in enumerate(table.header):
        found.add_column(name, justify="left" if number < table.words else "right", overflow="fold")
    for row in table.rows:
        found.add_row(*(Text(shown(cell, _LONGEST), style=_STYLES.get(cell, "")) for cell in row))
    return found


def _lines(table: TextTable) -> Iterable[str]:
    """One row a line, so that it can be searched, with two spaces between columns."""
    rows = [[shown(cell, _LONGEST) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(table.header))]
    yield table.title
    for row in rows:
        cells = (cell.ljust(w) if k < table.words else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))
        yield f"  {'  '.join(cells)}".rstrip()
