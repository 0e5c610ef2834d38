"""The original code's logits through a whole suite and run directory give the official evaluators' figures."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FIXTURES, stub_loader
from PIL import Image

import m2fbench
from m2fbench.models import preprocess as preprocessing
from m2fbench.models import protocols

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

PANOPTIC_FIGURES = {
    "PQ": "PQ", "SQ": "SQ", "RQ": "RQ", "PQ_th": "PQ_th", "PQ_st": "PQ_st",
    "mIoU_pan": "mIoU_present", "mIoU_present_pan": "mIoU_present", "mIoU_union_pan": "mIoU_union", "pixel_accuracy_pan": "pixel_accuracy",
} | {f"{name}_th_pan": name for name in FIGURES}  # fmt: skip

SUITE = """
suite: golden
title: golden logits
task: {task}
dataset: {{name: coco_{task}, annotations: {truth}, images: {images}{more}}}
protocol: {{min_size: {min_size}, max_size: {max_size}}}
metrics: [{metrics}]
checkpoints: [{{name: golden, checkpoint: {checkpoint}}}]
workers: 0
"""


def digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture
def panoptic_labels(shared: Path) -> list[str]:
    categories = json.loads((shared / "data/coco_real/annotations/panoptic_val2017.json").read_bytes())["categories"]
    return [c["name"] for c in sorted(categories, key=lambda c: c["id"])]


@pytest.fixture
def golden_run(
    shared: Path,
    tmp_path: Path,
    checkpoint_folder: Callable[..., Path],
    panoptic_labels: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., m2fbench.RunResult]:
    """Run the golden logits of the 8 photos as a suite; ``spoil`` changes them first."""
    logits, edges = {}, {}
    for path in sorted((shared / "golden").glob("postprocess_0*.npz")):
        with np.load(path) as golden:
            photo = np.asarray(Image.open(shared / "data/coco_real/val2017" / str(golden["image_file"])).convert("RGB"))
            edges[digest(photo)] = int(golden["shortest_edge"]), int(golden["longest_edge"])
            pixels = preprocessing.normalise(golden["resized_uint8"].transpose(1, 2, 0), tuple(golden["padded_size"].tolist()))
            logits[digest(pixels.numpy())] = golden["class_logits"], golden["mask_logits"].astype(np.float32)

    # the golden photos were resized by two settings, a suite has one: each photo is prepared by its own
    monkeypatch.setattr(protocols, "preprocess", lambda image, *_: preprocessing.preprocess(image, *edges[digest(image)]))

    def run(
        spoil: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] = lambda c, m: (c, m), task: str = "instance"
    ) -> m2fbench.RunResult:
        suite = tmp_path / "golden.yaml"
        truth, images, more = shared / "golden/instances_from_panoptic.json", shared / "data/coco_real/val2017", ""
        if task == "panoptic":
            annotations = shared / "data/coco_real/annotations"
            more = f", segments: {annotations / 'panoptic_val2017'}, instances: {truth}"
            truth = _only_golden(annotations / "panoptic_val2017.json", shared, tmp_path / "panoptic.json")
        folder = checkpoint_folder(panoptic_labels)
        metrics = "coco_ap" if task == "instance" else "panoptic_quality, coco_ap, semantic_iou"
        suite.write_text(SUITE.format(
            task=task, truth=truth, images=images, more=more, metrics=metrics, checkpoint=folder, min_size=224, max_size=288,
        ))  # fmt: skip
        loader = stub_loader(lambda pixels: spoil(*logits[digest(pixels.numpy())]))
        (result,) = m2fbench.run(suite, output=tmp_path / "runs", verify=True, loader=loader)
        return result

    return run


@pytest.mark.full
def test_golden_logits_give_the_official_figures(golden_run: Any, shared: Path) -> None:
    result = golden_run()
    expected = json.loads((shared / "golden/expected_metrics.json").read_bytes())["metrics"]
    for name in FIGURES:
        assert result.value(name) == pytest.approx(expected[name], abs=1e-6), name
    assert result.verified["coco_ap"]["largest_difference"] <= 1e-9
    assert result.status == "complete"


def _only_golden(source: Path, shared: Path, target: Path) -> Path:
    """The panoptic truth of the eight golden photos."""
    document = json.loads(source.read_bytes())
    ids = json.loads((shared / "golden/expected_metrics.json").read_bytes())["image_ids"]
    document["images"] = [i for i in document["images"] if i["id"] in ids]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]
    target.write_text(json.dumps(document))
    return target


@pytest.mark.full
def test_one_panoptic_pass_gives_all_the_official_figures(golden_run: Any, shared: Path) -> None:
    """PQ, mIoU and AP of the same golden logits, as the paper prints them of a panoptic model."""
    result = golden_run(task="panoptic")
    expected = json.loads((shared / "golden/expected_metrics.json").read_bytes())["metrics"]
    for name, official in PANOPTIC_FIGURES.items():
        assert result.value(name) == pytest.approx(expected[official], abs=1e-6), name
    counted = [m for m in result.measurements if m.name == "truth_segments" and m.value > 0]
    assert len([m for m in result.measurements if m.name == "PQ" and m.category and m.measured]) == expected["classes"]
    assert 0 < len(counted) <= expected["classes"]
    assert set(result.verified) == {"panoptic_quality", "coco_ap", "semantic_iou"}
    assert "forward" in result.timings


@pytest.mark.full
def test_real_photos_are_analysed_as_they_were_scored(golden_run: Any, shared: Path) -> None:
    """Statistics of the golden predictions accumulate to the official figures, and parts of them can be looked at."""
    from m2fbench.analysis.runs import open_runs, statistics_of
    from m2fbench.analysis.subsets import disaggregate

    (run,) = open_runs([golden_run(task="panoptic").path])
    assert run.evidence is not None, run.problem
    expected = json.loads((shared / "golden/expected_metrics.json").read_bytes())["metrics"]
    seen = {}
    for found in statistics_of(run.evidence):
        values = found.statistics.summarise(np.ones((1, 8))).overall[0]
        seen |= {found.names[name]: value for name, value in zip(found.statistics.figures, values, strict=True)}
    for name, official in PANOPTIC_FIGURES.items():
        assert seen[name] == pytest.approx(expected[official], abs=1e-6), name
    parts = disaggregate(run.evidence, resamples=20).subsets
    sizes = {s.subset: s.figures["AP_th_pan"].value for s in parts if s.attribute == "object size" and s.head == "instance"}
    for subset, official in (("small", "APs"), ("medium", "APm"), ("large", "APl")):
        assert sizes[subset] == pytest.approx(expected[official], abs=1e-6)


@pytest.mark.full
def test_a_shifted_class_mapping_fails(golden_run: Any, shared: Path) -> None:
    """The figures above can fail: one class further, hardly anything is right."""
    spoiled = golden_run(lambda classes, masks: (np.roll(classes, 1, axis=1), masks))
    assert spoiled.value("AP") < 20


@pytest.mark.full
def test_a_flipped_mask_fails(golden_run: Any) -> None:
    spoiled = golden_run(lambda classes, masks: (classes, np.ascontiguousarray(masks[:, :, ::-1])))
    assert spoiled.value("AP") < 20


def test_fixture_through_a_whole_suite(tmp_path: Path, checkpoint_folder: Callable[..., Path]) -> None:
    """The small committed fixture, with the original's own outputs as truth: every mask is found, so AP is 100."""
    with np.load(FIXTURES / "postprocess_coco_instance_80.npz") as golden:
        height, width = golden["output_size"].tolist()
        rles = [json.loads(str(r)) for r in golden["instance_rles"]]
        found = sorted(
            zip(golden["instance_scores"].tolist(), golden["instance_classes"].tolist(), rles, strict=True), key=lambda x: -x[0]
        )
        logits = golden["class_logits"], golden["mask_logits"].astype(np.float32)
        edges = int(golden["shortest_edge"]), int(golden["longest_edge"])
    names = [f"class {k:02d}" for k in range(80)]
    ids = [3 * k + 7 for k in range(80)]  # ids with gaps, as COCO's own
    best = {}
    for _, category, rle in found:  # the best detection of each class is its one true instance
        best.setdefault(category, rle)
    truth = {
        "images": [{"id": 5, "file_name": "blank.png", "height": height, "width": width}],
        "categories": [{"id": i, "name": n} for i, n in zip(ids, names, strict=True)],
        "annotations": [
            {"id": k, "image_id": 5, "category_id": ids[c], "iscrowd": 0, "segmentation": r, "bbox": [0, 0, 1, 1], "area": 2000}
            for k, (c, r) in enumerate(best.items(), 1)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    Image.new("RGB", (width, height)).save(tmp_path / "blank.png")
    suite = tmp_path / "golden.yaml"
    suite.write_text(
        SUITE.format(
            task="instance",
            more="",
            metrics="coco_ap",
            truth=tmp_path / "truth.json",
            images=tmp_path,
            checkpoint=checkpoint_folder(names),
            min_size=edges[0],
            max_size=edges[1],
        )
    )
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", verify=True, loader=stub_loader(lambda pixels: logits))
    assert result.value("AP") == pytest.approx(100)
    assert result.value("AR100") == pytest.approx(100)
    (spoiled,) = m2fbench.run(
        suite, output=tmp_path / "spoiled", loader=stub_loader(lambda pixels: (np.roll(logits[0], 1, axis=1), logits[1]))
    )
    assert spoiled.value("AP") < 50


def test_stub_logits_have_the_models_form() -> None:
    """What the stub returns is what a real model's forward returns."""
    model = stub_loader(lambda pixels: (np.zeros((3, 5), np.float32), np.zeros((3, 8, 8), np.float32)))(None, None, "cpu")
    classes, masks = model.forward(torch.zeros(1, 3, 32, 32))
    assert classes.shape == (3, 5)
    assert masks.shape == (3, 8, 8)
