"""Which cells a night still has to run, and in what order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from m2fbench.nightly.folder import nights_ago, nights_in, read_outcome
from m2fbench.nightly.loading import Nightly
from m2fbench.nightly.matrix import CellPlan
from m2fbench.nightly.records import Cell, Outcome, OutcomeState

RETRIED: tuple[OutcomeState, ...] = ("failed", "timeout", "memory", "unsupported", "no budget")
"""What ``--retry`` runs again."""


def earlier(nightly: Nightly, folder: Path, *, retry: bool) -> dict[str, Outcome]:
    """What attempts at this night have left so far, by cell, but what is to be tried again."""
    found = {one.cell.name: read_outcome(folder, one.cell) for one in nightly.cells}
    return {name: outcome for name, outcome in found.items() if outcome is not None and not (retry and outcome.state in RETRIED)}


def left_to_do(nightly: Nightly, folder: Path, done: Mapping[str, Outcome], picked: Collection[str]) -> list[CellPlan]:
    """Cells that have not ended, those first whose last turn is the longest ago, so that none is left out night after night; else as
    configured. picked: names of the cells that are to be run."""
    ended = {name for name, outcome in done.items() if outcome.state != "interrupted"}
    others = [night for night in nights_in(nightly.output) if night[0] != folder and night[1].nightly == nightly.config.nightly]
    ages = nights_ago(others, [one.cell for one in nightly.cells])
    left = [one for one in nightly.cells if one.cell.name in picked and one.cell.name not in ended]
    return sorted(left, key=lambda one: -ages[one.cell.name])


@dataclass(frozen=True)
class Planned:
    """What a night would do. cells: in the order they would be run, those that are done first. limits, states: by cell, in words."""

    folder: Path
    cells: tuple[Cell, ...]
    limits: Mapping[str, str]
    states: Mapping[str, str]
    budget: str


def planned_night(nightly: Nightly, folder: Path, picked: Collection[str], *, retry: bool) -> Planned:
    """Nothing is written."""
    done = earlier(nightly, folder, retry=retry)
    left = [one.cell for one in left_to_do(nightly, folder, done, picked)]
    cells = (*(one.cell for one in nightly.cells if one.cell not in left), *left)
    plans = {one.cell.name: one for one in nightly.cells}
    states = {cell.name: _state(plans[cell.name], done.get(cell.name), cell.name in picked) for cell in cells}
    minutes = nightly.config.budget.minutes
    budget = "no limit of the night's time" if minutes is None else f"{minutes:g} min in all"
    return Planned(folder, cells, {cell.name: limit_of(nightly, cell) for cell in cells}, states, budget)


def limit_of(nightly: Nightly, cell: Cell) -> str:
    budget = nightly.config.budget
    minutes = nightly.config.suites[cell.index].cell_minutes or budget.cell_minutes
    return f"{minutes:g} min" + ("" if budget.memory_GB is None else f", {budget.memory_GB:g} GB")


def _state(one: CellPlan, outcome: Outcome | None, picked: bool) -> str:
    if outcome is not None and outcome.state != "interrupted":
        return f"{outcome.state}{'' if outcome.reason is None else f': {outcome.reason}'}"
    if one.unavailable is not None:
        return f"unavailable: {one.unavailable}"
    if not picked:
        return "left out by --only"
    return "to run" if outcome is None else "to be gone on with"
