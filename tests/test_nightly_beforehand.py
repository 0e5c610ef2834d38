"""What is seen before a night runs, what is told of another night at work, and what is said at its end."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from m2fbench.analysis.findings import Estimate
from m2fbench.history.history import History
from m2fbench.nightly.beforehand import seen_beforehand
from m2fbench.nightly.closing import next_steps, short_table
from m2fbench.nightly.endings import meaning
from m2fbench.nightly.folder import new_night, write_night, write_outcome
from m2fbench.nightly.isolated import Ended
from m2fbench.nightly.loading import load_nightly
from m2fbench.nightly.neighbours import at_work
from m2fbench.nightly.night import NightEvent
from m2fbench.nightly.records import Cell, FigureVerdict, Outcome, Verdict
from m2fbench.reporting.terminal.nightly import NightDisplay, last_line

SUITE = """
suite: first
title: Shapes for tests
task: instance
dataset: {name: shapes, split: val, count: 6}
protocol: {min_size: 128, max_size: 192}
metrics: [coco_ap]
measure: [accuracy]
checkpoints:
  - {name: one, checkpoint: bundled:shapes_tiny, published: {AP: 50.0}, source: here}
  - {name: two,
     checkpoint: ./two}
  - {name: lost, unavailable: nobody has it}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "first.yaml").write_text(SUITE)

    def make(text: str) -> Path:
        path = tmp_path / "nightly.yaml"
        path.write_text(f"nightly: tests\n{text}\n")
        return path

    return make


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("./modell", "no such folder in"),
        ("gone.pth", "no such file"),
        ("bundled:shapes_tini", "expected one of bundled:"),
        ("zoo:coco/instance/R51", "coco/instance/R50"),
        ("./empty", "expected a transformers folder with config.json"),
        ("./other", "expected a Mask2Former checkpoint"),
        ("./light", "expected weights in one of"),
        ("./text", "no file of weights"),
        ("a/b\\0c", "not a hub id"),
    ],
)
def test_checkpoints_that_cannot_be_run_are_told_with_their_place(
    write: Callable[[str], Path], tmp_path: Path, reference: str, said: str
) -> None:
    for name, config in {"empty": None, "other": '{"model_type": "bert"}', "light": '{"model_type": "mask2former"}'}.items():
        (tmp_path / name).mkdir()
        if config is not None:
            (tmp_path / name / "config.json").write_text(config)
    (tmp_path / "text").write_text("root:x:0:0:root:/root:/bin/bash\n")
    path = write(f'suites:\n  - suite: first.yaml\n    checkpoints: ["bundled:shapes_tiny",\n      "{reference}"]')
    seen = seen_beforehand(nightly := load_nightly(path))
    (problem,) = seen.problems
    assert problem.startswith(f"{path}:5: suites.0.checkpoints.1: ")
    assert said in problem
    assert list(seen.cells) == [nightly.cells[1].cell.name]


@pytest.mark.parametrize("reference", ["owner/name", "owner/name@main", "https://example.org/model.pkl", "zoo:coco/instance/R50"])
def test_what_lies_elsewhere_is_not_asked_for(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("nothing is downloaded"))
    found = seen_beforehand(load_nightly(write(f'suites: [{{suite: first.yaml, checkpoints: ["{reference}"]}}]')))
    assert found.problems == ()


def test_a_checkpoint_of_the_suite_is_told_with_the_suites_place(write: Callable[[str], Path], tmp_path: Path) -> None:
    (problem,) = seen_beforehand(load_nightly(write("suites: [{suite: first.yaml}]"))).problems
    assert problem.startswith(f"{tmp_path / 'first.yaml'}:12: checkpoints.1.checkpoint: ./two: no such folder")


