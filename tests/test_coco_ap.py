"""COCO AP against the official pycocotools, all twelve figures and every class, on random, degenerate and real inputs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2fbench.datasets.coco_instance import CocoInstance, CocoOptions
from m2fbench.errors import PredictionsError
from m2fbench.formats.coco_results import read_results
from m2fbench.formats.rle import decode_counts, segmentation_problems
from m2fbench.metrics.coco_ap import CocoAP
from m2fbench.types import Measurement, Predictions, ScoringRules

ALLOWED = 1e-9
FIGURES = 12 + 4 * (7 + 1)  # overall, and of each of four classes; the last is truth_instances
ONE = {"size": [1, 1], "counts": [0, 1]}
Json = dict[str, Any]


def dataset_of(folder: Path, truth: Json) -> CocoInstance:
    (folder / "truth.json").write_text(json.dumps(truth))
    return CocoInstance(CocoOptions(annotations=str(folder / "truth.json"), images=str(folder)), None)


def score_both(
    folder: Path, truth: Json, results: list[Json], image_ids: list[Any] | None = None
) -> tuple[tuple[Measurement, ...], float]:
    """Our score, and its largest difference from pycocotools'."""
    dataset = dataset_of(folder, truth)
    path = folder / "predictions.json"
    path.write_text(json.dumps(results))
    ids = image_ids if image_ids is not None else [e.image_id for e in dataset.examples()]
    metric, predictions = CocoAP(), Predictions(instances=path)
    score = metric.score(dataset, predictions, ids, ScoringRules())
    verification = metric.verify(dataset, predictions, ids, ScoringRules(), score)
    assert verification.evaluator.startswith("pycocotools 2.")
    return score, verification.difference


def value(score: tuple[Measurement, ...], name: str, category: str | None = None) -> float:
    return next(m.value for m in score if (m.name, m.category) == (name, category))


def rle_of(mask: np.ndarray) -> Json:
    rle = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def random_case(rng: np.random.Generator, images: int, string_ids: bool = False) -> tuple[Json, list[Json]]:
    """Boxes of all sizes as truth, some of them crowds; predictions are shifted truth, duplicates and pure invention."""
    names = [f"photo-{k}" if string_ids else 10 * k + 3 for k in range(images)]
    categories = [{"id": i, "name": f"c{i}"} for i in (2, 5, 9, 11)]
    truth: Json = {"images": [], "categories": categories, "annotations": []}
    results: list[Json] = []
    for name in names:
        height, width = rng.integers(40, 200, 2).tolist()
        truth["images"].append({"id": name, "file_name": f"{name}.png", "height": height, "width": width})
        for _ in range(rng.integers(0, 6)):
            mask = np.zeros((height, width), bool)
            top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
            mask[top : top + rng.integers(3, 120), left : left + rng.integers(3, 120)] = True
            category = int(rng.choice([2, 5, 9]))  # category 11 never has truth
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": name, "category_id": category, "iscrowd": int(rng.random() < 0.15),
                "segmentation": rle_of(mask), "area": float(mask.sum()), "bbox": [0, 0, 1, 1],
            })  # fmt: skip
            for _ in range(rng.integers(0, 3)):
                moved = np.roll(mask, rng.integers(-5, 6, 2), (0, 1))
                results.append(
                    {
                        "image_id": name,
                        "category_id": category,
                        "segmentation": rle_of(moved),
                        "score": round(float(rng.random()), 2),
                    }
                )
        if rng.random() < 0.5:
            empty = np.zeros((height, width), bool)
            results.append({"image_id": name, "category_id": int(rng.choice([2, 11])), "segmentation": rle_of(empty), "score": 0.0})
    return truth, results


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 8), string_ids=st.booleans())
def test_random_inputs_equal_pycocotools(
    seed: int, images: int, string_ids: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    truth, results = random_case(np.random.default_rng(seed), images, string_ids)
    _, difference = score_both(tmp_path_factory.mktemp("case"), truth, results)
    assert difference <= ALLOWED


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_subset_of_images_equals_pycocotools(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    truth, results = random_case(np.random.default_rng(seed), 6)
    ids = [image["id"] for image in truth["images"]][:3]
    score, difference = score_both(tmp_path_factory.mktemp("case"), truth, results, ids)
    assert difference <= ALLOWED
    assert len(score) == FIGURES


def test_no_images_at_all_is_not_measured(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(0), 4)
    score, difference = score_both(tmp_path, truth, results, [])
    assert difference == 0
    assert all(math.isnan(m.value) for m in score if m.unit == "percent")
    assert all(m.value == 0 for m in score if m.name == "truth_instances")
    assert len(score) == FIGURES


def test_verification_looks_at_empty_predictions_too(tmp_path: Path) -> None:
    truth, _ = random_case(np.random.default_rng(0), 4)
    dataset = dataset_of(tmp_path, truth)
    (tmp_path / "predictions.json").write_text("[]")
    ids = [e.image_id for e in dataset.examples()]
    predictions, rules = Predictions(instances=tmp_path / "predictions.json"), ScoringRules()
    wrong = [Measurement(m.name, 0.5, category=m.category) for m in CocoAP().score(dataset, predictions, ids, rules)]
    assert CocoAP().verify(dataset, predictions, ids, rules, wrong).difference > 0.1


@pytest.mark.parametrize("string_ids", [False, True])
def test_truth_instances_are_those_of_the_scored_images_without_crowds(string_ids: bool, tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(2), 6, string_ids)
    ids = [image["id"] for image in truth["images"]][:4]
    score, _ = score_both(tmp_path, truth, results, ids)
    for category in truth["categories"]:
        there = [
            a for a in truth["annotations"] if a["category_id"] == category["id"] and a["image_id"] in ids and not a["iscrowd"]
        ]
        found = next(m for m in score if (m.name, m.category) == ("truth_instances", category["name"]))
        assert (found.value, found.unit) == (len(there), "count")
        assert math.isnan(value(score, "AP", category["name"])) == (not there)


def test_degenerate_inputs(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(0), 4)
    nothing_found, difference = score_both(tmp_path, truth, [])
    assert difference == 0
    assert value(nothing_found, "AP") == 0
    nothing_there, difference = score_both(tmp_path, truth | {"annotations": []}, results)
    assert difference == 0
    assert math.isnan(value(nothing_there, "AP")), "no truth at all: nothing can be measured, which is not 0"
    empty, difference = score_both(tmp_path, truth | {"annotations": []}, [])
    assert difference == 0
    assert math.isnan(value(empty, "AR100"))


def test_a_class_without_truth_is_nan_and_an_empty_area_too(tmp_path: Path) -> None:
    mask = np.ones((20, 20), bool)
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 20}],
        "categories": [{"id": 1, "name": "seen"}, {"id": 2, "name": "unseen"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": rle_of(mask),
                "area": 400.0,
                "bbox": [0, 0, 20, 20],
            }
        ],
    }
    score, difference = score_both(tmp_path, truth, [{"image_id": 1, "category_id": 1, "segmentation": rle_of(mask), "score": 0.5}])
    assert difference <= ALLOWED
    assert value(score, "AP") == pytest.approx(100)
    assert value(score, "AP", "seen") == pytest.approx(100)
    assert math.isnan(value(score, "AP", "unseen"))
    assert math.isnan(value(score, "APl")), "no large object: not measured"


