"""From a result to what the history knows of it: pure."""

import datetime
import hashlib
import json
import math
from collections.abc import Iterator, Mapping

from m2fbench.history.records import Entry, Figure
from m2fbench.profiling.disturbances import disturbances
from m2fbench.results import Kind, RunResult
from m2fbench.types import JsonObject, Measurement

_LATER = {"protocol.version", "dataset.images_sha256", "dataset.missing_images"}
"""Of protocol and dataset what may change without making two figures incomparable: the code's version, which is what is being tested, and
the state of files whose images were scored."""


def entry_of(result: RunResult, sha256: str, origins: tuple[str, ...] = ()) -> Entry:
    """sha256: of the result's file."""
    return Entry(
        sha256=sha256,
        kind=result.kind,
        status=result.status,
        reason=result.reason,
        suite=str(result.suite["name"]),
        row=result.row,
        variant=str(result.variant["name"]),
        limit=result.limit or 0,
        time=utc(result.finished or result.started),
        machine=machine_of(result),
        circumstances=circumstances_of(result),
        conditions=conditions_of(result),
        disturbed=disturbed(result),
        warnings=result.warnings,
        figures=tuple(figures_of(result)),
        origins=origins,
    )


def machine_of(result: RunResult) -> str:
    """What ran it, in words: the name given to the machine (``M2FBENCH_MACHINE``), else its accelerator, or its processor and number of
    cores; the same text for machines of the same kind."""
    environment, device = result.environment or {}, result.device or {}
    if named := environment.get("machine_name"):
        return str(named)
    kind = str(device.get("kind") or "")
    if kind.startswith("cuda "):
        return kind.removeprefix("cuda ")
    processor = environment.get("processor") or environment.get("machine") or "unknown machine"
    cores = environment.get("cpu_count")
    return f"{processor}, {cores} cores" if cores else str(processor)


def circumstances_of(result: RunResult) -> JsonObject:
    """Flat: what may explain that a figure changed."""
    checkpoint, protocol = result.checkpoint or {}, result.protocol or {}
    gpu = ((result.details or {}).get("machine") or {}).get("gpu") or {}
    found = {
        "checkpoint": {k: checkpoint.get(k) for k in ("reference", "revision", "sha256", "parameters")},
        "suite": {"sha256": result.suite.get("sha256")},
        "protocol": protocol,
        "dataset": {k: v for k, v in (result.dataset or {}).items() if k != "scored_images"},
        "device": result.device or {},
        "gpu": {k: gpu.get(k) for k in ("name", "driver", "power_limit_watts", "sm_max_mhz", "application_sm_mhz") if gpu},
        "environment": result.environment or {},
    }
    return {key: value for key, value in _flat(found) if value is not None}


def conditions_of(result: RunResult) -> JsonObject:
    """Flat: what must be equal for two figures to be compared at all. Of costs counted from shapes only the variant."""
    found: JsonObject = {"variant": {k: v for k, v in result.variant.items() if k != "name"}}
    if result.kind != "flops":
        found |= {
            "dataset": result.dataset or {},
            "protocol": result.protocol or {},
            "rules": result.rules or {},
            "limit": result.limit,
        }
    if result.kind == "speed":
        found["scopes"] = {k: v.get("heads") for k, v in ((result.details or {}).get("scopes") or {}).items()}
    return {key: value for key, value in _flat(found) if key not in _LATER and value is not None}


def depends_on_machine(kind: Kind, figure: str, unit: str) -> bool:
    """Whether another machine gives another figure, so that it has a series of its own. A speed run gives accuracy and the model's own size
    besides, which do not depend on it, or not by more than the paired comparison sees."""
    return kind == "speed" and unit != "percent" and figure not in ("parameters", "weight_memory")


def utc(time: str | None) -> str:
    """An ISO 8601 time as UTC to the second, so that times sort as texts; one without a zone is UTC. "" for none."""
    if not time:
        return ""
    found = datetime.datetime.fromisoformat(time)
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC).isoformat(timespec="seconds")


def conditions_hash(conditions: Mapping[str, object]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 over them, key order aside."""
    return hashlib.sha256(json.dumps(dict(conditions), sort_keys=True).encode()).hexdigest()[:16]


def disturbed(result: RunResult | None) -> bool:
    """Whether something slowed a speed measurement down or made it drift; its warnings then say what."""
    if result is None or result.kind != "speed":
        return False
    machine = (result.details or {}).get("machine") or {}
    return bool(disturbances(machine)) or any("latencies drift" in warning for warning in result.warnings)


def figures_of(result: RunResult) -> Iterator[Figure]:
    """The figures over all classes. Those that are ends of another's interval (``fps_low``) stand in it and not beside it."""
    values = {_name(m): m for m in result.measurements if m.category is None}
    ends = {f"{name}{end}" for name in values for end in ("_low", "_high")} & values.keys()
    for name, m in values.items():
        if name in ends:
            continue
        low, high = (values[f"{name}{end}"].value if f"{name}{end}" in values else math.nan for end in ("_low", "_high"))
        yield Figure(name, m.value, m.unit, m.higher_is_better, low, high)


def _name(measurement: Measurement) -> str:
    return measurement.name if measurement.subset is None else f"{measurement.name} ({measurement.subset})"


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted key -> scalar; lists become one text."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _flat(value[key], f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        yield prefix, json.dumps(value)
    else:
        yield prefix, value
