"""A night in the terminal: a line as each cell begins and ends and, on a terminal, what the present one is at."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m2fbench.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m2fbench.nightly.night import NightEvent
    from m2fbench.nightly.records import Cell, Outcome

_STYLES = {"done": "green", "unavailable": "dim", "unsupported": "dim"}
_READ_OF_LOG = 1000  # bytes


class NightDisplay:
    """A listener for ``run_night``, around which it is a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("")
        self._log = ""

    def __enter__(self) -> "NightDisplay":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._status.stop()

    def __call__(self, event: "NightEvent") -> None:
        where = "" if event.cell is None else f"[{event.number}/{event.total}] {event.cell.name}"
        if event.kind == "begin":
            self._log = event.message
            if self._log:
                self._print(f"{where}: begins, log {self._log}", "dim")
            self._working(f"{where}: begins")
        elif event.kind == "tick":
            self._working(f"{where}: {duration(event.seconds)}{_memory(event.peak_memory_bytes)}", self._log)
        elif event.kind == "end" and event.outcome is not None:
            self._status.stop()
            self._print(f"{where}: {outcome_line(event.outcome)}", _STYLES.get(event.outcome.state, "yellow"))
        elif event.kind == "problem":
            self._print(f"problem: {event.message}", "yellow")
        else:
            self._print(event.message, "")
            if event.kind == "note":
                self._working("judging")

    def _working(self, text: str, log: str = "") -> None:
        """Only a terminal shows it. log: of which the last line is shown with it."""
        if self._console.is_terminal:
            said = last_line(Path(log)) if log else ""
            self._status.update(Text(f"{text}: {said}" if said else text))
            self._status.start()

    def _print(self, text: str, style: str) -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)


def last_line(log: Path) -> str:
    """Of what a cell has written so far; "" where that is nothing."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - _READ_OF_LOG))
            written = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    return shown(lines[-1], 120) if lines and not lines[-1].startswith("== ") else ""


def outcome_line(outcome: "Outcome") -> str:
    """``done in 12 s, 1.2 GB``, or why not."""
    took = f" in {duration(outcome.seconds)}{_memory(outcome.peak_memory_bytes)}" if outcome.log is not None else ""
    if outcome.state == "done":
        return f"done{took}"
    after = f" (after{took.removeprefix(' in')})" if took else ""
    return f"{outcome.state}: {outcome.reason}{after}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 05 s``, ``2 h 03 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _memory(peak: int | None) -> str:
    return "" if peak is None else f", {peak / 10**9:.2f} GB"


def plan_table(cells: "Sequence[Cell]", limits: "Mapping[str, str]", states: "Mapping[str, str]") -> Table:
    """What a night is made of. limits, states: by cell, in words."""
    table = Table(box=None, pad_edge=False)
    for column in ("cell", "measures", "limit", "this night"):
        table.add_column(column, overflow="fold")
    for cell in cells:
        table.add_row(cell.name, ", ".join(cell.measure), limits[cell.name], Text(states[cell.name]))
    return table
