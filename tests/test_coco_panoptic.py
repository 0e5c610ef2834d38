"""The reader of COCO panoptic files: right, wrong and hostile ones, and real photos."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from m2fbench.datasets.coco_instance import CocoInstance, CocoOptions
from m2fbench.datasets.coco_panoptic import CocoPanoptic, CocoPanopticOptions
from m2fbench.errors import DatasetError, ImageError
from m2fbench.formats.panoptic import encode_ids
from m2fbench.types import Segment

IDS = np.array([[0, 70000, 70000, 70000], [9, 9, 9, 70000]], np.int32)
CATEGORIES = [
    {"id": 9, "name": "sky", "isthing": 0},
    {"id": 2, "name": "cat", "isthing": 1},
    {"id": 5, "name": "dog", "isthing": 1},
]
IMAGES = [{"id": 7, "file_name": "b.png", "height": 2, "width": 4}, {"id": 3, "file_name": "a.png", "height": 2, "width": 4}]
SEVEN = {
    "image_id": 7,
    "file_name": "seven.png",
    "segments_info": [
        {"id": 70000, "category_id": 5, "iscrowd": 1, "area": 4, "bbox": [1, 0, 3, 2]},
        {"id": 9, "category_id": 9, "iscrowd": 0, "area": 3, "bbox": [0, 1, 3, 1]},
    ],
}
THREE = {"image_id": 3, "file_name": "three.png", "segments_info": [{"id": 1, "category_id": 2}]}
GOOD: dict[str, Any] = {"images": IMAGES, "categories": CATEGORIES, "annotations": [SEVEN, THREE]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "annotations/panoptic_val2017"
    folder.mkdir(parents=True)
    (folder / "seven.png").write_bytes(encode_ids(IDS))
    (folder / "three.png").write_bytes(encode_ids(np.ones((2, 4), np.int32)))
    (tmp_path / "val2017").mkdir()
    for name in "ab":
        Image.new("RGB", (4, 2), (10, 20, 30)).save(tmp_path / f"val2017/{name}.png")
    return tmp_path


def open_coco(root: Path, content: Any = GOOD, **options: Any) -> CocoPanoptic:
    (root / "annotations/panoptic_val2017.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return CocoPanoptic(CocoPanopticOptions(**options), root)


def write_instances(root: Path, **changes: Any) -> None:
    things = [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}]
    annotation = {"id": 1, "image_id": 7, "category_id": 5, "iscrowd": 0, "area": 1, "segmentation": [[0, 0, 2, 0, 2, 2]]}
    content = {"images": IMAGES, "categories": things, "annotations": [annotation], **changes}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))


def test_categories_and_images_in_order_of_their_ids(root: Path) -> None:
    dataset = open_coco(root)
    assert dataset.category_ids == (2, 5, 9)
    assert [(c.name, c.is_thing) for c in dataset.categories] == [("cat", True), ("dog", True), ("sky", False)]
    assert dataset.label_values == (0, 1, 2)
    assert [(e.image_id, e.size) for e in dataset.examples()] == [(3, (2, 4)), (7, (2, 4))]
    dataset.check()


def test_truth_of_all_three_kinds(root: Path) -> None:
    dataset = open_coco(root)
    example = dataset.examples()[1]
    truth = dataset.panoptic_truth(example)
    np.testing.assert_array_equal(truth.ids, IDS)
    assert truth.segments == (Segment(70000, 1, True, 4), Segment(9, 2, False, 3))
    semantic = dataset.semantic_truth(example)
    assert semantic.dtype == np.uint8
    np.testing.assert_array_equal(semantic, [[255, 1, 1, 1], [2, 2, 2, 1]])  # the crowd region is in it
    made = dataset.coco_truth()
    assert isinstance(made, dict)
    assert [c["id"] for c in made["categories"]] == [2, 5]
    assert [(a["image_id"], a["category_id"], a["iscrowd"], a["area"], a["bbox"]) for a in made["annotations"]] == [
        (3, 2, 0, 8, [0, 0, 4, 2]), (7, 5, 1, 4, [1, 0, 3, 2]),
    ]  # fmt: skip
    np.testing.assert_array_equal(pycocotools.mask.decode(made["annotations"][1]["segmentation"]), IDS == 70000)
    assert dataset.image(example).shape == (2, 4, 3)


def test_many_classes_need_two_bytes(root: Path) -> None:
    categories = [{"id": k, "name": f"c{k}", "isthing": k % 2} for k in range(1, 301)]
    seven = {**SEVEN, "segments_info": [{"id": 9, "category_id": 1}, {"id": 70000, "category_id": 2}]}
    three = {**THREE, "segments_info": [{"id": 1, "category_id": 300}]}
    dataset = open_coco(root, {**GOOD, "categories": categories, "annotations": [seven, three]})
    assert dataset.semantic_truth(dataset.examples()[0]).dtype == np.uint16
    assert dataset.semantic_truth(dataset.examples()[0]).max() == 299
    assert dataset.semantic_truth(dataset.examples()[1])[0, 0] == 65535


def test_instance_annotations_where_they_are(root: Path) -> None:
    write_instances(root)
    dataset = open_coco(root)
    assert dataset.coco_truth() == (root / "annotations/instances_val2017.json").resolve()
    dataset.check()
    made = open_coco(root, instances=None)
    assert isinstance(made.coco_truth(), dict)
    assert dataset.fingerprint()["instances"] == "instances_val2017.json"
    assert made.fingerprint()["instances"] == "things of the panoptic annotations"
    assert dataset.fingerprint()["annotations_sha256"] != made.fingerprint()["annotations_sha256"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 5, "name": "dog"}]}, r"has other categories than the 2 things of panoptic_val2017\.json"),
        ({"images": [IMAGES[0]]}, r"has no image 3 of panoptic_val2017\.json in its size"),
        ({"images": [IMAGES[0], {**IMAGES[1], "height": 9}]}, "has no image 3 of .* in its size"),
        ({"images": [{**IMAGES[0], "height": 9}], "annotations": []}, r"has no image 3 of .* in its size \(and 1 more\)"),
    ],
)
def test_instance_annotations_of_other_images_or_things(changes: Any, message: str, root: Path) -> None:
    """In the usual place they are passed over, and the fingerprint says so; where the suite names them that is an error."""
    write_instances(root, **({"annotations": []} | changes))
    dataset = open_coco(root)
    dataset.check()
    assert isinstance(dataset.coco_truth(), dict)
    assert re.search(f"things of the panoptic annotations: instances_val2017.json {message}", dataset.fingerprint()["instances"])
    (root / "annotations/instances_val2017.json").rename(root / "mine.json")
    with pytest.raises(DatasetError, match=rf"mine\.json: {message}; 'instances: null' takes"):
        open_coco(root, instances="mine.json").check()


def test_damaged_instance_annotations_are_an_error(root: Path) -> None:
    write_instances(root, annotations=[{"id": 1}])
    with pytest.raises(DatasetError, match=r"annotations\[0\]: expected the key 'image_id'"):
        open_coco(root).check()
    mask = {"size": [2, 4], "counts": [9]}
    write_instances(root, annotations=[{"id": 1, "image_id": 7, "category_id": 5, "segmentation": mask}])
    with pytest.raises(DatasetError, match="segmentation: expected run lengths"):
        open_coco(root).check()
    open_coco(root, instances=None).check()


def test_a_named_instance_file_must_be_there(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"others\.json: no such file, which dataset\.instances names"):
        open_coco(root, instances="others.json")


def test_data_folder_or_its_coco_subfolder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    open_coco(root)
    parent = tmp_path_factory.mktemp("parent")
    root.rename(parent / "coco")
    CocoPanoptic(CocoPanopticOptions(), parent).check()
    with pytest.raises(DatasetError, match=r"is not here: looked for .* and .*fetch coco-val2017.* download val2017\.zip"):
        CocoPanoptic(CocoPanopticOptions(), root)


def test_segments_may_lie_elsewhere_and_ids_may_be_texts(root: Path) -> None:
    (root / "annotations/panoptic_val2017").rename(root / "maps")
    text = json.dumps(GOOD).replace('"id": 7, "file', '"id": "7", "file').replace('"image_id": 7', '"image_id": "7"')
    dataset = open_coco(root, text, segments="maps")
    dataset.check()
    assert [e.image_id for e in dataset.examples()] == [3, "7"]


def test_a_test_set_without_annotations_opens(root: Path) -> None:
    dataset = open_coco(root, {"images": IMAGES, "categories": CATEGORIES})
    assert len(dataset.examples()) == 2
    assert dataset.fingerprint()["annotations_sha256"] is None
    with pytest.raises(DatasetError, match="expected annotations, got images only"):
        dataset.check()
    for ask in (dataset.coco_truth, lambda: dataset.semantic_truth(dataset.examples()[0])):
        with pytest.raises(DatasetError, match="expected an annotation for every image"):
            ask()


def changed(annotation: Any, **changes: Any) -> Any:
    return {**GOOD, "annotations": [{**annotation, **changes}, THREE if annotation is SEVEN else SEVEN]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(GOOD)[:100], "cut off: not valid JSON"),
        ("[]", "expected COCO annotations"),
        ({**GOOD, "categories": [{"id": 1, "name": "x"}]}, r"categories\[0\]: expected the key 'isthing'"),
        ({**GOOD, "images": IMAGES * 2}, "expected images of different ids, got 4 with 2 ids"),
        ({**GOOD, "images": [*IMAGES, {**IMAGES[0], "id": "000000000007"}]}, "give files different names, got 7 and '000000000007'"),
        ({**GOOD, "annotations": [SEVEN, SEVEN]}, r"annotations\[1\]: expected one annotation for each image, got a second one for 7"),
        (changed(SEVEN, image_id=8), r"annotations\[0\]: names image 8, which is not in the file"),
        (changed(SEVEN, file_name="../../x.png"), "expected a path inside the image folder"),
        (changed(SEVEN, segments_info=[{"id": 1}]), r"annotations\[0\]: segments_info\[0\]: expected the key 'category_id', got none"),
        (changed(SEVEN, segments_info=[{"id": 1, "category_id": 3}]), r"annotations\[0\]: names category 3, which is not in the file"),
        (changed(SEVEN, segments_info=[{"id": 0, "category_id": 2}]), r"segments_info\[0\]: id: expected greater than or equal to 1, got '0'"),
        (changed(SEVEN, segments_info=[{"id": 2**24, "category_id": 2}]), r"segments_info\[0\]: id: expected less than"),
        (changed(SEVEN, segments_info=[{"id": 1, "category_id": 2}] * 2), r"annotations\[0\]: expected segments of different ids"),
        (changed(SEVEN, segments_info=[{"id": 1, "category_id": 2, "iscrowd": 2}]), r"segments_info\[0\]: iscrowd: expected"),
        (changed(SEVEN, image_id=None), r"annotations\[0\]: image_id: expected a valid integer, got 'None'"),
    ],
)  # fmt: skip
def test_files_that_are_none_are_one_line(content: Any, message: str, root: Path) -> None:
    with pytest.raises(DatasetError, match=message) as error:
        open_coco(root, content)
    assert str(error.value).startswith(str(root / "annotations/panoptic_val2017.json"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "seven.png").unlink(), r"seven\.png: no such file; .*panoptic_val2017\.json names it"),
        (lambda folder: [f.unlink() for f in folder.glob("*.png")], r"seven\.png: no such file \(and 1 more\); "),
        (lambda folder: (folder / "seven.png").write_bytes(b""), r"seven\.png: not a readable PNG"),
        (lambda folder: (folder / "seven.png").write_bytes(encode_ids(IDS.T)), r"seven\.png: expected 4x2 pixels .* got 2x4"),
        (lambda folder: (folder / "seven.png").write_bytes(encode_ids(IDS + 1)), "segment 1 and 2 more is in the PNG and not in the JSON"),
        (lambda folder: (folder / "seven.png").write_bytes(encode_ids(IDS * (IDS > 9))), "segment 9 is in the JSON and not in the PNG"),
        (lambda folder: (folder / "seven.png").write_bytes(encode_ids(np.where(IDS, IDS, 9))), "segment 9: area: expected at least the 4 pixels"),
    ],
)  # fmt: skip
def test_check_finds_pngs_that_do_not_fit(change: Any, message: str, root: Path) -> None:
    change(root / "annotations/panoptic_val2017")
    with pytest.raises(DatasetError, match=message) as error:
        open_coco(root).check()
    assert "\n" not in str(error.value)


def test_images_of_another_size_and_missing_ones(root: Path) -> None:
    Image.new("RGB", (5, 5)).save(root / "val2017/a.png")
    (root / "val2017/b.png").unlink()
    dataset = open_coco(root)
    first, second = dataset.examples()
    with pytest.raises(ImageError, match="expected 4x2 pixels as in the annotations, got 5x5"):
        dataset.image(first)
    with pytest.raises(ImageError, match="no such image"):
        dataset.image(second)
    assert dataset.stamp(second) == "missing"
    assert dataset.fingerprint()["missing_images"] == 1


def test_fingerprint_speaks_of_truth_and_images_apart(root: Path) -> None:
    before = open_coco(root).fingerprint()
    assert before == open_coco(root).fingerprint()
    Image.new("RGB", (4, 2), (1, 1, 1)).save(root / "val2017/a.png", compress_level=0)
    image = open_coco(root).fingerprint()
    assert {k for k in before if before[k] != image[k]} == {"images_sha256"}
    (root / "annotations/panoptic_val2017/three.png").write_bytes(encode_ids(np.full((2, 4), 3, np.int32)))
    assert {k for k in image if image[k] != open_coco(root).fingerprint()[k]} == {"annotations_sha256"}
    assert len(before["annotations_sha256"]) == hashlib.sha256().digest_size * 2


@pytest.mark.full
def test_real_files(shared: Path) -> None:
    """COCO's own JSON and PNGs agree in every segment and area; instances and panoptic things are the same categories."""
    root = shared / "data/coco_real"
    dataset = CocoPanoptic(CocoPanopticOptions(), root)
    dataset.check()
    assert len(dataset.examples()) == 27
    assert len(dataset.categories) == 133
    things = [i for i, c in zip(dataset.category_ids, dataset.categories, strict=True) if c.is_thing]
    assert things == list(CocoInstance(CocoOptions(), root).category_ids)
    assert "has no image 285" in dataset.fingerprint()["instances"]  # the instance annotations are of other photos
    crowds = 0
    for example in dataset.examples():
        truth = dataset.panoptic_truth(example)
        ids, pixels = np.unique(truth.ids, return_counts=True)
        assert {s.id: s.area for s in truth.segments} == {i: n for i, n in zip(ids.tolist(), pixels.tolist(), strict=True) if i}
        semantic = dataset.semantic_truth(example)
        for segment in truth.segments:
            assert (semantic[truth.ids == segment.id] == segment.category).all()
            crowds += segment.is_crowd
        assert (semantic[truth.ids == 0] == 255).all()
    assert crowds
