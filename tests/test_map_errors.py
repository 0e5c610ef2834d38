"""What panoptic and semantic maps lose to which error: answers known by hand, and plain recounts pixel by pixel and mask by mask."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_cases import ArrayDataset, write_predictions
from semantic_cases import random_maps as random_labels
from test_panoptic_quality import ALLOWED, CATEGORIES, NOTHING, RULES, THINGS, Maps, panoptic, random_maps, value, write

from m2fbench.analysis.class_boundaries import PROFILE, at_boundary, band_width, dilated, profile_distances, within
from m2fbench.analysis.findings import ErrorFindings
from m2fbench.analysis.panoptic_errors import panoptic_confusion, panoptic_errors
from m2fbench.analysis.runs import Evidence
from m2fbench.analysis.semantic_errors import boundary_profile, semantic_confusion, semantic_errors
from m2fbench.formats.label_png import no_class, to_values
from m2fbench.metrics.panoptic_quality import PanopticQuality
from m2fbench.metrics.semantic_iou import SemanticIoU
from m2fbench.suite import load_suite
from m2fbench.types import PanopticMap, Segment

KINDS = ["missed", "false", "matching", "mask quality", "class"]
Pairs = list[tuple[PanopticMap, PanopticMap]]


def panoptic_evidence(folder: Path, pairs: Pairs) -> Evidence:
    dataset: Any = Maps([truth for truth, _ in pairs])
    predictions = write(folder, "found", dataset, [found for _, found in pairs])
    return Evidence(load_suite("shapes_panoptic"), dataset, predictions, tuple(dataset.examples()), None)


def costs(findings: ErrorFindings) -> dict[str, float]:
    return {share.name: share.cost for share in findings.shares}


def counted(findings: ErrorFindings) -> dict[str, float | None]:
    return {share.name: share.count for share in findings.shares}


def test_panoptic_errors_by_hand(tmp_path: Path) -> None:
    """A thing found at IoU 0.8 beside a false one of its class; one found with IoU 1 under another's name; stuff that is missed."""
    truth = panoptic(
        [[1, 1, 1, 1, 1, 0, 0, 0], [2, 2, 2, 2, 3, 3, 3, 3]], Segment(1, 0), Segment(2, 1), Segment(3, 3)
    )  # fmt: skip
    found = panoptic([[1, 1, 1, 1, 0, 0, 0, 0], [2, 2, 2, 2, 0, 0, 7, 0]], Segment(1, 0), Segment(2, 4), Segment(7, 0))
    findings = panoptic_errors(panoptic_evidence(tmp_path, [(truth, found)]))
    # class 0: 0.8 / (1 + 1/2); classes 1 (missed), 3 (missed), 4 (false): 0
    first = 80 / 1.5
    assert findings.figure == "PQ"
    assert findings.value == pytest.approx(first / 4)
    assert counted(findings) == {"missed": 2, "false": 2, "matching": 4, "mask quality": 1, "class": 1}
    assert costs(findings) == pytest.approx({
        "missed": (80 + 80) / 4,  # with the mean IoU of all matches, for their classes have none
        "false": 80 / 3 - first / 4,  # class 4 leaves the mean
        "matching": 80 - first / 4,
        "mask quality": (100 / 1.5 - first) / 4,
        "class": (first + 100) / 3 - first / 4,
    })  # fmt: skip
    assert list(findings.by_class) == ["c0", "c1", "c3", "c4"]
    assert findings.by_class["c1"] == pytest.approx({"missed": 80, "false": 0, "matching": 80, "mask quality": 0, "class": 100})
    assert [kind for kind, gain in findings.by_class["c4"].items() if math.isnan(gain)] == ["false", "matching", "class"]
    assert findings.by_group["stuff"] == pytest.approx(
        {"missed": 80, "false": 0, "matching": 80, "mask quality": 0, "class": 0}
    )  # fmt: skip
    assert findings.by_group["things"]["class"] == pytest.approx((first + 100) / 2 - first / 3)


