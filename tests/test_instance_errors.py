"""Error types, curves, calibration and confusion of instances, against tidecv, hotcoco, COCO's own figures and plain loops."""

import json
import math
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from conftest import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_coco_ap import dataset_of, random_case

from m2fbench.analysis import tide
from m2fbench.analysis.curves import calibration, instance_confusion, precision_recall, precision_recall_by_class
from m2fbench.analysis.findings import ErrorFindings
from m2fbench.analysis.instance_errors import instance_errors
from m2fbench.analysis.runs import Evidence
from m2fbench.metrics.coco_ap import CocoAP
from m2fbench.metrics.instance_matching import EXCUSED, pairs_of
from m2fbench.suite import load_suite
from m2fbench.types import Predictions, ScoringRules

MAIN = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
Json = dict[str, Any]


def evidence_of(folder: Path, truth: Json, results: list[Json], suite: str = "shapes_instance") -> Evidence:
    folder.mkdir(exist_ok=True)
    dataset = dataset_of(folder, truth)
    (folder / "predictions.json").write_text(json.dumps(results))
    predictions = Predictions(instances=folder / "predictions.json")
    return Evidence(load_suite(suite), dataset, predictions, tuple(dataset.examples()), None)


def confused_case(seed: int, images: int, string_ids: bool = False) -> tuple[Json, list[Json]]:
    """A random case in which every third prediction is of some other class, and no two scores are equal."""
    rng = np.random.default_rng(seed)
    truth, results = random_case(rng, images, string_ids)
    for result, place in zip(results, rng.permutation(len(results)), strict=True):
        result["score"] = (int(place) + 1) / (len(results) + 1)
        if rng.random() < 0.3:
            result["category_id"] = int(rng.choice([2, 5, 9, 11]))
    return truth, results


def costs(found: ErrorFindings) -> dict[str, float]:
    return {share.name: share.cost for share in found.shares}


def counted(found: ErrorFindings) -> dict[str, float | None]:
    return {share.name: share.count for share in found.shares}


@pytest.mark.parametrize("number", [0, 1])
def test_errors_are_tidecvs(number: int, tmp_path: Path) -> None:
    """Counts and costs of the original package, which is no dependency: its figures are kept with the data."""
    case = json.loads((FIXTURES / "tide.json").read_bytes())["cases"][number]
    found = instance_errors(evidence_of(tmp_path, case["truth"], case["results"]))
    assert (found.head, found.figure) == ("instance", "AP50")
    assert found.value == pytest.approx(case["ap50"], abs=1e-9)
    assert costs(found) == pytest.approx(case["cost"], abs=1e-9)
    number_of = counted(found)
    assert {name: number_of[name] for name in MAIN} == case["count"]
    assert number_of["FP"] == sum(case["count"][name] for name in MAIN if name != "Miss")
    assert all(share.definition for share in found.shares)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 7), string_ids=st.booleans())
