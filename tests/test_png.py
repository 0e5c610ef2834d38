"""PNGs read and written quickly: the same pixels as Pillow has, with imagecodecs and without."""

import io
import logging
import zlib
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
from PIL import Image

from m2fbench.errors import DatasetError, PredictionsError
from m2fbench.formats import cityscapes_instances, png
from m2fbench.formats.label_png import encode_labels, read_labels
from m2fbench.formats.panoptic import encode_ids, read_ids

SHAPES = ((1, 1), (1, 7), (5, 1), (37, 53))


def images(rng: np.random.Generator) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for height, width in SHAPES:
        found += [rng.integers(0, 256, (height, width)).astype(np.uint8), rng.integers(0, 65536, (height, width)).astype(np.uint16)]
        found.append(np.repeat(rng.integers(0, 256, (height, 1, 3)), width, 1).astype(np.uint8))
    return found


def test_what_is_written_pillow_reads() -> None:
    for pixels in images(np.random.default_rng(0)):
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png.encode(pixels)))), pixels)
        turned = np.asfortranarray(pixels)
        assert png.encode(turned) == png.encode(pixels)


@pytest.mark.parametrize("quick", [True, False])
def test_pixels_are_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    if quick:
        pytest.importorskip("imagecodecs", reason="the quick reader is optional")
    else:
        monkeypatch.setattr(png, "_decoder", lambda: None)
    path = tmp_path / "a.png"
    for pixels in images(np.random.default_rng(1)):
        for level in (0, 6):
            Image.fromarray(pixels).save(path, compress_level=level)
            assert (png.decode(path) is not None) == quick
            if pixels.ndim == 2:
                found = read_labels(path)
                assert (found.dtype, found.flags.writeable) == (pixels.dtype, True)
                np.testing.assert_array_equal(found, pixels)
                path.write_bytes(encode_labels(pixels))
                np.testing.assert_array_equal(read_labels(path), pixels)
            else:
                ids = pixels.astype(np.int32) @ np.array([1, 256, 65536])
                np.testing.assert_array_equal(read_ids(path), ids)
                path.write_bytes(encode_ids(ids))
                np.testing.assert_array_equal(read_ids(path), ids)


def test_other_kinds_and_damage_are_left_to_pillow(tmp_path: Path) -> None:
    path, grey = tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8)
    kinds: list[Any] = [Image.fromarray(grey).convert("P"), Image.fromarray(grey > 9), Image.fromarray(grey).convert("RGBA")]
    for image in kinds:
        image.save(path)
        assert png.decode(path) is None
    Image.fromarray(grey).save(path, transparency=3)
    assert png.decode(path) is None
    np.testing.assert_array_equal(read_labels(path), grey)
    assert png.decode(tmp_path / "none.png") is None
    whole = encode_labels(grey)
    for content in (b"", whole[:20], whole[:45], whole.replace(b"IDAT", b"IDAX")):
        path.write_bytes(content)
        assert png.decode(path) is None
        with pytest.raises(DatasetError, match=r"a\.png: not a readable label PNG"):
            read_labels(path)


def with_chunk(content: bytes, name: bytes, chunk: bytes, crc: int = 0) -> bytes:
    """Before the pixels. crc: what is wrong with its check sum."""
    at = content.index(b"IDAT") - 4
    made = png._chunk(name, chunk)
    return content[:at] + made[:-1] + bytes([made[-1] ^ crc]) + content[at:]


EXTRAS = [
    (b"tEXt", b"Software\0matplotlib", 0), (b"pHYs", bytes(9), 0), (b"tIME", b"\xff" * 7, 0), (b"gAMA", bytes(4), 0), (b"sRGB", b"\x09", 0),
    (b"tEXt", b"", 0), (b"tEXt", b"a\0b", 1), (b"gAMA", bytes(3), 0), (b"iCCP", b"a\0\0" + zlib.compress(b"nonsense"), 0),
    (b"eXIf", b"zz", 0), (b"sBIT", b"\x09", 0), (b"bKGD", bytes(9), 0), (b"PLTE", bytes(6), 0), (b"tRNS", bytes(2), 0), (b"quQu", b"", 0),
]  # fmt: skip


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: f"{extra[0].decode()}-{len(extra[1])}-{extra[2]}")
def test_no_chunk_changes_the_pixels_or_reaches_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], extra: tuple[bytes, bytes, int]
) -> None:
    path, grey = tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8)
    path.write_bytes(with_chunk(encode_labels(grey), *extra))
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own would swallow what goes to the terminal

    def outcome() -> object:
        try:
            return read_labels(path).tolist()
        except DatasetError as error:
            return str(error)

    found = outcome()
    monkeypatch.setattr(png, "_decoder", lambda: None)
    assert outcome() == found
    assert capfd.readouterr() == ("", "")


