"""The parent of one cell's process, which no process of the cell outlives: a script of its own, quick to start, standard library only.

    python supervisor.py LIFELINE REPORT COMMAND...

It starts COMMAND, adopts whatever descendants of it lose their parent, and ends them all once COMMAND has ended, or once the other end of the
pipe LIFELINE is closed, as it is when the night itself dies, kill -9 included. Then it writes the exit status to the pipe REPORT, negative for
a signal. SIGTERM and SIGINT are left to COMMAND, which is in the same process group.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
CANNOT_START = 127


def main(lifeline: int, report: int, command: list[str]) -> None:
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN, which the command would inherit
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = _start(command)
    status: int | None = None
    while status is None:
        ready, _, _ = select.select([lifeline, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            status = _reaped(child)
        if lifeline in ready:  # nothing is ever written to it: its end
            break
    killed = _end_all(child)
    status = killed if status is None else status
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(report, str(status).encode())


def _start(command: list[str]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, parent)
    return child


def _become(command: list[str], parent: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.closerange(3, 1 << 16)
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: cannot be started: {error.strerror}\n".encode())
    os._exit(CANNOT_START)


def _prctl(option: int, value: int) -> None:
    """Only Linux has it; elsewhere the process group has to do."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _reaped(child: int) -> int | None:
    """Bury the dead; the exit status of ``child`` if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (dead := os.waitpid(-1, os.WNOHANG))[0]:
            if dead[0] == child:
                found = os.waitstatus_to_exitcode(dead[1])
    return found


def _end_all(child: int) -> int:
    """Kill every descendant; those of a killed one become children of this process, and are next. The exit status of ``child``, if it was
    still there."""
    status = -signal.SIGKILL
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, how = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return int(status)
        if pid == child:
            status = os.waitstatus_to_exitcode(how)
        if pid == 0:
            time.sleep(0.01)


def _children() -> list[int]:
    me, found = os.getpid(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == me:
                    found.append(int(folder.name))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
