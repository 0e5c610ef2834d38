"""Semantic inference against the original code's outputs, in any block size, for one look at an image and for many."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import FIXTURES, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plain_paper import plain_semantic

from m2fbench.models import semantic
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import load, timed_forward
from m2fbench.models.postprocess import panoptic_inference
from m2fbench.models.preprocess import Geometry, augment, preprocess
from m2fbench.models.semantic import View, bilinear_rows, semantic_inference, source_rows
from m2fbench.sections import Variant

GOLDEN = sorted((SHARED / "golden").glob("postprocess_*.npz")) or [
    pytest.param(None, marks=pytest.mark.skip(reason="no golden data here"))
]
UNSURE = 1e-5  # a margin between the two best classes that another CPU may round away


def _cases() -> Iterator[Any]:
    """The committed fixture: what the original code makes of small random logits, by settings."""
    with np.load(FIXTURES / "postprocess_cases.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for case in sorted({name.split("/")[0] for name in arrays}):
        yield pytest.param({n.split("/")[1]: a for n, a in arrays.items() if n.startswith(f"{case}/")}, id=case)


def _view(golden: Any) -> View:
    sizes = (tuple(golden[f"{kind}_size"].tolist()) for kind in ("output", "resized", "padded"))
    masks = torch.from_numpy(golden["mask_logits"].astype(np.float32))
    return View(torch.from_numpy(golden["class_logits"]), masks, Geometry(*sizes))


def _differing(found: np.ndarray, expected: np.ndarray, margin: np.ndarray) -> int:
    """How many pixels differ; each must be one where the two best classes are nearly equal."""
    wrong = found != expected
    assert found.shape == expected.shape
    assert (margin[wrong] < UNSURE).all(), f"{int((margin[wrong] >= UNSURE).sum())} pixels differ that should not"
    return int(wrong.sum())


@pytest.mark.full
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem if p else "absent")
def test_semantic_maps_equal_the_original(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(path) as golden:
        if "semantic_argmax" not in golden.files:
            assert "semantic" not in golden["heads"].tolist(), "the instance configuration runs no semantic head"
            return
        counts = {}
        for resize, name in (("before", "semantic"), ("after", "semantic_after")):
            if f"{name}_argmax" in golden.files:
                found = semantic_inference([_view(golden)], resize=resize)  # type: ignore[arg-type]
                counts[resize] = _differing(found, golden[f"{name}_argmax"], golden[f"{name}_top2_margin"])
    with capsys.disabled():
        print(f" {path.stem}: pixels that differ: {counts}", end="")


@pytest.mark.parametrize("case", list(_cases()))
def test_semantic_maps_equal_the_original_small(case: dict[str, Any]) -> None:
    """Upsampling, downsampling, 300 classes, "before" and "after"."""
    view, resize = _view(case), "before" if case["before"] else "after"
    found = semantic_inference([view], resize=resize)  # type: ignore[arg-type]
    assert found.dtype == (np.uint8 if view.class_logits.shape[1] <= 256 else np.uint16)
    best = plain_semantic(view.class_logits, view.mask_logits, view.geometry, resize).topk(2, 0).values
    assert _differing(found, case["semantic_argmax"], (best[0] - best[1]).numpy()) == 0
    other = semantic_inference([view], resize="after" if case["before"] else "before")
    assert (other != found).any(), "the order of resizing shows"


@pytest.mark.parametrize("case", [c for c in _cases() if c.values[0]["before"]])
def test_panoptic_maps_equal_the_original_small(case: dict[str, Any]) -> None:
    """Scattered things and the threshold 0 among them."""
    view, things = _view(case), case["thing_classes"].tolist()
    found = panoptic_inference(
        view.class_logits, view.mask_logits, view.geometry, things=things, object_threshold=float(case["object_mask_threshold"])
    )
    expected = json.loads(str(case["panoptic_segments"]))
    assert [(s.id, s.category in things, s.category) for s in found.segments] == [
        (s["id"], s["isthing"], s["category_id"]) for s in expected
    ]
    np.testing.assert_array_equal(found.ids, case["panoptic_map"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_are_those_of_the_whole(data: st.DataObject) -> None:
    """Bit for bit what torch gives for the whole image, whichever rows are asked for; for tiny ones torch rounds otherwise."""
    height, width, new_height = (data.draw(st.integers(1, 90)) for _ in range(3))
    new_width = data.draw(st.integers(1, 260))
    start = data.draw(st.integers(0, new_height - 1))
    stop = data.draw(st.integers(start + 1, new_height))
    x = 6 * torch.randn(2, height, width, generator=torch.Generator().manual_seed(height))
    whole = F.interpolate(x[None], size=(new_height, new_width), mode="bilinear", align_corners=False)[0]
    first, last = source_rows(height, new_height, start, stop)
    rows = bilinear_rows(x[:, first:last], height, first, (new_height, new_width), start, stop)
    if new_width >= 128:
        assert torch.equal(rows, whole[:, start:stop])
    torch.testing.assert_close(rows, whole[:, start:stop], rtol=0, atol=2e-5)
    rows.zero_()
    assert x.any(), "the result is a tensor of its own"


def test_logits_at_the_images_own_size_stay_as_they_are() -> None:
    """Nothing is computed in place on what the model gave, not even where no resize is needed."""
    geometry = Geometry((32, 32), (32, 32), (32, 32))
    view = View(torch.randn(3, 4), torch.randn(3, 32, 32), geometry)
    before = view.mask_logits.clone()
    semantic_inference([view], resize="before")
    semantic_inference([view], resize="after")
    assert torch.equal(view.mask_logits, before)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(5, 90), st.integers(5, 90)),
    resized=st.tuples(st.integers(20, 64), st.integers(20, 64)),
    block=st.sampled_from([1, 20_000, 1 << 30]),
    resize=st.sampled_from(["before", "after"]),
)
def test_blocks_change_nothing(seed: int, size: tuple[int, int], resized: tuple[int, int], block: int, resize: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = 3 * torch.randn(20, 8, generator=generator)
    masks = 4 * torch.randn(20, 16, 16, generator=generator)
    geometry = Geometry(size, resized, (64, 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(semantic.BLOCK_BYTES, "cpu", block)
        found = semantic_inference([View(classes, masks, geometry)], resize=resize)
    scores = plain_semantic(classes, masks, geometry, resize)
    best = scores.topk(2, 0).values
    _differing(found, scores.argmax(0).numpy(), (best[0] - best[1]).numpy())


def _augmented(checkpoint: Path, image: np.ndarray, edges: tuple[int, int], sizes: list[int], longest: int) -> np.ndarray:
    model = load(resolve(str(checkpoint)), Variant(name="plain"), "cpu")
    looks = augment(image, *edges, min_sizes=sizes, max_size=longest, flip=True)
    assert len(looks) == 2 * len(sizes)
    return semantic_inference(timed_forward(model, looks).views, resize="after")


@pytest.mark.full
@pytest.mark.parametrize("photo", ["872", "1000"])
def test_augmentation_equals_the_original(shared: Path, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The original's multi-scale and flip testing with the R50 checkpoint; its logits carry this CPU's own rounding, so margins count."""
    with np.load(shared / "golden/tta_r50_ade_semantic.npz") as golden:
        image = np.asarray(Image.open(shared / f"data/coco_real/val2017/{int(photo):012d}.jpg").convert("RGB"))
        edges = int(golden["shortest_edge"]), int(golden["longest_edge"])
        checkpoint = shared / "golden/original_tiny_r50_ade_semantic.pkl"
        found = _augmented(checkpoint, image, edges, golden["tta_min_sizes"].tolist(), int(golden["tta_max_size"]))
        differing = _differing(found, golden[f"{photo}_argmax"], golden[f"{photo}_top2_margin"].astype(np.float32))
        single = (found != golden[f"{photo}_single_scale_argmax"]).mean()
    with capsys.disabled():
        print(f" photo {photo}: {differing} pixels differ", end="")
    assert single > 0.001, "many looks see something else than one"