def test_pixels_with_something_behind_them_are_read_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    path, grey = tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in grey))
    path.write_bytes(png._file(8, 8, 8, png.GREY, content + b"more"))
    np.testing.assert_array_equal(read_labels(path), grey)
    assert capfd.readouterr() == ("", "")


def test_extras_that_many_writers_add_are_read_quickly(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", reason="the quick reader is optional")
    path, grey = tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8)
    path.write_bytes(with_chunk(with_chunk(encode_labels(grey), *EXTRAS[0]), *EXTRAS[1]))
    found = png.decode(path)
    assert found is not None
    np.testing.assert_array_equal(found, grey)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_interlaced_files_are_left_to_pillow(tmp_path: Path, mode: str) -> None:
    """Of one row and column, which is the same with and without, for want of a writer."""
    path = tmp_path / "a.png"
    buffer = io.BytesIO()
    Image.new(mode, (1, 1), 7 if mode == "L" else (7, 0, 0)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[28] = 1
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    assert png.decode(path) is None
    assert (read_labels(path) if mode == "L" else read_ids(path)).tolist() == [[7]]


@pytest.mark.filterwarnings("error")
def test_large_maps_give_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, grey = tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    path.write_bytes(encode_labels(grey))
    np.testing.assert_array_equal(read_labels(path), grey)
    path.write_bytes(encode_ids(grey.astype(np.int32)))
    np.testing.assert_array_equal(read_ids(path), grey)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)
    with pytest.raises(PredictionsError, match=r"a\.png: not a readable PNG \(8x8 pixels are too many to be meant\)"):
        read_ids(path)


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_encoded_as_by_the_official_encoder(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for height, width in (*SHAPES, (4, 6)):
        for share in (0, 0.2, 0.9, 1):
            mask = ((rng.random((height, width)) < share) * rng.choice([1, 255])).astype(np.uint8)
            if seed % 2:  # a box, which may reach the edges
                mask = np.zeros_like(mask)
                top, left = rng.integers(0, height), rng.integers(0, width)
                mask[top : int(rng.integers(top, height + 1)), left : int(rng.integers(left, width + 1))] = 1
            expected = hotcoco.mask.encode(np.asfortranarray(mask != 0).astype(np.uint8))["counts"].decode()
            rle = {"size": [height, width], "counts": expected}
            assert cityscapes_instances._encoded(mask, mask.shape) == rle
            path = tmp_path / "a.png"
            for level in (0, 1, 6):
                Image.fromarray(mask).save(path, compress_level=level)
                assert cityscapes_instances._read_mask(path, mask.shape, "line 1") == rle
                for filters in range(5):  # also those that no encoder would choose
                    path.write_bytes(filtered(mask, filters, rng))
                    np.testing.assert_array_equal(np.array(Image.open(path)), mask)
                    assert cityscapes_instances._read_mask(path, mask.shape, "line 1") == rle


def filtered(mask: np.ndarray, filters: int, rng: np.random.Generator) -> bytes:
    """A PNG all of whose rows have this filter (4: any of the first three)."""
    above = np.vstack([np.zeros_like(mask[:1]), mask[:-1]])
    left = np.hstack([np.zeros_like(mask[:, :1]), mask[:, :-1]])
    half = ((above.astype(int) + left) // 2).astype(np.uint8)
    rows = [mask, mask - left, mask - above, mask - half]
    chosen = rng.integers(0, 3, len(mask)) if filters == 4 else np.full(len(mask), filters)
    content = b"".join(bytes([k]) + rows[k][y].tobytes() for y, k in enumerate(chosen.tolist()))
    return png._file(mask.shape[1], mask.shape[0], 8, png.GREY, zlib.compress(content))