def test_a_prediction_mostly_on_void_is_no_false_segment_but_can_be_of_the_wrong_class(tmp_path: Path) -> None:
    """Beside it one that is false: class 3 has it still when the other has got its right class."""
    truth = panoptic([[0, 0, 0, 1, 1], [2, 2, 2, 2, 2]], Segment(1, 0), Segment(2, 1))
    found = panoptic([[5, 5, 5, 5, 5], [0, 0, 0, 6, 6]], Segment(5, 3), Segment(6, 3))
    findings = panoptic_errors(panoptic_evidence(tmp_path, [(truth, found)]))
    assert counted(findings) == {"missed": 2, "false": 1, "matching": 3, "mask quality": 0, "class": 1}
    assert findings.value == 0
    assert costs(findings)["class"] == pytest.approx(100 / 3)
    assert findings.by_class["c3"]["class"] == 0
    assert costs(findings)["missed"] == pytest.approx(200 / 3)  # nothing matched, so as if found perfectly


def test_a_perfect_map_loses_nothing_and_no_map_has_nothing_to_lose(tmp_path: Path) -> None:
    truth = panoptic([[1, 1, 2, 2]] * 3, Segment(1, 0), Segment(2, 3))
    perfect = panoptic_errors(panoptic_evidence(tmp_path, [(truth, truth)]))
    assert (perfect.value, set(costs(perfect).values()), set(counted(perfect).values())) == (100, {0}, {0})
    (tmp_path / "none").mkdir()
    nothing = panoptic_errors(panoptic_evidence(tmp_path / "none", [(NOTHING, NOTHING)]))
    assert math.isnan(nothing.value)
    assert all(math.isnan(cost) for cost in costs(nothing).values())
    assert set(counted(nothing).values()) == {0}
    assert not nothing.by_class
    assert not nothing.by_group


class Recount:
    """PQ's counts by masks and loops, and every pair above an IoU of 0.5."""

    def __init__(self, pairs: Pairs) -> None:
        self.ious: dict[int, list[float]] = {c: [] for c in range(6)}
        self.missed, self.false, self.confused = Counter[int](), Counter[int](), Counter[tuple[int, int]]()
        self.wrong: list[tuple[int, int, float, bool]] = []
        for truth, found in pairs:
            self._add(truth, found)

    def _add(self, truth: PanopticMap, found: PanopticMap) -> None:
        void = truth.ids == 0
        matched_true, matched_found, paired_true, paired_found = set(), set(), set(), set()
        excused = {}
        for p in found.segments:
            mask = found.ids == p.id
            crowds = [t for t in truth.segments if t.is_crowd and t.category == p.category]
            on_crowd = (truth.ids == crowds[-1].id) & mask if crowds else np.zeros_like(mask)
            excused[p.id] = (mask & void).sum() + on_crowd.sum() > 0.5 * mask.sum()
        for t in (t for t in truth.segments if not t.is_crowd):
            for p in found.segments:
                true, mask = truth.ids == t.id, found.ids == p.id
                both = (true & mask).sum()
                iou = both / ((true.sum() if t.area is None else t.area) + (mask & ~void).sum() - both) if both else 0
                if iou <= 0.5:
                    continue
                self.confused[t.category, p.category] += 1
                paired_true.add(t.id)
                paired_found.add(p.id)
                if t.category == p.category:
                    self.ious[t.category].append(float(iou))
                    matched_true.add(t.id)
                    matched_found.add(p.id)
                else:
                    self.wrong.append((t.category, p.category, float(iou), not excused[p.id]))
        for t in (t for t in truth.segments if not t.is_crowd):
            self.missed[t.category] += t.id not in matched_true
            self.confused[t.category, 6] += t.id not in paired_true
        for p in (p for p in found.segments if not excused[p.id]):
            self.false[p.category] += p.id not in matched_found
            self.confused[6, p.category] += p.id not in paired_found

    def pq(self, group: set[int], kind: str = "none") -> float:
        """100 times the mean over the group's classes, the kind of error mended."""
        found = [self._of_class(c, kind) for c in sorted(group)]
        there = [iou / whole for iou, whole in found if whole]
        return 100 * sum(there) / len(there) if there else math.nan

    def _of_class(self, c: int, kind: str) -> tuple[float, float]:
        ious, missed, false = list(self.ious[c]), self.missed[c], self.false[c]
        every = [iou for of in self.ious.values() for iou in of]
        if kind in ("missed", "matching"):
            ious, missed = ious + missed * [float(np.mean(ious or every or [1]))], 0
        if kind in ("false", "matching"):
            false = 0
        if kind == "mask quality":
            ious = [1.0 for _ in ious]
        if kind == "class":
            right = [iou for true, _, iou, _ in self.wrong if true == c]
            ious, missed = ious + right, missed - len(right)
            false -= sum(was_false for _, taken_for, _, was_false in self.wrong if taken_for == c)
        assert missed >= 0
        assert false >= 0
        return sum(ious), len(ious) + missed / 2 + false / 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 4))
