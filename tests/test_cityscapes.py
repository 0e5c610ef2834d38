"""The Cityscapes reader on small trees of the official layout; its panoptic truth against the official converter's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
from PIL import Image

from m2fbench.datasets import cityscapes as reader
from m2fbench.datasets.cityscapes import Cityscapes, CityscapesOptions
from m2fbench.datasets.images import read_image
from m2fbench.errors import DatasetError, ImageError
from m2fbench.labels import label_set

IDS = ("frankfurt_000000_000294", "frankfurt_000001_000019", "lindau_000000_000019")
HEIGHT, WIDTH = 24, 40
EVALUATED = label_set("cityscapes").ids
THINGS = label_set("cityscapes_instance").ids


def save(root: Path, image_id: str, instance_ids: np.ndarray, labels: np.ndarray | None = None, split: str = "val") -> None:
    """One image with truth, as the official archives have it."""
    city = image_id.split("_")[0]
    images, truth = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
    images.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    height, width = instance_ids.shape
    Image.new("RGB", (width, height), (9, 99, 199)).save(images / f"{image_id}_leftImg8bit.png")
    if labels is None:
        labels = np.where(instance_ids < 1000, instance_ids, instance_ids // 1000)
    Image.fromarray(labels.astype(np.uint8)).save(truth / f"{image_id}_gtFine_labelIds.png")
    Image.fromarray(instance_ids.astype(np.uint16)).save(truth / f"{image_id}_gtFine_instanceIds.png")


def random_ids(rng: np.random.Generator) -> np.ndarray:
    """Blocks of anything that an instance PNG may hold: stuff, groups, instances, and labels that are not evaluated."""
    choices = [*range(34), *(1000 * label + n for label in range(24, 34) for n in (0, 1, 255, 999))]
    return np.kron(rng.choice(choices, (HEIGHT // 4, WIDTH // 4)), np.ones((4, 4), np.int64))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    for image_id in IDS:
        save(tmp_path, image_id, random_ids(rng))
    return tmp_path


def opened(root: Path, task: Any = "panoptic", **options: Any) -> Cityscapes:
    return Cityscapes(CityscapesOptions(**options), root, task)


def test_panoptic_truth_is_that_of_the_official_converter(tree: Path) -> None:
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

    convert2panoptic(str(tree / "gtFine"), str(tree), False, ["val"])
    official = json.loads((tree / "cityscapes_panoptic_val.json").read_text())
    dataset = opened(tree)
    assert dataset.category_ids == tuple(c["id"] for c in official["categories"])
    assert [c.name for c in dataset.categories] == [c["name"] for c in official["categories"]]
    assert [c.is_thing for c in dataset.categories] == [bool(c["isthing"]) for c in official["categories"]]
    assert [e.image_id for e in dataset.examples()] == [i["id"] for i in official["images"]] == list(IDS)
    crowds = 0
    for example, annotation in zip(dataset.examples(), official["annotations"], strict=True):
        truth = dataset.panoptic_truth(example)
        pixels = read_image(tree / "cityscapes_panoptic_val" / annotation["file_name"]).astype(np.int32)
        np.testing.assert_array_equal(truth.ids, pixels @ [1, 256, 65536])
        expected = [(s["id"], s["category_id"], bool(s["iscrowd"])) for s in annotation["segments_info"]]
        assert [(s.id, dataset.category_ids[s.category], s.is_crowd) for s in truth.segments] == expected
        crowds += sum(s.is_crowd for s in truth.segments)
    assert crowds > 0


def test_semantic_truth_is_the_official_train_ids(tree: Path) -> None:
    from cityscapesscripts.helpers.labels import id2label

    dataset = opened(tree, "semantic")
    for example in dataset.examples():
        train_ids = np.vectorize(lambda i: id2label[i].trainId)(dataset.label_ids(example))
        np.testing.assert_array_equal(dataset.semantic_truth(example), train_ids)


def test_instance_truth_in_coco_form(tree: Path) -> None:
    """Every value of a thing class is one annotation; a group (without a number) is a crowd."""
    for task in ("instance", "panoptic"):
        dataset = opened(tree, task)
        truth = dataset.coco_truth()
        assert [c["id"] for c in truth["categories"]] == list(THINGS)
        assert [a["id"] for a in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
        for example in dataset.examples():
            ids = dataset.instance_ids(example)
            mine = [a for a in truth["annotations"] if a["image_id"] == example.image_id]
            values = [v for v in np.unique(ids) if (v if v < 1000 else v // 1000) in THINGS]
            assert [(a["category_id"], a["iscrowd"]) for a in mine] == [
                (v if v < 1000 else v // 1000, int(v < 1000)) for v in values
            ]
            for annotation, value in zip(mine, values, strict=True):
                np.testing.assert_array_equal(hotcoco.mask.decode(annotation["segmentation"]), ids == value)
                assert annotation["area"] == (ids == value).sum()


def test_raw_files_and_left_out_classes(tree: Path) -> None:
    """Left-out classes are unlabelled everywhere; what is not evaluated anyway stays as it is, for the official metrics."""
    whole, part = opened(tree), opened(tree, classes={"car": "automobile", "road": "street"})
    assert [c.name for c in part.categories] == ["street", "automobile"]
    assert part.category_ids == part.label_values == (7, 26)
    for example in whole.examples():
        raw = np.asarray(
            Image.open(tree / f"gtFine/val/{str(example.image_id).split('_')[0]}/{example.image_id}_gtFine_instanceIds.png")
        )
        np.testing.assert_array_equal(whole.instance_ids(example), raw)
        assert whole.label_ids(example).dtype == np.uint8
        assert whole.instance_ids(example).dtype == np.int32
        labels = whole.label_ids(example)
        gone = np.isin(labels, [i for i in EVALUATED if i not in (7, 26)])
        np.testing.assert_array_equal(part.label_ids(example), np.where(gone, 0, labels))
        np.testing.assert_array_equal(part.instance_ids(example), np.where(gone, 0, whole.instance_ids(example)))
        kept = (labels == 7) | (labels == 26)
        np.testing.assert_array_equal(part.panoptic_truth(example).ids, np.where(kept, whole.panoptic_truth(example).ids, 0))
        np.testing.assert_array_equal(part.semantic_truth(example), np.select([labels == 7, labels == 26], [0, 1], 255))


def test_label_ids_follow_from_the_joint_ids(tree: Path) -> None:
    for dataset in (opened(tree), opened(tree, classes={"road": "road", "car": "car"})):
        for example in dataset.examples():
            ids = dataset.joint_ids(example)
            assert ids.dtype == np.uint16
            np.testing.assert_array_equal(ids, dataset.instance_ids(example))
            np.testing.assert_array_equal(np.where(ids < 1000, ids, ids // 1000), dataset.label_ids(example))


def test_the_instance_task_keeps_stuff_in_the_raw_files(tree: Path) -> None:
    dataset, whole = opened(tree, "instance", classes={"car": "car"}), opened(tree)
    for example in dataset.examples():
        labels = whole.label_ids(example)
        np.testing.assert_array_equal(dataset.label_ids(example), np.where(np.isin(labels, THINGS) & (labels != 26), 0, labels))


def test_the_folder_or_its_parent(tree: Path) -> None:
    inner = tree / "cityscapes"
    inner.mkdir()
    for name in ("leftImg8bit", "gtFine"):
        (tree / name).rename(inner / name)
    for root in (tree, inner):
        dataset = opened(root)
        dataset.check()
        assert dataset.examples()[0].size == (HEIGHT, WIDTH)
        assert dataset.image(dataset.examples()[0]).shape == (HEIGHT, WIDTH, 3)


def test_a_missing_dataset_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"looked for .*leftImg8bit/val and .*; register at https.*gtFine_trainvaltest\.zip.*--data"
    ):
        opened(tmp_path)
    (tmp_path / "leftImg8bit/val/x").mkdir(parents=True)
    with pytest.raises(DatasetError, match="expected images named <city>.*, got none"):
        opened(tmp_path)


def test_a_test_set_opens_without_truth(tmp_path: Path) -> None:
    save(tmp_path, "berlin_000000_000019", np.zeros((4, 4), int), split="test")
    for path in sorted((tmp_path / "gtFine").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "gtFine").rmdir()
    dataset = opened(tmp_path, split="test")
    assert dataset.image(dataset.examples()[0]).shape == (4, 4, 3)
    assert dataset.fingerprint()["annotations_sha256"] is None
    with pytest.raises(DatasetError, match=r"gtFine/test: no such folder, where the truth of 1 images belongs"):
        dataset.check()
    with pytest.raises(DatasetError, match=r"instanceIds\.png: no such file"):
        dataset.semantic_truth(dataset.examples()[0])


def test_truth_is_decoded_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of truth comes from the same runs; beyond the memory set aside for them, files are decoded again."""
    dataset = opened(tree)
    dataset.check()
    fresh = opened(tree)
    monkeypatch.setattr(reader, "KEPT_BYTES", 0)
    for example in dataset.examples():
        kept = [ask(example).copy() for ask in (dataset.label_ids, dataset.instance_ids, dataset.joint_ids, dataset.semantic_truth)]
        again = [ask(example) for ask in (fresh.label_ids, fresh.instance_ids, fresh.joint_ids, fresh.semantic_truth)]
        assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(kept, again, strict=True))
        kept[1][:] = 0
        assert dataset.instance_ids(example).any(), "what is kept is not handed out"
    assert not fresh._decoded
    for path in (tree / "gtFine").rglob("*.png"):
        path.unlink()
    assert all(dataset.semantic_truth(example).shape == example.size for example in dataset.examples())


