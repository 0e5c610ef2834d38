"""One command in a process of its own, under limits of time and memory, and nothing of it left once it has ended."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m2fbench.nightly import supervisor
from m2fbench.nightly.processes import MemoryWatch, descendants, oom_kills
from m2fbench.writing import make_folder, store_error

LOOK_EVERY = 0.5  # seconds
LOG_LIMIT = 200 * 10**6  # bytes
GIVE_UP = 30.0  # seconds after SIGKILL: a process that waits for a device or a network disk cannot be killed

Tick = Callable[[float, int | None], None]
"""Called every half second with the seconds so far and the peak of memory in bytes, None where it is not known."""


@dataclass(frozen=True)
class Limits:
    """seconds: of wall time. memory_bytes: of all processes together. None: no limit. grace: seconds between SIGTERM and SIGKILL."""

    seconds: float | None = None
    memory_bytes: int | None = None
    grace: float = 10.0


@dataclass(frozen=True)
class Ended:
    """How it ended. how: by itself ("exited"), or ended here for time, memory or the size of its log. exit_status: negative for a signal, None
    where it could not even be killed. oom_killed: the system's out-of-memory killer struck meanwhile."""

    how: Literal["exited", "timeout", "memory", "output"]
    exit_status: int | None
    seconds: float
    peak_memory_bytes: int | None
    oom_killed: bool = False


def run_isolated(
    command: Sequence[str],
    log: Path,
    limits: Limits,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
    tick: Tick | None = None,
) -> Ended:
    """Run ``command`` with no input, its output appended to ``log``. folder: to run it in. environment: in place of this process' own.
    keep: file descriptors to stay open until all of it has ended. Interrupted by an exception, KeyboardInterrupt included, it ends the
    command before that goes on. Raises StoreError where the log cannot be written."""
    make_folder(log.parent)
    try:
        output = log.open("ab")
    except OSError as error:
        raise store_error(log, error) from error
    kills = oom_kills()
    with output, _supervised(command, output.fileno(), folder, environment, keep) as child:
        watch = MemoryWatch(child.process.pid)
        how = _watched(child, watch, log, limits, tick)
        if how != "exited":
            _end(child, 0.0 if how == "memory" else limits.grace)
        status = child.status()
    return Ended(how, status, child.seconds, watch.peak, oom_kills() > kills)


@dataclass
class _Child:
    """The supervisor, our end of its lifeline (None once closed), and what it reports through."""

    process: "subprocess.Popen[bytes]"
    lifeline: int | None
    report: int
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def over(self, timeout: float) -> bool:
        """Whether all has ended; waits so many seconds for it."""
        return bool(select.select([self.report], [], [], max(0.0, timeout))[0])

    def status(self) -> int | None:
        if not self.over(0):
            return None
        reported = os.read(self.report, 64)
        if not reported:  # the supervisor itself was killed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        ended = self.process.wait()
        return int(reported) if reported else ended

    def cut(self) -> None:
        """Let go of the lifeline: the supervisor then kills everything."""
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None


@contextlib.contextmanager
def _supervised(
    command: Sequence[str], output: int, folder: Path | None, environment: Mapping[str, str] | None, keep: Sequence[int]
) -> Iterator[_Child]:
    its_lifeline, lifeline = os.pipe()
    report, its_report = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(supervisor.__file__), str(its_lifeline), str(its_report), *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=environment, start_new_session=True,
            pass_fds=(its_lifeline, its_report, *keep),
        )  # fmt: skip
    except BaseException:
        os.close(lifeline)
        os.close(report)
        raise
    finally:
        os.close(its_lifeline)
        os.close(its_report)
    child = _Child(process, lifeline, report, time.monotonic())
    try:
        yield child
    finally:
        if not child.over(0):
            _end(child, 2.0)
        child.cut()
        os.close(report)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)


def _watched(
    child: _Child, watch: MemoryWatch, log: Path, limits: Limits, tick: Tick | None
) -> Literal["exited", "timeout", "memory", "output"]:
    """Wait for its end, or until a limit is passed: which."""
    size = log.stat().st_size
    while True:
        left = LOOK_EVERY if limits.seconds is None else min(LOOK_EVERY, limits.seconds - child.seconds)
        if child.over(left):
            return "exited"
        peak = watch.look()
        if limits.seconds is not None and child.seconds >= limits.seconds:
            return "timeout"
        if limits.memory_bytes is not None and peak is not None and peak > limits.memory_bytes:
            return "memory"
        if log.stat().st_size - size > LOG_LIMIT:
            return "output"
        if tick is not None:
            tick(child.seconds, peak)


def _end(child: _Child, grace: float) -> None:
    """End all of it: asked first, where there is grace, then killed."""
    if grace:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGTERM)
        if child.over(grace):
            return
    child.cut()
    if child.over(5.0):
        return
    for pid in descendants(child.process.pid):  # the supervisor is stopped, say
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.over(GIVE_UP)
