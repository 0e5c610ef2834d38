"""What a night is made of and what came of it, as plain records."""

import math
from dataclasses import dataclass
from typing import Literal

from m2fbench.analysis.findings import Estimate
from m2fbench.results import Kind
from m2fbench.types import Head

VERDICT_VERSION = 1


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix. index: of its suite in the configuration. suite: its name. task: of the suite. measure: what is measured."""

    index: int
    suite: str
    row: str
    variant: str
    task: Head
    measure: tuple[str, ...]

    @property
    def name(self) -> str:
        """``suite/row/variant``, as run directories lie."""
        return f"{self.suite}/{self.row}/{self.variant}"


@dataclass(frozen=True)
class NightFacts:
    """What a night is called. nightly: the configuration's name. night: the night's own, unique within an output folder. started: UTC, ISO 8601.
    machine: what ran it, in words."""

    nightly: str
    title: str
    night: str
    started: str
    machine: str


OutcomeState = Literal["done", "failed", "timeout", "memory", "unsupported", "unavailable", "no budget", "interrupted", "left out"]
"""done: its results are there. failed: it ended with an error (user error, bug, signal). timeout, memory: ended at its limit, or by the system
for want of memory. no budget: not begun, or ended, as the night's time was over. left out: not among the cells that were
chosen, whatever came of it before."""


@dataclass(frozen=True)
class Outcome:
    """What came of one cell. reason: one line, None where it is done. seconds: it took, all attempts. exit_status: of its process, negative for a
    signal, None where there was none. log: path of its output, relative to the night's folder. results: SHA-256 of its result files, in the
    order they were measured."""

    cell: Cell
    state: OutcomeState
    reason: str | None = None
    seconds: float = 0.0
    exit_status: int | None = None
    log: str | None = None
    results: tuple[str, ...] = ()
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Change:
    """One circumstance that differs between two runs (``analysis.circumstances``); None where it was not known."""

    what: str
    before: object
    after: object


FigureState = Literal[
    "regression", "suspect", "unmeasured", "recovering", "recovered", "accepted", "improvement", "improving", "restart", "not compared", "new",
    "steady",
]  # fmt: skip
"""regression: the figure stands under its baseline, surely. suspect: tonight it stands out downwards, and too few nights tell; improving: upwards.
recovering: a regression stood, tonight shows nothing of it, and nights to come must confirm that; recovered: it is over. improvement: better than
the level before, surely. accepted: a regression that a person has accepted. restart: measured under other conditions than the nights before.
not compared: the baseline is of other conditions. new: nothing to compare with yet. unmeasured: no figure."""
UNCOMPARED: tuple[FigureState, ...] = ("restart", "not compared", "new")
"""Measured, and held to nothing."""


@dataclass(frozen=True)
class FigureVerdict:
    """One figure of one cell against one baseline.

    baseline: "last-good", "published" or "release:NAME". baseline_value: of a recovery the level that it leaves. difference: value - baseline_value
    with the paired interval where there is one (points for accuracy, the figure's unit otherwise). evidence: "paired", "level", "published" or
    "none". since: time of the first night of what the state says, of a recovery of the regression that it ends; since_night: that night's name,
    None for a run by hand; since_result, since_value: its result and figure. nights: from then to tonight. changes: what differs between the last
    run before and that first one; of a recovery what came with it. tonight: what differs from the night before. note: one line for the reader.
    page: of the series in the dashboard, relative to it.
    """

    cell: str
    kind: Kind
    figure: str
    unit: str
    higher_is_better: bool
    state: FigureState
    baseline: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    baseline_value: float = math.nan
    difference: Estimate = Estimate(math.nan)  # noqa: RUF009  frozen
    p_value: float = math.nan
    evidence: Literal["paired", "level", "published", "none"] = "none"
    result: str | None = None
    baseline_result: str | None = None
    since: str | None = None
    since_night: str | None = None
    since_result: str | None = None
    since_value: float = math.nan
    nights: int = 0
    changes: tuple[Change, ...] = ()
    tonight: tuple[Change, ...] = ()
    note: str | None = None
    page: str | None = None

    @property
    def is_better(self) -> bool:
        """Than its baseline, whether that stands out or not."""
        return self.difference.value > 0 if self.higher_is_better else self.difference.value < 0


Status = Literal["regression", "unmeasured", "ok"]
EXIT_STATUS: dict[Status, int] = {"regression": 1, "unmeasured": 3, "ok": 0}
"""A night whose own figures show nothing of a regression that stood ("recovering") ends with no 1, whether that is confirmed yet or not; should
the loss be there again the night after, so is the 1."""


@dataclass(frozen=True)
class Verdict:
    """Of a night. status: the worst of what is below. complete: every chosen cell has come to an end."""

    nightly: str
    title: str
    night: str
    started: str
    finished: str
    machine: str
    status: Status
    complete: bool
    outcomes: tuple[Outcome, ...]
    figures: tuple[FigureVerdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.status]

    def of(self, *states: FigureState) -> tuple[FigureVerdict, ...]:
        return tuple(f for f in self.figures if f.state in states)
