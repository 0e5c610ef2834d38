"""ADE20K's reader and preparation, against what the original code's scripts make of the same files.

fixtures/ade20k_prepared.json is the output of facebookresearch/Mask2Former 9b0651c, datasets/prepare_ade20k_pan_seg.py and
prepare_ade20k_ins_seg.py, run over ``write_tree``. They draw the colours of further instances from numpy's global generator, which was
seeded with 0 at every image, as ours is; the PNGs stand there as hashes of their pixels.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from conftest import FIXTURES
from PIL import Image

from m2fbench.datasets.ade20k import Ade20k, Ade20kOptions
from m2fbench.datasets.ade20k_truth import Runs, colors, panoptic
from m2fbench.datasets.prepare_ade20k import prepare
from m2fbench.errors import DatasetError, StoreError, SuiteError
from m2fbench.labels import label_set
from m2fbench.types import Head

SIZES = ((37, 53), (64, 40), (1, 9), (45, 45), (30, 61))
HIDDEN = 3  # the image of which one stuff class is wholly under a thing
ORIGINAL: dict[str, Any] = json.loads((FIXTURES / "ade20k_prepared.json").read_text())


def labels_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Semantic and instance labels of one image: boxes over boxes, some unlabelled, with instances that need not fit what is below."""
    random = np.random.RandomState(number)  # its streams are the same in every version of numpy
    height, width = SIZES[number % len(SIZES)]
    semantic = np.full((height, width), random.randint(0, 151), np.uint8)
    instances = np.zeros((height, width, 3), np.uint8)
    for _ in range(14):
        semantic[_box(random, height, width)] = random.choice([0, 1, 3, 13, 13, 21, 150, random.randint(1, 151)])
    if number % 5 != 4:  # some images have no instance
        kinds = random.randint(1, 101, size=3)
        for k in range(12):  # one may cover another wholly, so numbers are missing; several of one class
            instances[_box(random, height, width)] = (random.choice(kinds), 3 * k + 1, random.randint(256))
        instances[-1, -1], instances[0, 0] = (12, 200, 7), (12, 255, 7)  # the last pixel and the first, of one each
    if number == HIDDEN:
        semantic[semantic == 1] = 0
        semantic[5:9, 5:9] = 1
        instances[4:10, 4:10] = (4, 90, 0)
    return semantic, instances