def test_panoptic_errors_are_those_of_a_plain_recount(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    pairs = [random_maps(rng) for _ in range(images)]
    evidence = panoptic_evidence(tmp_path_factory.mktemp("case"), pairs)
    findings, plain = panoptic_errors(evidence), Recount(pairs)
    score = PanopticQuality().score(evidence.dataset, evidence.predictions, evidence.image_ids, RULES)
    assert findings.value == pytest.approx(value(score, "PQ"), abs=ALLOWED, nan_ok=True)
    everything = set(range(6))
    things = {k for k in everything if THINGS[k]}

    def gain(group: set[int], kind: str) -> float:
        return plain.pq(group, kind) - plain.pq(group)

    assert list(costs(findings)) == KINDS
    for kind, cost in costs(findings).items():
        assert cost == pytest.approx(gain(everything, kind), abs=ALLOWED, nan_ok=True), kind
        for name, group in (("things", things), ("stuff", everything - things)):
            if name in findings.by_group:
                assert findings.by_group[name][kind] == pytest.approx(gain(group, kind), abs=ALLOWED, nan_ok=True)
        for k, category in enumerate(CATEGORIES):
            assert (category.name in findings.by_class) == (not math.isnan(plain.pq({k})))
            if category.name in findings.by_class:
                assert findings.by_class[category.name][kind] == pytest.approx(gain({k}, kind), abs=ALLOWED, nan_ok=True)
    confusion = panoptic_confusion(evidence)
    assert confusion.unit == "segments"
    assert {(i, j): n for i, row in enumerate(confusion.matrix) for j, n in enumerate(row) if n} == {
        pair: n for pair, n in plain.confused.items() if n
    }


def semantic_evidence(folder: Path, maps: list[tuple[np.ndarray, np.ndarray]], classes: int) -> Evidence:
    dataset: Any = ArrayDataset({k: t for k, (t, _) in enumerate(maps)}, range(classes))
    other = no_class(classes)
    predictions = write_predictions(folder, {k: to_values(p, range(classes), other) for k, (_, p) in enumerate(maps)})
    return Evidence(load_suite("shapes_semantic"), dataset, predictions, tuple(dataset.examples()), None)


def distances(truth: np.ndarray) -> np.ndarray:
    """Of each pixel from the nearest boundary, pixel by pixel; infinite without one."""
    nothing = no_class(1)
    height, width = truth.shape
    near = [
        (y, x)
        for y, x in np.ndindex(truth.shape)
        if truth[y, x] != nothing
        and any(
            truth[v, u] not in (truth[y, x], nothing)
            for v in range(max(y - 1, 0), min(y + 2, height))
            for u in range(max(x - 1, 0), min(x + 2, width))
        )
    ]
    found = np.full(truth.shape, math.inf)
    rows, columns = np.indices(truth.shape)
    for v, u in near:
        found = np.minimum(found, np.maximum(abs(rows - v), abs(columns - u)) + 1)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), size=st.sampled_from([(1, 1), (1, 12), (9, 1), (11, 14)]), far=st.integers(0, 20))
