"""Image files of every mode that datasets contain, and those that are none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2fbench.datasets.images import read_image
from m2fbench.errors import ImageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), np.uint8)


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


def test_grayscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(RGB[..., :1], 3, 2))


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0] > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], np.where(RGB[..., 0] > 127, 255, 0))


def test_palette_colours_not_indices(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [200, 100, 50]], [[200, 100, 50], [10, 20, 30]]]


def test_transparency_is_dropped(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 40, 90)).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 128, 257], [32768, 65278, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}")[..., 0].tolist() == [[0, 0, 1], [128, 254, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_or_not(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    turned = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2), 6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB),
    }  # fmt: skip
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned[orientation])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", exif_rotation=False), RGB)


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.jpg", b""), ("text.png", b"not an image"), ("cut.jpg", None), ("page.jpg", b"<html>404</html>")],
)
def test_what_is_no_image_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is None:
        Image.fromarray(np.repeat(RGB, 20, 0)).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()[:600]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=name):
        read_image(tmp_path / name)


def test_missing_and_float_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg: no such image"):
        read_image(tmp_path / "gone.jpg")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "depth.tiff")
    with pytest.raises(ImageError, match="expected at most 16 bits"):
        read_image(tmp_path / "depth.tiff")


@pytest.mark.full
def test_damaged_bytes_give_an_image_or_an_image_error(tmp_path: Path) -> None:
    """EXIF, tables and scans broken at random: decoders raise struct.error, IndexError and worse."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a photo"
    Image.fromarray(np.repeat(np.repeat(RGB, 8, 0), 8, 1)).save(tmp_path / "good.jpg", exif=exif)
    good = np.frombuffer((tmp_path / "good.jpg").read_bytes(), np.uint8)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(600):
        bad = good.copy()
        bad[rng.integers(2, min(400, len(bad)), 6)] = rng.integers(0, 256, 6)
        (tmp_path / "bad.jpg").write_bytes(bad.tobytes())
        try:
            assert read_image(tmp_path / "bad.jpg").dtype == np.uint8
        except ImageError:
            refused += 1
    assert 50 < refused < 600


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="big.png"):
        read_image(tmp_path / "big.png")


@pytest.mark.full
def test_real_photos_are_read(shared: Path) -> None:
    for path in sorted((shared / "data/coco_real/val2017").glob("*.jpg"))[:10]:
        np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))