def test_errors_are_hotcocos_once_crowds_are_left_out(
    seed: int, images: int, string_ids: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Crowd regions excuse predictions and do nothing else: without both, hotcoco finds the same errors; over the classes ours have the
    same mean."""
    folder = tmp_path_factory.mktemp("case")
    truth, results = confused_case(seed, images, string_ids)
    evidence = evidence_of(folder, truth, results)
    found = instance_errors(evidence)
    theirs = hotcoco_errors(folder, *without_crowds(evidence, truth, results))
    with_truth = {a["category_id"] for a in truth["annotations"] if not a["iscrowd"]}
    assert len(found.by_class) == len(with_truth)
    if not with_truth:
        assert math.isnan(found.value)
        assert all(math.isnan(cost) for cost in costs(found).values())
        return
    assert found.value == pytest.approx(100 * theirs["ap_base"], abs=1e-9)
    assert costs(found) == pytest.approx({name: 100 * gain for name, gain in theirs["delta_ap"].items()}, abs=1e-9)
    number_of = counted(found)
    assert {name: number_of[name] for name in MAIN} == theirs["counts"]
    for name in ("FP", *(name for name in MAIN if name != "Miss")):
        mean = float(np.mean([gains[name] for gains in found.by_class.values()]))
        assert max(0.0, mean) == pytest.approx(costs(found)[name], abs=1e-9)


def without_crowds(evidence: Evidence, truth: Json, results: list[Json]) -> tuple[Json, list[Json]]:
    """The case without crowd regions and the predictions that they excuse, ids as numbers."""
    pairs = pairs_of(evidence.dataset, evidence.predictions, evidence.image_ids)
    excused = pairs.candidates[pairs.match(pairs.crowd[None])[0][0, 0] == EXCUSED]
    gone = set(pairs.score[excused].tolist())  # no two are equal
    numbers = {image["id"]: k for k, image in enumerate(truth["images"], 1)}
    images = [image | {"id": numbers[image["id"]]} for image in truth["images"]]
    annotations = [a | {"image_id": numbers[a["image_id"]]} for a in truth["annotations"] if not a["iscrowd"]]
    return truth | {"images": images, "annotations": annotations}, [
        r | {"image_id": numbers[r["image_id"]]} for r in results if r["score"] not in gone
    ]


def hotcoco_errors(folder: Path, truth: Json, results: list[Json]) -> Json:
    (folder / "alone.json").write_text(json.dumps(results))
    known = hotcoco.COCO(truth)
    evaluation = hotcoco.COCOeval(known, known.load_res(str(folder / "alone.json")), "segm")
    evaluation.evaluate()
    errors: Json = evaluation.tide_errors()
    return errors


def test_what_is_not_found_at_all_is_missed(tmp_path: Path) -> None:
    truth, _ = confused_case(0, 4)
    found = instance_errors(evidence_of(tmp_path, truth, [], "shapes_panoptic"))
    there = sum(not a["iscrowd"] for a in truth["annotations"])
    assert (found.value, found.figure) == (0, "AP50_th_pan")
    assert counted(found) == {**dict.fromkeys(("Cls", "Loc", "Both", "Dupe", "Bkg", "FP"), 0), "Miss": there, "FN": there}
    assert all(math.isnan(gains["Miss"]) for gains in found.by_class.values()), "nothing is left of the class"


@pytest.mark.parametrize("kind", ["no truth", "nothing", "no images"])
def test_degenerate_inputs(kind: str, tmp_path: Path) -> None:
    truth, results = confused_case(0, 4)
    evidence = evidence_of(tmp_path, truth | {"annotations": []}, results if kind == "no truth" else [])
    if kind == "no images":
        evidence = Evidence(evidence.suite, evidence.dataset, evidence.predictions, (), None)
    found = instance_errors(evidence)
    assert math.isnan(found.value)
    assert all(math.isnan(cost) for cost in costs(found).values())
    assert counted(found)["Bkg"] == (len(results) if kind == "no truth" else 0)
    assert not found.by_class
    assert precision_recall(evidence) == ()
    assert precision_recall_by_class(evidence) == {}
    assert math.isnan(calibration(evidence).error) == (kind != "no truth")
    assert np.sum(instance_confusion(evidence, score=0).matrix) == (len(results) if kind == "no truth" else 0)


@pytest.mark.parametrize("string_ids", [False, True])
def test_ap_is_the_mean_of_its_curve(string_ids: bool, tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, *confused_case(4, 12, string_ids))
    score = CocoAP().score(evidence.dataset, evidence.predictions, evidence.image_ids, ScoringRules())
    overall = {m.name: m.value for m in score if m.category is None}
    curves = precision_recall(evidence)
    assert [c.name for c in curves] == ["IoU 0.50", "IoU 0.75", "IoU 0.50 to 0.95"]
    for curve, figure in zip(curves, ("AP50", "AP75", "AP"), strict=True):
        assert 100 * np.mean(curve.y) == pytest.approx(overall[figure], abs=1e-9)
        assert (curve.x[0], curve.x[-1], len(curve.x)) == (0, 1, 101)
        assert (np.diff(curve.y) <= 1e-12).all()
    each = precision_recall_by_class(evidence)
    expected = {m.category: m.value for m in score if m.name == "AP50" and m.category is not None and m.measured}
    assert {name: ap for name, (_, ap) in each.items()} == pytest.approx(expected, abs=1e-9)
    assert all(100 * np.mean(curve.y) == pytest.approx(ap) for curve, ap in each.values())


def test_calibration_is_the_share_of_the_right_in_every_bin(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, *confused_case(4, 12))
    found = calibration(evidence)
    pairs = pairs_of(evidence.dataset, evidence.predictions, evidence.image_ids)
    outcome = np.zeros(len(pairs.found), int)
    outcome[pairs.candidates] = pairs.match(pairs.crowd[None])[0][0, 0]
    counting = outcome != EXCUSED
    gaps = []
    for k, part in enumerate(found.bins):
        chosen = counting & (np.minimum((pairs.score * 10).astype(int), 9) == k)
        assert (part.low, part.high, part.count) == (pytest.approx(k / 10), pytest.approx((k + 1) / 10), chosen.sum())
        assert part.confidence == pytest.approx(pairs.score[chosen].mean())
        assert part.accuracy == pytest.approx((outcome[chosen] == 1).mean())
        gaps.append(abs(part.confidence - part.accuracy))
    assert found.error == pytest.approx(np.average(gaps, weights=[b.count for b in found.bins]))
    assert found.largest == pytest.approx(max(gaps))


def test_an_empty_bin_has_no_accuracy_and_scores_that_are_no_probabilities_no_calibration(tmp_path: Path) -> None:
    truth, results = confused_case(4, 6)
    low = calibration(evidence_of(tmp_path, truth, [r | {"score": r["score"] / 2} for r in results]))
    assert math.isnan(low.bins[-1].accuracy)
    assert low.bins[-1].count == 0
    beyond = calibration(evidence_of(tmp_path, truth, [r | {"score": 3 * r["score"]} for r in results]))
    assert beyond.bins == ()
    assert math.isnan(beyond.error)
    assert "outside 0 to 1" in beyond.definition


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**9), string_ids=st.booleans(), score=st.sampled_from([0, 0.5]))
def test_confusion_is_as_defined(seed: int, string_ids: bool, score: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    truth, results = confused_case(seed, 5, string_ids)
    found = instance_confusion(evidence_of(tmp_path_factory.mktemp("case"), truth, results), score=score)
    np.testing.assert_array_equal(found.matrix, confusion_by_hand(truth, results, score))
    assert found.categories == ("c2", "c5", "c9", "c11")


def confusion_by_hand(truth: Json, results: list[Json], score: float) -> np.ndarray:
    import pycocotools.mask

    places = {category["id"]: k for k, category in enumerate(truth["categories"])}
    matrix = np.zeros((len(places) + 1, len(places) + 1))
    for image in truth["images"]:
        free = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        chosen = [r for r in results if r["image_id"] == image["id"] and r["score"] >= score]
        for result in sorted(chosen, key=lambda r: -r["score"]):
            masks = [a["segmentation"] for a in free]
            iou = pycocotools.mask.iou([result["segmentation"]], masks, [0] * len(free))[0] if free else np.zeros(1)
            row = places[free.pop(int(iou.argmax()))["category_id"]] if iou.max() >= 0.5 else -1
            matrix[row, places[result["category_id"]]] += 1
        for annotation in free:
            matrix[places[annotation["category_id"]], -1] += 1
    return matrix


@pytest.mark.parametrize(
    ("right", "truths", "expected"),
    [([], 3, 0), ([False], 3, 0), ([True], 1, 1), ([True, False, True], 2, (51 + 50 * 2 / 3) / 101), ([], 0, math.nan)],
)
def test_average_precision_of_one_ranking(right: list[bool], truths: int, expected: float) -> None:
    assert tide.average_precision(np.array(right, bool), truths) == pytest.approx(expected, nan_ok=True)
