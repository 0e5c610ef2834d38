"""A run divided: every subset's figures against scoring it alone by the official evaluators, counts, and what cannot be divided."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_evidence import made_evidence
from PIL import Image

from m2fbench.analysis import subsets
from m2fbench.analysis.findings import Disaggregation, Estimate, SubsetFinding
from m2fbench.analysis.image_attributes import luma, shapes, split_in_thirds, thirds
from m2fbench.analysis.intervals import intervals
from m2fbench.analysis.object_subsets import OBJECT_RANGES
from m2fbench.analysis.ranking import rank
from m2fbench.analysis.runs import Evidence, MetricStatistics, statistics_of
from m2fbench.analysis.subsets import disaggregate, leading, too_little
from m2fbench.analysis.words import counted, span_in_words
from m2fbench.errors import ImageError
from m2fbench.metrics.cityscapes_statistics import cityscapes_statistics
from m2fbench.suite import figure_name, metrics
from m2fbench.types import Example, Floats, PanopticMap

COUNT = 24


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return made_evidence(tmp_path_factory.mktemp("made"), COUNT)


@pytest.fixture(scope="module")
def found(evidence: Evidence) -> Disaggregation:
    return disaggregate(evidence, resamples=60)


def of(found: Disaggregation, attribute: str, head: str | None = None) -> list[SubsetFinding]:
    return [s for s in found.subsets if s.attribute == attribute and head in (None, s.head)]


def _by_image(evidence: Evidence, value: Callable[[Example], float]) -> Floats:
    return np.array([value(e) for e in evidence.examples], float)


def _luma(evidence: Evidence, statistic: str) -> Callable[[Example], float]:
    def value(example: Example) -> float:
        red, green, blue = evidence.dataset.image(example).astype(float).transpose(2, 0, 1)
        return float(getattr(0.299 * red + 0.587 * green + 0.114 * blue, statistic)())

    return value


def expected_groups(evidence: Evidence) -> dict[str, list[np.ndarray]]:
    """Indices of the images of each subset of each attribute, from truth and images themselves."""
    truth = {e.image_id: evidence.dataset.panoptic_truth(e).segments for e in evidence.examples}
    values = {
        "objects in the image": _by_image(evidence, lambda e: len(truth[e.image_id])),
        "classes in the image": _by_image(evidence, lambda e: len({s.category for s in truth[e.image_id]})),
        "brightness": _by_image(evidence, _luma(evidence, "mean")),
        "contrast": _by_image(evidence, _luma(evidence, "std")),
        "image size": _by_image(evidence, lambda e: e.size[0] * e.size[1]),
    }
    groups = {name: split_in_thirds(each) for name, each in values.items()}
    ratio = _by_image(evidence, lambda e: e.size[1] / e.size[0])
    groups["aspect"] = [np.flatnonzero(c) for c in (ratio < 0.9, (ratio >= 0.9) & (ratio <= 1 / 0.9), ratio > 1 / 0.9)]
    return groups


@pytest.mark.full
def test_a_subset_of_images_is_what_the_official_evaluators_say_of_it_alone(evidence: Evidence, found: Disaggregation) -> None:
    groups = expected_groups(evidence)
    assert set(groups) == {s.attribute for s in found.subsets if s.level == "image"}
    for attribute, images in groups.items():
        subsets = of(found, attribute)
        assert [s.images for s in subsets] == [len(chosen) for chosen in images]
        for subset, chosen in zip(subsets, images, strict=True):
            ids = [evidence.image_ids[k] for k in chosen]
            names = set()
            for name in evidence.suite.metrics:
                metric = metrics.get(name)
                scored = metric.score(evidence.dataset, evidence.predictions, ids, evidence.suite.rules)
                if subset is subsets[-1] and attribute in ("objects in the image", "brightness", "aspect"):
                    said = metric.verify(evidence.dataset, evidence.predictions, ids, evidence.suite.rules, scored)
                    assert said.difference <= said.tolerance
                for m in scored:
                    if m.unit == "percent" and m.category is None:
                        names.add(figure_name(m.name, metric.head, "panoptic"))
                        assert subset.figures[figure_name(m.name, metric.head, "panoptic")].value == pytest.approx(
                            m.value, abs=1e-9, nan_ok=True
                        )
            assert set(subset.figures) == names
            segments = sum(len(evidence.dataset.panoptic_truth(evidence.examples[k]).segments) for k in chosen)
            assert (subset.head, subset.objects) == ("panoptic", segments)
            pq = subset.figures["PQ"]
            assert pq.low < pq.value < pq.high
            assert subset.enough == (len(chosen) >= 10 and pq.high - pq.low <= 30)


@pytest.mark.full
def test_objects_by_size_are_cocos_and_counted(evidence: Evidence, found: Disaggregation) -> None:
    whole = {m.metric: m for m in statistics_of(evidence)}
    overall = dict(
        zip(whole["coco_ap"].statistics.figures, whole["coco_ap"].statistics.summarise(np.ones((1, COUNT))).overall[0], strict=True)
    )
    areas = np.array([a["area"] for a in evidence.dataset.coco_truth()["annotations"]])  # type: ignore[index, call-overload]
    sizes = of(found, "object size", "instance")
    assert [s.subset for s in sizes] == ["small", "medium", "large"]
    for subset, (low, high), name in zip(sizes, [(0, 32**2), (32**2, 96**2), (96**2, 1e10)], ["APs", "APm", "APl"], strict=True):
        assert subset.level == "object"
        assert subset.objects == ((areas >= low) & (areas <= high)).sum()
        assert subset.figures["AP_th_pan"].value == pytest.approx(overall[name], abs=1e-9)
    finer = of(found, "object size, finer", "instance")
    assert len(finer) == 6
    assert [s.objects for s in finer] == [
        ((areas >= a**2) & (areas <= b**2)).sum() for a, b in zip((0, 16, 32, 64, 96, 192), (16, 32, 64, 96, 192, 1e5), strict=True)
    ]
    empty = next(s for s in finer if s.objects == 0)
    assert (empty.images, empty.enough, empty.figures) == (0, False, {})


@pytest.mark.full
def test_objects_by_every_attribute_are_the_metrics_own_statistics(evidence: Evidence, found: Disaggregation) -> None:
    for part in OBJECT_RANGES:
        for metric in statistics_of(evidence, part.objects):
            subset = next((s for s in of(found, part.attribute, metric.head) if s.subset == part.subset), None)
            if subset is None:
                assert f"{part.attribute} ({metric.head})" in found.undefined
                continue
            truth = metric.statistics.truth_count
            if metric.head == "panoptic":
                truth = truth[:, [c.is_thing for c in evidence.dataset.categories]]
            assert subset.images == truth.any(1).sum()
            assert subset.objects == (None if metric.head == "semantic" else truth.sum())
            if subset.images:
                values = metric.statistics.summarise(np.ones((1, COUNT))).overall[0]
                for name, value in zip(metric.statistics.figures, values, strict=True):
                    if metric.head == "panoptic" and "PQ" in metric.statistics.figures and not name.endswith("_th"):
                        assert name not in subset.figures  # stuff is no object
                        continue
                    assert subset.figures[metric.names[name]].value == pytest.approx(value, abs=1e-9, nan_ok=True)
    assert {tuple(s.figures) for s in of(found, "position", "panoptic")} == {("PQ_th", "SQ_th", "RQ_th")}
    assert {s.subset for s in of(found, "occlusion", "instance")} == {"none", "up to a quarter", "more"}
    assert all(
        set(s.figures) == {"AR100_th_pan"} for s in of(found, "occlusion", "instance")
    )  # predictions cannot be told to be hidden


def test_ranges_of_objects_leave_nothing_out_and_meet_only_at_their_edges() -> None:
    for attribute in dict.fromkeys(part.attribute for part in OBJECT_RANGES):
        parts = [part.objects for part in OBJECT_RANGES if part.attribute == attribute]
        for value in (
            (0, 1)
            if parts[0].attribute in ("border", "crowd")
            else (0, 0.1, 0.25, 0.2501, 1, 255, 256, 257, 1024, 9216, 9217, 36864)
        ):
            inside = sum(part.low <= value <= part.high for part in parts)
            if parts[0].attribute == "occlusion" and value > 1:
                continue
            assert inside == (2 if parts[0].attribute == "area" and value in {p.high for p in parts} else 1)


@pytest.mark.full
def test_classes_by_frequency_have_the_mean_of_their_own_figures(evidence: Evidence, found: Disaggregation) -> None:
    for metric in statistics_of(evidence):
        truth = metric.statistics.truth_count
        frequency = (truth > 0).sum(0)
        by_class = metric.statistics.summarise(np.ones((1, COUNT))).by_class[0]
        subsets = of(found, "class frequency", metric.head)
        bins = split_in_thirds(frequency.astype(float))
        assert [s.subset for s in subsets] == ["rare", "common", "frequent"]
        for subset, classes in zip(subsets, bins, strict=True):
            low, high = frequency[classes].min(), frequency[classes].max()
            many = f"{len(classes)} classes, each in" if len(classes) > 1 else "1 class, in"
            assert subset.definition == f"{many} {low if low == high else f'{low} to {high}'} of {COUNT} images"
            assert subset.images == truth[:, classes].any(1).sum()
            for name, values in zip(metric.statistics.class_figures, by_class, strict=True):
                shown = figure_name({"IoU": "mIoU", "accuracy": "mean_accuracy"}.get(name, name), metric.head, "panoptic")
                assert subset.figures[shown].value == pytest.approx(np.nanmean(values[classes]), abs=1e-9)


@pytest.mark.full
def test_what_cannot_be_divided_is_listed_with_the_reason(evidence: Evidence, found: Disaggregation) -> None:
    pixels = "semantic truth has pixels of classes, not objects"
    assert found.undefined["occlusion (semantic)"] == found.undefined["crowd (semantic)"] == pixels
    assert found.undefined["crowd (instance)"] == "does not vary: all are 'no crowd' (no crowd region in its box)"
    every = {*(part.attribute for part in OBJECT_RANGES), "class frequency"}
    for head in evidence.predictions.heads:
        for attribute in every:
            assert bool(of(found, attribute, head)) != (f"{attribute} ({head})" in found.undefined)


@pytest.mark.full
def test_images_that_are_alike_are_not_divided(evidence: Evidence) -> None:
    one = replace(evidence, examples=evidence.examples[:1])
    found = disaggregate(one, resamples=20)
    assert not [s for s in found.subsets if s.level == "image"]
    assert found.undefined["brightness"].startswith("does not vary: all images are 'dark' (mean luma, 0 to 255: ")
    assert found.undefined["aspect"].startswith("does not vary: all images are '")
    assert not any(s.enough or any(e.has_interval for e in s.figures.values()) for s in found.subsets)
    nothing = disaggregate(replace(evidence, examples=()))
    assert nothing.subsets == ()
    assert set(nothing.undefined.values()) == {"no image was scored"}
    assert {"brightness", "occlusion", "class frequency", "aspect"} <= set(nothing.undefined)


@pytest.mark.full
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_truth_without_any_object_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    evidence = made_evidence(tmp_path, 2, task)
    dataset = evidence.dataset
    if task == "panoptic":
        document = dataset.coco_truth()
        assert isinstance(document, dict)
        monkeypatch.setattr(dataset, "coco_truth", lambda: document | {"annotations": []})
    monkeypatch.setattr(dataset, "panoptic_truth", lambda example: PanopticMap(np.zeros(example.size, np.int32), ()))
    monkeypatch.setattr(dataset, "semantic_truth", lambda example: np.full(example.size, 255, np.uint8))
    found = disaggregate(evidence, resamples=10)
    assert all(s.level == "image" and not s.enough for s in found.subsets)
    for head in evidence.predictions.heads:
        assert found.undefined[f"class frequency ({head})"] == "no class is in the truth"
        assert found.undefined[f"object size ({head})"] == "there are no objects"
        ranking = rank(evidence, statistics_of(evidence), head)
        assert (ranking.best, ranking.worst) == ((), ())
        assert ranking.notes[0].endswith("of their own (no truth in them): 2 of 2 images")
    figures = intervals(evidence, resamples=10).figures.values()
    assert all(math.isnan(e.value) and not e.has_interval for e in figures)


@pytest.mark.full
@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_every_task_is_divided(tmp_path: Path, task: str) -> None:
    evidence = made_evidence(tmp_path, 12, task)
    told: list[tuple[int, int]] = []
    found = disaggregate(evidence, resamples=20, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))
    main = {"instance": "AP", "semantic": "mIoU"}[task]
    assert all(main in s.figures and s.head == task for s in found.subsets if s.level != "object")
    assert {s.attribute for s in found.subsets if s.level == "object"} >= {"object size", "object size, finer", "position"}
    if task == "semantic":
        assert found.undefined["objects in the image"].startswith("semantic truth")
        assert all(s.objects is None for s in found.subsets)
        assert "pixels of connected regions" in of(found, "position")[0].definition


def test_images_that_cannot_be_read_cost_only_what_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = made_evidence(tmp_path, 4, "semantic")

    def missing(example: Example) -> None:
        raise ImageError(f"{example.source}: no such file")

    monkeypatch.setattr(evidence.dataset, "image", missing)
    found = disaggregate(evidence, resamples=20)
    for attribute in ("brightness", "contrast"):
        assert "an image cannot be read: shapes test/000000: no such file" in found.undefined[attribute]
    assert of(found, "classes in the image")


def test_luma_is_pillows_to_rounding(tmp_path: Path) -> None:
    evidence = made_evidence(tmp_path, 3, "semantic")
    looks = luma(evidence)
    for k, example in enumerate(evidence.examples):
        grey = np.asarray(Image.fromarray(evidence.dataset.image(example)).convert("L"), float)
        assert looks.brightness[k] == pytest.approx(grey.mean(), abs=0.5)
        assert looks.contrast[k] == pytest.approx(grey.std(), abs=0.5)


@given(st.lists(st.integers(0, 6) | st.floats(0, 1e6), min_size=1, max_size=60))
def test_thirds_part_the_images_by_value_and_keep_equal_values_together(values: list[float]) -> None:
    known = np.array(values, float)
    parts = split_in_thirds(known)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(known)))
    for low, high in pairwise(parts):
        assert known[low].max() < known[high].min()
    if len(set(values)) == len(values):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1 or len(values) < 3
    groups = thirds("brightness", ("low", "middle", "high"), known, "of")
    assert len(groups) == len(parts)
    assert [g.subset for g in groups] == {1: ["low"], 2: ["low", "high"], 3: ["low", "middle", "high"]}[len(parts)]


def test_numbers_that_read_alike_are_said_once() -> None:
    assert span_in_words(6, 6) == span_in_words(6.0, 6.0) == "6"
    assert span_in_words(121.11, 121.14) == "121.1"
    assert span_in_words(3, 7.25) == "3 to 7.2"
    (group,) = thirds("brightness", ("dark", "medium", "bright"), np.full(3, 121.14), "mean luma:")
    assert (group.subset, group.definition) == ("dark", "mean luma: 121.1")
    assert [counted(1, "image"), counted(0, "image"), counted(1, "class"), counted(1200, "class")] == [
        "1 image", "0 images", "1 class", "1,200 classes",
    ]  # fmt: skip


@pytest.mark.full
def test_metrics_that_know_other_classes_are_divided_beside_each_other(evidence: Evidence) -> None:
    """Cityscapes' own IoU has its figures by class for those with instances only, and may stand first in a suite."""
    semantic = next(m for m in statistics_of(evidence) if m.metric == "semantic_iou")
    names = semantic.statistics.categories[1:4][::-1]
    parts = np.random.default_rng(0).integers(0, 9, (COUNT, 8, 3)).astype(float)
    fewer = cityscapes_statistics(evidence.image_ids, parts, (2, 5, 6), {name: 2 + k for k, name in enumerate(names)})
    other = MetricStatistics("cityscapes_iou", "semantic", fewer, {f: f for f in (*fewer.figures, "iIoU")})
    assert leading([other, semantic], "semantic") is semantic
    assert leading([other], "semantic") is other
    assert leading([other], "panoptic") is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsets, "statistics_of", lambda *_, **__: [other, semantic])
        found = of(subsets.disaggregate(evidence, resamples=10), "class frequency", "semantic")
    known = {c for c, n in zip(semantic.statistics.categories, (semantic.statistics.truth_count > 0).sum(0), strict=True) if n}
    assert sum(int(s.definition.split()[0]) for s in found) == len(known)
    for s in found:
        assert {"mIoU_pan", "mean_accuracy_pan"} <= set(s.figures)


