"""The three protocols beside what transformers itself gives."""

from pathlib import Path

import hotcoco.mask
import numpy as np
import pytest
import torch
from PIL import Image

from m2fbench.datasets.scenes import CATEGORIES, generate
from m2fbench.errors import CheckpointError
from m2fbench.models.classes import match_classes
from m2fbench.models.protocols import ModelClasses, Protocol, build_protocol, model_classes
from m2fbench.models.semantic import View
from m2fbench.sections import ProtocolSection
from m2fbench.types import Head, InstanceSet

CLASSES: ModelClasses = model_classes(match_classes([c.name for c in CATEGORIES], CATEGORIES[:6]), [True] * 6)


def section(name: str) -> ProtocolSection:
    return ProtocolSection.model_validate({"name": name, "min_size": 128, "max_size": 192})


def instances(protocol: Protocol, classes: torch.Tensor, masks: torch.Tensor, image: np.ndarray) -> InstanceSet:
    (data,) = protocol.prepare(image)
    found = protocol.infer([View(classes, masks, data.geometry)])
    assert found.panoptic is found.semantic is None, "only what is asked for is computed"
    assert found.instances is not None
    return found.instances


@pytest.mark.parametrize("name", ["transformers", "transformers-best"])
def test_transformers_protocols_are_transformers(name: str, tiny_checkpoint: Path) -> None:
    """Pixels, masks, classes and scores as the shipped processor gives them, stuff left out."""
    from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

    image = generate(2, 0).image
    processor = AutoImageProcessor.from_pretrained(tiny_checkpoint)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(tiny_checkpoint).eval()
    inputs = processor(images=Image.fromarray(image), return_tensors="pt")
    protocol = build_protocol(section(name), tiny_checkpoint, CLASSES, ["instance"])
    (data,) = protocol.prepare(image)
    assert torch.equal(data.pixels, inputs["pixel_values"])
    with torch.inference_mode():
        output = model(**inputs)
        for query, category in enumerate((0, 3, 3, 8)):  # random weights are never sure enough for the default threshold
            output.class_queries_logits[0, query, category] += 12
        output.masks_queries_logits = 20 * (output.masks_queries_logits - output.masks_queries_logits.median())
    options = {"threshold": 0.0, "return_binary_maps": True} if name == "transformers-best" else {}
    (found,) = processor.post_process_instance_segmentation(output, target_sizes=[image.shape[:2]], **options)
    ours = instances(protocol, output.class_queries_logits[0], output.masks_queries_logits[0], image)
    things = [(k, s) for k, s in enumerate(found["segments_info"]) if s["label_id"] < 6]
    assert len(ours) == len(things) > 0
    for index, (k, segment) in enumerate(things):
        assert ours.categories[index] == segment["label_id"]
        assert ours.scores[index] == segment["score"]
        expected = found["segmentation"][k] == 1 if options else found["segmentation"] == segment["id"]
        np.testing.assert_array_equal(hotcoco.mask.decode(ours.rles[index]).astype(bool), expected.numpy())


def test_the_default_map_loses_what_later_queries_cover(tiny_checkpoint: Path) -> None:
    """Two equal masks: the paper keeps both, the flat map leaves the first one empty."""
    classes = torch.full((2, 11), -9.0)
    classes[0, 0] = classes[1, 1] = 9.0
    masks = torch.full((2, 32, 32), -9.0)
    masks[:, 8:24, 8:24] = 9.0
    image = np.zeros((128, 128, 3), np.uint8)
    areas = {}
    for name in ("paper", "transformers", "transformers-best"):
        protocol = build_protocol(section(name), tiny_checkpoint, CLASSES, ["instance"])
        found = instances(protocol, classes, masks, image)
        confident = [r for r, s in zip(found.rles, found.scores, strict=True) if s > 0.5]
        areas[name] = sorted(int(hotcoco.mask.area(r)) for r in confident)
    assert areas["paper"][0] == areas["paper"][1] > 3000
    assert areas["transformers"][0] == 0
    assert areas["transformers-best"][0] > 3000


