"""The Mapillary Vistas reader on small trees of both archives' layouts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
import yaml
from PIL import Image

from m2fbench.datasets.export import export
from m2fbench.datasets.mapillary import Mapillary, MapillaryOptions
from m2fbench.datasets.shapes import Shapes, ShapesOptions
from m2fbench.errors import DatasetError
from m2fbench.labels import label_set
from m2fbench.metrics.semantic_iou import SemanticIoU
from m2fbench.peers import peer_predictions
from m2fbench.types import ScoringRules

IDS = ("--jRsD9anHdGxv4ZOCQktA", "b_1", "c")
HEIGHT, WIDTH = 12, 20
TABLE = label_set("mapillary_vistas")
CAR, PERSON, ROAD, SKY = 55, 19, 13, 27  # labels of v1.2
UNLABELED = 65


def palette_png(path: Path, labels: np.ndarray) -> None:
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putdata(labels.ravel().tolist())
    image.putpalette([(7 * k) % 256 for k in range(768)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save(truth: Path, images: Path, image_id: str, instances: np.ndarray, ending: str = ".jpg") -> dict[str, Any]:
    """One image with label, instance and panoptic PNG made from label * 256 + number; returns its panoptic annotation."""
    height, width = instances.shape
    images.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (9, 99, 199)).save(images / f"{image_id}{ending}")
    labels = instances // 256
    palette_png(truth / "labels" / f"{image_id}.png", labels)
    (truth / "instances").mkdir(exist_ok=True)
    Image.fromarray(instances.astype(np.uint16)).save(truth / "instances" / f"{image_id}.png")
    (truth / "panoptic").mkdir(exist_ok=True)
    ids = np.zeros((height, width), np.int64)
    segments = []
    for value in np.unique(instances):
        if value // 256 == UNLABELED:
            continue
        number = 70_000 + len(segments)
        mine = instances == value
        ids[mine] = number
        segments.append(
            {"id": number, "category_id": int(value // 256 + 1), "area": int(mine.sum()), "bbox": [0, 0, 1, 1], "iscrowd": 0}
        )
    pixels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(truth / "panoptic" / f"{image_id}.png")
    return {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments}


def scene(rng: np.random.Generator) -> np.ndarray:
    """label * 256 + number in blocks: things 0, 1 and 255, stuff always 0."""
    choices = [256 * PERSON + n for n in (0, 1, 255)] + [256 * CAR + 3, 0, 1, 256 * ROAD, 256 * SKY, 256 * UNLABELED]
    return np.kron(rng.choice(choices, (HEIGHT // 4, WIDTH // 4)), np.ones((4, 4), np.int64))


def make(root: Path, subfolder: str = "", json_name: str = "panoptic_2018.json") -> Path:
    rng = np.random.default_rng(3)
    truth = root / "validation" / subfolder
    annotations = [save(truth, root / "validation/images", i, scene(rng)) for i in IDS]
    categories = [{"id": i, "name": n, "supercategory": "x", "isthing": 0} for i, n in zip(TABLE.ids, TABLE.names, strict=True)]
    document = {"images": [], "annotations": annotations, "categories": categories}
    (truth / "panoptic" / json_name).write_text(json.dumps(document))
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make(tmp_path)


def opened(root: Path, task: Any = "panoptic", **options: Any) -> Mapillary:
    return Mapillary(MapillaryOptions(**options), root, task)


@pytest.mark.parametrize("subfolder", ["", "v1.2"])
def test_both_layouts_and_the_three_kinds_of_truth(tmp_path: Path, subfolder: str) -> None:
    make(tmp_path, subfolder)
    dataset = opened(tmp_path)
    dataset.check()
    assert [e.image_id for e in dataset.examples()] == sorted(IDS)
    assert dataset.label_values == tuple(range(65))
    assert dataset.category_ids == tuple(range(1, 66))
    truth_folder = tmp_path / "validation" / subfolder
    for example in dataset.examples():
        labels = np.asarray(Image.open(truth_folder / "labels" / f"{example.image_id}.png"))
        np.testing.assert_array_equal(dataset.semantic_truth(example), np.where(labels == UNLABELED, 255, labels))
        instances = np.asarray(Image.open(truth_folder / "instances" / f"{example.image_id}.png"))
        truth = dataset.panoptic_truth(example)
        np.testing.assert_array_equal(truth.ids == 0, labels == UNLABELED)
        assert len(truth.segments) == len(set(np.unique(instances)) - {256 * UNLABELED})
        for segment in truth.segments:
            assert set(np.unique(labels[truth.ids == segment.id])) == {segment.category}
            assert len(np.unique(instances[truth.ids == segment.id])) == 1
            assert segment.area == (truth.ids == segment.id).sum()
        assert dataset.image(example).shape == (HEIGHT, WIDTH, 3)


def test_without_panoptic_files_the_instances_tell_the_same(tree: Path) -> None:
    whole = opened(tree)
    expected = {e.image_id: whole.panoptic_truth(e) for e in whole.examples()}
    coco = whole.coco_truth()
    for path in (tree / "validation/panoptic").iterdir():
        path.unlink()
    dataset = opened(tree)
    dataset.check()
    for example in dataset.examples():
        truth, other = dataset.panoptic_truth(example), expected[example.image_id]
        pairs = {(int(a), int(b)) for a, b in zip(truth.ids.ravel(), other.ids.ravel(), strict=True)}
        assert len(pairs) == len(np.unique(truth.ids)) == len(np.unique(other.ids))
        classes = {s.id: s.category for s in other.segments} | {0: -1}
        assert {s.id: s.category for s in truth.segments} | {0: -1} == {a: classes[b] for a, b in pairs} | {0: -1}
    keys = ("image_id", "category_id", "area", "iscrowd")

    def plain(document: dict[str, Any]) -> list[str]:
        return sorted(str([a[k] for k in keys]) + a["segmentation"]["counts"] for a in document["annotations"])

    assert plain(dataset.coco_truth()) == plain(coco)


def test_things_in_coco_form(tree: Path) -> None:
    dataset = opened(tree)
    truth = dataset.coco_truth()
    things = [i for i, c in zip(dataset.category_ids, dataset.categories, strict=True) if c.is_thing]
    assert len(things) == 37
    assert [c["id"] for c in truth["categories"]] == things
    assert {a["category_id"] for a in truth["annotations"]} <= {1, PERSON + 1, CAR + 1}
    for annotation in truth["annotations"]:
        assert annotation["area"] == hotcoco.mask.area(annotation["segmentation"])


def test_left_out_classes_are_void(tree: Path) -> None:
    whole, part = opened(tree), opened(tree, classes={"Car": "automobile", "Road": "street"})
    assert [c.name for c in part.categories] == ["street", "automobile"]
    assert (part.category_ids, part.label_values) == ((ROAD + 1, CAR + 1), (ROAD, CAR))
    for example in whole.examples():
        labels = whole.semantic_truth(example)
        np.testing.assert_array_equal(part.semantic_truth(example), np.select([labels == ROAD, labels == CAR], [0, 1], 255))
        kept = np.isin(labels, [ROAD, CAR])
        truth = part.panoptic_truth(example)
        np.testing.assert_array_equal(truth.ids, np.where(kept, whole.panoptic_truth(example).ids, 0))
        assert {s.id for s in truth.segments} == set(np.unique(truth.ids)) - {0}


def sem_seg_json(dataset: Mapillary, ids: list[int], path: Path) -> Path:
    """The truth as detectron2 writes predictions of it. ids: of the dataset's classes."""
    entries = []
    for example in dataset.examples():
        truth = dataset.semantic_truth(example)
        for index in set(np.unique(truth).tolist()) - {255}:
            rle = hotcoco.mask.encode(np.asfortranarray(truth == index).astype(np.uint8))
            mask = {"size": list(example.size), "counts": rle["counts"].decode()}
            entries.append({"file_name": f"{example.image_id}.jpg", "category_id": ids[index], "segmentation": mask})
    path.write_text(json.dumps(entries))
    return path


