"""The resized image byte for byte as the original made it, and sizes at their edges."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FIXTURES, SHARED
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m2fbench.datasets.images import read_image
from m2fbench.models.preprocess import PIXEL_MEAN, PIXEL_STD, padded_size, preprocess, resize, resized_size

GOLDEN = sorted((SHARED / "golden").glob("postprocess_*.npz")) or [
    pytest.param(None, marks=pytest.mark.skip(reason="no golden data here"))
]


@pytest.mark.full
def test_all_photos_resize_to_the_original_bytes(shared: Path) -> None:
    expected = json.loads((shared / "golden/resize_800_1333_sha256.json").read_bytes())["photos"]
    checked = 0
    for path in sorted((shared / "data/coco_real/val2017").glob("*.jpg")):
        image = read_image(path)
        size = resized_size(image.shape[:2], 800, 1333)
        assert list(size) == expected[path.name]["resized"]
        assert hashlib.sha256(resize(image, size).tobytes()).hexdigest() == expected[path.name]["sha256_rgb_hwc"], path.name
        checked += 1
    assert checked == 82


@pytest.mark.full
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem if p else "absent")
def test_golden_photos_pass_through_our_own_preprocessing(path: Path, shared: Path) -> None:
    with np.load(path) as golden:
        inside = "photo_uint8" in golden
        photo = golden["photo_uint8"] if inside else read_image(shared / "data/coco_real/val2017" / str(golden["image_file"]))
        data = preprocess(photo, int(golden["shortest_edge"]), int(golden["longest_edge"]))
        assert data.geometry.original == tuple(golden["output_size"])
        assert data.geometry.resized == tuple(golden["resized_size"])
        assert data.geometry.padded == tuple(golden["padded_size"])
        np.testing.assert_array_equal(resize(photo, data.geometry.resized).transpose(2, 0, 1), golden["resized_uint8"])


def test_a_seeded_image_resizes_to_known_bytes() -> None:
    """Holds PIL's filter fixed where no golden data is: noise and a gradient, 123x200 to 800/1333 and down to 64."""
    rng = np.random.default_rng(5)
    image = (rng.integers(0, 256, (123, 200, 3)) // 2 + np.linspace(0, 127, 200).astype(np.int64)[:, None]).astype(np.uint8)
    expected = json.loads((FIXTURES / "resize_sha256.json").read_text())
    for edges, digest in expected.items():
        shortest, longest = map(int, edges.split("/"))
        resized = resize(image, resized_size((123, 200), shortest, longest))
        assert hashlib.sha256(resized.tobytes()).hexdigest() == digest, edges


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((300, 640), (625, 1333)),
        ((500, 500), (800, 800)),
    ],
)
def test_known_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(size, 800, 1333) == expected


@given(st.tuples(st.integers(1, 6000), st.integers(1, 6000)), st.integers(32, 2048), st.integers(0, 4000))
def test_sizes_keep_their_bounds(size: tuple[int, int], shortest: int, more: int) -> None:
    longest = shortest + more
    height, width = resized_size(size, shortest, longest)
    assert max(height, width) <= longest
    assert min(height, width) <= shortest
    assert min(height, width) == shortest or max(height, width) == longest
    padded = padded_size((height, width))
    assert all(p % 32 == 0 and 0 <= p - edge < 32 for p, edge in zip(padded, (height, width), strict=True))


def test_padding_is_zero_after_normalisation() -> None:
    image = np.full((50, 70, 3), 7, np.uint8)
    data = preprocess(image, 50, 100)
    assert data.pixels.shape == (1, 3, 64, 96)
    assert data.pixels.dtype == torch.float32
    assert not data.pixels[:, :, 50:].any()
    assert not data.pixels[:, :, :, 70:].any()
    expected = (7 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
    torch.testing.assert_close(data.pixels[0, :, 0, 0], expected)


def test_resize_is_pils_bilinear() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((80, 60), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(image, (60, 80)), expected)