def test_what_is_near_a_boundary_is_so_by_every_pixels_distance(seed: int, size: tuple[int, int], far: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 255], size, p=[0.9, 0.05, 0.05]).astype(np.uint8)
    plain = distances(truth)
    np.testing.assert_array_equal(at_boundary(truth), plain == 1)
    for distance, mask in within(truth, [far, 0, 1, 3, far]).items():
        np.testing.assert_array_equal(mask, plain <= distance)
    mask = rng.random(size) < 0.05
    reached = [(y, x) for y, x in np.ndindex(size) if any(max(abs(y - v), abs(x - u)) <= far for v, u in np.argwhere(mask))]
    assert list(map(tuple, np.argwhere(dilated(mask, far)).tolist())) == reached


def test_the_band_is_a_share_of_the_diagonal_and_at_least_a_pixel() -> None:
    assert [band_width(size) for size in ((480, 640), (1024, 2048), (3, 4), (4000, 3000))] == [4, 11, 1, 25]
    assert profile_distances((480, 640)) == [1, 2, 4, 8, 16, 32, 64]
    assert profile_distances((3, 4)) == [0] * 7


def test_semantic_errors_by_hand(tmp_path: Path) -> None:
    """Halves of two classes, with a column of ignored pixels at the far left, which is no boundary. Band: the 2 columns beside the
    middle. Wrong: 3 of its 20 pixels, and 5 of the 170 inside, all of them class 1 taken for 0."""
    truth = np.zeros((10, 20), np.uint8)
    truth[:, 10:], truth[:, 0] = 1, 255
    predicted = truth.copy()
    predicted[:3, 10] = 0
    predicted[5, 15:] = 0
    predicted[:, 0] = 1
    findings = semantic_errors(semantic_evidence(tmp_path, [(truth, predicted)], 3))
    whole = [90 / 98, 92 / 100]
    assert (findings.figure, findings.head) == ("mIoU", "semantic")
    assert findings.value == pytest.approx(50 * sum(whole))
    assert counted(findings) == {"boundary band": 3, "inside": 5}
    band_mended, inside_mended = [90 / 95, 95 / 100], [90 / 93, 97 / 100]
    assert costs(findings) == pytest.approx(
        {"boundary band": 50 * (sum(band_mended) - sum(whole)), "inside": 50 * (sum(inside_mended) - sum(whole))}
    )
    assert findings.by_class == {
        f"class {k}": pytest.approx(
            {"boundary band": 100 * (band_mended[k] - whole[k]), "inside": 100 * (inside_mended[k] - whole[k])}
        )
        for k in (0, 1)
    }
    assert findings.by_group["boundary band"] == pytest.approx({
        "mIoU": 50 * (10 / 13 + 7 / 10), "pixel_accuracy": 100 * 17 / 20, "mean_accuracy": 50 * (1 + 7 / 10),
        "share of pixels": 100 * 20 / 190, "share of wrong pixels": 37.5, "mIoU if mended": 50 * sum(band_mended),
    })  # fmt: skip
    assert findings.by_group["inside"] == pytest.approx({
        "mIoU": 50 * (80 / 85 + 85 / 90), "pixel_accuracy": 100 * 165 / 170, "mean_accuracy": 50 * (1 + 85 / 90),
        "share of pixels": 100 * 170 / 190, "share of wrong pixels": 62.5, "mIoU if mended": 50 * sum(inside_mended),
    })  # fmt: skip
    confusion = semantic_confusion(semantic_evidence(tmp_path, [(truth, predicted)], 3))
    assert confusion.matrix == ((90, 0, 0, 0), (8, 92, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 3))
