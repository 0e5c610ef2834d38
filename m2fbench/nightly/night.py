"""One night: every cell of the matrix in a process of its own, then judged by what came before."""

import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from m2fbench.analysis.words import counted
from m2fbench.environment import describe_environment
from m2fbench.errors import HistoryError, M2FBenchError
from m2fbench.facts import now
from m2fbench.history.entries import machine_of
from m2fbench.history.history import History
from m2fbench.nightly.beforehand import seen_beforehand
from m2fbench.nightly.cells import Room, run_cell, without_process
from m2fbench.nightly.folder import (
    NightFile,
    locked,
    log_path,
    name_of_night,
    new_night,
    read_night,
    read_outcome,
    refuse_changes,
    write_night,
)
from m2fbench.nightly.loading import Nightly
from m2fbench.nightly.matrix import CellPlan, chosen, environment_for, result_files
from m2fbench.nightly.neighbours import at_work
from m2fbench.nightly.order import RETRIED, earlier, left_to_do
from m2fbench.nightly.pruning import prune
from m2fbench.nightly.records import Cell, NightFacts, Outcome, Verdict
from m2fbench.results import RunResult
from m2fbench.writing import make_folder, write_atomically


@dataclass(frozen=True)
class NightRequest:
    """night: its name, None for today's. only: patterns of the cells to run, all where empty. retry: run cells again that an earlier attempt
    could not measure. summary: a further file for the summary, None for none."""

    night: str | None = None
    only: tuple[str, ...] = ()
    retry: bool = False
    summary: Path | None = None


@dataclass(frozen=True)
class NightEvent:
    """What a night tells as it goes. kind: "night" (message: its folder and what there is to do), "begin" (message: path of its log, empty where
    nothing runs) and "end" of a cell, "tick" (every half second while one runs), "note" and "problem" (messages). number, total: of cells.
    peak_memory_bytes: None where it is not known."""

    kind: Literal["night", "begin", "tick", "end", "note", "problem"]
    message: str = ""
    cell: Cell | None = None
    number: int = 0
    total: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    outcome: Outcome | None = None


Listener = Callable[[NightEvent], None]


@dataclass(frozen=True)
class NightReport:
    """What came of it. problems: what went wrong besides the cells, the dashboard say; one line each."""

    folder: Path
    verdict: Verdict
    written: tuple[Path, ...]
    problems: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """The verdict's; 2 where that is 0 and there is a problem."""
        return self.verdict.exit_status or (2 if self.problems else 0)


@dataclass
class _Work:
    """A night at work. done: outcomes so far, by cell."""

    nightly: Nightly
    folder: Path
    known: NightFile
    history: History
    room: Room
    listener: Listener
    done: dict[str, Outcome]
    problems: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.listener(NightEvent("note", message))

    def problem(self, message: str) -> None:
        self.problems.append(message)
        self.listener(NightEvent("problem", message))


def run_night(nightly: Nightly, request: NightRequest, listener: Listener) -> NightReport:
    """Run what is left of a night, and judge it. Interrupted (KeyboardInterrupt), what has ended is kept, and the same call goes on.

    Raises NightlyError where the night is another configuration's or at work elsewhere, HistoryError where the history cannot be opened.
    """
    picked = chosen(nightly.cells, request.only)
    folder = folder_of(nightly, request.night)
    environment = environment_for(os.environ, Path.cwd(), folder.name)
    summary = None if request.summary is None else request.summary.expanduser().absolute()
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    with locked(folder) as lock, at_work(folder, nightly.history, nightly.output) as others, chdir(nightly.folder):
        known = _begun(nightly, folder)
        seen = seen_beforehand(nightly)
        for message in (*seen.warnings, *others):
            listener(NightEvent("note", f"warning: {message}"))
        for message in seen.problems:
            listener(NightEvent("problem", message))
        with History(nightly.history, create=True, tell=lambda what: listener(NightEvent("note", what))) as history:
            done = earlier(nightly, folder, retry=request.retry)
            room = Room(environment, lock, _deadline(nightly, 0.0 if request.retry else _used(nightly, folder, done)))
            work = _Work(nightly, folder, known, history, room, listener, done)
            _run_cells(work, picked, seen.cells)
            verdict = _judged(work, picked)
            written = _written(work, verdict, summary, None if step is None else Path(step))
            written += _dashboard(work)
            _pruned(work)
    return NightReport(folder, verdict, tuple(written), tuple(work.problems))


