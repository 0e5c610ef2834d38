"""Progress and tables in the terminal; plain lines where there is none."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from m2fbench.inspection import Inspection
from m2fbench.planning import Event
from m2fbench.results import RunResult

HEADLINE = (
    "PQ", "PQ_th", "PQ_st", "SQ", "RQ", "AP_th_pan", "AP50_th_pan", "mIoU_pan",
    "AP", "AP50", "AP75", "APs", "APm", "APl", "boundary_AP",
    "mIoU", "pixel_accuracy", "mean_accuracy", "frequency_weighted_IoU", "challenge_score", "IoU_category", "iIoU_class", "iIoU_category",
)  # fmt: skip
ADE20K_ONLY = ("frequency_weighted_IoU", "challenge_score")
LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal


class DownloadDisplay:
    """How far a download has come: a bar on a terminal, lines elsewhere. Called with (bytes so far, bytes in all or None)."""

    def __init__(self, console: Console, label: str = "downloading") -> None:
        self._console = console
        self._label = label
        self._progress: Progress | None = None
        self._last_line = -math.inf

    def __call__(self, done: int, total: int | None) -> None:
        if not self._console.is_terminal:
            if time.monotonic() - self._last_line >= LINE_EVERY or done == total:
                self._last_line = time.monotonic()
                self._console.print(Text(f"{self._label}: {done / 2**20:.1f} of {f'{total / 2**20:.1f}' if total else '?'} MB"))
            return
        if self._progress is None:
            columns = TextColumn(self._label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
            self._progress = Progress(*columns, console=self._console)
            self._progress.start()
            self._progress.add_task("")
        self._progress.update(self._progress.task_ids[0], completed=done, total=total)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None


@contextlib.contextmanager
def reading(console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """Show that a checkpoint is being read and, through what it yields, how far a download of it has come."""
    display, status = DownloadDisplay(console), console.status("reading the checkpoint")

    def arrived(done: int, total: int | None) -> None:
        status.stop()
        display(done, total)
        if done == total:
            display.stop()
            status.start()

    with status:
        try:
            yield arrived
        finally:
            display.stop()


class RunDisplay:
    """A listener for ``run``: a live bar with images/s and time left on a terminal, log lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._download = DownloadDisplay(console)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started = self._last_line = 0.0
        self._first = 0
        self._waiting = console.status("")

    def __enter__(self) -> "RunDisplay":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        name = f"{event.row} · {event.variant}"
        self._waiting.stop()
        if event.kind == "check":
            self._wait(f"checking the truth of {event.total} images of {event.message}")
        elif event.kind in ("start", "load", "count"):
            self._stop()
            self._console.print(Text(f"{name}: {event.message}"))
        elif event.kind == "download":
            self._download(event.done, event.total or None)
        elif event.kind in ("image", "timed"):
            self._image(event, name)
        elif event.kind == "score":
            self._stop()
            self._wait(f"{name}: scoring {event.total} images")
        elif event.kind == "unsupported":
            self._stop()
            self._console.print(Text(f"{name}: unsupported: {event.message}", style="yellow"), soft_wrap=True)
        elif event.kind == "done":
            self._console.print(Text(f"{name}: {event.message}"), soft_wrap=True)

    def _wait(self, text: str) -> None:
        """Say what takes its time and, on a terminal, that it goes on."""
        self._console.print(Text(text))
        self._waiting.update(Text("working"))
        self._waiting.start()

    def _image(self, event: Event, name: str) -> None:
        if event.kind == "timed" and not event.done:  # the next scope
            self._stop()
        if event.message:
            self._console.print(Text(f"{name}: left out: {event.message}", style="yellow"), soft_wrap=True)
        if self._started == 0.0:
            self._started = self._last_line = time.monotonic()
            self._first = event.done
            if event.done:
                self._console.print(Text(f"{name}: {event.done} of {event.total} images were done before"))
        rate = (event.done - self._first) / max(1e-9, time.monotonic() - self._started)
        # a rate over all variants, what is not timed included, would be nobody's figure
        shown = "" if event.kind == "timed" else f"{rate:.2f} images/s" if rate else "- images/s"
        if self._console.is_terminal:
            self._bar(event, name, shown)
        elif time.monotonic() - self._last_line >= LINE_EVERY or (event.done == event.total and event.done > self._first):
            self._last_line = time.monotonic()
            left = f", {_duration((event.total - event.done) / rate)} left" if rate and event.done < event.total else ""
            self._console.print(Text(f"{name}: {event.done}/{event.total} images{', ' * bool(shown)}{shown}{left}"))

    def _bar(self, event: Event, name: str, rate: str) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(), TextColumn("gone,"), TimeRemainingColumn(), TextColumn("left"), console=self._console,
            )  # fmt: skip
            self._progress.start()
            self._task = self._progress.add_task(name, total=event.total, completed=event.done, rate="")
        assert self._task is not None
        self._progress.update(self._task, completed=event.done, rate=rate)

    def _stop(self) -> None:
        self._download.stop()
        self._waiting.stop()
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None
        self._started = 0.0


