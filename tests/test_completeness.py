"""Whether a dataset is all there: small copies of COCO with something missing, the embedded dataset, and real photos."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from m2fbench import completeness
from m2fbench.completeness import Expected, check_dataset, expected_of
from m2fbench.errors import DatasetError
from m2fbench.suite import datasets

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images with two annotations each, of which four and eight are published."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    images = [{"id": k, "file_name": f"{k}.png", "height": 8, "width": 8} for k in (1, 2, 3, 4)]
    for image in images:
        Image.new("RGB", (8, 8)).save(tmp_path / "val2017" / str(image["file_name"]))
    annotations = [
        {
            "id": k,
            "image_id": (k + 1) // 2,
            "category_id": 1,
            "segmentation": SQUARE,
            "area": 16,
            "iscrowd": 0,
            "bbox": [1, 1, 4, 4],
        }
        for k in range(1, 9)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    publish(monkeypatch, images=4, annotations=8)
    return tmp_path


def publish(monkeypatch: pytest.MonkeyPatch, **counts: Any) -> None:
    expected = Expected(title="Little", when={"annotations": ("instances_val2017.json",)}, source="a paper", **counts)
    monkeypatch.setattr(completeness, "_expected", lambda: {"coco_instance": [expected]})


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_complete(coco: Path) -> None:
    report = check_dataset("coco_instance", coco)
    assert (report.status, report.images, report.annotations, report.missing) == ("complete", 4, 8, 0)
    assert report.bytes == sum(path.stat().st_size for path in (coco / "val2017").iterdir())
    assert report.heads == {"instance": None}
    assert report.line == "coco_instance: 4 images, 0.0 MB, 8 annotations, as Little has"
    assert report.fingerprint is not None
    assert json.loads(json.dumps(report.to_json()))["fingerprint"]["images"] == 4


def test_the_published_file_is_recognised(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_dataset("coco_instance", coco).fingerprint
    assert found is not None
    publish(monkeypatch, images=4, annotations=8, annotations_sha256=found["annotations_sha256"])
    assert "are the published file, byte for byte" in check_dataset("coco_instance", coco).line
    publish(monkeypatch, images=4, annotations=8, annotations_sha256="0" * 64)
    report = check_dataset("coco_instance", coco)
    assert report.status == "complete"
    assert "are not the published file byte for byte" in report.line


def test_missing_and_empty_images_are_named(coco: Path) -> None:
    (coco / "val2017/2.png").unlink()
    (coco / "val2017/3.png").write_bytes(b"")
    report = check_dataset("coco_instance", coco)
    assert report.status == "incomplete"
    assert report.first_missing == (str(coco / "val2017/2.png"), f"{coco / 'val2017/3.png'} (empty)")
    assert f"2 image files are missing: {coco / 'val2017/2.png'} and 1 more; fetch or copy them again" in report.line


def test_fewer_than_published(coco: Path) -> None:
    edited(coco, lambda content: content["annotations"].pop())
    assert "Little has 8 annotations, got 7" in check_dataset("coco_instance", coco).line
    edited(coco, lambda content: (content["images"].pop(), content["annotations"].pop()))
    report = check_dataset("coco_instance", coco)
    assert report.status == "incomplete"
    assert "Little has 4 images, got 3" in report.line


def test_truth_that_is_damaged(coco: Path) -> None:
    edited(coco, lambda content: content["annotations"][2].update(segmentation=[[1, 2]]))
    report = check_dataset("coco_instance", coco)
    assert report.status == "incomplete"
    assert "annotations[2]: segmentation" in str(report.heads["instance"])
    assert report.annotations is None
    assert report.line.count("annotations[2]") == 1
    file = coco / "annotations/instances_val2017.json"
    file.write_text(file.read_text()[:-20])
    report = check_dataset("coco_instance", coco)
    assert report.status == "incomplete"
    assert "cut off" in report.line
    assert math.isnan(report.bytes)
    assert report.to_json()["bytes"] is None


def test_absent(tmp_path: Path) -> None:
    report = check_dataset("coco_instance", tmp_path / "nowhere")
    assert report.status == "absent"
    assert "is not here: looked for" in report.line
    assert report.fingerprint is None


def test_a_dataset_of_ones_own_has_no_published_counts(coco: Path) -> None:
    (coco / "annotations/instances_val2017.json").rename(coco / "mine.json")
    report = check_dataset("coco_instance", coco, {"annotations": "mine.json"})
    assert report.status == "complete"
    assert report.expected is None
    assert "no counts are published for it" in report.line


def test_what_there_is_not(coco: Path) -> None:
    with pytest.raises(DatasetError, match="dataset: expected one of .*did you mean 'coco_instance'"):
        check_dataset("coco_instanc", coco)
    with pytest.raises(
        DatasetError, match="dataset coco_instance: has no option 'splitt'; expected one of annotations, images, exif_rotation"
    ):
        check_dataset("coco_instance", coco, {"splitt": "x"})
    with pytest.raises(DatasetError, match="dataset coco_instance: expected a task of instance, got 'semantic'"):
        check_dataset("coco_instance", coco, task="semantic")


def test_shapes_are_always_complete() -> None:
    report = check_dataset("shapes", None, {"count": 3})
    assert (report.status, report.images, report.missing) == ("complete", 3, 0)
    assert set(report.heads) == set(datasets.get("shapes").tasks)
    assert math.isnan(report.bytes)


def test_the_published_counts_are_those_of_the_readers_own_options() -> None:
    for name, counts in completeness._expected().items():
        if name not in datasets.names():
            continue
        expected = expected_of(name, datasets.get(name).Options())
        assert expected is not None, f"{name}: its default options mean no published split"
        assert expected.images in {expected.images for expected in counts}
    assert completeness._expected()["coco_instance"][0].annotations == 36781


def test_real_photos(shared: Path) -> None:
    report = check_dataset("coco_instance", shared / "data/coco_real")
    assert (report.status, report.images, report.missing) == ("incomplete", 57, 0)
    assert "COCO val2017 has 5,000 images, got 57" in report.line
    assert "COCO val2017 has 36,781 annotations, got 517" in report.line


@pytest.mark.full
def test_the_command_line(cli: Any, coco: Path) -> None:
    outcome = cli("datasets", "check", "shapes", "--task", "instance")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "instance: its truth is whole" in outcome.stdout
    assert "complete: shapes: 200 images" in outcome.stdout
    (coco / "val2017/2.png").unlink()
    outcome = cli("datasets", "check", "coco_instance", "--data", coco)
    assert outcome.returncode == 2
    assert f"missing: {coco / 'val2017/2.png'}" in outcome.stdout
    assert outcome.stderr.startswith("m2fbench: error: incomplete: coco_instance: 4 images")
    assert len(outcome.stderr.splitlines()) == 1
