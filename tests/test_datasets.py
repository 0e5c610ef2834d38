"""Dataset readers: the procedural scenes, and COCO files that are right, wrong and hostile."""

import hashlib
import json
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
from conftest import FIXTURES
from PIL import Image

from m2fbench.datasets.coco_instance import CocoInstance, CocoOptions
from m2fbench.datasets.scenes import CATEGORIES, MIN_VISIBLE, THINGS, generate
from m2fbench.datasets.shapes import SEEDS, Shapes, ShapesOptions
from m2fbench.errors import DatasetError, ImageError

GOOD: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.png", "height": 10, "width": 20},
        {"id": 3, "file_name": "sub/a.png", "height": 5, "width": 6},
    ],
    "categories": [{"id": 9, "name": "nine"}, {"id": 2, "name": "two"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 9,
            "segmentation": [[1, 1, 5, 1, 5, 5]],
            "area": 8,
            "iscrowd": 0,
            "bbox": [1, 1, 4, 4],
        }
    ],
}

ANNOTATION = GOOD["annotations"][0]


def open_coco(folder: Path, content: Any = GOOD, **options: Any) -> CocoInstance:
    (folder / "truth.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return CocoInstance(CocoOptions(annotations="truth.json", images=".", **options), folder)


def test_scenes_are_what_they_were() -> None:
    """The committed digests hold every pixel: a change that moves one needs a new SCENES_VERSION and a new checkpoint."""
    expected = json.loads((FIXTURES / "scenes_sha256.json").read_text())
    for key, digest in expected.items():
        seed, index = map(int, key.split("/"))
        scene = generate(seed, index)
        content = scene.image.tobytes() + scene.ids.tobytes() + bytes(scene.classes)
        assert hashlib.sha256(content).hexdigest() == digest, key


def test_scenes_have_what_makes_segmentation_hard() -> None:
    areas, stuff_seen, things_seen, touching = [], set(), set(), 0
    for index in range(60):
        scene = generate(9, index)
        height, width = scene.ids.shape
        assert scene.image.shape == (height, width, 3)
        assert set(np.unique(scene.ids)) == set(range(1, len(scene.classes) + 1)), "every pixel has a segment, every segment pixels"
        things = [k for k, c in enumerate(scene.classes, 1) if c < len(THINGS)]
        stuff = [c for c in scene.classes if c >= len(THINGS)]
        assert len(stuff) == len(set(stuff)), "one segment for each kind of ground"
        stuff_seen |= set(stuff)
        things_seen |= {scene.classes[k - 1] for k in things}
        areas += [int((scene.ids == k).sum()) for k in things]
        horizontal = np.stack([scene.ids[:, :-1], scene.ids[:, 1:]])
        pairs = np.isin(horizontal, things).all(0) & (horizontal[0] != horizontal[1])
        touching += bool(pairs.any())
    assert min(areas) >= MIN_VISIBLE
    assert sum(a < 32**2 for a in areas) > 30, "small objects"
    assert sum(a > 96**2 for a in areas) > 5, "large objects"
    assert touching > 20, "things lie over one another"
    assert things_seen == set(range(6))
    assert stuff_seen == set(range(6, 10))


def test_splits_differ_and_repeat() -> None:
    assert len(set(SEEDS.values())) == 3
    first, again = generate(SEEDS["val"], 5), generate(SEEDS["val"], 5)
    np.testing.assert_array_equal(first.image, again.image)
    assert not np.array_equal(first.ids, generate(SEEDS["test"], 5).ids)


def test_shapes_truth_is_the_scenes() -> None:
    dataset = Shapes(ShapesOptions(split="val", count=4))
    truth = dataset.coco_truth()
    for example in dataset.examples():
        scene = generate(SEEDS["val"], int(example.image_id) - 1)
        np.testing.assert_array_equal(dataset.image(example), scene.image)
        assert scene.ids.shape == example.size
        annotations = [a for a in truth["annotations"] if a["image_id"] == example.image_id]
        things = [(k, c) for k, c in enumerate(scene.classes, 1) if c < len(THINGS)]
        assert len(annotations) == len(things)
        for annotation, (number, category) in zip(annotations, things, strict=True):
            np.testing.assert_array_equal(hotcoco.mask.decode(annotation["segmentation"]), scene.ids == number)
            assert annotation["category_id"] == dataset.category_ids[category]
            assert annotation["area"] == (scene.ids == number).sum()
    assert dataset.categories == CATEGORIES[:6]
    assert dataset.fingerprint() == Shapes(ShapesOptions(split="val", count=4)).fingerprint()
    assert dataset.fingerprint() != Shapes(ShapesOptions(split="val", count=5)).fingerprint()


def test_coco_categories_and_images_in_order_of_their_ids(tmp_path: Path) -> None:
    dataset = open_coco(tmp_path)
    assert dataset.category_ids == (2, 9)
    assert [c.name for c in dataset.categories] == ["two", "nine"]
    assert [(e.image_id, e.size) for e in dataset.examples()] == [(3, (5, 6)), (7, (10, 20))]


def test_data_folder_or_its_coco_subfolder(tmp_path: Path) -> None:
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps(GOOD))
    for root in (tmp_path, tmp_path / "coco"):
        assert CocoInstance(CocoOptions(), root).coco_truth() == tmp_path / "coco/annotations/instances_val2017.json"