def miou(dataset: Mapillary, predictions: Path, scratch: Path) -> float:
    ids = [e.image_id for e in dataset.examples()]
    scratch.mkdir()
    found = peer_predictions(predictions, dataset, ("semantic",), ids, scratch)
    return next(m.value for m in SemanticIoU().score(dataset, found, ids, ScoringRules()) if m.name == "mIoU")


def test_semantic_predictions_in_the_originals_ids(tree: Path, tmp_path: Path) -> None:
    """From 0 for the semantic dataset, which the original registers without ids; the JSON's 1..65 for the panoptic one."""
    semantic, panoptic = opened(tree, "semantic"), opened(tree)
    path = tmp_path / "sem_seg_predictions.json"
    assert miou(semantic, sem_seg_json(semantic, list(range(65)), path), tmp_path / "a") == 100
    assert miou(panoptic, sem_seg_json(panoptic, list(range(1, 66)), path), tmp_path / "b") == 100


@pytest.mark.parametrize("layout", ["mapillary-v1.2", "mapillary-v2.0"])
def test_semantic_predictions_for_an_exported_tree(tmp_path: Path, layout: str) -> None:
    """Of which only some of the classes are kept: their indices are those among all."""
    export(Shapes(ShapesOptions(count=2), None, "panoptic"), layout, tmp_path / "tree")
    options = yaml.safe_load((tmp_path / "tree/semantic.yaml").read_text())["dataset"]
    options.pop("name")
    dataset = opened(tmp_path / "tree", "semantic", **options)
    everything = opened(tmp_path / "tree", "semantic", **options | {"classes": None})
    ids = [everything.label_values.index(value) for value in dataset.label_values]
    assert miou(dataset, sem_seg_json(dataset, ids, tmp_path / "sem_seg_predictions.json"), tmp_path / "scratch") == 100


