"""Whole nights. Most have stand-ins for ``m2fbench run`` that write real results at once; the last ones run the real command."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import SHAPES_SUITE

import m2fbench
from m2fbench.errors import HistoryError, NightlyError, UnsupportedError
from m2fbench.history.history import History
from m2fbench.nightly import cells as cells_module
from m2fbench.nightly.endings import CANNOT_RUN_HERE
from m2fbench.nightly.folder import nights_in, read_night, read_outcome
from m2fbench.nightly.judging import judge
from m2fbench.nightly.loading import Nightly, load_nightly
from m2fbench.nightly.matrix import CellPlan
from m2fbench.nightly.night import NightEvent, NightReport, NightRequest, run_night
from m2fbench.nightly.records import Outcome

pytestmark = pytest.mark.full

STAND_IN = textwrap.dedent("""
    import datetime, json, os, pathlib, shutil, sys, time
    behaviour, source, target, suite, row, variant, night = sys.argv[1:]
    target = pathlib.Path(target) / suite / row / variant
    print("does", behaviour, row, flush=True)
    if behaviour == "crash":
        os.abort()
    if behaviour == "mend":
        print("m2fbench: error: a.pkl: not whole; fetch it again"); sys.exit(2)
    if behaviour == "hang":
        time.sleep(600)
    if behaviour == "silent":
        sys.exit(0)
    shutil.copytree(source, target, dirs_exist_ok=True)
    result = json.loads((target / "result.json").read_text())
    result["row"], result["suite"]["name"], result["variant"]["name"] = row, suite, variant
    ended = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=int(night) - 60)  # no two nights in the same second
    result["finished"] = ended.isoformat(timespec="seconds")
    result["timings"]["told_apart_by"] = time.time()
    (target / "result.json").write_text(json.dumps(result))
    sys.exit(1 if behaviour == "outside" else 0)
""")


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The run directory of a real run over four images."""
    folder = tmp_path_factory.mktemp("made")
    suite = folder / "suite.yaml"
    suite.write_text(SHAPES_SUITE.format(count=4, checkpoint=tiny_checkpoint))
    m2fbench.run(suite, output=folder / "runs", device="cpu")
    return folder / "runs/test_shapes/tiny/default"


