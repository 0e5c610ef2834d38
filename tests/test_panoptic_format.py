"""COCO's panoptic format: PNGs and JSON, both ways, and files that are wrong in every way we know."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m2fbench.errors import DatasetError, PredictionsError
from m2fbench.formats.names import file_stem
from m2fbench.formats.panoptic import (
    LARGEST_ID,
    areas_and_boxes,
    document,
    encode_ids,
    listing_problem,
    read_ids,
    read_map,
    segment_rles,
    to_annotation,
)  # fmt: skip
from m2fbench.formats.panoptic_predictions import read_predictions
from m2fbench.types import Category, Example, PanopticMap, Segment


def random_ids(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = np.zeros(rng.integers(1, 40, 2), np.int32)
    for number in rng.integers(1, LARGEST_ID + 1, rng.integers(0, 6)):
        top, left = rng.integers(0, ids.shape[0]), rng.integers(0, ids.shape[1])
        ids[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = number
    return ids


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_ids_survive_a_png_and_are_what_any_reader_sees(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    ids = random_ids(seed)
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(encode_ids(ids))
    found = read_ids(path, ids.shape)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, ids)
    with Image.open(path) as image:
        image.verify()
    colours = np.asarray(Image.open(path), np.int64)
    np.testing.assert_array_equal(colours @ [1, 256, 65536], ids)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P"])
def test_kinds_of_png(kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [0, 0, 0]], [[255, 255, 255], [9, 0, 0]]], np.uint8))
    image = image.quantize(4) if kind == "P" else image.convert(kind)
    if kind == "RGBA":
        image.putalpha(0)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), [[1 + 2 * 256 + 3 * 65536, 0], [LARGEST_ID, 9]])


def png(pixels: Any, mode: str | None = None) -> bytes:
    content = io.BytesIO()
    image = Image.fromarray(np.array(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not a readable PNG"),
        (encode_ids(np.ones((2, 3), np.int32))[:45], "not a readable PNG"),
        (png(np.ones((2, 3))), r"expected an RGB image \(segment id = R \+ 256 G \+ 65536 B\), got mode L"),
        (png(np.ones((2, 3)), "I;16"), "expected an RGB image .* got mode I;16"),
        (encode_ids(np.ones((3, 2), np.int32)), "expected 3x2 pixels as the image has, got 2x3"),
    ],
    ids=["none", "empty", "cut off", "grey", "deep grey", "other size"],
)  # fmt: skip
def test_pngs_that_cannot_be_read_are_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as error:
        read_ids(path, (2, 3), DatasetError)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255), kept=st.integers(0, 10**6))
def test_a_damaged_png_is_one_line_or_ids_of_the_size(
    position: int, byte: int, kept: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(encode_ids(random_ids(5)))
    content[position % len(content)] = byte
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(content[: kept % (2 * len(content))])
    problem, shape = "", None
    try:
        shape = read_ids(path, random_ids(5).shape).shape
    except PredictionsError as error:
        problem = str(error)
    assert shape == random_ids(5).shape or problem.startswith(str(path))
    assert "\n" not in problem


def test_names_of_files() -> None:
    assert file_stem(139) == "000000000139"
    assert file_stem("ADE_val_00000001") == "ADE_val_00000001"
    assert file_stem("../a b\\ü") == "%2E.%2Fa b%5Cü"
    names = [file_stem(name) for name in ("a/b", "a%2Fb", "a\\b", "a:b", "A\0b", "a\nb")]
    assert len(set(names)) == len(names)
    assert not any(c in name for name in names for c in '/\\:\0\n*?"<>|')


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_areas_boxes_and_masks_are_those_of_the_pixels(seed: int) -> None:
    ids = random_ids(seed)
    listed = [*np.random.default_rng(seed).permutation(np.unique(ids[ids > 0])).tolist(), 123456]  # the last has no pixel
    panoptic = PanopticMap(ids, tuple(Segment(i, 0) for i in listed))
    areas, boxes = areas_and_boxes(panoptic)
    for segment, area, box, rle in zip(panoptic.segments, areas, boxes, segment_rles(panoptic), strict=True):
        mask = ids == segment.id
        rows, columns = np.nonzero(mask)
        assert area == mask.sum()
        expected = [0, 0, 0, 0]
        if mask.any():
            expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert box.tolist() == expected
        np.testing.assert_array_equal(pycocotools.mask.decode(rle), mask)


def test_an_image_in_the_json() -> None:
    panoptic = PanopticMap(np.array([[5, 5, 0], [0, 5, 9]], np.int32), (Segment(9, 1, True), Segment(5, 0), Segment(7, 0, area=3)))
    entry = to_annotation("x", "x.png", panoptic, (18, 200))
    assert entry == {
        "image_id": "x",
        "file_name": "x.png",
        "segments_info": [
            {"id": 9, "category_id": 200, "area": 1, "bbox": [2, 1, 1, 1], "iscrowd": 1},
            {"id": 5, "category_id": 18, "area": 3, "bbox": [0, 0, 2, 2], "iscrowd": 0},
            {"id": 7, "category_id": 18, "area": 3, "bbox": [0, 0, 0, 0], "iscrowd": 0},
        ],
    }
    whole = document([Example("x", (2, 3), "somewhere/x.jpg")], [entry], {18: Category("dog", True), 200: Category("rug", False)})
    assert whole["images"] == [{"id": "x", "height": 2, "width": 3, "file_name": "x.jpg"}]
    assert whole["categories"] == [{"id": 18, "name": "dog", "isthing": 1}, {"id": 200, "name": "rug", "isthing": 0}]
    assert json.loads(json.dumps(whole)) == whole


def test_a_png_and_its_json_share_their_segments(tmp_path: Path) -> None:
    ids = np.array([[5, 5, 0], [0, 5, 9]], np.int32)
    (tmp_path / "a.png").write_bytes(encode_ids(ids))
    assert listing_problem(ids, (Segment(5, 0), Segment(9, 0))) is None
    assert read_map(tmp_path / "a.png", [Segment(5, 0), Segment(9, 1)]).segments == (Segment(5, 0), Segment(9, 1))
    with pytest.raises(PredictionsError, match=r"a\.png: segment 5 and 1 more is in the PNG and not in the JSON"):
        read_map(tmp_path / "a.png", [])
    with pytest.raises(PredictionsError, match=r"a\.png: segment 3 is in the JSON and not in the PNG"):
        read_map(tmp_path / "a.png", [Segment(i, 0) for i in (3, 5, 9)])


SIZES = {1: (2, 3), "b": (4, 4), 3: (2, 2)}
ENTRY: dict[str, Any] = {"image_id": 1, "file_name": "one.png", "segments_info": [{"id": 4, "category_id": 20, "isthing": True}]}


def read(folder: Path, content: Any, required: tuple[Any, ...] = (), png_folder: Path | None = None) -> dict[Any, Any]:
    (folder / "p.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_predictions(folder / "p.json", png_folder, SIZES, (7, 20), required)


def test_predictions_with_contiguous_classes(tmp_path: Path) -> None:
    both = [ENTRY, {"image_id": "b", "file_name": "sub/two.png", "segments_info": []}]
    for content in ({"annotations": both, "images": []}, both):
        found = read(tmp_path, content)
        assert found == {1: (tmp_path / "p/one.png", (Segment(4, 1),)), "b": (tmp_path / "p/sub/two.png", ())}
    assert read(tmp_path, both, png_folder=tmp_path / "elsewhere")[1][0] == tmp_path / "elsewhere/one.png"


def segment(**changes: Any) -> list[Any]:
    return [{**ENTRY, "segments_info": [{"id": 4, "category_id": 20, **changes}]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("3", r"expected COCO panoptic predictions \(an object with a list 'annotations'\), got a int"),
        ({"images": []}, "expected COCO panoptic predictions .* got none in it"),
        (["x"], r"annotations\[0\]: expected an object, got a str"),
        ([{"image_id": 1}], r"annotations\[0\]: expected the key 'file_name', got image_id"),
        ([ENTRY, {**ENTRY, "image_id": 99}], r"annotations\[1\]: image 99 is not in the dataset"),
        ([{**ENTRY, "image_id": [1]}], r"image \[1\] is not in the dataset"),
        ([{**ENTRY, "image_id": True}], "image True is not in the dataset"),
        ([ENTRY, ENTRY], r"annotations\[1\]: expected one entry for each image, got a second one for image 1"),
        ([{**ENTRY, "file_name": "../one.png"}], "file_name: expected a path inside the PNG folder"),
        ([{**ENTRY, "file_name": "/etc/one.png"}], "file_name: expected a path inside the PNG folder"),
        ([{**ENTRY, "file_name": "a\\..\\..\\one.png"}], "file_name: expected a path inside the PNG folder"),
        ([{**ENTRY, "file_name": "."}], "file_name: expected a path inside the PNG folder"),
        ([{**ENTRY, "file_name": 3}], "file_name: expected a path inside the PNG folder, got 3"),
        ([{**ENTRY, "segments_info": None}], "segments_info: expected a list, got a NoneType"),
        ([{**ENTRY, "segments_info": [4]}], r"segments_info\[0\]: expected an object with 'id' and 'category_id', got 4"),
        (segment(category_id=1), r"segments_info\[0\]: category 1 is not in the dataset \(its ids run from 7 to 20\)"),
        (segment(category_id="20"), "category '20' is not in the dataset"),
        (segment(id=0), "id: expected a whole number from 1 to 16777215, got 0"),
        (segment(id=2**24), "id: expected a whole number from 1 to 16777215, got 16777216"),
        (segment(id=4.0), "id: expected a whole number"),
        ([{**ENTRY, "segments_info": ENTRY["segments_info"] * 2}], "expected segments of different ids, got 4 twice"),
    ],
)  # fmt: skip
def test_predictions_that_are_none_are_one_line(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=message) as error:
        read(tmp_path, content)
    assert str(error.value).startswith(str(tmp_path / "p.json"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_required_images_have_an_entry_and_a_png(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"p\.json: no prediction for image 'b' \(and 1 more\); an image in which nothing"):
        read(tmp_path, [ENTRY], (1, "b", 3))
    with pytest.raises(PredictionsError, match=r"p/one\.png: no such PNG; .*p\.json names it"):
        read(tmp_path, [ENTRY], (1,))
    with pytest.raises(PredictionsError, match="cannot be read: No such file"):
        read_predictions(tmp_path / "none.json", None, SIZES, (7, 20))