CONFIG = {
    "labels": [
        {"name": "animal--bird", "readable": "Bird", "instances": True, "evaluate": True, "color": [165, 42, 42]},
        {"name": "void--ambiguous", "readable": "Ambiguous", "instances": False, "evaluate": False, "color": [0, 0, 1]},
        {"name": "nature--sky", "readable": "Sky", "instances": False, "evaluate": True, "color": [1, 2, 3]},
        {"name": "object--car", "readable": "Car", "instances": True, "evaluate": True, "color": [1, 2, 4]},
        {"name": "void--unlabeled", "readable": "Unlabeled", "instances": False, "evaluate": False, "color": [0, 0, 0]},
    ]
}


def make_2_0(root: Path, category: dict[str, Any] | None = None) -> np.ndarray:
    instances = np.kron([[0, 256], [2 * 256, 3 * 256 + 9], [3 * 256, 4 * 256]], np.ones((4, 10), int))
    annotation = save(root / "validation/v2.0", root / "validation/images", "a", instances)
    (root / "config_v2.0.json").write_text(json.dumps(CONFIG))
    document = {"annotations": [annotation], "categories": [category or {"id": 4, "name": "Car", "supercategory": "object--car"}]}
    (root / "validation/v2.0/panoptic/panoptic_2020.json").write_text(json.dumps(document))
    return instances


def test_version_2_takes_its_classes_from_the_config(tmp_path: Path) -> None:
    labels = make_2_0(tmp_path) // 256
    dataset = opened(tmp_path, version="2.0")
    dataset.check()
    assert [(c.name, c.is_thing) for c in dataset.categories] == [("Bird", True), ("Sky", False), ("Car", True)]
    assert (dataset.label_values, dataset.category_ids) == ((0, 2, 3), (1, 3, 4))
    example = dataset.examples()[0]
    np.testing.assert_array_equal(
        dataset.semantic_truth(example), np.select([labels == 0, labels == 2, labels == 3], [0, 1, 2], 255)
    )
    for truth in (dataset.panoptic_truth(example), opened_without_json(tmp_path).panoptic_truth(example)):
        assert sorted(s.category for s in truth.segments) == [0, 1, 2, 2]
        np.testing.assert_array_equal(truth.ids == 0, (labels == 1) | (labels == 4))


def opened_without_json(root: Path) -> Mapillary:
    (root / "validation/v2.0/panoptic/panoptic_2020.json").unlink()
    return opened(root, version="2.0")


def test_version_2_wants_its_config_and_ids_that_mean_what_it_says(tmp_path: Path) -> None:
    make_2_0(tmp_path, {"id": 3, "name": "Car", "supercategory": "object--car"})
    with pytest.raises(DatasetError, match=r"panoptic_2020\.json: expected category 3 to be 'Sky', got 'Car'"):
        opened(tmp_path, version="2.0").check()
    (tmp_path / "config_v2.0.json").write_text(json.dumps({"labels": [{"name": "x"}]}))
    with pytest.raises(DatasetError, match=r"config_v2\.0\.json: labels\.0\.readable: expected"):
        opened(tmp_path, version="2.0")
    (tmp_path / "config_v2.0.json").unlink()
    with pytest.raises(DatasetError, match=r"config_v2\.0\.json: no such file; it holds the classes of version 2\.0"):
        opened(tmp_path, version="2.0")


def test_exif_rotation(tmp_path: Path) -> None:
    make(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "validation/images/c.jpg", exif=exif)
    upright = opened(tmp_path)
    upright.check()
    assert upright.examples()[-1].size == upright.image(upright.examples()[-1]).shape[:2] == (HEIGHT, WIDTH)
    with pytest.raises(DatasetError, match=r"labels/c\.png: expected 12x20 pixels as the image has, got 20x12"):
        opened(tmp_path, exif_rotation=False).check()


