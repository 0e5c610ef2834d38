"""Panoptic quality against panopticapi, cityscapesScripts and hotcoco: every figure, class by class, on random, degenerate and real
maps."""

import contextlib
import importlib
import importlib.util
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m2fbench.datasets.coco_panoptic import CocoPanoptic, CocoPanopticOptions
from m2fbench.errors import DatasetError, PredictionsError
from m2fbench.formats.names import file_stem
from m2fbench.formats.panoptic import document, encode_ids, segment_index, to_annotation
from m2fbench.formats.panoptic_predictions import read_predictions
from m2fbench.metrics import panoptic_official
from m2fbench.metrics.panoptic_files import counts_of_files
from m2fbench.metrics.panoptic_quality import PanopticCounts, PanopticQuality, image_counts, panoptic_counts, summarise
from m2fbench.types import Category, Example, ImageId, Measurement, PanopticMap, Predictions, ScoringRules, Segment

ALLOWED = 1e-9
RULES = ScoringRules()
CATEGORIES = tuple(Category(f"c{k}", k in (0, 1, 4)) for k in range(6))
CATEGORY_IDS = (1, 3, 7, 20, 90, 200)
THINGS = np.array([c.is_thing for c in CATEGORIES])


class Maps:
    """A dataset of the maps it is given, of which a metric needs no more."""

    categories, category_ids = CATEGORIES, CATEGORY_IDS

    def __init__(self, truth: Sequence[PanopticMap]) -> None:
        self._truth = truth

    def examples(self) -> list[Example]:
        return [Example(k, m.ids.shape, f"{k}.png") for k, m in enumerate(self._truth)]  # type: ignore[arg-type]

    def panoptic_truth(self, example: Example) -> PanopticMap:
        return self._truth[int(example.image_id)]


def write(folder: Path, name: str, dataset: Any, maps: Sequence[PanopticMap]) -> Predictions:
    """The maps in COCO panoptic format: name.json and the folder name."""
    (folder / name).mkdir()
    annotations = []
    for example, panoptic in zip(dataset.examples(), maps, strict=True):
        file_name = f"{file_stem(example.image_id)}.png"
        (folder / name / file_name).write_bytes(encode_ids(panoptic.ids))
        annotations.append(to_annotation(example.image_id, file_name, panoptic, dataset.category_ids))
    categories = dict(zip(dataset.category_ids, dataset.categories, strict=True))
    (folder / f"{name}.json").write_text(json.dumps(document(dataset.examples(), annotations, categories)))
    return Predictions(panoptic=folder / f"{name}.json", panoptic_folder=folder / name)


def score_all(
    folder: Path, truth: Sequence[PanopticMap], found: Sequence[PanopticMap], dataset: Any = None
) -> tuple[Measurement, ...]:
    """Our figures, which every evaluator at hand confirms."""
    dataset = dataset or Maps(truth)
    predictions = write(folder, "found", dataset, found)
    ids: list[ImageId] = [e.image_id for e in dataset.examples()]
    metric = PanopticQuality()
    score = metric.score(dataset, predictions, ids, RULES)
    for evaluators in [[e] for e in panoptic_official._EVALUATORS if importlib.util.find_spec(e[0].lower())]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(panoptic_official, "_EVALUATORS", evaluators * 2)
            verification = metric.verify(dataset, predictions, ids, RULES, score)
        assert verification.evaluator.startswith(evaluators[0][0])
        assert verification.difference <= ALLOWED
    check_with_hotcoco(folder, dataset, truth, score)
    return score


def check_with_hotcoco(folder: Path, dataset: Any, truth: Sequence[PanopticMap], score: Sequence[Measurement]) -> None:
    from hotcoco import panoptic

    write(folder, "truth", dataset, truth)
    evaluation = panoptic.PanopticEval(str(folder / "truth.json"), str(folder / "found.json"))
    evaluation.evaluate()
    results = evaluation.results()
    for suffix, group in (("", "All"), ("_th", "Things"), ("_st", "Stuff")):
        for part in ("PQ", "SQ", "RQ"):
            ours = value(score, part + suffix)
            theirs = results[group][part.lower()] if results[group]["n"] else math.nan
            assert ours == pytest.approx(100 * theirs, abs=ALLOWED, nan_ok=True)


