"""Boundary AP: the library that computes it and the definition that checks it, against each other and against erosion by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_coco_ap import dataset_of, perturbed_truth, random_case, rle_of, uncompressed

from m2fbench.metrics.boundary_ap import BoundaryAP, boundary
from m2fbench.types import Measurement, Predictions, ScoringRules

pytest.importorskip("faster_coco_eval", reason="boundary AP is computed by faster-coco-eval")

ALLOWED = 1e-6
Json = dict[str, Any]


def score_both(
    folder: Path, truth: Json, results: list[Json], image_ids: list[Any] | None = None
) -> tuple[tuple[Measurement, ...], float]:
    dataset = dataset_of(folder, truth)
    path = folder / "predictions.json"
    path.write_text(json.dumps(results))
    ids = [e.image_id for e in dataset.examples()] if image_ids is None else image_ids
    metric, predictions = BoundaryAP(), Predictions(instances=path)
    score = metric.score(dataset, predictions, ids, ScoringRules())
    return score, metric.verify(dataset, predictions, ids, ScoringRules(), score).difference


def value(score: Sequence[Measurement], name: str, category: str | None = None) -> float:
    return next(m.value for m in score if (m.name, m.category) == (name, category))


@settings(deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 120), st.integers(1, 120))
def test_the_boundary_is_what_erosion_takes_away(seed: int, height: int, width: int) -> None:
    """As the definition has it: pad by one, erode by 3x3 as often as the distance is, subtract."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.choice([0, 0.5, 0.97, 0.999, 1])
    distance = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
    eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), distance)[1:-1, 1:-1]
    np.testing.assert_array_equal(boundary(mask), mask & ~eroded)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 6), string_ids=st.booleans())
def test_random_inputs_equal_the_definition(
    seed: int, images: int, string_ids: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    truth, results = random_case(np.random.default_rng(seed), images, string_ids)
    score, difference = score_both(tmp_path_factory.mktemp("case"), truth, results)
    assert difference <= ALLOWED
    assert len(score) == 6 + 4 * 3


def test_a_subset_of_images_equals_the_definition(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(1), 6)
    some = [image["id"] for image in truth["images"]][:3]
    score, difference = score_both(tmp_path, truth, results, some)
    assert difference <= ALLOWED
    alone = {k: [r for r in v if r.get("image_id", r["id"]) in some] if k != "categories" else v for k, v in truth.items()}
    assert str(score_both(tmp_path, alone, [r for r in results if r["image_id"] in some])[0]) == str(score)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_real_photos_with_perturbed_truth_equal_the_definition(seed: int, shared: Path, tmp_path: Path) -> None:
    """57 photos, polygons and crowds: every figure and every class."""
    truth = json.loads((shared / "data/coco_real/annotations/instances_val2017.json").read_bytes())
    results = perturbed_truth(truth, np.random.default_rng(seed))
    score, difference = score_both(tmp_path, truth, results)
    assert difference <= ALLOWED
    assert 3 < value(score, "boundary_AP") < 95


def test_degenerate_inputs(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(0), 4)
    nothing_found, difference = score_both(tmp_path, truth, [])
    assert (difference, value(nothing_found, "boundary_AP")) == (0, 0)
    nothing_there, difference = score_both(tmp_path, truth | {"annotations": []}, results)
    assert difference == 0
    assert math.isnan(value(nothing_there, "boundary_AP"))
    no_images, difference = score_both(tmp_path, truth, results, [])
    assert difference == 0
    assert all(math.isnan(m.value) for m in no_images)


def single(mask: np.ndarray, crowd: int = 0) -> Json:
    height, width = mask.shape
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [{
            "id": 1, "image_id": 1, "category_id": 1, "iscrowd": crowd, "segmentation": rle_of(mask), "area": float(mask.sum()),
            "bbox": [0, 0, 1, 1],
        }],
    }  # fmt: skip


def test_a_slip_costs_more_at_the_boundary_than_in_the_mask(tmp_path: Path) -> None:
    """A square of 100 moved by 4 pixels: mask IoU 0.92, boundary IoU 0.28 where the boundary is 6 wide (image of 200 x 200)."""
    mask, moved = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    mask[50:150, 50:150], moved[54:154, 50:150] = True, True
    near, near_moved = boundary(mask), boundary(moved)
    iou = (near & near_moved).sum() / (near | near_moved).sum()
    assert near.sum() == 100**2 - 88**2
    result = {"image_id": 1, "category_id": 1, "segmentation": rle_of(moved), "score": 0.5}
    score, difference = score_both(tmp_path, single(mask), [result])
    assert difference <= ALLOWED
    reached = sum(iou >= t for t in np.linspace(0.5, 0.95, 10))
    assert 0 < reached < 9
    assert value(score, "boundary_AP") == pytest.approx(10 * reached)
    assert math.isnan(value(score, "boundary_APs"))


def test_uncompressed_results_score_the_same(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(3), 5)
    score, _ = score_both(tmp_path, truth, results)
    again, difference = score_both(tmp_path, truth, [uncompressed(r) for r in results])
    assert difference <= ALLOWED
    assert str(again) == str(score)


def test_verification_can_fail(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(3), 5)
    score, _ = score_both(tmp_path, truth, results)
    dataset = dataset_of(tmp_path, truth)
    wrong = [Measurement(m.name, m.value + 1, category=m.category) for m in score]
    answer = BoundaryAP().verify(
        dataset,
        Predictions(instances=tmp_path / "predictions.json"),
        [e.image_id for e in dataset.examples()],
        ScoringRules(),
        wrong,
    )
    assert answer.difference == pytest.approx(1)
