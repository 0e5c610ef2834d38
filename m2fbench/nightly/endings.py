"""What the end of a cell's process means, from its exit status and the last lines it wrote: pure."""

import re
import signal

from m2fbench.errors import shown
from m2fbench.nightly.isolated import Ended
from m2fbench.nightly.records import OutcomeState

REASON_LIMIT = 600  # characters
DONE = (0, 1)  # 1: a figure is outside the suite's tolerance, and its results are there
CANNOT_RUN_HERE = "no variant can run here"
"""What ``m2fbench run`` says where the device can do nothing of what was asked (``runner.run``)."""
_PREFIX = "m2fbench: "
_STACKS = "Fatal Python error: "  # with it begins what faulthandler writes at a deadly signal
_OUT_OF_MEMORY = re.compile(
    r"torch\.OutOfMemoryError|CUDA out of memory|DefaultCPUAllocator: (can't|not enough)|\bMemoryError\b|Cannot allocate memory"
)
_KILLED = re.compile(r"killed by signal: Killed|exited unexpectedly|exit code -9")


def meaning(ended: Ended, written: str, limit_minutes: float, memory_GB: float | None) -> tuple[OutcomeState, str | None]:
    """What came of a cell, and why in one line where it is not done. written: the end of its output. limit_minutes: that it had."""
    if ended.how == "timeout":
        return "timeout", f"ended after its limit of {limit_minutes:g} min{_last(written)}{_stuck(ended)}"
    if ended.how == "memory":
        peak = (ended.peak_memory_bytes or 0) / 10**9
        return "memory", f"took {peak:.4g} GB of memory, more than its limit of {memory_GB or 0:g} GB{_stuck(ended)}"
    if ended.how == "output":
        return "failed", f"ended as it wrote without end{_last(written)}{_stuck(ended)}"
    status = ended.exit_status
    if status in DONE and not written.rstrip().endswith("No module named m2fbench"):
        return "done", None
    said = _said(written)
    if status == -signal.SIGKILL or _KILLED.search(written):
        if ended.oom_killed:
            return "memory", "killed by the system for want of memory"
        if status == -signal.SIGKILL:
            return (
                "failed",
                "killed by signal 9 (SIGKILL), which is what the system does when memory runs out; nothing tells that it did",
            )
    if found := _OUT_OF_MEMORY.search(written):
        return "memory", _clipped(_line_of(written, found.start()))
    if CANNOT_RUN_HERE in said:
        return "unsupported", said
    if status is not None and status < 0:
        return "failed", f"killed by signal {-status} ({_signal_name(-status)}){_last(written)}"
    return "failed", said or f"ended with exit status {status} and said nothing"


def _said(written: str) -> str:
    """The errors that m2fbench printed, whole; of a bug the exception; of anything else the last line."""
    before_dump = written.partition(_STACKS)[0]
    lines = [line.strip() for line in before_dump.splitlines() if line.strip()]
    ours = [line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]
    errors = [line.removeprefix("error: ") for line in ours if line.startswith(("error: ", "verification failed: "))]
    if errors:
        return _clipped("; ".join(errors))
    others = [line for line in lines if not line.startswith(_PREFIX)]
    return _clipped(others[-1] if others else "; ".join(ours))


def _last(written: str) -> str:
    said = _said(written)
    return f"; its last line: {said}" if said else ""


def _stuck(ended: Ended) -> str:
    return "" if ended.exit_status is not None else "; it could not be killed and may still be there"


def _line_of(text: str, place: int) -> str:
    return text[text.rfind("\n", 0, place) + 1 :].partition("\n")[0]


def _clipped(text: str) -> str:
    return shown(text.strip(), REASON_LIMIT)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
