"""What ``m2fbench inspect`` says of checkpoints of every form."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_checkpoint
from pickles import CHECKPOINTS, unpack

from m2fbench.errors import CheckpointError
from m2fbench.inspection import _suites, inspect
from m2fbench.labels import label_set
from m2fbench.models.checkpoint import Checkpoint


def test_the_bundled_checkpoint() -> None:
    found = inspect("bundled:shapes_tiny")
    assert (found.family, found.form, found.parameters, found.queries) == ("Mask2Former", "transformers", 1_566_283, 24)
    assert found.suites == (
        "shapes_instance (on its things)", "shapes_layers", "shapes_panoptic", "shapes_protocols (on its things)", "shapes_report",
        "shapes_semantic", "shapes_variants (on its things)",
    )  # fmt: skip
    assert dict(found.facts())["task"].startswith("not said by the checkpoint; of the suites below, run those of the task")
    assert (found.warnings, found.problem) == ((), None)
    assert found.processor == "shortest edge 128, longest 192"


def test_an_original_file(tmp_path: Path) -> None:
    path = unpack("original_r50.pkl", tmp_path)
    found = inspect(str(path), config=str(CHECKPOINTS / "original_r50.yaml"), labels=None)
    assert found.backbone == "ResNet-50, blocks 3-4-6-3, widths 16-32-64-128"
    assert (found.form, found.queries, found.decoder_layers, len(found.classes), found.label_set) == ("detectron2", 8, 3, 5, None)
    assert found.size == path.stat().st_size
    assert found.suites == ()
    assert found.problem is None


@pytest.mark.full
def test_a_hub_checkpoint_with_the_hubs_processor_and_another_order(tmp_path: Path) -> None:
    names = list(label_set("coco_instance").names)
    names[0], names[1] = names[1], names[0]
    folder = make_checkpoint(tmp_path / "hub", names)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 384, "width": 384}}))
    found = inspect(str(folder))
    assert found.label_set == "coco_instance"
    assert found.suites == ("coco_instance", "coco_instance_protocols", "coco_instance_test_dev")
    assert found.processor == "384x384"
    assert any("resizes to 384x384, the paper tests at shortest edge 800, longest 1333" in warning for warning in found.warnings)
    assert any("another order; they were matched by name" in warning for warning in found.warnings)
    (folder / "preprocessor_config.json").unlink()
    assert any("no usable preprocessor_config.json" in warning for warning in inspect(str(folder)).warnings)


@pytest.mark.full
def test_a_single_file_needs_converting_for_transformers_protocols(tmp_path: Path) -> None:
    import pickle

    import numpy as np

    path = unpack("original_r50.pkl", tmp_path)
    content = dict(pickle.loads(path.read_bytes()))
    head = "sem_seg_head.predictor.class_embed"
    content["model"] = dict(content["model"]) | {f"{head}.weight": np.zeros((134, 64), "f4"), f"{head}.bias": np.zeros(134, "f4")}
    del content["model"]["criterion.empty_weight"]
    path.write_bytes(pickle.dumps(content))
    assert inspect(str(path)).suites == (
        "coco_instance (on its things)",
        "coco_instance_protocols (on its things, after 'm2fbench convert')",
        "coco_instance_test_dev (on its things)",
        "coco_panoptic",
        "coco_panoptic_test_dev",
    )


@pytest.mark.full
def test_a_panoptic_checkpoint_fits_instance_suites_on_its_things(tmp_path: Path) -> None:
    found = inspect(str(make_checkpoint(tmp_path / "hub", label_set("coco_panoptic").names)))
    assert {"coco_instance (on its things)", "coco_panoptic"} <= set(found.suites)
    assert not any(suite.startswith(("ade20k", "cityscapes", "mapillary")) for suite in found.suites)


SWIN_T, SWIN_L = ({"model_type": "mask2former", "backbone_config": {"model_type": "swin", "embed_dim": n}} for n in (96, 192))
ADE_THINGS = "ade20k_instance (on its things)"


@pytest.mark.parametrize(
    ("labels", "task", "fitting"),
    [
        ("ade20k", None, (ADE_THINGS, "ade20k_panoptic", "ade20k_semantic")),
        ("ade20k", "panoptic", (ADE_THINGS, "ade20k_panoptic", "ade20k_semantic")),
        ("ade20k", "semantic", ("ade20k_semantic",)),
        ("ade20k_instance", "instance", ("ade20k_instance",)),
        ("cityscapes", None, ("cityscapes_instance (on its things)", "cityscapes_panoptic", "cityscapes_semantic")),
        ("cityscapes", "panoptic", ("cityscapes_instance (on its things)", "cityscapes_panoptic", "cityscapes_semantic")),
        ("cityscapes", "semantic", ("cityscapes_semantic",)),
        ("cityscapes_instance", None, ("cityscapes_instance",)),
        ("mapillary_vistas", None, ("mapillary_panoptic", "mapillary_semantic")),
        ("mapillary_vistas", "semantic", ("mapillary_semantic",)),
    ],
)
def test_suites_of_the_task_that_a_checkpoint_says(labels: str, task: str | None, fitting: tuple[str, ...]) -> None:
    checkpoint = Checkpoint("x", Path(), None, "", label_set(labels).names, 100, "swin", (), config=SWIN_T, task=task)
    assert _suites(checkpoint)[0] == fitting


def test_a_suite_that_tests_at_another_size_is_said_but_not_of_the_suites_own_row() -> None:
    names = label_set("ade20k").names
    large = Checkpoint("x/large", Path(), None, "", names, 100, "swin", (), config=SWIN_L)
    fitting, notes = _suites(large)
    assert "ade20k_semantic" in fitting
    assert notes == ["in ade20k_semantic, tested at 512/2048, where the published settings of ade20k/semantic are 640/2560"]
    assert _suites(replace(large, reference="zoo:ade20k/semantic/Swin-L-IN21k"))[1] == []
    panoptic = replace(large, config=SWIN_T, task="panoptic", test_size=(640, 2560), test_size_origin="the model zoo")
    assert _suites(panoptic)[1] == ["in ade20k_semantic, tested at 512/2048, where the model zoo says 640/2560"]


@pytest.mark.full
def test_a_processor_is_held_to_every_size_that_the_task_may_have(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "hub", label_set("ade20k").names)
    either = "shortest edge 640, longest 2560 (panoptic) or shortest edge 512, longest 2048 (semantic)"
    assert any(f"the paper tests at {either}" in warning for warning in inspect(str(folder)).warnings)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 512, "longest_edge": 2048}}))
    assert inspect(str(folder)).warnings == ()


def test_weights_that_do_not_load_are_a_problem_not_the_end(tmp_path: Path) -> None:
    import safetensors.torch

    folder = make_checkpoint(tmp_path / "hub", ["a", "b"])
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state.pop("class_predictor.bias")
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    found = inspect(str(folder))
    assert found.parameters is None
    assert found.problem is not None
    assert "a weight is missing from the checkpoint: class_predictor.bias" in found.problem
    with pytest.raises(CheckpointError):
        inspect(str(tmp_path / "gone"))


@pytest.mark.full
def test_the_command(cli: Callable[..., Any], tmp_path: Path) -> None:
    outcome = cli("inspect", "bundled:shapes_tiny")
    assert outcome.returncode == 0
    for part in ("Mask2Former, 24 queries, 5 decoder layers", "1,566,283 (1.6 M)", "shapes_instance", "sha256 "):
        assert part in outcome.stdout, part
    outcome = cli("inspect", unpack("mmdetection_swin.pth", tmp_path), "--json")
    found = json.loads(outcome.stdout)
    assert (found["form"], found["classes"][0], found["backbone"]) == (
        "mmdetection",
        "thing0",
        "Swin, blocks 1-1-2-1, width 8, window 3",
    )
    (tmp_path / "x.pkl").write_bytes(b"cos\nsystem\n(S'touch exploited'\ntR.")
    outcome = cli("inspect", tmp_path / "x.pkl", cwd=tmp_path)
    assert outcome.returncode == 2
    assert "contains 'os.system'" in outcome.stderr
    assert not (tmp_path / "exploited").exists()
