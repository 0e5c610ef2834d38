"""detectron2's sem_seg_predictions.json, read as label PNGs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2fbench.errors import PredictionsError
from m2fbench.formats.label_png import read_labels, to_indices
from m2fbench.formats.sem_seg_json import read_sem_seg
from m2fbench.types import Example

Json = dict[str, Any]


def as_detectron2_writes(file_name: str, indices: np.ndarray, category_ids: list[int]) -> list[Json]:
    """One entry a class, ascending, with pycocotools' encoding."""
    entries = []
    for index in np.unique(indices).tolist():
        rle = pycocotools.mask.encode(np.asfortranarray((indices == index).astype(np.uint8)))
        entries.append(
            {
                "file_name": file_name,
                "category_id": category_ids[index],
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
        )
    return entries


def read(folder: Path, entries: object, examples: list[Example], ids: Any = (1, 2, 5), values: Any = (7, 8, 11)) -> dict[Any, Path]:
    (folder / "sem_seg_predictions.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return read_sem_seg(folder / "sem_seg_predictions.json", examples, ids, folder / "maps", values)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), classes=st.sampled_from([1, 3, 133, 300]), listed=st.booleans())
def test_maps_come_back_as_they_were(seed: int, classes: int, listed: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    ids = [3 * k + 1 for k in range(classes)]
    maps = {k: rng.integers(0, classes, rng.integers(1, 20, 2)).astype(np.uint16) for k in (139, 285)}
    entries = [e for k, m in maps.items() for e in as_detectron2_writes(f"datasets/coco/val2017/{k:012d}.jpg", m, ids)]
    if listed:
        for entry in entries:
            mask = pycocotools.mask.decode(entry["segmentation"]).T.ravel()
            edges = np.flatnonzero(np.diff(np.concatenate([[0], mask]))).tolist()
            entry["segmentation"]["counts"] = np.diff([0, *edges, mask.size]).tolist()
    rng.shuffle(entries)
    folder = tmp_path_factory.mktemp("case")
    written = read(folder, entries, [Example(k, m.shape, "") for k, m in maps.items()], ids, range(classes))
    assert list(written) == [139, 285]
    for k, expected in maps.items():
        assert np.array_equal(read_labels(written[k]), expected)


def test_pixels_without_an_entry_are_no_class(tmp_path: Path) -> None:
    entry = {"file_name": "x/a_leftImg8bit.png", "category_id": 5, "segmentation": {"size": [2, 3], "counts": [1, 2, 3]}}
    empty = {"file_name": "x/a_leftImg8bit.png", "category_id": 1, "segmentation": {"size": [2, 3], "counts": [6]}}
    other = {"file_name": "of_another_image.png", "category_id": 1, "segmentation": {"size": [9, 9], "counts": [81]}}
    written = read(tmp_path, [empty, other, entry], [Example("a", (2, 3), "")])
    assert read_labels(written["a"]).tolist() == [[255, 11, 255], [11, 255, 255]]
    assert to_indices(read_labels(written["a"]), (7, 8, 11)).tolist() == [[255, 2, 255], [2, 255, 255]]


GOOD = {"file_name": "a.jpg", "category_id": 1, "segmentation": {"size": [2, 3], "counts": [1, 5]}}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[", "not valid JSON"), ({}, "expected a JSON list as detectron2 writes it, got a dict"), ([GOOD, 3], "entry 1: expected an object"),
        ([{"file_name": "a.jpg"}], "entry 0: expected the key 'category_id', got file_name"),
        ([GOOD | {"file_name": 7}], "entry 0: expected the image's path as file_name, got 7"),
        ([GOOD, GOOD | {"category_id": 0}], r"entry 1: category 0 is not in the dataset \(ids in such a file run from 1 to 5\)"),
        ([GOOD | {"category_id": True}], "entry 0: category True is not"), ([GOOD | {"category_id": "1"}], "category '1' is not"),
        ([GOOD | {"segmentation": [[0, 0, 2, 0, 2, 2]]}], "entry 0: segmentation: expected a run-length encoding"),
        ([GOOD | {"segmentation": {"size": [3, 2], "counts": [6]}}], "entry 0: segmentation: expected an encoding of size"),
        ([GOOD | {"segmentation": {"size": [2, 3], "counts": [5]}}], "entry 0: segmentation: expected run lengths"),
        ([GOOD | {"segmentation": {"size": [2, 3], "counts": "~~"}}], "entry 0: segmentation: not a run-length encoding"),
        ([GOOD, GOOD | {"category_id": 2}], "entry 1: overlaps entry 0 of the same image"),
        ([], "no entry for 1 of 1 images, the first being 'a'"), ([GOOD | {"file_name": "b.jpg"}], "no entry for 1 of 1"),
    ],
)  # fmt: skip
def test_a_bad_entry_is_named_in_one_line(entries: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"sem_seg_predictions\.json: .*" + message) as caught:
        read(tmp_path, entries, [Example("a", (2, 3), "")])
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="cannot be read"):
        read_sem_seg(tmp_path / "absent.json", [], (1,), tmp_path, (1,))