def folder_of(nightly: Nightly, night: str | None) -> Path:
    """night: its name, None for today's."""
    return nightly.output / (night or name_of_night(nightly.output, nightly.config.nightly, datetime.now(UTC)))


def _begun(nightly: Nightly, folder: Path) -> NightFile:
    """night.json, written before anything else is."""
    fresh = new_night(nightly, folder.name, now())
    if (folder / "night.json").exists():
        before = read_night(folder)
        refuse_changes(folder, before, fresh)
        fresh = replace(fresh, started=before.started, finished=before.finished, pruned=before.pruned)
    write_night(folder, fresh)
    return fresh


def _used(nightly: Nightly, folder: Path, done: Mapping[str, Outcome]) -> float:
    """Seconds that cells, second runs included, have taken of the night's time."""
    repeats = earlier(nightly, folder / "repeats", retry=False)
    return sum(outcome.seconds for outcome in (*done.values(), *repeats.values()))


def _deadline(nightly: Nightly, used: float) -> float | None:
    """On the monotonic clock. used: seconds of cells in earlier attempts."""
    minutes = nightly.config.budget.minutes
    return None if minutes is None else time.monotonic() + minutes * 60 - used


def _run_cells(work: _Work, picked: set[str], problems: Mapping[str, str]) -> None:
    """problems: why a cell cannot be run, seen beforehand; it has failed, and the others are run."""
    left = left_to_do(work.nightly, work.folder, work.done, picked)
    total = len(picked)
    work.listener(NightEvent("night", _what_is_left(work, len(left), total), total=total))
    for number, one in enumerate(left, total - len(left) + 1):
        before, problem = work.done.get(one.cell.name), problems.get(one.cell.name)
        runs = without_process(one, work.room, before or Outcome(one.cell, "interrupted"), problem) is None
        log = str(log_path(work.folder, one.cell)) if runs else ""
        begun = NightEvent("begin", log, cell=one.cell, number=number, total=total)
        work.listener(begun)

        def tick(seconds: float, peak: int | None, begun: NightEvent = begun) -> None:
            work.listener(replace(begun, kind="tick", seconds=seconds, peak_memory_bytes=peak))

        outcome = run_cell(work.nightly, one, work.folder, work.room, before=before, problem=problem, tick=tick)
        work.done[one.cell.name] = outcome
        try:
            added = work.history.add(_results(work, one))
            for lost in added.problems:
                work.problem(f"{one.cell.name}: {lost.message}")
        except HistoryError as error:  # added once more before the night is judged
            work.note(f"{one.cell.name}: not yet in the history: {error}")
        work.listener(
            replace(begun, kind="end", outcome=outcome, seconds=outcome.seconds, peak_memory_bytes=outcome.peak_memory_bytes)
        )
    ended = [o for o in work.done.values() if o.state != "interrupted"]
    if len(ended) == len(work.nightly.cells) and (left or work.known.finished is None):
        work.known = replace(work.known, finished=now())
        write_night(work.folder, work.known)


def _results(work: _Work, one: CellPlan) -> list[Path]:
    """The result files that the cell's outcome names: those of another cell of the row, or of an earlier state, are not its own."""
    outcome = work.done.get(one.cell.name)
    limit = work.nightly.config.suites[one.cell.index].limit
    files = [path for path in result_files(one.cell, limit, work.folder / "runs") if path.is_file()]
    return [path for path in files if outcome is not None and hashlib.sha256(path.read_bytes()).hexdigest() in outcome.results]


def _what_is_left(work: _Work, left: int, picked: int) -> str:
    there = len([o for o in work.done.values() if o.state != "interrupted"])
    if not left and there == len(work.nightly.cells):
        failed = sum(outcome.state in RETRIED for outcome in work.done.values())
        retry = f"; --retry runs the {failed} that failed again" if failed else ""
        return f"{work.folder}: this night is finished; it is judged anew (--night NAME begins another{retry})"
    chosen_of = "" if picked == len(work.nightly.cells) else f", {picked} of them chosen"
    resumed = f", {there} done before" if there else ""
    return f"{work.folder}: {len(work.nightly.cells)} cells{chosen_of}{resumed}, {left} to run"


