"""The suites of the paper's tables: every accuracy figure stands in the row it belongs to, every row is run as the original was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES, stub_loader

from m2fbench.labels import label_set
from m2fbench.models.checkpoint import resolve
from m2fbench.models.published import like_row
from m2fbench.models.zoo import PREFIX, ZooEntry, zoo_entries
from m2fbench.sections import Row
from m2fbench.suite import RunSpec, Suite, load_suite, suite_names

SLUGS = {
    "R50": "r50", "R101": "r101", "Swin-T": "swin-t", "Swin-S": "swin-s", "Swin-B": "swin-b", "Swin-B (IN21k)": "swin-b-in21k",
    "Swin-L (IN21k)": "swin-l-in21k", "Swin-L-FaPN (IN21k)": "swin-l-fapn-in21k",
}  # fmt: skip
MS_FLIP = "mIoU_ms_flip"
PANOPTIC, INSTANCE = ("PQ", "AP_th_pan", "mIoU_pan"), ("AP", "APs", "APm", "APl")
# block of the reference -> suite -> figures
TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "coco_val2017": {
        "coco_instance": (*INSTANCE, "boundary_AP"), "coco_panoptic": (*PANOPTIC, "PQ_th", "PQ_st"),
    },
    "coco_test_dev": {
        "coco_instance_test_dev": (*INSTANCE, "AP50", "AP75"), "coco_panoptic_test_dev": ("PQ", "PQ_th", "PQ_st", "SQ", "RQ"),
    },
    "ade20k_val_semantic": {"ade20k_semantic": ("mIoU", MS_FLIP)},
    "ade20k_val_panoptic_instance": {"ade20k_panoptic": PANOPTIC, "ade20k_instance": INSTANCE},
    "cityscapes_val": {
        "cityscapes_panoptic": PANOPTIC, "cityscapes_instance": ("AP", "AP50"), "cityscapes_semantic": ("mIoU", MS_FLIP),
    },
    "mapillary_vistas_val": {"mapillary_panoptic": ("PQ", "mIoU_pan"), "mapillary_semantic": ("mIoU", MS_FLIP)},
}  # fmt: skip
SUITES = [name for suites in TABLES.values() for name in suites]
OTHER_FIGURES = {"backbone", "params_M", "flops_G", "fps_instance", "fps_panoptic", "crop"}  # of cost, not of accuracy
HUB = {  # the hub's copies of zoo checkpoints, which the suites name in their place
    "facebook/mask2former-swin-tiny-coco-instance": "coco/instance/Swin-T",
    "facebook/mask2former-swin-small-coco-instance": "coco/instance/Swin-S",
    "facebook/mask2former-swin-large-coco-instance": "coco/instance/Swin-L-IN21k",
}
TTA = {  # suite -> (backbones with a row of their own, sizes, cap)
    "ade20k_semantic": ([256, 384, 512, 640, 768, 896], 3584),
    "ade20k_semantic 640": ([320, 480, 640, 800, 960, 1120], 4480),
    "cityscapes_semantic": ([512, 768, 1024, 1280, 1536, 1792], 4096),
    "mapillary_semantic": ([400, 500, 600, 700, 800, 900, 1000, 1100, 1200], 4000),
}
Figures = dict[str, dict[str, dict[str, float]]]


@pytest.fixture
def published() -> Figures:
    """block -> backbone -> figure -> value."""
    figures: Figures = json.loads((FIXTURES / "published_accuracy.json").read_bytes())
    return figures


def entry_of(row: Row) -> ZooEntry | None:
    if row.checkpoint is None:
        return None
    return zoo_entries()[HUB.get(row.checkpoint) or row.checkpoint.removeprefix(PREFIX)]


def rows_of(suites: list[str]) -> list[tuple[Suite, Row, ZooEntry]]:
    rows = [(suite, row, entry_of(row)) for suite in map(load_suite, suites) for row in suite.checkpoints]
    return [(suite, row, entry) for suite, row, entry in rows if entry]


def test_the_fixture_is_the_reference(published: Figures, shared: Path) -> None:
    reference = json.loads((shared / "reference/published_results.json").read_bytes())
    blocks = {name: block["rows"] for name, block in reference.items() if isinstance(block, dict) and "rows" in block}
    assert published == {
        name: {row["backbone"]: {k: v for k, v in row.items() if k not in OTHER_FIGURES} for row in rows}
        for name, rows in blocks.items()
    }


def test_every_figure_stands_in_its_row_and_no_other_does(published: Figures) -> None:
    for block, suites in TABLES.items():
        for name, figures in suites.items():
            expected = {
                SLUGS[backbone]: (
                    {k: v for k, v in row.items() if k in figures and k != MS_FLIP},
                    {"multi-scale-flip": {"mIoU": row[MS_FLIP]}} if MS_FLIP in figures else {},
                )
                for backbone, row in published[block].items()
            }
            suite = load_suite(name)
            assert {row.name: (row.published, row.published_variants) for row in suite.checkpoints} == expected, name
            assert [row.name for row in suite.checkpoints] == list(expected), f"{name}: not in the table's order"
            assert all(row.source.startswith("arXiv 2112.01527, table ") for row in suite.checkpoints)
        assert {k for row in published[block].values() for k in row} == {k for figures in suites.values() for k in figures}


def test_the_variants_published_figures_are_its_own() -> None:
    suite = load_suite("ade20k_semantic")
    row = suite.checkpoints[6]
    single, multi = (RunSpec(suite, row, variant) for variant in suite.variants)
    assert [p.value for p in single.published] == [56.1]
    assert [p.value for p in multi.published] == [57.3]
    assert multi.is_reference
    assert multi.checks_tolerance
    assert single.protocol.tta is None


@pytest.mark.parametrize("name", SUITES)
def test_every_row_is_run_as_the_original_config_has_it(name: str) -> None:
    suite = load_suite(name)
    assert suite.protocol.name == "paper"
    for _, row, entry in rows_of([name]):
        protocol = RunSpec(suite, row, suite.variants[0]).protocol
        assert (suite.task, suite.labels) == (entry.task, entry.labels), row.name
        assert (protocol.min_size, protocol.max_size) == (entry.min_size, entry.max_size), row.name
        assert (protocol.detections, protocol.overlap_threshold, protocol.semantic_resize) == (100, 0.8, entry.resize), row.name
        assert set(suite.needed_heads) <= set(entry.heads), row.name
        if entry.threshold is not None and suite.task == "panoptic":
            assert protocol.object_threshold == entry.threshold, row.name
        assert SLUGS[entry.name.rsplit("/", 1)[1].replace("-IN21k", " (IN21k)")] == row.name
    assert suite.protocol.mean_iou == ("union" if "cityscapes" in name and "semantic_iou" in suite.metrics else "present")


def test_the_settings_are_the_originals(shared: Path) -> None:
    configs = {c["config"]: c for c in json.loads((shared / "reference/mask2former_test_settings.json").read_bytes())}
    for suite, row, entry in rows_of(SUITES):
        theirs, ours = configs[entry.config], suite.protocol_of(row)
        assert (ours.min_size, ours.max_size) == (theirs["min_test"], theirs["max_test"]), (suite.suite, row.name)
        assert (ours.semantic_resize, ours.overlap_threshold) == (theirs["postproc"], theirs["overlap_thr"])
        assert (ours.detections, entry.queries) == (theirs["topk"], theirs["queries"])
        assert {"semantic": theirs["sem"], "instance": theirs["inst"], "panoptic": theirs["pan"]}.items() >= {
            (head, 1) for head in suite.needed_heads
        }
        if suite.task == "panoptic":
            assert ours.object_threshold == theirs["obj_thr"]
        if suite.task == "semantic":
            assert ours.tta is not None
            assert (ours.tta.min_sizes, ours.tta.max_size, ours.tta.flip) == (
                theirs["tta_min_sizes"], theirs["tta_max"], theirs["tta_flip"],
            )  # fmt: skip


def test_all_47_checkpoints_of_the_zoo_stand_in_a_suite() -> None:
    named = {row.checkpoint for name in suite_names() for row in load_suite(name).checkpoints if row.checkpoint}
    missing = {name for name in zoo_entries() if PREFIX + name not in named}
    assert len(zoo_entries()) == 47
    assert missing == {HUB[reference] for reference in named & set(HUB)} - {"coco/instance/Swin-L-IN21k"}, (
        "only those that are run from their copies on the hub"
    )


def test_multi_scale_sizes() -> None:
    for name in ("ade20k_semantic", "cityscapes_semantic", "mapillary_semantic"):
        suite = load_suite(name)
        assert [(v.name, v.tta) for v in suite.variants] == [("single-scale", None), ("multi-scale-flip", "paper")]
        for row in suite.checkpoints:
            tta = RunSpec(suite, row, suite.variants[1]).protocol.tta
            own = " 640" if name == "ade20k_semantic" and row.name.startswith(("swin-b", "swin-l")) else ""
            assert tta is not None
            assert (tta.min_sizes, tta.max_size, tta.flip) == (*TTA[name + own], True), (name, row.name)


def test_what_cannot_be_run_or_checked_says_so() -> None:
    for name in SUITES:
        suite = load_suite(name)
        for row in suite.checkpoints:
            assert (row.unavailable is not None) == ("fapn" in row.name)
        unchecked = name.endswith("test_dev") or name == "mapillary_semantic"
        assert bool(suite.tolerance) != unchecked, name
        assert set(suite.tolerance) <= set(suite.checkpoints[0].published)
        assert all(0.2 <= value <= 0.3 for value in suite.tolerance.values())
        ap = [metric for metric in suite.metrics if metric in ("coco_ap", "cityscapes_ap")]
        assert len(ap) <= 1, f"{name}: two metrics would give a figure AP"
        assert ("cityscapes_ap" in ap) == (name in ("cityscapes_panoptic", "cityscapes_instance"))


IMAGES = [{"id": k, "file_name": f"{k}.jpg", "height": 48, "width": 64} for k in (7, 3)]


def image_info(folder: Path, categories: list[dict[str, Any]]) -> None:
    """COCO test-dev in small: images, and a list of them without annotations."""
    from PIL import Image

    (folder / "annotations").mkdir()
    (folder / "test2017").mkdir()
    for image in IMAGES:
        Image.new("RGB", (64, 48), (90, 120, 30)).save(folder / "test2017" / image["file_name"])
    content = {"info": {}, "licenses": [], "images": IMAGES, "categories": categories}
    (folder / "annotations/image_info_test-dev2017.json").write_text(json.dumps(content))


def things(labels: str = "coco_instance") -> list[dict[str, Any]]:
    known = label_set(labels)
    return [{"supercategory": "x", "id": i, "name": n} for i, n in zip(known.ids, known.names, strict=True)]


@pytest.mark.parametrize("listed", ["coco_instance", "coco_panoptic"])
def test_test_dev_files_list_classes_without_isthing(listed: str, tmp_path: Path) -> None:
    from m2fbench.errors import DatasetError
    from m2fbench.scoring import open_dataset

    image_info(tmp_path, things(listed))
    dataset = open_dataset(load_suite("coco_panoptic_test_dev"), tmp_path)
    known = label_set("coco_panoptic")
    assert dict(zip(dataset.category_ids, dataset.categories, strict=True)) == dict(zip(known.ids, known.classes, strict=True))
    assert [e.image_id for e in dataset.examples()] == [3, 7]
    assert dataset.fingerprint()["annotations_sha256"] is None
    with pytest.raises(DatasetError, match="expected annotations, got images only.*--predict-only"):
        dataset.check()
    with pytest.raises(DatasetError, match="expected an annotation|expected annotations"):
        dataset.panoptic_truth(dataset.examples()[0])


def test_other_classes_without_isthing_are_refused(tmp_path: Path) -> None:
    from m2fbench.errors import DatasetError
    from m2fbench.scoring import open_dataset

    image_info(tmp_path, [{"id": 1, "name": "mine"}])
    with pytest.raises(DatasetError, match=r"categories\[0\]: expected the key 'isthing'"):
        open_dataset(load_suite("coco_panoptic_test_dev"), tmp_path)


def test_test_dev_instances_open_without_truth(tmp_path: Path) -> None:
    from m2fbench.errors import DatasetError
    from m2fbench.scoring import open_dataset

    image_info(tmp_path, things())
    dataset = open_dataset(load_suite("coco_instance_test_dev"), tmp_path)
    assert len(dataset.categories) == 80
    assert dataset.fingerprint()["annotations_sha256"] is None
    for ask in (dataset.check, dataset.coco_truth):
        with pytest.raises(DatasetError, match="expected annotations, got images only.*--predict-only"):
            ask()


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "labels"), [("coco_instance_test_dev", "coco_instance"), ("coco_panoptic_test_dev", "coco_panoptic")]
)
def test_test_dev_writes_what_the_server_takes(name: str, labels: str, tmp_path: Path, checkpoint_folder: Any) -> None:
    import numpy as np

    import m2fbench

    image_info(tmp_path, things())
    names = label_set(labels).names

    def logits(pixels: Any) -> tuple[Any, Any]:
        classes = np.full((3, len(names) + 1), -9.0, np.float32)
        classes[[0, 1, 2], [0, 17, 5]] = 9.0
        masks = np.full((3, pixels.shape[2] // 4, pixels.shape[3] // 4), -9.0, np.float32)
        masks[0, :10], masks[1, 10:20], masks[2, 20:] = 9.0, 9.0, 9.0
        return classes, masks

    suite = load_suite(name, ["protocol.min_size=64", "protocol.max_size=128", "workers=0"])
    (result,) = m2fbench.run(
        suite, checkpoints=[str(checkpoint_folder(names))], data=tmp_path, output=tmp_path / "runs", predict_only=True,
        device="cpu", loader=stub_loader(logits),
    )  # fmt: skip
    assert result.status == "predicted"
    assert result.path is not None
    made = result.path.parent / "submission"
    if labels == "coco_instance":
        entries = json.loads((made / "instance/results.json").read_bytes())
    else:
        entries = [s | a for a in json.loads((made / "panoptic.json").read_bytes())["annotations"] for s in a["segments_info"]]
        assert sorted(p.name for p in (made / "panoptic").iterdir()) == ["000000000003.png", "000000000007.png"]
    assert {(e["image_id"], e["category_id"]) for e in entries} >= {(3, 1), (7, 1)}
    assert {e["category_id"] for e in entries} <= set(label_set(labels).ids)


def test_an_ade20k_panoptic_checkpoint_fits_the_instance_task_on_its_things() -> None:
    from m2fbench.models.classes import match_classes

    panoptic, instance = label_set("ade20k"), label_set("ade20k_instance")
    match = match_classes(panoptic.names, instance.classes)
    assert match.panoptic
    assert [panoptic.classes[k].is_thing for k in match.kept] == [True] * 100
    assert [match.to_dataset[k] for k in match.kept] == list(range(100))
    assert "as a panoptic checkpoint on its things" in match.warnings[0]
    assert not match_classes(panoptic.names, panoptic.classes).warnings


def test_what_extra_classes_mean_depends_on_the_suite() -> None:
    from m2fbench.models.classes import match_classes

    with_stuff = [replace(c, is_thing=False) for c in label_set("cityscapes_instance").classes]
    (warning,) = match_classes(label_set("cityscapes").names, with_stuff).warnings
    assert warning.startswith("scored on the dataset's classes only; the others are road, sidewalk")


@pytest.mark.parametrize(("width", "size"), [(96, (512, 2048)), (128, (640, 2560)), (192, (640, 2560))])
def test_a_checkpoint_of_ones_own_is_tested_as_its_backbone_is(width: int, size: tuple[int, int], checkpoint_folder: Any) -> None:
    """``--checkpoint`` with a Swin-L of ADE20K: the settings of the suite's Swin-B and Swin-L rows, augmentation included."""
    folder = checkpoint_folder(label_set("ade20k").names)
    config = json.loads((folder / "config.json").read_text())
    config["backbone_config"] = {"model_type": "swin", "embed_dim": width}
    (folder / "config.json").write_text(json.dumps(config))
    suite, checkpoint = load_suite("ade20k_semantic"), resolve(str(folder))
    row = like_row(checkpoint, suite)
    protocol = suite.protocol if row is None else suite.protocol_of(row)
    assert (protocol.min_size, protocol.max_size) == size
    assert protocol.tta is not None
    assert protocol.tta.max_size == {512: 3584, 640: 4480}[size[0]]
    assert like_row(checkpoint, load_suite("ade20k_panoptic")) is None, "all of them are tested alike there"
