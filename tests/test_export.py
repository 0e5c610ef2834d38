"""Exports of the shapes: read back by every layout's reader, truth is the source's; and what may not be written over."""

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
import yaml
from PIL import Image

from m2fbench.datasets.export import MARKER, export
from m2fbench.datasets.export_layouts import LAYOUTS
from m2fbench.datasets.scenes import CATEGORIES, THINGS, generate
from m2fbench.datasets.shapes import Shapes, ShapesOptions
from m2fbench.errors import DatasetError, StoreError
from m2fbench.formats.label_png import encode_labels, other_value, to_values
from m2fbench.formats.names import file_stem
from m2fbench.formats.panoptic import encode_ids, to_annotation
from m2fbench.suite import Suite, datasets, load_suite, metrics
from m2fbench.types import (
    Category,
    Dataset,
    Example,
    ImageId,
    JsonObject,
    LabelMap,
    PanopticMap,
    Predictions,
    ScoringRules,
    Segment,
)

COUNT = 3
TASKS = [
    (layout, task)
    for layout, tasks in {
        "coco": ("instance", "panoptic", "semantic"), "ade20k": ("instance", "panoptic", "semantic"),
        "cityscapes": ("instance", "panoptic", "semantic"), "mapillary-v1.2": ("panoptic", "semantic"),
        "mapillary-v2.0": ("panoptic", "semantic"), "semantic-folder": ("semantic",),
    }.items()
    for task in tasks
]  # fmt: skip


def shapes(count: int = COUNT) -> Shapes:
    return Shapes(ShapesOptions(count=count), None, "panoptic")


