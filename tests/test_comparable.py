"""When figures stand beside published ones, when not, and what a run directory keeps of how they were made."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import m2fbench
from m2fbench.datasets.export import export
from m2fbench.datasets.shapes import Shapes, ShapesOptions
from m2fbench.errors import PredictionsError, StoreError
from m2fbench.store import ImagePredictions, ImageRecord, RunDirectory

pytestmark = pytest.mark.full

SUITE = """
suite: comparable
title: one task of the shapes
task: semantic
dataset: {name: shapes, split: val, count: 3}
protocol: {min_size: 64, max_size: 96}
metrics: [semantic_iou]
checkpoints:
  - {name: plain, checkpoint: "bundled:shapes_tiny", published: {mIoU: 90.0}, source: nowhere}
  - {name: own, checkpoint: "bundled:shapes_tiny", protocol: {min_size: 96, max_size: 128}, published: {mIoU: 90.0}, source: nowhere}
workers: 0
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "comparable.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def run(suite: Path, tmp_path: Path, bundled_loader: Any) -> Callable[..., m2fbench.RunResult]:
    def call(**options: Any) -> m2fbench.RunResult:
        options = {"only": ["plain"], "output": tmp_path / "runs", "device": "cpu", "loader": bundled_loader} | options
        (result,) = m2fbench.run(suite, **options)
        return result

    return call


def test_the_rule_of_an_miou_is_recorded(run: Callable[..., m2fbench.RunResult], suite: Path) -> None:
    result = run()
    assert result.rules == {"mean_iou": "present"}
    assert result.path is not None
    assert json.loads(result.path.read_bytes())["rules"] == {"mean_iou": "present"}
    assert m2fbench.score(suite, result.path.parent).rules == {"mean_iou": "present"}


def test_scoring_by_another_rule_is_not_comparable(run: Callable[..., m2fbench.RunResult], suite: Path, tmp_path: Path) -> None:
    folder = run().path.parent  # type: ignore[union-attr]
    again = m2fbench.score(suite, folder)
    assert (again.reason, again.comparisons[0].comparable) == (None, True)
    changed = m2fbench.score(suite, folder, overrides=["protocol.mean_iou=all"])
    assert changed.reason == "changed by --set protocol.mean_iou=all"
    assert not changed.comparisons[0].comparable
    other = tmp_path / "other.yaml"
    other.write_text(SUITE.replace("max_size: 96}", "max_size: 96, mean_iou: union}", 1))
    assert m2fbench.score(other, folder).reason == "scored by another rule of averaging than the run"
    other.write_text(SUITE.replace("suite: comparable", "suite: another"))
    assert "scored by another suite, another, than the run's, comparable" in str(m2fbench.score(other, folder).reason)


def test_what_set_changed_is_remembered(run: Callable[..., m2fbench.RunResult], suite: Path) -> None:
    """Through a limited run, and one that only predicts."""
    options: Any = {"overrides": ["protocol.min_size=48"]}
    limited = run(limit=1, **options)
    assert limited.reason == "1 of 3 images"
    assert limited.departure == "changed by --set protocol.min_size=48"
    predicted = run(predict_only=True, **options)
    assert predicted.path is not None
    scored = m2fbench.score(suite, predicted.path.parent)
    assert scored.status == "complete"
    assert scored.reason == "changed by --set protocol.min_size=48"
    assert not scored.comparisons[0].comparable


def test_set_holds_for_rows_with_settings_of_their_own(suite: Path) -> None:
    loaded = m2fbench.load_suite(suite, ["protocol.min_size=80"])
    assert [loaded.protocol_of(row).min_size for row in loaded.checkpoints] == [80, 80]
    assert [loaded.protocol_of(row).max_size for row in loaded.checkpoints] == [96, 128]


def test_other_classes_are_another_dataset(tmp_path: Path, bundled_loader: Any) -> None:
    data = tmp_path / "data"
    export(Shapes(ShapesOptions(count=2), None, "panoptic"), "cityscapes", data)
    options: Any = {"data": data, "output": tmp_path / "runs", "device": "cpu", "loader": bundled_loader}
    (result,) = m2fbench.run(data / "semantic.yaml", **options)
    assert result.path is not None
    text = (data / "semantic.yaml").read_text()
    swapped = tmp_path / "swapped.yaml"
    swapped.write_text(text.replace("person: disc", "person: square").replace("rider: square", "rider: disc"))
    with pytest.raises(PredictionsError, match=r"made for another dataset \(classes\.person: was \"disc\", is \"square\""):
        m2fbench.score(swapped, result.path.parent, data=data)


def test_truth_may_come_later(tmp_path: Path, bundled_loader: Any) -> None:
    """Predictions do not depend on it: a run that only predicted goes on, and is scored."""
    data, aside = tmp_path / "data", tmp_path / "aside"
    export(Shapes(ShapesOptions(count=2), None, "panoptic"), "cityscapes", data)
    shutil.move(data / "gtFine", aside)
    options: Any = {"data": data, "output": tmp_path / "runs", "device": "cpu", "loader": bundled_loader}
    (predicted,) = m2fbench.run(data / "semantic.yaml", predict_only=True, **options)
    assert predicted.path is not None
    folder = predicted.path.parent
    shutil.move(aside, data / "gtFine")
    scored = m2fbench.score(data / "semantic.yaml", folder, data=data)
    assert scored.value("mIoU") > 50
    before = (folder / "journal.jsonl").read_bytes()
    (result,) = m2fbench.run(data / "semantic.yaml", **options)
    assert result.value("mIoU") == scored.value("mIoU")
    assert (folder / "journal.jsonl").read_bytes() == before
    shutil.rmtree(data / "gtFine")
    with pytest.raises(StoreError, match=r"dataset\.annotations_sha256: was .*, is null"):
        m2fbench.run(data / "semantic.yaml", predict_only=True, **options)


def test_a_submission_is_of_the_predictions_that_are_there(run: Callable[..., m2fbench.RunResult]) -> None:
    predicted = run(predict_only=True)
    assert predicted.path is not None
    folder = predicted.path.with_name("submission")
    assert len(list((folder / "semantic").iterdir())) == 3
    run()
    assert folder.is_dir(), "nothing was predicted anew"
    run(fresh=True)
    assert not folder.exists()
    folder.mkdir()
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(StoreError, match=r"submission: is in the way, and no submission of m2fbench's"):
        run(predict_only=True)
    assert (folder / "mine.txt").read_text() == "precious"


def test_a_limited_run_forgets_no_other_images_error(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, {"a": 1}) as store:
        for image_id in (1, 2):
            store.append(ImageRecord(image_id, 4, 5, 0, "stamp", {}, "cannot be read"), ImagePredictions())
        store.forget_errors([1])
        assert list(store.records) == [2]
