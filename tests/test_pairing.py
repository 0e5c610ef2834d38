"""Predictions of two nights compared: what is the same is not resampled, what is gone is said, and a drop is run once more."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import m2fbench
from m2fbench.analysis.comparing import compare_runs
from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.runs import Run, open_runs
from m2fbench.errors import NightlyError
from m2fbench.history.history import History
from m2fbench.history.records import PairedRecord
from m2fbench.nightly.config import NightlyConfig
from m2fbench.nightly.judging import Repeat, judge
from m2fbench.nightly.pairing import evidence_of, same_predictions
from m2fbench.nightly.records import Cell, NightFacts, Outcome, Verdict
from m2fbench.nightly.wording import movement
from m2fbench.types import Head

pytestmark = pytest.mark.full

IMAGES = 14
RESAMPLES = 200
CELL = {"instance": "shapes_instance/shapes-tiny/default", "panoptic": "shapes_panoptic/shapes-tiny/default"}


@dataclass(frozen=True)
class Place:
    """Runs of one suite as the bundled checkpoint gives them, and as one that is worse does."""

    good: Path
    worse: Path


def _worse(loader: Any) -> Any:
    """The loader's model with noise in what it predicts, the same at every call."""

    def load(checkpoint: Any, variant: Any, device: str) -> Any:
        model = loader(checkpoint, variant, device)

        def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            classes, masks = model.forward(pixels)
            noise = torch.randn(classes.shape, generator=torch.Generator().manual_seed(0))
            return classes + 3 * noise, masks - 2

        return replace(model, forward=forward)

    return load


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> Place:
    folder = tmp_path_factory.mktemp("nights")
    for name, loader in (("good", bundled_loader), ("worse", _worse(bundled_loader))):
        m2fbench.run("shapes_instance", output=folder / name, overrides=[f"dataset.count={IMAGES}"], loader=loader)
    return Place(folder / "good", folder / "worse")


def _night(runs: Path, to: Path, night: int, cell: str = CELL["instance"], change: Callable[[Any], None] | None = None) -> Path:
    """A copy of a run as that of another night; the folder of its runs."""
    shutil.copytree(runs, to)
    path = to / cell / "result.json"
    document = json.loads(path.read_text())
    document["finished"] = f"2026-11-{night:02}T03:00:00+00:00"
    if change is not None:
        change(document)
    path.write_text(json.dumps(document))
    return to


def _config(**more: Any) -> NightlyConfig:
    return NightlyConfig.model_validate(
        {"nightly": "n", "suites": [{"suite": "shapes_instance"}], "resamples": RESAMPLES, "rules": {"alpha": 0.01}} | more
    )


def _judge(history: History, config: NightlyConfig, runs: Path, repeat: Repeat | None = None, task: Head = "instance") -> Verdict:
    (result,) = history.add([runs]).new or history.add([runs]).known
    suite, row, variant = CELL[task].split("/")
    outcome = Outcome(Cell(0, suite, row, variant, task, ("accuracy",)), "done", results=(result,))
    facts = NightFacts("n", "n", runs.name, "2026-12-01T00:00:00+00:00", "here")
    return judge(history, config, facts, [outcome], repeat or (lambda cell: pytest.fail("nobody asked for a second run")))


def _record(history: History, verdict: Verdict) -> PairedRecord:
    (figure,) = verdict.figures
    record = history.comparison(str(figure.baseline_result), str(figure.result))
    assert record is not None
    return record


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with History(tmp_path / "history", create=True) as opened:
        yield opened


def test_the_same_predictions_are_not_resampled(history: History, place: Place, tmp_path: Path) -> None:
    nights = [_night(place.good, tmp_path / f"{k}", k) for k in (1, 2, 3)]
    assert _judge(history, _config(), nights[0]).figures[0].state == "new"
    verdict = _judge(history, _config(), nights[1])
    (figure,) = verdict.figures
    record = _record(history, verdict)
    assert (verdict.status, figure.state, figure.evidence, figure.difference.value) == ("ok", "steady", "paired", 0.0)
    assert figure.note == "the predictions are the baseline's, byte for byte"
    assert (record.identical, record.images, record.resamples) == (True, IMAGES, RESAMPLES)
    (ap,) = (f for f in record.figures if f.name == "AP")
    first, second = open_runs([nights[0], nights[1]])
    expected = next(d for d in compare_runs(first, second, resamples=RESAMPLES).differences if d.figure == "AP")
    assert expected.a_interval == expected.b_interval
    assert expected.b_interval is not None
    assert (ap.b.low, ap.b.high) == (expected.b_interval.low, expected.b_interval.high)  # the interval of the run alone
    assert (figure.low, figure.high) == (ap.b.low, ap.b.high)
    with pytest.MonkeyPatch.context() as patch:  # and is not computed again the night after
        patch.setattr("m2fbench.nightly.pairing.intervals", lambda *_, **__: pytest.fail("resampled"))
        third = _judge(history, _config(), nights[2])
    assert (third.figures[0].low, third.figures[0].high) == (ap.b.low, ap.b.high)


