"""Cityscapes' instance AP against the official cityscapesScripts: every figure and every class, on scenes made to be awkward."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2fbench import files
from m2fbench.errors import PredictionsError
from m2fbench.labels import label_set
from m2fbench.metrics import cityscapes_ap
from m2fbench.metrics.cityscapes_ap import OVERLAPS, VOID, CityscapesAP, average_precisions, count_image
from m2fbench.metrics.cityscapes_instance_official import official_table
from m2fbench.types import Category, Example, Measurement, Predictions, ScoringRules

pytest.importorskip("cityscapesscripts", reason="the official evaluator is not installed")

THINGS = label_set("cityscapes_instance")
SIZE = (60, 90)
Json = dict[str, Any]


class Scenes:
    """As much of a dataset as the metric asks for."""

    name = "cityscapes"

    def __init__(self, truths: dict[str, np.ndarray], ids: Sequence[int] = THINGS.ids) -> None:
        self.truths = truths
        self.category_ids = (7, *ids)
        names = dict(zip(THINGS.ids, THINGS.names, strict=True))
        self.categories = (Category("road", False), *(Category(names[i], True) for i in ids))

    def examples(self) -> list[Example]:
        return [Example(name, ids.shape, name) for name, ids in self.truths.items()]

    def instance_ids(self, example: Example) -> np.ndarray:
        return self.truths[str(example.image_id)]


def entry(name: str, label: int, mask: np.ndarray, score: float) -> Json:
    rle = hotcoco.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {"size": list(mask.shape), "counts": rle["counts"].decode()}
    return {"image_id": name, "category_id": label, "segmentation": segmentation, "score": score}


def box(rng: np.random.Generator, size: tuple[int, int], largest: int) -> tuple[slice, slice]:
    top, left = rng.integers(0, size[0] - 2), rng.integers(0, size[1] - 2)
    return slice(top, top + rng.integers(1, largest)), slice(left, left + rng.integers(1, largest))


def scene(
    rng: np.random.Generator, name: str, size: tuple[int, int] = SIZE, labels: Sequence[int] = (24, 26, 33)
) -> tuple[np.ndarray, list[Json]]:
    """Instances of all sizes down to one pixel, groups, void, stuff, caravans; predictions are shifted truth, doubles, inventions."""
    ids = np.full(size, int(rng.choice([7, 0, 4, 23])), np.int32)
    for number in range(rng.integers(0, 12)):
        label = int(rng.choice([*labels, 29]))
        value = label if rng.random() < 0.2 else label * 1000 + number
        if rng.random() < 0.2:
            value = int(rng.choice([0, 3, 4, 11]))
        ids[box(rng, size, 40)] = value
    entries = []
    for value in np.unique(ids):
        for _ in range(rng.integers(0, 4)):
            mask = np.roll(ids == value, rng.integers(-3, 4, 2), (0, 1))
            if rng.random() < 0.3:
                mask[box(rng, size, 30)] = False
            label = int(value if value < 1000 else value // 1000)
            label = label if label in THINGS.ids and rng.random() < 0.9 else int(rng.choice([*labels, 7, 29]))
            entries.append(entry(name, label, mask, round(float(rng.random()), int(rng.integers(1, 4)))))
    for _ in range(rng.integers(0, 4)):
        mask = np.zeros(size, bool)
        if rng.random() < 0.8:
            mask[box(rng, size, 50)] = True
        entries.append(entry(name, int(rng.choice(labels)), mask, float(rng.random())))
    return ids, entries


def scenes(seed: int, images: int, **options: Any) -> tuple[dict[str, np.ndarray], list[Json]]:
    rng = np.random.default_rng(seed)
    made = {f"aachen_{k:06d}_000019": scene(rng, f"aachen_{k:06d}_000019", **options) for k in range(images)}
    return {name: ids for name, (ids, _) in made.items()}, [e for _, entries in made.values() for e in entries]


def score_both(
    folder: Path,
    truths: dict[str, np.ndarray],
    entries: list[Json],
    ids: Sequence[int] = THINGS.ids,
    images: list[Any] | None = None,
) -> tuple[tuple[Measurement, ...], float]:
    """Our score, and its largest difference from the official script's."""
    dataset: Any = Scenes(truths, ids)
    path = folder / "predictions.json"
    path.write_text(json.dumps(entries))
    images = list(truths) if images is None else images
    metric, predictions = CityscapesAP(), Predictions(instances=path)
    score = metric.score(dataset, predictions, images, ScoringRules())
    return score, metric.verify(dataset, predictions, images, ScoringRules(), score).difference


