"""Predictions of one run, scored again in every official form: the same figures; and what is said of files that do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pycocotools.mask
import pytest
import yaml
from PIL import Image

import m2fbench
from m2fbench.datasets.export import export
from m2fbench.datasets.shapes import Shapes, ShapesOptions
from m2fbench.errors import PredictionsError
from m2fbench.formats.panoptic import encode_ids
from m2fbench.suite import metrics, suite_folder
from m2fbench.types import Head

pytestmark = pytest.mark.full

COUNT = 5
Edit = Callable[[Path], object]


def measured(result: m2fbench.RunResult) -> dict[tuple[str, str | None, str], str]:
    """Every figure to the last digit. The counts of truth aside, no two have one name."""
    return {(m.name, m.category, m.unit): repr(m.value) for m in result.measurements}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> dict[str, Any]:
    """A panoptic run of the shapes and one of their Cityscapes export, each with its suite, data and submission."""
    root = tmp_path_factory.mktemp("peers")
    export(Shapes(ShapesOptions(count=COUNT), None, "panoptic"), "cityscapes", root / "city")
    suite = yaml.safe_load((suite_folder() / "shapes_panoptic.yaml").read_text())
    del suite["tolerance"], suite["checkpoints"][0]["published"]  # of all 200 scenes
    (root / "shapes.yaml").write_text(yaml.safe_dump(suite | {"dataset": {"name": "shapes", "count": COUNT}, "workers": 0}))
    city = yaml.safe_load((root / "city/panoptic.yaml").read_text())
    (root / "city.yaml").write_text(yaml.safe_dump(city | {"workers": 0}))
    found: dict[str, Any] = {}
    for name, data in (("shapes", None), ("city", root / "city")):
        path = root / f"{name}.yaml"
        options: dict[str, Any] = {"data": data, "device": "cpu", "loader": bundled_loader}
        (result,) = m2fbench.run(path, output=root / "runs", **options)
        (sent,) = m2fbench.run(path, output=root / "sent", predict_only=True, **options)
        assert result.path is not None
        assert sent.path is not None
        assert sent.status == "predicted"
        found[name] = (path, data, result, result.path.parent, sent.path.parent)
    return found


@pytest.fixture
def shapes(made: dict[str, Any]) -> tuple[Path, m2fbench.RunResult, Path]:
    suite, _, result, run, _ = made["shapes"]
    return suite, result, run


def of(result: m2fbench.RunResult, suite: Path, *heads: Head) -> dict[tuple[str, str | None, str], str]:
    """The figures of the suite's metrics of these heads."""
    document = yaml.safe_load(suite.read_text())
    alone = [name for name in document["metrics"] if metrics.get(name).head in heads]
    document["metrics"] = alone
    part = suite.with_name(f"{suite.stem}_{'_'.join(alone)}.yaml")
    part.write_text(yaml.safe_dump(document))
    assert result.path is not None
    data = suite.with_name("city") if "city" in suite.stem else None
    return measured(m2fbench.score(part, result.path.parent, data=data))


def sem_seg_of(folder: Path, ids: dict[int, int], target: Path) -> Path:
    """detectron2's sem_seg_predictions.json of a folder of label PNGs. ids: of each value."""
    entries = []
    for path in sorted(folder.glob("*.png")):
        labels = np.asarray(Image.open(path))
        for value in np.unique(labels).tolist():
            rle = hotcoco.mask.encode(np.asfortranarray(labels == value))
            mask = {"size": list(labels.shape), "counts": rle["counts"].decode()}
            entries.append({"file_name": f"datasets/val/{path.stem}.jpg", "category_id": ids[value], "segmentation": mask})
    target.write_text(json.dumps(entries))
    return target


def detectron2_results(run: Path, target: Path) -> Path:
    """With boxes, scores and ids as detectron2 writes them."""
    entries = json.loads((run / "predictions.json").read_bytes())
    target.write_text(json.dumps([e | {"bbox": [0.0, 0.0, 9.5, 9.5]} for e in entries]))
    return target