def value(score: Sequence[Measurement], name: str, category: str | None = None) -> float:
    return next(m.value for m in score if (m.name, m.category) == (name, category))


def panoptic(ids: Any, *segments: Segment) -> PanopticMap:
    return PanopticMap(np.array(ids, np.int32), segments)


def random_maps(rng: np.random.Generator) -> tuple[PanopticMap, PanopticMap]:
    """Truth of rectangles over void and over one another, with crowds; the prediction is that truth, changed in every way."""
    height, width = rng.integers(1, 40, 2).tolist()
    ids = np.zeros((height, width), np.int32)
    numbers = rng.choice(2**24 - 1, 8, replace=False) + 1
    for number in numbers[: rng.integers(0, 9)]:
        top, left = rng.integers(0, height), rng.integers(0, width)
        ids[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = number
    truth = with_segments(rng, ids, crowds=True)
    moved = np.roll(ids, rng.integers(-2, 3, 2), (0, 1))
    if rng.random() < 0.6 and len(truth.segments) > 1:  # one swallows another
        first, second = rng.choice([s.id for s in truth.segments], 2)
        moved[moved == first] = second
    if rng.random() < 0.5:  # cut in two
        moved[: height // 2][moved[: height // 2] > 0] ^= 1 << 23
        moved[moved == 1 << 23] = 5
    if rng.random() < 0.5:  # void, and a segment where there was void
        top = rng.integers(0, height)
        moved[top : top + 4] = rng.choice([0, 77])
    return truth, with_segments(rng, moved, like=truth)


def with_segments(
    rng: np.random.Generator, ids: np.ndarray, *, crowds: bool = False, like: PanopticMap | None = None
) -> PanopticMap:
    known = {s.id: s.category for s in like.segments} if like else {}
    segments = []
    for number in rng.permutation(np.unique(ids[ids > 0])).tolist():
        category = int(rng.integers(0, 5))  # the last class is never there
        if number in known and rng.random() < 0.8:
            category = known[number]
        area = int((ids == number).sum()) + int(rng.integers(1, 40)) if crowds and rng.random() < 0.3 else None  # annotated
        segments.append(Segment(number, category, crowds and bool(rng.random() < 0.3), area))
    return PanopticMap(ids, tuple(segments))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 5))
