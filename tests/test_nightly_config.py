"""A nightly's configuration: what is read, what is refused and where, and the cells and commands that it comes to."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from m2fbench.errors import NightlyError
from m2fbench.nightly.folder import (
    NightFile,
    locked,
    log_path,
    name_of_night,
    new_night,
    nights_in,
    outcome_path,
    read_night,
    read_outcome,
    refuse_changes,
    results_in,
    write_night,
    write_outcome,
)
from m2fbench.nightly.loading import Nightly, load_nightly, schema
from m2fbench.nightly.matrix import chosen, command_of, environment_for, result_files
from m2fbench.nightly.order import left_to_do, planned_night
from m2fbench.nightly.records import Outcome

SUITE = """
suite: {name}
title: Shapes for tests
task: instance
dataset: {{name: shapes, split: val, count: 6}}
protocol: {{min_size: 128, max_size: 192}}
metrics: [coco_ap]
measure: [accuracy, flops]
checkpoints:
  - {{name: one, checkpoint: bundled:shapes_tiny}}
  - {{name: two, checkpoint: ./two}}
  - {{name: lost, unavailable: nobody has it}}
variants: [{{name: plain}}, {{name: half, dtype: bfloat16}}]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A configuration beside two suites, ``first.yaml`` and ``second.yaml``."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(SUITE.format(name=name))

    def make(text: str = "suites: [{suite: first.yaml}]", name: str = "nightly.yaml") -> Path:
        path = tmp_path / name
        path.write_text(f"nightly: tests\n{text}\n")
        return path

    return make


def problem(path: Path) -> str:
    with pytest.raises(NightlyError) as caught:
        load_nightly(path)
    return str(caught.value)


def names(nightly: Nightly) -> list[str]:
    return [one.cell.name for one in nightly.cells]


