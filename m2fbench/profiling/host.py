"""The host as /proc and /sys show it: processor, limits, clocks, and what else ran. Every function takes the root of the tree that it reads.

Where a file is not there (another system, a virtual machine, a container) the value is None and ``why`` gains the reason.
"""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from m2fbench.types import JsonObject

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # of /proc/stat and /proc/PID/stat, a second
SHORTEST = 1.0  # seconds between two readings from which ticks of 10 ms tell who used the processor
UNLIMITED = 2**60  # cgroup v1 writes "no limit" as the largest multiple of the page size
CPUS = "sys/devices/system/cpu"

N = TypeVar("N", int, float)

Why = dict[str, str]
"""Name of a value that could not be read -> the reason."""


@dataclass(frozen=True)
class Counters:
    """Readings that only grow, at one moment; None where unreadable. Times in seconds, summed over cores."""

    moment: float
    all_time: float | None
    busy: float | None  # user, nice, system, interrupts; not steal
    iowait: float | None
    steal: float | None
    own: float | None  # this process, its children that it waited for, and its living descendants
    switches: int | None  # involuntary, of all threads of this process
    swapped_in: int | None  # bytes, of the whole machine
    swapped_out: int | None
    throttled: float | None  # how long the cgroup's CPU quota stopped us
    load: float | None  # load average over a minute; no counter, read at the same moments


def facts(root: Path, cpus: Iterable[int] | None, why: Why) -> JsonObject:
    """What does not change during a measurement. cpus: those this process may run on, None where the system does not tell."""
    allowed = sorted(cpus) if cpus is not None else None
    if allowed is None:
        why["host.affinity"] = f"{platform.system()} does not tell which processors a process may use"
    first = f"{CPUS}/cpu{allowed[0] if allowed else 0}/cpufreq"
    cores = _count_cores(root, why)
    quota = _cpu_quota(root)
    usable = min([n for n in (cores, len(allowed) if allowed else None, quota) if n is not None], default=None)
    limits = {name: _number(root, f"{first}/cpuinfo_{name}_freq") for name in ("min", "max")}
    return {
        "processor": _processor(root, why),
        "cores": cores,
        "affinity": len(allowed) if allowed is not None else None,
        "quota_cores": quota,
        "usable_cores": usable,
        "memory_bytes": _memory(root, why),
        "memory_limit_bytes": _memory_limit(root),
        "frequency_limits_mhz": {name: khz / 1000 if khz is not None else None for name, khz in limits.items()},
        "governor": _governors(root, allowed, why),
        "frequency_driver": _text(root, f"{first}/scaling_driver"),
        "turbo": _turbo(root, why),
        "on_battery": _on_battery(root, why),
    }


def running_frequency(root: Path, pid: int, thread: int) -> float:
    """MHz of the core that the thread last ran on: the clock that the measured code had. OSError where the system does not show it."""
    fields = _fields(root / f"proc/{pid}/task/{thread}/stat")
    core = int(fields[36])  # field 39 of proc(5), "processor"
    return int((root / f"{CPUS}/cpu{core}/cpufreq/scaling_cur_freq").read_text()) / 1000


def counters(root: Path, pid: int, moment: float, switches: int | None, why: Why) -> Counters:
    """Read all counters once. It looks at every process of the machine, so it stands outside what is measured."""
    total, busy, iowait, steal = _processor_times(root, why)
    swapped = {name: _swapped(root, name, why) for name in ("pswpin", "pswpout")}
    return Counters(
        moment, total, busy, iowait, steal, _tree_time(root, pid, why), switches, swapped["pswpin"], swapped["pswpout"],
        _throttled(root), _load(root, why),
    )  # fmt: skip


def between(before: Counters, after: Counters, why: Why) -> JsonObject:
    """What the counters say about the time between two readings; shares in 0..1 of all cores' time."""
    seconds = after.moment - before.moment
    total = _grown(before.all_time, after.all_time)
    own, busy = _grown(before.own, after.own), _grown(before.busy, after.busy)
    others = max(0.0, busy - own) if busy is not None and own is not None else None
    if seconds < SHORTEST:
        others = total = None
        why["host.others_cores"] = f"measured for {seconds:.2f} s; ticks of {1000 / TICKS:.0f} ms need {SHORTEST:.0f} s"
    result: JsonObject = {
        "others_cores": others / seconds if others is not None else None,
        "own_cores": own / seconds if own is not None and seconds > 0 else None,
        "involuntary_switches": _grown(before.switches, after.switches),
        "swapped_in_bytes": _grown(before.swapped_in, after.swapped_in),
        "swapped_out_bytes": _grown(before.swapped_out, after.swapped_out),
        "quota_throttled_seconds": _grown(before.throttled, after.throttled),
        "load_average": [before.load, after.load],
    }
    times = {"others": others, "iowait": _grown(before.iowait, after.iowait), "steal": _grown(before.steal, after.steal)}
    return result | {f"{name}_share": part / total if part is not None and total else None for name, part in times.items()}


def _grown(before: N | None, after: N | None) -> N | None:
    return after - before if before is not None and after is not None else None


