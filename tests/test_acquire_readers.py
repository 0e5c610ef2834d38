"""The published archives in little, laid out as the real ones are: fetched by the real list, then opened by the real readers."""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_acquire import tarred, zipped
from test_download import Server, server  # noqa: F401  (a fixture)

from m2fbench import acquire
from m2fbench.acquire import fetch_dataset, folder_for
from m2fbench.completeness import check_dataset

SIZE = (40, 60)


def picture(values: np.ndarray, kind: str = "PNG") -> bytes:
    memory = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(memory, kind)
    return memory.getvalue()


def photo() -> bytes:
    return picture(np.full((*SIZE, 3), 90), "JPEG")


def coco_archives() -> dict[str, bytes]:
    ids = np.zeros((*SIZE, 3))
    ids[:, :30, 0], ids[:, 30:, 0] = 1, 2
    images = [{"id": k, "file_name": f"{k:012d}.jpg", "height": SIZE[0], "width": SIZE[1]} for k in (7, 9)]
    box = [[0, 0, 30, 0, 30, 40, 0, 40]]
    things = [
        {"id": k, "image_id": k, "category_id": 1, "segmentation": box, "area": 1200, "iscrowd": 0, "bbox": [0, 0, 30, 40]}
        for k in (7, 9)
    ]
    segments = [
        {"id": number, "category_id": category, "iscrowd": 0, "area": 1200, "bbox": [0, 0, 30, 40]}
        for number, category in ((1, 1), (2, 92))
    ]
    maps = [{"image_id": k, "file_name": f"{k:012d}.png", "segments_info": segments} for k in (7, 9)]
    both = [{"id": 1, "name": "person", "isthing": 1}, {"id": 92, "name": "banner", "isthing": 0}]
    instances = {"images": images, "annotations": things, "categories": [{"id": 1, "name": "person"}]}
    panoptic = {"images": images, "annotations": maps, "categories": both}
    masks = zipped({
        "panoptic_val2017/": b"", **{f"panoptic_val2017/{k:012d}.png": picture(ids) for k in (7, 9)},
        "__MACOSX/panoptic_val2017/._000000000007.png": b"junk",
    })  # fmt: skip
    return {
        "val2017.zip": zipped({"val2017/": b""} | {f"val2017/{k:012d}.jpg": photo() for k in (7, 9)}),
        "annotations_trainval2017.zip": zipped({
            "annotations/instances_train2017.json": b"", "annotations/instances_val2017.json": json.dumps(instances).encode(),
            "annotations/captions_val2017.json": b"",
        }),
        "panoptic_annotations_trainval2017.zip": zipped({
            "annotations/panoptic_train2017.json": b"", "annotations/panoptic_train2017.zip": b"", "__MACOSX/._annotations": b"",
            "annotations/panoptic_val2017.json": json.dumps(panoptic).encode(), "annotations/panoptic_val2017.zip": masks,
        }),
    }  # fmt: skip


def ade_archives() -> dict[str, bytes]:
    top, labels = "ADEChallengeData2016", np.ones(SIZE)
    labels[:, 30:] = 13  # person
    instances = np.zeros((*SIZE, 3))
    instances[:, 30:, 0], instances[:, 30:, 1] = 13, 1
    files = {f"{top}/": b"", f"{top}/objectInfo150.txt": b"Idx", f"{top}/sceneCategories.txt": b"ADE_val_00000001 x"}
    for split, name in (("training", "ADE_train"), ("validation", "ADE_val")):
        for k in (1, 2):
            files[f"{top}/images/{split}/{name}_{k:08d}.jpg"] = photo()
            files[f"{top}/annotations/{split}/{name}_{k:08d}.png"] = picture(labels)
    tar = {
        f"annotations_instance/{s}_{k:08d}.png": picture(instances)
        for s in ("training/ADE_train", "validation/ADE_val")
        for k in (1, 2)
    }
    return {f"{top}.zip": zipped(files), "annotations_instance.tar": tarred(tar)}


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The real list with the sizes and checksums of the little archives, which the server has; returns a folder for datasets."""
    contents = coco_archives() | ade_archives()
    catalogue = json.loads(acquire.CATALOGUE.read_text())
    for source in catalogue.values():
        for archive in source["archives"]:
            path = "/" + archive["url"].split("/", 3)[3]
            server.files[path] = content = contents[path.rsplit("/", 1)[1]]
            archive |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "archives.json").write_text(json.dumps(catalogue))
    monkeypatch.setattr(acquire, "CATALOGUE", tmp_path / "archives.json")
    monkeypatch.setenv(acquire.MIRROR, server.url)
    return tmp_path / "data"


@pytest.mark.parametrize(("name", "reader", "files"), [
    ("coco_instance", "coco_instance", 3), ("coco-val2017", "coco_panoptic", 6), ("ade20k", "ade20k", 8),
])  # fmt: skip
def test_what_is_fetched_is_what_the_reader_finds(name: str, reader: str, files: int, published: Path) -> None:
    made = fetch_dataset(name, folder_for(name, published))
    assert len(made) == files
    assert set(made) == {path for path in published.rglob("*") if path.is_file() and acquire.NOTES not in path.parts}
    assert not [path for path in made if "train" in path.name or "MACOSX" in str(path)]
    report = check_dataset(reader, published)
    assert set(report.heads.values()) == {None}, report.line
    assert (report.images, report.missing) == (2, 0)
    assert report.expected is not None
    assert f"{report.expected.title} has {report.expected.images:,} images, got 2" in report.line


def test_ade20k_is_prepared_by_one_command(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from m2fbench import cli

    for command in ("fetch", "prepare"):
        monkeypatch.setattr(sys, "argv", ["m2fbench", "datasets", command, "ade20k", "--data", str(published)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "preparing ade20k: 2/2 images" in out
    assert "ade20k_panoptic_val.json" in out
    assert set(check_dataset("ade20k", published).heads.values()) == {None}
