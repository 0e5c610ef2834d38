"""Panoptic and semantic runs over the built-in scenes: what one forward pass gives, what is kept, and what variants change."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import m2fbench
from m2fbench.datasets.scenes import CATEGORIES, generate
from m2fbench.errors import SuiteError
from m2fbench.models.load import LoadedModel, load

SUITE = """
suite: tasks
title: one task of the shapes
task: {task}
dataset: {{name: shapes, split: val, count: 4}}
protocol: {{min_size: 64, max_size: 96, tta: {{min_sizes: [48, 64, 80], max_size: 160}}}}
metrics: [{metrics}]
checkpoints:
  - name: shapes
    checkpoint: bundled:shapes_tiny
    {more}
workers: 0
"""


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Path]:
    def write(task: str, metrics: str, more: str = "", extra: str = "") -> Path:
        path = tmp_path / "suite.yaml"
        path.write_text(SUITE.format(task=task, metrics=metrics, more=more) + extra)
        return path

    return write


class CountingLoader:
    """The real model, its forward passes counted."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, *arguments: Any) -> LoadedModel:
        model = load(*arguments)

        def forward(pixels: Any) -> Any:
            self.passes += 1
            return model.forward(pixels)

        return replace(model, forward=forward)


def test_one_pass_an_image_gives_every_figure(suite: Callable[..., Path], tmp_path: Path) -> None:
    loader = CountingLoader()
    (result,) = m2fbench.run(
        suite("panoptic", "panoptic_quality, coco_ap, semantic_iou"), output=tmp_path / "runs", verify=True, loader=loader
    )
    assert loader.passes == 4
    for name in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st", "AP_th_pan", "APs_th_pan", "AP50_th_pan", "mIoU_pan", "pixel_accuracy_pan"):
        assert 0 < result.value(name) <= 100, name
    assert np.isnan(result.value("AP")), "a panoptic model's AP goes by its own name"
    assert result.path is not None
    folder = result.path.parent
    names = [f"{k:012d}.png" for k in range(1, 5)]
    assert sorted(p.name for p in (folder / "panoptic").iterdir()) == names
    assert sorted(p.name for p in (folder / "semantic").iterdir()) == names
    document = json.loads((folder / "panoptic.json").read_bytes())
    assert [c["name"] for c in document["categories"]] == [c.name for c in CATEGORIES]
    assert [a["image_id"] for a in document["annotations"]] == [i["id"] for i in document["images"]] == [1, 2, 3, 4]
    assert {e["category_id"] for e in json.loads((folder / "predictions.json").read_bytes())} <= set(range(1, 7)), "things only"
    labels = np.asarray(Image.open(folder / "semantic" / names[0]))
    assert labels.shape == generate(2, 0).ids.shape
    assert labels.max() < len(CATEGORIES)


@pytest.mark.full
def test_only_the_heads_that_metrics_need_are_kept(suite: Callable[..., Path], tmp_path: Path) -> None:
    (result,) = m2fbench.run(suite("panoptic", "panoptic_quality"), output=tmp_path / "runs")
    assert result.path is not None
    folder = result.path.parent
    assert not (folder / "predictions.json").exists()
    assert not (folder / "semantic").exists()
    assert (folder / "panoptic.json").exists()


@pytest.mark.full
def test_a_deleted_map_is_made_again(suite: Callable[..., Path], tmp_path: Path) -> None:
    path, loader = suite("panoptic", "panoptic_quality, semantic_iou"), CountingLoader()
    (first,) = m2fbench.run(path, output=tmp_path / "runs")
    assert first.path is not None
    lost = first.path.parent / "semantic/000000000003.png"
    content = lost.read_bytes()
    lost.unlink()
    (again,) = m2fbench.run(path, output=tmp_path / "runs", loader=loader)
    assert loader.passes == 1
    assert lost.read_bytes() == content
    assert [(m.name, m.category, repr(m.value)) for m in first.measurements] == [
        (m.name, m.category, repr(m.value)) for m in again.measurements
    ]


VARIANTS = "variants: [{name: single}, {name: many, tta: paper}]\n"
PUBLISHED = "published: {mIoU: 50.0}\n    published_variants: {many: {mIoU: 60.0}}\n    source: nowhere"


@pytest.mark.full
def test_augmentation_is_a_variant_with_published_figures_of_its_own(suite: Callable[..., Path], tmp_path: Path) -> None:
    path, loader = suite("semantic", "semantic_iou", PUBLISHED, VARIANTS), CountingLoader()
    single, many = m2fbench.run(path, output=tmp_path / "runs", loader=loader)
    assert loader.passes == 4 + 4 * 6
    assert [c.published for c in single.comparisons] == [50.0]
    assert [c.published for c in many.comparisons] == [60.0]
    assert single.protocol is not None
    assert many.protocol is not None
    assert single.protocol["tta"] is None
    assert many.protocol["tta"] == {"min_sizes": [48, 64, 80], "max_size": 160, "flip": True}
    assert single.value("mIoU") != many.value("mIoU")
    (alone,) = m2fbench.run(path, output=tmp_path / "runs", variants=["many"], loader=loader)
    assert loader.passes == 28, "finished before"
    assert alone.value("mIoU") == many.value("mIoU")


@pytest.mark.parametrize(
    ("task", "metrics", "extra", "message"),
    [
        ("panoptic", "panoptic_quality", VARIANTS, "'task: semantic' and 'protocol.tta' with the variant 'many'"),
        ("instance", "panoptic_quality", "", "expected a metric of instance predictions.*got one of panoptic predictions"),
        ("semantic", "cityscapes_iou", "", "is defined on the dataset cityscapes only, got shapes"),
    ],
)
def test_what_does_not_go_together_is_refused(
    task: str, metrics: str, extra: str, message: str, suite: Callable[..., Path]
) -> None:
    with pytest.raises(SuiteError, match=message):
        m2fbench.load_suite(suite(task, metrics, extra=extra))


def test_unknown_variants_are_refused(suite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"--variant singel: expected one of single, many \(did you mean 'single'\?\)"):
        m2fbench.run(suite("semantic", "semantic_iou", extra=VARIANTS), variants=["singel"], output=tmp_path)
    with pytest.raises(SuiteError, match="published_variants.some: expected a variant's name, single, many, got 'some'"):
        m2fbench.load_suite(suite("semantic", "semantic_iou", PUBLISHED.replace("many", "some"), VARIANTS))


def test_a_row_has_settings_of_its_own(suite: Callable[..., Path], tmp_path: Path) -> None:
    loaded = m2fbench.load_suite(
        suite("semantic", "semantic_iou", "protocol: {min_size: 96, max_size: 128, semantic_resize: after}")
    )
    (result,) = m2fbench.run(loaded, output=tmp_path / "runs", limit=1)
    assert result.protocol is not None
    assert (result.protocol["min_size"], result.protocol["max_size"], result.protocol["semantic_resize"]) == (96, 128, "after")


@pytest.mark.full
@pytest.mark.parametrize("rule", ["present", "union", "all"])
def test_the_suite_says_which_mean_it_is(rule: str, suite: Callable[..., Path], tmp_path: Path) -> None:
    path = suite("semantic", "semantic_iou")
    (result,) = m2fbench.run(path, output=tmp_path / "runs", limit=2, overrides=[f"protocol.mean_iou={rule}"])
    assert result.value("mIoU") == result.value(f"mIoU_{rule}")
    others = {result.value(f"mIoU_{name}") for name in ("present", "union", "all")}
    assert len(others) > 1, "two scenes do not show all classes"