@pytest.fixture(scope="module", autouse=True)
def scenes_made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m2fbench.datasets.shapes.generate", functools.cache(generate))
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first scenes in every layout."""
    root = tmp_path_factory.mktemp("export")
    for layout in LAYOUTS:
        export(shapes(), layout, root / layout)
    return root


def read_back(folder: Path, task: str) -> Dataset:
    """The folder, by the reader and the options that its suite names."""
    section = yaml.safe_load((folder / f"{task}.yaml").read_text())["dataset"]
    reader = datasets.get(section.pop("name"))
    dataset = reader(reader.Options(**section), folder, task)
    dataset.check()
    return dataset


def same_segments(ours: PanopticMap, theirs: PanopticMap, names: Sequence[str], their_names: Sequence[str]) -> None:
    """The same partition of the pixels, with the same class and crowd flag of each part; ids may differ."""
    pairs = {(int(a), int(b)) for a, b in zip(ours.ids.ravel(), theirs.ids.ravel(), strict=True)}
    assert len(pairs) == len(np.unique(ours.ids)) == len(np.unique(theirs.ids))
    found = {s.id: (names[s.category], s.is_crowd) for s in ours.segments} | {0: ("void", False)}
    expected = {s.id: (their_names[s.category], s.is_crowd) for s in theirs.segments} | {0: ("void", False)}
    assert all(found[a] == expected[b] for a, b in pairs)
    assert len(ours.segments) == len(theirs.segments)


@pytest.mark.parametrize(("layout", "task"), TASKS)
def test_truth_comes_back(exported: Path, layout: str, task: str) -> None:
    source, dataset = shapes(), read_back(exported / layout, task)
    wanted = [c for c in CATEGORIES if task != "instance" or c.is_thing]
    assert {c.name for c in dataset.categories} == {c.name for c in wanted}
    if layout != "semantic-folder":
        assert set(dataset.categories) == set(wanted)
    names = [c.name for c in dataset.categories]
    own = [c.name for c in CATEGORIES]
    for example, original in zip(dataset.examples(), source.examples(), strict=True):
        assert example.size == original.size
        np.testing.assert_array_equal(dataset.image(example), source.image(original))
        if task == "panoptic":
            same_segments(dataset.panoptic_truth(example), source.panoptic_truth(original), names, own)
        if task != "instance":
            expected = np.array(own)[source.semantic_truth(original)]
            np.testing.assert_array_equal(np.array(names)[dataset.semantic_truth(example)], expected)
    if task != "semantic":
        same_instances(dataset, source)


def same_instances(dataset: Dataset, source: Dataset) -> None:
    ours, theirs = documents(dataset), documents(source)
    images = dict(zip([e.image_id for e in dataset.examples()], [e.image_id for e in source.examples()], strict=True))
    assert len(ours["annotations"]) == len(theirs["annotations"]) > COUNT
    found = sorted((images[a["image_id"]], *plain(a, ours)) for a in ours["annotations"])
    assert found == sorted((a["image_id"], *plain(a, theirs)) for a in theirs["annotations"])


def documents(dataset: Dataset) -> JsonObject:
    truth = dataset.coco_truth()
    return truth if isinstance(truth, dict) else json.loads(truth.read_bytes())


def plain(annotation: JsonObject, document: JsonObject) -> tuple[Any, ...]:
    names = {c["id"]: c["name"] for c in document["categories"]}
    assert hotcoco.mask.area(annotation["segmentation"]) == annotation["area"]
    return names[annotation["category_id"]], annotation["segmentation"]["counts"], annotation["area"], annotation["iscrowd"]


@pytest.mark.parametrize(("layout", "task"), TASKS)
def test_its_suites_are_valid(exported: Path, layout: str, task: str) -> None:
    path = exported / layout / f"{task}.yaml"
    suite = Suite.model_validate(yaml.safe_load(path.read_text()))
    assert suite.task == task
    assert suite.checkpoints[0].checkpoint == "bundled:shapes_tiny"
    assert str(exported) not in path.read_text()
    assert load_suite(path).dataset == suite.dataset


@pytest.mark.full
@pytest.mark.parametrize(("layout", "task"), TASKS)
def test_truth_as_predictions_scores_100(exported: Path, tmp_path: Path, layout: str, task: Any) -> None:
    """The seams between readers and metrics: what a reader gives as truth, written in the official formats, is all right."""
    dataset = read_back(exported / layout, task)
    wanted = yaml.safe_load((exported / layout / f"{task}.yaml").read_text())["metrics"]
    predictions = Predictions(
        instances=None if task == "semantic" else write_instances(dataset, tmp_path / "instances.json"),
        panoptic=write_panoptic(dataset, tmp_path) if task == "panoptic" else None,
        panoptic_folder=tmp_path,
        semantic=None if task == "instance" else write_labels(dataset, tmp_path),
    )
    image_ids = [e.image_id for e in dataset.examples()]
    for name in wanted:
        figures = metrics.get(name).score(dataset, predictions, image_ids, ScoringRules())
        headline = next(f for f in figures if f.name == metrics.get(name).names[0] and f.category is None)
        assert headline.value == pytest.approx(100), name


def write_instances(dataset: Dataset, path: Path) -> Path:
    keys = ("image_id", "category_id", "segmentation")
    path.write_text(json.dumps([{"score": 1.0, **{k: a[k] for k in keys}} for a in documents(dataset)["annotations"]]))
    return path


def write_panoptic(dataset: Dataset, folder: Path) -> Path:
    annotations = []
    for example in dataset.examples():
        truth, name = dataset.panoptic_truth(example), f"{file_stem(example.image_id)}.png"
        (folder / name).write_bytes(encode_ids(truth.ids))
        annotations.append(to_annotation(example.image_id, name, truth, dataset.category_ids))
    (folder / "panoptic.json").write_text(json.dumps({"annotations": annotations}))
    return folder / "panoptic.json"


def write_labels(dataset: Dataset, folder: Path) -> dict[ImageId, Path]:
    paths = {e.image_id: folder / f"{file_stem(e.image_id)}_labels.png" for e in dataset.examples()}
    for example in dataset.examples():
        values = to_values(dataset.semantic_truth(example), dataset.label_values, other_value(dataset.label_values))
        paths[example.image_id].write_bytes(encode_labels(values))
    return paths


def test_official_names_of_files_and_ids(exported: Path) -> None:
    for path in (
        "coco/val2017/000000000001.png", "coco/annotations/instances_val2017.json", "coco/annotations/panoptic_val2017.json",
        "coco/annotations/panoptic_val2017/000000000003.png",
        "ade20k/ADEChallengeData2016/images/validation/ADE_val_00000001.png",
        "ade20k/ADEChallengeData2016/annotations/validation/ADE_val_00000001.png",
        "ade20k/ADEChallengeData2016/annotations_instance/validation/ADE_val_00000003.png",
        "cityscapes/leftImg8bit/val/shapes/shapes_000000_000001_leftImg8bit.png",
        "cityscapes/gtFine/val/shapes/shapes_000000_000001_gtFine_labelIds.png",
        "cityscapes/gtFine/val/shapes/shapes_000000_000001_gtFine_instanceIds.png",
        "cityscapes/gtFine/val/shapes/shapes_000000_000001_gtFine_labelTrainIds.png",
        "mapillary-v1.2/validation/images/shapes_000001.png", "mapillary-v1.2/validation/panoptic/panoptic_2018.json",
        "mapillary-v1.2/config.json", "mapillary-v2.0/config_v2.0.json", "mapillary-v2.0/validation/v2.0/panoptic/panoptic_2020.json",
        "semantic-folder/images/shapes_000001.png", "semantic-folder/labels/shapes_000003.png", "semantic-folder/classes.json",
    ):  # fmt: skip
        assert (exported / path).is_file(), path


def test_cityscapes_files_are_those_of_the_official_scripts(exported: Path) -> None:
    """The official converter takes the tree, and train ids are as the official table has them."""
    from cityscapesscripts.helpers.labels import id2label
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

    root = exported / "cityscapes"
    convert2panoptic(str(root / "gtFine"), str(exported), False, ["val"])
    official = json.loads((exported / "cityscapes_panoptic_val.json").read_text())
    dataset = read_back(root, "panoptic")
    for example, annotation in zip(dataset.examples(), official["annotations"], strict=True):
        found = [(s.id, dataset.category_ids[s.category]) for s in dataset.panoptic_truth(example).segments]
        assert found == [(s["id"], s["category_id"]) for s in annotation["segments_info"]]
        start = root / f"gtFine/val/shapes/{example.image_id}_gtFine_"
        labels, train_ids = (np.asarray(Image.open(f"{start}{kind}.png")) for kind in ("labelIds", "labelTrainIds"))
        np.testing.assert_array_equal(train_ids, np.vectorize(lambda i: id2label[i].trainId)(labels))


def test_mapillary_labels_are_palette_images(exported: Path) -> None:
    for path in ("mapillary-v1.2/validation/labels", "mapillary-v2.0/validation/v2.0/labels"):
        assert {Image.open(p).mode for p in (exported / path).iterdir()} == {"P"}


def test_mapillary_without_panoptic_files_tells_the_same(exported: Path, tmp_path: Path) -> None:
    for layout in ("mapillary-v1.2", "mapillary-v2.0"):
        folder = tmp_path / layout
        export(shapes(), layout, folder)
        for path in folder.rglob("panoptic_20??.json"):
            path.unlink()
        dataset, whole = read_back(folder, "panoptic"), read_back(exported / layout, "panoptic")
        names = [c.name for c in whole.categories]
        for example in whole.examples():
            same_segments(dataset.panoptic_truth(example), whole.panoptic_truth(example), names, names)


class Odd:
    """One image with void, a crowd, two parts of one stuff class, and a listed segment without a pixel."""

    name, tasks, needs_data = "odd_one", ("panoptic",), None
    categories = (Category("car", True), Category("sky", False), Category("rare", True))
    category_ids, label_values = (5, 6, 7), (0, 1, 2)

    def __init__(self) -> None:
        ids = np.kron([[0, 1, 2], [3, 4, 5], [6, 6, 1]], np.ones((3, 5))).astype(np.int32)
        kinds = {1: (0, False), 2: (0, True), 3: (1, False), 4: (2, False), 5: (0, False), 6: (1, False), 9: (0, False)}
        self.truth = PanopticMap(ids, tuple(Segment(i, c, crowd, area=77) for i, (c, crowd) in kinds.items()))

    def examples(self) -> list[Example]:
        return [Example("a b/c", (9, 15), "odd.png")]

    def image(self, example: Example) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (9, 15, 3), np.uint8)

    def fingerprint(self) -> JsonObject:
        return {"name": self.name}

    def panoptic_truth(self, example: Example) -> PanopticMap:
        return self.truth

    def semantic_truth(self, example: Example) -> LabelMap:
        classes = {s.id: s.category for s in self.truth.segments} | {0: 255}
        return np.vectorize(classes.get)(self.truth.ids).astype(np.uint8)


@pytest.mark.parametrize(
    ("layout", "names", "crowds"),
    [
        ("coco", {"car": "car", "sky": "sky"}, True),
        ("ade20k", {"car": "car", "sky": "sky"}, False),
        ("cityscapes", {"car": "car", "sky": "sky"}, True),
        ("mapillary-v1.2", {"car": "Car", "sky": "Sky"}, True),
        ("mapillary-v2.0", {"car": "Car", "sky": "Sky"}, True),
    ],
)
def test_void_crowds_and_left_out_classes(tmp_path: Path, layout: str, names: dict[str, str], crowds: bool) -> None:
    source = Odd()
    (example,) = source.examples()
    suites = export(source, layout, tmp_path, names)
    assert "yours" in suites[0].read_text()
    dataset = read_back(tmp_path, "panoptic")
    ids = source.truth.ids.copy()
    ids[(ids == 4) | ((ids == 2) & (not crowds))] = 0
    kept = [s for s in source.truth.segments if s.id in np.unique(ids)]
    if layout not in ("coco", "mapillary-v1.2", "mapillary-v2.0"):  # stuff is one segment there
        ids[ids == 6] = 3
        kept = [s for s in kept if s.id != 6]
    (read,) = dataset.examples()
    expected = [c.name for c in source.categories]
    same_segments(dataset.panoptic_truth(read), PanopticMap(ids, tuple(kept)), [c.name for c in dataset.categories], expected)
    labels = source.semantic_truth(example)
    found = np.array([*(c.name for c in dataset.categories), *["void"] * 256])[dataset.semantic_truth(read)]
    wanted = np.array(["car", "sky", "void"] + ["void"] * 253)[labels]
    np.testing.assert_array_equal(found, wanted)
    if not isinstance(dataset.coco_truth(), Path):
        assert sum(a["iscrowd"] for a in documents(dataset)["annotations"]) == crowds


def test_classes_that_do_not_fit(tmp_path: Path) -> None:
    for layout, names, message in (
        ("cityscapes", {"disc": "car", "circle": "person"}, "expected names of shapes classes, got 'circle'"),
        ("cityscapes", {"disc": "cars"}, r"disc: expected a class of the layout, got 'cars' \(did you mean 'car'"),
        ("cityscapes", {"disc": "car", "ring": "car"}, "each with a name of its own"),
        ("cityscapes", {"disc": "sky"}, "disc are things, and sky of Cityscapes are stuff"),
        ("ade20k", {"sky": "car"}, "sky are stuff, and car of ADE20K are things"),
        ("coco", {}, "got none"),
        ("pascal", {}, "layout: expected one of coco, .*got 'pascal'"),
    ):
        with pytest.raises(DatasetError, match=message):
            export(shapes(), layout, tmp_path / "x", names)
        assert not (tmp_path / "x").exists()


def test_a_folder_in_use_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(StoreError, match=r"mine: expected an empty folder, got one with thesis\.txt; name another"):
        export(shapes(), "coco", tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file: cannot be written"):
        export(shapes(), "coco", tmp_path / "file")
    export(shapes(1), "coco", tmp_path / "done")
    with pytest.raises(StoreError, match="got one with a finished export"):
        export(shapes(1), "coco", tmp_path / "done")


def test_an_export_that_broke_off_is_begun_anew(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(shapes(), "coco", tmp_path, progress=stop)
    assert calls == [(0, COUNT), (1, COUNT)]
    assert not (tmp_path / "instance.yaml").exists()
    for other in (lambda: export(shapes(2), "coco", tmp_path), lambda: export(shapes(), "cityscapes", tmp_path)):
        with pytest.raises(StoreError, match="an export of something else"):
            other()
    suites = export(shapes(), "coco", tmp_path)
    assert [p.name for p in suites] == ["instance.yaml", "panoptic.yaml", "semantic.yaml"]
    assert json.loads((tmp_path / MARKER).read_text())["finished"]
    read_back(tmp_path, "panoptic")


def test_more_instances_than_can_be_numbered(tmp_path: Path) -> None:
    class Crowded(Odd):
        def __init__(self) -> None:
            ids = np.arange(1, 301, dtype=np.int32).reshape(10, 30)
            self.truth = PanopticMap(ids, tuple(Segment(i, 0) for i in range(1, 301)))

    for layout, names in (("ade20k", {"car": "car"}), ("mapillary-v1.2", {"car": "Car"})):
        with pytest.raises(DatasetError, match=r"odd\.png: has more instances than this layout can number \(255\)"):
            export(Crowded(), layout, tmp_path / layout, names)


def test_things_of_the_table_are_things_everywhere() -> None:
    """The fixed table maps things to things; in ADE20K to classes of both label sets, under one name."""
    from m2fbench.labels import label_set

    path = Path(__file__).parent.parent / "m2fbench/datasets/export_classes.json"
    table = json.loads(path.read_text())["shapes"]
    for names in table.values():
        assert list(names) == [c.name for c in CATEGORIES]
    instance = label_set("ade20k_instance").names
    assert all(table["ade20k"][name] in instance for name in THINGS)
