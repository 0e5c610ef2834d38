"""mIoU and its relatives: confusion matrices against hotcoco, each averaging rule against a formula of its own."""

import math
from pathlib import Path
from typing import Any

import hotcoco.semantic
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_cases import ArrayDataset, CityArrays, city_maps, random_maps, write_predictions

from m2fbench import files
from m2fbench.errors import PredictionsError
from m2fbench.formats.label_png import no_class, to_values
from m2fbench.metrics import semantic_iou
from m2fbench.metrics.pixel_counts import pair_counts
from m2fbench.metrics.semantic_iou import SemanticIoU, confusion, summarise
from m2fbench.types import Measurement, ScoringRules

ALLOWED = 1e-9
METRIC = SemanticIoU()


def value(measurements: tuple[Measurement, ...], name: str, category: str | None = None) -> float:
    return next(m.value for m in measurements if (m.name, m.category) == (name, category))


def detectron2(truth: list[np.ndarray], predicted: list[np.ndarray], classes: int) -> dict[str, float]:
    """Its rules written out over pixels: only classes with truth pixels are in a mean."""
    labelled = np.concatenate([t.ravel() for t in truth]).astype(int), np.concatenate([p.ravel() for p in predicted]).astype(int)
    chosen = labelled[0] < classes
    t, p = labelled[0][chosen], labelled[1][chosen]
    ious, accuracies, weights = [], [], []
    for c in sorted(set(t.tolist())):
        both = np.sum((t == c) & (p == c))
        ious.append(both / np.sum((t == c) | (p == c)))
        accuracies.append(both / np.sum(t == c))
        weights.append(np.mean(t == c))
    return {
        "mIoU_present": 100 * np.mean(ious), "mean_accuracy": 100 * np.mean(accuracies),
        "frequency_weighted_IoU": 100 * np.dot(ious, weights), "pixel_accuracy": 100 * np.mean(t == p),
    }  # fmt: skip


def ade_script(truth: list[np.ndarray], predicted: list[np.ndarray], classes: int) -> dict[str, float]:
    """ADE20K's own rules: values from 1, 0 unlabelled, areas by image with a prediction set to 0 where truth is, summed, eps below."""
    inter, union, right, labelled = np.zeros(classes), np.zeros(classes), 0, 0
    for t, p in zip(truth, predicted, strict=True):
        t, p = ((np.where(m == no_class(classes), -1, m.astype(int)) + 1) for m in (t, p))
        right, labelled = right + np.sum((t == p) & (t > 0)), labelled + np.sum(t > 0)
        p = p * (t > 0)
        both = np.bincount((p * (p == t)).ravel(), minlength=classes + 1)[1:]
        areas = np.bincount(p.ravel(), minlength=classes + 1)[1:] + np.bincount(t.ravel(), minlength=classes + 1)[1:]
        inter, union = inter + both, union + areas - both
    mean, accuracy = 100 * float(np.mean(inter / (union + np.spacing(1)))), 100 * right / labelled
    return {"mIoU_all": mean, "pixel_accuracy": accuracy, "challenge_score": (mean + accuracy) / 2}