def test_a_missing_dataset_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"looked for .*validation/images and .*https://www\.mapillary\.com/dataset/vistas.*--data"
    ):
        opened(tmp_path)
    (tmp_path / "mapillary_vistas/testing/images").mkdir(parents=True)
    with pytest.raises(DatasetError, match="expected images <id>.jpg, got none"):
        opened(tmp_path, split="testing")
    Image.new("RGB", (4, 3)).save(tmp_path / "mapillary_vistas/testing/images/x.JPG")
    dataset = opened(tmp_path, split="testing")
    assert dataset.examples()[0].size == (3, 4)
    assert dataset.fingerprint()["annotations_sha256"] is None
    with pytest.raises(DatasetError, match=r"testing/labels: no such folder, where the truth of 1 images belongs"):
        dataset.check()


def test_hidden_files_are_none_of_ours(tree: Path) -> None:
    for folder in ("images", "labels", "panoptic"):
        (tree / "validation" / folder / "._c.png").write_bytes(b"companion")
    dataset = opened(tree)
    dataset.check()
    assert len(dataset.examples()) == len(IDS)


def without(kind: str) -> Callable[[Path], None]:
    return lambda truth: (truth / kind / "c.png").unlink()


def without_image(truth: Path) -> None:
    (truth / "images/c.jpg").unlink()


def twice(truth: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(truth / "images/c.png")


def of_version_2(truth: Path) -> None:
    palette_png(truth / "labels/c.png", np.full((HEIGHT, WIDTH), 123))


def other_size(truth: Path) -> None:
    palette_png(truth / "labels/c.png", np.zeros((HEIGHT + 1, WIDTH)))


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(truth: Path) -> None:
        path = truth / "panoptic/panoptic_2018.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return damage


def not_json(truth: Path) -> None:
    (truth / "panoptic/panoptic_2018.json").write_text("[1")


def unknown_instances(truth: Path) -> None:
    (truth / "panoptic/panoptic_2018.json").unlink()
    for image_id in IDS:
        Image.fromarray(np.full((HEIGHT, WIDTH), 66 * 256, np.uint16)).save(truth / "instances" / f"{image_id}.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("labels"), r"labels/c\.png: no such file, yet its image is there \(1 such file\)"),
        (without("panoptic"), r"panoptic/c\.png: no such file, yet its image is there"),
        (without_image, r"labels/c\.png: truth without an image"),
        (twice, r"c\.png: expected images of different names, got c\.jpg too"),
        (of_version_2, r"labels/c\.png: expected labels 0 to 65 of version 1\.2, got 123; is it another version's"),
        (other_size, r"labels/c\.png: expected 20x12 pixels as the image has, got 20x13"),
        (unknown_instances, r"instances/--jRsD9anHdGxv4ZOCQktA\.png: expected labels 0 to 65 .*got 66.*\(3 such files\)"),
        (not_json, r"panoptic_2018\.json: expected .*; it should hold the panoptic truth"),
        (changed(lambda d: d["annotations"].pop()), r"panoptic_2018\.json: expected an annotation of image c, got none"),
        (changed(lambda d: d["annotations"].append(d["annotations"][0])), "expected one annotation an image, got 4 of 3 images"),
        (
            changed(lambda d: d["annotations"][0]["segments_info"].pop()),
            r"panoptic/--jRsD9anHdGxv4ZOCQktA\.png: segment .* is in the PNG",
        ),
        (changed(lambda d: d["annotations"][0]["segments_info"][0].update(category_id=99)), "expected categories 1 to 66, got 99"),
        (changed(lambda d: d["categories"][0].update(name="Fish")), "expected category 1 to be 'Bird', got 'Fish'"),
    ],
)
def test_damaged_truth_is_named(tree: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(tree / "validation")
    with pytest.raises(DatasetError, match=message) as caught:
        opened(tree).check()
    assert "\n" not in str(caught.value)


def test_the_fingerprint_tells_truth_from_images(tree: Path) -> None:
    before = opened(tree).fingerprint()
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(tree / "validation/images/c.jpg")
    images = opened(tree).fingerprint()
    assert images["images_sha256"] != before["images_sha256"]
    assert images["annotations_sha256"] == before["annotations_sha256"]
    of_version_2(tree / "validation")
    assert opened(tree).fingerprint()["annotations_sha256"] != before["annotations_sha256"]
