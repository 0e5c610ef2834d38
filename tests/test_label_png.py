"""Label PNGs both ways, every kind of PNG that tools write, and anyone's folder of them."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m2fbench.errors import DatasetError, PredictionsError
from m2fbench.formats.label_png import (
    encode_labels,
    find_label_pngs,
    other_value,
    read_labels,
    read_prediction,
    to_indices,
    to_values,
    unexpected_values,
)
from m2fbench.formats.names import file_stem, name_matcher, refuse_shared_names
from m2fbench.types import Example, ImageId


def examples_of(*ids: ImageId) -> list[Example]:
    return [Example(i, (2, 3), str(i)) for i in ids]


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_labels(np.zeros((2, 3), np.uint8)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), wide=st.booleans())
def test_what_is_written_is_read(seed: int, wide: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 65536 if wide else 256, rng.integers(1, 40, 2)).astype(np.uint16 if wide else np.uint8)
    path = tmp_path_factory.mktemp("png") / "x.png"
    path.write_bytes(encode_labels(raw))
    again = read_labels(path)
    assert again.dtype == raw.dtype
    assert np.array_equal(again, raw)


def test_every_kind_of_grey_and_palette(tmp_path: Path) -> None:
    few = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    Image.fromarray(few.astype(bool)).save(tmp_path / "bilevel.png")
    palette = Image.fromarray(few * 3).convert("L")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_labels(tmp_path / "bilevel.png"), few)
    assert np.array_equal(read_labels(tmp_path / "palette.png"), few * 3)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_spread(bits: int, tmp_path: Path) -> None:
    """Image libraries scale such values to 0..255, which would be other classes."""
    import struct
    import zlib

    values = np.arange(2**bits, dtype=np.uint8).reshape(2, -1)
    packed = [np.packbits(((row[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()).tobytes() for row in values]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in packed))
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    (tmp_path / "few.png").write_bytes(png)
    assert np.array_equal(read_labels(tmp_path / "few.png"), values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_refused(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "x.png")
    with pytest.raises(DatasetError, match=rf"x\.png: expected a label PNG with one value a pixel .*, got mode {mode}"):
        read_labels(tmp_path / "x.png")


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    whole = encode_labels(np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8))
    jpeg = io.BytesIO()
    Image.new("L", (3, 2)).save(jpeg, "JPEG")
    broken = whole[:400] + b"\xff" * 40 + whole[440:]
    for name, content in {"cut": whole[:500], "none": b"", "text": b"hello", "jpeg": jpeg.getvalue(), "flipped": broken}.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        with pytest.raises(PredictionsError, match=rf"{name}\.png: not a readable label PNG") as caught:
            read_labels(path, PredictionsError)
        assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="no such label PNG"):
        read_labels(tmp_path / "absent.png")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), classes=st.sampled_from([1, 19, 150, 255, 256, 400]), wide=st.booleans())
def test_values_and_indices_both_ways(seed: int, classes: int, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice(65536 if wide or classes > 250 else 256, classes, replace=False).tolist()
    other = other_value(values)
    nothing = 255 if classes <= 255 else 65535
    indices = rng.choice([*range(classes), nothing], (7, 9)).astype(np.uint8 if classes <= 255 else np.uint16)
    raw = to_values(indices, values, other)
    assert raw.dtype == (np.uint8 if max([*values, other]) <= 255 else np.uint16)
    assert np.array_equal(raw, np.array([*values, other])[np.where(indices == nothing, classes, indices)])
    again = to_indices(raw, values)
    assert again.dtype == indices.dtype
    assert np.array_equal(again, indices)
    assert again.flags.writeable


def test_what_is_not_listed_is_no_class() -> None:
    raw = np.array([[0, 7, 8], [255, 9, 7]], np.uint8)
    assert to_indices(raw, (7, 8, -1, 300)).tolist() == [[255, 0, 1], [255, 255, 0]]
    assert to_indices(raw, (7, 8), ignore=(8, 500)).tolist() == [[255, 0, 255], [255, 255, 0]]
    assert to_indices(raw.astype(np.uint16), (7, 8)).tolist() == [[255, 0, 1], [255, 255, 0]]
    assert to_indices(raw.T, (7, 8)).tolist() == [[255, 255], [0, 255], [1, 0]]  # not contiguous
    assert unexpected_values(raw, (7, 8)) == {0: 1, 9: 1, 255: 1}
    assert unexpected_values(raw, {0, 7, 8, 9, 255}) == {}


def test_a_prediction_of_another_size(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    assert read_prediction(tmp_path / "1.png", Example(1, (2, 3), ""), (5,)).tolist() == [[255] * 3] * 2
    with pytest.raises(PredictionsError, match=r"1\.png: expected 2x3 pixels as image 1 has, got 3x2"):
        read_prediction(tmp_path / "1.png", Example(1, (3, 2), ""), (5,))


def test_file_stems() -> None:
    assert file_stem(139) == "000000000139"
    assert file_stem("frankfurt_000000_000294") == "frankfurt_000000_000294"
    assert file_stem("a/b %ü..") == "a%2Fb %25ü.."
    assert file_stem("..") == "%2E."
    assert file_stem("\ud800\x85") == "%ED%A0%80%C2%85"
    assert file_stem("") == "%"


def test_long_names_are_cut(tmp_path: Path) -> None:
    assert file_stem("图" * 60) == "图" * 60
    long = ["图" * 67, "图" * 66 + "像", "x" * 201, "/" * 90, "😀" * 2000]
    stems = [file_stem(text) for text in long]
    assert len(set(stems)) == len(long)
    assert all(150 < len(stem.encode()) <= 200 for stem in stems)
    for text, stem in zip(long, stems, strict=True):
        (tmp_path / f"{stem}.png.part").touch()
        assert name_matcher(long)(f"{stem}.png") == (text, True)


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ((139, "000000000139"), "000000000139.png"), (("000000000139", 139), "000000000139_pred.png"),
        (("a/b", "a%2Fb"), "a%2Fb.png"), (("a%2Fb", "a/b"), "maps/a%2Fb.png"), ((7, "7"), "7.png"),
    ],
)  # fmt: skip
def test_a_name_of_two_images_is_refused(ids: tuple[Any, Any], name: str) -> None:
    match = name_matcher(ids)
    with pytest.raises(PredictionsError, match=re.escape(f"{name}: is the name of two images, ")) as caught:
        match(name)
    assert all(repr(i) in str(caught.value) for i in ids)


def test_names_that_are_of_one_image_only_are_taken() -> None:
    match = name_matcher(["a/b", "a%2Fb", 7, "7"])
    assert match("a/b.png") == ("a/b", True)
    assert match("a%252Fb.png") == ("a%2Fb", True)
    assert match("000000000007.png") == (7, True)


def test_ids_of_one_file_name_are_refused() -> None:
    refuse_shared_names(["a/b", "a%2Fb", 7, "7", "A"], "x.json")
    with pytest.raises(
        DatasetError, match=r"x\.json: expected image ids that .*, got 139 and '000000000139', both 000000000139\.png"
    ):
        refuse_shared_names([1, 139, "000000000139"], "x.json")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000000000139.png", (139, True)), ("139.png", (139, True)), ("139_pred.png", (139, False)), ("1390.png", None),
        ("000000000139pred.png", (139, False)), ("0139.png", None), ("val/000000000139.jpg", (139, True)), ("", None),
        ("img_1.png", ("img_1", True)), ("img_10.png", ("img_10", True)), ("img_10_x.png", ("img_10", False)), ("img_11.png", ("img", False)),
        ("img_1_x.png", ("img_1", False)), ("image.png", None), ("img.v2.png", ("img", False)), ("imgs.png", None),
        ("street/7.png", ("street/7", True)), ("there/street/7_p.png", ("street/7", False)), ("street%2F7.png", ("street/7", True)),
        ("C:\\data\\000000000139.jpg", (139, True)), ("7.png", None), ("no_suffix", None),
    ],
)  # fmt: skip
def test_which_image_a_file_speaks_of(name: str, expected: Any) -> None:
    match = name_matcher([139, "img_1", "img_10", "img", "street/7"])
    assert match(name) == expected


def test_a_folder_by_ids(tmp_path: Path) -> None:
    put(tmp_path, "000000000139.png", "sub/285.png", "000000000139_color.png", "000000000724.png")
    (tmp_path / "000000000285.txt").write_text("no PNG")
    found = find_label_pngs(tmp_path, examples_of(139, 285))
    assert found == {139: tmp_path / "000000000139.png", 285: tmp_path / "sub" / "285.png"}


def test_a_folder_as_the_cityscapes_scripts_take_it(tmp_path: Path) -> None:
    ids = [f"frankfurt_000000_000{k}" for k in (294, 576, 1016)]
    put(tmp_path, f"frankfurt/{ids[0]}_leftImg8bit_pred_labelIds.png", f"frankfurt/{ids[0]}_pred_color.png")
    put(tmp_path, f"{ids[1]}_gtFine_labelIds.png", f"{ids[1]}_gtFine_instanceIds.png", f"{ids[1]}_gtFine_labelTrainIds.png")
    put(tmp_path, f"deep/er/{ids[2]}pred.PNG")
    found = find_label_pngs(tmp_path, examples_of(*ids))
    assert [found[i].name for i in ids] == [
        f"{ids[0]}_leftImg8bit_pred_labelIds.png", f"{ids[1]}_gtFine_labelIds.png", f"{ids[2]}pred.PNG",
    ]  # fmt: skip


def test_missing_and_ambiguous_files_are_one_line(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "2_x.png", "2_y.png", "000000000003_instanceIds.png")
    with pytest.raises(PredictionsError, match=re.escape("expected one label PNG for image 2, got 2: 2_x.png, 2_y.png")):
        find_label_pngs(tmp_path, examples_of(1, 2))
    with pytest.raises(
        PredictionsError, match=re.escape("no label PNG for 3 of 4 images, the first being 3 (expected 000000000003.png")
    ) as caught:
        find_label_pngs(tmp_path, examples_of(1, 3, 4, 5))
    assert "\n" not in str(caught.value)
    put(tmp_path, "1.png")
    with pytest.raises(PredictionsError, match="expected one label PNG for image 1, got 2"):
        find_label_pngs(tmp_path, examples_of(1))
    with pytest.raises(PredictionsError, match=r"1\.png: expected a folder of label PNGs, got a file"):
        find_label_pngs(tmp_path / "1.png", examples_of(1))
    with pytest.raises(PredictionsError, match="got nothing"):
        find_label_pngs(tmp_path / "absent", examples_of(1))
