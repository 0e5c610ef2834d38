"""How a dataset comes in: one bar per archive and phase on a terminal, plain lines elsewhere."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from m2fbench.acquire import Step
from m2fbench.reporting.terminal.runs import LINE_EVERY, DownloadDisplay

VERBS = {"download": "downloading", "unpack": "unpacking"}


class FetchDisplay:
    """A listener for ``fetch_dataset``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._label = ""
        self._display = DownloadDisplay(console)

    def __enter__(self) -> "FetchDisplay":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._display.stop()

    def __call__(self, step: Step) -> None:
        if step.kind == "note":
            self._display.stop()
            self._console.print(Text(step.message), soft_wrap=True)
            return
        label = f"{VERBS[step.kind]} {step.archive}"
        if label != self._label:
            self._display.stop()
            self._label, self._display = label, DownloadDisplay(self._console, label)
        self._display(step.done, step.total)


@contextlib.contextmanager
def counting(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far through its images a command is; yields what is to be called with (images done, images in all)."""
    last = -math.inf
    bar = Progress(TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)

    def counted(done: int, total: int) -> None:
        nonlocal last
        if console.is_terminal:
            if not bar.task_ids:
                bar.start()
                bar.add_task("")
            bar.update(bar.task_ids[0], completed=done, total=total)
        elif time.monotonic() - last >= LINE_EVERY or done == total:
            last = time.monotonic()
            console.print(Text(f"{label}: {done}/{total} images"))

    try:
        yield counted
    finally:
        bar.stop()
