"""AP and AR accumulated anew for weighted images, and over a part of the objects, against the official evaluator on such data."""

import contextlib
import copy
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_coco_ap import dataset_of, perturbed_truth, random_case, rle_of

from m2fbench.datasets.coco_instance import CocoInstance
from m2fbench.metrics import coco_files, coco_statistics
from m2fbench.metrics.boundary_ap import BoundaryAP
from m2fbench.metrics.coco_ap import _FIGURES, _PER_CLASS, CocoAP
from m2fbench.metrics.instance_matching import pairs_of
from m2fbench.types import ImageStatistics, Measurement, ObjectSubset, Predictions, ScoringRules

ALLOWED = 1e-9
RULES = ScoringRules()
Json = dict[str, Any]


def opened(folder: Path, truth: Json, results: list[Json]) -> tuple[CocoInstance, Predictions, list[Any]]:
    folder.mkdir(exist_ok=True)
    dataset = dataset_of(folder, truth)
    (folder / "predictions.json").write_text(json.dumps(results))
    return dataset, Predictions(instances=folder / "predictions.json"), [e.image_id for e in dataset.examples()]


def statistics(metric: Any, case: tuple[CocoInstance, Predictions, list[Any]], subset: ObjectSubset | None = None) -> Any:
    return metric.statistics(*case, RULES, subset)


def as_measured(statistics: ImageStatistics, weights: Sequence[float]) -> list[Measurement]:
    """Figures of one weighting, in the order of a score."""
    summary = statistics.summarise(np.array([weights], float).reshape(1, -1))
    found = [Measurement(name, value) for name, value in zip(statistics.figures, summary.overall[0].tolist(), strict=True)]
    for name, plane in zip(statistics.class_figures, summary.by_class[0].tolist(), strict=True):
        found += [Measurement(name, v, category=c) for v, c in zip(plane, statistics.categories, strict=True)]
    return found


def tied_case(seed: int, images: int, string_ids: bool = False) -> tuple[Json, list[Json]]:
    """A random case whose scores take few values, so that many are equal within an image and between images."""
    rng = np.random.default_rng(seed)
    truth, results = random_case(rng, images, string_ids)
    step = rng.choice([2, 5, 100])
    return truth, [r | {"score": round(r["score"] * step) / step} for r in results]


def duplicated(truth: Json, results: list[Json], weights: Sequence[int]) -> tuple[Json, list[Json]]:
    """The same data with each image there as often as its weight says, its copies one after the other."""
    images, annotations, found = [], [], []
    for image, weight in zip(truth["images"], weights, strict=True):
        for number in range(weight):
            name = f"{image['id']}-{number}" if isinstance(image["id"], str) else 100 * image["id"] + number
            images.append(image | {"id": name})
            annotations += [a | {"image_id": name} for a in truth["annotations"] if a["image_id"] == image["id"]]
            found += [r | {"image_id": name} for r in results if r["image_id"] == image["id"]]
    annotations = [a | {"id": k} for k, a in enumerate(annotations, 1)]
    return truth | {"images": images, "annotations": annotations}, found


@pytest.mark.full
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 7), string_ids=st.booleans(), data=st.data())
def test_any_weighting_equals_pycocotools_on_duplicated_images(
    seed: int, images: int, string_ids: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("case")
    truth, results = tied_case(seed, images, string_ids)
    weights = data.draw(st.lists(st.integers(0, 3), min_size=images, max_size=images))
    ours = statistics(CocoAP(), opened(folder / "a", truth, results))
    assert ours.image_ids == tuple(image["id"] for image in truth["images"])
    for chosen in (weights, [1] * images, [int(w > 0) for w in weights]):
        case = opened(folder / "b", *duplicated(truth, results, chosen))
        assert CocoAP().verify(*case, RULES, as_measured(ours, chosen)).difference <= ALLOWED


def test_two_copies_of_an_image_with_equal_scores_are_not_each_prediction_twice(tmp_path: Path) -> None:
    """A hit and a miss of one score: copied, hit, miss, hit, miss, which is precision 2/3 in the end; twice the hit first it would be 1."""
    mask = np.zeros((20, 20), bool)
    mask[:9, :9] = True
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 20}],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": rle_of(mask),
                "area": 81.0,
                "bbox": [0, 0, 1, 1],
            }
        ],
    }
    results = [{"image_id": 1, "category_id": 1, "segmentation": rle_of(m), "score": 0.5} for m in (mask, ~mask)]
    ours = statistics(CocoAP(), opened(tmp_path / "a", truth, results))
    case = opened(tmp_path / "b", *duplicated(truth, results, [2]))
    assert CocoAP().verify(*case, RULES, as_measured(ours, [2])).difference <= ALLOWED
    assert as_measured(ours, [1])[0].value == pytest.approx(100)
    assert as_measured(ours, [2])[0].value == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


