"""Panoptic quality accumulated anew for chosen images and chosen segments, against the metric itself, the official evaluator and a plain
recount by masks."""

import gc
import math
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_panoptic_quality import (
    ALLOWED,
    CATEGORIES,
    HALVES,
    NOTHING,
    RULES,
    THINGS,
    Maps,
    disturbed,
    panoptic,
    random_maps,
    value,
    write,
)

from m2fbench.datasets.coco_panoptic import CocoPanoptic, CocoPanopticOptions
from m2fbench.formats.panoptic import encode_ids
from m2fbench.metrics import segment_records as records_module
from m2fbench.metrics.panoptic_matching import entries_of, examples_of
from m2fbench.metrics.panoptic_official import official_figures
from m2fbench.metrics.panoptic_quality import PanopticQuality
from m2fbench.metrics.panoptic_statistics import PARTS, QUALITY, RECALL, PanopticStatistics
from m2fbench.metrics.segment_records import segment_records, true_attributes
from m2fbench.types import ImageId, Measurement, ObjectSubset, PanopticMap, Predictions, Segment, Summary

METRIC = PanopticQuality()
CLASSES = len(CATEGORIES)
NEVER = CLASSES - 1  # the class that no random map has
SUBSETS = (
    ObjectSubset("area", 0, 60), ObjectSubset("area", 61, 10**9), ObjectSubset("border", 1, 1), ObjectSubset("border", 0, 0),
    ObjectSubset("occlusion", 0, 0.1), ObjectSubset("occlusion", 0.2, 1), ObjectSubset("crowd", 1, 1), ObjectSubset("crowd", 0, 0),
)  # fmt: skip

Pairs = list[tuple[PanopticMap, PanopticMap]]


def written(folder: Path, pairs: Pairs) -> tuple[Any, Predictions, list[ImageId]]:
    folder.mkdir(exist_ok=True)
    dataset = Maps([truth for truth, _ in pairs])
    return dataset, write(folder, "found", dataset, [found for _, found in pairs]), list(range(len(pairs)))


def same_as_score(summary: Summary, row: int, score: tuple[Measurement, ...]) -> None:
    assert summary.overall[row] == pytest.approx([value(score, name) for name in METRIC.names], abs=ALLOWED, nan_ok=True)
    for plane, name in zip(summary.by_class[row], PARTS, strict=True):
        assert plane == pytest.approx([value(score, name, c.name) for c in CATEGORIES], abs=ALLOWED, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 5))