def test_a_missing_dataset_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not here: looked for .*download val2017\.zip .*--data or M2FBENCH_DATA"):
        CocoInstance(CocoOptions(), tmp_path)


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(GOOD)[: len(json.dumps(GOOD)) // 2], "cut off: not valid JSON .EOF"),
        ("", "not valid JSON"),
        ("[1]", "expected COCO annotations"),
        ({"images": []}, "expected COCO annotations with a list 'categories', got none"),
        (changed(images=[{"id": 1}]), r"images\[0\]: expected the key 'file_name'"),
        (changed(annotations=[{**ANNOTATION, "image_id": 99}]), r"annotations\[0\]: names image 99, which is not in the file"),
        (changed(annotations=[{**ANNOTATION, "category_id": 4}]), r"annotations\[0\]: names category 4"),
        (changed(annotations=[{**ANNOTATION, "category_id": "9"}]), r"annotations\[0\]: category_id: expected a valid integer"),
        (changed(annotations=[{**ANNOTATION, "image_id": [7]}]), r"annotations\[0\]: image_id: expected"),
        (changed(annotations=[{**ANNOTATION, "iscrowd": "1"}]), r"annotations\[0\]: iscrowd: expected"),
        (changed(annotations=[{**ANNOTATION, "area": -1}]), r"annotations\[0\]: area: expected"),
        (changed(annotations=[{**ANNOTATION, "area": float("nan")}]), r"annotations\[0\]: area: expected a finite number"),
        (
            changed(annotations=[{**ANNOTATION, "segmentation": {"size": [20, 10], "counts": [200]}}]),
            "expected an encoding of size",
        ),
        (changed(annotations=[{**ANNOTATION, "segmentation": []}]), "segmentation: expected a run-length encoding or polygons"),
        (changed(annotations=[5]), r"annotations\[0\]: expected an object"),
        (changed(images=[{**GOOD["images"][0], "height": None}]), r"images\[0\]: height: expected"),
        (changed(images=[{**GOOD["images"][0], "id": None}]), r"images\[0\]: id: expected"),
        (changed(categories=[{"id": 1.5, "name": "x"}]), r"categories\[0\]: id: expected"),
        (changed(images=[{**GOOD["images"][0], "file_name": "a\0b"}], annotations=[]), "expected a path inside the image folder"),
        ("[" * 100_000, "not valid JSON"),
        (changed(images=[GOOD["images"][0]] * 2), "expected images of different ids"),
        (
            changed(images=[{**GOOD["images"][0], "id": i} for i in (139, "000000000139")], annotations=[]),
            r"truth\.json: expected image ids that give files different names, got 139 and '000000000139'",
        ),
        (
            changed(images=[{**GOOD["images"][0], "file_name": "../../etc/passwd"}], annotations=[]),
            "expected a path inside the image folder",
        ),
        (
            changed(images=[{**GOOD["images"][0], "file_name": "/etc/passwd"}], annotations=[]),
            "expected a path inside the image folder",
        ),
        (changed(images=[{**GOOD["images"][0], "file_name": "..\\x"}], annotations=[]), "expected a path inside the image folder"),
    ],
)
def test_annotations_that_are_wrong(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        open_coco(tmp_path, content).check()
    assert "truth.json" in str(caught.value)


def test_loose_but_clear_annotations_are_put_in_order(tmp_path: Path) -> None:
    """No area, no iscrowd, ids that repeat or are 0, a byte order mark: evaluators stumble over these, so they get a regular copy."""
    loose = {k: v for k, v in GOOD["annotations"][0].items() if k not in ("area", "iscrowd", "bbox")} | {"id": 0}
    content = "\ufeff" + json.dumps(changed(annotations=[loose, loose], info=5))
    truth = open_coco(tmp_path, content).coco_truth()
    assert isinstance(truth, dict)
    assert [(a["id"], a["iscrowd"]) for a in truth["annotations"]] == [(1, 0), (2, 0)]
    regular = hotcoco.COCO(truth)
    assert truth["annotations"][0]["area"] == hotcoco.mask.area(regular.ann_to_rle(regular.load_anns([1])[0])) > 0
    assert isinstance(open_coco(tmp_path).coco_truth(), Path), "what is regular goes to the evaluators as it is"


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    dataset = open_coco(tmp_path)
    Image.new("RGB", (10, 20)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"b\.png: expected 20x10 pixels as in the annotations, got 10x20.*exif_rotation: false"):
        dataset.image(dataset.examples()[1])


def test_exif_rotated_photos_follow_the_annotations(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 20)).save(tmp_path / "b.png", exif=exif)
    upright = open_coco(tmp_path)
    assert upright.image(upright.examples()[1]).shape == (10, 20, 3)
    as_stored = open_coco(tmp_path, changed(images=[{**GOOD["images"][0], "height": 20, "width": 10}]), exif_rotation=False)
    assert as_stored.image(as_stored.examples()[0]).shape == (20, 10, 3)


def test_the_fingerprint_sees_annotations_and_images(tmp_path: Path) -> None:
    before = open_coco(tmp_path).fingerprint()
    assert before["missing_images"] == 2
    Image.new("RGB", (20, 10)).save(tmp_path / "b.png")
    after = open_coco(tmp_path).fingerprint()
    assert after["missing_images"] == 1
    assert after["images_sha256"] != before["images_sha256"]
    assert after["annotations_sha256"] == before["annotations_sha256"]
    assert open_coco(tmp_path, changed(info="x")).fingerprint()["annotations_sha256"] != before["annotations_sha256"]


@pytest.mark.full
def test_real_photos_match_their_annotations(shared: Path) -> None:
    dataset = CocoInstance(CocoOptions(), shared / "data/coco_real")
    assert len(dataset.examples()) == 57
    assert dataset.fingerprint()["missing_images"] == 0
    for example in dataset.examples():
        assert dataset.image(example).shape[:2] == example.size