def score_both(
    folder: Path, maps: dict[Any, tuple[np.ndarray, np.ndarray]], classes: int, rule: Any = "present", values: Any = None
) -> tuple[tuple[Measurement, ...], float]:
    values = range(classes) if values is None else values
    dataset: Any = ArrayDataset({i: t for i, (t, _) in maps.items()}, values)
    other = next(v for v in range(65536) if v not in values)
    predictions = write_predictions(folder, {i: to_values(p, values, other) for i, (_, p) in maps.items()})
    rules = ScoringRules(mean_iou=rule)
    score = METRIC.score(dataset, predictions, list(maps), rules)
    return score, METRIC.verify(dataset, predictions, list(maps), rules, score).difference


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), classes=st.sampled_from([1, 2, 7, 19, 150, 254, 255, 256, 300]))
def test_the_confusion_matrix_is_hotcocos(seed: int, classes: int) -> None:
    truth, predicted = random_maps(np.random.default_rng(seed), classes, (9, 14))
    theirs = hotcoco.semantic.SemanticEval(classes + 1, ignore_index=65535)
    rows, columns = truth.astype(np.uint16), predicted.astype(np.uint16)
    rows[truth == no_class(classes)], columns[predicted == no_class(classes)] = 65535, classes
    theirs.update(rows, columns)
    ours = confusion(truth, predicted, classes)
    assert ours.shape == (classes, classes + 1)
    assert np.array_equal(theirs.confusion()[:classes], ours)
    if classes <= 255:  # maps of the wider type are the same matrix
        assert np.array_equal(ours, confusion(rows, predicted, classes))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    run=st.sampled_from([1, 3, 4, 5, 20]),
    size=st.sampled_from([(1, 1), (1, 40), (40, 1), (12, 40), (0, 3)]),
)
def test_pairs_of_smooth_and_of_noisy_maps_are_counted_alike(seed: int, run: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    first, second = (
        rng.integers(0, 256, (size[0], size[1] // run + 1)).repeat(run, 1)[:, : size[1]].astype(np.uint8) for _ in "ab"
    )
    expected = np.zeros((256, 256), np.int64)
    np.add.at(expected, (first, second), 1)
    assert np.array_equal(pair_counts(first, second), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_index_that_is_no_class_of_the_dataset_is_a_bug(kind: Any) -> None:
    good, bad = np.zeros((2, 2), kind), np.array([[0, 3], [0, 0]], kind)
    for truth, predicted in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="under 3"):
            confusion(truth, predicted, 3)
    with pytest.raises(ValueError, match="one shape"):
        confusion(good, good[:1], 3)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**9), images=st.integers(1, 4), classes=st.sampled_from([2, 7, 19]),
    rule=st.sampled_from(["present", "union", "all"]),
)  # fmt: skip
def test_all_figures_equal_three_independent_programs(
    seed: int, images: int, classes: int, rule: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    maps = {k: random_maps(rng, classes, (8, 11)) for k in range(images)}
    score, difference = score_both(tmp_path_factory.mktemp("case"), maps, classes, rule)
    assert difference <= ALLOWED  # union, and everything else, by hotcoco
    assert value(score, "mIoU") == value(score, f"mIoU_{rule}") or math.isnan(value(score, "mIoU"))
    truth, predicted = [t for t, _ in maps.values()], [p for _, p in maps.values()]
    if all((t == 255).all() for t in truth):
        assert all(math.isnan(m.value) for m in score if m.name != "truth_pixels")
        return
    for name, figure in detectron2(truth, predicted, classes).items():
        assert value(score, name) == pytest.approx(figure, abs=ALLOWED)
    official = ade_script(truth, predicted, classes)
    for name in ("mIoU_all", "pixel_accuracy") + ("challenge_score",) * (rule == "all"):
        assert value(score, name) == pytest.approx(official[name], abs=ALLOWED)


def test_the_three_rules_by_hand(tmp_path: Path) -> None:
    """Class 0: 3 of 4 right, 1 in its place elsewhere no; class 1: 1 of 2; class 2 predicted but nowhere; class 3 in neither."""
    truth = np.array([[0, 0, 0, 0], [1, 1, 255, 255]], np.uint8)
    predicted = np.array([[0, 0, 0, 2], [1, 255, 3, 0]], np.uint8)
    score, difference = score_both(tmp_path, {1: (truth, predicted)}, 4)
    assert difference <= ALLOWED
    expected = {
        "mIoU": (75 + 50) / 2, "mIoU_present": (75 + 50) / 2, "mIoU_union": (75 + 50 + 0) / 3, "mIoU_all": (75 + 50) / 4,
        "pixel_accuracy": 100 * 4 / 6, "mean_accuracy": (75 + 50) / 2, "frequency_weighted_IoU": 75 * 4 / 6 + 50 * 2 / 6,
        "challenge_score": (62.5 + 100 * 4 / 6) / 2,
    }  # fmt: skip
    assert {name: value(score, name) for name in METRIC.names} == pytest.approx(expected)
    assert [value(score, "IoU", f"class {k}") for k in range(4)] == pytest.approx([75, 50, 0, math.nan], nan_ok=True)
    assert [value(score, "accuracy", f"class {k}") for k in range(4)] == pytest.approx([75, 50, math.nan, math.nan], nan_ok=True)
    pixels = [m for m in score if m.name == "truth_pixels"]
    assert [(m.value, m.unit) for m in pixels] == [(4, "pixels"), (2, "pixels"), (0, "pixels"), (0, "pixels")]


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    rng = np.random.default_rng(5)
    maps = [random_maps(rng, 7, (6, 9)) for _ in range(5)]
    parts = sum(confusion(t, p, 7) for t, p in maps)
    whole = confusion(np.stack([t for t, _ in maps]), np.stack([p for _, p in maps]), 7)
    assert np.array_equal(parts, whole)
    assert summarise(whole).figures == summarise(parts).figures


def test_values_of_the_dataset_and_only_the_images_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    maps = {f"frankfurt/{k}": random_maps(rng, 3, (8, 11)) for k in range(5)}
    all_of_them, difference = score_both(tmp_path / "a", maps, 3, values=(7, 8, 300))
    assert difference <= ALLOWED
    dataset: Any = ArrayDataset({i: t for i, (t, _) in maps.items()}, (7, 8, 300))
    predictions = write_predictions(tmp_path / "b", {i: to_values(p, (7, 8, 300), 0) for i, (_, p) in maps.items()})
    assert repr(METRIC.score(dataset, predictions, list(maps)[::-1], ScoringRules())) == repr(all_of_them)
    monkeypatch.setattr(files, "WORKERS", 1)
    monkeypatch.setattr(semantic_iou, "CHUNK", 2)
    assert repr(METRIC.score(dataset, predictions, list(maps), ScoringRules())) == repr(all_of_them)
    first = METRIC.score(dataset, predictions, list(maps)[:1], ScoringRules())
    assert repr(first) == repr(score_both(tmp_path / "c", dict(list(maps.items())[:1]), 3)[0])


def test_no_images_at_all_is_not_measured(tmp_path: Path) -> None:
    score, difference = score_both(tmp_path, {}, 3)
    assert difference == 0
    assert {type(m.value) for m in score} == {float}
    assert all(math.isnan(m.value) for m in score if m.name != "truth_pixels")


def test_verification_sees_a_wrong_figure_and_a_missing_one(tmp_path: Path) -> None:
    truth, predicted = random_maps(np.random.default_rng(3), 4, (8, 11))
    dataset: Any = ArrayDataset({1: truth}, range(4))
    predictions = write_predictions(tmp_path, {1: predicted})
    score = METRIC.score(dataset, predictions, [1], ScoringRules())

    def difference(name: str, wrong: float) -> float:
        changed = [Measurement(m.name, wrong if m.name == name else m.value, m.unit, category=m.category) for m in score]
        return METRIC.verify(dataset, predictions, [1], ScoringRules(), changed).difference

    for name in METRIC.names:
        assert difference(name, value(score, name) + 0.5) == pytest.approx(0.5)
        assert difference(name, math.nan) == math.inf


def test_a_map_of_another_size_is_refused(tmp_path: Path) -> None:
    dataset: Any = ArrayDataset({1: np.zeros((4, 6), np.uint8)}, range(4))
    predictions = write_predictions(tmp_path, {1: np.zeros((6, 4), np.uint8)})
    with pytest.raises(PredictionsError, match=r"000000000001\.png: expected 6x4 pixels as image 1 has, got 4x6"):
        METRIC.score(dataset, predictions, [1], ScoringRules())


@pytest.mark.parametrize("seed", range(3))
def test_cityscapes_is_verified_by_the_official_script_too(seed: int, tmp_path: Path) -> None:
    pytest.importorskip("cityscapesscripts", reason="cityscapesScripts is not installed")
    rng = np.random.default_rng(seed)
    maps = {f"ulm_00000{k}_000019": city_maps(rng, (24, 40)) for k in range(3)}
    dataset: Any = CityArrays({i: m[0] for i, m in maps.items()}, {i: m[1] for i, m in maps.items()})
    predictions = write_predictions(tmp_path, {i: m[2] for i, m in maps.items()})
    rules = ScoringRules(mean_iou="union")
    score = METRIC.score(dataset, predictions, list(maps), rules)
    verification = METRIC.verify(dataset, predictions, list(maps), rules, score)
    assert verification.difference <= ALLOWED
    assert "hotcoco" in verification.evaluator
    assert "evalPixelLevelSemanticLabeling" in verification.evaluator
    wrong = [Measurement(m.name, m.value + (m.name == "mIoU_union"), category=m.category) for m in score]
    assert METRIC.verify(dataset, predictions, list(maps), rules, wrong).difference == pytest.approx(1)


@pytest.mark.full
def test_real_photos_panoptic_truth_scored_against_itself_and_shifted(shared: Path, tmp_path: Path) -> None:
    from PIL import Image

    files = sorted((shared / "data" / "coco_real" / "annotations").glob("panoptic*/*.png"))[:6]
    if not files:
        pytest.skip("no panoptic PNGs in the golden data")
    maps: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    for number, file in enumerate(files):
        red = np.array(Image.open(file))[..., 0]
        truth = np.where(red == 0, 255, red % 133).astype(np.uint8)
        maps[number] = (truth, np.roll(np.where(truth == 255, 0, truth), 7, 1).astype(np.uint8))
    score, difference = score_both(tmp_path, maps, 133)
    assert difference <= ALLOWED
    figures = detectron2([t for t, _ in maps.values()], [p for _, p in maps.values()], 133)
    assert {name: value(score, name) for name in figures} == pytest.approx(figures, abs=ALLOWED)