def test_shapes_by_which_side_is_longer() -> None:
    sizes = [(100, 89), (100, 90), (100, 100), (90, 100), (89, 100), (480, 640)]
    aspect = {
        g.subset: g.images.tolist() for g in shapes([Example(k, s, "") for k, s in enumerate(sizes)]) if g.attribute == "aspect"
    }
    assert aspect == {"portrait": [0], "square": [1, 2, 3], "landscape": [4, 5]}


@pytest.mark.parametrize(
    ("images", "objects", "figures", "reason"),
    [
        (10, 20, {"AP": Estimate(50, 40, 60)}, None),
        (10, None, {"AP": Estimate(50, 40, 60)}, None),
        (9, 20, {"AP": Estimate(50, 40, 60)}, "9 images, fewer than 10"),
        (10, 19, {"AP": Estimate(50, 40, 60)}, "19 objects, fewer than 20"),
        (10, 20, {"AP": Estimate(50, 30, 61)}, "the interval of AP spans 31.0 points, more than 30"),
        (10, 20, {"AP": Estimate(50, 30, 60.2)}, "the interval of AP spans 30.2 points, more than 30"),
        (1, 1, {}, "1 image, fewer than 10"),
        (10, 1, {}, "1 object, fewer than 20"),
        (10, 20, {"AR": Estimate(1, 0, 1), "AP": Estimate(50, 30, 61)}, "the interval of AP spans 31.0 points, more than 30"),
        (10, 20, {"AR100": Estimate(50, 40, 60)}, None),
        (10, 20, {"AP": Estimate(50)}, "AP is undefined in too many resamples"),
        (10, 20, {"AP": Estimate(math.nan)}, "nothing to measure"),
        (10, 20, {}, "nothing to measure"),
    ],
)
def test_when_there_is_too_little_to_say_anything(
    images: int, objects: int | None, figures: dict[str, Estimate], reason: str | None
) -> None:
    assert too_little(images, objects, figures, "AP") == reason
