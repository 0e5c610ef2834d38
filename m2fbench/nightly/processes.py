"""What the system says of processes: who descends from whom, the memory they take together, and whether it ran out of it. Linux's /proc;
where there is none, nothing is known."""

import contextlib
import os
import re
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, ``pid`` itself left out."""
    found, waiting = [], [pid]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for tasks in (PROC / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):
            found += map(int, tasks.read_text().split())
    return found


def memory_is_told() -> bool:
    """Whether this system says what memory a process and its descendants take."""
    return bool(list((PROC / "self" / "task").glob("*/children"))) and _resident(os.getpid()) > 0


class MemoryWatch:
    """The memory that the descendants of a process take together, and the most they ever took.

    A page that several share is counted once (PSS), which the kernel has to walk their pages for; so that watching does not disturb what is
    measured, that is asked only where the resident pages, each counted as often as it is shared, are more than ever before.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._resident = 0
        self.peak: int | None = None

    def look(self) -> int | None:
        """The peak in bytes as of now; None where nothing could be read yet."""
        family = descendants(self._pid)
        resident = sum(_resident(pid) for pid in family)
        if resident > self._resident * 1.005:
            self._resident = resident
            self.peak = max(self.peak or 0, sum(_proportional(pid) for pid in family))
        return self.peak


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _proportional(pid: int) -> int:
    """PSS in bytes; resident where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError):
        if found := re.search(r"^Pss:\s+(\d+) kB", (PROC / str(pid) / "smaps_rollup").read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    return _resident(pid)


def oom_kills() -> int:
    """How many processes the system has killed so far for want of memory, in this process' control group and, as far as it tells, in all.
    Only whether it rises says anything."""
    files = [PROC / "vmstat"]
    with contextlib.suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            inside = path.lstrip("/")
            if controllers == "":
                files += [CGROUPS / inside / "memory.events", CGROUPS / "memory.events"]
            elif "memory" in controllers.split(","):
                files += [CGROUPS / "memory" / inside / "memory.oom_control", CGROUPS / "memory" / "memory.oom_control"]
    total = 0
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            total += sum(int(count) for count in re.findall(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE))
    return total