def test_random_maps_equal_the_official_evaluators(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    pairs = [random_maps(rng) for _ in range(images)]
    score = score_all(tmp_path_factory.mktemp("case"), [t for t, _ in pairs], [p for _, p in pairs])
    assert len(score) == 9 + 7 * len(CATEGORIES)


HALVES = [[1, 1, 1, 1], [2, 2, 2, 2]]
NOTHING = panoptic(np.zeros((2, 4)))
DEGENERATE = {
    "nothing on either side": (NOTHING, NOTHING),
    "nothing found": (panoptic(HALVES, Segment(1, 0), Segment(2, 3)), NOTHING),
    "all void in truth": (NOTHING, panoptic(HALVES, Segment(1, 0), Segment(2, 3))),
    "only a crowd": (panoptic([[0, 9, 9, 9]] * 2, Segment(9, 0, True)), panoptic(HALVES, Segment(1, 0), Segment(2, 3))),
    "half void, exactly": (panoptic([[0, 0, 9, 9]] * 2, Segment(9, 1)), panoptic([[7] * 4] * 2, Segment(7, 0))),
    "IoU of exactly a half": (panoptic([[9, 9, 9, 0]] * 2, Segment(9, 1)), panoptic([[0, 0, 7, 7]] * 2, Segment(7, 1))),
    "one pixel": (panoptic([[3]], Segment(3, 2)), panoptic([[2**24 - 1]], Segment(2**24 - 1, 2))),
    "largest ids": (panoptic([[2**24 - 1, 65536]], Segment(2**24 - 1, 2), Segment(65536, 2)), panoptic([[1, 256]], Segment(1, 2), Segment(256, 2))),
}  # fmt: skip


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_maps_equal_the_official_evaluators(case: str, tmp_path: Path) -> None:
    truth, found = DEGENERATE[case]
    score_all(tmp_path, [truth], [found])


def test_two_crowds_of_a_class_as_in_panopticapi_the_last_one_counts(tmp_path: Path) -> None:
    """Two thirds of the prediction lie on two crowds of its class, but only one third on that which is listed last."""
    truth = panoptic([[8, 9, 0]] * 2, Segment(8, 0, True), Segment(9, 0, True))
    truth.ids[truth.ids == 0] = 4
    truth = PanopticMap(truth.ids, (*truth.segments, Segment(4, 1)))
    found = panoptic([[5, 5, 5]] * 2, Segment(5, 0))
    assert value(score_all(tmp_path, [truth], [found]), "FP", "c0") == 1
    one = PanopticMap(np.where(truth.ids == 8, 9, truth.ids), truth.segments[1:])
    assert panoptic_counts(one, found, 6).fp[0] == 0


def test_a_crowd_excuses_its_own_class_only() -> None:
    truth = panoptic([[9, 9, 9, 4]], Segment(9, 0, True), Segment(4, 1))
    assert panoptic_counts(truth, panoptic([[5, 5, 5, 5]], Segment(5, 0)), 6).fp.sum() == 0
    assert panoptic_counts(truth, panoptic([[5, 5, 5, 5]], Segment(5, 1)), 6).fp.tolist() == [0, 1, 0, 0, 0, 0]


def test_what_there_is_none_of_is_not_measured(tmp_path: Path) -> None:
    truth = panoptic(HALVES, Segment(1, 0), Segment(2, 1))
    found = panoptic(HALVES, Segment(1, 0), Segment(2, 4))
    score = score_all(tmp_path, [truth], [found])
    assert [value(score, "PQ", f"c{k}") for k in (0, 1, 4)] == [100, 0, 0]  # matched, missed, invented: all count
    assert all(math.isnan(value(score, part, f"c{k}")) for part in ("PQ", "SQ", "RQ") for k in (2, 3, 5))
    assert value(score, "PQ") == pytest.approx(100 / 3)
    assert math.isnan(value(score, "PQ_st"))
    assert [value(score, name, "c4") for name in ("TP", "FP", "FN", "truth_segments")] == [0, 1, 0, 0]
    assert [value(score, name, "c1") for name in ("TP", "FP", "FN", "truth_segments")] == [0, 0, 1, 1]
    assert next(m for m in score if m.name == "FP").unit == "count"
    assert not next(m for m in score if m.name == "FP").higher_is_better


def test_no_images_at_all_is_not_measured(tmp_path: Path) -> None:
    dataset = Maps([NOTHING])
    predictions = write(tmp_path, "found", dataset, [NOTHING])
    score = PanopticQuality().score(dataset, predictions, [], RULES)  # type: ignore[arg-type]
    assert all(math.isnan(m.value) for m in score if m.unit == "percent")
    assert PanopticQuality().verify(dataset, predictions, [], RULES, score).difference == 0  # type: ignore[arg-type]


def test_verification_sees_a_wrong_figure(tmp_path: Path) -> None:
    dataset = Maps([panoptic(HALVES, Segment(1, 0), Segment(2, 3))])
    predictions = write(tmp_path, "found", dataset, [panoptic(HALVES, Segment(1, 0), Segment(2, 3))])
    score = PanopticQuality().score(dataset, predictions, [0], RULES)  # type: ignore[arg-type]
    for number, measurement in enumerate(score):
        wrong = list(score)
        wrong[number] = Measurement(measurement.name, 50.0 if measurement.measured else 0.0, category=measurement.category)
        assert PanopticQuality().verify(dataset, predictions, [0], RULES, wrong).difference >= 1  # type: ignore[arg-type]


def test_the_annotated_area_counts_where_the_truth_gives_one(tmp_path: Path) -> None:
    """4 pixels of an annotated 10 are left: IoU 4/10, no match; of an annotated 7, 4/7. One without pixels is a miss."""
    found = panoptic(HALVES, Segment(1, 0), Segment(2, 3))
    for area, matched in ((10, 0), (7, 1)):
        (folder := tmp_path / str(area)).mkdir()
        truth = panoptic(HALVES, Segment(1, 0, area=area), Segment(2, 3), Segment(6, 2, area=50))
        score = score_all(folder, [truth], [found])
        assert value(score, "TP", "c0") == matched
        assert value(score, "SQ", "c0") == (pytest.approx(400 / 7) if matched else 0)
        assert value(score, "FN", "c2") == 1


def void_on_truth() -> tuple[PanopticMap, PanopticMap]:
    """60 of a segment's 100 pixels found and the rest left void, and another segment wholly left void."""
    ids = np.zeros((10, 20), np.int32)
    ids[:, :10], ids[:, 10:] = 1, 2
    left = np.zeros_like(ids)
    left[:, :6] = 1
    return panoptic(ids, Segment(1, 0), Segment(2, 1)), panoptic(left, Segment(1, 0))


def test_void_where_there_is_truth_is_no_excuse(tmp_path: Path) -> None:
    """IoU 60/100 and a miss, so PQ is 60 and 0, and their mean 30."""
    truth, found = void_on_truth()
    score = score_all(tmp_path, [truth], [found])
    assert [value(score, "PQ", "c0"), value(score, "PQ", "c1"), value(score, "PQ")] == pytest.approx([60, 0, 30])


@pytest.mark.full
@pytest.mark.skipif(not importlib.util.find_spec("torchmetrics"), reason="torchmetrics is not installed")
def test_torchmetrics_does_excuse_it() -> None:
    """Why its figures are not these: to it the same prediction is perfect."""
    import torch
    from torchmetrics.detection import PanopticQuality as Other

    def pairs(of: PanopticMap) -> torch.Tensor:
        classes = np.array([99, *(s.category for s in of.segments)])[segment_index(of.ids, of.segments)]
        return torch.from_numpy(np.stack([classes, of.ids], -1))[None]

    truth, found = map(pairs, void_on_truth())
    assert float(Other(things={0, 1, 4}, stuffs={2, 3, 5}, allow_unknown_preds_category=True)(found, truth)) == pytest.approx(1)


def test_counts_add_up_and_a_summary_needs_no_more() -> None:
    rng = np.random.default_rng(4)
    each = [panoptic_counts(*random_maps(rng), 6) for _ in range(8)]
    total = sum(each, PanopticCounts.none(6))
    np.testing.assert_array_equal(total.tp, np.sum([c.tp for c in each], 0))
    overall, by_class = summarise(total, THINGS)
    assert overall["PQ"] == pytest.approx(np.nanmean(by_class["PQ"]))
    assert total.iou.dtype == np.float64
    assert {a.dtype for a in (total.tp, total.fp, total.fn, total.truth)} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "found/000000000000.png").unlink(), r"000000000000\.png: no such PNG; .*found\.json names it"),
        (lambda folder: (folder / "found/000000000000.png").write_bytes(b"no"), r"000000000000\.png: not a readable PNG"),
        (lambda folder: put(folder, np.ones((3, 4))), r"000000000000\.png: expected 4x2 pixels as the image has, got 4x3"),
        (lambda folder: put(folder, [[1, 1, 1, 1], [2, 2, 6, 7]]), r"\.png: segment 6 and 1 more is in the PNG and not in the JSON"),
        (lambda folder: put(folder, np.ones((2, 4))), r"\.png: segment 2 is in the JSON and not in the PNG"),
        (lambda folder: (folder / "found.json").write_text('{"annotations": []}'), r"found\.json: no prediction for image 0; "),
        (lambda folder: (folder / "found.json").write_text("{"), r"found\.json: not valid JSON"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("files", [False, True])
def test_predictions_that_cannot_be_scored_are_one_line(change: Any, message: str, files: bool, tmp_path: Path) -> None:
    truth = panoptic(HALVES, Segment(1, 0), Segment(2, 3))
    dataset: Any = Maps([truth])
    predictions = write(tmp_path, "found", dataset, [truth])
    if files:
        write(tmp_path, "truth", dataset, [truth])
        dataset = CocoPanoptic(CocoPanopticOptions(annotations="truth.json"), tmp_path)
    change(tmp_path)
    with pytest.raises(PredictionsError, match=message) as error:
        PanopticQuality().score(dataset, predictions, [0], RULES)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def put(folder: Path, ids: Any) -> None:
    (folder / "found/000000000000.png").write_bytes(encode_ids(np.array(ids, np.int32)))


def disturbed(rng: np.random.Generator, truth: PanopticMap) -> PanopticMap:
    """A real photo's truth as a model might find it: moved, some segments lost, split, merged, of another class, or void."""
    ids = np.roll(truth.ids, rng.integers(-9, 10, 2), (0, 1))
    category = {s.id: s.category for s in truth.segments}
    for segment in truth.segments:
        mine, fate = ids == segment.id, rng.random()
        if fate < 0.1:
            ids[mine] = 0
        elif fate < 0.25:
            new = max(category) + 1
            ids[mine & (np.arange(ids.shape[1]) > np.median(np.nonzero(mine)[1]) if mine.any() else mine)] = new
            category[new] = segment.category
        elif fate < 0.35:
            ids[mine] = rng.choice(list(category))
        elif fate < 0.5:
            category[segment.id] = int(rng.integers(0, 133))
    eighth = len(ids) // 8
    ids[:eighth], ids[-eighth:] = 0, 3
    category[3] = int(rng.integers(0, 133))
    return PanopticMap(ids, tuple(Segment(i, category[i]) for i in np.unique(ids[ids > 0]).tolist()))


def coco(folder: Path, rng: np.random.Generator, images: int = 6) -> tuple[CocoPanoptic, Predictions]:
    """A dataset in files, and predictions for it."""
    pairs = [random_maps(rng) for _ in range(images)]
    maps = Maps([truth for truth, _ in pairs])
    (folder / "annotations").mkdir()
    write(folder / "annotations", "truth", maps, [truth for truth, _ in pairs])
    dataset = CocoPanoptic(CocoPanopticOptions(annotations="annotations/truth.json"), folder)
    return dataset, write(folder, "found", maps, [found for _, found in pairs])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 6))
