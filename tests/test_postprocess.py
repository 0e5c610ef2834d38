"""Post-processing against the original code's outputs, and against the paper's order of operations written plainly."""

import json
import sys
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pycocotools.mask
import pytest
import torch
from conftest import FIXTURES, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_paper import plain_instances, plain_panoptic

from m2fbench.models import postprocess
from m2fbench.models.postprocess import (
    encode_instances,
    encode_masks,
    instance_inference,
    instance_masks,
    panoptic_inference,
    select_detections,
    upsample,
)
from m2fbench.models.preprocess import Geometry

GOLDEN = sorted((SHARED / "golden").glob("postprocess_*.npz")) or [
    pytest.param(None, marks=pytest.mark.skip(reason="no golden data here"))
]
SMALL = [FIXTURES / "postprocess_coco_instance_80.npz", FIXTURES / "postprocess_down_q200.npz"]
UNSURE = 1e-5  # another CPU may round a logit this near to zero to the other side


def _read(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        golden = {name: file[name] for name in file.files}
    sizes = (tuple(golden[f"{kind}_size"].tolist()) for kind in ("output", "resized", "padded"))
    golden["geometry"] = Geometry(*sizes)
    golden["heads"] = set(golden["heads"].tolist()) if "heads" in golden else {"semantic", "instance", "panoptic"}
    golden["things"] = golden["thing_classes"].tolist() if "thing_classes" in golden else list(range(int(golden["num_things"])))
    golden["classes"] = torch.from_numpy(golden["class_logits"])
    golden["masks"] = torch.from_numpy(golden["mask_logits"].astype(np.float32))
    return golden


def _compare_instances(golden: dict[str, Any]) -> int:
    """Classes, scores and masks as sets; returns the number of pixels that differ, all of them unsure."""
    things = golden["things"] if "panoptic" in golden["heads"] else None
    found = instance_inference(
        golden["classes"], golden["masks"], golden["geometry"], things=things, detections=int(golden["topk"])
    )
    expected = [json.loads(str(text)) for text in golden["instance_rles"]]
    assert len(found) == len(expected)
    ours = sorted(range(len(found)), key=lambda k: (found.categories[k], round(float(found.scores[k]), 5), found.rles[k]["counts"]))
    theirs = sorted(
        range(len(expected)),
        key=lambda k: (golden["instance_classes"][k], round(float(golden["instance_scores"][k]), 5), expected[k]["counts"]),
    )
    differing = 0
    for a, b in zip(ours, theirs, strict=True):
        assert found.categories[a] == golden["instance_classes"][b]
        assert found.scores[a] == pytest.approx(float(golden["instance_scores"][b]), abs=1e-5)
        if found.rles[a]["counts"] != expected[b]["counts"]:
            masks = [pycocotools.mask.decode(rle).astype(bool) for rle in (found.rles[a], expected[b])]
            differing += int((masks[0] != masks[1]).sum())
            logits = upsample(golden["masks"], golden["geometry"]).abs().amin(0).numpy()
            assert (logits[masks[0] != masks[1]] < UNSURE).all()
    return differing


@pytest.mark.full
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem if p else "absent")
def test_instances_equal_the_original(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = _read(path)
    if "instance" not in golden["heads"]:
        assert "instance_scores" not in golden  # the Mapillary configuration runs no instance head
        return
    differing = _compare_instances(golden)
    with capsys.disabled():
        print(f" {path.stem}: {differing} pixels differ", end="")


@pytest.mark.parametrize("path", SMALL, ids=lambda p: p.stem)
def test_instances_equal_the_original_small(path: Path) -> None:
    assert _compare_instances(_read(path)) == 0


@pytest.mark.full
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem if p else "absent")
def test_panoptic_maps_equal_the_original(path: Path) -> None:
    golden = _read(path)
    if "panoptic" not in golden["heads"]:
        assert "panoptic_map" not in golden
        return
    found = panoptic_inference(
        golden["classes"], golden["masks"], golden["geometry"], things=golden["things"],
        object_threshold=float(golden["object_mask_threshold"]), overlap_threshold=float(golden["overlap_threshold"]),
    )  # fmt: skip
    assert [(s.id, s.category in golden["things"], s.category) for s in found.segments] == [
        (s["id"], s["isthing"], s["category_id"]) for s in json.loads(str(golden["panoptic_segments"]))
    ]
    np.testing.assert_array_equal(found.ids, golden["panoptic_map"])