def test_the_paper_needs_no_processor_but_transformers_does(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_checkpoint / "config.json").read_bytes())
    build_protocol(section("paper"), tmp_path, CLASSES, ["instance"])
    with pytest.raises(CheckpointError, match="a single file has no processor; make it a folder with 'm2fbench convert'"):
        build_protocol(section("transformers"), None, CLASSES, ["instance"])
    with pytest.raises(CheckpointError, match=r"needs the checkpoint's preprocessor_config\.json"):
        build_protocol(section("transformers"), tmp_path, CLASSES, ["instance"])


def test_what_changes_the_outcome_is_described(tiny_checkpoint: Path) -> None:
    paper = build_protocol(section("paper"), tiny_checkpoint, CLASSES, ["instance"]).description
    assert paper == {"name": "paper", "min_size": 128, "max_size": 192, "detections": 100, "version": 2}
    plain = build_protocol(section("transformers"), tiny_checkpoint, CLASSES, ["instance"]).description
    assert plain["processor"].startswith("Mask2FormerImageProcessor")
    assert plain["settings"]["size"] == {"shortest_edge": 128, "longest_edge": 192}
    assert plain["settings"]["image_mean"] == pytest.approx([0.485, 0.456, 0.406]), "whatever can change the outcome is there"


@pytest.mark.parametrize("content", ["[]", '{"image_processor_type": 5}', '{"image_processor_type": "ViTImageProcessor"}', "{"])
def test_another_processor_is_refused_before_the_run(content: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_checkpoint / "config.json").read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"not there or not a Mask2Former's"):
        build_protocol(section("transformers"), tmp_path, CLASSES, ["instance"])


def test_only_things_are_kept_of_a_panoptic_model(tiny_checkpoint: Path) -> None:
    classes = torch.zeros(3, 11)
    classes[0, 7], classes[1, 2], classes[2, 9] = 9.0, 9.0, 9.0
    protocol = build_protocol(section("paper"), tiny_checkpoint, CLASSES, ["instance"])
    found = instances(protocol, classes, torch.ones(3, 32, 32), np.zeros((128, 128, 3), np.uint8))
    assert set(found.categories.tolist()) <= set(range(6))
    assert found.categories[0] == 2


@pytest.mark.parametrize("name", ["paper", "transformers", "transformers-best"])
@pytest.mark.parametrize("heads", [["instance"], ["panoptic"], ["semantic"], ["instance", "panoptic", "semantic"]], ids="+".join)
def test_the_halves_make_the_whole(name: str, heads: list[Head], tiny_checkpoint: Path) -> None:
    """``infer`` is ``finish`` after ``compute``, which leaves tensors."""
    protocol = build_protocol(section(name), tiny_checkpoint, CLASSES, heads)
    generator = torch.Generator().manual_seed(4)
    classes = 3 * torch.randn(12, 11, generator=generator)
    classes[:6, :] += 9 * torch.eye(6, 11)
    coarse = 8 * torch.randn(1, 12, 4, 5, generator=generator) - 2
    masks = torch.nn.functional.interpolate(coarse, size=(32, 48), mode="bicubic")[0]
    (data,) = protocol.prepare(np.zeros((100, 140, 3), np.uint8))
    views = [View(classes, masks, data.geometry)]
    left = protocol.compute(views)
    found, whole = protocol.finish(left), protocol.infer(views)
    assert [getattr(left, field) is not None for field in ("instances", "panoptic", "semantic")] == [
        head in heads for head in ("instance", "panoptic", "semantic")
    ]
    assert (found.instances is None, found.panoptic is None, found.semantic is None) == tuple(
        head not in heads for head in ("instance", "panoptic", "semantic")
    )
    if found.instances is not None and whole.instances is not None:
        assert len(found.instances) > 0
        assert found.instances.rles == whole.instances.rles
        for field in ("categories", "scores", "is_crowd"):
            np.testing.assert_array_equal(getattr(found.instances, field), getattr(whole.instances, field))
    if found.panoptic is not None and whole.panoptic is not None:
        assert len(found.panoptic.segments) > 0
        assert found.panoptic.segments == whole.panoptic.segments
        np.testing.assert_array_equal(found.panoptic.ids, whole.panoptic.ids)
    if found.semantic is not None and whole.semantic is not None:
        assert found.semantic.dtype == whole.semantic.dtype
        np.testing.assert_array_equal(found.semantic, whole.semantic)