def results_table(results: Sequence[RunResult]) -> Table:
    """Measured beside published values with the difference, one block of lines a run; further variants against the first."""
    of_ade20k = any((r.dataset or {}).get("name") == "ade20k" for r in results)
    names = [name for name in HEADLINE if of_ade20k or name not in ADE20K_ONLY]
    figures = [name for name in names if any(not math.isnan(r.value(name)) or _published(r, name) is not None for r in results)]
    title = results[0].suite["title"] if results else ""
    table = Table("checkpoint", "variant", "", title=title, title_justify="left")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    first: dict[str, RunResult] = {}
    for result in results:
        reference = first.setdefault(result.row, result)
        _add_run(table, result, None if reference is result else reference, figures)
        table.add_section()
    return table


def _add_run(table: Table, result: RunResult, reference: RunResult | None, figures: Sequence[str]) -> None:
    """The lines of one run; ``reference``: the same row under the suite's first variant, None for that one itself."""
    state = "measured" if result.status in ("complete", "partial") else "not measured"
    table.add_row(result.row, result.variant["name"], state, *(_cell(result.value(name)) for name in figures))
    if reference is not None and result.measurements and reference.measurements:
        gaps = (result.value(name) - reference.value(name) for name in figures)
        table.add_row("", "", f"against {reference.variant['name']}", *(_signed(gap) for gap in gaps))
    compared = reference is None or result.published != reference.published  # else the first variant's line says it
    if result.published and compared and result.status != "predicted":
        table.add_row("", "", "published", *(_cell(_published(result, name)) for name in figures), style="dim")
    if compared and any(c.comparable for c in result.comparisons):
        table.add_row("", "", "difference", *(_difference(result, name) for name in figures))
    if result.status == "partial":
        table.add_row("", "", Text(f"partial, not comparable ({result.reason})", style="yellow"))
    elif result.status in ("unavailable", "predicted", "unsupported"):
        said = "unsupported: " if result.status == "unsupported" else ""
        table.add_row("", "", Text(f"{said}{result.reason}", style="yellow"))
    elif result.published and result.reason and compared:
        table.add_row("", "", Text(f"not comparable ({result.reason})", style="yellow"))


def class_tables(result: RunResult) -> Iterator[Table]:
    """Every class's figures, a table a metric; a class without truth says so, and shows a dash where that leaves nothing to measure."""
    by_class = [m for m in result.measurements if m.category is not None and m.subset != "category"]
    for names in _families(list(dict.fromkeys(m.name for m in by_class))):
        values = {(m.category, m.name): m.value for m in by_class}
        categories = dict.fromkeys(m.category for m in by_class if m.name == names[0])
        table = Table("class", title=f"{result.row} · {result.variant['name']}, by class", title_justify="left")
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for category in categories:
            cells = (_class_cell(name, values.get((category, name), math.nan)) for name in names)
            table.add_row(category, *cells)
        yield table


def _families(names: Sequence[str]) -> Iterator[list[str]]:
    """The figures of one metric together: each metric's list ends with how much truth a class has."""
    family: list[str] = []
    for name in names:
        family.append(name)
        if name.startswith("truth_"):
            yield family
            family = []
    if family:
        yield family


def _class_cell(name: str, value: float) -> str:
    if name.startswith("truth_"):
        return "no truth" if value == 0 else _cell(value, digits=0)
    return _cell(value, digits=0 if name in ("TP", "FP", "FN") else 2)


def inspection_table(found: Inspection) -> Table:
    """The facts of a checkpoint, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.facts():
        table.add_row(name, value)
    return table


def _published(result: RunResult, name: str) -> float | None:
    return next((p.value for p in result.published if p.metric == name), None)


def _cell(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return "" if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: never "-0.00"


def _difference(result: RunResult, name: str) -> Text:
    for c in result.comparisons:
        if c.metric == name and c.comparable and not math.isnan(c.difference):
            style = {True: "green", False: "bold red", None: ""}[c.within]
            return Text(_signed(c.difference) + (" ✗" if c.within is False else ""), style=style)
    return Text("")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