def test_truth_in_files_gives_the_same_counts(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("case")
    dataset, predictions = coco(folder, np.random.default_rng(seed), images)
    examples = dataset.examples()
    entries = read_predictions(folder / "found.json", folder / "found", {e.image_id: e.size for e in examples}, CATEGORY_IDS)
    quick = counts_of_files(dataset, examples, entries)
    assert quick is not None
    ours = sum(image_counts(dataset, predictions, [e.image_id for e in examples]), PanopticCounts.none(len(CATEGORIES)))
    np.testing.assert_array_equal(quick[0], [ours.tp, ours.fp, ours.fn, ours.truth])
    np.testing.assert_allclose(quick[1], ours.iou, atol=ALLOWED)
    again = counts_of_files(dataset, examples, entries)
    np.testing.assert_array_equal(quick[1], again[1])  # to the last bit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, unused: np.where(ids == ids.max(), 0, ids), "is in the JSON and not in the PNG"),
        (lambda ids, unused: np.where(np.arange(ids.size).reshape(ids.shape) == 0, unused, ids), "is in the PNG and not in the JSON"),
    ],
)  # fmt: skip
def test_truth_of_other_segments_than_listed_is_refused_before_it_comes_to_files(tmp_path: Path, change: Any, message: str) -> None:
    """Which the quick way leaves to ``check``."""
    dataset, predictions = coco(tmp_path, np.random.default_rng(3))
    dataset.check()
    example = next(e for e in dataset.examples() if dataset.panoptic_truth(e).segments)
    path, segments = dataset.panoptic_file(example)
    changed = change(dataset.panoptic_truth(example).ids, max(s.id for s in segments) + 1)
    path.write_bytes(encode_ids(changed.astype(np.int32)))
    for attempt in (dataset.check, lambda: image_counts(dataset, predictions, [example.image_id])):
        with pytest.raises(DatasetError, match=message):
            list(attempt() or [])