def test_semantic_errors_are_those_of_a_plain_recount(seed: int, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    maps = [random_labels(rng, 4, (4, 230)) for _ in range(images)]
    maps = [(np.where(rng.random((4, 1)) < 0.5, t, t[:, :1]).astype(np.uint8), p) for t, p in maps]
    evidence = semantic_evidence(tmp_path_factory.mktemp("case"), maps, 4)
    metric = SemanticIoU()

    def figures(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        of = semantic_evidence(tmp_path_factory.mktemp("part"), pairs, 4)
        return {m.name: m.value for m in metric.score(of.dataset, of.predictions, of.image_ids, RULES) if m.category is None}

    findings, near = semantic_errors(evidence), [np.minimum(distances(t), 10**6) for t, _ in maps]
    bands = [d <= 1 for d in near]  # half a percent of 230 pixels
    assert findings.value == pytest.approx(figures(maps)["mIoU"], abs=ALLOWED, nan_ok=True)
    for name, chosen in (("boundary band", bands), ("inside", [~band for band in bands])):
        own = figures([(np.where(c, t, 255).astype(np.uint8), p) for c, (t, p) in zip(chosen, maps, strict=True)])
        mended = figures([(t, np.where(c & (t < 255), t, p).astype(np.uint8)) for c, (t, p) in zip(chosen, maps, strict=True)])
        group = findings.by_group[name]
        assert [group["mIoU"], group["pixel_accuracy"], group["mIoU if mended"]] == pytest.approx(
            [own["mIoU"], own["pixel_accuracy"], mended["mIoU"]], abs=ALLOWED, nan_ok=True
        )
        assert costs(findings)[name] == pytest.approx(mended["mIoU"] - findings.value, abs=ALLOWED, nan_ok=True)
        wrong = sum(int((c & (t < 255) & (t != p)).sum()) for c, (t, p) in zip(chosen, maps, strict=True))
        assert counted(findings)[name] == wrong
    every = [
        (d, t == p) for near_of, (t_map, p_map) in zip(near, maps, strict=True)
        for d, t, p in zip(near_of.ravel(), t_map.ravel(), p_map.ravel(), strict=True) if t < 255
    ]  # fmt: skip
    accuracy, reached = boundary_profile(evidence)
    plain, last = {}, 0
    for share, far in zip(PROFILE, profile_distances((4, 230)), strict=True):
        ring = [right for d, right in every if last < d <= far]
        plain |= {share: sum(ring) / len(ring)} if ring else {}
        last = far
    assert dict(zip(accuracy.x, accuracy.y, strict=True)) == pytest.approx(plain)
    all_wrong = sum(not right for _, right in every)
    for share, far, y in zip(reached.x, profile_distances((4, 230)), reached.y, strict=False):
        assert y == pytest.approx(sum(not right for d, right in every if d <= far) / all_wrong), share


def test_a_map_of_one_class_or_of_none_has_no_boundary(tmp_path: Path) -> None:
    sky = np.zeros((6, 8), np.uint8)
    nothing = np.full((6, 8), 255, np.uint8)
    for number, truth in enumerate((sky, nothing)):
        evidence = semantic_evidence(tmp_path / str(number), [(truth, sky)], 2)
        findings = semantic_errors(evidence)
        assert np.isnan(findings.by_group["boundary band"]["mIoU"])
        assert counted(findings) == {"boundary band": 0, "inside": 0}
        assert findings.value == pytest.approx(100 if truth is sky else math.nan, nan_ok=True)
        assert all(math.isnan(group["share of wrong pixels"]) for group in findings.by_group.values())
        assert [curve.x for curve in boundary_profile(evidence)] == [(), ()]
    assert not semantic_errors(semantic_evidence(tmp_path / "none", [], 2)).by_class