def value(score: Sequence[Measurement], name: str, category: str | None = None) -> float:
    return next(m.value for m in score if (m.name, m.category) == (name, category))


def test_the_tables_of_the_official_script() -> None:
    from cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling import args
    from cityscapesscripts.helpers.labels import labels

    assert set(VOID) == {label.id for label in labels if label.ignoreInEval}
    assert [(label.id, label.name) for label in labels if label.hasInstances and not label.ignoreInEval] == list(
        zip(THINGS.ids, THINGS.names, strict=True)
    )
    np.testing.assert_array_equal(args.overlaps, OVERLAPS)
    assert args.minRegionSizes[0] == cityscapes_ap.SMALLEST


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 4))
def test_random_scenes_equal_the_official_script(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    truths, entries = scenes(seed, images)
    score, difference = score_both(tmp_path_factory.mktemp("case"), truths, entries)
    assert difference <= 1e-9
    assert len(score) == 2 + 8 * 3


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6))
def test_many_scenes_of_one_class_equal_the_official_script(seed: int, tmp_path: Path) -> None:
    """Long curves: many predictions of one class, equal scores among them."""
    truths, entries = scenes(seed, 25, labels=(26,))
    score, difference = score_both(tmp_path, truths, entries)
    assert difference <= 1e-9
    assert 0 < value(score, "AP", "car") < 100


def test_scenes_that_are_not_scored_do_not_count(tmp_path: Path) -> None:
    truths, entries = scenes(5, 4)
    some = list(truths)[:2]
    score, difference = score_both(tmp_path, truths, entries, images=some)
    assert difference <= 1e-9
    alone, _ = score_both(tmp_path, {n: truths[n] for n in some}, [e for e in entries if e["image_id"] in some])
    assert str(alone) == str(score)  # NaN equals itself in writing only


def test_classes_that_the_dataset_leaves_out_do_not_count(tmp_path: Path) -> None:
    truths, entries = scenes(5, 4)
    score, difference = score_both(tmp_path, truths, entries, ids=(26, 33))
    assert difference <= 1e-9
    whole, _ = score_both(tmp_path, truths, entries)
    assert value(score, "AP", "car") == value(whole, "AP", "car")
    assert value(score, "AP") == pytest.approx((value(score, "AP", "car") + value(score, "AP", "bicycle")) / 2)
    assert {m.category for m in score} == {None, "car", "bicycle"}


@pytest.mark.parametrize("case", ["no predictions", "no truth", "neither", "no images"])
def test_degenerate_inputs(case: str, tmp_path: Path) -> None:
    truths, entries = scenes(8, 3)
    if case in ("no truth", "neither"):
        truths = {name: np.full(SIZE, 7, np.int32) for name in truths}
    if case in ("no predictions", "neither"):
        entries = []
    score, difference = score_both(tmp_path, truths, entries, images=[] if case == "no images" else None)
    assert difference == 0
    if case == "no predictions":
        assert value(score, "AP") == 0
        assert value(score, "truth_instances", "car") > 0
    else:
        assert math.isnan(value(score, "AP")), "nothing to measure, which is not 0"
        assert value(score, "truth_instances", "car") == 0


def one_car(group: bool = False, small: bool = False) -> np.ndarray:
    ids = np.full(SIZE, 7, np.int32)
    ids[10:30, 10:30] = 26001
    if group:
        ids[10:30, 50:70] = 26
    if small:
        ids[40:49, 50:61] = 26002
    return ids


