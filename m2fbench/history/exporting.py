"""A history as flat rows, for spreadsheets, data frames and queries: one row a figure of a result. Pure.

    result            SHA-256 of the result file: the result's name
    time              when it was finished, UTC
    suite, row, variant, kind     the cell, and what was measured: accuracy, speed or flops
    limit             of images, 0 for all of them
    machine           what ran it, in words
    status, reason    as in the result file; a result without any figure (not available, not scored) is one row with neither figure nor value
    disturbed         something else took the machine's time while speed was measured
    figure            as results name it, with its subset in brackets: "time (backbone)"
    category          the class, where figures by class are asked for; empty for all classes together
    value, unit       accuracy in percent, time in seconds, memory in bytes, FLOPs in count; empty where it could not be measured
    low, high         ends of the 95 % interval that the result itself or a comparison gives, empty where there is none
    higher_is_better
    checkpoint, checkpoint_reference    SHA-256 of its content, and where it was found
    dataset           SHA-256 of its annotations
    conditions        16 hexadecimal digits of a hash: figures of one cell are comparable where it is the same
    m2fbench, commit, python, torch, transformers    versions; the commit of m2fbench's checkout, empty for an installed package
    device, driver    "cpu" or "cuda NAME", and the driver of an NVIDIA device
    night             the name of the night that it was measured in, empty where it was of none
    circumstances     where asked for: all that may explain a change, by dotted key

A later version adds columns at the end and changes none. Every column keeps its type even where all of it is empty.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from m2fbench.history.entries import conditions_hash
from m2fbench.history.records import Entry, Figure
from m2fbench.results import RunResult
from m2fbench.types import Measurement

FORMAT_VERSION = 1

ColumnType = Literal["text", "number", "integer", "boolean", "time", "mapping"]
Value = str | float | int | bool | datetime | dict[str, object] | None
Row = tuple[Value, ...]

COLUMNS: dict[str, ColumnType] = {
    "result": "text",
    "time": "time",
    "suite": "text",
    "row": "text",
    "variant": "text",
    "kind": "text",
    "limit": "integer",
    "machine": "text",
    "status": "text",
    "reason": "text",
    "disturbed": "boolean",
    "figure": "text",
    "category": "text",
    "value": "number",
    "unit": "text",
    "low": "number",
    "high": "number",
    "higher_is_better": "boolean",
    "checkpoint": "text",
    "checkpoint_reference": "text",
    "dataset": "text",
    "conditions": "text",
    "m2fbench": "text",
    "commit": "text",
    "python": "text",
    "torch": "text",
    "transformers": "text",
    "device": "text",
    "driver": "text",
    "night": "text",
}
CIRCUMSTANCES: dict[str, ColumnType] = {"circumstances": "mapping"}

_FROM_CIRCUMSTANCES: tuple[tuple[str, ...] | None, ...] = (
    ("checkpoint.sha256",),
    ("checkpoint.reference",),
    ("dataset.annotations_sha256",),
    None,  # conditions
    ("environment.m2fbench",),
    ("environment.m2fbench_commit",),
    ("environment.python",),
    ("environment.libraries.torch",),
    ("environment.libraries.transformers",),
    ("device.kind",),
    ("environment.driver", "gpu.driver"),
    ("environment.night",),
)


def columns(circumstances: bool = False) -> dict[str, ColumnType]:
    """Name -> type, in the order of a row's values."""
    return COLUMNS | CIRCUMSTANCES if circumstances else dict(COLUMNS)


def rows(
    entries: Iterable[Entry],
    *,
    figures: Sequence[str] = (),
    result_of: Callable[[str], RunResult] | None = None,
    circumstances: bool = False,
) -> Iterator[Row]:
    """One row a figure, in the order of the entries. figures: these only; a result without figures then has no row. result_of: reads a result by
    its SHA-256, for figures by class."""
    for entry in entries:
        before, after = _of_result(entry)
        if circumstances:
            after = (*after, {key: _json(value) for key, value in entry.circumstances.items()})
        found: list[tuple[Figure, str | None]] = [(f, None) for f in entry.figures]
        if result_of is not None:
            found += [(_figure(m), m.category) for m in result_of(entry.sha256).measurements if m.category is not None]
        if figures:
            found = [(f, category) for f, category in found if f.name in figures]
        elif not found:
            yield (*before, None, None, None, None, None, None, None, *after)
        for f, category in found:
            measured = (finite(f.value), f.unit, finite(f.low), finite(f.high), f.higher_is_better)
            yield (*before, f.name, category, *measured, *after)


def time_of(text: str) -> datetime | None:
    """A result's time, UTC; None where it holds none that can be read."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).astimezone(UTC)


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _of_result(entry: Entry) -> tuple[Row, Row]:
    """What all rows of a result share: before the figure, and after it."""
    before = (
        entry.sha256, time_of(entry.time), entry.suite, entry.row, entry.variant, entry.kind, entry.limit, entry.machine, entry.status,
        entry.reason, entry.disturbed,
    )  # fmt: skip
    conditions = conditions_hash(entry.conditions)
    after = tuple(conditions if keys is None else _first(entry, keys) for keys in _FROM_CIRCUMSTANCES)
    return before, after


def _figure(m: Measurement) -> Figure:
    name = m.name if m.subset is None else f"{m.name} ({m.subset})"
    return Figure(name, m.value, m.unit, m.higher_is_better)


def _first(entry: Entry, keys: tuple[str, ...]) -> str | None:
    return next((str(entry.circumstances[key]) for key in keys if entry.circumstances.get(key) is not None), None)


def _json(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
