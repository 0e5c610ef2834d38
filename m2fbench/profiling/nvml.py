"""An NVIDIA device as its driver shows it (NVML through nvidia-ml-py): clocks, power, throttling, memory, and who else uses it.

Nothing here raises: a query that the device, the driver or the permissions refuse gives a reason instead of a value. Conventions (units,
bits of the clock event reasons): NVIDIA's nvml.h.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2fbench.errors import shown
from m2fbench.types import JsonObject

SM, MEMORY = 1, 2  # nvmlClockType_t
IDLE = "idle"
CLOCK_REASONS = {  # nvmlClocksEventReason*; what holds the clocks below their highest
    0x001: IDLE,
    0x002: "application clocks setting",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks setting",
    0x200: "board limit",
    0x400: "reliability",
}
MIG_NOTE = (
    "a MIG instance: clocks, temperature, power and energy are the whole board's, other instances included; "
    "memory is the instance's; utilisation cannot be read"
)


@dataclass(frozen=True)
class Identity:
    """Which device torch uses, in the driver's own names, so that CUDA_VISIBLE_DEVICES does not matter."""

    uuid: str | None  # without the prefix GPU- or MIG-
    pci: str | None  # domain:bus:device.function


@dataclass(frozen=True)
class Gpu:
    """An open device. board: the handle of the whole board; part: of the MIG instance, the board's where there is none."""

    nvml: Any
    board: Any
    part: Any
    mig: bool


def torch_identity(device: str) -> Identity | str:
    """The CUDA device ``cuda`` or ``cuda:1`` of torch, or why there is none that NVML could know."""
    import torch

    if torch.version.hip:
        return "an AMD device (ROCm); only NVIDIA's are read"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    try:
        properties: Any = torch.cuda.get_device_properties(torch.device(device))
    except (RuntimeError, AssertionError, ValueError) as error:
        return f"torch has no device {device}: {shown(error)}"
    uuid, bus = getattr(properties, "uuid", None), getattr(properties, "pci_bus_id", None)
    where = (getattr(properties, "pci_domain_id", 0), bus, getattr(properties, "pci_device_id", 0))
    return Identity(str(uuid) if uuid is not None else None, "{:08x}:{:02x}:{:02x}.0".format(*where) if bus is not None else None)


def open_gpu(identity: Identity | str, nvml: Any = None) -> Gpu | str:
    """The device, to be closed with ``close``, or the reason why it cannot be read. nvml: the module pynvml, imported where not given."""
    if isinstance(identity, str):
        return identity
    try:
        if nvml is None:
            import pynvml

            nvml = pynvml
        nvml.nvmlInit()
    except Exception as error:
        return f"NVML cannot be used: {_said(error)}"
    for found, _ in (ask(find, nvml, identity) for find in (_by_uuid, _by_pci)):
        if found is not None:
            return Gpu(nvml, *found)
    ask(nvml.nvmlShutdown)
    return f"NVML does not know torch's device (UUID {identity.uuid}, PCI {identity.pci})"


def close(gpu: Gpu | str) -> None:
    if not isinstance(gpu, str):
        ask(gpu.nvml.nvmlShutdown)


