"""Anyone's folder of images and label PNGs as a dataset."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from m2fbench.datasets.semantic_folder import SemanticFolder, SemanticFolderOptions
from m2fbench.errors import DatasetError, ImageError
from m2fbench.formats import png
from m2fbench.formats.class_list import read_class_list
from m2fbench.formats.label_png import encode_labels
from m2fbench.labels import label_set
from m2fbench.metrics.semantic_iou import SemanticIoU
from m2fbench.suite import datasets
from m2fbench.types import Predictions, ScoringRules

TRUTH = np.array([[0, 1, 2], [1, 255, 0]], np.uint8)


def make(folder: Path, stems: tuple[str, ...] = ("b", "a"), truth: np.ndarray = TRUTH) -> Path:
    for stem in stems:
        for kind, suffix in (("images", ".jpg"), ("labels", ".png")):
            (folder / kind / stem).parent.mkdir(parents=True, exist_ok=True)
            if kind == "labels":
                (folder / kind / f"{stem}{suffix}").write_bytes(encode_labels(truth))
            else:
                Image.new("RGB", truth.shape[::-1], (9, 8, 7)).save(folder / kind / f"{stem}{suffix}")
    (folder / "classes.txt").write_text("road\nsky\n\n tree \n")
    return folder


def reader(folder: Path, **options: Any) -> SemanticFolder:
    return SemanticFolder(SemanticFolderOptions(**{"classes": "classes.txt", **options}), folder, "semantic")


def test_a_folder_is_a_dataset(tmp_path: Path) -> None:
    dataset = reader(make(tmp_path, ("street/b", "a")))
    assert datasets.get("semantic_folder") is SemanticFolder
    dataset.check()
    assert [(e.image_id, e.size) for e in dataset.examples()] == [("a", (2, 3)), ("street/b", (2, 3))]
    assert [c.name for c in dataset.categories] == ["road", "sky", "tree"]
    assert dataset.category_ids == dataset.label_values == (0, 1, 2)
    example = dataset.examples()[1]
    assert dataset.image(example).shape == (2, 3, 3)
    assert np.array_equal(dataset.semantic_truth(example), TRUTH)
    for truth in (dataset.coco_truth, lambda: dataset.panoptic_truth(example)):
        with pytest.raises(DatasetError, match="has label maps only"):
            truth()


def test_truth_against_itself_scores_100(tmp_path: Path) -> None:
    dataset = reader(make(tmp_path))
    ids = [e.image_id for e in dataset.examples()]
    found = Predictions(semantic={i: tmp_path / "labels" / f"{i}.png" for i in ids})
    score = SemanticIoU().score(dataset, found, ids, ScoringRules())
    assert next(m.value for m in score if m.name == "mIoU") == 100
    assert SemanticIoU().verify(dataset, found, ids, ScoringRules(), score).difference == 0


@pytest.mark.parametrize(
    ("content", "first", "expected"),
    [
        ("a\nb\r\nc", 3, {"a": 3, "b": 4, "c": 5}), ('["a", "b"]', 1, {"a": 1, "b": 2}), ("\ufeffa\n", 0, {"a": 0}),
        ('[{"name": "a", "value": 26}, {"value": 7, "name": "b"}]', 1, {"a": 26, "b": 7}),
    ],
)  # fmt: skip
def test_class_lists(content: str, first: int, expected: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "classes").write_text(content)
    classes = read_class_list(tmp_path / "classes", first)
    assert dict(zip(classes.names, classes.values, strict=True)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the names of the classes, got none"), ("[]", "got none"), ("[", "not valid JSON"), ('{"a": 1}', "got an object"),
        ("a\nb\na\n", "classes of different names, got 'a' twice"), ('["a", 3]', "class 1: expected a name, got 3"),
        ('[{"name": "a"}]', "class 0: expected the keys name and value, got name"),
        ('[{"name": "a", "value": 1, "color": 3}]', "class 0: expected the keys name and value, got name, value, color"),
        ('[{"name": "a", "value": 1}, {"name": "b", "value": 1}]', "classes of different values, got 1 twice"),
        ('[{"name": "a", "value": -1}]', "class 0: expected a value from 0 to 65535, got -1"),
        ('[{"name": "a", "value": 1.0}]', "class 0: expected a value"),
    ],
)  # fmt: skip
def test_bad_class_lists(content: str, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(DatasetError, match=r"classes\.txt: .*" + message):
        reader(tmp_path)


def test_a_label_sets_name_and_the_value_of_the_first_class(tmp_path: Path) -> None:
    dataset = reader(make(tmp_path, truth=TRUTH.clip(0, 2)), classes="ade20k", first_value=1, ignore_values=[0, 255])
    assert [c.name for c in dataset.categories] == list(label_set("ade20k").names)
    assert dataset.categories == label_set("ade20k").classes
    assert dataset.label_values == tuple(range(1, 151))
    dataset.check()
    assert dataset.semantic_truth(dataset.examples()[0]).tolist() == [[255, 0, 1], [0, 1, 255]]
    with pytest.raises(DatasetError, match=r"one of ade20k.*got 'ade2k' \(did you mean 'ade20k'\?\)"):
        reader(tmp_path, classes="ade2k")


def test_a_value_that_is_no_class(tmp_path: Path) -> None:
    dataset = reader(make(tmp_path), ignore_values=[])
    with pytest.raises(DatasetError, match=r"a\.png: 1 pixels have the value 255, which is neither a class \(0 to 2\)"):
        dataset.check()
    reader(tmp_path, ignore_values=[], strict_values=False).check()
    with pytest.raises(DatasetError, match="ignore_values: 2 is the value of class 'tree'"):
        reader(tmp_path, ignore_values=[2])


def test_both_sides_are_complete(tmp_path: Path) -> None:
    make(tmp_path, ("a", "b", "c", "d"))
    (tmp_path / "labels" / "b.png").unlink()
    (tmp_path / "labels" / "d.png").unlink()
    with pytest.raises(DatasetError, match=r"images.b\.jpg: this image has no label PNG in .*labels, as 2 of 4 have none"):
        reader(tmp_path).check()
    (tmp_path / "images" / "b.jpg").unlink()
    (tmp_path / "images" / "d.jpg").unlink()
    (tmp_path / "images" / "c.jpg").unlink()
    with pytest.raises(DatasetError, match=r"labels.c\.png: this label PNG has no image in .*images, as 1 of 2 have none"):
        reader(tmp_path).check()


def test_images_without_truth_open(tmp_path: Path) -> None:
    shutil.rmtree(make(tmp_path) / "labels")
    dataset = reader(tmp_path)
    assert dataset.image(dataset.examples()[0]).shape == (2, 3, 3)
    assert dataset.fingerprint()["annotations_sha256"] is None
    for look in (dataset.check, lambda: dataset.semantic_truth(dataset.examples()[0])):
        with pytest.raises(DatasetError, match=r"its truth is not here: looked for the folder .*labels"):
            look()


def test_what_is_not_here_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"semantic_folder is not here: looked for the folder .*images; put the images"):
        reader(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("a")
    with pytest.raises(DatasetError, match=r"images: expected images .*, got none"):
        reader(tmp_path)
    (tmp_path / "images" / "x.png").write_text("no image")
    with pytest.raises(ImageError, match=r"x\.png: not a readable image"):
        reader(tmp_path)
    (tmp_path / "images" / "x.jpg").write_text("no image")
    with pytest.raises(DatasetError, match=r"x\.png: has the name of x\.jpg but for the suffix"):
        reader(tmp_path)


def test_sizes_are_upright_and_those_of_the_labels(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (2, 3)).save(tmp_path / "images" / "a.jpg", exif=turned)
    dataset = reader(tmp_path)
    dataset.check()
    assert dataset.examples()[0].size == dataset.image(dataset.examples()[0]).shape[:2] == (2, 3)
    with pytest.raises(DatasetError, match=r"a\.png: expected 2x3 pixels as the image has, got 3x2"):
        reader(tmp_path, exif_rotation=False).check()
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "a.jpg", exif=turned)
    with pytest.raises(DatasetError, match="set dataset.exif_rotation: false"):
        reader(tmp_path).check()
    reader(tmp_path, exif_rotation=False).check()


def test_a_damaged_image_can_be_left_out(tmp_path: Path) -> None:
    """The dataset opens with it: its size is the label PNG's, and its ImageError comes when it is read."""
    make(tmp_path)
    (tmp_path / "labels" / "a.png").rename(tmp_path / "labels" / "a.PNG")
    (tmp_path / "images" / "a.jpg").unlink()
    buffer = io.BytesIO()
    Image.effect_noise((3, 2), 50).save(buffer, "PNG")
    for content in (b"", buffer.getvalue()[:-30], buffer.getvalue().replace(b"IDAT", b"IDAX")):
        (tmp_path / "images" / "a.png").write_bytes(content)
        dataset = reader(tmp_path)
        dataset.check()
        assert dataset.examples()[0].size == (2, 3)
        with pytest.raises(ImageError, match=r"a\.png: not a readable image .*on_error: skip"):
            dataset.image(dataset.examples()[0])


