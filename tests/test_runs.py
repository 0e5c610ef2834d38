"""Run directories opened again: found at any depth, in their suite's order, under short labels, and never with the wrong dataset."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import m2fbench
from m2fbench.analysis.runs import open_runs, statistics_of
from m2fbench.errors import StoreError
from m2fbench.suite import read_snapshot

pytestmark = pytest.mark.full

VARIANTS = "variants: [{name: z-first}, {name: a-second, protocol: transformers}]\nworkers: 0\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    suite = folder / "suite.yaml"
    suite.write_text(
        "suite: two_variants\ntitle: two variants\ntask: instance\ndataset: {name: shapes, split: val, count: 4}\n"
        "protocol: {min_size: 64, max_size: 96}\nmetrics: [coco_ap]\n"
        f"checkpoints: [{{name: tiny, checkpoint: {tiny_checkpoint}}}]\n" + VARIANTS
    )
    m2fbench.run(suite, output=folder / "runs", overrides=["protocol.detections=50"])
    return folder / "runs"


def test_runs_come_in_the_order_of_their_suite_under_what_differs(runs: Path) -> None:
    found = open_runs([runs])
    assert [run.label for run in found] == ["z-first", "a-second"]
    assert [run.result.variant["name"] for run in found if run.result] == ["z-first", "a-second"]
    assert all(run.problem is None and run.evidence is not None and len(run.evidence.examples) == 4 for run in found)
    (alone,) = open_runs([runs / "two_variants/tiny/z-first/result.json"])
    assert alone.label == "tiny"


def test_a_run_keeps_its_suite_with_the_overrides(runs: Path) -> None:
    suite, data = read_snapshot(runs / "two_variants/tiny/z-first/suite.json")
    assert (suite.suite, suite.overrides, data) == ("two_variants", ("protocol.detections=50",), None)
    assert suite.protocol.detections == 50
    result = m2fbench.read_result(runs / "two_variants/tiny/z-first/result.json")
    assert suite.hash == result.suite["sha256"]


def test_statistics_give_the_figures_of_the_result(runs: Path) -> None:
    import numpy as np

    for run in open_runs([runs]):
        assert run.evidence is not None
        assert run.result is not None
        (found,) = statistics_of(run.evidence)
        summary = found.statistics.summarise(np.ones((1, 4)))
        for name, value in zip(found.statistics.figures, summary.overall[0], strict=True):
            assert value == pytest.approx(run.result.value(found.names[name]), abs=1e-9, nan_ok=True)


def _changed(runs: Path, to: Path, file: str, change: Callable[[Any], None]) -> Path:
    """A copy of the first run with one file changed."""
    import shutil

    folder = to / "two_variants/tiny/z-first"
    shutil.copytree(runs / "two_variants/tiny/z-first", folder)
    document = json.loads((folder / file).read_text())
    change(document)
    (folder / file).write_text(json.dumps(document))
    return folder


def test_another_dataset_is_not_taken_for_the_one_that_was_scored(runs: Path, tmp_path: Path) -> None:
    folder = _changed(runs, tmp_path, "suite.json", lambda d: d["suite"]["dataset"].update(count=5))
    (run,) = open_runs([folder])
    assert run.evidence is None
    assert "images: was 4, is 5" in str(run.problem)
    assert run.result is not None  # its figures are there all the same


def test_a_run_without_its_suite_says_so(runs: Path, tmp_path: Path) -> None:
    folder = _changed(runs, tmp_path, "suite.json", lambda d: d.clear())
    (run,) = open_runs([folder])
    assert run.evidence is None
    assert "run the suite again" in str(run.problem)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_runs_is_said_in_a_line(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    with pytest.raises(StoreError, match="nothing: no (run in it|such folder)"):
        open_runs([folder])


def test_runs_of_two_folders_are_told_apart_by_as_much_of_the_path_as_it_takes(runs: Path, tmp_path: Path) -> None:
    import shutil

    for name in ("monday/runs", "tuesday/runs"):
        shutil.copytree(runs, tmp_path / name)
    rows = [tmp_path / f"{day}/runs/two_variants/tiny/z-first" for day in ("monday", "tuesday")]
    assert [run.label for run in open_runs(rows)] == [
        "monday/runs · two_variants · tiny · z-first",
        "tuesday/runs · two_variants · tiny · z-first",
    ]