def check_form(suite: Path, path: Path, result: m2fbench.RunResult, *heads: Head, data: Path | None = None) -> None:
    again = m2fbench.score(suite, path, data=data)
    assert measured(again) == of(result, suite, *heads)
    assert again.status == "complete"
    absent = [name for name in yaml.safe_load(suite.read_text())["metrics"] if metrics.get(name).head not in heads]
    assert [warning.partition(" ")[0] for warning in again.warnings] == absent
    assert all("was not measured: the predictions hold no" in warning for warning in again.warnings)


def test_a_run_directory_and_what_a_server_takes(made: dict[str, Any]) -> None:
    for suite, data, result, run, sent in made.values():
        for path in (run, sent, sent / "submission"):
            again = m2fbench.score(suite, path, data=data, verify=True)
            assert measured(again) == measured(result)
            assert again.status == "complete"
            assert not again.warnings


def test_coco_results(shapes: tuple[Path, m2fbench.RunResult, Path], tmp_path: Path) -> None:
    suite, result, run = shapes
    check_form(suite, run / "predictions.json", result, "instance")
    check_form(suite, detectron2_results(run, tmp_path / "coco_instances_results.json"), result, "instance")


def test_coco_panoptic(shapes: tuple[Path, m2fbench.RunResult, Path], tmp_path: Path) -> None:
    suite, result, run = shapes
    check_form(suite, run / "panoptic.json", result, "panoptic")
    shutil.copytree(run / "panoptic", tmp_path / "predictions")
    bare = json.loads((run / "panoptic.json").read_bytes())["annotations"]
    for annotation in bare:
        annotation["segments_info"] = [{"id": s["id"], "category_id": s["category_id"]} for s in annotation["segments_info"]]
    (tmp_path / "predictions.json").write_text(json.dumps({"annotations": bare}))
    check_form(suite, tmp_path, result, "panoptic")
    check_form(suite, tmp_path / "predictions.json", result, "panoptic")


def test_label_pngs(shapes: tuple[Path, m2fbench.RunResult, Path], tmp_path: Path) -> None:
    suite, result, run = shapes
    check_form(suite, run / "semantic", result, "semantic")
    for path in (run / "semantic").glob("*.png"):
        (tmp_path / "a").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "a" / f"{int(path.stem)}.png")
    check_form(suite, tmp_path, result, "semantic")


def test_detectron2s_output_folder(shapes: tuple[Path, m2fbench.RunResult, Path], tmp_path: Path) -> None:
    suite, result, run = shapes
    names = {value: value + 1 for value in range(10)}
    check_form(suite, sem_seg_of(run / "semantic", names, tmp_path / "sem_seg_predictions.json"), result, "semantic")
    detectron2_results(run, tmp_path / "coco_instances_results.json")
    check_form(suite, tmp_path, result, "instance", "semantic")


def test_cityscapes_files(made: dict[str, Any], tmp_path: Path) -> None:
    suite, data, result, run, sent = made["city"]
    check_form(suite, sent / "submission/instance", result, "instance", data=data)
    check_form(suite, run / "semantic", result, "semantic", data=data)
    check_form(suite, run / "panoptic.json", result, "panoptic", data=data)
    for kind, path in (("a", sent / "submission/instance"), ("b", run / "semantic")):
        shutil.copytree(path, tmp_path / kind / "shapes")
    check_form(suite, tmp_path / "a", result, "instance", data=data)
    check_form(suite, tmp_path / "b", result, "semantic", data=data)
    check_form(suite, tmp_path, result, "instance", "semantic", data=data)
    document = json.loads((run / "panoptic.json").read_bytes())
    for entry in (*document["images"], *document["annotations"]):
        entry["file_name"] = entry["file_name"].replace(".png", "_gtFine_panoptic.png")
    (tmp_path / "p").mkdir()
    for path in (run / "panoptic").glob("*.png"):
        (tmp_path / "p/cityscapes_panoptic_val").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / f"p/cityscapes_panoptic_val/{path.stem}_gtFine_panoptic.png")
    (tmp_path / "p/cityscapes_panoptic_val.json").write_text(json.dumps(document))
    check_form(suite, tmp_path / "p", result, "panoptic", data=data)