def _judged(work: _Work, picked: set[str]) -> Verdict:
    from m2fbench.nightly.judging import judge

    for one in work.nightly.cells:  # what could not be added at once; the rest is known already
        work.history.add(_results(work, one))
    plans = {one.cell.name: one for one in work.nightly.cells}
    outcomes = [_outcome(work, one.cell, picked) for one in work.nightly.cells]
    config = work.nightly.config
    facts = NightFacts(
        config.nightly, config.title or config.nightly, work.folder.name, work.known.started, _machine(work, outcomes)
    )

    def repeat(cell: Cell) -> Path | None:
        return _repeated(work, plans[cell.name])

    verdict = judge(work.history, config, facts, outcomes, repeat, work.note)
    if left_out := len(outcomes) - len(picked):
        note = f"{counted(left_out, 'cell')} left out by --only; run without --only to finish the night and to judge all of it"
        verdict = replace(verdict, notes=(note, *verdict.notes))
    return verdict


def _outcome(work: _Work, cell: Cell, picked: set[str]) -> Outcome:
    """What came of a cell, as far as the night is judged: of those that were chosen."""
    if cell.name not in picked:
        return Outcome(cell, "left out", "by --only")
    return work.done.get(cell.name) or Outcome(cell, "interrupted", "not run yet")


def _machine(work: _Work, outcomes: Sequence[Outcome]) -> str:
    """As most results of the night say; by the processor where there is none."""
    found: Counter[str] = Counter()
    for sha256 in (sha256 for outcome in outcomes for sha256 in outcome.results):
        with contextlib.suppress(HistoryError):  # not among those that could be added; its problem has been told
            found[work.history.entry(sha256).machine] += 1
    nothing = RunResult({}, "", {}, "unavailable", environment=describe_environment())
    return found.most_common(1)[0][0] if found else machine_of(nothing)


def _repeated(work: _Work, one: CellPlan) -> Path | None:
    """The accuracy of a cell once more, from nothing; its run directory, None where that failed or no time is left."""
    root = work.folder / "repeats"
    outcome = read_outcome(root, one.cell)
    if outcome is None or outcome.state in ("interrupted", "no budget"):
        outcome = run_cell(work.nightly, one, root, work.room, before=outcome, measure=("accuracy",))
    if outcome.state != "done":
        work.note(f"{one.cell.name}: the second run: {outcome.state}: {outcome.reason}")
        return None
    return root / "runs" / one.cell.suite / one.cell.row / one.cell.variant


def _written(work: _Work, verdict: Verdict, summary: Path | None, step: Path | None) -> list[Path]:
    """The night's own files, and the summary where else it is wanted."""
    from m2fbench.nightly.outputs import append_summary, write_outputs

    written = write_outputs(verdict, work.folder, url=work.nightly.config.url)
    text = (work.folder / "summary.md").read_text(encoding="utf-8")
    try:
        if summary is not None:
            make_folder(summary.parent)
            write_atomically(summary, text)
            written.append(summary)
        if step is not None:
            append_summary(text, step)
    except M2FBenchError as error:
        work.problem(str(error))
    return written


def _dashboard(work: _Work) -> list[Path]:
    """Its first page. A dashboard that cannot be made does not take the verdict away."""
    from m2fbench.reporting.dashboard.site import SiteRequest, write_site

    config, folder = work.nightly.config, work.nightly.dashboard
    if folder is None:
        return []
    request = SiteRequest(config.title or config.nightly, config.url, config.rules.rules, now())
    try:
        history = work.history
        write_site(
            folder,
            history.entries(),
            history.series(),
            history.problems(),
            request,
            acceptances=history.acceptances(),
            tell=work.note,
        )
    except M2FBenchError as error:
        work.problem(f"the dashboard was not written: {error}")
        return []
    return [folder / "index.html"]


def _pruned(work: _Work) -> None:
    try:
        for line in prune(work.nightly.output, work.nightly.config, work.history, work.folder):
            work.note(line)
    except M2FBenchError as error:
        work.problem(f"old predictions were not deleted: {error}")