def test_a_drop_is_run_once_more_and_is_a_regression_that_night(history: History, place: Place, tmp_path: Path) -> None:
    asked: list[str] = []

    def repeat(cell: Cell) -> Path:
        asked.append(cell.name)
        return _night(place.worse, tmp_path / "again", 2) / CELL["instance"]

    _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    runs = _night(place.worse, tmp_path / "2", 2)
    told: list[str] = []
    verdict = _judge(history, _config(), runs, repeat)
    (figure,) = verdict.figures
    record = _record(history, verdict)
    assert (verdict.status, figure.state, record.repeated, asked) == ("regression", "regression", True, [CELL["instance"]])
    first, second = open_runs([tmp_path / "1", tmp_path / "2"])
    expected = next(d for d in compare_runs(first, second, resamples=RESAMPLES).differences if d.figure == "AP")
    assert (figure.difference, figure.p_value) == (expected.difference, expected.p_value)
    assert figure.p_value <= 0.01
    assert figure.value == pytest.approx(expected.b, abs=1e-9)
    assert _judge(history, _config(), runs).status == "regression"  # judged again: neither compared nor run again
    assert told == []


def test_a_drop_that_a_second_run_does_not_show_is_no_alarm(history: History, place: Place, tmp_path: Path) -> None:
    _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    verdict = _judge(history, _config(), _night(place.worse, tmp_path / "2", 2), lambda cell: place.good / CELL["instance"])
    assert (verdict.status, verdict.figures[0].state, _record(history, verdict).repeated) == ("ok", "suspect", False)