class Stage:
    """A configuration of cells that do as they are told. does: by row; "good" where nothing is said. begun: rows, as they were begun."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = folder, source
        self.does: dict[str, str] = {}
        self.begun: list[str] = []
        self.nights = 0
        self.events: list[NightEvent] = []

    def write(self, rows: Sequence[str], more: str = "", suite: str = "") -> Nightly:
        checkpoints = ", ".join(f"{{name: {row}, checkpoint: 'bundled:shapes_tiny'}}" for row in rows)
        text = SHAPES_SUITE.format(count=4, checkpoint="x")
        (self.folder / "s.yaml").write_text(text[: text.index("checkpoints:")] + f"checkpoints: [{checkpoints}]\n")
        config = (
            f"nightly: tests\ndashboard: null\nresamples: 100\nrules: {{alpha: 0.05}}\nsuites: [{{suite: s.yaml{suite}}}]\n{more}\n"
        )
        (self.folder / "n.yaml").write_text(config)
        return load_nightly(self.folder / "n.yaml")

    def command(self, one: CellPlan, entry: Any, device: str, output: Path, measure: Any = None) -> list[str]:
        cell = one.cell
        self.begun.append(cell.row)
        return [
            sys.executable, "-S", "-c", STAND_IN, self.does.get(cell.row, "good"), str(self.source), str(output), cell.suite, cell.row, cell.variant,
            str(self.nights),
        ]  # fmt: skip

    def night(self, nightly: Nightly, name: str = "a", **request: Any) -> NightReport:
        self.begun.clear()
        self.events.clear()
        self.nights += 1
        return run_night(nightly, NightRequest(name, **request), self.events.append)


@pytest.fixture
def stage(tmp_path: Path, a_run: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    made = Stage(tmp_path, a_run)
    monkeypatch.setattr(cells_module, "command_of", made.command)
    return made


def states(report: NightReport) -> dict[str, str]:
    return {outcome.cell.row: outcome.state for outcome in report.verdict.outcomes}


def outcomes(report: NightReport) -> dict[str, Outcome]:
    return {outcome.cell.row: outcome for outcome in report.verdict.outcomes}


def test_one_that_fails_does_not_take_the_others_with_it(stage: Stage, tmp_path: Path) -> None:
    stage.does = {"b": "crash", "c": "hang", "d": "mend", "e": "silent", "f": "outside"}
    nightly = stage.write("abcdefg", "budget: {cell_minutes: 0.05}")
    report = stage.night(nightly)
    assert states(report) == {"a": "done", "b": "failed", "c": "timeout", "d": "failed", "e": "failed", "f": "done", "g": "done"}
    assert report.exit_status == 3
    found = outcomes(report)
    assert found["b"].reason == "killed by signal 6 (SIGABRT); its last line: does crash b"
    assert found["c"].reason == "ended after its limit of 0.05 min; its last line: does hang c"
    assert found["d"].reason == "a.pkl: not whole; fetch it again"
    assert found["e"].reason == "ended without an error and without result.json; its log says what it did instead"
    assert (found["f"].exit_status, found["f"].reason) == (1, None)
    assert found["c"].seconds > 1
    log = (report.folder / str(found["d"].log)).read_text()
    assert log.splitlines()[-2:] == ["does mend d", "m2fbench: error: a.pkl: not whole; fetch it again"]
    with History(nightly.history) as history:
        entries = {entry.row: entry.sha256 for entry in history.entries()}
    assert {row: (sha256,) for row, sha256 in entries.items()} == {row: found[row].results for row in "afg"}
    assert json.loads((report.folder / "verdict.json").read_text())["exit_status"] == 3
    assert [(e.number, e.total) for e in stage.events if e.kind == "end"] == [(n, 7) for n in range(1, 8)]


def test_a_finished_night_is_judged_anew_and_retried_where_asked(stage: Stage) -> None:
    stage.does = {"b": "mend"}
    nightly = stage.write("ab")
    first = stage.night(nightly)
    stage.does = {}
    again = stage.night(nightly)
    assert stage.begun == []
    assert "this night is finished; it is judged anew" in stage.events[0].message
    assert "--retry runs the 1 that failed again" in stage.events[0].message
    assert outcomes(again) == outcomes(first)
    assert again.exit_status == 3
    retried = stage.night(nightly, retry=True)
    assert stage.begun == ["b"]
    assert (states(retried), retried.exit_status) == ({"a": "done", "b": "done"}, 0)


def test_an_interrupted_night_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.does = {"b": "hang"}
    nightly = stage.write("abc")

    def interrupt(event: NightEvent) -> None:
        if event.kind == "tick":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_night(nightly, NightRequest("a"), interrupt)
    cell = nightly.cells[1].cell
    left = read_outcome(nightly.output / "a", cell)
    assert left is not None
    assert (left.state, left.log) == ("interrupted", "logs/test_shapes/b/default.log")
    assert left.seconds >= 0.4
    assert read_night(nightly.output / "a").finished is None
    stage.does = {}
    report = stage.night(nightly)
    assert stage.begun == ["b", "c"]
    assert states(report) == {"a": "done", "b": "done", "c": "done"}
    assert outcomes(report)["b"].seconds > left.seconds, "what was interrupted counts"
    assert report.verdict.complete


def test_the_nights_time(stage: Stage) -> None:
    stage.does = {"b": "hang"}
    nightly = stage.write("abcd", "budget: {minutes: 0.06}")
    report = stage.night(nightly)
    assert states(report) == {"a": "done", "b": "no budget", "c": "no budget", "d": "no budget"}
    assert report.exit_status == 3
    found = outcomes(report)
    assert str(found["b"].reason).endswith("as the night's time was over")
    assert (found["c"].reason, found["c"].log) == ("the night's time was over before it began", None)
    stage.does = {}
    assert states(stage.night(nightly)) == states(report), "the same night has no more time"
    stage.night(nightly, "b")
    assert stage.begun[:2] == ["c", "d"], "first those that had no turn"


def test_only_some_cells(stage: Stage) -> None:
    nightly = stage.write("abc")
    report = stage.night(nightly, only=("*/b/*",))
    assert stage.begun == ["b"]
    assert states(report) == {"a": "left out", "b": "done", "c": "left out"}
    assert (report.verdict.complete, report.exit_status) == (True, 0)
    assert report.verdict.notes[0].startswith("2 cells left out by --only; run without --only to finish the night")
    assert {figure.cell for figure in report.verdict.figures} == {"test_shapes/b/default"}
    assert 'skipped message="left out: by --only"' in (report.folder / "junit.xml").read_text()
    assert read_night(report.folder).finished is None
    stage.does = {"a": "mend"}
    assert stage.night(nightly).exit_status == 3
    assert stage.begun == ["a", "c"]
    assert stage.night(nightly, only=("*/b/*",)).exit_status == 0, "the status is that of the chosen cells"
    assert stage.night(nightly).exit_status == 3, "what came of the others is kept"


def test_what_is_wrong_beforehand_fails_its_cells_at_once_and_the_others_run(stage: Stage) -> None:
    nightly = stage.write("ab")
    suite = stage.folder / "s.yaml"
    whole = suite.read_text()
    suite.write_text(whole.replace("name: a, checkpoint: 'bundled:shapes_tiny'", "name: a, checkpoint: ./gone"))
    nightly = load_nightly(nightly.path)
    report = stage.night(nightly)
    assert stage.begun == ["b"]
    assert stage.events[0].kind == "problem"
    assert stage.events[0].message.startswith(f"{suite}:")
    assert ": checkpoints.0.checkpoint: ./gone: no such folder" in stage.events[0].message
    assert (states(report), report.exit_status, report.problems) == ({"a": "failed", "b": "done"}, 3, ())
    assert outcomes(report)["a"].log is None
    assert [event.message.endswith("b/default.log") for event in stage.events if event.kind == "begin"] == [False, True]


def test_a_result_that_cannot_be_added_at_once_is_added_before_judging(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly = stage.write("ab")
    add, calls = History.add, []

    def failing(self: History, places: Sequence[str | Path], **options: Any) -> Any:
        calls.append(places)
        if len(calls) == 1:
            raise HistoryError("the network is away")
        return add(self, places, **options)

    monkeypatch.setattr(History, "add", failing)
    report = stage.night(nightly)
    assert any("not yet in the history: the network is away" in event.message for event in stage.events)
    assert report.exit_status == 0
    with History(nightly.history) as history:
        assert {entry.row for entry in history.entries()} == {"a", "b"}


def test_a_history_that_cannot_be_written_at_the_end_loses_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly = stage.write("ab")

    def full(self: History, places: Sequence[str | Path], **options: Any) -> Any:
        raise HistoryError("no space left on the disk")

    with monkeypatch.context() as patched:
        patched.setattr(History, "add", full)
        with pytest.raises(HistoryError, match="no space left"):
            stage.night(nightly)
    assert stage.begun == ["a", "b"]
    report = stage.night(nightly)
    assert (stage.begun, report.exit_status, report.verdict.complete) == ([], 0, True)
    with History(nightly.history) as history:
        assert {entry.row for entry in history.entries()} == {"a", "b"}


def test_another_nightly_on_the_same_night_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly = stage.write("a")
    stage.night(nightly)
    with (nightly.output / "a" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr("m2fbench.nightly.folder.locked.__wrapped__.__defaults__", (0.0,))
        with pytest.raises(NightlyError, match="another nightly is at work on this night"):
            stage.night(nightly)


def test_the_summary_where_else_it_is_wanted(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    monkeypatch.chdir(tmp_path)
    report = stage.night(stage.write("a"), summary=Path("new/mine.md"))
    text = (report.folder / "summary.md").read_text()
    assert (tmp_path / "new/mine.md").read_text() == text
    assert step.read_text() == f"before\n\n{text}"
    assert tmp_path / "new/mine.md" in report.written
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    failed = stage.night(stage.write("a"))
    assert failed.exit_status == 2
    assert "the job summary cannot be written" in failed.problems[0]


def predictions(run: Path) -> bool:
    return (run / "journal.jsonl").exists() and (run / "predictions.json").exists()


def test_old_predictions_go_but_those_that_are_needed(stage: Stage, tmp_path: Path) -> None:
    nightly = stage.write("ab", "keep: {predictions: 1}")
    run = "runs/test_shapes/{}/default"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "predictions.json").write_text("[]")
    first = stage.night(nightly, "1").folder
    with History(nightly.history) as history:
        history.release("v1", [e.sha256 for e in history.entries() if e.row == "a"])
    (first / run.format("b") / "panoptic").symlink_to(outside, target_is_directory=True)
    (first / "runs/test_shapes/link").symlink_to(outside, target_is_directory=True)
    second = stage.night(nightly, "2").folder
    assert predictions(first / run.format("a")), "a release"
    assert not predictions(first / run.format("b"))
    assert (first / run.format("b") / "result.json").exists()
    assert (first / run.format("b") / "images.csv").exists()
    assert any("of predictions deleted" in event.message for event in stage.events)
    assert predictions(second / run.format("b")), "the night at work"
    assert (outside / "predictions.json").read_text() == "[]"
    assert read_night(first).pruned is None, "it still has some"
    stage.night(nightly, "3")
    assert not predictions(second / run.format("a"))
    assert not predictions(second / run.format("b"))
    assert read_night(second).pruned is not None
    assert [path.name for path, _ in nights_in(nightly.output)] == ["3", "2", "1"]


def test_the_last_good_run_keeps_its_predictions_while_it_is_the_baseline(stage: Stage) -> None:
    """A cell that fails for nights on end is still compared with its last good night when it works again."""
    nightly = stage.write("ab", "keep: {predictions: 1}")
    run = "runs/test_shapes/{}/default"
    first = stage.night(nightly, "1").folder
    stage.does = {"b": "mend"}
    for name in ("2", "3"):
        stage.night(nightly, name)
    assert predictions(first / run.format("b"))
    assert not predictions(first / run.format("a"))
    stage.does = {}
    report = stage.night(nightly, "4")
    (b,) = (f for f in report.verdict.figures if f.cell == "test_shapes/b/default")
    assert (b.state, b.evidence) == ("steady", "paired")


def test_a_second_run_is_made_from_nothing_under_the_same_limits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Path | None] = {}

    def asking(history: History, config: Any, facts: Any, outcomes: Sequence[Outcome], repeat: Any, tell: Any) -> Any:
        stage.begun.clear()
        stage.does = {"b": "hang", "c": "mend"}
        given.update({o.cell.row: repeat(o.cell) for o in outcomes})
        return judge(history, config, facts, outcomes, repeat, tell)

    monkeypatch.setattr("m2fbench.nightly.judging.judge", asking)
    nightly = stage.write("abc", "budget: {cell_minutes: 0.05}")
    report = stage.night(nightly)
    assert given == {"a": report.folder / "repeats/runs/test_shapes/a/default", "b": None, "c": None}
    assert (report.folder / "repeats/runs/test_shapes/a/default/result.json").is_file()
    told = [event.message for event in stage.events if event.kind == "note"]
    assert any(": the second run: timeout: ended after its limit" in message for message in told)
    assert any(": the second run: failed: a.pkl: not whole" in message for message in told)
    with History(nightly.history) as history:
        assert len(history.entries()) == 3, "a second run is evidence, not a night"
    stage.night(nightly)
    assert stage.begun == [], "once a night"
    assert given["a"] is not None
    asked = stage.write("a", "budget: {minutes: 0.0001}")
    stage.night(asked, "late")
    assert given["a"] is None, "no time is left"


def test_what_a_device_cannot_do_is_told_from_a_failure(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """By what ``run`` says of it."""
    suite = tmp_path / "s.yaml"
    suite.write_text(SHAPES_SUITE.format(count=4, checkpoint=tiny_checkpoint) + "variants: [{name: tf32, tf32: true}]\n")
    with pytest.raises(UnsupportedError) as caught:
        m2fbench.run(suite, output=tmp_path / "runs", device="cpu")
    assert str(caught.value).startswith(CANNOT_RUN_HERE)


# the real command


def write_real(folder: Path, checkpoint: Path, **files: tuple[int, str]) -> Path:
    """A configuration of one suite a file; files: name -> number of images, and further keys of its entry."""
    entries = []
    for name, (count, more) in files.items():
        text = SHAPES_SUITE.format(count=count, checkpoint=checkpoint).replace("test_shapes", name)
        (folder / f"{name}.yaml").write_text(text + "workers: 1\n")
        entries.append(f"  - {{suite: {name}.yaml{more}}}\n")
    path = folder / "n.yaml"
    path.write_text(
        f"nightly: real\ndashboard: null\nresamples: 100\nrules: {{alpha: 0.05}}\ndevice: cpu\nsuites:\n{''.join(entries)}"
    )
    return path


def test_a_real_night_with_a_damaged_checkpoint_and_one_that_takes_too_long(
    tmp_path: Path, tiny_checkpoint: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in tiny_checkpoint.iterdir():
        content = file.read_bytes()
        (damaged / file.name).write_bytes(content[: len(content) // 2] if file.suffix == ".safetensors" else content)
    config = write_real(
        tmp_path, tiny_checkpoint, good=(4, ""), broken=(4, ", checkpoints: [./damaged]"), endless=(100_000, ", cell_minutes: 0.15"),
    )  # fmt: skip
    done = cli("nightly", config, "--night", "a", env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 3, done.stdout + done.stderr
    assert "[1/3] good/tiny/default: done in" in done.stdout
    assert "[2/3] broken/damaged/default: failed: ./damaged" in done.stdout
    assert "[3/3] endless/tiny/default: timeout: ended after its limit of 0.15 min" in done.stdout
    verdict = json.loads((tmp_path / "nights/a/verdict.json").read_text())
    assert [outcome["state"] for outcome in verdict["outcomes"]] == ["done", "failed", "timeout"]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_nothing_is_left_running(
    tmp_path: Path, tiny_checkpoint: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    config = write_real(tmp_path, tiny_checkpoint, first=(4, ""), second=(60, ""))
    command = [sys.executable, "-m", "m2fbench", "nightly", str(config), "--night", "a"]
    journal = tmp_path / "nights/a/runs/second/tiny/default/journal.jsonl"
    night = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and night.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= 5:
                break
            time.sleep(0.01)
        family = processes_of(str(tmp_path))
        assert len(family) >= 3, "the night, the supervisor and the run"
    finally:
        night.send_signal(signal.SIGKILL)
        night.wait()
    deadline = time.monotonic() + 10
    while processes_of(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes_of(str(tmp_path))
    kept = journal.read_bytes().count(b"\n")
    assert 5 <= kept < 60
    first = json.loads((tmp_path / "nights/a/cells/first/tiny/default.json").read_text())
    done = cli(*command[3:], env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 cells, 1 done before, 1 to run" in done.stdout
    log = (tmp_path / "nights/a/logs/second/tiny/default.log").read_text()
    assert f"{kept} of 60 images were done before" in log
    assert json.loads((tmp_path / "nights/a/cells/first/tiny/default.json").read_text()) == first
    (undisturbed,) = m2fbench.run(tmp_path / "second.yaml", output=tmp_path / "undisturbed", device="cpu")
    assert undisturbed.path is not None
    assert (journal.parent / "predictions.json").read_bytes() == (undisturbed.path.parent / "predictions.json").read_bytes()


def processes_of(text: str) -> list[int]:
    """Those whose command line has this text."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if text.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def test_ctrl_c_is_said_in_one_line_and_a_dry_run_says_what_is_left(
    tmp_path: Path, tiny_checkpoint: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    config = write_real(tmp_path, tiny_checkpoint, endless=(100_000, ""))
    command = [sys.executable, "-m", "m2fbench", "nightly", str(config), "--night", "a"]
    night = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "nights/a/logs/endless/tiny/default.log"
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    night.send_signal(signal.SIGINT)
    _, errors = night.communicate(timeout=60)
    assert night.returncode == 130
    assert errors == "m2fbench: interrupted; what has ended is kept: the same command resumes\n"
    assert not processes_of(str(tmp_path))
    dry = cli("nightly", config, "--night", "a", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "to be gone on with" in dry.stdout
