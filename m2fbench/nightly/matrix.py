"""The cells of a nightly: every row of every suite under every variant, named as their run directories are."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from m2fbench.environment import version_of
from m2fbench.errors import NightlyError
from m2fbench.nightly.config import NightlySuite
from m2fbench.nightly.records import Cell
from m2fbench.planning import plan
from m2fbench.registry import near
from m2fbench.suite import RunSpec, Suite

_ORDER = ("accuracy", "speed", "energy", "flops")  # as a run measures


@dataclass(frozen=True)
class CellPlan:
    """A cell and the run behind it."""

    cell: Cell
    spec: RunSpec

    @property
    def unavailable(self) -> str | None:
        """Why the row cannot be run at all."""
        return None if self.spec.row.checkpoint is not None else self.spec.row.unavailable


def cells_of(index: int, entry: NightlySuite, suite: Suite) -> list[CellPlan]:
    """The cells of one suite of the configuration, which is the ``index``-th. FLOPs, which are the same under every variant that changes no
    layer, are counted with a row's first. Raises SuiteError for an unknown row or variant."""
    planned: list[CellPlan] = []
    counted: set[str] = set()
    for spec in plan(suite, entry.checkpoints, entry.only, entry.variants):
        asked = [kind for kind in _ORDER if kind in suite.measure and (kind != "flops" or spec.row.name not in counted)]
        counted.add(spec.row.name)
        if asked:
            cell = Cell(index, suite.suite, spec.row.name, spec.variant.name, suite.task, tuple(asked))
            planned.append(CellPlan(cell, spec))
    return planned


def chosen(cells: Sequence[CellPlan], patterns: Sequence[str]) -> set[str]:
    """Names of the cells that one of the patterns fits (``suite/row/variant``, ``*`` any text); all where there is none. Raises NightlyError
    for one that fits nothing."""
    names = [one.cell.name for one in cells]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise NightlyError(
                f"--only {pattern}: expected a cell (suite/row/variant, * for any text), which are {', '.join(names)}{near(pattern, names)}"
            )
    return {name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)}


def command_of(one: CellPlan, entry: NightlySuite, device: str, output: Path, measure: Sequence[str] | None = None) -> list[str]:
    """The command that runs a cell, in the folder of the configuration. output: of run directories. measure: in place of the cell's."""
    cell = one.cell
    command = [sys.executable, "-P", "-m", "m2fbench", "run", entry.suite, "--only", cell.row, "--variant", cell.variant]
    for reference in entry.checkpoints:  # all of them: names are told apart within the list
        command += ["--checkpoint", reference]
    for override in [*entry.set, f"measure=[{', '.join(measure or cell.measure)}]"]:
        command += ["--set", override]
    if entry.data is not None:
        command += ["--data", entry.data]
    if entry.limit is not None:
        command += ["--limit", str(entry.limit)]
    return [*command, "--device", device, "--output", str(output)]


def environment_for(environment: Mapping[str, str], present: Path, night: str) -> dict[str, str]:
    """The environment of a cell's process. present: the folder that relative paths in ``environment`` refer to. night: its name, which
    results then record."""
    changed = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "M2FBENCH_NIGHT": night}
    if data := environment.get("M2FBENCH_DATA"):
        changed["M2FBENCH_DATA"] = str(present / Path(data).expanduser())
    if version_of("m2fbench") is None:  # run from its source tree, not installed
        changed["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    return {**environment, **changed}


def result_files(cell: Cell, limit: int | None, runs: Path, measure: Sequence[str] | None = None) -> list[Path]:
    """Where the cell's results lie, in the order that they are measured."""
    end, row = "" if limit is None else f"-limit-{limit}", runs / cell.suite / cell.row
    wanted = set(measure or cell.measure)
    places = {
        row / cell.variant / f"result{end}.json": {"accuracy"},
        row / cell.variant / f"speed{end}.json": {"speed", "energy"},
        row / "flops.json": {"flops"},
    }
    return [path for path, kinds in places.items() if kinds & wanted]