def test_from_the_command_line(shapes: tuple[Path, m2fbench.RunResult, Path], cli: Any, tmp_path: Path) -> None:
    suite, result, run = shapes
    outcome = cli("score", suite, "--predictions", run / "panoptic.json", "--verify")
    assert outcome.returncode == 0, outcome.stderr
    assert f"{result.value('PQ'):.2f}" in outcome.stdout
    assert "coco_ap was not measured: the predictions hold no instance ones" in " ".join(outcome.stdout.split())
    wrong = cli("score", suite, "--predictions", tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.strip().count("\n") == 0
    assert "expected instance or panoptic or semantic predictions, got none that could be recognised" in wrong.stderr


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def repaint(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    save(path, change(np.array(Image.open(path))))


def with_value(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(pixels: np.ndarray) -> np.ndarray:
        pixels[0, 0] = value
        return pixels

    return change


def in_json(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def listed_twice(document: Any) -> None:
    info = document["annotations"][2]["segments_info"]
    info.append({"id": 4000, "category_id": info[0]["category_id"]})


def two_of_one_head(folder: Path) -> None:
    shutil.copy(folder / "panoptic.json", folder / "other.json")


BAD: list[tuple[str, Edit, str]] = [
    ("panoptic.json", lambda f: (f / "panoptic/000000000003.png").unlink(), r"000000000003\.png: no such PNG; .*panoptic\.json names it"),
    ("panoptic.json", lambda f: repaint(f / "panoptic/000000000003.png", lambda p: p[1:]), r"000000000003\.png: expected \d+x\d+ pixels"),
    ("panoptic.json", lambda f: repaint(f / "panoptic/000000000003.png", with_value(200)), r"000000000003\.png: segment .* is in the PNG and"),
    ("panoptic.json", lambda f: in_json(f / "panoptic.json", listed_twice), r"000000000003\.png: segment 4000 is in the JSON and not in the"),
    ("panoptic.json", lambda f: (f / "panoptic/000000000003.png").write_bytes(b"\x89PNG"), r"000000000003\.png: not a readable PNG"),
    ("panoptic.json", lambda f: in_json(f / "panoptic.json", lambda d: d["annotations"].pop(2)), r"panoptic\.json: no prediction for image 3"),
    ("panoptic.json", lambda f: shutil.rmtree(f / "panoptic"), r"000000000001\.png: no such PNG \(and 4 more\)"),
    ("semantic", lambda f: repaint(f / "semantic/000000000002.png", with_value(77)), r"000000000002\.png: 1 pixels have the value 77, which is no"),
    ("semantic", lambda f: repaint(f / "semantic/000000000002.png", lambda p: p[:, 1:]), r"000000000002\.png: expected \d+x\d+ pixels"),
    ("semantic", lambda f: repaint(f / "semantic/000000000002.png", lambda p: np.dstack([p] * 3)), r"000000000002\.png: .*got mode RGB"),
    ("semantic", lambda f: (f / "semantic/000000000002.png").unlink(), r"semantic: no label PNG for 1 of 5 images, the first being 2"),
    ("semantic", lambda f: (f / "semantic/000000000002.png").write_bytes(b""), r"000000000002\.png: not a readable label PNG"),
    ("", lambda f: [p.unlink() for p in f.rglob("*") if p.is_file()], "expected .* predictions, got none that could be recognised"),
    ("", two_of_one_head, r"holds panoptic predictions twice, other\.json and panoptic\.json; name one of the two"),
    ("gone", lambda f: None, "there is no such file or folder"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "edit", "message"), BAD)
def test_what_does_not_fit_is_one_line(made: dict[str, Any], tmp_path: Path, path: str, edit: Edit, message: str) -> None:
    suite, _, _, _, sent = made["shapes"]
    folder = Path(shutil.copytree(sent / "submission", tmp_path / "given"))
    edit(folder)
    with pytest.raises(PredictionsError, match=message) as caught:
        m2fbench.score(suite, folder / path)
    assert "\n" not in str(caught.value)


def rename_mask(folder: Path) -> None:
    text = next(p for p in sorted(folder.glob("*.txt")) if p.read_text())
    text.write_text(text.read_text().replace("_000.png", "_gone.png"))


BAD_CITYSCAPES: list[tuple[Edit, str]] = [
    (lambda f: sorted(f.glob("*.txt"))[1].unlink(), r"expected a file shapes_000000_000002\*\.txt for image shapes_000000_000002, found none"),
    (rename_mask, r"_pred\.txt:1: mask .*_gone\.png is not there"),
    (lambda f: repaint(sorted(f.glob("*_000.png"))[0], lambda p: p[:, 2:]), r"_000\.png: expected a mask of \d+x\d+ pixels"),
    (lambda f: sorted(f.glob("*_000.png"))[0].write_bytes(b"no"), r"_000\.png cannot be read as an image"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), BAD_CITYSCAPES)
def test_cityscapes_files_that_do_not_fit(made: dict[str, Any], tmp_path: Path, edit: Edit, message: str) -> None:
    suite, data, _, _, sent = made["city"]
    folder = Path(shutil.copytree(sent / "submission/instance", tmp_path / "given"))
    edit(folder)
    with pytest.raises(PredictionsError, match=message) as caught:
        m2fbench.score(suite, folder, data=data)
    assert "\n" not in str(caught.value)


def test_maps_named_after_the_image_files(tmp_path: Path) -> None:
    """Own data in COCO's format: ids are numbers, and everybody names maps after the photos."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "segments").mkdir()
    (tmp_path / "maps").mkdir()
    images, annotations, entries = [], [], []
    for number, name in ((3, "beach"), (7, "alps")):
        ids = np.zeros((12, 16), np.int32)
        ids[:, :8], ids[:, 8:] = 1, 2
        Image.new("RGB", (16, 12)).save(tmp_path / f"photos/{name}.png")
        (tmp_path / f"segments/{name}.png").write_bytes(encode_ids(ids))
        Image.fromarray((ids - 1).astype(np.uint8)).save(tmp_path / f"maps/{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "height": 12, "width": 16})
        segments = [{"id": k, "category_id": 10 * k, "area": 96, "iscrowd": 0} for k in (1, 2)]
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
        for k in (1, 2):
            rle = pycocotools.mask.encode(np.asfortranarray((ids == k).astype(np.uint8)))
            counts = rle["counts"].decode()
            entries.append(
                {"file_name": f"/x/{name}.png", "category_id": 10 * k, "segmentation": {"size": [12, 16], "counts": counts}}
            )
    categories = [{"id": 10, "name": "sky", "isthing": 0}, {"id": 20, "name": "tree", "isthing": 0}]
    (tmp_path / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    (tmp_path / "sem_seg_predictions.json").write_text(json.dumps(entries))
    (tmp_path / "suite.yaml").write_text(
        "suite: own\ntitle: own\ntask: semantic\nmetrics: [semantic_iou]\nprotocol: {min_size: 12, max_size: 16}\n"
        "dataset: {name: coco_panoptic, annotations: truth.json, segments: segments, images: photos, instances: null}\n"
        "checkpoints: [{name: x, unavailable: x}]\n"
    )
    for predictions in ("maps", "sem_seg_predictions.json"):
        result = m2fbench.score(tmp_path / "suite.yaml", tmp_path / predictions, data=tmp_path)
        assert result.value("mIoU") == 100, predictions
    (tmp_path / "maps/alps.png").unlink()
    with pytest.raises(PredictionsError, match="no label PNG for 2 of 2 images, the first being 3"):
        m2fbench.score(tmp_path / "suite.yaml", tmp_path / "maps", data=tmp_path)
