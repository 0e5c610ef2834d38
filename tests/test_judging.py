"""A night judged: every state of a figure against every baseline, over real histories; predictions that are compared are in test_pairing."""

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_history import made_history, made_result, made_time

from m2fbench.analysis.findings import Estimate
from m2fbench.history.history import History
from m2fbench.history.records import PairedFigure, PairedRecord
from m2fbench.nightly.config import NightlyConfig
from m2fbench.nightly.judged import may_have
from m2fbench.nightly.judging import judge
from m2fbench.nightly.named import rounding
from m2fbench.nightly.pairing import Pairing
from m2fbench.nightly.pruning import needed_results
from m2fbench.nightly.records import Cell, Change, FigureVerdict, NightFacts, Outcome, OutcomeState, Verdict
from m2fbench.nightly.summary import summary_markdown
from m2fbench.nightly.wording import headline, movement
from m2fbench.results import Comparison, Kind
from m2fbench.types import Head


def _config(baselines: Sequence[str] = ("last-good",), **suite: Any) -> NightlyConfig:
    return NightlyConfig.model_validate(
        {"nightly": "n", "suites": [{"suite": "shapes_instance", **suite}], "baselines": list(baselines), "repeat": False}
    )


def _outcome(
    results: Sequence[str] = (), state: OutcomeState = "done", reason: str | None = None, *, measure: Sequence[str] = ("accuracy",),
    task: Head = "instance", variant: str = "default",
) -> Outcome:  # fmt: skip
    return Outcome(Cell(0, "shapes_instance", "shapes-tiny", variant, task, tuple(measure)), state, reason, results=tuple(results))


def _judge(history: History, config: NightlyConfig, *outcomes: Outcome, night: int = 300) -> Verdict:
    facts = NightFacts("n", "title", f"night-{night}", made_time(night), "bench-1")
    return judge(history, config, facts, outcomes, lambda cell: pytest.fail("nobody asked for a second run"))


class Nights:
    """A history of made nights, one a day."""

    def __init__(self, folder: Path, nights: Sequence[Mapping[str, Any]]) -> None:
        self.names = made_history(folder, [made_result(night=k, **night) for k, night in enumerate(nights)])
        self.history = History(folder)

    def pair(self, a: int, b: int, difference: float, p: float, *, repeated: bool | None = None, figure: str = "AP") -> None:
        ends = Estimate(difference, difference - 0.5, difference + 0.5)
        alone = Estimate(60.0, 58.0, 62.0)
        record = PairedFigure(figure, alone, alone, ends, p)
        self.history.add_comparison(PairedRecord(self.names[a], self.names[b], 200, 4000, 0, (record,), difference == 0, repeated))

    def last(self, config: NightlyConfig | None = None, *, upto: int = -1, **outcome: Any) -> FigureVerdict:
        """The verdict of one night's only figure."""
        (found,) = self.judged(config, upto=upto, **outcome).figures
        return found

    def judged(self, config: NightlyConfig | None = None, *, upto: int = -1, **outcome: Any) -> Verdict:
        return _judge(self.history, config or _config(), _outcome([self.names[upto]], **outcome))


