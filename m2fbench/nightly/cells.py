"""One cell of a night, run in a process of its own, and what came of it, kept on disk from its beginning."""

import hashlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from m2fbench.errors import StoreError
from m2fbench.facts import now
from m2fbench.nightly.endings import meaning
from m2fbench.nightly.folder import log_path, write_outcome
from m2fbench.nightly.isolated import Ended, Limits, Tick, run_isolated
from m2fbench.nightly.loading import Nightly
from m2fbench.nightly.matrix import CellPlan, command_of, result_files
from m2fbench.nightly.records import Outcome, OutcomeState
from m2fbench.writing import make_folder, store_error

NOTED_EVERY = 5.0  # seconds between notes of how long a cell has taken, for the budget of an attempt that is killed
READ_OF_LOG = 1 << 16  # bytes
INTERRUPTED = "interrupted before its end; the same command goes on with it"


@dataclass(frozen=True)
class Room:
    """What cells are given. environment: of their processes. lock: a file descriptor that stays open until the last of them has ended.
    deadline: end of the night's time, on the monotonic clock; None for no end."""

    environment: Mapping[str, str]
    lock: int
    deadline: float | None = None

    @property
    def left(self) -> float | None:
        """Seconds."""
        return None if self.deadline is None else self.deadline - time.monotonic()


def run_cell(
    nightly: Nightly,
    one: CellPlan,
    root: Path,
    room: Room,
    *,
    before: Outcome | None = None,
    measure: Sequence[str] | None = None,
    problem: str | None = None,
    tick: Tick | None = None,
) -> Outcome:
    """Run a cell below ``root`` (a night's folder, or that of its repeats) and write what came of it there. before: of an interrupted attempt,
    which is gone on with. measure: in place of the cell's own. problem: why it cannot be run, where that was seen beforehand."""
    earlier = before or Outcome(one.cell, "interrupted")
    outcome = without_process(one, room, earlier, problem) or _run(nightly, one, root, room, earlier, measure, tick)
    write_outcome(root, outcome)
    return outcome


def without_process(one: CellPlan, room: Room, earlier: Outcome, problem: str | None = None) -> Outcome | None:
    """The outcome of a cell that cannot be run, or that the night has no time for."""
    if one.unavailable is not None:
        return Outcome(one.cell, "unavailable", one.unavailable)
    if problem is not None:
        return replace(earlier, state="failed", reason=problem)
    if room.left is not None and room.left <= 0:
        return replace(earlier, state="no budget", reason="the night's time was over before it began")
    return None


def _run(
    nightly: Nightly, one: CellPlan, root: Path, room: Room, earlier: Outcome, measure: Sequence[str] | None, tick: Tick | None
) -> Outcome:
    log, entry, budget = log_path(root, one.cell), nightly.config.suites[one.cell.index], nightly.config.budget
    command = command_of(one, entry, nightly.config.device, root / "runs", measure)
    files = result_files(one.cell, entry.limit, root / "runs", measure)
    minutes = entry.cell_minutes or budget.cell_minutes
    limits = Limits(_least(minutes * 60, room.left), None if budget.memory_GB is None else int(budget.memory_GB * 10**9))
    begun = replace(earlier, state="interrupted", reason=INTERRUPTED, log=log.relative_to(root).as_posix())
    write_outcome(root, begun)
    stamps, start, noted = _stamps(files), _begin_log(log, command), 0.0

    def watched(seconds: float, peak: int | None) -> None:
        nonlocal noted
        if seconds - noted >= NOTED_EVERY:
            noted = seconds
            write_outcome(root, _after(begun, seconds, peak))
        if tick is not None:
            tick(seconds, peak)

    started = time.monotonic()
    try:
        ended = run_isolated(
            command, log, limits, folder=nightly.folder, environment=room.environment, keep=(room.lock,), tick=watched
        )
    except BaseException:  # Ctrl-C: what it took counts
        write_outcome(root, _after(begun, time.monotonic() - started, None))
        raise
    state, reason = _meaning(ended, _tail(log, start), minutes, budget.memory_GB, room)
    lost = [path.name for path, stamp in _stamps(files).items() if stamp is None or stamp == stamps[path]]
    if state == "done" and lost:
        state, reason = "failed", f"ended without an error and without {', '.join(lost)}; its log says what it did instead"
    results = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name not in lost)
    known = _after(begun, ended.seconds, ended.peak_memory_bytes)
    return replace(known, state=state, reason=reason, exit_status=ended.exit_status, results=results)


def _meaning(ended: Ended, written: str, minutes: float, memory_GB: float | None, room: Room) -> tuple[OutcomeState, str | None]:
    if ended.how == "timeout" and room.left is not None and room.left <= 0:
        return "no budget", f"ended after {ended.seconds / 60:.3g} min, as the night's time was over"
    return meaning(ended, written, minutes, memory_GB)


def _least(seconds: float, left: float | None) -> float:
    return seconds if left is None else min(seconds, left)


def _after(begun: Outcome, seconds: float, peak: int | None) -> Outcome:
    """With what an attempt took added to the earlier ones."""
    return replace(
        begun, seconds=begun.seconds + seconds, peak_memory_bytes=max(filter(None, (begun.peak_memory_bytes, peak)), default=None)
    )


def _stamps(files: Sequence[Path]) -> dict[Path, tuple[int, int] | None]:
    """What tells whether a file has been written anew; None for one that is not there."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) if path.is_file() else None for path in files}


def _begin_log(log: Path, command: Sequence[str]) -> int:
    """Note the attempt; where in the log its output begins."""
    make_folder(log.parent)
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {now()} {shlex.join(command)}\n")
            return file.tell()
    except OSError as error:
        raise store_error(log, error) from error


def _tail(log: Path, start: int) -> str:
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - READ_OF_LOG))
            return file.read().decode("utf-8", errors="replace")
    except OSError as error:
        raise StoreError(f"{log}: cannot be read: {error.strerror}") from error
