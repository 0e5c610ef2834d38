"""Verdicts made up for tests of what is written of them."""

from dataclasses import replace
from typing import Any

from m2fbench.analysis.findings import Estimate
from m2fbench.nightly.records import Cell, Change, FigureVerdict, Outcome, OutcomeState, Status, Verdict

SHA = "ab" * 32
BEFORE = "cd" * 32


def made_cell(row: str = "shapes-tiny", suite: str = "shapes_instance", variant: str = "default") -> Cell:
    return Cell(0, suite, row, variant, "instance", ("accuracy", "speed"))


def made_outcome(cell: Cell | None = None, state: OutcomeState = "done", reason: str | None = None, **more: Any) -> Outcome:
    return Outcome(cell or made_cell(), state, reason, 61.5, **more)


def made_figure(state: Any = "steady", cell: Cell | None = None, **more: Any) -> FigureVerdict:
    found = FigureVerdict(
        (cell or made_cell()).name, "accuracy", "AP", "percent", True, state, "last-good", value=71.2, low=68.0, high=74.0,
        baseline_value=71.25, difference=Estimate(-0.05, -0.2, 0.1), p_value=0.4, evidence="paired", result=SHA, baseline_result=BEFORE,
    )  # fmt: skip
    return replace(found, **more)


def made_regression(**more: Any) -> FigureVerdict:
    changes = (Change("checkpoint", "1" * 64, "2" * 64), Change("driver", None, "570.86"))
    return made_figure(
        "regression", value=66.0, difference=Estimate(-5.25, -6.5, -4.0), p_value=0.0005, since="2026-11-28T03:00:00+00:00",
        since_result=SHA, nights=2, changes=changes, note="a second run, made from nothing, dropped too", **more,
    )  # fmt: skip


def made_verdict(status: Status = "regression", **more: Any) -> Verdict:
    other = made_cell("other")
    found = Verdict(
        "nightly", "Nightly of shapes", "2026-11-29", "2026-11-29T03:00:00+00:00", "2026-11-29T03:20:00+00:00", "bench-1", status, True,
        (made_outcome(results=(SHA,)), made_outcome(other, "timeout", "ended after 120 min", log="logs/other.log", exit_status=-9)),
        (made_regression(), made_figure(figure="fps", kind="speed", unit="images/s", value=9.0, baseline_value=10.0,
                                        difference=Estimate(-1.0), evidence="level", state="suspect"),
         made_figure("unmeasured", other, value=float("nan"), difference=Estimate(float("nan")), note="timeout: ended after 120 min")),
        ("shapes_instance/x/fp8: unsupported: no such device",),
    )  # fmt: skip
    return replace(found, **more)