def ask(query: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """(value, None), or (None, the reason). Any exception counts: besides NVMLError, functions are missing in old drivers and bindings."""
    try:
        return query(*arguments), None
    except Exception as error:
        return None, _said(error)


def _said(error: Exception) -> str:
    return shown(error) or type(error).__name__


def _by_uuid(nvml: Any, identity: Identity) -> tuple[Any, Any, bool] | None:
    for prefix in ("GPU-", "MIG-") if identity.uuid else ():
        handle, _ = ask(nvml.nvmlDeviceGetHandleByUUID, f"{prefix}{identity.uuid}")
        if handle is None:
            continue
        if ask(nvml.nvmlDeviceIsMigDeviceHandle, handle)[0]:
            board, _ = ask(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
            return (board if board is not None else handle), handle, True
        return handle, handle, _in_mig_mode(nvml, handle)
    return None


def _by_pci(nvml: Any, identity: Identity) -> tuple[Any, Any, bool] | None:
    handle = nvml.nvmlDeviceGetHandleByPciBusId(identity.pci) if identity.pci else None
    return (handle, handle, _in_mig_mode(nvml, handle)) if handle is not None else None


def _in_mig_mode(nvml: Any, handle: Any) -> bool:
    mode, _ = ask(nvml.nvmlDeviceGetMigMode, handle)
    return bool(mode and mode[0])


Query = Callable[[Gpu], Any]
FACTS: dict[str, Query] = {
    "name": lambda g: _word(g.nvml.nvmlDeviceGetName(g.part)),
    "driver": lambda g: _word(g.nvml.nvmlSystemGetDriverVersion()),
    "memory_bytes": lambda g: int(g.nvml.nvmlDeviceGetMemoryInfo(g.part).total),
    "sm_max_mhz": lambda g: int(g.nvml.nvmlDeviceGetMaxClockInfo(g.board, SM)),
    "memory_max_mhz": lambda g: int(g.nvml.nvmlDeviceGetMaxClockInfo(g.board, MEMORY)),
    "application_sm_mhz": lambda g: int(g.nvml.nvmlDeviceGetApplicationsClock(g.board, SM)),
    "application_memory_mhz": lambda g: int(g.nvml.nvmlDeviceGetApplicationsClock(g.board, MEMORY)),
    "power_limit_watts": lambda g: g.nvml.nvmlDeviceGetEnforcedPowerLimit(g.board) / 1000,
}
SAMPLES: dict[str, Query] = {
    "sm_mhz": lambda g: int(g.nvml.nvmlDeviceGetClockInfo(g.board, SM)),
    "memory_mhz": lambda g: int(g.nvml.nvmlDeviceGetClockInfo(g.board, MEMORY)),
    "watts": lambda g: watts(g),
    "celsius": lambda g: int(g.nvml.nvmlDeviceGetTemperature(g.board, 0)),
    "performance_state": lambda g: int(g.nvml.nvmlDeviceGetPerformanceState(g.board)),
    "clock_reasons": lambda g: clock_reasons(_reason_bits(g)),
    "utilisation_percent": lambda g: int(g.nvml.nvmlDeviceGetUtilizationRates(g.part).gpu),
    "used_bytes": lambda g: used_bytes(g),
}


def read(gpu: Gpu, queries: dict[str, Query], why: dict[str, str]) -> JsonObject:
    """The queries that answer; the others are left out, with the reason in ``why`` under ``gpu.NAME``."""
    found: JsonObject = {}
    for name, query in queries.items():
        value, reason = ask(query, gpu)
        if reason is None:
            found[name] = value
        else:
            why[f"gpu.{name}"] = reason
    return found


def watts(gpu: Gpu) -> float:
    """What the whole board draws; from Ampere on the mean of the last second (GA100: the moment)."""
    return float(gpu.nvml.nvmlDeviceGetPowerUsage(gpu.board)) / 1000


def joules(gpu: Gpu) -> float:
    """What the whole board has used since the driver was loaded; Volta and newer."""
    return float(gpu.nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.board)) / 1000


def used_bytes(gpu: Gpu) -> int:
    """Memory in use on the device, or in the MIG instance, by all processes and the driver."""
    return int(gpu.nvml.nvmlDeviceGetMemoryInfo(gpu.part).used)


def clock_reasons(bits: int) -> list[str]:
    """The words for the bits that are set, lowest first; a bit that is not known is named by its number."""
    single = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return [CLOCK_REASONS.get(bit, f"reason 0x{bit:x}") for bit in single]


def _reason_bits(gpu: Gpu) -> int:
    bits, _ = ask(lambda: gpu.nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu.board))
    return int(bits if bits is not None else gpu.nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu.board))  # before driver 535


def processes(gpu: Gpu, own: Iterable[int], root: Path, why: dict[str, str]) -> list[JsonObject] | None:
    """Who else computes or draws on the device: pid, name, bytes; the last two None where the driver does not tell. own: pids that are us.

    In a container the driver may give pids of the host, among which ours cannot be told; then one that is not seen here is taken for us."""
    seen: dict[int, int | None] = {}
    refused = []
    for query in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
        listed, reason = ask(lambda query=query: getattr(gpu.nvml, query)(gpu.part))
        seen |= {int(each.pid): each.usedGpuMemory for each in listed or ()}
        refused += [reason] if reason else []
    if len(refused) == 2:
        why["gpu.other_processes"] = refused[0]
        return None
    ours = set(own)
    strangers = [pid for pid in seen if not (root / f"proc/{pid}").exists()]
    if not ours & set(seen) and strangers:
        ours.add(strangers[0])
        why["gpu.own_process"] = "the driver's process ids are not this container's; one of them is taken to be this process"
    return [{"pid": pid, "name": _name(root, pid), "bytes": used} for pid, used in sorted(seen.items()) if pid not in ours]


def _name(root: Path, pid: int) -> str | None:
    try:
        return shown((root / f"proc/{pid}/comm").read_text(errors="replace").strip())
    except OSError:
        return None


def _word(text: str | bytes) -> str:
    return shown(text.decode(errors="replace") if isinstance(text, bytes) else text)