def _text(root: Path, path: str) -> str | None:
    try:
        return (root / path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(root: Path, path: str) -> int | None:
    text = _text(root, path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def _missing(path: str) -> str:
    return f"/{path} is not readable here ({platform.system()})"


def _processor(root: Path, why: Why) -> str | None:
    for line in (_text(root, "proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    why["host.processor"] = "/proc/cpuinfo names no model"
    return None


def _count_cores(root: Path, why: Why) -> int | None:
    lines = (_text(root, "proc/stat") or "").splitlines()
    cores = sum(line.startswith("cpu") and line[3:4].isdigit() for line in lines)
    if not cores:
        why["host.cores"] = _missing("proc/stat")
    return cores or None


def _processor_times(root: Path, why: Why) -> tuple[float | None, float | None, float | None, float | None]:
    words = (_text(root, "proc/stat") or "").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        why["host.others_cores"] = _missing("proc/stat")
        return None, None, None, None
    user, nice, system, idle, iowait, irq, softirq, steal = (
        int(word) / TICKS for word in words[1:9]
    )  # guests are inside user and nice
    busy = user + nice + system + irq + softirq
    return busy + idle + iowait + steal, busy, iowait, steal


def _fields(path: Path) -> list[str]:
    """The fields of a stat file from the third, the state, on; the name before it may hold spaces and brackets."""
    return path.read_text(errors="replace").rpartition(")")[2].split()


def _tree_time(root: Path, pid: int, why: Why) -> float | None:
    """CPU seconds of the process, of the children that it waited for, and of all living descendants."""
    stats: dict[int, tuple[int, int]] = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        try:
            fields = _fields(path)
            stats[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))  # parent; utime, stime, cutime, cstime
        except (OSError, ValueError, IndexError):
            continue  # it ended while we looked
    if pid not in stats:
        why["host.own_cores"] = _missing(f"proc/{pid}/stat")
        return None
    children: dict[int, list[int]] = {}
    for child, (parent, _) in stats.items():
        children.setdefault(parent, []).append(child)
    ticks, found = 0, [pid]
    while found:
        process = found.pop()
        ticks += stats[process][1]
        found += children.get(process, [])
    return ticks / TICKS


def _swapped(root: Path, name: str, why: Why) -> int | None:
    for line in (_text(root, "proc/vmstat") or "").splitlines():
        if line.startswith(f"{name} "):
            return int(line.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    why["host.swapped"] = _missing("proc/vmstat")
    return None


def _load(root: Path, why: Why) -> float | None:
    text = _text(root, "proc/loadavg")
    if not text:
        why["host.load_average"] = _missing("proc/loadavg")
    return float(text.split()[0]) if text else None


def _memory(root: Path, why: Why) -> int | None:
    for line in (_text(root, "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    why["host.memory_bytes"] = _missing("proc/meminfo")
    return None


def _cgroups(root: Path, controller: str) -> list[Path]:
    """This process's group of the controller and all above it, version 1 or 2; a limit of any of them holds."""
    base, inside = root / "sys/fs/cgroup", ""
    for line in (_text(root, "proc/self/cgroup") or "").splitlines():
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if controller in names.split(","):
            base, inside = base / names if (base / names).is_dir() else base / controller, path
            break
        if not names:
            inside = path
    group = base / inside.strip("/")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(base) and folder.is_dir()]


def _cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that the cgroups allow, None where they set no limit."""
    quotas = []
    for group in _cgroups(root, "cpu"):
        words = (_text(group, "cpu.max") or "").split()
        quota, period = words if len(words) == 2 else (_text(group, "cpu.cfs_quota_us"), _text(group, "cpu.cfs_period_us"))
        if quota and period and quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _memory_limit(root: Path) -> int | None:
    groups = _cgroups(root, "memory")
    limits = [_number(group, name) for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None and limit < UNLIMITED), default=None)


def _throttled(root: Path) -> float | None:
    """Seconds, summed over cores, that a CPU quota held this process's groups back (the group with most); None where none counts it."""
    seconds = []
    for group in _cgroups(root, "cpu"):
        for line in (_text(group, "cpu.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name in ("throttled_usec", "throttled_time") and value.isdigit():
                seconds.append(int(value) / (1e6 if name == "throttled_usec" else 1e9))
    return max(seconds, default=None)


def _governors(root: Path, allowed: list[int] | None, why: Why) -> str | None:
    """The governor of the allowed processors; several are joined with commas."""
    cpus = allowed if allowed is not None else [0]
    found = {_text(root, f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus} - {None}
    if not found:
        why["host.governor"] = f"no cpufreq under /{CPUS}, as in most virtual machines"
    return ", ".join(sorted(filter(None, found))) or None


def _turbo(root: Path, why: Why) -> bool | None:
    no_turbo, boost = _number(root, f"{CPUS}/intel_pstate/no_turbo"), _number(root, f"{CPUS}/cpufreq/boost")
    if no_turbo is not None:
        return no_turbo == 0
    if boost is not None:
        return boost == 1
    why["host.turbo"] = f"neither intel_pstate/no_turbo nor cpufreq/boost under /{CPUS}"
    return None


def _on_battery(root: Path, why: Why) -> bool | None:
    supplies = [folder.relative_to(root).as_posix() for folder in (root / "sys/class/power_supply").glob("*")]
    mains = [_number(root, f"{supply}/online") for supply in supplies if _text(root, f"{supply}/type") == "Mains"]
    known = [online for online in mains if online is not None]
    if known:
        return not any(known)
    status = [_text(root, f"{supply}/status") for supply in supplies if _text(root, f"{supply}/type") == "Battery"]
    if any(status):
        return "Discharging" in status
    why["host.on_battery"] = "no power supply under /sys/class/power_supply"
    return None