def test_a_second_run_that_is_in_between_leaves_it_to_the_next_night(
    history: History, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doubtful(a: Run, b: Run, **options: Any) -> Any:
        found = compare_runs(a, b, **options)
        if b.folder != place.good / CELL["instance"]:
            return found
        return replace(found, differences=tuple(replace(d, difference=Estimate(-1.0), p_value=0.03) for d in found.differences))

    monkeypatch.setattr("m2fbench.nightly.pairing.compare_runs", doubtful)
    _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    verdict = _judge(history, _config(), _night(place.worse, tmp_path / "2", 2), lambda cell: place.good / CELL["instance"])
    assert (verdict.figures[0].state, _record(history, verdict).repeated) == ("suspect", None)


def test_without_a_second_run_it_takes_two_nights(history: History, place: Place, tmp_path: Path) -> None:
    def failing(cell: Cell) -> Path | None:
        raise NightlyError("no room")

    _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    states = []
    for night, repeat in ((2, failing), (3, lambda cell: None)):
        verdict = _judge(history, _config(), _night(place.worse, tmp_path / f"{night}", night), repeat)
        states.append(verdict.figures[0].state)
        assert _record(history, verdict).repeated is None
    assert states == ["suspect", "regression"]
    standing = _judge(history, _config(), _night(place.worse, tmp_path / "4", 4))  # stands, so that nothing is run again
    assert (standing.figures[0].state, standing.figures[0].nights) == ("regression", 3)
    recovered = _judge(history, _config(), _night(place.good, tmp_path / "5", 5))
    assert (recovered.status, recovered.figures[0].state) == ("ok", "recovered")
    assert "the level before the regression of 2026-11-02" in movement(recovered.figures[0])


def _almost(runs: Path) -> Path:
    """The same run with scores a thousandth lower: another file, the same figures."""
    path = runs / CELL["instance"] / "predictions.json"
    path.write_text(json.dumps([p | {"score": 0.999 * p["score"]} for p in json.loads(path.read_bytes())]))
    return runs


@pytest.mark.parametrize(
    ("second", "state", "repeated"), [("almost", "recovered", True), ("worse", "regression", False), ("", "recovering", None)]
)
def test_a_night_that_is_back_is_run_once_more_too(
    history: History, place: Place, tmp_path: Path, second: str, state: str, repeated: bool | None
) -> None:
    asked: list[str] = []

    def repeat(cell: Cell) -> Path | None:
        asked.append(cell.name)
        again = _night(place.worse if second == "worse" else place.good, tmp_path / "again", 3)
        return None if not second else (_almost(again) if second == "almost" else again) / CELL["instance"]

    _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    _judge(history, _config(), _night(place.worse, tmp_path / "2", 2), lambda cell: place.worse / CELL["instance"])
    runs = _almost(_night(place.good, tmp_path / "3", 3))
    for _ in range(2):  # judged again it is not run again
        verdict = _judge(history, _config(), runs, repeat)
        (figure,) = verdict.figures
        assert (figure.state, verdict.exit_status, asked) == (state, int(state == "regression"), [CELL["instance"]])
    (good,) = (e.sha256 for e in history.entries() if e.time.startswith("2026-11-01"))
    record = history.comparison(good, str(figure.result))
    assert record is not None
    assert (record.repeated, record.identical) == (repeated, False)


@pytest.mark.parametrize(("lost", "reason"), [("predictions.json", "deleted from "), ("all", "is on another machine, deleted,")])
def test_predictions_that_are_gone_are_said(history: History, place: Place, tmp_path: Path, lost: str, reason: str) -> None:
    _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    if lost == "all":
        shutil.rmtree(tmp_path / "1")
    else:
        (tmp_path / "1" / CELL["instance"] / lost).unlink()
    verdict = _judge(history, _config(), _night(place.worse, tmp_path / "2", 2))
    (figure,) = verdict.figures
    assert (figure.evidence, figure.p_value == figure.p_value) == ("level", False)
    assert str(figure.note).startswith("compared by its level only: predictions of the baseline are not at hand: ")
    assert reason in str(figure.note)


def test_scoring_that_has_changed_is_not_taken_for_the_models(history: History, place: Place, tmp_path: Path) -> None:
    def scored(document: Any) -> None:
        (ap,) = (m for m in document["measurements"] if m["name"] == "AP" and m["category"] is None)
        ap["value"] -= 5.0

    _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    same = _judge(history, _config(), _night(place.good, tmp_path / "2", 2, change=scored))
    assert (same.figures[0].evidence, same.status) == ("level", "ok")
    assert "the predictions are those of the baseline, byte for byte, and are scored otherwise since: AP was" in str(
        same.figures[0].note
    )
    with History(tmp_path / "other", create=True) as other:
        _judge(other, _config(), _night(place.good, tmp_path / "3", 1, change=scored))
        found = _judge(other, _config(), _night(place.worse, tmp_path / "4", 2))
    assert "the baseline's predictions are scored otherwise since: AP was" in str(found.figures[0].note)


def test_a_release_is_compared_over_the_same_images(history: History, place: Place, tmp_path: Path) -> None:
    first = _judge(history, _config(), _night(place.good, tmp_path / "1", 1))
    history.release("v1", [str(first.figures[0].result)])
    asked: list[Cell] = []

    def repeat(cell: Cell) -> Path:
        asked.append(cell)
        return place.worse / CELL["instance"]

    config = _config(baselines=["release:v1", "last-good"])
    verdict = _judge(history, config, _night(place.worse, tmp_path / "2", 2), repeat)
    assert [(f.baseline, f.state, f.evidence) for f in verdict.figures] == [
        ("release:v1", "regression", "paired"), ("last-good", "regression", "paired"),
    ]  # fmt: skip
    assert len(asked) == 1


def test_an_interval_for_the_published_figure_comes_from_the_predictions(history: History, place: Place, tmp_path: Path) -> None:
    def published(document: Any) -> None:
        value = next(m["value"] for m in document["measurements"] if m["name"] == "AP" and m["category"] is None)
        document["comparisons"] = [
            {"metric": "AP", "measured": value, "published": value + 60, "source": "x", "comparable": True, "within": None}
        ]

    verdict = _judge(history, _config(baselines=["published"]), _night(place.worse, tmp_path / "1", 1, change=published))
    (figure,) = verdict.figures
    assert (figure.state, figure.evidence, figure.nights) == ("regression", "published", 1)
    assert figure.low < figure.value < figure.high or math.isclose(figure.low, figure.value)


def test_panoptic_maps_count_as_predictions(history: History, tmp_path: Path, bundled_loader: Any) -> None:
    m2fbench.run("shapes_panoptic", output=tmp_path / "runs", overrides=["dataset.count=3"], loader=bundled_loader)
    nights = [_night(tmp_path / "runs", tmp_path / f"{k}", k, CELL["panoptic"]) for k in (1, 2, 3)]
    results = [history.add([night]).new[0] for night in nights]
    runs = [evidence_of(history, result) for result in results]
    assert all(not isinstance(run, str) for run in runs)
    first, second, third = (run.evidence for run in runs if not isinstance(run, str))
    assert first is not None
    assert second is not None
    assert third is not None
    assert same_predictions(first, second)
    map_ = next((tmp_path / "3" / CELL["panoptic"] / "panoptic").glob("*.png"))
    map_.write_bytes(map_.read_bytes()[:-1] + b"x")
    assert not same_predictions(first, third)
    assert not same_predictions(first, replace(third, examples=third.examples[:2]))
    next((tmp_path / "2" / CELL["panoptic"] / "semantic").glob("*.png")).unlink()
    assert "is gone" in str(evidence_of(history, results[1]))
    history.release("v1", [results[0]])
    verdict = _judge(history, _config(baselines=["release:v1"]), nights[0], task="panoptic")
    assert [(f.figure, f.state) for f in verdict.figures] == [("PQ", "steady"), ("AP_th_pan", "steady"), ("mIoU_pan", "steady")]