def test_of_truth_that_overlaps_equally_the_last_is_taken(tmp_path: Path) -> None:
    """Which leaves the first to the second prediction: taken the other way, that one would find nothing."""
    first, last, between = (np.zeros((40, 40), bool) for _ in range(3))
    first[:, 0:20], last[:, 4:24], between[:, 2:22] = True, True, True
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 40}],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": rle_of(m), "area": 800.0, "bbox": [0, 0, 1, 1]}
            for k, m in enumerate((first, last), 1)
        ],
    }
    results = [{"image_id": 1, "category_id": 1, "segmentation": rle_of(m), "score": s} for m, s in ((between, 0.9), (first, 0.8))]
    case = opened(tmp_path, truth, results)
    ours = as_measured(statistics(CocoAP(), case), [1])
    assert CocoAP().verify(*case, RULES, ours).difference <= ALLOWED
    assert next(m.value for m in ours if m.name == "AP75") == pytest.approx(100)


def test_weighting_many_at_once_equals_one_by_one_in_any_order_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, predictions, ids = opened(tmp_path, *tied_case(5, 9))
    weights = np.random.default_rng(0).poisson(1, (7, 9)).astype(float)
    ours = CocoAP().statistics(dataset, predictions, ids, RULES)
    whole = ours.summarise(weights)
    each = [ours.summarise(row[None]) for row in weights]
    np.testing.assert_array_equal(whole.overall, np.concatenate([s.overall for s in each]))
    np.testing.assert_array_equal(whole.by_class, np.concatenate([s.by_class for s in each]))
    assert whole.by_class.shape == (7, len(_PER_CLASS), 4)
    order = np.random.default_rng(1).permutation(9)
    shuffled = CocoAP().statistics(dataset, predictions, [ids[k] for k in order], RULES)
    np.testing.assert_allclose(shuffled.summarise(weights[:, order]).overall, whole.overall, rtol=0, atol=ALLOWED)
    monkeypatch.setattr(coco_statistics, "BLOCK", 1)
    np.testing.assert_array_equal(ours.summarise(weights).overall, whole.overall)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 8))
def test_each_image_alone(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    case = opened(tmp_path_factory.mktemp("case"), *tied_case(seed, images))
    for metric in (CocoAP(), BoundaryAP()):
        ours = statistics(metric, case)
        np.testing.assert_allclose(ours.per_image(), ours.summarise(np.eye(images)).overall, rtol=0, atol=ALLOWED)


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [2, 0, 3, 1, 0]])
def test_a_weighting_equals_pycocotools_on_duplicated_images(weights: list[int], tmp_path: Path) -> None:
    truth, results = tied_case(7, 5)
    ours = statistics(CocoAP(), opened(tmp_path / "a", truth, results))
    case = opened(tmp_path / "b", *duplicated(truth, results, weights))
    assert CocoAP().verify(*case, RULES, as_measured(ours, weights)).difference <= ALLOWED


def test_the_score_is_the_weighting_with_ones(tmp_path: Path) -> None:
    for metric in (CocoAP(), BoundaryAP()):
        case = opened(tmp_path, *tied_case(11, 12))
        ours = as_measured(statistics(metric, case), [1] * 12)
        score = [m for m in metric.score(*case, RULES) if m.unit == "percent"]
        assert [(m.name, m.category) for m in ours] == [(m.name, m.category) for m in score]
        assert coco_files.largest_difference(ours, score) <= ALLOWED


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**9), data=st.data())
def test_boundary_ap_of_any_weighting(seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("case")
    truth, results = tied_case(seed, 4)
    weights = data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
    ours = statistics(BoundaryAP(), opened(folder / "a", truth, results))
    case = opened(folder / "b", *duplicated(truth, results, weights))
    assert BoundaryAP().verify(*case, RULES, as_measured(ours, weights)).difference <= ALLOWED


@pytest.mark.full
def test_real_photos_weighted_equal_pycocotools(shared: Path, tmp_path: Path) -> None:
    """57 photos, polygons and crowds, resampled; each image a subset of one."""
    truth = json.loads((shared / "data/coco_real/annotations/instances_val2017.json").read_bytes())
    truth["images"].sort(key=lambda image: image["id"])
    results = perturbed_truth(truth, np.random.default_rng(0))
    ours = statistics(CocoAP(), opened(tmp_path / "a", truth, results))
    count = len(truth["images"])
    weights = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count)).tolist()
    case = opened(tmp_path / "b", *duplicated(truth, results, weights))
    assert CocoAP().verify(*case, RULES, as_measured(ours, weights)).difference <= ALLOWED
    assert 5 < as_measured(ours, weights)[0].value < 95
    np.testing.assert_allclose(ours.per_image(), ours.summarise(np.eye(count)).overall, rtol=0, atol=ALLOWED)


