"""Data without truth, as test sets are: every reader opens it, it can be predicted and sent in, and nothing pretends to score it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import m2fbench
from m2fbench.datasets.coco_panoptic import CocoPanoptic, CocoPanopticOptions
from m2fbench.datasets.export import export
from m2fbench.datasets.shapes import Shapes, ShapesOptions
from m2fbench.errors import DatasetError
from m2fbench.labels import label_set

pytestmark = pytest.mark.full

COUNT = 3
Options = dict[str, Any]


def image_info(data: Path) -> Options:
    """COCO's image_info: images and categories, no annotations."""
    for kind in ("instances", "panoptic"):
        path = data / f"annotations/{kind}_val2017.json"
        document = json.loads(path.read_bytes())
        del document["annotations"]
        (data / f"annotations/image_info_{kind}.json").write_text(json.dumps(document))
        path.unlink()
    shutil.rmtree(data / "annotations/panoptic_val2017")
    return {}


def coco_instance(data: Path) -> Options:
    return image_info(data) | {"annotations": "annotations/image_info_instances.json"}


def coco_panoptic(data: Path) -> Options:
    return image_info(data) | {"annotations": "annotations/image_info_panoptic.json"}


def ade20k(data: Path) -> Options:
    base = data / "ADEChallengeData2016"
    (base / "images/validation").rename(base / "images/testing")
    shutil.rmtree(base / "annotations")
    shutil.rmtree(base / "annotations_instance")
    return {"split": "testing"}


def cityscapes(data: Path) -> Options:
    (data / "leftImg8bit/val").rename(data / "leftImg8bit/test")
    shutil.rmtree(data / "gtFine")
    return {"split": "test"}


def mapillary(data: Path) -> Options:
    (data / "testing").mkdir()
    (data / "validation/images").rename(data / "testing/images")
    shutil.rmtree(data / "validation")
    return {"split": "testing"}


def semantic_folder(data: Path) -> Options:
    shutil.rmtree(data / "labels")
    return {}


def coco_instance_form(folder: Path, ids: list[Any]) -> None:
    entries = json.loads((folder / "instance/results.json").read_bytes())
    assert {e["image_id"] for e in entries} <= set(ids)
    assert set(entries[0]) == {"image_id", "category_id", "segmentation", "score"}


def panoptic_form(folder: Path, ids: list[Any]) -> None:
    document = json.loads((folder / "panoptic.json").read_bytes())
    assert [a["image_id"] for a in document["annotations"]] == ids
    for annotation in document["annotations"]:
        colours = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"])).astype(int)
        there = set(np.unique(colours @ [1, 256, 65536]).tolist()) - {0}
        assert there == {s["id"] for s in annotation["segments_info"]}


def semantic_form(folder: Path, ids: list[Any]) -> None:
    names = sorted(path.name for path in (folder / "semantic").iterdir())
    assert names == [f"{i:012d}.png" if isinstance(i, int) else f"{i}.png" for i in ids]
    assert np.asarray(Image.open(folder / "semantic" / names[0])).ndim == 2


def cityscapes_form(folder: Path, ids: list[Any]) -> None:
    assert sorted(path.name for path in (folder / "instance").glob("*.txt")) == [f"{i}_pred.txt" for i in ids]
    for line in (folder / f"instance/{ids[0]}_pred.txt").read_text().splitlines():
        mask, label, score = line.split(" ")
        assert (folder / "instance" / mask).is_file()
        assert 24 <= int(label) <= 33
        assert 0 <= float(score) <= 1


Case = tuple[str, str, Callable[[Path], Options], tuple[Callable[[Path, list[Any]], None], ...]]
CASES: list[Case] = [
    ("coco", "instance", coco_instance, (coco_instance_form,)),
    ("coco", "panoptic", coco_panoptic, (coco_instance_form, panoptic_form, semantic_form)),
    ("coco", "semantic", coco_panoptic, (semantic_form,)),
    ("ade20k", "instance", ade20k, (coco_instance_form,)),
    ("ade20k", "panoptic", ade20k, (coco_instance_form, panoptic_form, semantic_form)),
    ("ade20k", "semantic", ade20k, (semantic_form,)),
    ("cityscapes", "instance", cityscapes, (cityscapes_form,)),
    ("cityscapes", "panoptic", cityscapes, (cityscapes_form, panoptic_form, semantic_form)),
    ("cityscapes", "semantic", cityscapes, (semantic_form,)),
    ("mapillary-v1.2", "panoptic", mapillary, (coco_instance_form, panoptic_form, semantic_form)),
    ("mapillary-v2.0", "panoptic", mapillary, (coco_instance_form, panoptic_form, semantic_form)),
    ("mapillary-v2.0", "semantic", mapillary, (semantic_form,)),
    ("semantic-folder", "semantic", semantic_folder, (semantic_form,)),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("without_truth")
    for layout in dict.fromkeys(case[0] for case in CASES):
        export(Shapes(ShapesOptions(count=COUNT), None, "panoptic"), layout, root / layout)
    return root


@pytest.mark.parametrize(("layout", "task", "hide", "forms"), CASES)
def test_predicted_and_not_scored(
    exported: Path, tmp_path: Path, bundled_loader: Any, layout: str, task: str, hide: Callable[[Path], Options],
    forms: tuple[Callable[[Path, list[Any]], None], ...],
) -> None:  # fmt: skip
    data = Path(shutil.copytree(exported / layout, tmp_path / "data"))
    options = hide(data)
    document = yaml.safe_load((data / f"{task}.yaml").read_text())
    document["dataset"] |= options
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump(document | {"workers": 0}))
    with pytest.raises(DatasetError) as scored:
        m2fbench.run(suite, data=data, output=tmp_path / "runs", loader=lambda *_: pytest.fail("a model was loaded"))
    assert not (tmp_path / "runs").exists()
    (result,) = m2fbench.run(suite, data=data, output=tmp_path / "runs", device="cpu", loader=bundled_loader, predict_only=True)
    assert (result.status, result.measurements) == ("predicted", ())
    assert result.dataset is not None
    assert result.dataset["annotations_sha256"] is None
    assert result.path is not None
    run = result.path.parent
    ids = [line.split(",")[0] for line in (run / "images.csv").read_text().splitlines()[1:]]
    assert len(ids) == COUNT
    for form in forms:
        form(run / "submission", [int(i) if i.isdecimal() else i for i in ids])
    heads = {path.name.removesuffix(".json") for path in (run / "submission").iterdir()}
    assert heads == {"m2fbench", *(("instance", "panoptic", "semantic") if task == "panoptic" else (task,))}
    for predictions in (run, run / "submission"):
        with pytest.raises(DatasetError) as again:
            m2fbench.score(suite, predictions, data=data)
        assert str(again.value) == str(scored.value)
    assert "\n" not in str(scored.value)
    assert str(scored.value).endswith("can be predicted with --predict-only")
    assert str(data) in str(scored.value)