def _random(seed: int, queries: int, classes: int, geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    height, width = (edge // 4 for edge in geometry.padded)
    coarse = 6 * torch.randn(1, queries, 3, 4, generator=generator) - 2
    masks = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    return 3 * torch.randn(queries, classes + 1, generator=generator), masks


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 30),
    classes=st.integers(1, 12),
    size=st.tuples(st.integers(5, 90), st.integers(5, 90)),
    resized=st.tuples(st.integers(20, 64), st.integers(20, 64)),
    detections=st.integers(1, 150),
    block=st.sampled_from([1, 40_000, 1 << 24]),
    panoptic=st.booleans(),
)
def test_faster_order_gives_what_the_plain_order_gives(
    seed: int,
    queries: int,
    classes: int,
    size: tuple[int, int],
    resized: tuple[int, int],
    detections: int,
    block: int,
    panoptic: bool,
) -> None:
    """The same masks bit for bit, whatever the sizes, the number of detections and the memory given to a block."""
    geometry = Geometry(size, resized, (64, 64))
    class_logits, mask_logits = _random(seed, queries, classes, geometry)
    things = list(range(0, classes, 2)) if panoptic else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(postprocess.BLOCK_BYTES, "cpu", block)
        found = instance_inference(class_logits, mask_logits, geometry, things=things, detections=detections)
        halves = encode_instances(instance_masks(select_detections(class_logits, things, detections), mask_logits, geometry))
    assert halves.rles == found.rles
    np.testing.assert_array_equal(halves.categories, found.categories)
    np.testing.assert_array_equal(halves.scores, found.scores)
    scores, labels, masks = plain_instances(class_logits, mask_logits, geometry, things, detections)
    expected = sorted((int(c), r["counts"]) for c, r in zip(labels, encode_masks(masks) if len(masks) else [], strict=True))
    assert sorted((int(c), r["counts"]) for c, r in zip(found.categories, found.rles, strict=True)) == expected
    np.testing.assert_allclose(sorted(found.scores), sorted(scores.double()), rtol=0, atol=1e-6)
    assert (np.diff(found.scores) <= 0).all()


LIMITS = {
    "object_threshold": st.sampled_from([0.0, 0.3, 0.8, 0.999]),
    "overlap_threshold": st.sampled_from([0.0, 0.3, 0.8, 1.0]),
}