def test_any_weights_give_the_metrics_own_figures(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ones: of all images; zeros and ones: of some; counts: of a dataset in which images are there so often."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("case")
    pairs = [random_maps(rng) for _ in range(images)]
    dataset, predictions, ids = written(folder, pairs)
    statistics = METRIC.statistics(dataset, predictions, ids, RULES)
    assert statistics is not None
    assert (statistics.figures, statistics.class_figures) == (METRIC.names, PARTS)
    chosen, drawn = rng.integers(0, 2, images), rng.integers(0, 4, images)
    summary = statistics.summarise(np.array([np.ones(images), chosen, drawn]))
    whole = METRIC.score(dataset, predictions, ids, RULES)
    same_as_score(summary, 0, whole)
    same_as_score(summary, 1, METRIC.score(dataset, predictions, np.flatnonzero(chosen).tolist(), RULES))
    repeated = written(folder / "repeated", [pairs[k] for k in range(images) for _ in range(drawn[k])])
    same_as_score(summary, 2, METRIC.score(*repeated, RULES))
    each = [METRIC.score(dataset, predictions, [image_id], RULES) for image_id in ids]
    alone = [[value(score, name) for name in METRIC.names] for score in each]
    np.testing.assert_allclose(statistics.per_image(), alone, atol=ALLOWED)
    assert statistics.truth_count.sum(0).tolist() == [value(whole, "truth_segments", c.name) for c in CATEGORIES]
    assert statistics.found_count.sum() == sum(len(found.segments) for _, found in pairs)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_images_chosen_by_weight_are_to_the_official_evaluator_what_they_are_alone(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    dataset, predictions, ids = written(tmp_path_factory.mktemp("case"), [random_maps(rng) for _ in range(5)])
    chosen = [2, 4, 1]
    overall, by_class = official(dataset, predictions, chosen)
    statistics = METRIC.statistics(dataset, predictions, ids, RULES)
    assert statistics is not None
    summary = statistics.summarise(np.isin(ids, chosen).astype(float)[None])
    assert summary.overall[0] == pytest.approx([overall[name] for name in METRIC.names], abs=ALLOWED, nan_ok=True)
    for plane, name in zip(summary.by_class[0], PARTS, strict=True):
        assert plane == pytest.approx(by_class[name], abs=ALLOWED, nan_ok=True)


def official(dataset: Any, predictions: Predictions, ids: list[ImageId]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """All that the official evaluator says of the images: figures, and by class figures and counts."""
    _, (overall, by_class, counts) = official_figures(
        dataset, examples_of(dataset, ids), entries_of(dataset, predictions, ids)
    )  # fmt: skip
    return overall, by_class | counts


def test_nothing_to_measure_is_nan(tmp_path: Path) -> None:
    dataset, predictions, ids = written(tmp_path, [(NOTHING, NOTHING), (panoptic(HALVES, Segment(1, 0), Segment(2, 3)), NOTHING)])
    statistics = METRIC.statistics(dataset, predictions, ids, RULES)
    assert statistics is not None
    summary = statistics.summarise(np.array([[0.0, 0], [1, 0], [0, 1]]))
    assert np.isnan(summary.overall[:2]).all()
    assert np.isnan(summary.by_class[:2]).all()
    assert summary.overall[2].tolist() == [0.0] * 9
    for subset in (None, *SUBSETS):
        none = METRIC.statistics(dataset, predictions, [], RULES, subset)
        assert none is not None
        assert np.isnan(none.summarise(np.zeros((2, 0))).overall).all()
        assert none.per_image().shape == (0, len(none.figures))


def inside(attribute: float, subset: ObjectSubset) -> bool:
    return subset.low <= attribute <= subset.high


def plain_attribute(panoptic: PanopticMap, segment: Segment, name: str) -> float:
    """By masks and loops."""
    mask = panoptic.ids == segment.id
    if name == "area":
        return int(mask.sum())
    if name == "border":
        ring = np.ones(mask.shape, bool)
        ring[1:-1, 1:-1] = False
        return float((mask & ring).any())
    if not THINGS[segment.category] or not mask.any():
        return math.nan
    rows, columns = np.nonzero(mask)
    box = np.zeros(mask.shape, bool)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    others = [s for s in panoptic.segments if s.id != segment.id]
    if name == "crowd":
        return float(any((box & (panoptic.ids == s.id)).any() for s in others if s.is_crowd))
    covering = [s.id for s in others if s.is_crowd or THINGS[s.category]]
    return float((box & np.isin(panoptic.ids, covering)).sum() / box.sum())


@pytest.mark.parametrize("seed", range(6))
def test_attributes_are_those_of_the_masks(seed: int) -> None:
    truth, _ = random_maps(np.random.default_rng(seed))
    found = true_attributes(truth, THINGS)
    for number, segment in enumerate(truth.segments):
        if not segment.is_crowd:
            for name, values in found.items():
                assert values[number] == pytest.approx(plain_attribute(truth, segment, name), abs=1e-12, nan_ok=True), name


def test_attributes_by_hand() -> None:
    """A thing whose 3 x 2 box holds one pixel of another and one of stuff; a crowd region that meets the other's box only."""
    truth = panoptic(
        [[0, 0, 0, 0, 0, 0], [0, 1, 1, 2, 0, 0], [0, 1, 3, 1, 9, 0], [0, 0, 0, 2, 9, 0], [4, 4, 0, 0, 0, 0]],
        Segment(1, 0), Segment(2, 1), Segment(3, 2), Segment(9, 0, is_crowd=True), Segment(4, 3), Segment(7, 0, area=5),
    )  # fmt: skip
    found = {name: values.tolist() for name, values in true_attributes(truth, THINGS).items()}
    assert found["area"] == [4, 2, 1, 2, 2, 0]
    assert found["border"] == [0, 0, 0, 0, 1, 0]
    assert found["occlusion"][:2] == pytest.approx([1 / 6, 1 / 3])
    assert found["crowd"][:2] == [0, 0]
    assert np.isnan([found[name][k] for name in ("occlusion", "crowd") for k in (2, 4, 5)]).all()
    wide = panoptic([[1, 9, 1], [0, 9, 0]], Segment(1, 0), Segment(9, 2, is_crowd=True))  # stuff, but a crowd
    assert [true_attributes(wide, THINGS)[name][0] for name in ("occlusion", "crowd")] == pytest.approx([1 / 3, 1])


def for_the_official_evaluator(truth: PanopticMap, found: PanopticMap, subset: ObjectSubset) -> tuple[PanopticMap, PanopticMap]:
    """Maps to which the official evaluator's definitions are the subset's.

    Void in place of true segments outside would take their pixels from the unions of predictions that reach into them. So they become
    crowd regions of a class that nothing is predicted as: in the union still, missed by nobody, no excuse. Predictions that match them,
    and unmatched ones that are outside, become void, which is in no union but their own.
    """
    outside = {s.id for s in truth.segments if not s.is_crowd and not inside(plain_attribute(truth, s, subset.attribute), subset)}
    segments = tuple(Segment(s.id, NEVER, True, s.area) if s.id in outside else s for s in truth.segments)
    matches = matched_ids(truth, found)
    dropped = {p for p, t in matches.items() if t in outside}
    if subset.attribute in ("area", "border"):
        unmatched = (s for s in found.segments if s.id not in matches)
        dropped |= {s.id for s in unmatched if not inside(plain_attribute(found, s, subset.attribute), subset)}
    ids = np.where(np.isin(found.ids, list(dropped)), 0, found.ids)
    return PanopticMap(truth.ids, segments), PanopticMap(ids, tuple(s for s in found.segments if s.id not in dropped))


def matched_ids(truth: PanopticMap, found: PanopticMap) -> dict[int, int]:
    """Predicted -> true id of each match, by masks."""
    matches = {}
    for t in (t for t in truth.segments if not t.is_crowd):
        for p in (p for p in found.segments if p.category == t.category):
            true, predicted = truth.ids == t.id, found.ids == p.id
            both = int((true & predicted).sum())
            union = (int(true.sum()) if t.area is None else t.area) + int((predicted & (truth.ids > 0)).sum()) - both
            if both and both / union > 0.5:
                matches[p.id] = t.id
    return matches


@pytest.mark.full
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_segments_of_a_subset_are_scored_as_the_official_evaluator_scores_them_alone(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("case")
    pairs = [random_maps(rng) for _ in range(3)]
    dataset, predictions, ids = written(folder, pairs)
    for number, subset in enumerate(SUBSETS):
        statistics = METRIC.statistics(dataset, predictions, ids, RULES, subset)
        assert statistics is not None
        chosen = [for_the_official_evaluator(t, p, subset) for t, p in pairs]
        overall, by_class = official(*written(folder / str(number), chosen))
        summary = statistics.summarise(np.ones((1, len(ids))))
        counts = {name: np.array(by_class[name]) for name in ("TP", "FP", "FN")}
        assert statistics.truth_count.sum(0).tolist() == (counts["TP"] + counts["FN"]).tolist()
        if subset.attribute in ("area", "border"):
            assert statistics.figures == QUALITY
            assert summary.overall[0] == pytest.approx([overall[name] for name in QUALITY], abs=ALLOWED, nan_ok=True)
            assert summary.by_class[0] == pytest.approx(np.array([by_class[name] for name in PARTS]), abs=ALLOWED, nan_ok=True)
            assert statistics.found_count.sum(0).tolist() == (counts["TP"] + counts["FP"]).tolist()
        else:
            assert statistics.figures == statistics.class_figures == RECALL
            there = counts["TP"] + counts["FN"] > 0
            recall = 100 * counts["TP"][there] / (counts["TP"] + counts["FN"])[there]
            quality = np.array(by_class["SQ"])[there]
            assert summary.by_class[0][:, there] == pytest.approx(np.array([recall, quality]), abs=ALLOWED)
            assert np.isnan(summary.by_class[0][:, ~there]).all()
            means = [recall.mean(), quality.mean()] if there.any() else [math.nan] * 2
            assert summary.overall[0] == pytest.approx(means, abs=ALLOWED, nan_ok=True)


def test_a_subset_by_hand(tmp_path: Path) -> None:
    """Two of a class matched, of 4 and 2 pixels; of area 3 and up: one TP, and of two false predictions the one of 3 pixels."""
    truth = panoptic([[1, 1, 2, 2, 0, 0], [1, 1, 5, 5, 5, 5]], Segment(1, 0), Segment(2, 0), Segment(5, 3))
    found = panoptic(
        [[1, 1, 2, 2, 0, 0], [1, 6, 7, 7, 7, 5]], *(Segment(k, c) for k, c in ((1, 0), (2, 0), (6, 4), (7, 4), (5, 4)))
    )
    dataset, predictions, ids = written(tmp_path, [(truth, found)])
    statistics = METRIC.statistics(dataset, predictions, ids, RULES, ObjectSubset("area", 3, 100))
    assert statistics is not None
    summary = statistics.summarise(np.ones((1, 1)))
    assert summary.by_class[0][0, [0, 3, 4]].tolist() == [75, 0, 0]
    assert statistics.truth_count.tolist() == [[1, 0, 0, 1, 0, 0]]
    assert statistics.found_count.tolist() == [[1, 0, 0, 0, 1, 0]]
    assert summary.overall[0, 0] == 25


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[ImageId]:
    read: list[ImageId] = []
    before = records_module.read_pair

    def counted(dataset: Any, entry: Any, example: Any) -> Any:
        read.append(example.image_id)
        return before(dataset, entry, example)

    monkeypatch.setattr(records_module, "read_pair", counted)
    return read


def test_maps_are_read_once_for_many_subsets_and_again_when_they_change(tmp_path: Path, readings: list[ImageId]) -> None:
    truth = panoptic(HALVES, Segment(1, 0), Segment(2, 3))
    dataset, predictions, ids = written(tmp_path, [(truth, truth)] * 3)

    def quality(of: Any, image_ids: list[ImageId]) -> float:
        statistics = METRIC.statistics(of, predictions, image_ids, RULES)
        assert statistics is not None
        return float(statistics.summarise(np.ones((1, len(image_ids)))).overall[0, 0])

    for subset in SUBSETS:
        METRIC.statistics(dataset, predictions, ids, RULES, subset)
    assert quality(dataset, ids) == 100
    assert sorted(readings) == ids
    assert quality(dataset, [1]) == 100
    assert len(readings) == 4
    swapped = np.where(truth.ids == 1, 2, 1).astype(np.int32)
    (tmp_path / "found/000000000001.png").write_bytes(encode_ids(swapped))
    assert quality(dataset, [1]) == 0
    assert quality(Maps([truth] * 3), ids) == pytest.approx(200 / 3)
    assert len(readings) == 4 + 1 + 3
    reference = weakref.ref(dataset)
    del dataset
    gc.collect()
    assert reference() is None


@pytest.mark.full
def test_a_thousand_resamples_of_five_thousand_images_stay_small() -> None:
    rng = np.random.default_rng(0)
    images, classes = 5000, 150
    counts = rng.integers(0, 3, (images, 4, classes)).astype(float)
    none = np.zeros((images, classes), np.int64)
    things = rng.random(classes) < 0.5
    statistics = PanopticStatistics(tuple(range(images)), QUALITY, PARTS, ("",) * classes, none, none, counts, things)
    weights = rng.integers(0, 3, (1000, images)).astype(float)
    tracemalloc.start()
    summary = statistics.summarise(weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary.by_class.shape == (1000, 3, classes)
    assert peak < 100e6


@pytest.mark.full
def test_real_photos_chosen_by_weight_equal_the_official_evaluator(shared: Path, tmp_path: Path) -> None:
    dataset = CocoPanoptic(CocoPanopticOptions(), shared / "data/coco_real")
    rng = np.random.default_rng(7)
    truth = [dataset.panoptic_truth(e) for e in dataset.examples()]
    predictions = write(tmp_path, "found", dataset, [disturbed(rng, t) for t in truth])
    ids = [e.image_id for e in dataset.examples()]
    chosen = ids[::2]
    overall, by_class = official(dataset, predictions, chosen)
    statistics = METRIC.statistics(dataset, predictions, ids, RULES)
    assert statistics is not None
    summary = statistics.summarise(np.isin(ids, chosen).astype(float)[None])
    assert summary.overall[0] == pytest.approx([overall[name] for name in QUALITY], abs=ALLOWED)
    assert summary.by_class[0] == pytest.approx(np.array([by_class[name] for name in PARTS]), abs=ALLOWED, nan_ok=True)
    records = segment_records(dataset, predictions, ids)
    occlusion = records.truth.attributes["occlusion"]
    assert np.nanmin(occlusion) == 0
    assert 0.2 < np.nanmax(occlusion) <= 1
