"""Original checkpoints as transformers folders: the same logits and the same run, bit for bit."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_checkpoint
from pickles import CHECKPOINTS, unpack

from m2fbench import run
from m2fbench.datasets.scenes import CATEGORIES
from m2fbench.errors import CheckpointError
from m2fbench.labels import label_set
from m2fbench.models.checkpoint import Checkpoint, resolve
from m2fbench.models.convert import Conversion, request
from m2fbench.models.convert import convert as convert_as
from m2fbench.models.load import load
from m2fbench.models.published import paper_size
from m2fbench.sections import Variant

PLAIN = Variant(name="plain")
FORMS = ["original_r50.pkl", "original_swin.pkl", "mmdetection_r50.pth", "mmdetection_swin.pth"]


@pytest.fixture(params=FORMS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    return resolve(str(unpack(request.param, tmp_path)))


def convert(checkpoint: Checkpoint, target: Path, size: str | None = None, *, force: bool = False) -> Conversion:
    return convert_as(checkpoint, request(target, size=size, force=force))


def logits(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.load(CHECKPOINTS / "original_r50.npz")["pixels"]
    return load(checkpoint, PLAIN, "cpu").forward(torch.from_numpy(pixels))


@pytest.mark.full
def test_the_folder_gives_the_same_logits_bit_for_bit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from transformers import Mask2FormerForUniversalSegmentation

    made = convert(checkpoint, tmp_path / "made", size="800/1333")
    expected = logits(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(logits(resolve(str(made.folder))), expected, strict=True))
    model, report = Mask2FormerForUniversalSegmentation.from_pretrained(made.folder, output_loading_info=True)
    assert not any(report.values())
    with torch.inference_mode():
        output = model.eval()(torch.from_numpy(np.load(CHECKPOINTS / "original_r50.npz")["pixels"]))
    assert torch.equal(output.class_queries_logits[0], expected[0])
    assert torch.equal(output.masks_queries_logits[0], expected[1])


@pytest.mark.full
def test_what_is_in_the_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    made = convert(checkpoint, tmp_path / "made", size="640/2560")
    (plain := tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in made.folder.iterdir()} == {plain.stat().st_mode}, "as the umask says"
    assert sorted(p.name for p in made.folder.iterdir()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    config = json.loads((made.folder / "config.json").read_text())
    assert tuple(config["id2label"].values()) == checkpoint.labels
    processor = json.loads((made.folder / "preprocessor_config.json").read_text())
    assert processor["size"] == {"shortest_edge": 640, "longest_edge": 2560}
    again = resolve(str(made.folder))
    assert (again.labels, again.queries, again.backbone) == (checkpoint.labels, checkpoint.queries, checkpoint.backbone)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.full
def test_the_processor_prepares_an_image_as_the_paper_does_up_to_its_stretching(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """transformers' processor stretches to a multiple of 32; where the size is one already, the inputs are the same."""
    from transformers import AutoImageProcessor

    from m2fbench.models.preprocess import preprocess

    made = convert(checkpoint, tmp_path / "made", size="96/128")
    processor = AutoImageProcessor.from_pretrained(made.folder)
    image = np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    ours = preprocess(image, 96, 128).pixels
    theirs = processor(images=image, return_tensors="pt")["pixel_values"]
    assert theirs.shape == ours.shape == (1, 3, 96, 128)
    torch.testing.assert_close(theirs, ours, atol=2e-6, rtol=0)


SUITE = """
suite: both
title: original and converted
task: instance
dataset: {{name: shapes, split: val, count: 4}}
protocol: {{min_size: 128, max_size: 192}}
metrics: [coco_ap]
checkpoints:
  - {{name: original, checkpoint: {original}, labels: {labels}}}
  - {{name: converted, checkpoint: {converted}}}
"""


@pytest.mark.full
@pytest.mark.parametrize("form", ["original_r50.pkl", "original_swin.pkl"])
def test_a_run_of_the_original_is_a_run_of_the_converted(form: str, tmp_path: Path) -> None:
    path = unpack(form, tmp_path)
    content = dict(pickle.loads(path.read_bytes()))
    rng, head = np.random.default_rng(1), "sem_seg_head.predictor.class_embed"
    classes = {f"{head}.weight": (11, 64), f"{head}.bias": (11,), "criterion.empty_weight": (11,)}
    content["model"] = dict(content["model"]) | {k: rng.normal(size=s).astype(np.float32) for k, s in classes.items()}
    path.write_bytes(pickle.dumps(content))
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(c.name for c in CATEGORIES))
    made = convert(resolve(str(path), labels=str(labels)), tmp_path / "made", size="128/192")
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE.format(original=path, converted=made.folder, labels=labels))
    first, second = run(suite, output=tmp_path / "runs")
    assert repr(first.measurements) == repr(second.measurements)
    texts = [(result.path.parent / "predictions.json").read_text() for result in (first, second) if result.path]
    assert texts[0] == texts[1]
    assert len(json.loads(texts[0])) > 100
    assert first.checkpoint["form"] == "detectron2"
    assert first.checkpoint["sha256"] != second.checkpoint["sha256"]


