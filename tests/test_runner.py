"""Runs from end to end with a real (random) model: resuming, refusing, limits, bad images, and the real photos."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import killed_at_work, make_checkpoint
from PIL import Image

import m2fbench
from m2fbench.errors import ClassesError, DatasetError, ImageError, StoreError, SuiteError
from m2fbench.models import load as loading
from m2fbench.planning import Event, plan
from m2fbench.suite import load_suite

COCO_SUITE = """
suite: photos
title: photos
task: instance
dataset: {{name: coco_instance, annotations: {truth}, images: {images}}}
protocol: {{min_size: {min_size}, max_size: {max_size}}}
metrics: [coco_ap]
checkpoints: [{{name: tiny, checkpoint: {checkpoint}}}]
"""


def figures(result: m2fbench.RunResult) -> list[tuple[str, str | None, str]]:
    """Every figure to the last digit."""
    return [(m.name, m.category, repr(m.value)) for m in result.measurements]


def test_a_run_leaves_a_complete_directory(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    events: list[Event] = []
    (result,) = m2fbench.run(shapes_suite(4), output=tmp_path / "runs", verify=True, listener=events.append)
    folder = tmp_path / "runs/test_shapes/tiny/default"
    assert result.path == folder / "result.json"
    predictions = json.loads((folder / "predictions.json").read_bytes())
    assert {p["image_id"] for p in predictions} == {1, 2, 3, 4}
    assert set(predictions[0]) == {"image_id", "category_id", "segmentation", "score"}
    table = (folder / "images.csv").read_text().splitlines()
    assert len(table) == 5
    assert table[0].startswith("image_id,height,width,predictions,encode_seconds,forward_seconds,")
    document = json.loads((folder / "result.json").read_bytes())
    assert document["schema_version"] == 2
    assert document["suite"]["sha256"] == m2fbench.load_suite(tmp_path / "shapes.yaml").hash
    assert document["checkpoint"]["parameters"] > 10_000
    assert len(document["checkpoint"]["sha256"]) == 64
    assert document["environment"]["libraries"]["torch"].startswith(torch.__version__.split("+")[0])
    assert document["dataset"]["annotations_sha256"]
    assert document["protocol"]["name"] == "paper"
    assert {m["name"] for m in document["measurements"]} >= {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"}
    assert set(document["timings"]) == {"load", "wait", "forward", "postprocess", "encode"}
    assert m2fbench.read_result(folder / "result.json").value("AP") == result.value("AP")
    assert [e.kind for e in events if e.kind != "image"] == ["check", "start", "load", "score", "done"]
    assert [(e.done, e.total) for e in events if e.kind == "image"] == [(k, 4) for k in range(5)]


@pytest.mark.full
def test_a_limited_run_is_partial_and_the_full_run_continues_it(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(6, "    # no published values\n")
    events: list[Event] = []
    (limited,) = m2fbench.run(suite, output=tmp_path / "runs", limit=2)
    assert limited.status == "partial"
    assert limited.path is not None
    assert limited.path.name == "result-limit-2.json"
    (full,) = m2fbench.run(suite, output=tmp_path / "runs", listener=events.append)
    assert next(e.done for e in events if e.kind == "image") == 2, "the two images of the limited run are not done again"
    (undisturbed,) = m2fbench.run(suite, output=tmp_path / "other")
    assert figures(full) == figures(undisturbed)
    assert full.prediction_key == limited.prediction_key
    assert full.result_key != limited.result_key
    assert full.path is not None
    assert undisturbed.path is not None
    assert (full.path.parent / "predictions.json").read_bytes() == (undisturbed.path.parent / "predictions.json").read_bytes()


def test_a_finished_run_is_scored_again_without_the_model(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = m2fbench.run(shapes_suite(3), output=tmp_path / "runs")
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was loaded again"))
    (second,) = m2fbench.run(shapes_suite(3), output=tmp_path / "runs")
    assert figures(first) == figures(second)
    assert second.checkpoint is not None
    assert first.checkpoint is not None
    assert second.checkpoint["parameters"] == first.checkpoint["parameters"]


@pytest.mark.full
def test_worker_processes_change_nothing(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    (alone,) = m2fbench.run(shapes_suite(5, "workers: 0\n"), output=tmp_path / "a")
    (helped,) = m2fbench.run(shapes_suite(5, "workers: 3\n"), output=tmp_path / "b")
    assert figures(alone) == figures(helped)


@pytest.mark.full
def test_overlapped_post_processing_changes_nothing(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second thread that CUDA runs use, forced on the CPU."""
    from m2fbench import predicting

    (plain,) = m2fbench.run(shapes_suite(5), output=tmp_path / "a")
    original = predicting._finished
    monkeypatch.setattr(predicting, "_finished", lambda *arguments, overlap: original(*arguments, overlap=True))
    (overlapped,) = m2fbench.run(shapes_suite(5), output=tmp_path / "b")
    assert figures(plain) == figures(overlapped)
    assert plain.path is not None
    assert overlapped.path is not None
    assert (plain.path.parent / "predictions.json").read_bytes() == (overlapped.path.parent / "predictions.json").read_bytes()