def test_a_dataset_that_is_not_there(write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("M2FBENCH_DATA", raising=False)
    text = "suites:\n  - suite: coco_instance\n    checkpoints: ['bundled:shapes_tiny']\n"
    path = write(text)
    seen = seen_beforehand(nightly := load_nightly(path))
    assert seen.problems[0].startswith(f"{path}:3: suites.0.suite: ")
    assert set(seen.cells) == {one.cell.name for one in nightly.cells}
    path = write(f"{text}    data: photos")
    assert seen_beforehand(load_nightly(path)).problems[0].startswith(f"{path}:5: suites.0.data: ")


def test_releases_that_the_history_does_not_have(write: Callable[[str], Path], tmp_path: Path) -> None:
    path = write("suites: [{suite: first.yaml, only: [one]}]\nbaselines:\n  - last-good\n  - release:v9")
    (problem,) = seen_beforehand(load_nightly(path)).problems
    assert problem.startswith(f"{path}:5: baselines.1: expected a release of the history {tmp_path / 'history'}, ")
    assert not (tmp_path / "history").exists()
    History(tmp_path / "history", create=True).close()
    (problem,) = seen_beforehand(load_nightly(path)).problems
    assert "which has none; got 'v9'" in problem


def test_a_limit_beside_published_figures_is_a_warning(write: Callable[[str], Path]) -> None:
    def warnings(text: str) -> tuple[str, ...]:
        seen = seen_beforehand(load_nightly(write(f"baselines: [published]\nsuites:\n  - suite: first.yaml\n    {text}")))
        assert seen.problems == ()
        return seen.warnings

    (warning,) = warnings("only: [one]\n    limit: 3")
    assert ":6: suites.0.limit: published figures are of all images, and not comparable with a limit of 3" in warning
    assert warnings("only: [one]\n    limit: 6") == ()
    assert warnings("only: [lost]\n    limit: 3") == ()
    assert warnings("only: [one]") == ()


def test_another_night_at_work_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "cache"))
    with at_work(tmp_path / "o/a", "h", tmp_path / "o") as first, at_work(tmp_path / "o/b", "h", tmp_path / "o") as second:
        assert first == []
        (told,) = second
        assert f"same history and output is at work on this machine: {tmp_path / 'o/a'};" in told
        with at_work(tmp_path / "p/c", "other", tmp_path / "p") as third:
            assert third == []
        with at_work(tmp_path / "p/c", "h", tmp_path / "p") as third:
            assert [" same history is at work" in line for line in third] == [True, True]
    assert list((tmp_path / "cache/nights").iterdir()) == []
    (tmp_path / "cache/nights/left").write_text(f"{tmp_path / 'o/a'}\nh\n{tmp_path / 'o'}")
    with at_work(tmp_path / "o/b", "h", tmp_path / "o") as alone:
        assert alone == [], "one that was killed is not at work"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "file"))
    with at_work(tmp_path / "o/b", "h", tmp_path / "o") as alone:
        assert alone == []


CELL = Cell(0, "first", "one", "default", "instance", ("accuracy",))
FIGURE = FigureVerdict(CELL.name, "accuracy", "AP", "percent", True, "steady", "last-good", 71.0, baseline_value=71.5)
VERDICT = Verdict("n", "N", "b", "2026-11-02T00:00:00", "2026-11-02T01:00:00", "m", "ok", True, (Outcome(CELL, "done"),), (FIGURE,))


def test_a_green_night_shows_its_figures_and_has_no_next_steps(write: Callable[[str], Path], tmp_path: Path) -> None:
    table = short_table(VERDICT)
    assert table.rows == ((CELL.name, "AP", "last-good", "steady", "71.50", "71.00"),)
    nightly = load_nightly(write("suites: [{suite: first.yaml}]"))
    assert next_steps(nightly, nightly.output / "b", VERDICT, ["again"]) == []
    moved = replace(FIGURE, state="regression", difference=Estimate(-0.5))
    many = replace(
        VERDICT, figures=(moved, replace(FIGURE, state="unmeasured"), *(replace(FIGURE, figure=f"AP{k}") for k in range(30)))
    )
    table = short_table(many)
    assert len(table.rows) == 19
    assert table.title == "The other figures (19 of 30; summary.md has all)"


def test_a_red_night_says_what_to_do(write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nightly = load_nightly(write("history: my history\nsuites: [{suite: first.yaml}]"))
    before = nightly.output / "a"
    (before / "runs" / CELL.name).mkdir(parents=True)
    write_night(before, new_night(nightly, "a", "2026-11-01T00:00:00"))
    write_outcome(before, Outcome(CELL, "done", results=("good",)))
    failed = Outcome(replace(CELL, row="two"), "timeout", "ended", log="logs/first/two/default.log")
    verdict = replace(
        VERDICT,
        figures=(replace(FIGURE, state="regression", result="bad", baseline_result="good"),),
        outcomes=(Outcome(CELL, "done", results=("bad",)), failed),
    )
    assert next_steps(nightly, nightly.output / "b", verdict, ["m2fbench", "nightly", "n.yaml", "--night", "b"]) == [
        "m2fbench compare nights/a/runs/first/one/default nights/b/runs/first/one/default: which images lost",
        "m2fbench history accept first/one/default --reason WHY --history 'my history': where the change is as it should be",
        "nights/b/logs/first/two/default.log: what first/two/default wrote",
        "m2fbench nightly n.yaml --night b --retry: runs the 1 that failed again",
    ]


def test_the_log_is_named_as_a_cell_begins_and_its_last_line_shown(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert last_line(log) == ""
    log.write_text("== 2026-11-01 m2fbench run\n")
    assert last_line(log) == ""
    log.write_text("== 2026-11-01 m2fbench run\n3 of 9\r4 of 9\n\n")
    assert last_line(log) == "4 of 9"
    for terminal, shown in ((False, False), (True, True)):
        text = io.StringIO()
        with NightDisplay(Console(file=text, force_terminal=terminal, width=200, color_system=None)) as display:
            display(NightEvent("begin", str(log), cell=CELL, number=1, total=2))
            display(NightEvent("tick", cell=CELL, number=1, total=2, seconds=3.0))
        assert f"[1/2] first/one/default: begins, log {log}" in text.getvalue().replace("\n", "")
        assert ("4 of 9" in text.getvalue()) is shown


def test_a_limit_just_passed_is_told_from_what_passed_it() -> None:
    ended = Ended("memory", -9, 3.0, 312_400_000)
    assert meaning(ended, "", 1, 0.3)[1] == "took 0.3124 GB of memory, more than its limit of 0.3 GB"