def _today() -> str:
    """An acceptance has the time at which it was made."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _ap(value: float | None, **more: Any) -> dict[str, Any]:
    return {"values": {"AP": value}, **more}


def test_the_first_night_is_new(tmp_path: Path) -> None:
    found = Nights(tmp_path, [_ap(70.0)]).judged()
    (figure,) = found.figures
    assert (figure.state, figure.value, figure.figure, figure.unit, figure.evidence) == ("new", 70.0, "AP", "percent", "none")
    assert math.isnan(figure.baseline_value)
    assert (found.status, found.exit_status, found.complete, found.machine, found.night) == ("ok", 0, True, "bench-1", "night-300")


def test_without_predictions_only_the_level_is_compared_and_the_note_says_so(tmp_path: Path) -> None:
    found = Nights(tmp_path, [_ap(70.0), _ap(70.0)]).last()
    assert (found.state, found.evidence, found.baseline_value) == ("steady", "level", 70.0)
    assert found.note == (
        "compared by its level only: predictions of the baseline are not at hand: its run directory is on another machine, deleted, or "
        "holds a later run"
    )


def test_a_paired_drop_is_suspect_on_its_first_night_and_a_regression_on_the_second(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(70.0), _ap(65.0, commit="2222222"), _ap(65.0, commit="2222222")])
    nights.pair(0, 1, 0.0, 1.0)
    nights.pair(1, 2, -5.0, 0.0005)
    nights.pair(1, 3, -5.0, 0.0005)
    first = nights.judged(upto=2)
    (figure,) = first.figures
    assert (first.status, figure.state, figure.nights, figure.since) == ("ok", "suspect", 1, made_time(2))
    assert (figure.difference, figure.p_value, figure.evidence) == (Estimate(-5.0, -5.5, -4.5), 0.0005, "paired")
    found = nights.judged()
    (figure,) = found.figures
    assert (found.status, found.exit_status, figure.state, figure.nights) == ("regression", 1, "regression", 2)
    assert (figure.since, figure.since_result) == (made_time(2), nights.names[2])
    assert (figure.baseline_value, figure.baseline_result, figure.value, figure.result) == (
        70.0,
        nights.names[1],
        65.0,
        nights.names[3],
    )
    assert (figure.low, figure.high) == (58.0, 62.0)
    assert figure.changes == (Change("m2fbench commit", "1111111", "2222222"),)


def test_a_drop_that_a_second_run_shows_too_is_a_regression_at_once(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    found = nights.last()
    assert (found.state, found.nights, found.note) == ("regression", 1, "a second run, made from nothing, dropped too")


def test_a_drop_that_a_second_run_does_not_show_is_no_alarm(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=False)
    found = nights.judged()
    assert (found.status, found.figures[0].state) == ("ok", "suspect")
    assert found.figures[0].note == "a second run, made from nothing, did not drop"


def test_a_regression_stands_until_it_is_recovered_from(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0), _ap(65.0), _ap(70.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    nights.pair(0, 2, -5.0, 0.0005)
    nights.pair(1, 2, 0.0, 1.0)
    nights.pair(0, 3, 0.0, 1.0)
    nights.pair(2, 3, 5.0, 0.0005)
    standing = nights.last(upto=2)
    assert (standing.state, standing.nights, standing.since, standing.baseline_value) == ("regression", 2, made_time(1), 70.0)
    found = nights.judged()
    (figure,) = found.figures
    assert (found.status, figure.state, figure.value) == ("ok", "recovered", 70.0)
    assert (figure.baseline_value, figure.baseline_result, figure.difference.value) == (65.0, nights.names[2], 5.0)
    assert (figure.since, figure.since_value) == (made_time(1), 65.0)
    assert headline(found).startswith(
        f"no regression; 1 figure recovered: {figure.cell} AP 65.00 → 70.00, the level before the regression of 2026-01-02 (1 of 1"
    )
    assert nights.last(upto=1).state == "regression"  # an earlier night, judged again


def _back(folder: Path, **again: Any) -> Nights:
    """A regression that stood two nights, and a night that is as good again, by other predictions."""
    nights = Nights(folder, [_ap(70.0), _ap(65.0, commit="2222222"), _ap(64.8, commit="2222222"), _ap(70.3, commit="3333333")])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    nights.pair(0, 2, -5.2, 0.0005)
    nights.pair(1, 2, -0.2, 0.3)
    nights.pair(0, 3, 0.3, 0.054, **again)
    nights.pair(2, 3, 5.5, 0.0005)
    return nights


def test_a_night_that_is_back_and_not_confirmed_is_no_regression_and_no_alarm(tmp_path: Path) -> None:
    nights = _back(tmp_path)
    standing = nights.last(upto=2)
    assert movement(standing) == (
        f"{standing.cell} AP 70.00 → 65.00 since 2026-01-02, tonight 64.80"
    )  # held to the last good level
    assert (standing.changes, standing.tonight) == ((Change("m2fbench commit", "1111111", "2222222"),), ())
    found = nights.judged()
    (figure,) = found.figures
    assert (found.status, found.exit_status, figure.state, figure.baseline_value, figure.nights) == ("ok", 0, "recovering", 64.8, 3)
    assert (
        figure.note
        == f"no loss against the last good run (result {nights.names[0][:12]}): +0.30 (-0.20 to +0.80), p 0.054; one more night confirms it"
    )
    assert figure.changes == figure.tonight == (Change("m2fbench commit", "2222222", "3333333"),)
    assert headline(found) == (
        "no regression; 1 figure recovering: shapes_instance/shapes-tiny/default AP 64.80 → 70.30, back at the level before the "
        "regression of 2026-01-02, to be confirmed (1 of 1 cell measured, 1 figure compared)"
    )


def test_a_night_that_is_back_in_a_second_run_too_has_recovered(tmp_path: Path) -> None:
    figure = _back(tmp_path, repeated=True).last()
    assert (figure.state, figure.baseline_value, figure.since) == ("recovered", 64.8, made_time(1))
    assert str(figure.note).startswith("a second run, made from nothing, is back too; no loss against the last good run")
    assert figure.changes == (Change("m2fbench commit", "2222222", "3333333"),)


def test_a_night_that_is_not_back_in_a_second_run_stands(tmp_path: Path) -> None:
    found = _back(tmp_path, repeated=False).judged()
    (figure,) = found.figures
    assert (found.status, figure.state, figure.note) == ("regression", "regression", "a second run, made from nothing, is not back")
    assert "AP 70.00 → 65.00 since 2026-01-02, tonight 70.30" in headline(found)


def test_the_night_after_confirms_a_recovery(tmp_path: Path) -> None:
    nights = [_ap(70.0), _ap(65.0), _ap(70.1), _ap(69.9)]
    made = Nights(tmp_path, nights)
    made.pair(0, 1, -5.0, 0.0005, repeated=True)
    for k in (2, 3):
        made.pair(0, k, nights[k]["values"]["AP"] - 70.0, 0.6)
        made.pair(1, k, nights[k]["values"]["AP"] - 65.0, 0.0005)
    assert [made.last(upto=k).state for k in (1, 2, 3)] == ["regression", "recovering", "recovered"]


def test_speed_that_is_back_is_no_alarm_either(tmp_path: Path) -> None:
    values = [10.0, 10.05, 9.95, 10.02, 9.98, 10.01, 8.0, 8.02, 7.99, 10.0, 10.02, 9.99, 10.0]
    nights = Nights(tmp_path, [_fps(v) for v in values])
    found = [nights.last(upto=k, measure=["speed"]) for k in range(8, 13)]
    assert [f.state for f in found] == ["regression", "recovering", "recovering", "recovered", "steady"]
    assert str(found[1].note).startswith("no loss by its level against the last good run")
    assert str(found[1].note).endswith("; 3 nights in a row confirm it")


def test_an_accepted_regression_that_is_back_is_an_improvement(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0), _ap(70.0), _ap(70.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    for k in (2, 3):
        nights.pair(1, k, 5.0, 0.0005)
    nights.history.accept(nights.names[1], "AP", "a smaller model")
    assert [nights.last(upto=k).state for k in (1, 2, 3)] == ["accepted", "improving", "improvement"]
    assert headline(nights.judged(upto=2)) == "no regression (1 of 1 cell measured, 1 figure compared)"
    assert "back at the level before the change of 2026-01-02 that was accepted" in str(nights.last().note)


def test_the_nights_name_stands_beside_its_date(tmp_path: Path) -> None:
    environment = {"machine": "x", "night": "n5"}
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0, environment=environment)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    figure = nights.last()
    assert (figure.since_night, movement(figure)) == ("n5", f"{figure.cell} AP 70.00 → 65.00 since 2026-01-02 (night n5)")
    assert not [change for change in figure.changes if "night" in change.what]


def test_an_interval_that_leaves_out_nothing_and_counts_for_nothing_is_said(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(68.4)])
    nights.pair(0, 1, -1.6, 0.004)
    figure = nights.last()
    assert (figure.state, figure.note) == (
        "steady",
        "its interval leaves out 0, but p 0.004 is above alpha, 0.001: taken for chance",
    )


def test_another_checkpoint_that_moves_nothing_is_said_in_a_line(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(70.0, commit="2222222"), _ap(60.0, commit="3333333")])
    nights.pair(0, 1, 0.0, 1.0)
    nights.pair(1, 2, -10.0, 0.0005)
    assert nights.judged(upto=1).notes == (
        "shapes_instance/shapes-tiny/default: m2fbench commit 1111111 → 2222222: figures steady",
    )
    assert nights.judged().notes == ()


def test_an_accepted_regression_is_no_alarm(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    nights.history.accept(nights.names[1], "AP", "a smaller model")
    found = nights.judged()
    assert (found.status, found.figures[0].state, found.figures[0].baseline_value) == ("ok", "accepted", 70.0)
    assert found.figures[0].note == f"a second run, made from nothing, dropped too; accepted on {_today()}: a smaller model"
    assert f"accepted on {_today()}: a smaller model" in summary_markdown(found)


def test_an_improvement_is_reported(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(75.0), _ap(75.0)])
    nights.pair(0, 1, 5.0, 0.0005)
    nights.pair(0, 2, 5.0, 0.0005)
    found = nights.judged()
    (figure,) = found.figures
    assert (found.status, figure.state, figure.since, figure.baseline_value) == ("ok", "improvement", made_time(1), 70.0)


def test_other_conditions_are_not_compared_and_are_named(tmp_path: Path) -> None:
    dataset = {"name": "shapes", "images": 300, "annotations_sha256": "a" * 64, "scored_images": 200}
    found = Nights(tmp_path, [_ap(70.0), _ap(50.0, dataset=dataset)]).last()
    assert (found.state, found.evidence) == ("restart", "none")
    assert math.isnan(found.baseline_value)
    assert "(dataset.images: was 200, is 300)" in str(found.note)


def test_a_cell_that_failed_is_unmeasured_with_the_reason(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0)])
    reasons: list[tuple[OutcomeState, str | None]] = [
        ("timeout", "ended after 120 min"),
        ("memory", "too much"),
        ("no budget", None),
    ]
    for state, reason in reasons:
        found = _judge(nights.history, _config(), _outcome([], state, reason))
        (figure,) = found.figures
        assert (found.status, found.exit_status, figure.state, figure.baseline_value) == ("unmeasured", 3, "unmeasured", 70.0)
        assert figure.note == (f"{state}: {reason}" if reason else state)


def test_a_cell_that_failed_beside_a_regression_does_not_hide_it(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    found = _judge(nights.history, _config(), _outcome([nights.names[1]]), _outcome([], "failed", "x", variant="other"))
    assert (found.status, [f.state for f in found.figures]) == ("regression", ["regression", "unmeasured"])
    assert not _judge(nights.history, _config(), _outcome([], "interrupted", "not run yet")).complete


def test_a_night_without_value_while_a_regression_stands_says_so(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    (figure,) = _judge(nights.history, _config(), _outcome([], "failed", "exit status 1")).figures
    assert figure.note == "failed: exit status 1; a regression stood the night before"


def test_what_can_never_run_is_a_note_and_what_once_could_is_unmeasured(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0)])
    never = _judge(nights.history, _config(), _outcome([], "unsupported", "no such device", variant="fp8"))
    assert (never.status, never.figures) == ("ok", ())
    assert never.notes == ("shapes_instance/shapes-tiny/fp8: unsupported: no such device",)
    once = _judge(nights.history, _config(), _outcome([], "unsupported", "no such device"))
    assert (once.status, once.figures[0].state) == ("unmeasured", "unmeasured")


def test_a_value_that_is_not_there_is_unmeasured(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(None, warnings=("no object in any image",)), {"values": {"AP50": 3.0}}])
    found = nights.judged(upto=1)
    assert (found.status, found.figures[0].state) == ("unmeasured", "unmeasured")
    assert found.figures[0].note == "could not be measured (no object in any image)"
    assert nights.last(upto=2).note == "its accuracy result has no AP"
    assert _judge(nights.history, _config(), _outcome([])).figures[0].note == "the cell left no accuracy result"
    assert "no result of" in str(_judge(nights.history, _config(), _outcome(["f" * 64])).figures[0].note)
    predicted = Nights(tmp_path / "b", [{"values": {}, "status": "predicted", "reason": "predictions only"}])
    assert predicted.last().note == "predicted: predictions only"


def _fps(value: float, **more: Any) -> dict[str, Any]:
    return {
        "kind": "speed",
        "values": {"fps": value, "fps_low": value - 0.01, "fps_high": value + 0.01, "peak_device_memory": None},
        **more,
    }


def test_speed_is_a_regression_after_three_nights_and_memory_that_no_night_has_is_none(tmp_path: Path) -> None:
    values = [10.0, 10.05, 9.95, 10.02, 9.98, 10.01, 10.03, 9.97, 8.0, 8.02, 7.99]
    nights = Nights(tmp_path, [_fps(v) for v in values])
    assert [nights.last(upto=k, measure=["speed"]).state for k in (7, 8, 9)] == ["steady", "suspect", "suspect"]
    found = nights.judged(measure=["speed"])
    (figure,) = found.figures
    assert (found.status, figure.state, figure.figure, figure.evidence, figure.since) == (
        "regression",
        "regression",
        "fps",
        "level",
        made_time(8),
    )
    assert figure.baseline_value == pytest.approx(10.0, abs=0.05)
    assert figure.difference.value == pytest.approx(7.99 - figure.baseline_value)
    assert not figure.difference.has_interval
    assert figure.note is None


def test_a_drift_is_a_note(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_fps(10.0 * (1 - 0.0006 * k) + 0.02 * (-1) ** k) for k in range(60)])
    found = nights.last(measure=["speed"])
    assert found.state == "steady"
    assert re.fullmatch(r"drifts: -\d\.\d % over \d+ days and \d+ nights", str(found.note))


def test_another_machine_is_another_series(tmp_path: Path) -> None:
    found = Nights(tmp_path, [_fps(10.0), _fps(10.0), _fps(5.0, machine="bench-2")]).last(measure=["speed"])
    assert found.state == "new"


def test_figures_of_each_task_where_they_are_measured(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [{"values": {"PQ": 50.0, "AP_th_pan": 40.0, "AP": 3.0}}])
    found = nights.judged(task="panoptic", measure=("accuracy", "speed", "flops"))
    assert [(f.kind, f.figure, f.state) for f in found.figures] == [
        ("accuracy", "PQ", "new"), ("accuracy", "AP_th_pan", "new"), ("speed", "fps", "unmeasured"), ("flops", "FLOPs", "unmeasured"),
    ]  # fmt: skip
    assert [(f.unit, f.higher_is_better) for f in found.figures[2:]] == [("images/s", True), ("count", False)]


def test_a_limited_cell_is_held_to_limited_nights(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0, limit=10), _ap(50.0)])
    (limited,) = _judge(nights.history, _config(limit=10), _outcome([], "failed", "x")).figures
    (whole,) = _judge(nights.history, _config(), _outcome([], "failed", "x")).figures
    assert (limited.baseline_value, whole.baseline_value) == (70.0, 50.0)


def test_named_figures_in_place_of_the_usual(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [{"values": {"AP": 50.0, "AP50": 70.0}}])
    found = nights.judged(_config(figures=["AP50", "latency"]), measure=("accuracy", "speed"))
    assert [(f.kind, f.figure, f.state) for f in found.figures] == [
        ("accuracy", "AP50", "new"), ("speed", "latency", "unmeasured"),
    ]  # fmt: skip
    assert found.status == "unmeasured"


def test_a_named_figure_that_another_cell_of_the_row_has_is_not_missing_here(tmp_path: Path) -> None:
    config = _config(figures=["AP", "FLOPs", "fps"])
    nights = Nights(tmp_path, [_ap(70.0), {"kind": "flops", "values": {"FLOPs": 2e11}}, _ap(70.0, variant="fp16")])
    first = _outcome(nights.names[:2], measure=("accuracy", "flops"))
    second = _outcome(nights.names[2:], measure=("accuracy",), variant="fp16")
    found = _judge(nights.history, config, first, second)
    assert [(f.cell.rpartition("/")[2], f.figure, f.state) for f in found.figures] == [
        ("default", "AP", "new"), ("default", "FLOPs", "new"), ("fp16", "AP", "new"),
    ]  # fmt: skip
    assert found.status == "ok"
    lost = _judge(nights.history, config, replace(first, results=tuple(nights.names[:1])))
    assert [(f.figure, f.state) for f in lost.figures] == [("AP", "new"), ("FLOPs", "unmeasured")], "its own, it must have"


@pytest.mark.parametrize(
    ("figure", "kinds"),
    [
        ("AP", ["accuracy", "speed"]), ("APs (small)", ["accuracy", "speed"]), ("mIoU_pan", ["accuracy", "speed"]), ("fps", ["speed"]),
        ("latency_task_p90", ["speed"]), ("time (backbone)", ["speed"]), ("peak_device_memory", ["speed"]), ("energy (GPU)", ["speed"]),
        ("FLOPs_fvcore", ["flops"]), ("FLOPs_by_part (backbone)", ["flops"]), ("parameters", ["speed", "flops"]),
    ],
)  # fmt: skip
def test_which_results_have_a_figure(figure: str, kinds: list[str]) -> None:
    every: tuple[Kind, ...] = ("accuracy", "speed", "flops")
    assert [kind for kind in every if may_have(kind, figure)] == kinds


def test_a_suspected_improvement_is_no_headline_and_a_disturbed_baseline_is_said(tmp_path: Path) -> None:
    nights = Nights(
        tmp_path, [_fps(v) for v in (10.0, 10.01, 9.99)] + [_fps(10.0, warnings=("latencies drift by 9 %",)), _fps(12.0)]
    )
    found = nights.judged(measure=["speed"])
    (figure,) = found.figures
    assert (figure.state, figure.is_better) == ("improving", True)
    assert headline(found) == "no regression (1 of 1 cell measured, 1 figure compared)"
    assert str(figure.note).endswith("something else took the machine's time while its baseline was measured")
    worse = Nights(tmp_path / "worse", [_fps(v) for v in (10.0, 10.01, 9.99, 8.0)]).judged(measure=["speed"])
    assert headline(worse).startswith(
        "no regression; 1 suspect: shapes_instance/shapes-tiny/default fps 9.99 images/s → 8 images/s"
    )


def test_while_a_regression_stands_a_further_drop_is_seen_against_the_last_night_in_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(tmp_path, [_ap(v) for v in (70.0, 65.0, 65.0, 64.7, 60.0)])
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    nights.pair(0, 2, -5.0, 0.0005)
    nights.pair(1, 2, 0.0, 1.0)
    nights.pair(0, 3, -5.3, 0.0005)
    nights.pair(2, 3, -0.3, 0.01)  # neither in line nor standing out: the level stays where it was
    asked: dict[str, tuple[frozenset[str], dict[str, float]]] = {}

    def paired(history: History, baseline: str, run: str, pairing: Pairing, **_: Any) -> str:
        asked[baseline] = (pairing.fresh, dict(pairing.lost))
        return "not here"

    monkeypatch.setattr("m2fbench.nightly.judging.paired", paired)
    nights.judged(_config().model_copy(update={"repeat": True}))
    assert asked == {nights.names[0]: (frozenset(), {"AP": 5.0}), nights.names[2]: (frozenset({"AP"}), {})}
    assert needed_results(nights.history, _config()) >= {nights.names[0], nights.names[2]}
    nights.pair(0, 4, -10.0, 0.0005)
    nights.pair(2, 4, -5.0, 0.0005, repeated=True)
    found = nights.last()
    assert (found.state, found.since, found.baseline_value) == ("regression", made_time(1), 70.0)
    assert found.note == "worse again since 2026-01-05"


def test_a_night_judged_again_does_not_see_later_ones(tmp_path: Path) -> None:
    values = [70.0, 70.0, 65.0, 65.0, 70.0, 70.0]

    def upto(history: Nights, night: int) -> None:
        nights.pair(night - 1 if night < 3 else 1, night, values[night] - 70.0, 0.0005 if values[night] < 70 else 1.0)

    nights = Nights(tmp_path, [_ap(v) for v in values[:3]])
    for night in (1, 2):
        upto(nights, night)
    before = nights.judged()
    failed = _judge(nights.history, _config(), _outcome([], "failed", "x"), night=3)
    nights = Nights(tmp_path, [_ap(v) for v in values])
    for night in (3, 4, 5):
        upto(nights, night)
    assert nights.last().state in ("improvement", "steady")
    assert replace(nights.judged(upto=2), finished="") == replace(before, finished="")
    assert _judge(nights.history, _config(), _outcome([], "failed", "x"), night=3).figures == failed.figures


def test_what_a_second_run_says_stands_only_by_the_figures_that_dropped(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [{"values": {"PQ": 50.0, "mIoU_pan": 40.0}}, {"values": {"PQ": 45.0, "mIoU_pan": 40.0}}])
    alone = Estimate(45.0, 43.0, 47.0)
    dropped = PairedFigure("PQ", alone, alone, Estimate(-5.0, -5.5, -4.5), 0.0005)
    steady = PairedFigure("mIoU_pan", alone, alone, Estimate(0.0, -0.2, 0.2), 0.9)
    nights.history.add_comparison(PairedRecord(nights.names[0], nights.names[1], 200, 4000, 0, (dropped, steady), repeated=True))
    notes = {f.figure: f.note for f in nights.judged(task="panoptic").figures}
    assert notes == {"PQ": "a second run, made from nothing, dropped too", "mIoU_pan": None}


def _published(measured: float, within: bool | None, comparable: bool = True, printed: float = 70.0) -> dict[str, Any]:
    return _ap(
        measured, comparisons=(Comparison("AP", measured, printed, "a paper", comparable, within),), reason="4 of 200 images"
    )


@pytest.mark.parametrize(
    ("measured", "within", "state"), [(69.9, True, "steady"), (65.0, False, "regression"), (75.0, False, "improvement")]
)
def test_the_suites_tolerance_decides_against_the_published(tmp_path: Path, measured: float, within: bool, state: str) -> None:
    nights = Nights(tmp_path, [_published(70.1, True), _published(measured, within), _published(measured, within)])
    found = nights.last(_config(["published"]))
    assert (found.state, found.baseline, found.baseline_value, found.evidence) == (state, "published", 70.0, "published")
    assert found.difference.value == pytest.approx(measured - 70.0)
    assert (found.since, found.nights) == ((made_time(1), 2) if state == "regression" else (None, 0))


@pytest.mark.parametrize(("value", "state"), [(66.0, "regression"), (69.0, "steady"), (69.95, "steady"), (80.0, "improvement")])
def test_without_a_tolerance_the_interval_decides(tmp_path: Path, value: float, state: str) -> None:
    nights = Nights(tmp_path, [_published(value, None), _published(value, None)])
    alone = Estimate(value, value - 2.0, value + 2.0)
    figure = PairedFigure("AP", alone, alone, Estimate(0.0, 0.0, 0.0), 1.0)
    nights.history.add_comparison(PairedRecord(nights.names[0], nights.names[1], 200, 4000, 0, (figure,), True))
    found = nights.last(_config(["published"]))
    assert (found.state, found.low, found.high) == (state, value - 2.0, value + 2.0)


def test_the_published_without_interval_or_likeness_or_at_all(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_published(60.0, None), _published(60.0, None, comparable=False), _ap(60.0)])
    config = _config(["published"])
    assert (nights.last(config, upto=0).state, nights.judged(config, upto=0).status) == ("unmeasured", "unmeasured")
    unlike = nights.judged(config, upto=1)
    assert (unlike.status, unlike.figures[0].state) == ("ok", "not compared")
    assert headline(unlike) == "no regression (1 of 1 cell measured, 0 figures compared, 1 not)"
    assert unlike.notes == (
        "1 figure not compared with published: not comparable with the published figure: 4 of 200 images: shapes_instance/shapes-tiny/default (AP)",
    )
    assert unlike.figures[0].note == "not comparable with the published figure: 4 of 200 images"
    none = nights.judged(config, upto=2)
    assert (none.status, none.figures, none.notes) == (
        "ok",
        (),
        ("shapes_instance/shapes-tiny/default: no figure of it is published",),
    )


@pytest.mark.parametrize(
    ("printed", "percent", "half"),
    [(45.0, True, 0.05), (71.24, True, 0.005), (45.1, True, 0.05), (226e9, False, 0.5e9), (44.0, False, 0.5), (4.55, False, 0.005)],
)
def test_rounding_of_printed_figures(printed: float, percent: bool, half: float) -> None:
    assert rounding(printed, percent=percent) == pytest.approx(half)


def _release(nights: Nights, name: str = "v1", of: int = 0) -> NightlyConfig:
    nights.history.release(name, [nights.names[of]])
    return _config([f"release:{name}"])


def test_against_a_release_over_the_same_images(tmp_path: Path) -> None:
    nights = Nights(
        tmp_path, [_ap(70.0), _ap(70.0), _ap(65.0, commit="2222222"), _ap(65.0, commit="2222222"), _ap(72.0), _ap(70.0)]
    )
    config = _release(nights)
    for night, difference, p in ((1, 0.0, 1.0), (2, -5.0, 0.0005), (3, -5.0, 0.0005), (4, 2.0, 0.0005), (5, -1.0, 0.2)):
        nights.pair(0, night, difference, p)
    states = [nights.last(config, upto=k).state for k in range(6)]
    assert states == ["steady", "steady", "suspect", "regression", "improvement", "steady"]
    found = nights.last(config, upto=3)
    assert (found.baseline, found.baseline_value, found.baseline_result) == ("release:v1", 70.0, nights.names[0])
    assert (found.since, found.nights, found.evidence, found.difference.value) == (made_time(2), 2, "paired", -5.0)
    assert found.changes == (Change("m2fbench commit", "1111111", "2222222"),)
    assert nights.last(config, upto=0).note == "this result is the release's"
    nights.history.accept(nights.names[2], "AP", "as intended")
    accepted = nights.last(config, upto=3)
    assert (accepted.state, accepted.note) == ("accepted", f"accepted on {_today()}: as intended")


def test_a_creep_of_small_drops_is_found_against_a_release(tmp_path: Path) -> None:
    """Each is too small to stand out from the night before, and the last good night moves with them."""
    nights = Nights(tmp_path, [_ap(round(72.15 - 0.12 * k, 2)) for k in range(12)])
    config = _release(nights).model_copy(update={"baselines": ["last-good", "release:v1"]})
    for k in range(1, 12):
        nights.pair(k - 1, k, -0.12, 0.2)
        if k > 1:
            nights.pair(0, k, -0.12 * k, 2 * 0.1 ** (1 + 0.5 * k))
    found = [nights.judged(config, upto=k) for k in range(1, 12)]
    by_baseline = [{f.baseline: f.state for f in verdict.figures} for verdict in found]
    assert {states["last-good"] for states in by_baseline} == {"steady"}
    of_release = [states["release:v1"] for states in by_baseline]
    assert of_release == ["steady"] * 4 + ["suspect"] + ["regression"] * 6, "of 0.6 points p is 0.0006, and smaller the next night"
    assert found[-1].exit_status == 1


@pytest.mark.parametrize(("before", "again"), [(70.0, True), (65.0, False)])
def test_what_lay_below_a_release_already_is_not_run_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: float, again: bool
) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(before), _ap(65.0)])
    nights.pair(0, 1, before - 70.0, 0.0005 if before < 70 else 1.0)
    asked: list[bool] = []

    def paired(*_: Any, again: Any, **__: Any) -> str:
        asked.append(again is not None)
        return "not here"

    monkeypatch.setattr("m2fbench.nightly.judging.paired", paired)
    nights.judged(_release(nights).model_copy(update={"repeat": True}))
    assert asked == [again]


def test_a_drop_against_a_release_that_was_repeated_is_a_regression(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _ap(65.0)])
    config = _release(nights)
    nights.pair(0, 1, -5.0, 0.0005, repeated=True)
    assert nights.last(config).state == "regression"


def test_speed_against_a_release_takes_three_nights(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_fps(v) for v in (10.0, 10.02, 9.99, 10.01, 9.0, 9.02, 9.01, 9.0)])
    config = _release(nights)
    states = [nights.last(config, upto=k, measure=["speed"]).state for k in range(2, 8)]
    assert states[:3] == ["steady", "steady", "suspect"]
    assert states[-1] == "regression"
    found = nights.last(config, measure=["speed"])
    assert (found.since, found.evidence) == (made_time(4), "level")


def test_what_a_release_has_not_is_unmeasured_with_the_reason(tmp_path: Path) -> None:
    dataset = {"name": "shapes", "images": 300, "scored_images": 200}
    nights = Nights(
        tmp_path,
        [_ap(70.0), _ap(70.0, dataset=dataset), _ap(70.0, row="other"), _fps(10.0), _fps(10.0, machine="bench-2"), {"values": {"AP50": 3.0}}],
    )  # fmt: skip
    for name, of in (("rows", 2), ("images", 1), ("speed", 3), ("figures", 5)):
        nights.history.release(name, [nights.names[of]])
    speed = {"measure": ["speed"]}
    cases: list[tuple[str, int, dict[str, Any], str]] = [
        ("none", 0, {}, "there is no release none; the history has: figures, images, rows, speed"),
        ("rows", 0, {}, "release rows has no accuracy result of this cell"),
        ("images", 0, {}, "release images was measured under other conditions (dataset.annotations_sha256: "),
        ("speed", 4, speed, "release speed was measured on bench-1, tonight on bench-2"),
        ("figures", 0, {}, "figures has no AP of this cell"),
    ]  # fmt: skip
    for name, upto, outcome, message in cases:
        found = nights.judged(_config([f"release:{name}"]), upto=upto, **outcome)
        assert (found.status, found.figures[0].state) == ("unmeasured", "unmeasured")
        assert str(found.figures[0].note).startswith(message)


def test_every_baseline_is_judged(tmp_path: Path) -> None:
    nights = Nights(tmp_path, [_ap(70.0), _published(70.0, True)])
    nights.history.release("v1", [nights.names[0]])
    found = nights.judged(_config(["last-good", "published", "release:v1"]))
    assert [f.baseline for f in found.figures] == ["last-good", "published", "release:v1"]