def test_paths_are_relative_to_the_file(write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("history: ../h\noutput: out\nsuites: [{suite: first.yaml}]")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = load_nightly(path)
    assert (found.history, found.output) == (str(tmp_path.parent / "h"), tmp_path / "out")
    assert found.dashboard == tmp_path / "dashboard"
    assert Path.cwd() == elsewhere
    given = load_nightly(path, history="s3://bucket/h", output=Path("nights"), device="cpu")
    assert (given.history, given.output, given.config.device) == ("s3://bucket/h", elsewhere / "nights", "cpu")
    assert load_nightly(path, history="mine").history == str(elsewhere / "mine"), (
        "what the command line says is relative to where it is run"
    )


def test_the_matrix(write: Callable[..., Path]) -> None:
    found = load_nightly(write("suites: [{suite: first.yaml}, {suite: second.yaml, only: [two], variants: [half]}]"))
    assert names(found) == [
        "first/one/plain", "first/one/half", "first/two/plain", "first/two/half", "first/lost/plain", "first/lost/half", "second/two/half",
    ]  # fmt: skip
    assert [one.unavailable for one in found.cells][3:5] == [None, "nobody has it"]
    measured = {one.cell.name: one.cell.measure for one in found.cells}
    assert measured["first/one/plain"] == ("accuracy", "flops")
    assert measured["first/one/half"] == ("accuracy",), "FLOPs are counted once a row"
    assert measured["second/two/half"] == ("accuracy", "flops")
    only_costs = load_nightly(write("suites: [{suite: first.yaml, measure: flops, only: [one]}]"))
    assert names(only_costs) == ["first/one/plain"]


def test_cells_are_named_as_their_run_directories(write: Callable[..., Path]) -> None:
    text = "suites: [{suite: first.yaml, checkpoints: [zoo:coco/instance/R50, ./a/tiny, ./b/tiny, 'bundled:shapes_tiny'], variants: [plain]}]"
    assert names(load_nightly(write(text))) == ["first/R50/plain", "first/tiny/plain", "first/tiny-2/plain", "first/one/plain"]


def test_the_command_of_a_cell(write: Callable[..., Path], tmp_path: Path) -> None:
    text = (
        "suites: [{suite: first.yaml, checkpoints: [./a/tiny, ./b/tiny], data: photos, limit: 3, set: [workers=0], measure: speed}]"
    )
    found = load_nightly(write(text), device="cpu")
    one = found.cells[2]
    assert one.cell.name == "first/tiny-2/plain"
    command = command_of(one, found.config.suites[0], found.config.device, tmp_path / "runs")
    assert command[0] == sys.executable
    assert command[3:] == [
        "m2fbench", "run", "first.yaml", "--only", "tiny-2", "--variant", "plain", "--checkpoint", "./a/tiny", "--checkpoint", "./b/tiny",
        "--set", "workers=0", "--set", "measure=[speed]", "--data", "photos", "--limit", "3", "--device", "cpu", "--output", str(tmp_path / "runs"),
    ]  # fmt: skip
    assert result_files(one.cell, 3, tmp_path) == [tmp_path / "first/tiny-2/plain/speed-limit-3.json"]
    assert result_files(replace(one.cell, measure=("accuracy", "energy", "flops")), None, tmp_path) == [
        tmp_path / "first/tiny-2/plain/result.json", tmp_path / "first/tiny-2/plain/speed.json", tmp_path / "first/tiny-2/flops.json",
    ]  # fmt: skip


def test_the_dataset_folder_of_the_environment_stays_where_it_is(tmp_path: Path) -> None:
    made = environment_for({"M2FBENCH_DATA": "coco", "HOME": "/h"}, tmp_path, "n5")
    assert (made["M2FBENCH_DATA"], made["HOME"], made["M2FBENCH_NIGHT"]) == (str(tmp_path / "coco"), "/h", "n5")
    assert "M2FBENCH_DATA" not in environment_for({}, tmp_path, "n5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("suites: [{suite: frist.yaml}]", ":2: suites.0.suite: frist.yaml: no such file, and no suite of that name; the shipped suites are"),
        ("suites:\n  - suite: first.yaml\n    only: [one, tow]", ":4: suites.0.only.1: tow: expected one of one, two, lost (did you mean 'two'?)"),
        ("suites:\n  - suite: first.yaml\n    variants: [hlaf]", ":4: suites.0.variants.0: hlaf: expected one of plain, half (did you mean 'half'?)"),
        ("suites:\n  - suite: first.yaml\n    set: [dataset.cuont=4]", ": suites.0.set.0: dataset.cuont: unknown key (did you mean 'count'?)"),
        ("suites: [{suite: first.yaml, set: [dataset]}]", "dataset: expected dotted.key=value"),
        ("suites: [{suite: first.yaml, measure: [fps]}]", "suites.0.measure.0: expected 'accuracy', 'speed', 'flops' or 'energy', got \"fps\""),
        ("suites:\n  - suite: first.yaml\n    figures: [AP, AP55]", ":4: suites.0.figures.1: expected a figure that "
            "the suite's measurements (accuracy, flops) give, got 'AP55' (did you mean 'AP75'?)"),
        ("suites:\n  - suite: first.yaml\n    figures: [fps]", ":4: suites.0.figures.0: expected a figure that "
            "the suite's measurements (accuracy, flops) give, got 'fps'"),
        ("suites: []", ":2: suites: expected at least one, got []"),
        ("", ":1: suites: expected this key, got none"),
        ("suites: [{suite: first.yaml}]\nbuget: {minutes: 3}", ":3: buget: unknown key (did you mean 'budget'?)"),
        ("suites: [{suite: first.yaml}]\nbudget: {minutes: 0}", ":3: budget.minutes: expected"),
        ("suites: [{suite: first.yaml}]\nbudget: {cell_minutes: .inf}", ":3: budget.cell_minutes: expected a finite number"),
        ("suites: [{suite: first.yaml}]\nbaselines: [last-god]", ":3: baselines.0: expected 'last-good', 'published' or 'release:NAME', got"),
        ("suites: [{suite: first.yaml}]\nbaselines: [published, published]", "expected each of 'baselines' once"),
        ("suites: [{suite: first.yaml}]\nresamples: 100", "expected 'resamples' of 2000 or more with 'rules.alpha: 0.001'"),
        ("suites: [{suite: first.yaml}]\nhistory: ${NO_SUCH_THING_HERE}", ":3: history: the environment variable NO_SUCH_THING_HERE is not set"),
        ("suites: [{suite: first.yaml}]\nsuites: []", ":3: suites: given twice"),
        ("suites: [{suite: first.yaml}, {suite: first.yaml, only: [two]}]", "suites.1: expected every cell once, but first/two/plain is"),
        ("title: !!python/object/apply:os.system [ls]\nsuites: [{suite: first.yaml}]", ": not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(write: Callable[..., Path], text: str, said: str) -> None:
    path = write(text)
    found = problem(path)
    assert found.startswith(str(path)), found
    assert said in found


def test_every_problem_is_told_at_once(write: Callable[..., Path]) -> None:
    found = problem(write("suites: [{suite: nothing.yaml}, {suite: first.yaml, only: [x]}, {suite: second.yaml, variants: [y]}]"))
    assert [line.split(": ")[1] for line in found.split("\n")] == ["suites.0.suite", "suites.1.only.0", "suites.2.variants.0"]


def test_problems_of_keys_and_of_suites_are_told_together_in_the_order_of_the_file(write: Callable[..., Path]) -> None:
    path = write(
        "resample: 3\nsuites:\n  - suite: nothing.yaml\n  - {suite: first.yaml, only: [x], limits: 3}\nbaselines: [x]\nresamples: a"
    )
    found = problem(path).split("\n")
    assert [line.removeprefix(f"{path}:").split(": ")[:2] for line in found] == [
        ["2", "resample"], ["4", "suites.0.suite"], ["5", "suites.1.limits"], ["6", "baselines.0"], ["7", "resamples"],
    ]  # fmt: skip


def test_a_misspelt_key_is_told_once(write: Callable[..., Path]) -> None:
    found = problem(write("suits: [{suite: first.yaml}]"))
    assert found.count("\n") == 0
    assert ":2: suits: unknown key (did you mean 'suites'?)" in found
    assert "\n" in problem(write("figurs: 3"))


def test_a_broken_suite_is_told_with_its_own_place(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(SUITE.format(name="first").replace("coco_ap", "coco_pa"))
    assert f"{'first.yaml'}:7: metrics.0: " in problem(write())


def test_a_file_that_is_none(tmp_path: Path) -> None:
    assert problem(tmp_path / "nothing.yaml") == f"{tmp_path / 'nothing.yaml'}: cannot be read: No such file or directory"


def test_the_schema_knows_every_key(write: Callable[..., Path]) -> None:
    document = schema()
    config = load_nightly(write()).config
    assert set(document["properties"]) == set(type(config).model_fields)
    assert document["properties"]["baselines"]["items"]["pattern"]


def test_patterns(write: Callable[..., Path]) -> None:
    cells = load_nightly(write()).cells
    assert chosen(cells, ()) == {one.cell.name for one in cells}
    assert chosen(cells, ["first/*/half", "first/one/plain"]) == {
        "first/one/half",
        "first/two/half",
        "first/lost/half",
        "first/one/plain",
    }
    with pytest.raises(NightlyError, match=r"--only first/oen/plain: expected a cell .*did you mean 'first/one/plain'"):
        chosen(cells, ["first/oen/plain"])


def night(nightly: Nightly, name: str, started: str, **more: Any) -> NightFile:
    return replace(new_night(nightly, name, started), **more)


def keep(nightly: Nightly, found: NightFile) -> Path:
    path = nightly.output / found.night
    path.mkdir(parents=True)
    write_night(path, found)
    return path


def test_a_night_is_read_as_it_was_written(write: Callable[..., Path]) -> None:
    nightly = load_nightly(write())
    found = night(nightly, "a", "2026-11-01T00:00:00+00:00", finished="2026-11-01T01:00:00+00:00")
    path = keep(nightly, found)
    assert read_night(path) == found
    (path / "night.json").write_text('{"night_version": 9}')
    with pytest.raises(NightlyError, match="expected night version 1, got 9; update m2fbench"):
        read_night(path)
    (path / "night.json").write_text('{"night_ver')
    with pytest.raises(NightlyError, match="not the file of a night"):
        read_night(path)
    assert nights_in(nightly.output) == []


def test_todays_name_and_a_night_over_midnight(write: Callable[..., Path]) -> None:
    nightly = load_nightly(write())
    now = datetime(2026, 11, 2, 0, 30, tzinfo=UTC)

    def name() -> str:
        return name_of_night(nightly.output, "tests", now)

    assert name() == "2026-11-02"
    path = keep(nightly, begun := night(nightly, "2026-11-01", (now - timedelta(hours=1)).isoformat()))
    assert name() == "2026-11-01", "it is not finished"
    write_night(path, replace(begun, finished=now.isoformat()))
    assert name() == "2026-11-02"
    write_night(path, replace(begun, started=(now - timedelta(hours=24)).isoformat()))
    assert name() == "2026-11-02", "a day later it is another night"
    write_night(path, replace(begun, nightly="others"))
    assert name() == "2026-11-02"


def test_a_night_goes_on_with_the_configuration_it_began_with(write: Callable[..., Path], tmp_path: Path) -> None:
    def now() -> NightFile:
        return new_night(load_nightly(tmp_path / "nightly.yaml"), "a", "x")

    write("suites: [{suite: first.yaml}]")
    before = NightFile(**json.loads(json.dumps(now().__dict__)) | {"suites": now().suites, "cells": now().cells})
    refuse_changes(tmp_path, before, now())
    write(
        "suites: [{suite: first.yaml, figures: [AP]}]\nbaselines: [published]\nbudget: {cell_minutes: 3}\ntitle: Other\nhistory: elsewhere"
    )
    refuse_changes(tmp_path, before, now())

    for text, said in {
        "suites: [{suite: first.yaml, limit: 4}]": "suites.0.limit was null, is 4",
        "suites: [{suite: first.yaml}]\ndevice: cpu": 'device was "auto", is "cpu"',
        "suites: [{suite: first.yaml}, {suite: second.yaml}]": "suites were 1, are 2",
    }.items():
        write(text)
        with pytest.raises(NightlyError, match="began with another configuration") as caught:
            refuse_changes(tmp_path, before, now())
        assert said in str(caught.value)
    write()
    (tmp_path / "first.yaml").write_text(SUITE.format(name="first").replace("count: 6", "count: 7"))
    with pytest.raises(NightlyError, match=r"the suite first\.yaml has changed"):
        refuse_changes(tmp_path, before, now())


def test_an_outcome_is_read_as_it_was_written(write: Callable[..., Path], tmp_path: Path) -> None:
    cell = load_nightly(write()).cells[0].cell
    outcome = Outcome(cell, "timeout", "ended", 12.5, -9, "logs/x.log", ("ab", "cd"), 123)
    assert read_outcome(tmp_path, cell) is None
    write_outcome(tmp_path, outcome)
    assert read_outcome(tmp_path, cell) == outcome
    assert results_in(tmp_path) == {"first/one/plain": ("ab", "cd")}
    outcome_path(tmp_path, cell).write_text('{"state"')
    assert read_outcome(tmp_path, cell) is None, "the cell is run again"
    assert results_in(tmp_path) == {}


def test_one_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(NightlyError, match="another nightly is at work on this night"),
        locked(tmp_path, patience=0),
    ):
        pass
    with locked(tmp_path, patience=0):
        pass


def test_whose_turn_is_the_longest_ago_comes_first(write: Callable[..., Path]) -> None:
    nightly = load_nightly(write("suites: [{suite: first.yaml, only: [one, two]}]"))
    cells = {one.cell.name.removeprefix("first/"): one.cell for one in nightly.cells}
    tonight = nightly.output / "c"

    def order() -> list[str]:
        return [one.cell.name.removeprefix("first/") for one in left_to_do(nightly, tonight, {}, set(names(nightly)))]

    assert order() == ["one/plain", "one/half", "two/plain", "two/half"], "as configured"
    first = keep(nightly, night(nightly, "a", "2026-11-01T00:00:00+00:00"))
    second = keep(nightly, night(nightly, "b", "2026-11-02T00:00:00+00:00"))
    for name in ("one/plain", "one/half", "two/plain"):
        write_outcome(first, Outcome(cells[name], "done", log="logs/x"))
    write_outcome(first, Outcome(cells["two/half"], "no budget"))
    write_outcome(second, Outcome(cells["two/half"], "timeout", log="logs/x"))
    write_outcome(second, Outcome(cells["one/plain"], "done", log="logs/x"))
    write_outcome(second, Outcome(cells["one/half"], "no budget"))
    write_outcome(second, Outcome(cells["two/plain"], "no budget", log="logs/x"))
    assert order() == ["one/half", "one/plain", "two/plain", "two/half"], (
        "one that hangs every night does not take the others' turn"
    )


def test_a_dry_run_writes_nothing(write: Callable[..., Path]) -> None:
    nightly = load_nightly(write("suites: [{suite: first.yaml, variants: [plain], cell_minutes: 5}]\nbudget: {minutes: 60}"))
    folder = nightly.output / "a"
    planned = planned_night(nightly, folder, {"first/one/plain", "first/lost/plain"}, retry=False)
    assert planned.states == {
        "first/one/plain": "to run", "first/two/plain": "left out by --only", "first/lost/plain": "unavailable: nobody has it",
    }  # fmt: skip
    assert (planned.limits["first/one/plain"], planned.budget) == ("5 min", "60 min in all")
    assert not nightly.output.exists()
    keep(nightly, night(nightly, "a", "x"))
    cell = nightly.cells[0].cell
    write_outcome(folder, Outcome(cell, "timeout", "ended", log=log_path(folder, cell).name))
    everything = set(names(nightly))
    assert planned_night(nightly, folder, everything, retry=False).states[cell.name] == "timeout: ended"
    assert planned_night(nightly, folder, everything, retry=True).states[cell.name] == "to run"
    write_outcome(folder, Outcome(cell, "interrupted"))
    assert planned_night(nightly, folder, everything, retry=False).states[cell.name] == "to be gone on with"


def test_a_configuration_as_yaml_holds_every_default(write: Callable[..., Path]) -> None:
    """What night.json keeps can be read back as a configuration."""
    config = load_nightly(write()).config
    assert type(config).model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    assert yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))) == config.model_dump(mode="json")