def test_degenerate_inputs(tmp_path: Path) -> None:
    truth, results = tied_case(0, 4)
    for metric in (CocoAP(), BoundaryAP()):
        none_found = statistics(metric, opened(tmp_path, truth, []))
        assert none_found.summarise(np.ones((1, 4))).overall[0, 0] == 0
        assert none_found.found_count.sum() == 0
        none_there = statistics(metric, opened(tmp_path, truth | {"annotations": []}, results))
        assert np.isnan(none_there.summarise(np.ones((2, 4))).overall).all()
        assert np.isnan(none_there.per_image()).all()
        nothing = statistics(metric, opened(tmp_path, truth | {"annotations": []}, []))
        assert np.isnan(nothing.summarise(np.ones((1, 4))).by_class).all()
        dataset, predictions, _ = opened(tmp_path, truth, results)
        no_images = metric.statistics(dataset, predictions, [], RULES)
        assert np.isnan(no_images.summarise(np.zeros((2, 0))).overall).all()
        assert no_images.per_image().shape == (0, len(metric.names))
        no_weight = statistics(metric, (dataset, predictions, [e.image_id for e in dataset.examples()]))
        assert np.isnan(no_weight.summarise(np.zeros((1, 4))).overall).all()
        assert no_weight.summarise(np.zeros((0, 4))).overall.shape == (0, len(metric.names))
        with pytest.raises(ValueError, match="whole numbers"):
            no_weight.summarise(np.full((1, 4), 0.5))