def test_areas_are_of_masks_not_of_boxes(tmp_path: Path) -> None:
    """A thin diagonal has a large box and a small mask: it is a small object, for truth and prediction alike."""
    mask = np.eye(150, dtype=bool)
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 150, "width": 150}],
        "categories": [{"id": 1, "name": "line"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": rle_of(mask),
                "area": 150.0,
                "bbox": [0, 0, 150, 150],
            }
        ],
    }
    score, difference = score_both(tmp_path, truth, [{"image_id": 1, "category_id": 1, "segmentation": rle_of(mask), "score": 0.5}])
    assert difference <= ALLOWED
    assert value(score, "APs") == pytest.approx(100)
    assert math.isnan(value(score, "APl"))


def perturbed_truth(truth: Json, rng: np.random.Generator) -> list[Json]:
    """Predictions made from real truth: moved, cut, dropped, doubled, of another class, and scored at random."""
    from pycocotools.coco import COCO

    official = COCO()
    official.dataset = truth
    official.createIndex()
    categories = [c["id"] for c in truth["categories"]]
    results = []
    for annotation in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            mask = official.annToMask(annotation).astype(bool)
            mask = np.roll(mask, rng.integers(-6, 7, 2), (0, 1))
            if rng.random() < 0.2:
                mask[: rng.integers(1, mask.shape[0])] = False
            category = annotation["category_id"] if rng.random() < 0.85 else int(rng.choice(categories))
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": category,
                    "segmentation": rle_of(mask),
                    "score": float(rng.random()),
                }
            )
    return results


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
def test_real_photos_with_perturbed_truth_equal_pycocotools(seed: int, shared: Path, tmp_path: Path) -> None:
    """57 photos, polygons and crowds: all twelve figures and every class to 1e-9."""
    truth = json.loads((shared / "data/coco_real/annotations/instances_val2017.json").read_bytes())
    assert sum(a["iscrowd"] for a in truth["annotations"]) == 7
    results = perturbed_truth(truth, np.random.default_rng(seed))
    score, difference = score_both(tmp_path, truth, results)
    assert difference <= ALLOWED
    assert 5 < value(score, "AP") < 95


def uncompressed(result: Json) -> Json:
    """The same mask with its run lengths as numbers, which foreign files may hold."""
    flat = np.r_[0, pycocotools.mask.decode(result["segmentation"]).T.ravel(), 0]
    changes = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.r_[0, changes, len(flat) - 2])
    return result | {"segmentation": {"size": result["segmentation"]["size"], "counts": runs.tolist()}}