def test_looks_are_made_of_the_resized_image() -> None:
    """Two resizes, each rounded to 8 bits; the mirrored look is the mirrored input."""
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    once = preprocess(image, 40, 100)
    looks = augment(image, 40, 100, min_sizes=[64, 40], max_size=200, flip=True)
    assert [look.flipped for look in looks] == [False, True, False, True]
    assert {look.geometry.original for look in looks} == {(50, 70)}
    assert torch.equal(looks[2].pixels, once.pixels), "the second size is the test setting itself"
    height, width = looks[0].geometry.resized
    assert (height, width) == (64, 90)
    assert torch.equal(looks[1].pixels[..., :height, :width], looks[0].pixels[..., :height, :width].flip(-1))
    direct = preprocess(image, 64, 200)
    assert not torch.equal(looks[0].pixels, direct.pixels), "from the resized image, not from the original"


def test_looks_are_averaged_after_turning_them_back() -> None:
    geometry = Geometry((32, 32), (32, 32), (32, 32))
    classes = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])
    left = torch.full((2, 8, 8), -9.0)
    left[0, :, :4] = left[1, :, 4:] = 9.0
    plain = View(classes, left, geometry)
    mirrored = View(classes, left.flip(-1), geometry, flipped=True)
    one, both = (semantic_inference(views, resize="after") for views in ([plain], [plain, mirrored]))
    np.testing.assert_array_equal(one, both)
    assert (one[:, :14] == 0).all()
    assert (one[:, 18:] == 1).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_twelve_megapixels_stay_within_three_gibibytes() -> None:
    """All heads of a 200-query model on 4000 x 3000 pixels; then all queries at once, as the original does, for the same map."""
    script = """
import resource, torch
from m2fbench.models.postprocess import instance_inference, panoptic_inference
from m2fbench.models.preprocess import Geometry
from m2fbench.models.semantic import View, semantic_inference
from plain_paper import plain_semantic

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
torch.set_num_threads(2)
generator = torch.Generator().manual_seed(1)
masks = torch.nn.functional.interpolate(4 * torch.randn(1, 200, 6, 8, generator=generator), size=(200, 272))[0]
classes = 3 * torch.randn(200, 134, generator=generator)
geometry = Geometry((3000, 4000), (800, 1067), (800, 1088))
before = peak()
found = instance_inference(classes, masks, geometry, things=range(80))
panoptic = panoptic_inference(classes, masks, geometry, things=range(80), object_threshold=0.0)
maps = {resize: semantic_inference([View(classes, masks, geometry)], resize=resize) for resize in ("before", "after")}
print(len(found), panoptic.ids.shape, peak() - before)
few = classes[:, -9:]  # all at once, eight classes are what fits here
blocked = torch.from_numpy(semantic_inference([View(few, masks, geometry)], resize="before").astype("int64"))
best = plain_semantic(few, masks, geometry, "before").topk(2, 0)
wrong = blocked != best.indices[0]
print(int(wrong.sum()), int((wrong & (best.values[0] - best.values[1] >= 1e-5)).sum()))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1] / "scripts")
    assert run.returncode == 0, run.stderr[-2000:]
    measured, compared = run.stdout.splitlines()
    assert int(measured.split()[-1]) < 3 << 20, f"{int(measured.split()[-1]) / 2**20:.2f} GiB"  # ru_maxrss is in KiB
    assert compared.split()[1] == "0", f"{compared} pixels differ"