def _box(random: np.random.RandomState, height: int, width: int) -> tuple[slice, slice]:
    top, left = random.randint(height), random.randint(width)
    return slice(top, top + random.randint(1, height // 2 + 2)), slice(left, left + random.randint(1, width // 2 + 2))


def write_tree(root: Path, split: str = "validation", count: int = 6, ending: str = ".jpg") -> Path:
    """A small dataset in the challenge's layout below ``root``; returns its folder."""
    folder = root / "ADEChallengeData2016"
    for kind in ("images", "annotations", "annotations_instance"):
        (folder / kind / split).mkdir(parents=True)
    for number in range(count):
        semantic, instances = labels_of(number)
        name = f"ADE_val_{number + 1:08d}"
        Image.new("RGB", semantic.shape[::-1], (number, 0, 99)).save(folder / "images" / split / f"{name}{ending}")
        Image.fromarray(semantic).save(folder / "annotations" / split / f"{name}.png")
        Image.fromarray(instances).save(folder / "annotations_instance" / split / f"{name}.png")
    return folder


def pixels_sha256(path: Path) -> str:
    image = np.asarray(Image.open(path))
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def open_ade(data: Path, task: Head = "panoptic", **options: Any) -> Ade20k:
    return Ade20k(Ade20kOptions(**options), data, task)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def test_prepared_files_are_those_of_the_original_scripts(tree: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    panoptic_file, folder, instance_file = prepare(
        tree, "validation", tmp_path / "out", lambda done, total: seen.append((done, total))
    )
    assert (panoptic_file.name, folder.name, instance_file.name) == (
        "ade20k_panoptic_val.json", "ade20k_panoptic_val", "ade20k_instance_val.json",
    )  # fmt: skip
    theirs = ORIGINAL["panoptic"]
    for category in theirs["categories"]:
        category["name"] = category["name"].strip()  # the original's has a blank after "window"
    assert json.loads(panoptic_file.read_text()) == theirs
    assert json.loads(instance_file.read_text()) == ORIGINAL["instances"]
    assert {path.name: pixels_sha256(path) for path in folder.iterdir()} == ORIGINAL["pixels_sha256"]
    assert seen == [(6, 6)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([panoptic_file.name, folder.name, instance_file.name])


def test_truth_made_on_demand_is_that_of_the_original_scripts(tree: Path) -> None:
    dataset = open_ade(tree.parent)
    dataset.check()
    assert dataset.category_ids == tuple(range(150))
    assert dataset.label_values == tuple(range(1, 151))
    segments = {a["image_id"]: a["segments_info"] for a in ORIGINAL["panoptic"]["annotations"]}
    for number, example in enumerate(dataset.examples()):
        assert example.image_id == f"ADE_val_{number + 1:08d}"
        truth = dataset.panoptic_truth(example)
        theirs = segments[str(example.image_id)]
        assert truth.ids.dtype == np.int32
        assert [(s.id, dataset.category_ids[s.category], s.area) for s in truth.segments] == [
            (s["id"], s["category_id"], s["area"]) for s in theirs
        ]
        rgb = np.stack([truth.ids % 256, truth.ids // 256 % 256, truth.ids // 65536], -1).astype(np.uint8)
        sha256 = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
        assert sha256 == ORIGINAL["pixels_sha256"][f"{example.image_id}.png"]
        semantic = labels_of(number)[0]
        labels = dataset.semantic_truth(example)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, semantic - np.uint8(1))  # 0 becomes 255
    assert open_ade(tree, "instance").coco_truth() == ORIGINAL["instances"]
    assert dataset.coco_truth()["annotations"] == ORIGINAL["instances"]["annotations"]  # type: ignore[index]


def test_the_tree_has_what_makes_it_hard(tree: Path) -> None:
    dataset = open_ade(tree)
    truths = [dataset.panoptic_truth(example) for example in dataset.examples()]
    hidden = [s for s in truths[HIDDEN].segments if not (truths[HIDDEN].ids == s.id).any()]
    assert [dataset.categories[s.category].name for s in hidden] == ["wall"], "a stuff segment of which no pixel is left"
    assert hidden[0].area == 16
    smaller = [s for t in truths for s in t.segments if s.area != (t.ids == s.id).sum()]
    assert len(smaller) > 5
    for truth, example in zip(truths, dataset.examples(), strict=True):
        void, labels = truth.ids == 0, dataset.semantic_truth(example)
        assert {dataset.categories[c].is_thing for c in labels[void & (labels < 255)].tolist()} <= {True}
    assert any((t.ids == 0).any() for t in truths)
    assert any(len({s.category for s in t.segments}) < len(t.segments) for t in truths), "several instances of a class"


def test_instance_categories_are_those_of_a_panoptic_models_things(tree: Path) -> None:
    """One truth fits the results of both kinds of model: they share category ids, not indices."""
    instance, whole = open_ade(tree, "instance"), open_ade(tree, "panoptic")
    things = [i for i, c in zip(whole.category_ids, whole.categories, strict=True) if c.is_thing]
    assert instance.category_ids == tuple(things) == label_set("ade20k_instance").ids
    assert instance.label_values == tuple(v for v, c in zip(whole.label_values, whole.categories, strict=True) if c.is_thing)
    assert [c["id"] for c in whole.coco_truth()["categories"]] == things  # type: ignore[index]


@pytest.mark.parametrize("task", get_args(Head))
def test_prepared_files_are_used_without_the_official_ones(task: Head, tree: Path) -> None:
    before = open_ade(tree, task)
    fingerprint = before.fingerprint()
    truth = [before.panoptic_truth(e) for e in before.examples()]
    prepare(tree)
    assert open_ade(tree, task).fingerprint() == fingerprint, "a run begun before goes on"
    shutil.rmtree(tree / "annotations_instance")
    after = open_ade(tree, task)
    after.check()
    assert after.coco_truth() == tree / "ade20k_instance_val.json"
    for example, expected in zip(after.examples(), truth, strict=True):
        found = after.panoptic_truth(example)
        np.testing.assert_array_equal(found.ids, expected.ids)
        assert found.segments == expected.segments
    changed = fingerprint["annotations_sha256"] != after.fingerprint()["annotations_sha256"]
    assert changed == (task != "semantic"), "the semantic task reads none of them"


def test_classes_restrict_every_kind_of_truth(tree: Path) -> None:
    chosen = {"person": "human", "wall": "wall", "tree": "plant"}
    for prepared in (False, True):
        if prepared:
            prepare(tree)
            shutil.rmtree(tree / "annotations_instance")
        whole, some = open_ade(tree), open_ade(tree, classes=chosen)
        some.check()
        assert [c.name for c in some.categories] == ["wall", "plant", "human"]
        assert (some.category_ids, some.label_values) == ((0, 4, 12), (1, 5, 13))
        for example in whole.examples():
            everything, truth = whole.panoptic_truth(example), some.panoptic_truth(example)
            expected = [s for s in everything.segments if s.category in some.category_ids]
            assert [(s.id, some.category_ids[s.category], s.area) for s in truth.segments] == [
                (s.id, s.category, s.area) for s in expected
            ]
            np.testing.assert_array_equal(truth.ids, np.where(np.isin(everything.ids, [s.id for s in expected]), everything.ids, 0))
            labels, full = some.semantic_truth(example), whole.semantic_truth(example)
            for index, category in enumerate(some.category_ids):
                np.testing.assert_array_equal(labels == index, full == category)
            assert set(np.unique(labels)) <= {0, 1, 2, 255}
        truth = some.coco_truth()
        assert isinstance(truth, dict)
        assert truth["categories"] == [{"id": 12, "name": "human"}]
        assert {a["category_id"] for a in truth["annotations"]} == {12}
        assert [a["id"] for a in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
        assert some.fingerprint() != whole.fingerprint()
    with pytest.raises(SuiteError, match="got 'persn' .did you mean 'person'"):
        open_ade(tree, classes={"persn": "x"})


def test_images_of_any_kind_and_splits_of_any_name(tmp_path: Path) -> None:
    folder = write_tree(tmp_path, "my.split", 2, ".png")
    (folder / "images/my.split/.DS_Store").write_bytes(b"x")
    (folder / "images/my.split/Thumbs.db").write_bytes(b"x")
    dataset = open_ade(tmp_path, split="my.split")
    dataset.check()
    assert [(e.image_id, e.size) for e in dataset.examples()] == [("ADE_val_00000001", (37, 53)), ("ADE_val_00000002", (64, 40))]
    for example in dataset.examples():
        assert dataset.image(example).shape == (*example.size, 3)
    prepare(tmp_path, "my.split")
    assert (folder / "ade20k_instance_my.split.json").is_file()


def test_without_truth_it_opens_and_says_what_is_missing(tree: Path) -> None:
    shutil.rmtree(tree / "annotations_instance")
    open_ade(tree, "semantic").check()
    for task in ("panoptic", "instance"):
        dataset = open_ade(tree, task)  # type: ignore[arg-type]
        assert dataset.image(dataset.examples()[0]).shape == (37, 53, 3)
        for ask in (dataset.check, dataset.coco_truth, lambda d=dataset: d.panoptic_truth(d.examples()[0])):
            with pytest.raises(DatasetError, match=r"annotations_instance.* no such .*annotations_instance\.tar"):
                ask()
    shutil.rmtree(tree / "annotations")
    dataset = open_ade(tree, "semantic")
    assert dataset.fingerprint()["annotations_sha256"] is None
    with pytest.raises(DatasetError, match=r"annotations/validation: no such folder.*`m2fbench datasets fetch ade20k`"):
        dataset.check()


def test_a_missing_dataset_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"not here: looked for .* and .*ADEChallengeData2016/images/validation; .*fetch ade20k"):
        open_ade(tmp_path)
    (tmp_path / "images/validation").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"expected images \(\.jpg, \.jpeg, \.png\), got none"):
        open_ade(tmp_path)


SEMANTIC, INSTANCE = "annotations/validation/ADE_val_00000002.png", "annotations_instance/validation/ADE_val_00000002.png"


def grey(value: int, size: tuple[int, int] = (40, 64)) -> Image.Image:
    return Image.new("L", size, value)


def two_classes() -> Image.Image:
    labels = np.zeros((64, 40, 3), np.uint8)
    labels[:5], labels[5:9] = (3, 9, 0), (4, 9, 0)
    return Image.fromarray(labels)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (SEMANTIC, None, "no such file, with 1 of 6 images without annotations"),
        (INSTANCE, None, r"no such file, with 1 of 6 .*annotations_instance\.tar"),
        ("images/validation/ADE_val_00000002.jpg", None, "00000002.png: has no image, as 1 of 6 annotations"),
        (SEMANTIC, grey(151), r"expected values 0 \(unlabelled\) to 150, got 151"),
        (SEMANTIC, grey(1, (64, 40)), "expected 40x64 pixels as the image has, got 64x40"),
        (SEMANTIC, Image.new("RGB", (40, 64)), "expected a PNG of one 8-bit channel, got PIL mode RGB"),
        (SEMANTIC, Image.new("I;16", (40, 64)), "expected a PNG of one 8-bit channel, got PIL mode I;16"),
        (SEMANTIC, b"", "not a readable PNG"),
        (INSTANCE, b"\x89PNG\r\n\x1a\n" + bytes(40), "not a readable PNG"),
        (INSTANCE, grey(1), "expected a PNG of three 8-bit channels, got PIL mode L"),
        (INSTANCE, Image.new("RGB", (40, 64), (0, 7, 0)), "instance 7: expected a class of 1 to 100 in the first channel, got 0"),
        (
            INSTANCE,
            Image.new("RGB", (40, 64), (101, 7, 0)),
            "instance 7: expected a class of 1 to 100 in the first channel, got 101",
        ),
        (INSTANCE, two_classes(), "instance 9: expected one class in the first channel, got 3 and 4"),
    ],
)
def test_official_files_that_are_wrong(
    file: str, content: Image.Image | bytes | None, message: str, tree: Path, tmp_path: Path
) -> None:
    if content is None:
        (tree / file).unlink()
    elif isinstance(content, bytes):
        (tree / file).write_bytes(content)
    else:
        content.save(tree / file)
    with pytest.raises(DatasetError, match=message) as caught:
        open_ade(tree).check()
    assert str(tree) in str(caught.value)
    assert "ADE_val_00000002" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=message):
        prepare(tree, "validation", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")), "nothing half made is left"


def test_images_that_are_wrong(tree: Path) -> None:
    shutil.copy(tree / "images/validation/ADE_val_00000001.jpg", tree / "images/validation/ADE_val_00000001.png")
    with pytest.raises(DatasetError, match=r"00000001\.png: expected one image of every id, got ADE_val_00000001\.jpg as well"):
        open_ade(tree)
    (tree / "images/validation/ADE_val_00000001.png").write_bytes(b"x")
    (tree / "images/validation/ADE_val_00000001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"00000001\.png: not a readable image"):
        open_ade(tree).examples()
    for split in ("../x", "/etc", "", "a/b", ".."):
        with pytest.raises(ValueError, match="split"):
            Ade20kOptions(split=split)


def changed(name: str, change: Any) -> Any:
    def apply(tree: Path) -> None:
        document = json.loads((tree / name).read_text())
        document = change(document) or document
        (tree / name).write_text(document if isinstance(document, str) else json.dumps(document))

    return apply


MAPS, INSTANCES = "ade20k_panoptic_val.json", "ade20k_instance_val.json"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (MAPS, lambda d: json.dumps(d)[:-9], "not valid JSON"),
        (MAPS, lambda d: [1], "expected an object, got a list"),
        (MAPS, lambda d: d.pop("annotations") and None, "annotations: .*valid list"),
        (MAPS, lambda d: d["annotations"].pop() and None, "expected one annotation for every image, got 5"),
        (MAPS, lambda d: d["images"].pop() and None, "expected the 6 images of the folder, got 5, 'ADE_val_00000006'"),
        (
            MAPS,
            lambda d: d["annotations"][0]["segments_info"][0].update(category_id=150),
            "category_id: .*less than 150, got '150'",
        ),
        (MAPS, lambda d: d["annotations"][0]["segments_info"][0].update(id="7"), "id: .*valid integer, got '7'"),
        (MAPS, lambda d: d["annotations"][0]["segments_info"].pop() and None, "ADE_val_00000001: its PNG's segment .* is not here"),
        (INSTANCES, lambda d: d["images"][0].update(id="other"), "expected the 6 images of the folder, got 6, 'ADE_val_00000001'"),
        (INSTANCES, lambda d: d["annotations"][3].update(image_id="other"), r"annotations\[3\]: names image 'other'"),
        (
            INSTANCES,
            lambda d: d["annotations"][0].update(segmentation={"size": [1, 2], "counts": "2"}),
            "expected an encoding of size",
        ),
        (INSTANCES, lambda d: d["annotations"][2].update(area=-1), "2.area: .*greater than or equal to 1"),
    ],
)
def test_prepared_files_that_are_wrong(file: str, change: Any, message: str, tree: Path) -> None:
    prepare(tree)
    shutil.rmtree(tree / "annotations_instance")
    changed(file, change)(tree)
    with pytest.raises(DatasetError, match=message) as caught:
        open_ade(tree).check()
    assert file in str(caught.value)
    assert "prepare the files again" in str(caught.value)


def test_files_are_replaced_whole_or_not_at_all(tree: Path, tmp_path: Path) -> None:
    paths = prepare(tree)
    first = [path.read_bytes() for path in (paths[0], paths[2])]
    (paths[1] / "left over.png").write_bytes(b"x")
    assert prepare(tree) == paths
    assert [path.read_bytes() for path in (paths[0], paths[2])] == first
    assert len(list(paths[1].iterdir())) == 6
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        prepare(tree, "validation", tmp_path / "file")


def test_the_fingerprint_sees_labels_and_images(tree: Path) -> None:
    def moved(file: str) -> set[str]:
        before = open_ade(tree).fingerprint()
        (tree / file).write_bytes((tree / file).read_bytes() + b"\0")
        after = open_ade(tree).fingerprint()
        return {key for key in before if before[key] != after[key]}

    assert moved("images/validation/ADE_val_00000003.jpg") == {"images_sha256"}
    assert moved("annotations/validation/ADE_val_00000003.png") == {"annotations_sha256"}
    assert moved("annotations_instance/validation/ADE_val_00000003.png") == {"annotations_sha256"}
    prepare(tree)
    assert moved("ade20k_panoptic_val/ADE_val_00000003.png") == set(), "not in use beside the official ones"
    shutil.rmtree(tree / "annotations_instance")
    assert moved("ade20k_panoptic_val/ADE_val_00000003.png") == {"annotations_sha256"}
    dataset = open_ade(tree)
    example = dataset.examples()[0]
    (tree / "images/validation/ADE_val_00000001.jpg").unlink()
    assert dataset.stamp(example) == "missing"
    assert dataset.fingerprint()["missing_images"] == 1


def test_run_lengths_are_pycocotools() -> None:
    from pycocotools import mask

    random = np.random.RandomState(5)
    for height, width in [(1, 1), (1, 7), (7, 1), (2, 2), (13, 29), (40, 3)]:
        for _ in range(20):
            labels = random.choice([0, 1, 2, 255], p=[0.4, 0.3, 0.2, 0.1], size=(height, width)).astype(np.uint8)
            runs = Runs.of(labels)
            for value in np.unique(labels).tolist():
                official = mask.encode(np.asfortranarray(labels == value, np.uint8))
                ours = mask.frPyObjects({"size": [height, width], "counts": runs.counts(value)}, height, width)
                assert ours == official
                assert runs.areas()[value] == mask.area(official)
                assert runs.boxes()[value].tolist() == mask.toBbox(official).tolist()


def test_as_many_instances_as_a_map_can_have() -> None:
    """255 of one class: every one gets an id of its own."""
    instances = np.zeros((16, 16, 3), np.uint8)
    instances[..., 0], instances[..., 1] = 100, np.arange(256).reshape(16, 16)
    ids, segments = panoptic(np.full((16, 16), 1, np.uint8), instances)
    assert len(np.unique(ids)) == 256
    assert segments[0]["area"] == 256
    assert all(s["category_id"] == 149 for s in segments[1:])


def test_every_class_has_a_colour() -> None:
    assert len({tuple(c) for c in colors()}) == 150 == len(label_set("ade20k").classes)
    assert max(max(c) for c in colors()) <= 255