def label_png(root: Path, kind: str = "labelIds", image_id: str = IDS[0]) -> Path:
    return root / "gtFine/val" / image_id.split("_")[0] / f"{image_id}_gtFine_{kind}.png"


def without_labels(root: Path) -> None:
    label_png(root).unlink()


def without_instances(root: Path) -> None:
    label_png(root, "instanceIds").unlink()
    label_png(root, "instanceIds", IDS[2]).unlink()


def without_image(root: Path) -> None:
    (root / "leftImg8bit/val/lindau" / f"{IDS[2]}_leftImg8bit.png").unlink()


def other_size(root: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH + 1), np.uint8)).save(label_png(root))


def train_ids(root: Path) -> None:
    for image_id in IDS:
        Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(label_png(root, image_id=image_id))


def numbered_road(root: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 7001, np.uint16)).save(label_png(root, "instanceIds"))


def unlike(root: Path) -> None:
    path = label_png(root)
    labels = np.array(Image.open(path))
    labels[3, 5] = (int(labels[3, 5]) + 1) % 34
    Image.fromarray(labels).save(path)


def in_colour(root: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(label_png(root))


def cut_off(root: Path) -> None:
    label_png(root).write_bytes(label_png(root).read_bytes()[:60])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_labels, r"294_gtFine_labelIds\.png: no such file, yet its image is there \(1 such file\); unpack"),
        (without_instances, r"294_gtFine_instanceIds\.png: no such file, yet its image is there \(2 such files\)"),
        (without_image, r"lindau_000000_000019_gtFine_labelIds\.png: truth without an image in leftImg8bit \(1 such file\)"),
        (other_size, r"labelIds\.png: expected 40x24 pixels as the image has, got 41x24"),
        (train_ids, r"294_gtFine_labelIds\.png: expected label ids 0 to 33, got 255; .*train ids.*\(3 such files\)"),
        (numbered_road, r"instanceIds\.png: expected label ids 0 to 33, or those of persons and vehicles .*, got 7001"),
        (
            unlike,
            r"294_gtFine_labelIds\.png: expected the label ids of frankfurt_000000_000294_gtFine_instanceIds\.png, got .*row 3, column 5; 1 such",
        ),
        (in_colour, r"labelIds\.png: expected a label PNG with one value a pixel .*, got mode RGB"),
        (cut_off, r"labelIds\.png: not a readable label PNG"),
    ],
)
def test_damaged_truth_is_named(tree: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(tree)
    with pytest.raises(DatasetError, match=message) as caught:
        opened(tree).check()
    assert "\n" not in str(caught.value)


def test_unreadable_images(tree: Path) -> None:
    """A run may leave one out, so opening goes on with its truth's size; without truth there is none."""
    broken = tree / "leftImg8bit/val/frankfurt" / f"{IDS[0]}_leftImg8bit.png"
    broken.write_bytes(b"no image")
    dataset = opened(tree)
    assert dataset.examples()[0].size == (HEIGHT, WIDTH)
    with pytest.raises(ImageError, match="not a readable image"):
        dataset.image(dataset.examples()[0])
    label_png(tree).unlink()
    with pytest.raises(ImageError, match=r"leftImg8bit\.png: not a readable image"):
        opened(tree)


def test_hidden_files_are_none_of_ours(tree: Path) -> None:
    """Some systems leave a companion beside every file that they copy."""
    for path in list(tree.rglob("*.png")):
        (path.parent / f"._{path.name}").write_bytes(b"companion")
    dataset = opened(tree)
    dataset.check()
    assert len(dataset.examples()) == len(IDS)


def test_one_name_in_two_cities(tree: Path) -> None:
    other = tree / "leftImg8bit/val/ulm"
    other.mkdir()
    Image.new("RGB", (4, 4)).save(other / f"{IDS[0]}_leftImg8bit.png")
    with pytest.raises(DatasetError, match=f"'{IDS[0]}' in two folders"):
        opened(tree)


def test_the_fingerprint_tells_truth_from_images(tree: Path) -> None:
    before = opened(tree).fingerprint()
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(tree / "leftImg8bit/val/frankfurt" / f"{IDS[0]}_leftImg8bit.png")
    images = opened(tree).fingerprint()
    assert images["images_sha256"] != before["images_sha256"]
    assert images["annotations_sha256"] == before["annotations_sha256"]
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(label_png(tree))
    assert opened(tree).fingerprint()["annotations_sha256"] != before["annotations_sha256"]
    assert opened(tree, classes={"car": "car"}).fingerprint() != opened(tree).fingerprint()
