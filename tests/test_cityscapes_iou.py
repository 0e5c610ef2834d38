"""The Cityscapes figures against the official script itself, on random official files, degenerate ones, and by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_cases import OFFICIAL, CityArrays, city_maps, write_predictions

from m2fbench import files
from m2fbench.errors import DatasetError, PredictionsError
from m2fbench.metrics.cityscapes_iou import CATEGORIES, EVALUATED, INSTANCE_CATEGORIES, MEAN_INSTANCE_SIZE, CityscapesIoU, count
from m2fbench.suite import metrics
from m2fbench.types import Measurement, ScoringRules

ALLOWED = 1e-9
METRIC = CityscapesIoU()
Maps = dict[Any, tuple[np.ndarray, np.ndarray, np.ndarray]]


def score_both(folder: Path, maps: Maps) -> tuple[tuple[Measurement, ...], float]:
    """Our score, and its largest difference from the official script's."""
    pytest.importorskip("cityscapesscripts", reason="cityscapesScripts is not installed")
    dataset: Any = CityArrays({i: m[0] for i, m in maps.items()}, {i: m[1] for i, m in maps.items()})
    predictions = write_predictions(folder, {i: m[2] for i, m in maps.items()})
    score = METRIC.score(dataset, predictions, list(maps), ScoringRules())
    verification = METRIC.verify(dataset, predictions, list(maps), ScoringRules(), score)
    assert verification.evaluator.startswith("cityscapesScripts ")
    return score, verification.difference


def value(score: tuple[Measurement, ...], name: str, category: str | None = None, subset: str | None = None) -> float:
    return next(m.value for m in score if (m.name, m.category, m.subset) == (name, category, subset))


def test_the_tables_are_the_official_ones() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels", reason="cityscapesScripts is not installed")
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    known = [label for label in labels.labels if label.id >= 0]
    assert {label.id for label in known} == set(range(34))
    evaluated = [label for label in known if not label.ignoreInEval]
    assert EVALUATED == OFFICIAL.ids == tuple(label.id for label in evaluated)
    assert OFFICIAL.names == tuple(label.name for label in evaluated)
    assert {c: tuple(label.id for label in evaluated if label.category == c) for c in CATEGORIES} == CATEGORIES
    assert {label.category for label in evaluated} == set(CATEGORIES)
    whole = {c: [label for label in known if label.category == c] for c in CATEGORIES}
    with_instances = {c: tuple(x.id for x in group) for c, group in whole.items() if all(x.hasInstances for x in group)}
    assert with_instances == INSTANCE_CATEGORIES
    sizes = {labels.name2label[name].id: size for name, size in script.args.avgClassSize.items()}
    assert {i: sizes[i] for i in sizes if i in EVALUATED} == MEAN_INSTANCE_SIZE


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 4))
def test_random_official_files_equal_the_official_script(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    maps: Maps = {f"ulm_{k:06d}_000019": city_maps(rng, (24, 40)) for k in range(images)}
    score, difference = score_both(tmp_path_factory.mktemp("case"), maps)
    assert difference <= ALLOWED
    assert len(score) == 4 + 8 + 7 + 2
    assert {type(m.value) for m in score} == {type(difference)} == {float}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), few=st.sampled_from([(7, 24), (26, 29, 0), (24, 25), (1, 4), (29, 30), (33,)]))
