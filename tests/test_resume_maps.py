"""Panoptic and semantic runs that are killed, or whose PNGs are lost or damaged, end as if nothing had happened, or say what did."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import killed_at_work

import m2fbench
from m2fbench.errors import PredictionsError
from m2fbench.planning import Event

SUITE = """
suite: maps
title: Maps for tests
task: {task}
dataset: {{name: shapes, split: val, count: {count}}}
protocol: {{min_size: 128, max_size: 192, object_threshold: 0.1, overlap_threshold: 0.1}}  # so that random weights find something
metrics: [{metrics}]
checkpoints: [{{name: tiny, checkpoint: {checkpoint}}}]
workers: 0
"""
METRICS = {"panoptic": "panoptic_quality, coco_ap, semantic_iou", "semantic": "semantic_iou"}
RUN = "maps/tiny/default"


@pytest.fixture
def maps_suite(tmp_path: Path, tiny_checkpoint: Path) -> Callable[[str, int], Path]:
    def write(task: str, count: int) -> Path:
        path = tmp_path / f"{task}.yaml"
        path.write_text(SUITE.format(task=task, count=count, metrics=METRICS[task], checkpoint=tiny_checkpoint))
        return path

    return write


def prediction_files(run: Path) -> dict[str, bytes]:
    """Everything that is a prediction, by its path in the run directory."""
    found = [*run.glob("p*.json"), *run.glob("panoptic/*"), *run.glob("semantic/*")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in found}


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(("task", "seed"), [("panoptic", 1), ("semantic", 2)])
def test_killed_at_random_it_ends_with_the_same_bytes(
    maps_suite: Callable[[str, int], Path], tmp_path: Path, task: str, seed: int
) -> None:
    count = 60
    suite = maps_suite(task, count)
    (undisturbed,) = m2fbench.run(suite, output=tmp_path / "undisturbed", device="cpu")
    command = [sys.executable, "-m", "m2fbench", "run", str(suite), "--output", str(tmp_path / "killed"), "--device", "cpu"]
    run = tmp_path / "killed" / RUN
    journal = run / "journal.jsonl"
    rng = random.Random(seed)
    progress = [killed_at_work(command, journal, rng.randint(1, 5), rng.uniform(0, 0.05)) for _ in range(3)]
    assert progress == sorted(progress)
    assert 0 < progress[-1] < count
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert undisturbed.path is not None
    expected = prediction_files(undisturbed.path.parent)
    assert len(expected) == (2 + 2 * count if task == "panoptic" else count)
    assert prediction_files(run) == expected, "and nothing half-written is left"
    again = m2fbench.read_result(run / "result.json")
    assert repr(again.measurements) == repr(undisturbed.measurements)
    assert lines(journal) == count, "no finished image was done twice"


@pytest.mark.full
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_a_png_that_is_gone_is_made_again(maps_suite: Callable[[str, int], Path], tmp_path: Path, task: str) -> None:
    suite = maps_suite(task, 3)
    (first,) = m2fbench.run(suite, output=tmp_path, device="cpu")
    run = tmp_path / RUN
    before = prediction_files(run)
    assert len(before) == (8 if task == "panoptic" else 3)
    (run / task / "000000000002.png").unlink()
    with pytest.raises(PredictionsError, match=r"000000000002\.png: no such"):
        m2fbench.score(suite, run)
    events: list[Event] = []
    (again,) = m2fbench.run(suite, output=tmp_path, device="cpu", listener=events.append)
    assert next(e.done for e in events if e.kind == "image") == 2, "only the one is done again"
    assert prediction_files(run) == before
    assert repr(again.measurements) == repr(first.measurements)


@pytest.mark.full
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"x" * 99])
def test_a_damaged_png_is_named(
    maps_suite: Callable[[str, int], Path], tmp_path: Path, task: str, damage: Callable[[bytes], bytes]
) -> None:
    suite = maps_suite(task, 2)
    m2fbench.run(suite, output=tmp_path, device="cpu")
    path = tmp_path / RUN / task / "000000000002.png"
    path.write_bytes(damage(path.read_bytes()))
    for attempt in (lambda: m2fbench.score(suite, tmp_path / RUN), lambda: m2fbench.run(suite, output=tmp_path, device="cpu")):
        with pytest.raises(PredictionsError, match=r"000000000002\.png: not a readable .*PNG") as caught:
            attempt()
        assert "\n" not in str(caught.value)