def mask_of(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


CAR, GROUP, SMALL, ROAD = (
    mask_of(slice(10, 30), slice(10, 30)), mask_of(slice(10, 30), slice(50, 70)), mask_of(slice(40, 49), slice(50, 61)),
    mask_of(slice(30, 40), slice(0, 20)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([(CAR, 0.5)], 100),
        ([(CAR, 0.5), (ROAD, 0.4)], 100),  # wrong, but below the score of full recall
        ([(CAR, 0.5), (ROAD, 0.9)], 25),  # precision 0, 1/2 and the artificial 1, each over half the step to either side
        ([(CAR, 0.5), (CAR, 0.9)], 100),  # the double is wrong, and the better one counts
        ([(CAR, 0.5), (GROUP, 0.9)], 100),
        ([(CAR, 0.5), (SMALL, 0.9)], 100),
        ([(GROUP, 0.9)], 0),  # the official script fails on this one
        ([(CAR & False, 0.9)], 0),
    ],
)
def test_what_counts_and_what_is_ignored(predicted: list[tuple[np.ndarray, float]], expected: float, tmp_path: Path) -> None:
    entries = [entry("a", 26, mask, score) for mask, score in predicted]
    score, difference = score_both(tmp_path, {"a": one_car(group=True, small=True)}, entries)
    assert difference <= 1e-9
    assert value(score, "AP") == value(score, "AP50", "car") == expected
    assert value(score, "truth_instances", "car") == 1
    assert math.isnan(value(score, "AP", "person"))


def test_outcomes_of_one_image() -> None:
    """A double is wrong, a group and a small instance are ignored, and so is what lies on void."""
    ids = one_car(group=True, small=True)
    ids[50:, :] = 4
    void = mask_of(slice(50, 60), slice(0, 20))
    masks = [(CAR, 0.2), (CAR, 0.9), (GROUP, 0.8), (SMALL, 0.7), (ROAD, 0.6), (void, 0.5), (CAR & False, 0.4)]
    counts = count_image(ids, [entry("a", 26, m, s) for m, s in masks] + [entry("a", 7, ROAD, 1.0)], [24, 26])
    assert counts.categories.tolist() == [1] * 6
    assert counts.truths.tolist() == [0, 1]
    assert counts.outcomes[:, 0].tolist() == [0, 1, -1, -1, 0, -1]
    assert np.isnan(average_precisions([counts], 2)[0]).all()


def test_images_are_additive() -> None:
    """Any multiset of counted images can be summarised, which is what a bootstrap does."""
    truths, entries = scenes(3, 4)
    of = {name: [e for e in entries if e["image_id"] == name] for name in truths}
    counts = [count_image(ids, of[name], THINGS.ids) for name, ids in truths.items()]
    chosen = [0, 2, 2, 3]
    names = list(truths)
    theirs = official_table([(lambda n=names[k]: truths[n], of[names[k]]) for k in chosen], THINGS.ids)
    np.testing.assert_allclose(average_precisions([counts[k] for k in chosen], 8), theirs, rtol=0, atol=1e-12)


def test_work_in_pieces_and_in_parallel_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truths, entries = scenes(11, 4)
    whole, _ = score_both(tmp_path, truths, entries)
    monkeypatch.setattr(cityscapes_ap, "PIECES", 7)
    monkeypatch.setattr(files, "WORKERS", 3)
    assert str(score_both(tmp_path, truths, entries)[0]) == str(whole)


@given(st.integers(0, 10**9), st.integers(1, 30), st.integers(1, 30))
def test_shared_pixels_are_counted_right(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice([0, 7, 26, 26001, 24003], (height, width)).astype(np.int32)
    masks = [rng.random((height, width)) < share for share in (0, 0.1, 0.9, 1)]
    values, pixels, shared = cityscapes_ap._intersections(ids, [entry("a", 26, m, 1)["segmentation"]["counts"] for m in masks])
    assert values.tolist() == np.unique(ids).tolist()
    assert pixels.tolist() == [int((ids == v).sum()) for v in values]
    assert shared.tolist() == [[int((m & (ids == v)).sum()) for v in values] for m in masks]


def test_other_encodings_of_a_mask_score_the_same() -> None:
    """Foreign files may hold uncompressed runs or polygons."""
    ids = one_car()
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, CAR.T.ravel(), 0])), prepend=0)
    uncompressed = {"size": list(SIZE), "counts": [*runs.tolist(), SIZE[0] * SIZE[1] - int(runs.sum())]}
    for segmentation in (uncompressed, [[10, 10, 30, 10, 30, 30, 10, 30]]):
        counts = count_image(ids, [{"category_id": 26, "segmentation": segmentation, "score": 1.0}], [26])
        assert counts.outcomes.min() == 1


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"predictions.json: image a: expected an encoding of size \[60, 90\]"):
        score_both(tmp_path, {"a": one_car()}, [entry("a", 26, np.ones((90, 60)), 1)])
    short = entry("a", 26, np.ones(SIZE), 1)
    short["segmentation"]["counts"] = entry("a", 26, np.ones((9, 9)), 1)["segmentation"]["counts"]
    with pytest.raises(PredictionsError, match="not a run-length encoding of 60 x 90 pixels"):
        score_both(tmp_path, {"a": one_car()}, [short])


def test_verification_can_fail(tmp_path: Path) -> None:
    truths, entries = scenes(4, 2)
    score, _ = score_both(tmp_path, truths, entries)
    wrong = [Measurement(m.name, m.value + 1, category=m.category) if m.category == "car" else m for m in score]
    arguments: Any = (Scenes(truths), Predictions(instances=tmp_path / "predictions.json"), list(truths), ScoringRules())
    answer = CityscapesAP().verify(*arguments, wrong)
    assert answer.difference == pytest.approx(1)
    assert answer.evaluator.startswith("cityscapesScripts 2")