def test_opening_decodes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "c.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail(f"{image.filename} was decoded"))
    assert [e.size for e in reader(tmp_path).examples()] == [(2, 3)] * 3


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["eXIf", "XMP", "none"])
def test_pngs_are_upright_wherever_their_exif_is(tmp_path: Path, kind: str, late: bool) -> None:
    make(tmp_path, ("a",))
    (tmp_path / "images" / "a.jpg").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    content = {
        "eXIf": (b"eXIf", exif.tobytes()[6:]), "none": (b"tEXt", b"Raw profile type\0"),
        "XMP": (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    }[kind]  # fmt: skip
    buffer = io.BytesIO()
    Image.new("RGB", (2, 3)).save(buffer, "PNG")
    plain = buffer.getvalue()
    at = len(plain) - 12 if late else plain.index(b"IDAT") - 4
    (tmp_path / "images" / "a.png").write_bytes(plain[:at] + png._chunk(*content) + plain[at:])
    example = reader(tmp_path).examples()[0]
    assert example.size == reader(tmp_path).image(example).shape[:2] == ((3, 2) if kind == "none" else (2, 3))


def test_the_fingerprint_tells_what_changed(tmp_path: Path) -> None:
    def fingerprint(**options: Any) -> dict[str, Any]:
        return reader(tmp_path, **options).fingerprint()

    make(tmp_path)
    before = fingerprint()
    assert fingerprint() == before
    assert before["images"] == 2
    (tmp_path / "labels" / "a.png").write_bytes(encode_labels(np.ones_like(TRUTH) * 2))
    changed = fingerprint()
    assert {k for k in before if before[k] != changed[k]} == {"annotations_sha256"}
    Image.new("RGB", (3, 2), (200, 0, 90)).save(tmp_path / "images" / "a.jpg", quality=30)
    assert {k for k in before if changed[k] != fingerprint()[k]} == {"images_sha256"}
    (tmp_path / "classes.txt").write_text(json.dumps(["x", "y", "z"]))
    assert changed["classes_sha256"] != fingerprint()["classes_sha256"] != fingerprint(first_value=4)["classes_sha256"]