def test_files_that_are_no_plain_rgb_go_the_other_way(tmp_path: Path) -> None:
    dataset, predictions = coco(tmp_path, np.random.default_rng(3))
    ids = [e.image_id for e in dataset.examples()]
    before = PanopticQuality().score(dataset, predictions, ids, RULES)
    for path in (tmp_path / "found").glob("*.png"):
        Image.open(path).quantize(256).save(path)
        assert Image.open(path).mode == "P"
    entries = read_predictions(tmp_path / "found.json", None, {e.image_id: e.size for e in dataset.examples()}, CATEGORY_IDS)
    assert counts_of_files(dataset, dataset.examples(), entries) is None
    after = PanopticQuality().score(dataset, predictions, ids, RULES)
    assert [m.value for m in after] == pytest.approx([m.value for m in before], abs=ALLOWED, nan_ok=True)


@pytest.mark.full
def test_real_photos_equal_the_official_evaluators(shared: Path, tmp_path: Path) -> None:
    dataset = CocoPanoptic(CocoPanopticOptions(), shared / "data/coco_real")
    rng = np.random.default_rng(7)
    truth = [dataset.panoptic_truth(e) for e in dataset.examples()]
    assert sum(s.is_crowd for t in truth for s in t.segments) > 0
    score = score_all(tmp_path, truth, [disturbed(rng, t) for t in truth], dataset)
    assert 10 < value(score, "PQ") < 80


