"""What is shown while an analysis works: a bar on a terminal, lines elsewhere."""

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from m2fbench.reporting.terminal.runs import LINE_EVERY


class Waiting:
    """``tell`` and ``progress`` for the functions of ``analysis``, around which it is a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what = ""
        self._last_line = -math.inf
        self._begun = False
        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> "Waiting":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def tell(self, what: str) -> None:
        """What is being worked on from here on."""
        self._what, self._last_line, self._begun = what, time.monotonic(), False
        if self._console.is_terminal:
            self._progress.reset(self._task, description=what, total=None)
        else:
            self._console.print(Text(what), soft_wrap=True)

    def progress(self, done: int, total: int) -> None:
        """How far that has come. Where lines have told of it, one tells of its end."""
        if self._console.is_terminal:
            self._progress.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._last_line >= LINE_EVERY or (self._begun and done == total):
            self._last_line, self._begun = time.monotonic(), done < total
            self._console.print(Text(f"{self._what}: {done} of {total}"), soft_wrap=True)
