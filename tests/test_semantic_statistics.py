"""Semantic figures accumulated anew for chosen images and chosen regions, against the metrics themselves, hotcoco, the official
Cityscapes script and a plain recount."""

import math
from pathlib import Path
from typing import Any

import hotcoco.semantic
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_cases import ArrayDataset, CityArrays, city_maps, random_maps, write_predictions

from m2fbench.formats.label_png import no_class, to_values
from m2fbench.metrics import semantic_iou
from m2fbench.metrics.cityscapes_iou import MEAN_INSTANCE_SIZE, CityscapesIoU
from m2fbench.metrics.semantic_iou import SemanticIoU
from m2fbench.metrics.semantic_statistics import FIGURES, SemanticStatistics, regions
from m2fbench.types import ImageId, ImageStatistics, Measurement, ObjectSubset, Predictions, ScoringRules

ALLOWED = 1e-9
METRIC, CITY = SemanticIoU(), CityscapesIoU()
RULES = ScoringRules()
SUBSETS = (
    ObjectSubset("area", 0, 2), ObjectSubset("area", 3, 20), ObjectSubset("area", 21, math.inf), ObjectSubset("border", 1, 1),
    ObjectSubset("border", 0, 0),
)  # fmt: skip

Map = np.ndarray
Case = tuple[Any, Predictions, list[ImageId]]


def written(folder: Path, maps: list[tuple[Map, Map]], classes: int) -> Case:
    values = range(3, classes + 3)  # not the indices
    dataset = ArrayDataset({k: t for k, (t, _) in enumerate(maps)}, values)
    return dataset, write_predictions(folder, {k: to_values(p, values, 0) for k, (_, p) in enumerate(maps)}), list(range(len(maps)))


def city(folder: Path, maps: list[tuple[Map, Map, Map]]) -> Case:
    names = [f"ulm_{k:06d}_000019" for k in range(len(maps))]
    of = [dict(zip(names, part, strict=True)) for part in zip(*maps, strict=True)] or [{}, {}, {}]
    return CityArrays(of[0], of[1]), write_predictions(folder, of[2]), list(names)


def statistics_of(metric: Any, case: Case, rules: ScoringRules = RULES, subset: ObjectSubset | None = None) -> ImageStatistics:
    found = metric.statistics(*case, rules, subset)
    assert found is not None
    return found