@pytest.mark.full
def test_real_files_equal_the_official_evaluators_own_reading(shared: Path, tmp_path: Path) -> None:
    """The annotation files themselves, not as we have read and written them."""
    root = shared / "data/coco_real"
    dataset = CocoPanoptic(CocoPanopticOptions(), root)
    rng = np.random.default_rng(8)
    found = [disturbed(rng, dataset.panoptic_truth(e)) for e in dataset.examples()]
    predictions = write(tmp_path, "found", dataset, found)
    score = PanopticQuality().score(dataset, predictions, [e.image_id for e in dataset.examples()], RULES)
    truth = json.loads((root / "annotations/panoptic_val2017.json").read_bytes())
    entries = {a["image_id"]: a for a in json.loads((tmp_path / "found.json").read_bytes())["annotations"]}
    pairs = [(a, entries[a["image_id"]]) for a in truth["annotations"]]
    categories = {c["id"]: c for c in truth["categories"]}
    folders = str(root / "annotations/panoptic_val2017"), str(tmp_path / "found")
    for package, module in panoptic_official._EVALUATORS:
        if importlib.util.find_spec(package.lower()):
            program = importlib.import_module(module)
            with contextlib.redirect_stdout(io.StringIO()):
                stat = program.pq_compute_single_core(0, pairs, *folders, categories)
            for suffix, things in (("", None), ("_th", True), ("_st", False)):
                means, _ = stat.pq_average(categories, things)
                for part in ("PQ", "SQ", "RQ"):
                    assert value(score, part + suffix) == pytest.approx(100 * means[part.lower()], abs=ALLOWED)
