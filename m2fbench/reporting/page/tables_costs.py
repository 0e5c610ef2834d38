"""The tables of what runs cost: speed with its percentiles and scope, where the time goes, memory and energy, FLOPs by part."""

import math
from collections.abc import Mapping, Sequence

from m2fbench.analysis.runs import Run
from m2fbench.reporting.page.records import NOT_MEASURED, Cell, Column, Table, interval_cell, number_cell
from m2fbench.reporting.page.tables import run_cell
from m2fbench.reporting.terminal.costs import OUTSIDE
from m2fbench.results import RunResult
from m2fbench.types import JsonObject

PERCENTILES = (50, 90, 95, 99)
_FEW = {50: 2, 90: 10, 95: 20, 99: 100}


def scopes_of(result: RunResult) -> dict[str, JsonObject]:
    """Scope -> what was measured in it; empty for a result without."""
    return dict((result.details or {}).get("scopes", {}))


def speed_table(runs: Sequence[Run], numbers: Mapping[str, int]) -> Table | None:
    """Images per second with percentiles of the latency, a line a run and scope; None where no speed was measured."""
    rows = []
    for run, speed in ((run, run.speed) for run in runs if run.speed is not None):
        for scope, facts in scopes_of(speed).items():
            end = "" if scope == "paper" else f"_{scope}"
            few = f"needs more images than {facts['images']}"
            percentiles = [
                number_cell(1000 * speed.value(f"latency{end}_p{p}"), 2, few if facts["images"] < _FEW[p] else "")
                for p in PERCENTILES
            ]
            ratio, low, high = (speed.value(f"speed_up{end}{part}") for part in ("", "_low", "_high"))
            published = next((p.value for p in speed.published if p.metric == "fps" and scope == "paper"), math.nan)
            device = speed.device or {}
            rows.append((
                run_cell(run.label, numbers), Cell(scope), number_cell(facts["images"], 0), number_cell(speed.value(f"fps{end}")),
                interval_cell(speed.value(f"fps{end}_low"), speed.value(f"fps{end}_high"), note="too few images for an interval"),
                number_cell(published, 1), number_cell(1000 * speed.value(f"latency{end}"), 2), *percentiles, number_cell(ratio),
                interval_cell(low, high), Cell(str(device.get("name") or device.get("kind") or NOT_MEASURED)),
            ))  # fmt: skip
    if not rows:
        return None
    columns = (
        Column("run"), Column("scope"), Column("images", True), Column("fps", True), Column("95 % interval", True),
        Column("published fps", True),
        Column("mean, ms", True), *(Column(f"p{p}, ms", True) for p in PERCENTILES),
        Column("times the first", True, "faster than the variant timed first"), Column("95 % of that", True), Column("device"),
    )  # fmt: skip
    definitions = {name: facts["definition"] for run in runs if run.speed for name, facts in scopes_of(run.speed).items()}
    sources = dict.fromkeys(p.source for run in runs if run.speed for p in run.speed.published if p.metric == "fps")
    notes = (*(f"Scope {name}: {text}" for name, text in definitions.items()), *(f"Published fps: {source}" for source in sources))
    return Table("speed", "Speed", columns, tuple(rows), notes)


def stages_of(runs: Sequence[Run], scope: str) -> dict[str, dict[str, float]]:
    """Run -> stage -> mean milliseconds an image."""
    found = {run.label: scopes_of(run.speed).get(scope) for run in runs if run.speed is not None}
    return {label: {n: 1000 * s for n, s in facts["stages"].items()} for label, facts in found.items() if facts}


def parts_table(
    parts: Mapping[str, Mapping[str, float]], numbers: Mapping[str, int], key: str, title: str, note: str, digits: int = 2
) -> Table | None:
    """Run by part; those in brackets are outside of what is measured."""
    names = list(dict.fromkeys(name for values in parts.values() for name in values))
    names = [n for n in names if n not in OUTSIDE] + [n for n in OUTSIDE if n in names]
    if not names:
        return None
    rows = tuple(
        (run_cell(run, numbers), *(number_cell(values.get(n, math.nan), digits) for n in names)) for run, values in parts.items()
    )
    columns = (Column("run"), *(Column(f"({n})" if n in OUTSIDE else n, True) for n in names))
    return Table(key, title, columns, rows, (note,))


def memory_table(runs: Sequence[Run], numbers: Mapping[str, int]) -> Table | None:
    """Memory, and energy where it was measured; None where no run says anything of it."""
    rows = []
    for run in runs:
        speed = run.speed
        if speed is None or speed.details is None:
            continue
        facts = speed.details
        used, emitted = facts.get("energy") or {}, facts.get("emissions") or {}
        no_energy = (
            "not asked for: --energy"
            if "energy" not in facts
            else facts.get("failure") or "; ".join(used.get("reasons", ())) or "not measured"
        )
        no_emissions = "not asked for: --energy" if "emissions" not in facts else emitted.get("reason") or "not given"
        cells = [
            number_cell(speed.value(name) / 2**20, 1, "cannot be read on this device")
            for name in ("weight_memory", "peak_device_memory", "peak_process_memory")
        ]
        rows.append((
            run_cell(run.label, numbers), *cells, number_cell(speed.value("energy"), 3, no_energy), number_cell(speed.value("CO2e"), 4, no_emissions),
            Cell("; ".join(str(label) for label in (used.get("label"), emitted.get("label")) if label)),
        ))  # fmt: skip
    if not rows:
        return None
    columns = (
        Column("run"), Column("weights, MB", True), Column("device peak, MB", True, "weights and what the largest image took besides"),
        Column("process peak, MB", True, "resident memory, all variants of the call loaded"),
        Column("J an image", True), Column("g CO2e an image", True),
        Column("measured how"),
    )  # fmt: skip
    return Table("memory", "Memory and energy", columns, tuple(rows))


def flops_parts(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Run -> part of the model -> 10^9 FLOPs an image, of the count ``paper``."""
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        measured = () if run.flops is None else run.flops.measurements
        parts = {str(m.subset): m.value / 1e9 for m in measured if m.name == "FLOPs_by_part" and m.subset is not None}
        if parts:
            found[run.label] = parts
    return found