def test_few_classes_equal_the_official_script(seed: int, few: tuple[int, ...], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Classes and categories that are nowhere, or in the prediction only; truth of ignored labels alone."""
    rng = np.random.default_rng(seed)
    labels, _, _ = city_maps(rng, (16, 24))
    labels = rng.choice(few, labels.shape).astype(np.uint8)
    instances = np.where(labels >= 24, labels.astype(np.int32) * 1000 + rng.integers(0, 2), labels).astype(np.int32)
    predicted = rng.choice(34, labels.shape).astype(np.uint8)
    _, difference = score_both(tmp_path_factory.mktemp("case"), {"ulm_000000_000019": (labels, instances, predicted)})
    assert difference <= ALLOWED


def test_by_hand(tmp_path: Path) -> None:
    """A road with two cars of 4 and 2 pixels, one of them half seen, a group of cars, and an ignored pixel."""
    labels = np.array([[7, 7, 26, 26], [26, 26, 26, 26], [26, 26, 0, 7]], np.uint8)
    instances = np.array([[7, 7, 26001, 26001], [26000, 26000, 26000, 26000], [26, 26, 0, 7]], np.int32)
    predicted = np.array([[7, 26, 26, 29], [26, 26, 26, 26], [7, 26, 26, 7]], np.uint8)
    score, difference = score_both(tmp_path, {"ulm_000000_000019": (labels, instances, predicted)})
    assert difference <= ALLOWED
    road, car = 100 * 2 / 4, 100 * 6 / 9
    assert value(score, "IoU_class") == pytest.approx((road + car) / 2)
    big, small = MEAN_INSTANCE_SIZE[26] / 4, MEAN_INSTANCE_SIZE[26] / 2
    hits, misses = 4 * big + 1 * small, 1 * small  # the group has no instance, so it does not count here
    assert value(score, "iIoU", "car") == value(score, "iIoU_class") == pytest.approx(100 * hits / (hits + misses + 1))
    assert value(score, "iIoU", "vehicle", "category") == pytest.approx(
        100 * (hits + misses) / (hits + misses + 1)
    )  # a caravan is one
    assert value(score, "IoU", "vehicle", "category") == pytest.approx(car)
    assert math.isnan(value(score, "iIoU", "human", "category"))


def test_a_value_that_is_no_official_id_is_a_miss(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    labels, instances, predicted = city_maps(rng, (24, 40))
    wild = np.where(rng.random(predicted.shape) < 0.2, rng.choice([34, 77, 255], predicted.shape), predicted).astype(np.uint8)
    score, difference = score_both(tmp_path / "a", {"ulm_000000_000019": (labels, instances, wild)})
    assert difference <= ALLOWED
    unlabeled = np.where(wild > 33, 0, wild).astype(np.uint8)
    again, _ = score_both(tmp_path / "b", {"ulm_000000_000019": (labels, instances, unlabeled)})
    assert repr(again) == repr(score)
    wide = np.where(wild == 77, 4000, wild).astype(np.uint16)
    wider, _ = score_both(tmp_path / "c", {"ulm_000000_000019": (labels, instances, wide)})
    assert repr(wider) == repr(score)


def test_truth_that_is_not_official_is_refused(tmp_path: Path) -> None:
    labels, instances, predicted = city_maps(np.random.default_rng(1), (8, 8))
    for wrong_labels, wrong_instances, message in (
        (np.full_like(labels, 255), instances, "expected label ids from 0 to 33, got 255"),
        (labels, np.full_like(instances, 34_000), "expected instance ids under 34000, got 34000"),
        (labels, np.full_like(instances, 7001), "of classes that have them, got instance id 7001"),
    ):
        with pytest.raises(DatasetError, match=message):
            score_both(tmp_path, {"ulm_000000_000019": (wrong_labels, wrong_instances, predicted)})
    with pytest.raises(DatasetError, match="its instance ids have 8x4 pixels"):
        score_both(tmp_path, {"ulm_000000_000019": (labels, instances[:4], predicted)})
    with pytest.raises(PredictionsError, match=r"expected 8x8 pixels as image 'ulm_000000_000019' has, got 8x4"):
        score_both(tmp_path, {"ulm_000000_000019": (labels, instances, predicted[:4])})


def test_any_number_of_threads_gives_the_same_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    maps: Maps = {f"ulm_{k:06d}_000019": city_maps(rng, (24, 40)) for k in range(6)}
    found = []
    for workers in (1, 2, 5):
        monkeypatch.setattr(files, "WORKERS", workers)
        found.append(score_both(tmp_path, maps)[0])
    assert repr(found[0]) == repr(found[1]) == repr(found[2])
    assert found[0][:4] != score_both(tmp_path, dict(list(maps.items())[:3]))[0][:4]


def test_verification_sees_a_wrong_figure(tmp_path: Path) -> None:
    maps: Maps = {"ulm_000000_000019": city_maps(np.random.default_rng(4), (24, 40))}
    score, _ = score_both(tmp_path, maps)
    dataset: Any = CityArrays({i: m[0] for i, m in maps.items()}, {i: m[1] for i, m in maps.items()})
    predictions = write_predictions(tmp_path, {i: m[2] for i, m in maps.items()})
    for position in range(len(score)):
        wrong = [Measurement(m.name, m.value + (k == position), category=m.category, subset=m.subset) for k, m in enumerate(score)]
        assert METRIC.verify(dataset, predictions, list(maps), ScoringRules(), wrong).difference == pytest.approx(1)


def test_no_images_at_all_is_not_measured(tmp_path: Path) -> None:
    score, difference = score_both(tmp_path, {})
    assert difference == 0
    assert all(math.isnan(m.value) for m in score)


def test_it_is_for_cityscapes_only_and_counts_add_up() -> None:
    assert metrics.get("cityscapes_iou").only_for == "cityscapes"
    labels, instances, predicted = city_maps(np.random.default_rng(2), (24, 40))
    whole = count(labels, instances, predicted)
    assert whole.confusion.sum() == labels.size
    assert whole.confusion.shape == (34, 35)