def test_cocos_own_image_info_lists_things_only(tmp_path: Path) -> None:
    """It is one file for all tasks: the panoptic classes are those of the published annotations."""
    things = label_set("coco_instance")
    document: dict[str, Any] = {
        "images": [{"id": 9, "file_name": "9.jpg", "height": 4, "width": 4}],
        "categories": [{"supercategory": "any", "id": i, "name": n} for i, n in zip(things.ids, things.names, strict=True)],
    }
    (tmp_path / "info.json").write_text(json.dumps(document))
    options = CocoPanopticOptions(annotations="info.json", images=".")
    dataset = CocoPanoptic(options, tmp_path)
    assert dataset.categories == label_set("coco_panoptic").classes
    assert dataset.category_ids == label_set("coco_panoptic").ids
    with pytest.raises(DatasetError, match=r"info\.json: expected annotations, got images only, no list 'annotations'"):
        dataset.check()
    document["categories"].pop()
    (tmp_path / "info.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match="isthing"):
        CocoPanoptic(options, tmp_path)


def test_predictions_without_scoring_are_checked_against_the_truth_later(tmp_path: Path, bundled_loader: Any) -> None:
    """Where the truth is there, a run that only predicted can be scored; it has not looked at the truth yet."""
    data = tmp_path / "data"
    export(Shapes(ShapesOptions(count=2), None, "panoptic"), "semantic-folder", data)
    suite = data / "semantic.yaml"
    label = data / "labels/shapes_000001.png"
    good = label.read_bytes()
    Image.fromarray(np.full_like(np.asarray(Image.open(label)), 77)).save(label)
    options: Options = {"data": data, "output": tmp_path / "runs", "overrides": ["workers=0"], "loader": bundled_loader}
    (result,) = m2fbench.run(suite, predict_only=True, **options)
    assert result.path is not None
    with pytest.raises(DatasetError, match=r"shapes_000001\.png: .* pixels have the value 77"):
        m2fbench.score(suite, result.path.parent, data=data)
    label.write_bytes(good)


def test_from_the_command_line(tmp_path: Path, cli: Any) -> None:
    data = tmp_path / "data"
    export(Shapes(ShapesOptions(count=2), None, "panoptic"), "cityscapes", data)
    cityscapes(data)
    command = ["run", data / "instance.yaml", "--data", data, "--set", "dataset.split=test", "--output", tmp_path / "runs"]
    refused = cli(*command)
    assert refused.returncode == 2
    assert refused.stderr.startswith("m2fbench: error: ")
    assert refused.stderr.strip().count("\n") == 0
    outcome = cli(*command, "--predict-only")
    assert outcome.returncode == 0, outcome.stderr
    folder = tmp_path / "runs/shapes_as_cityscapes_instance/shapes-tiny/default"
    assert len(list((folder / "submission/instance").glob("*_pred.txt"))) == 2
    assert json.loads((folder / "predicted.json").read_bytes())["status"] == "predicted"


def test_figures_of_an_earlier_run_stay(tmp_path: Path, bundled_loader: Any) -> None:
    options: Any = {"output": tmp_path / "runs", "device": "cpu", "loader": bundled_loader, "overrides": ["dataset.count=2"]}
    (scored,) = m2fbench.run("shapes_panoptic", **options)
    (predicted,) = m2fbench.run("shapes_panoptic", predict_only=True, **options)
    assert scored.path is not None
    assert predicted.path == scored.path.with_name("predicted.json")
    assert repr(m2fbench.read_result(scored.path).measurements) == repr(scored.measurements)
    again = m2fbench.score("shapes_panoptic", scored.path.parent, overrides=["dataset.count=2"])
    assert again.value("PQ") == scored.value("PQ")