def _same_map(logits: tuple[torch.Tensor, torch.Tensor], geometry: Geometry, classes: int, limits: dict[str, float]) -> None:
    """Pixel for pixel and segment for segment; every second class is a thing."""
    things = list(range(0, classes, 2))
    ids, segments = plain_panoptic(*logits, geometry, things, **limits)
    found = panoptic_inference(*logits, geometry, things=things, **limits)
    assert [(s.id, s.category) for s in found.segments] == segments
    assert found.ids.dtype == np.int32
    np.testing.assert_array_equal(found.ids, ids.numpy())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 30),
    classes=st.integers(1, 5),
    size=st.tuples(st.integers(40, 90), st.sampled_from([96, 112])),
    resized=st.tuples(st.integers(40, 96), st.sampled_from([80, 96])),
    same_size=st.booleans(),
    block=st.sampled_from([1, 80_000, 1 << 24]),
    spread=st.sampled_from([0.5, 3.0, 8.0]),
    limits=st.fixed_dictionaries(LIMITS),
)
def test_the_vectorised_rule_gives_the_plain_rules_map(
    seed: int,
    queries: int,
    classes: int,
    size: tuple[int, int],
    resized: tuple[int, int],
    same_size: bool,
    block: int,
    spread: float,
    limits: dict[str, float],
) -> None:
    """Few classes, so that stuff merges. Smaller sizes, and rows that fill no vector register, torch itself rounds otherwise alone than in
    a batch, which the plain order has."""
    geometry = Geometry(resized if same_size else size, resized, (96, 96))
    class_logits, mask_logits = _random(seed, queries, classes, geometry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(postprocess.BLOCK_BYTES, "cpu", block)
        _same_map((spread * class_logits, mask_logits), geometry, classes, limits)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), queries=st.integers(1, 20), classes=st.integers(1, 3), limits=st.fixed_dictionaries(LIMITS)
)  # fmt: skip
def test_of_equals_the_first_query_wins(seed: int, queries: int, classes: int, limits: dict[str, float]) -> None:
    """Few values at a size that needs no interpolation: most pixels are ties, at 0.5 and at 0 too, and whole masks are empty."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([-200.0, -3.0, 0.0, 3.0, 40.0])
    mask_logits = values[torch.randint(5, (queries, 8, 8), generator=generator)].repeat_interleave(8, 1).repeat_interleave(8, 2)
    mask_logits[torch.rand(queries, generator=generator) < 0.2] = -200.0
    class_logits = 2.0 * torch.randint(4, (queries, classes + 1), generator=generator)
    _same_map((class_logits, mask_logits), Geometry((64, 64), (64, 64), (64, 64)), classes, limits)


def test_a_share_at_the_threshold_is_enough() -> None:
    """7 of 10 rows are 0.7 as Python divides, a little less in single precision; and all of an area is a share of 1."""
    rows = [(0, 10), (0, 3), (10, 64)]  # the first query loses 3 of its 10 rows to the second, who is surer
    mask_logits = torch.full((3, 64, 64), -200.0)
    for query, (start, stop) in enumerate(rows):
        mask_logits[query, start:stop] = 40.0
    class_logits = torch.zeros(3, 4)
    class_logits[[0, 1, 2], [0, 1, 2]] = torch.tensor([5.0, 9.0, 7.0])
    order = [2, 0, 1]  # where all are 0 the first wins, which is to be the one that fills the rest
    geometry = Geometry((64, 64), (64, 64), (64, 64))
    for threshold, expected in ((0.7, [2, 0, 1]), (0.7 + 1e-9, [2, 1]), (1.0, [2, 1])):
        found = panoptic_inference(class_logits[order], mask_logits[order], geometry, things=[0], overlap_threshold=threshold)
        assert [s.category for s in found.segments] == expected, threshold


def test_more_queries_than_a_byte_counts() -> None:
    geometry = Geometry((40, 50), (64, 64), (64, 64))
    mask_logits = torch.full((300, 16, 16), -8.0)
    for query in range(300):  # each a stripe of its own, those of the last 50 over those of the first
        mask_logits[query, query % 250 // 16, query % 16] = 9.0 + query / 100
    class_logits = torch.zeros(300, 301)
    class_logits[torch.arange(300), torch.arange(300)] = 20.0
    for overlap in (0.0, 0.5):
        ids, segments = plain_panoptic(class_logits, mask_logits, geometry, list(range(150)), overlap_threshold=overlap)
        found = panoptic_inference(class_logits, mask_logits, geometry, things=range(150), overlap_threshold=overlap)
        assert len(segments) > 200
        assert [(s.id, s.category) for s in found.segments] == segments
        np.testing.assert_array_equal(found.ids, ids.numpy())


def test_a_winner_is_solid_where_its_value_is_half_its_probability() -> None:
    """The comparison that spares keeping each winner's own sigmoid: for every float next to 0.5 and every kind of probability."""
    near = [0.5]
    for _ in range(40):
        near.append(float(np.nextafter(np.float32(near[-1]), np.float32(0))))
    near += [float(np.nextafter(np.float32(0.5), np.float32(1))), 0.0, 1e-30, 0.25, 0.75, 1.0]
    sigmoid = torch.tensor(near)
    generator = torch.Generator().manual_seed(0)
    powers = 2.0 ** -torch.arange(0, 12)
    probability = torch.cat((torch.rand(200_000, generator=generator), powers, torch.nextafter(powers, powers * 0), powers * 0.75))
    probability = probability[probability > 1e-3][:, None]
    assert torch.equal(probability * sigmoid >= probability / 2, (sigmoid >= 0.5).expand(len(probability), -1))


def test_empty_masks_stay_with_score_zero() -> None:
    geometry = Geometry((20, 30), (32, 32), (32, 32))
    found = instance_inference(torch.zeros(4, 3), torch.full((4, 8, 8), -5.0), geometry, things=None)
    assert len(found) == 8  # 4 queries x 2 classes, fewer than 100
    assert (found.scores == 0).all()
    assert [int(hotcoco.mask.area(r)) for r in found.rles] == [0] * 8


def test_no_things_among_the_top_gives_nothing() -> None:
    geometry = Geometry((20, 30), (32, 32), (32, 32))
    found = instance_inference(torch.zeros(2, 4), torch.zeros(2, 8, 8), geometry, things=[])
    assert len(found) == 0
    panoptic = panoptic_inference(torch.zeros(2, 4), torch.zeros(2, 8, 8), geometry, things=[0])
    assert panoptic.segments == ()
    assert not panoptic.ids.any()


def test_encoding_is_column_by_column_as_the_official_tool_has_it() -> None:
    masks = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    for mask, rle in zip(masks, encode_masks(masks), strict=True):
        official = pycocotools.mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert rle == {"size": [7, 5], "counts": official["counts"].decode()}


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_memory_stays_bounded() -> None:
    """200 queries on a 12-megapixel image: all at once would be 9.6 GB of logits."""
    script = """
import resource, torch
from m2fbench.models.postprocess import instance_inference
from m2fbench.models.preprocess import Geometry
torch.set_num_threads(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
masks = torch.nn.functional.interpolate(torch.randn(1, 200, 6, 8), size=(200, 272))[0]
found = instance_inference(torch.randn(200, 81), masks, Geometry((3000, 4000), (800, 1067), (800, 1088)), things=None)
print(len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    import subprocess

    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert int(output[0]) == 100
    assert int(output[1]) < 1024 * 1024, f"{int(output[1]) / 1024:.0f} MiB"  # ru_maxrss is in KiB