def test_what_counts_is_counted(tmp_path: Path) -> None:
    truth, results = tied_case(3, 6)
    ours = statistics(CocoAP(), opened(tmp_path, truth, results))
    for k, image in enumerate(truth["images"]):
        for c, category in enumerate(truth["categories"]):
            there = [a for a in truth["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category["id"])]
            assert ours.truth_count[k, c] == sum(not a["iscrowd"] for a in there)
            found = [r for r in results if (r["image_id"], r["category_id"]) == (image["id"], category["id"])]
            assert ours.found_count[k, c] == len(found)


def test_changed_predictions_are_read_again(tmp_path: Path) -> None:
    truth, results = tied_case(3, 6)
    dataset, predictions, ids = opened(tmp_path, truth, results)
    first = pairs_of(dataset, predictions, ids)
    assert pairs_of(dataset, predictions, ids) is first, "twenty subsets in a row read the files once"
    assert pairs_of(dataset, predictions, ids[:3]).image_ids == tuple(ids[:3])
    (tmp_path / "predictions.json").write_text("[]")
    assert len(pairs_of(dataset, predictions, ids).found) == 0


def official_subset(
    case: tuple[CocoInstance, Predictions, list[Any]], in_truth: Callable[[Json], bool], in_found: Callable[[Json], bool]
) -> dict[tuple[str, str | None], float]:
    """COCOeval with an area that says inside or outside, and one range of areas."""
    from pycocotools.cocoeval import COCOeval

    dataset, predictions, ids = case
    content = copy.deepcopy(coco_files.load_truth(dataset.coco_truth()))
    assert predictions.instances is not None
    with contextlib.redirect_stdout(io.StringIO()):
        known, found = coco_files.pycocotools_pair(content, predictions.instances)
        for annotation in known.anns.values():
            annotation["area"] = 1 if in_truth(annotation) else 3
        for annotation in found.anns.values():
            annotation["area"] = 1 if in_found(annotation) else 3
        evaluation = COCOeval(known, found, "segm")
        evaluation.params.imgIds = ids
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 2]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    parts = {name: part for name, part in _FIGURES.items() if part[2] == 0}
    per_class = [name for name in _PER_CLASS if name in parts]
    return {(m.name, m.category): m.value for m in coco_files.measurements(evaluation.eval, dataset, parts, per_class)}


def assert_equal(ours: ImageStatistics, theirs: dict[tuple[str, str | None], float], figures: Sequence[str]) -> None:
    assert tuple(ours.figures) == tuple(figures)
    measured = as_measured(ours, [1] * len(ours.image_ids))
    expected = [Measurement(m.name, theirs[m.name, m.category], category=m.category) for m in measured]
    assert coco_files.largest_difference(measured, expected) <= ALLOWED


def decoded(annotation: Json) -> np.ndarray:
    import pycocotools.mask

    mask: np.ndarray = pycocotools.mask.decode(annotation["segmentation"]).astype(bool)
    return mask


def at_border(annotation: Json) -> bool:
    mask = decoded(annotation)
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


OF_ANY_AREA = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9), low=st.integers(0, 3000), width=st.integers(0, 6000))
def test_objects_of_some_areas_equal_pycocotools(seed: int, low: int, width: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    case = opened(tmp_path_factory.mktemp("case"), *tied_case(seed, 5))
    ours = statistics(CocoAP(), case, ObjectSubset("area", low, low + width))

    def inside(annotation: Json) -> bool:
        return bool(low <= decoded(annotation).sum() <= low + width)

    assert_equal(ours, official_subset(case, inside, inside), OF_ANY_AREA)
    np.testing.assert_allclose(ours.per_image(), ours.summarise(np.eye(5)).overall, rtol=0, atol=ALLOWED)


@pytest.mark.parametrize("touching", [0, 1])
def test_objects_at_the_border_equal_pycocotools(touching: int, tmp_path: Path) -> None:
    case = opened(tmp_path, *tied_case(8, 12))
    ours = statistics(CocoAP(), case, ObjectSubset("border", touching, touching))

    def inside(annotation: Json) -> bool:
        return at_border(annotation) == touching

    assert_equal(ours, official_subset(case, inside, inside), OF_ANY_AREA)
    assert 0 < ours.truth_count.sum() < statistics(CocoAP(), case).truth_count.sum()
    assert 0 < ours.found_count.sum() < statistics(CocoAP(), case).found_count.sum()


def covered(annotation: Json, everything: Sequence[Json]) -> float:
    """Share of the box of an object that others of its image cover, from the definition."""
    mask = decoded(annotation)
    others = [decoded(a) for a in everything if a["image_id"] == annotation["image_id"] and a["id"] != annotation["id"]]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(np.any([np.zeros_like(mask), *others], 0)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean())


def meets_crowd(annotation: Json, everything: Sequence[Json]) -> float:
    crowds = [a for a in everything if a["image_id"] == annotation["image_id"] and a["iscrowd"]]
    return float(covered(annotation, [a for a in crowds if a["id"] != annotation["id"]]) > 0 or bool(annotation["iscrowd"]))


@pytest.mark.parametrize(
    ("attribute", "low", "high", "of"),
    [("occlusion", 0, 0, covered), ("occlusion", 1e-9, 0.5, covered), ("crowd", 1, 1, meets_crowd), ("crowd", 0, 0, meets_crowd)],
)
def test_objects_that_truth_alone_can_tell_have_recall_only(
    attribute: Any, low: float, high: float, of: Callable[[Json, Sequence[Json]], float], tmp_path: Path
) -> None:
    truth, results = tied_case(8, 12)
    case = opened(tmp_path, truth, results)
    ours = statistics(CocoAP(), case, ObjectSubset(attribute, low, high))

    def inside(annotation: Json) -> bool:
        return low <= of(annotation, truth["annotations"]) <= high

    assert_equal(ours, official_subset(case, inside, lambda annotation: True), ("AR100",))
    assert ours.class_figures == ("AR100",)
    assert 0 < ours.truth_count.sum() < statistics(CocoAP(), case).truth_count.sum()
    assert statistics(BoundaryAP(), case, ObjectSubset(attribute, low, high)) is None


def test_objects_without_any_pixel_are_in_no_share_of_occlusion(tmp_path: Path) -> None:
    truth, results = tied_case(8, 3)
    image = truth["images"][0]
    empty = rle_of(np.zeros((image["height"], image["width"]), bool))
    truth["annotations"].append(
        {
            "id": 99,
            "image_id": image["id"],
            "category_id": 2,
            "iscrowd": 0,
            "segmentation": empty,
            "area": 0.0,
            "bbox": [0, 0, 0, 0],
        }
    )
    case = opened(tmp_path, truth, results)
    shares, _ = pairs_of(*case).surroundings
    assert [math.isnan(s) for s in shares] == [False] * (len(shares) - 1) + [True]
    every = statistics(CocoAP(), case).truth_count.sum()
    assert statistics(CocoAP(), case, ObjectSubset("occlusion", 0, 1)).truth_count.sum() == every - 1