@pytest.mark.full
def test_what_is_there_is_not_lost(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "made"
    target.mkdir()
    convert(checkpoint, target, size="1/2")  # an empty folder
    with pytest.raises(CheckpointError, match="or replace it with --force"):
        convert(checkpoint, target, size="3/4")
    convert(checkpoint, target, size="3/4", force=True)
    assert json.loads((target / "preprocessor_config.json").read_text())["size"]["shortest_edge"] == 3
    (target / "mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(CheckpointError, match=r"holds more than a checkpoint \(mine\.txt\)"):
            convert(checkpoint, target, size="1/2", force=force)
    (target / "mine.txt").unlink()
    for elsewhere in (target, target / ".."):  # the folder one is in, and one that is above it
        monkeypatch.chdir(target)
        with pytest.raises(CheckpointError, match="is the folder you are in|holds more than"):
            convert(checkpoint, elsewhere, size="1/2", force=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="holds the checkpoint that is to be converted"):
        convert(resolve(str(target)), target, size="1/2", force=True)
    monkeypatch.setattr(Path, "rename", _failing_after(1, Path.rename))
    with pytest.raises(CheckpointError, match="cannot be written: no more"):
        convert(checkpoint, target, size="5/6", force=True)
    monkeypatch.undo()
    assert json.loads((target / "preprocessor_config.json").read_text())["size"]["shortest_edge"] == 3
    assert resolve(str(target)).labels == checkpoint.labels
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "made"):
        with pytest.raises(CheckpointError, match="is there and no folder|cannot be written"):
            convert(checkpoint, path, size="1/2", force=True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def _failing_after(count: int, rename: Callable[..., Any]) -> Callable[..., Any]:
    """Path.rename that works ``count`` times, fails once, and works again."""
    calls = []

    def call(path: Path, target: Path) -> Any:
        calls.append(path)
        if len(calls) == count + 1:
            raise OSError("no more")
        return rename(path, target)

    return call


@pytest.mark.full
def test_a_hub_checkpoint_gets_the_papers_sizes(tmp_path: Path) -> None:
    """The hub's processors say 384x384."""
    folder = make_checkpoint(tmp_path / "hub", label_set("coco_panoptic").names)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "Mask2FormerImageProcessor", "size": {"height": 384, "width": 384}}'
    )
    made = convert(resolve(str(folder)), tmp_path / "made")
    assert (made.size, made.origin) == ((800, 1333), "the published settings of coco/panoptic")
    assert all(torch.equal(a, b) for a, b in zip(logits(resolve(str(folder))), logits(resolve(str(made.folder))), strict=True))


@pytest.mark.full
def test_a_folder_keeps_its_own_size_where_nothing_is_published(tmp_path: Path) -> None:
    made = convert(resolve("bundled:shapes_tiny"), tmp_path / "made")
    assert (made.size, made.origin) == ((128, 192), "as its own processor")


def test_a_task_that_is_not_the_configs(tmp_path: Path) -> None:
    checkpoint = resolve(str(unpack("original_r50.pkl", tmp_path)), config=str(CHECKPOINTS / "original_r50.yaml"))
    with pytest.raises(CheckpointError, match=r"says panoptic, tested at 800/1333; leave --task semantic out"):
        paper_size(checkpoint, "semantic")


def size_of(labels: str, task: str | None = None, width: int = 96) -> Any:
    config = {"model_type": "mask2former", "backbone_config": {"model_type": "swin", "embed_dim": width}}
    names = label_set(labels).names
    checkpoint = Checkpoint("x", Path(), None, "", names, 100, "swin", (), config=config)
    return paper_size(checkpoint, task)[0]


def test_the_papers_sizes() -> None:
    assert size_of("coco_instance") == size_of("coco_panoptic") == (800, 1333)
    assert size_of("ade20k", "semantic") == (512, 2048)
    assert size_of("ade20k", "semantic", 192) == (640, 2560)
    assert size_of("ade20k", "panoptic") == size_of("ade20k", "panoptic", 192) == (640, 2560)
    assert size_of("ade20k_instance") == (640, 2560)
    assert size_of("cityscapes") == size_of("cityscapes_instance") == (1024, 2048)
    assert size_of("mapillary_vistas") == (2048, 2048)
    with pytest.raises(CheckpointError, match=r"say --task panoptic \(640/2560\) or --task semantic \(512/2048\)"):
        size_of("ade20k")
    with pytest.raises(
        CheckpointError, match="its classes are Cityscapes's, published for panoptic and semantic, not instance; leave --task out"
    ):
        size_of("cityscapes", "instance")


def test_requests_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    assert request(tmp_path / "x", size="800/1333").size == (800, 1333)
    assert request(tmp_path / "x").size is None
    for text in ("800", "1333/800", "a/b", "0/5", "1/2/3"):
        with pytest.raises(CheckpointError, match="expected SHORTEST/LONGEST"):
            request(tmp_path / "x", size=text)
    with pytest.raises(CheckpointError, match="did you mean 'panoptic'"):
        request(tmp_path / "x", task="panoptik")


@pytest.mark.full
def test_the_command(cli: Callable[..., Any], tmp_path: Path) -> None:
    path = unpack("original_r50.pkl", tmp_path)
    outcome = cli("convert", path, tmp_path / "made")
    assert outcome.returncode == 2
    assert "say at what size it is tested with --size" in outcome.stderr
    outcome = cli("convert", path, tmp_path / "made", "--task", "panoptik")
    assert "did you mean 'panoptic'" in outcome.stderr
    outcome = cli("convert", path, tmp_path / "made", "--config", CHECKPOINTS / "original_r50.yaml")
    assert outcome.returncode == 0, outcome.stderr
    assert "its processor resizes to 800/1333" in outcome.stdout
    assert (tmp_path / "made" / "model.safetensors").is_file()