def same_as_score(statistics: ImageStatistics, weights: Map, score: tuple[Measurement, ...]) -> None:
    values = {(m.name, m.category): m.value for m in score if m.subset is None}
    summary = statistics.summarise(weights[None].astype(float))
    assert summary.overall[0] == pytest.approx([values[name, None] for name in statistics.figures], abs=ALLOWED, nan_ok=True)
    for plane, name in zip(summary.by_class[0], statistics.class_figures, strict=True):
        assert plane == pytest.approx([values[name, c] for c in statistics.categories], abs=ALLOWED, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**9), images=st.integers(1, 5), classes=st.sampled_from([1, 2, 7, 19, 300]),
    rule=st.sampled_from(["present", "union", "all"]),
)  # fmt: skip
def test_any_weights_give_the_metrics_own_figures(
    seed: int, images: int, classes: int, rule: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ones: of all images; zeros and ones: of some; counts: of a dataset in which images are there so often."""
    rng, folder, rules = np.random.default_rng(seed), tmp_path_factory.mktemp("case"), ScoringRules(mean_iou=rule)
    maps = [random_maps(rng, classes, (8, 11)) for _ in range(images)]
    case = written(folder / "maps", maps, classes)
    dataset, predictions, ids = case
    statistics = statistics_of(METRIC, case, rules)
    assert (statistics.figures, statistics.class_figures) == (METRIC.names, ("IoU", "accuracy"))
    same_as_score(statistics, np.ones(images), METRIC.score(*case, rules))
    chosen, drawn = rng.integers(0, 2, images), rng.integers(0, 4, images)
    some = np.flatnonzero(chosen).tolist()
    same_as_score(statistics, chosen, METRIC.score(dataset, predictions, some, rules))
    repeated = written(folder / "repeated", [maps[k] for k in range(images) for _ in range(drawn[k])], classes)
    same_as_score(statistics, drawn, METRIC.score(*repeated, rules))
    each = [{m.name: m.value for m in METRIC.score(dataset, predictions, [k], rules)} for k in ids]
    np.testing.assert_allclose(statistics.per_image(), [[of[name] for name in FIGURES] for of in each], atol=ALLOWED)
    assert statistics.truth_count.sum(1).tolist() == [int((t != no_class(classes)).sum()) for t, _ in maps]
    labelled = [(t != no_class(classes)) & (p != no_class(classes)) for t, p in maps]
    assert statistics.found_count.sum(1).tolist() == [int(both.sum()) for both in labelled]


def test_images_chosen_by_weight_are_to_hotcoco_what_they_are_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    maps = [random_maps(rng, 7, (20, 30)) for _ in range(6)]
    chosen = np.array([1, 0, 1, 1, 0, 0])
    evaluation = hotcoco.semantic.SemanticEval(8, ignore_index=255)
    for k in np.flatnonzero(chosen):
        evaluation.update(maps[k][0], np.where(maps[k][1] == 255, 7, maps[k][1]).astype(np.uint8))
    each = evaluation.results()["per_class"][:7]
    case = written(tmp_path, maps, 7)
    summary = statistics_of(METRIC, case).summarise(chosen[None].astype(float))
    for plane, name in zip(summary.by_class[0], ("IoU", "Acc"), strict=True):
        theirs = np.array([entry[name] for entry in each])
        assert plane == pytest.approx(100 * np.where(theirs < 0, np.nan, theirs), abs=ALLOWED, nan_ok=True)
    score = METRIC.score(case[0], case[1], np.flatnonzero(chosen).tolist(), RULES)
    assert METRIC.verify(case[0], case[1], np.flatnonzero(chosen).tolist(), RULES, score).difference <= ALLOWED
    same_as_score(statistics_of(METRIC, case), chosen, score)


@pytest.mark.full
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 4))
def test_any_weights_give_the_official_cityscapes_means(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("cityscapesscripts", reason="cityscapesScripts is not installed")
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("case")
    maps = [city_maps(rng, (24, 40)) for _ in range(images)]
    case = city(folder / "maps", maps)
    statistics = statistics_of(CITY, case)
    assert statistics.figures == CITY.names
    assert len(statistics.categories) == len(MEAN_INSTANCE_SIZE)
    same_as_score(statistics, np.ones(images), CITY.score(*case, RULES))
    chosen, drawn = rng.integers(0, 2, images), rng.integers(0, 4, images)
    some = [i for i, is_in in zip(case[2], chosen, strict=True) if is_in]
    score = CITY.score(case[0], case[1], some, RULES)
    assert CITY.verify(case[0], case[1], some, RULES, score).difference <= ALLOWED
    same_as_score(statistics, chosen, score)
    same_as_score(
        statistics, drawn, CITY.score(*city(folder / "again", [maps[k] for k in range(images) for _ in range(drawn[k])]), RULES)
    )
    each = [{m.name: m.value for m in CITY.score(case[0], case[1], [i], RULES) if m.category is None} for i in case[2]]
    np.testing.assert_allclose(statistics.per_image(), [[of[name] for name in CITY.names] for of in each], atol=ALLOWED)
    cars = statistics.categories.index("car")
    assert statistics.truth_count[:, cars].tolist() == [int((labels == 26).sum()) for labels, _, _ in maps]
    assert CITY.statistics(*case, RULES, SUBSETS[0]) is None


def test_no_image_and_nothing_labelled_is_nan(tmp_path: Path) -> None:
    nothing = np.full((3, 4), 255, np.uint8)
    case = written(tmp_path, [(nothing, np.zeros((3, 4), np.uint8))], 2)
    for subset in (None, *SUBSETS):
        statistics = statistics_of(METRIC, case, subset=subset)
        assert np.isnan(statistics.summarise(np.ones((2, 1))).overall).all()
        assert np.isnan(statistics.per_image()).all()
        none = statistics_of(METRIC, (case[0], case[1], []), subset=subset)
        assert np.isnan(none.summarise(np.ones((2, 0))).overall).all()
    assert np.isnan(statistics_of(CITY, city(tmp_path / "city", [])).summarise(np.ones((1, 0))).overall).all()


def plain_regions(truth: Map, predicted: Map) -> list[tuple[int, int, int, int]]:
    """Category, area, hits and border of each region, by flooding."""
    found, seen = [], truth == no_class(1)
    height, width = truth.shape
    for start in np.ndindex(truth.shape):
        if seen[start]:
            continue
        waiting, members = [start], []
        seen[start] = True
        while waiting:
            y, x = waiting.pop()
            members.append((y, x))
            for near in np.ndindex(3, 3):
                at = y + near[0] - 1, x + near[1] - 1
                if 0 <= at[0] < height and 0 <= at[1] < width and not seen[at] and truth[at] == truth[start]:
                    seen[at] = True
                    waiting.append(at)
        hits = sum(int(predicted[m] == truth[m]) for m in members)
        border = any(y in (0, height - 1) or x in (0, width - 1) for y, x in members)
        found.append((int(truth[start]), len(members), hits, int(border)))
    return found


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**9), size=st.sampled_from([(1, 1), (1, 9), (8, 1), (9, 14)]))
def test_regions_and_their_subsets_are_those_of_a_plain_recount(
    seed: int, size: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    maps = [random_maps(rng, 4, size) for _ in range(2)]
    each = [plain_regions(*pair) for pair in maps]
    for pair, plain in zip(maps, each, strict=True):
        assert sorted(regions(*pair).T.tolist()) == sorted(map(list, plain))
    case = written(tmp_path_factory.mktemp("case"), maps, 4)
    for subset in SUBSETS:
        statistics = statistics_of(METRIC, case, subset=subset)
        assert (statistics.figures, statistics.class_figures) == (("mean_accuracy", "pixel_accuracy"), ("accuracy",))
        at = 1 if subset.attribute == "area" else 3
        chosen = [r for plain in each for r in plain if subset.low <= r[at] <= subset.high]
        pixels, hits = sum(r[1] for r in chosen), sum(r[2] for r in chosen)
        classes = sorted({r[0] for r in chosen})
        accuracy = [100 * sum(r[2] for r in chosen if r[0] == c) / sum(r[1] for r in chosen if r[0] == c) for c in classes]
        expected = [np.mean(accuracy), 100 * hits / pixels] if chosen else [math.nan, math.nan]
        summary = statistics.summarise(np.ones((1, 2)))
        assert summary.overall[0] == pytest.approx(expected, abs=ALLOWED, nan_ok=True)
        assert summary.by_class[0, 0, classes] == pytest.approx(accuracy, abs=ALLOWED)
        assert int(np.isnan(summary.by_class).sum()) == 4 - len(classes)
        assert statistics.truth_count.sum() == pixels


def test_all_regions_together_have_the_accuracy_of_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    case = written(tmp_path, [random_maps(rng, 7, (20, 30)) for _ in range(3)], 7)
    whole, every = statistics_of(METRIC, case), statistics_of(METRIC, case, subset=ObjectSubset("area", 1, math.inf))
    weights = np.array([[1.0, 1, 1], [2, 0, 1]])
    columns = [FIGURES.index(name) for name in every.figures]
    np.testing.assert_allclose(every.summarise(weights).overall, whole.summarise(weights).overall[:, columns], atol=ALLOWED)
    for attribute in ("occlusion", "crowd"):
        assert METRIC.statistics(*case, RULES, ObjectSubset(attribute, 0, 1)) is None  # type: ignore[arg-type]


def test_maps_are_read_once_for_many_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.array([[0, 0, 1], [1, 1, 1]], np.uint8)
    case = written(tmp_path, [(truth, truth)], 2)
    read: list[ImageId] = []
    before = semantic_iou.label_maps

    def counted(dataset: Any, predictions: Predictions, example: Any) -> Any:
        read.append(example.image_id)
        return before(dataset, predictions, example)

    monkeypatch.setattr(semantic_iou, "label_maps", counted)
    for subset in SUBSETS:
        statistics_of(METRIC, case, subset=subset)
    assert read == [0]
    write_predictions(tmp_path, {0: np.full((2, 3), 3, np.uint8)})
    summary = statistics_of(METRIC, case, subset=ObjectSubset("border", 1, 1)).summarise(np.ones((1, 1)))
    assert summary.by_class[0, 0].tolist() == [100, 0]


def test_a_thousand_resamples_are_exact_in_whole_numbers() -> None:
    """Counts of millions of pixels, drawn often: the same as adding them up."""
    rng = np.random.default_rng(0)
    images, classes = 300, 150
    hits = rng.integers(0, 10**6, (images, classes))
    counts = np.stack([hits, hits + rng.integers(0, 10**6, hits.shape), hits + rng.integers(0, 10**6, hits.shape)], 1)
    statistics = SemanticStatistics(
        tuple(range(images)), FIGURES, ("IoU", "accuracy"), ("",) * classes, counts[:, 1], counts[:, 2], counts, "present"
    )
    weights = rng.integers(0, 5, (1000, images))
    summary = statistics.summarise(weights.astype(float))
    summed = np.einsum("n,npc->pc", weights[17], counts)
    assert summary.by_class[17, 0].tolist() == (100 * (summed[0] / (summed[1] + summed[2] - summed[0]))).tolist()