def test_other_settings_do_not_resume(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(2)
    m2fbench.run(suite, output=tmp_path / "runs")
    with pytest.raises(StoreError, match=r"protocol\.min_size: was 128, is 96.*--fresh"):
        m2fbench.run(suite, output=tmp_path / "runs", overrides=["protocol.min_size=96"])
    (fresh,) = m2fbench.run(suite, output=tmp_path / "runs", overrides=["protocol.min_size=96"], fresh=True)
    assert fresh.protocol is not None
    assert fresh.protocol["min_size"] == 96


def test_another_environment_does_not_resume(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2fbench import runner

    m2fbench.run(shapes_suite(2), output=tmp_path / "runs", limit=1)
    monkeypatch.setattr(runner, "version_of", lambda name: "99.0" if name == "torch" else "1")
    with pytest.raises(StoreError, match=r'libraries\.torch: was .*, is "99\.0"'):
        m2fbench.run(shapes_suite(2), output=tmp_path / "runs")


@pytest.mark.full
def test_variants_and_protocols_run_side_by_side(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    variants = """
variants:
  - {name: paper}
  - {name: eager, attention: eager}
  - {name: half, dtype: bfloat16}
  - {name: plain, protocol: transformers}
  - {name: best, protocol: transformers-best}
"""
    results = m2fbench.run(shapes_suite(3, variants), output=tmp_path / "runs")
    assert [r.variant["name"] for r in results] == ["paper", "eager", "half", "plain", "best"]
    settings = [r.checkpoint["settings"] for r in results if r.checkpoint]
    assert [s["attention"]["backbone"] for s in settings] == ["sdpa", "eager", "sdpa", "sdpa", "sdpa"]
    assert [s["dtype"] for s in settings] == ["float32", "float32", "bfloat16", "float32", "float32"]
    assert results[3].protocol is not None
    assert results[3].protocol["processor"] == "Mask2FormerImageProcessorPil"
    assert len({r.prediction_key for r in results}) == 5


@pytest.mark.full
def test_tolerance_and_published_values(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(3, "")
    text = suite.read_text().replace("}]", ", published: {AP: 50.0}, source: nowhere}]") + "tolerance: {AP: 1.0}\n"
    suite.write_text(text)
    (result,) = m2fbench.run(suite, output=tmp_path / "runs")
    (comparison,) = result.comparisons
    assert comparison.difference == result.value("AP") - 50
    assert comparison.within is False
    assert not result.within_tolerance
    (limited,) = m2fbench.run(suite, output=tmp_path / "runs", limit=2)
    assert limited.comparisons[0].within is None, "a partial result is not checked"
    assert not limited.comparisons[0].comparable


@pytest.mark.full
def test_checkpoints_given_by_hand_keep_published_values_only_where_they_match(
    shapes_suite: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    suite = shapes_suite(2)
    suite.write_text(suite.read_text().replace("}]", ", published: {AP: 50.0}, source: nowhere}]"))
    other = make_checkpoint(
        tmp_path / "tiny-swin", ["disc", "square", "triangle", "star", "ring", "cross", "grass", "sky", "sand", "water"]
    )
    results = m2fbench.run(suite, output=tmp_path / "runs", checkpoints=[str(tiny_checkpoint), str(other), f"{other}/"])
    assert [r.row for r in results] == ["tiny", "tiny-swin", "tiny-swin-2"]
    assert [bool(r.published) for r in results] == [True, False, False]
    with pytest.raises(SuiteError, match="did you mean 'tiny'"):
        m2fbench.run(suite, only=["tyny"])


def test_rows_are_named_by_what_tells_checkpoints_apart() -> None:
    references = [
        "/x/expA/model_final.pth", "/x/expB/model_0004999.pth", "/x/expB/model_final.pth", "https://h/zoo/model_final_94dc52.pkl?token=s3",
        "zoo:coco/instance/Swin-T", "me/mine@v2",
    ]  # fmt: skip
    names = [spec.row.name for spec in plan(load_suite("coco_instance"), references)]
    assert names == ["expA", "expB", "expB-2", "model_final_94dc52.pkl", "Swin-T", "mine"]


def test_a_size_that_is_not_the_checkpoints_own_is_said() -> None:
    from m2fbench.labels import label_set
    from m2fbench.models.checkpoint import Checkpoint
    from m2fbench.models.published import size_note, task_note

    protocol = load_suite("coco_instance").protocol
    checkpoint = Checkpoint("x", Path(), None, "", (), 100, "swin", (), test_size=(640, 2560), test_size_origin="a/config.yaml")
    assert size_note(checkpoint, protocol, "instance") == ("tested at 800/1333, where a/config.yaml says 640/2560",)
    assert size_note(replace(checkpoint, test_size=(800, 1333)), protocol, "instance") == ()
    assert size_note(replace(checkpoint, test_size=None), protocol, "instance") == ()
    assert task_note(checkpoint, "instance") == task_note(replace(checkpoint, task="panoptic"), "instance") == ()
    assert task_note(replace(checkpoint, task="semantic"), "panoptic") == (
        "trained for semantic segmentation, scored on panoptic segmentation",
    )
    # without a config, by classes, task and backbone
    large = {"model_type": "mask2former", "backbone_config": {"model_type": "swin", "embed_dim": 192}}
    ade = replace(checkpoint, test_size=None, labels=label_set("ade20k").names, config=large)
    semantic = load_suite("ade20k_semantic").protocol
    assert size_note(ade, semantic, "semantic") == (
        "tested at 512/2048, where the published settings of ade20k/semantic are 640/2560",
    )
    assert size_note(replace(ade, config=large | {"backbone_config": {"embed_dim": 96}}), semantic, "semantic") == ()
    assert size_note(ade, load_suite("ade20k_panoptic").protocol, "panoptic") == ()
    assert size_note(ade, load_suite("ade20k_instance").protocol, "instance") == (), "on its things, as a panoptic one is tested"


def test_a_row_that_cannot_run_says_why(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(2)
    suite.write_text(suite.read_text().replace("}]", "}, {name: old, unavailable: lost, published: {AP: 1.0}, source: paper}]"))
    ran, lost = m2fbench.run(suite, output=tmp_path / "runs")
    assert ran.status == "complete"
    assert (lost.status, lost.reason, lost.path) == ("unavailable", "lost", None)
    assert np.isnan(lost.comparisons[0].difference)


@pytest.mark.full
def test_score_from_a_run_and_from_a_file(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(4)
    (result,) = m2fbench.run(suite, output=tmp_path / "runs")
    assert result.path is not None
    again = m2fbench.score(suite, result.path.parent, verify=True)
    assert figures(again) == figures(result)
    predictions = result.path.parent / "predictions.json"
    from_file = m2fbench.score(suite, predictions)
    assert figures(from_file) == figures(result)
    with_boxes = [p | {"bbox": [0, 0, 500, 500]} for p in json.loads(predictions.read_bytes())]
    peer = tmp_path / "coco_instances_results.json"
    peer.write_text(json.dumps(with_boxes))
    assert figures(m2fbench.score(suite, peer, verify=True)) == figures(result), "a peer's boxes do not change the areas"


def test_a_limited_run_scores_as_limited(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    (result,) = m2fbench.run(shapes_suite(4), output=tmp_path / "runs", limit=2)
    assert result.path is not None
    again = m2fbench.score(tmp_path / "shapes.yaml", result.path.parent)
    assert again.status == "partial"
    assert figures(again) == figures(result)


def test_what_set_changes_is_not_compared(shapes_suite: Callable[..., Path], tmp_path: Path, cli: Any) -> None:
    suite = shapes_suite(2)
    suite.write_text(suite.read_text().replace("}]", ", published: {AP: 50.0}, source: nowhere}]") + "tolerance: {AP: 1.0}\n")
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", overrides=["protocol.min_size=96"])
    assert result.status == "complete"
    assert result.reason == "changed by --set protocol.min_size=96"
    assert not result.comparisons[0].comparable
    assert result.within_tolerance
    assert result.path is not None
    again = m2fbench.score(suite, result.path.parent)
    assert (again.row, again.variant["name"], again.reason) == ("tiny", "default", result.reason)
    assert not again.comparisons[0].comparable


def test_a_late_row_that_is_wrong_is_found_first(shapes_suite: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(m2fbench.M2FBenchError, match="no such folder"):
        m2fbench.run(shapes_suite(2), output=tmp_path / "runs", checkpoints=[str(tiny_checkpoint), str(tmp_path / "gone")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["_best", "modèle", "模型", "a b", "final.v2"])
def test_any_folder_name_will_do(name: str, shapes_suite: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / name).symlink_to(tiny_checkpoint)
    (result,) = m2fbench.run(shapes_suite(1), output=tmp_path / "runs", checkpoints=[str(tmp_path / name)], limit=1)
    assert result.row.isascii()


@pytest.mark.full
def test_brackets_in_names_are_brackets(shapes_suite: Callable[..., Path], tmp_path: Path, cli: Any) -> None:
    suite = shapes_suite(1)
    suite.write_text(suite.read_text().replace("title: Shapes for tests", "title: '[/b] t [red]x'"))
    outcome = cli("run", suite, "--output", tmp_path / "runs")
    assert outcome.returncode == 0, outcome.stderr
    assert "[/b] t [red]x" in outcome.stdout


def test_classes_that_do_not_fit(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    wrong = make_checkpoint(tmp_path / "animals", ["cat", "dog", "cow", "horse", "sheep", "bear"])
    with pytest.raises(ClassesError, match="not in the checkpoint: disc, square"):
        m2fbench.run(shapes_suite(2), output=tmp_path / "runs", checkpoints=[str(wrong)])


@pytest.fixture
def photo_suite(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """Three noise photos in COCO layout, the second of which is cut off in the middle."""
    rng = np.random.default_rng(0)
    names = ["disc", "square", "triangle", "star", "ring", "cross"]
    truth: dict[str, Any] = {"images": [], "categories": [{"id": k + 1, "name": n} for k, n in enumerate(names)], "annotations": []}
    for k in (1, 2, 3):
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).save(tmp_path / f"{k}.jpg", quality=90)
        truth["images"].append({"id": k, "file_name": f"{k}.jpg", "height": 90, "width": 120})
        box = [10, 10, 60, 10, 60, 60, 10, 60]
        truth["annotations"].append(
            {"id": k, "image_id": k, "category_id": 1, "iscrowd": 0, "area": 2500, "bbox": [10, 10, 50, 50], "segmentation": [box]}
        )
    content = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    suite = tmp_path / "photos.yaml"
    suite.write_text(
        COCO_SUITE.format(truth=tmp_path / "truth.json", images=tmp_path, checkpoint=tiny_checkpoint, min_size=96, max_size=128)
    )
    return suite


def test_a_corrupt_image_stops_with_its_name_and_what_is_done_is_kept(photo_suite: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"2\.jpg: not a readable image .*on_error: skip"):
        m2fbench.run(photo_suite, output=tmp_path / "runs")
    journal = (tmp_path / "runs/photos/tiny/default/journal.jsonl").read_text().splitlines()
    assert [json.loads(line.split("\t")[0])["image_id"] for line in journal] == [1]


def test_a_corrupt_image_can_be_left_out_and_is_counted(photo_suite: Path, tmp_path: Path) -> None:
    (result,) = m2fbench.run(photo_suite, output=tmp_path / "runs", overrides=["on_error=skip"], verify=True)
    assert result.status == "partial"
    assert result.reason == "2 of 3 images"
    assert [s["image_id"] for s in result.skipped] == [2]
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "2.jpg")
    events: list[Event] = []
    (mended,) = m2fbench.run(photo_suite, output=tmp_path / "runs", listener=events.append)
    assert mended.status == "complete"
    assert next(e.done for e in events if e.kind == "image") == 2, "only the mended image is done again"


def test_an_image_that_changed_after_it_was_done_is_refused(photo_suite: Path, tmp_path: Path) -> None:
    m2fbench.run(photo_suite, output=tmp_path / "runs", limit=1)
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "1.jpg")
    with pytest.raises(StoreError, match=r"1 finished images have changed on disk since, the first is .*1\.jpg"):
        m2fbench.run(photo_suite, output=tmp_path / "runs", limit=1)


def test_no_readable_image_at_all_measures_nothing(photo_suite: Path, tmp_path: Path) -> None:
    for k in (1, 3):
        (tmp_path / f"{k}.jpg").write_bytes(b"no image")
    (result,) = m2fbench.run(photo_suite, output=tmp_path / "runs", overrides=["on_error=skip"])
    assert result.reason == "0 of 3 images"
    assert np.isnan(result.value("AP"))


def test_an_image_too_thin_for_the_protocol_is_named(photo_suite: Path, tmp_path: Path) -> None:
    truth = json.loads((tmp_path / "truth.json").read_bytes())
    truth["images"][0] |= {"height": 1, "width": 900}
    truth["annotations"] = []
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    Image.new("RGB", (900, 1)).save(tmp_path / "1.jpg")
    with pytest.raises(ImageError, match=r"1\.jpg: 900x1 pixels are too long and thin"):
        m2fbench.run(photo_suite, output=tmp_path / "runs")


def test_missing_images_are_found_before_the_run(photo_suite: Path, tmp_path: Path) -> None:
    (tmp_path / "3.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 images are missing, the first is .*3\.jpg"):
        m2fbench.run(photo_suite, output=tmp_path / "runs")
    (result,) = m2fbench.run(photo_suite, output=tmp_path / "runs", overrides=["on_error=skip"])
    assert [s["image_id"] for s in result.skipped] == [2, 3]


@pytest.mark.full
def test_real_photos_with_a_local_checkpoint(shared: Path, tmp_path: Path) -> None:
    """57 real photos; what the suite says is what pycocotools says of the predictions it saved."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data = shared / "data/coco_real"
    labels = [c["name"] for c in json.loads((data / "annotations/instances_val2017.json").read_bytes())["categories"]]
    checkpoint = make_checkpoint(tmp_path / "tiny-coco", labels)
    (result,) = m2fbench.run(
        "coco_instance", checkpoints=[str(checkpoint)], data=data, output=tmp_path / "runs",
        overrides=["protocol.min_size=192", "protocol.max_size=320"],
    )  # fmt: skip
    assert result.status == "complete"
    assert result.dataset is not None
    assert result.dataset["scored_images"] == 57
    assert result.path is not None
    truth = COCO(str(data / "annotations/instances_val2017.json"))
    official = COCOeval(truth, truth.loadRes(str(result.path.parent / "predictions.json")), "segm")
    official.evaluate()
    official.accumulate()
    official.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    for name, expected in zip(names, official.stats, strict=True):
        assert result.value(name) == pytest.approx(100 * expected, abs=1e-9), name


@pytest.mark.full
def test_two_runs_at_once_the_second_refuses(shapes_suite: Callable[..., Path], tmp_path: Path, cli: Any) -> None:
    suite, journal = shapes_suite(60), tmp_path / "runs/test_shapes/tiny/default/journal.jsonl"
    command = [sys.executable, "-m", "m2fbench", "run", str(suite), "--output", str(tmp_path / "runs")]
    command += ["--set", "protocol.min_size=640", "--set", "protocol.max_size=960"]  # slow enough to be met still running
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not _lines(journal) and first.poll() is None:
            time.sleep(0.02)
        for extra in ([], ["--fresh"]):
            before = _lines(journal)
            outcome = cli(*command[3:], *extra)
            assert outcome.returncode == 2
            assert "another run is writing here" in outcome.stderr
            assert "Traceback" not in outcome.stderr
            assert _lines(journal) >= before > 0
        assert first.poll() is None, "the first run ended too soon to prove anything"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3])
def test_killed_ten_times_it_ends_with_the_same_numbers(shapes_suite: Callable[..., Path], tmp_path: Path, seed: int) -> None:
    """kill -9 of the whole process group at random moments, wherever the run is then."""
    suite = shapes_suite(100)
    command = [sys.executable, "-m", "m2fbench", "run", str(suite), "--output", str(tmp_path / "killed"), "--device", "cpu"]
    journal = tmp_path / "killed/test_shapes/tiny/default/journal.jsonl"
    rng = random.Random(seed)
    # among the next few images, at whatever point of one
    progress = [killed_at_work(command, journal, rng.randint(1, 6), rng.uniform(0, 0.05)) for _ in range(10)]
    assert progress == sorted(progress), "nothing finished was lost"
    assert progress[-1] > 0
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (undisturbed,) = m2fbench.run(suite, output=tmp_path / "undisturbed", device="cpu")
    killed = m2fbench.read_result(journal.parent / "result.json")
    assert figures(killed) == figures(undisturbed)
    assert undisturbed.path is not None
    assert (journal.parent / "predictions.json").read_bytes() == (undisturbed.path.parent / "predictions.json").read_bytes()
    ids = [json.loads(line.split("\t")[0])["image_id"] for line in journal.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 100, "no finished image was done twice"


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_damaged_truth_is_found_before_the_run(photo_suite: Path, tmp_path: Path) -> None:
    truth = json.loads((tmp_path / "truth.json").read_bytes())
    truth["annotations"][1]["segmentation"] = {"size": [90, 120], "counts": "12"}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(DatasetError, match=r"annotations\[1\]: segmentation: "):
        m2fbench.run(photo_suite, output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