def test_uncompressed_results_score_the_same(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(3), 5)
    score, _ = score_both(tmp_path, truth, results)
    again, difference = score_both(tmp_path, truth, [uncompressed(r) for r in results])
    assert difference <= ALLOWED
    assert str(again) == str(score)


def test_verification_can_fail(tmp_path: Path) -> None:
    truth, results = random_case(np.random.default_rng(3), 5)
    dataset = dataset_of(tmp_path, truth)
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(results))
    ids, predictions = [e.image_id for e in dataset.examples()], Predictions(instances=path)
    score = CocoAP().score(dataset, predictions, ids, ScoringRules())
    path.write_text(json.dumps(results[1:]))
    assert CocoAP().verify(dataset, predictions, ids, ScoringRules(), score).difference > 1e-3


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": 1}, "expected a JSON list"),
        ([3], "entry 0: expected an object"),
        ([{"image_id": 3}], "expected the key 'category_id'"),
        ([{"image_id": 4, "category_id": 2, "segmentation": {}, "score": 1}], "image 4 is not in the dataset"),
        ([{"image_id": 3, "category_id": 0, "segmentation": {}, "score": 1}], "category 0 is not in the dataset"),
        ([{"image_id": 3, "category_id": 2, "segmentation": ONE, "score": "high"}], "expected a finite number as score"),
        ([{"image_id": 3, "category_id": 2, "segmentation": ONE, "score": float("nan")}], "expected a finite number as score"),
        ([{"image_id": 3, "category_id": 2, "segmentation": ONE, "score": 10**400}], "expected a finite number as score"),
        ([{"image_id": [3], "category_id": 2, "segmentation": ONE, "score": 1}], "is not in the dataset"),
        ([{"image_id": 3, "category_id": True, "segmentation": ONE, "score": 1}], "category True is not in the dataset"),
    ],
)
def test_foreign_results_are_checked(entries: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(PredictionsError, match=message):
        read_results(path, {3: (4, 5)}, {2, 5})


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 4], "counts": [20]}, "expected an encoding of size"),
        ({"size": [4, 5], "counts": [19]}, "add up to 4 x 5 pixels, got 19"),
        ({"size": [4, 5], "counts": [30, -10]}, "add up to 4 x 5 pixels"),
        ({"size": [4, 5], "counts": ""}, "add up to 4 x 5 pixels, got 0"),
        ({"size": [4, 5], "counts": "zzzz"}, "not a run-length encoding|add up"),
        ({"size": [4, 5], "counts": "ü"}, "not a run-length encoding"),
        ({"size": [4, 5], "counts": None}, "expected run lengths"),
        ({"size": [4, 5]}, "expected run lengths"),
        ({}, "expected an encoding of size"),
        ([], "expected a run-length encoding or polygons"),
        ([[]], "expected polygons of x, y pairs"),
        ([[1, 2, 3, 4, 5]], "expected polygons of x, y pairs"),
        ([[1, 2, 3, 4, 5, "6"]], "expected finite coordinates"),
        (None, "expected a run-length encoding or polygons"),
        ("abc", "expected a run-length encoding or polygons"),
    ],
)
def test_damaged_masks_are_refused_not_scored_as_others(segmentation: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": 3, "category_id": 2, "segmentation": segmentation, "score": 1}]))
    with pytest.raises(PredictionsError, match=f"entry 0: segmentation: .*({message})"):
        read_results(path, {3: (4, 5)}, {2})


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1)), min_size=1, max_size=6), st.integers(0, 10**9))
def test_run_lengths_are_those_of_the_official_tool(shapes: list[tuple[int, int, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [rng.random((height, width)) < share for height, width, share in shapes]
    rles = [rle_of(mask) for mask in masks]
    lengths, per_mask, broken = decode_counts([rle["counts"] for rle in rles])
    assert not broken.any()
    for mask, runs in zip(masks, np.split(lengths, np.cumsum(per_mask)[:-1]), strict=True):
        flat = np.repeat(np.arange(len(runs)) % 2, runs)
        np.testing.assert_array_equal(flat.reshape(mask.shape[::-1]).T, mask)
    assert list(segmentation_problems((rle, mask.shape) for rle, mask in zip(rles, masks, strict=True))) == [None] * len(masks)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5), st.integers(0, 5))
def test_any_text_is_a_mask_or_a_problem(texts: list[str], place: int) -> None:
    """One bad encoding spoils neither its neighbours nor the check."""
    good = rle_of(np.eye(4, 5, dtype=bool))
    masks: list[Any] = [{"size": [4, 5], "counts": text} for text in texts]
    masks.insert(min(place, len(masks)), good)
    problems = list(segmentation_problems((m, (4, 5)) for m in masks))
    assert len(problems) == len(masks)
    assert problems[masks.index(good)] is None


def test_boxes_in_foreign_results_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": 3, "category_id": 2, "bbox": [0, 0, 9, 9], "segmentation": ONE, "score": 1}]))
    assert read_results(path, {3: (1, 1)}, {2}) == [{"image_id": 3, "category_id": 2, "segmentation": ONE, "score": 1.0}]
